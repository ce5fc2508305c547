//! Replays. Counters of data messages: which are accepted once and which are never accepted, up to the very end of their
//! range. Initiations: which ones stay replays when peers, keys and programs come and go.
//!
//! The cases of counters are those of RFC 6479 and of the kernel's own test, adapted to boringtun's window of 1,024 counters: the
//! highest accepted counter and the 1,023 below it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay_core::PeerConfig;
use overlay_sim::{HostId, HostOptions, Outsider, Scene, World, key_pair, millis, seconds};

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

/// Where carol is.
fn home() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 77], 51820))
}

/// A host with the peer carol, whose endpoint is configured.
fn with_carol() -> (World, HostId, Outsider) {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider_with(alice, |peer| peer.endpoint = Some(home()));
    carol.address = home();
    (world, alice, carol)
}

/// Adds carol as she was.
fn add(world: &mut World, carol: &Outsider) {
    let config = PeerConfig {
        endpoint: Some(home()),
        allowed_ips: carol.inner.map(Into::into).to_vec(),
        ..PeerConfig::of(carol.key())
    };
    world.configure(carol.host, config).expect("a peer");
}

/// Somebody who listened on the wire sends this again. Returns how many answers went there, and the endpoint that the
/// host reported, if any.
fn replayed(world: &mut World, carol: &Outsider, message: &[u8]) -> (usize, Option<SocketAddr>) {
    world.run_for(seconds(1));
    let answers = world.ask(SocketAddr::from(([198, 51, 100, 66], 7)), carol.host, message).len();
    (answers, world.last_endpoint(carol.host, carol.key()))
}

#[test]
fn an_old_initiation_moves_no_peer_that_was_removed_and_added() {
    let (mut world, alice, mut carol) = with_carol();
    let older = carol.initiate();
    let old = carol.initiate();
    assert_eq!(world.ask(home(), alice, &old.message).len(), 1);
    // Twice: the second time, the replay state was not in use in between.
    for _ in 0..2 {
        world.remove_peer(alice, carol.key());
        add(&mut world, &carol);
    }
    for message in [&old.message, &older.message] {
        assert_eq!(replayed(&mut world, &carol, message), (0, None));
    }
    assert_eq!(world.drops(alice)["handshake_replay"], 2);
    // Then in a session of the new peer, which is removed as well.
    world.connect(&mut carol);
    world.remove_peer(alice, carol.key());
    add(&mut world, &carol);
    assert_eq!(replayed(&mut world, &carol, &old.message), (0, None));
    world.connect(&mut carol);
}

#[test]
fn an_old_initiation_moves_no_peer_after_an_orderly_restart() {
    let (mut world, alice, mut carol) = with_carol();
    let old = carol.initiate();
    assert_eq!(world.ask(home(), alice, &old.message).len(), 1);
    for _ in 0..2 {
        world.restart_in_order(alice);
        world.run_for(millis(100));
        assert_eq!(replayed(&mut world, &carol, &old.message).0, 0);
        assert!(world.drops(alice)["handshake_replay"] > 0, "{:?}", world.drops(alice));
    }
    world.connect(&mut carol);
    // A killed node leaves nothing. Then the first timestamp counts, as in WireGuard.
    world.restart(alice);
    assert_eq!(replayed(&mut world, &carol, &old.message).0, 1);
}

#[test]
fn an_orderly_restart_keeps_the_replays_of_a_peer_that_is_called_at_once() {
    let (mut world, alice, mut carol) = with_carol();
    let config = PeerConfig {
        endpoint: Some(home()),
        persistent_keepalive: Some(seconds(25)),
        allowed_ips: carol.inner.map(Into::into).to_vec(),
        ..PeerConfig::of(carol.key())
    };
    world.configure(alice, config).expect("a peer");
    let old = carol.initiate();
    assert!(!world.ask(home(), alice, &old.message).is_empty());
    world.take_mail(home());
    world.restart_in_order(alice);
    world.run_for(millis(500));
    assert_eq!(replayed(&mut world, &carol, &old.message).0, 0);
    // The initiation that was out meanwhile is answered.
    let mail = world.take_mail(home());
    let initiation = mail.iter().find(|message| message[0] == 1).expect("a call");
    let (response, session, _) = carol.initiator.answer(initiation, 5).expect("for us");
    let said = world.ask(home(), alice, &response);
    assert!(said.iter().any(|message| session.open(message).is_ok()), "the session is confirmed");
}

#[test]
fn replays_stay_replays_when_a_peer_gets_its_former_key_back() {
    let (mut world, alice, mut carol) = with_carol();
    let old = carol.initiate();
    assert_eq!(world.ask(home(), alice, &old.message).len(), 1);
    let (_, interim) = key_pair(9);
    world.replace_key(alice, carol.key(), interim);
    world.replace_key(alice, interim, carol.key());
    assert_eq!(replayed(&mut world, &carol, &old.message), (0, None));
    world.connect(&mut carol);
}

/// This is WireGuard's behaviour, and an orderly restart does not change it. See `docs/limits.md`.
#[test]
fn a_peer_whose_clock_was_set_back_is_refused_until_we_forget() {
    let (mut world, alice, mut carol) = with_carol();
    world.connect(&mut carol);
    carol.seconds -= 3_600;
    for _ in 0..2 {
        let late = carol.initiate();
        world.run_for(seconds(1));
        assert!(world.ask(home(), alice, &late.message).is_empty());
        world.restart_in_order(alice);
    }
    // The program was killed, or the file was removed before the start.
    world.restart(alice);
    world.connect(&mut carol);
    carol.seconds -= 3_600;
    world.remove_peer(alice, carol.key());
    world.run_for(seconds(2 * 60 * 60));
    add(&mut world, &carol);
    world.connect(&mut carol);
}
