//! Counters of data messages: which are accepted once and which are never accepted, up to the very end of their range.
//!
//! The cases are those of RFC 6479 and of the kernel's own test, adapted to boringtun's window of 1,024 counters: the
//! highest accepted counter and the 1,023 below it.

use std::collections::BTreeMap;

use overlay_sim::{HostOptions, Scene, seconds};

/// How far below the highest counter a counter is still accepted.
const WINDOW: u64 = 1_023;
/// Counters from this value on are refused: 2^64 - 2^13 - 1.
const REJECT_AFTER_MESSAGES: u64 = 0xffff_ffff_ffff_dfff;

/// A session in which no counter was used yet.
fn fresh() -> Scene {
    Scene::unconfirmed(HostOptions::default(), |_| {})
}

/// What carol says under counters that she chooses.
trait Counters {
    /// Whether a packet under this counter is delivered.
    fn takes(&mut self, counter: u64) -> bool;

    /// Requires that all of these counters are taken, or none.
    fn expect(&mut self, counters: impl IntoIterator<Item = u64>, taken: bool);
}

impl Counters for Scene {
    fn takes(&mut self, counter: u64) -> bool {
        let packet = self.world.from_outsider(&self.carol).udp(&counter.to_be_bytes());
        let before = self.world.received(self.alice).len();
        self.world.inject(self.carol.address, self.alice, &self.session.seal_as_is(counter, &packet));
        let received = &self.world.received(self.alice)[before..];
        assert!(received.len() <= 1 && received.iter().all(|it| it.packet == packet), "counter {counter}");
        !received.is_empty()
    }

    #[track_caller]
    fn expect(&mut self, counters: impl IntoIterator<Item = u64>, taken: bool) {
        for counter in counters {
            assert_eq!(self.takes(counter), taken, "counter {counter}");
        }
    }
}

#[test]
fn each_counter_is_taken_once_in_any_order_within_the_window() {
    let mut scene = fresh();
    scene.expect([0, 1, 9, 8, 7], true);
    scene.expect([0, 1, 9, 8, 7], false);
    // The window moves on. Its lowest counter is now 2.
    scene.expect([WINDOW + 2, WINDOW + 1, WINDOW, 2], true);
    scene.expect([WINDOW + 2, WINDOW + 1, WINDOW, 2, 1, 0], false);
    // It moves by sixteen more. Counters behind it are refused, whether they were used or not.
    scene.expect([WINDOW + 17], true);
    scene.expect([3, 10, 16, WINDOW + 17], false);
    scene.expect([17, 18], true);
    // A jump over several windows.
    let high = 4 * WINDOW;
    scene.expect([high, high - WINDOW, high - WINDOW + 1], true);
    scene.expect([10, WINDOW + 18, high - WINDOW - 1, high - WINDOW - 2, high - WINDOW, high], false);
    scene.expect([high + 1], true);
    scene.expect([high - WINDOW, 0], false);
    assert_eq!(scene.world.drops(scene.alice).keys().collect::<Vec<_>>(), [&"replay"]);
}

#[test]
fn the_end_of_the_range_is_a_wall_and_what_lies_before_it_is_taken() {
    let mut scene = fresh();
    let end = REJECT_AFTER_MESSAGES;
    scene.expect([end, end + 1, u64::MAX], false);
    scene.expect([end - 1], true);
    scene.expect([end, end - 1], false);
    scene.expect([end - 2], true);
    scene.expect([end + 1, end + 2, end - 2], false);
    scene.expect([end - 3, end - 1 - WINDOW], true);
    scene.expect([end - 2 - WINDOW, 0, 1, end - 3], false);
    // The peer cannot continue in this session, but can in the next.
    scene.world.run_for(seconds(1));
    scene.session = scene.world.connect(&mut scene.carol);
    scene.expect([1, 2, 3], true);
    assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("counter_exhausted", 6), ("replay", 6)]));
}

#[test]
fn the_whole_window_may_come_in_any_order() {
    type Order = fn(u64) -> Vec<u64>;
    let orders: [(&str, Order); 5] = [
        ("rising", |from| (from..=from + WINDOW).collect()),
        ("falling", |from| (from..=from + WINDOW).rev().collect()),
        ("the first last", |from| (from + 1..=from + WINDOW).chain([from]).collect()),
        ("the last first", |from| [from + WINDOW].into_iter().chain(from..from + WINDOW).collect()),
        ("each 37th", |from| (0..=WINDOW).map(|n| from + n * 37 % (WINDOW + 1)).collect()),
    ];
    for (name, order) in orders {
        // The beginnings of words and of the bitmap, and values next to them.
        for from in [0, 1, 63, 64, 65, 1_000, 1_023, 1_024, 1_025, (1 << 32) - 5] {
            let mut scene = fresh();
            let counters = order(from);
            assert_eq!(counters.len() as u64, WINDOW + 1);
            for counter in &counters {
                assert!(scene.takes(*counter), "{name} from {from}: {counter}");
            }
            for counter in counters {
                assert!(!scene.takes(counter), "{name} from {from}: {counter} again");
            }
            scene.expect([from.wrapping_sub(1).min(from)].into_iter().filter(|it| *it != from), false);
        }
    }
}

#[test]
fn one_more_than_the_window_is_too_late() {
    for from in [0, 1, 63, 64, 1_000] {
        let mut scene = fresh();
        scene.expect(from + 1..=from + 1 + WINDOW, true);
        scene.expect([from], false);
        let mut scene = fresh();
        scene.expect((from + 1..=from + 1 + WINDOW).rev(), true);
        scene.expect([from], false);
    }
}

#[test]
fn a_leap_forgets_no_replay_and_blocks_no_latecomer() {
    for leap in [1, 2, 63, 64, 65, 127, 128, 500, 959, 960, 961, 1_022, 1_023, 1_024, 1_025, 10_000] {
        for from in [0, 5, 64, 100] {
            let mut scene = fresh();
            let taken: Vec<_> = (from..from + 200).step_by(3).collect();
            scene.expect(taken.iter().copied(), true);
            let high = taken.last().expect("some") + leap;
            scene.expect([high], true);
            for counter in (from..from + 200).chain(high.saturating_sub(70)..=high) {
                let is_new = !taken.contains(&counter) && counter != high;
                let is_within = counter + WINDOW >= high;
                let was = scene.takes(counter);
                assert_eq!(was, is_new && is_within, "{counter} after a leap of {leap} from {from}");
                // A counter may be tried twice where both ranges overlap.
                if was {
                    assert!(!scene.takes(counter));
                }
                if was && counter < from + 200 && counter + 70 >= high {
                    break;
                }
            }
        }
    }
}
