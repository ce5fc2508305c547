//! Tests the search on a simulated path: a true size, a round trip, a loss in each direction and a router that may report.
//! The clock jumps from deadline to deadline.

mod falls;

use std::collections::VecDeque;

use rand_core::SeedableRng;

use super::flight::Sent;
use super::*;

/// What a middle hop does with a packet that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Router {
    Silent,
    Announces,
}

struct World {
    search: Search,
    rng: ChaCha8Rng,
    now: Instant,
    truth: usize,
    round_trip: Duration,
    /// Loss in each direction, in percent.
    loss: u32,
    router: Router,
    /// The smallest size that our own kernel refuses.
    refuses: usize,
    is_dead: bool,
    /// The interval at which large packets are sent. Zero: none are sent.
    busy: Duration,
    busy_at: Instant,
    replies: VecDeque<(Instant, Probe)>,
    /// When each probe went out, and its size.
    sent: Vec<(Instant, usize)>,
    mtu: Option<usize>,
    /// When the size became smaller.
    falls: Vec<Instant>,
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const CEILING: usize = 8940;

impl World {
    fn new(truth: usize) -> Self {
        let now = Instant::from_start(1000 * SECOND);
        Self {
            search: Search::new(CEILING, now),
            rng: ChaCha8Rng::seed_from_u64(1),
            now,
            truth,
            round_trip: 2 * MS,
            loss: 0,
            router: Router::Silent,
            refuses: usize::MAX,
            is_dead: false,
            busy: Duration::ZERO,
            busy_at: now,
            replies: VecDeque::new(),
            sent: Vec::new(),
            mtu: None,
            falls: Vec::new(),
        }
    }

    /// A world whose path carries `truth`, and whose search has found it.
    fn found(truth: usize) -> Self {
        let mut world = Self::new(truth);
        world.run_until_found(20 * SECOND);
        world.sent.clear();
        world
    }

    fn is_lost(&mut self) -> bool {
        self.loss > 0 && self.rng.next_u32() % 100 < self.loss
    }

    /// Sends what is due now.
    fn pump(&mut self) {
        while let Some(probe) = self.search.poll(self.now, &mut self.rng) {
            self.sent.push((self.now, probe.size));
            if probe.size >= self.refuses {
                self.search.on_refused(probe.size, self.now);
                continue;
            }
            if probe.size > self.truth && self.router == Router::Announces && !self.is_dead {
                self.search.on_too_big(self.truth);
            }
            let (there, back) = (self.is_lost(), self.is_lost());
            if probe.size <= self.truth && !self.is_dead && !there && !back {
                self.replies.push_back((self.now + self.round_trip, probe));
            }
        }
        let before = std::mem::replace(&mut self.mtu, self.search.mtu());
        if self.mtu < before {
            self.falls.push(self.now);
        }
    }

    fn run_until(&mut self, end: Instant, stop: impl Fn(&Search) -> bool) {
        self.pump();
        while !stop(&self.search) {
            let reply = self.replies.front().map(|(at, _)| *at);
            let busy = (!self.busy.is_zero()).then_some(self.busy_at.max(self.now));
            let next = [self.search.deadline(), reply, busy].into_iter().flatten().min().unwrap_or(end).min(end);
            if next >= end && self.now >= end {
                break;
            }
            self.now = self.now.max(next);
            if self.now >= end {
                break;
            }
            if let Some((_, probe)) = self.replies.pop_front_if(|(at, _)| *at <= self.now)
                && !self.is_dead
            {
                self.search.on_reply(probe.id, probe.size, self.now);
            }
            if !self.busy.is_zero() && self.busy_at <= self.now {
                self.search.on_large_sent(self.now);
                self.busy_at = self.now + self.busy;
            }
            self.pump();
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// Runs until the size is found, and returns how long that took.
    fn run_until_found(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        self.run_until(start + limit, |search| search.state().phase == Phase::Found);
        assert_eq!(self.search.state().phase, Phase::Found, "{:?}", self.search);
        self.now.since(start)
    }

    fn assert_true(&self) {
        let mtu = self.search.mtu().expect("there is one");
        assert!(mtu <= self.truth && mtu + 16 >= self.truth, "{mtu} for {}: {:?}", self.truth, self.search);
    }
}

/// The states that a search can be in, with a probe under way unless it is idle. The true size is 1440, the ceiling 8940.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// BASE is under way.
    New,
    /// BASE was answered, the ceiling is under way.
    Ceiling,
    /// 1432 is proven, and 1440 failed. 1440 is tried until the failure is certain.
    Confirming,
    /// 1440 is proven, nothing is under way.
    Found,
    /// Large packets are sent, 1440 is under way.
    Watching,
    /// The watch probe was lost, and BASE is under way.
    Unsure,
    /// BASE was answered, 1440 is under way again.
    Doubting,
}

/// What happens to the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Answered,
    Lost,
    Refused(usize),
    TooBig(usize),
    LargeSent,
    PathChange,
}

impl At {
    fn reach(self) -> World {
        let mut world = match self {
            At::New | At::Ceiling => World::new(1440),
            At::Confirming => World::new(1432),
            _ => World::found(1440),
        };
        match self {
            At::New => world.pump(),
            At::Ceiling => world.run(3 * MS),
            At::Confirming => {
                let end = world.now + 20 * SECOND;
                world.run_until(end, |search| {
                    search.climb.failure() == Some(Failure::Lost { size: 1440, losses: CERTAIN - 1 })
                        && !search.watch.is_unsure()
                        && search.flight.under_way.is_some()
                });
            }
            At::Found => world.now = world.now + 2 * SECOND,
            At::Watching | At::Unsure | At::Doubting => {
                world.now = world.now + 2 * SECOND;
                world.search.on_large_sent(world.now);
                world.truth = 1300;
                world.pump();
            }
        }
        if matches!(self, At::Unsure | At::Doubting) {
            world.run(151 * MS);
        }
        if self == At::Doubting {
            world.run(3 * MS);
        }
        world
    }
}

#[test]
fn the_transition_table() {
    use At::*;
    use Fact::*;
    use Phase as P;
    const FOUND: Limit = Limit::Unanswered(1448);
    const TOP: Limit = Limit::Ceiling(8940);
    const UNKNOWN: Limit = Limit::Unanswered(BASE);
    // Each row: the state and what happens; then the phase, proven size, limit, and probe under way.
    #[rustfmt::skip]
    let table = [
        (New,        Answered,      P::Searching,  Some(1200), TOP,                     Some(8940)),
        (New,        Lost,          P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (New,        Refused(1440), P::Unanswered, None,       Limit::Refused(1440),    Some(1200)),
        (New,        Refused(1200), P::Unanswered, None,       Limit::Refused(1200),    Some(1200)),
        (New,        TooBig(1300),  P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (New,        LargeSent,     P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (New,        PathChange,    P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (Ceiling,    Answered,      P::Found,      Some(8940), TOP,                     None),
        (Ceiling,    Lost,          P::Searching,  Some(1200), TOP,                     Some(8940)),
        (Ceiling,    Refused(8940), P::Searching,  Some(1200), Limit::Refused(8940),    Some(1380)),
        (Ceiling,    Refused(1200), P::Unanswered, None,       Limit::Refused(1200),    Some(1200)),
        (Ceiling,    TooBig(1300),  P::Searching,  Some(1200), TOP,                     Some(8940)),
        (Ceiling,    LargeSent,     P::Searching,  Some(1200), TOP,                     Some(8940)),
        (Ceiling,    PathChange,    P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (Confirming, Answered,      P::Searching,  Some(1440), TOP,                     Some(8940)),
        (Confirming, Lost,          P::Searching,  Some(1432), Limit::Unanswered(1440), Some(1200)),
        (Confirming, Refused(1440), P::Found,      Some(1432), Limit::Refused(1440),    None),
        (Confirming, Refused(1400), P::Searching,  Some(1200), Limit::Refused(1400),    Some(1308)),
        (Confirming, TooBig(1300),  P::Searching,  Some(1432), Limit::Unanswered(1440), Some(1440)),
        (Confirming, LargeSent,     P::Searching,  Some(1432), Limit::Unanswered(1440), Some(1440)),
        (Confirming, PathChange,    P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (Found,      Refused(1440), P::Searching,  Some(1200), Limit::Refused(1440),    Some(1340)),
        (Found,      Refused(1448), P::Found,      Some(1440), Limit::Refused(1448),    None),
        (Found,      TooBig(1300),  P::Found,      Some(1440), FOUND,                   Some(1440)),
        (Found,      TooBig(2000),  P::Found,      Some(1440), FOUND,                   None),
        (Found,      LargeSent,     P::Found,      Some(1440), FOUND,                   Some(1440)),
        (Found,      PathChange,    P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (Watching,   Answered,      P::Found,      Some(1440), FOUND,                   None),
        (Watching,   Lost,          P::Doubted,    Some(1440), FOUND,                   Some(1200)),
        (Watching,   TooBig(1300),  P::Found,      Some(1440), FOUND,                   Some(1440)),
        (Watching,   LargeSent,     P::Found,      Some(1440), FOUND,                   Some(1440)),
        (Unsure,     Answered,      P::Doubted,    Some(1440), FOUND,                   Some(1440)),
        (Unsure,     Lost,          P::Doubted,    Some(1440), FOUND,                   Some(1200)),
        (Unsure,     Refused(1440), P::Searching,  Some(1200), Limit::Refused(1440),    Some(1200)),
        (Unsure,     PathChange,    P::Unanswered, None,       UNKNOWN,                 Some(1200)),
        (Doubting,   Answered,      P::Found,      Some(1440), FOUND,                   None),
        (Doubting,   Lost,          P::Doubted,    Some(1440), FOUND,                   Some(1200)),
        (Doubting,   TooBig(1300),  P::Doubted,    Some(1440), FOUND,                   Some(1440)),
    ];
    for (at, fact, phase, mtu, limit, next) in table {
        let mut world = at.reach();
        let sent = world.search.flight.under_way;
        let search = &mut world.search;
        match (fact, sent) {
            (Answered, Some(Sent { probe, .. })) => assert!(search.on_reply(probe.id, probe.size, world.now)),
            (Lost, Some(Sent { until, .. })) => world.now = until,
            (Refused(size), _) => search.on_refused(size, world.now),
            (TooBig(size), _) => search.on_too_big(size),
            (LargeSent, _) => search.on_large_sent(world.now),
            (PathChange, _) => {
                search.on_path_change(CEILING, world.now);
                world.now = world.now + BEGIN_INTERVAL;
            }
            _ => panic!("nothing is under way at {at:?}"),
        }
        world.truth = 0;
        world.pump();
        let state = world.search.state();
        let under_way = world.search.flight.under_way.map(|sent| sent.probe.size);
        assert_eq!(
            (state.phase, world.search.mtu(), state.limit, under_way),
            (phase, mtu, limit, next),
            "{fact:?} at {at:?}"
        );
    }
}

const OUTER: [usize; 9] = [1280, 1296, 1368, 1400, 1420, 1480, 1492, 1500, 9000];

#[test]
fn every_underlay_is_found_in_time_though_no_router_says_a_word() {
    for outer in OUTER {
        for overhead in [60, 80] {
            for (round_trip, limit) in [(2, 6), (20, 6), (100, 15)] {
                let mut world = World::new(outer - overhead);
                world.round_trip = round_trip * MS;
                let took = world.run_until_found(30 * SECOND);
                world.assert_true();
                assert!(took < limit as u32 * SECOND, "{outer} - {overhead} at {round_trip} ms: {took:?}");
            }
        }
    }
}

#[test]
fn any_truth_is_found_and_a_router_that_announces_it_makes_it_quick() {
    for truth in (1200..1460).chain((1460..CEILING).step_by(37)) {
        let mut world = World::new(truth);
        assert!(world.run_until_found(30 * SECOND) < 12 * SECOND, "{truth}");
        world.assert_true();
        let mut world = World::new(truth);
        world.router = Router::Announces;
        let took = world.run_until_found(30 * SECOND);
        assert!(took < 2 * SECOND, "{truth}: {took:?}");
        world.assert_true();
    }
}

#[test]
fn what_the_own_kernel_refuses_is_not_waited_for() {
    let mut world = World::new(1440);
    world.refuses = 1421;
    let took = world.run_until_found(SECOND);
    assert!(took < 30 * MS, "{took:?}");
    assert_eq!(world.search.mtu(), Some(1420));
    world.refuses = 1301;
    world.search.on_refused(1420, world.now);
    assert_eq!(world.search.mtu(), Some(BASE), "at once");
    let took = world.run_until_found(SECOND);
    assert!(took < 30 * MS, "{took:?}");
    assert_eq!(world.search.mtu(), Some(1300));
    assert_eq!(world.search.state().limit, Limit::Refused(1308));
}

#[test]
fn a_liar_is_not_heard() {
    let mut world = World::new(1440);
    world.pump();
    let Probe { id, size } = world.search.flight.under_way.expect("BASE is").probe;
    assert!(!world.search.on_reply(id ^ 1, size, world.now));
    assert!(!world.search.on_reply(id, size + 1, world.now));
    assert!(!world.search.on_reply(id, 8940, world.now));
    assert_eq!(world.search.mtu(), None);
    assert!(world.search.on_reply(id, size, world.now));
    assert!(!world.search.on_reply(id, size, world.now), "once");
    assert_eq!(world.search.mtu(), Some(BASE));
}

#[test]
fn an_answer_later_than_the_timer_is_a_proof_all_the_same() {
    // Satellite links: slower than the first timer and than the longest one.
    for round_trip in [600, 900, 1400] {
        let mut world = World::new(1440);
        world.round_trip = round_trip * MS;
        world.run(60 * SECOND);
        world.assert_true();
        assert_eq!(world.search.state().phase, Phase::Found);
    }
}

#[test]
fn a_ceiling_below_base_is_not_searched() {
    let mut world = World::new(1440);
    world.search.on_path_change(BASE - 1, world.now);
    world.busy = 10 * MS;
    world.run(10 * SECOND);
    assert_eq!((world.sent.len(), world.search.mtu()), (0, None));
    world.busy = Duration::ZERO;
    world.search.on_path_change(BASE, world.now);
    world.run(10 * SECOND);
    assert_eq!((world.sent.len(), world.search.mtu()), (1, Some(BASE)));
    assert_eq!(world.search.state().limit, Limit::Ceiling(BASE));
}

#[test]
fn a_path_that_carries_less_than_base_any_more_is_told_from_a_dead_one() {
    for (truth, loss) in [(1440, 0), (1340, 10), (BASE, 0), (BASE, 10)] {
        let mut world = World::found(truth);
        (world.loss, world.busy) = (loss, 10 * MS);
        world.run(30 * SECOND);
        assert_eq!(world.falls, []);
        world.truth = 1000;
        let changed = world.now;
        world.run(30 * SECOND);
        let took = world.falls[0].since(changed);
        assert!(took < Duration::from_millis(3500) * (1 + loss / 5), "{took:?} from {truth} at {loss} %");
        assert_eq!(world.search.mtu(), None);
        world.truth = 1300;
        world.run(300 * SECOND);
        world.assert_true();
    }
}

#[test]
fn a_longer_probe_of_the_peer_is_a_reason_to_search_again_and_the_same_one_is_none() {
    let mut world = World::found(1300);
    world.truth = 1440;
    // A probe as long as the size, or hardly longer, shows nothing new.
    for size in [SMALL, BASE, 1300, 1300 + GAP] {
        world.search.on_arrived(size, world.now);
        world.run(10 * SECOND);
        assert_eq!((world.search.state().phase, world.sent.len()), (Phase::Found, 0), "{size}");
    }
    world.search.on_arrived(1440, world.now);
    assert_eq!(world.search.state().phase, Phase::Searching);
    world.run_until_found(5 * SECOND);
    world.assert_true();

    // Our direction carries less than the peer's.
    let mut world = World::found(1300);
    for count in 0..100 {
        // Includes a size that could not arrive here at all.
        world.search.on_arrived(if count % 2 == 0 { 1440 } else { 9_900 }, world.now);
        world.run(SECOND);
    }
    world.run_until_found(SECOND);
    assert_eq!(world.search.mtu(), Some(1300));
    assert!(world.sent.len() < 60, "two searches: {}", world.sent.len());
    // The size fell, so everything may be tried again.
    world.truth = 1220;
    world.busy = 10 * MS;
    world.run_until(world.now + 20 * SECOND, |search| search.mtu() < Some(1300));
    world.run_until_found(20 * SECOND);
    world.search.on_arrived(1440, world.now);
    assert_eq!(world.search.state().phase, Phase::Searching);
}

#[test]
fn a_path_that_comes_back_smaller_is_noticed_as_quickly_after_a_long_outage_as_after_none() {
    for round_trip in [2 * MS, 100 * MS] {
        let took = |outage: Duration| {
            let mut world = World::new(1440);
            (world.round_trip, world.busy) = (round_trip, 10 * MS);
            world.run(60 * SECOND);
            assert_eq!(world.search.mtu(), Some(1440));
            world.is_dead = true;
            world.run(outage);
            world.is_dead = false;
            // The peer is alive, and its next large probe is lost.
            world.truth = 1340;
            let changed = world.now;
            world.run(30 * SECOND);
            world.assert_true();
            world.falls[0].since(changed)
        };
        let (quick, slow) = (took(Duration::ZERO), took(120 * SECOND));
        assert!(slow < quick + 2 * SECOND + SECOND / 2, "{round_trip:?}: {slow:?}, else {quick:?}");
    }
}

#[test]
fn another_ceiling_changes_nothing_but_what_is_worth_trying() {
    // Each row: the ceiling before and after, what the path carries, what is proven at once, and what is proven in the end.
    let rows = [
        (8940, 1440, 1340, Some(1340), Some(1340)),
        (1440, 8940, 1340, Some(1340), Some(1340)),
        (1440, 8940, 8940, Some(1440), Some(8940)),
        (1440, 8940, 4000, Some(1440), Some(4000)),
        (8940, 1300, 1440, Some(1300), Some(1300)),
        (8940, 1100, 1440, None, None),
    ];
    for (before, after, truth, at_once, at_last) in rows {
        let mut world = World::new(truth);
        world.search = Search::new(before, world.now);
        world.run_until_found(20 * SECOND);
        world.search.on_ceiling(after, world.now);
        assert_eq!(world.search.mtu(), at_once, "{before} {after} {truth}");
        world.run(20 * SECOND);
        let mtu = world.search.mtu();
        let is_near = mtu.zip(at_last).is_some_and(|(mtu, truth)| (truth - 16..=truth).contains(&mtu));
        assert!(mtu == at_last || is_near, "{before} {after} {truth}: {mtu:?}");
    }
}

#[test]
fn an_answer_to_a_probe_above_the_new_ceiling_proves_no_more_than_that() {
    let mut world = World::new(8940);
    world.round_trip = 100 * MS;
    world.run_until(world.now + SECOND, |search| search.mtu() == Some(BASE));
    world.pump();
    assert_eq!(world.sent.last().map(|(_, size)| *size), Some(8940));
    world.search.on_ceiling(1440, world.now);
    world.run(SECOND);
    assert_eq!(world.search.mtu(), Some(1440));
}
