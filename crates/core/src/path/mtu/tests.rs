//! The search against a path that exists only as numbers: a true size, a round trip, a loss each way and a router that
//! talks or does not. The clock jumps from deadline to deadline.

use rand_core::SeedableRng;

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
    /// Each way, in percent.
    loss: u32,
    router: Router,
    /// What our own kernel refuses from.
    refuses: usize,
    is_dead: bool,
    /// Large packets are sent every 10 ms.
    is_busy: bool,
    busy_at: Instant,
    replies: std::collections::VecDeque<(Instant, Probe)>,
    /// When each probe went out, and its size.
    sent: Vec<(Instant, usize)>,
    lowest: usize,
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
            is_busy: false,
            busy_at: now,
            replies: Default::default(),
            sent: Vec::new(),
            lowest: usize::MAX,
        }
    }

    /// A path that carries `truth`, found.
    fn found(truth: usize) -> Self {
        let mut world = Self::new(truth);
        world.run_until_found(20 * SECOND);
        world.sent.clear();
        world.lowest = usize::MAX;
        world
    }

    fn is_lost(&mut self) -> bool {
        self.loss > 0 && self.rng.next_u32() % 100 < self.loss
    }

    /// What is to be sent now goes out.
    fn pump(&mut self) {
        while let Some(probe) = self.search.poll(self.now, &mut self.rng) {
            self.sent.push((self.now, probe.size));
            if probe.size >= self.refuses {
                self.search.on_refused(probe.size, self.now);
                continue;
            }
            if probe.size > self.truth && self.router == Router::Announces && !self.is_dead {
                self.search.on_too_big(self.truth, self.now);
            }
            let (there, back) = (self.is_lost(), self.is_lost());
            if probe.size <= self.truth && !self.is_dead && !there && !back {
                self.replies.push_back((self.now + self.round_trip, probe));
            }
        }
        if let Some(mtu) = self.search.mtu() {
            self.lowest = self.lowest.min(mtu);
        }
    }

    fn run_until(&mut self, end: Instant, stop: impl Fn(&Search) -> bool) {
        self.pump();
        while !stop(&self.search) {
            let reply = self.replies.front().map(|(at, _)| *at);
            let busy = self.is_busy.then_some(self.busy_at.max(self.now));
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
            if self.is_busy && self.busy_at <= self.now {
                self.search.on_large_sent(self.now);
                self.busy_at = self.now + 10 * MS;
            }
            self.pump();
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// How long it took.
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
