//! What the crowd does at a rendezvous that runs, one thing after the other, and what is promised of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use overlay_rendezvous::protocol::Find;
use overlay_wire::signed::PublicKey;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::figures::{Table, Times};
use crate::lab::AT_LENGTH;
use crate::member::{Fact, Member, Order, What, name_of, until};
use crate::rogue::runtime_on;
use crate::world::World;

/// How many others each agent watches, and how many watch it.
const WATCHERS: usize = 20;
/// How many connect in a second at first.
const ARRIVALS: f64 = 400.0;

/// The promises.
const MEMORY: u64 = 600 << 20;
const LOOK_UPS: f64 = 1_000.0;
const LOOK_UP_P99: Duration = Duration::from_millis(20);
const REGISTRATIONS: f64 = 1_000.0;
const CHANGE_P99: Duration = Duration::from_millis(500);

/// How long look-ups last, and how many changes there are, at which rate.
const LOOK_UPS_LAST: Duration = Duration::from_secs(10);
const CHANGES: usize = 200;
const CHANGES_PER_SECOND: f64 = 10.0;

/// A rendezvous with its agents.
pub(crate) struct Crowd {
    pub(crate) members: Vec<Member>,
    facts: mpsc::UnboundedReceiver<Fact>,
    pub(crate) runtime: Runtime,
    pub(crate) world: World,
}

impl Crowd {
    /// Starts a rendezvous, and lets so many agents connect. `None` if this machine cannot.
    #[track_caller]
    pub(crate) fn gather(count: usize) -> Option<Self> {
        Some(Self::at(World::new(&format!("a crowd of {count}"))?, count))
    }

    /// Lets so many agents connect.
    #[track_caller]
    pub(crate) fn at(world: World, count: usize) -> Self {
        let runtime = runtime_on(&world.host);
        let (tell, facts) = mpsc::unbounded_channel();
        let url = world.url.clone();
        let places: Vec<_> = (0..count).map(|who| world.places_of(who)).collect();
        let members = runtime.spawn(async move {
            let began = Instant::now();
            let mut members = Vec::with_capacity(count);
            for (who, places) in places.into_iter().enumerate() {
                until(began + planned(who, ARRIVALS)).await;
                members.push(Member::join(who, &url, places, &tell));
            }
            members
        });
        let members = runtime.block_on(members).expect("no panic");
        let mut crowd = Self { members, facts, runtime, world };
        let mut missing: BTreeSet<_> = (0..count).collect();
        crowd.hear(AT_LENGTH, "all to be welcome", |fact| {
            if let What::Welcome { .. } = fact.what {
                missing.remove(&fact.who);
            }
            missing.is_empty()
        });
        crowd
    }

    /// Each registers for the first time. An answer says that the record is on disk.
    #[track_caller]
    pub(crate) fn registers(&mut self, table: &mut Table) {
        let before = self.world.cpu();
        // A little more is offered, so that what is acknowledged can be measured.
        let (times, took) = self.register(1.1 * REGISTRATIONS);
        let rate = times.len() as f64 / took.as_secs_f64();
        let cpu = (self.world.cpu() - before).as_secs_f64() / took.as_secs_f64();
        let shown = format!("{rate:.0} a second, {}; {cpu:.2} cores", times.shown());
        table.row("first registrations, acknowledged", &shown, "1,000 a second");
        assert!(rate >= REGISTRATIONS, "{shown}");
    }

    /// All register at this rate. Returns how long each took, and how long it took until the last was acknowledged.
    #[track_caller]
    pub(crate) fn register(&mut self, per_second: f64) -> (Times, Duration) {
        let orders = self.members.iter().map(|member| member.orders.clone()).collect();
        let began = self.order(orders, per_second, |_, at| Order::Register(at));
        let (mut times, mut last, count) = (Times::default(), began, self.members.len());
        self.hear(AT_LENGTH, "all to be registered", |fact| {
            if let What::Registered { began, .. } = fact.what {
                times.add(fact.at - began);
                last = fact.at;
            }
            times.len() == count
        });
        (times, last - began)
    }

    /// Each watches those that come after it.
    #[track_caller]
    pub(crate) fn watches(&mut self, table: &mut Table) {
        let identities: Vec<_> = self.members.iter().map(|member| member.identity).collect();
        let orders = self.members.iter().map(|member| member.orders.clone()).collect();
        let count = self.members.len();
        let began = self.order(orders, ARRIVALS, move |who, _| {
            Order::Watch((1..=WATCHERS).map(|next| identities[(who + next) % count]).collect())
        });
        let mut told = 0;
        self.hear(AT_LENGTH, "all records to be told", |fact| {
            told += usize::from(matches!(fact.what, What::Record { .. }));
            told == count * WATCHERS
        });
        table.row("records told to new watchers", &format!("{told} in {:.0} s", began.elapsed().as_secs_f64()), "all");
    }

    #[track_caller]
    pub(crate) fn fits_into_memory(&mut self, table: &mut Table) {
        let (now, most) = self.world.memory();
        let shown = format!("{} MiB, at most {} MiB", now >> 20, most >> 20);
        table.row(&format!("memory with {} agents", self.members.len()), &shown, "600 MB");
        assert!(most <= MEMORY, "{shown}");
    }

    /// Agents look for others by name. A time counts from the planned moment, so a generator that is late counts, too.
    #[track_caller]
    pub(crate) fn looks_up(&mut self, table: &mut Table) {
        let before = self.world.cpu();
        let (began, times) = self.look_up(LOOK_UPS_LAST);
        let cpu = (self.world.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        let shown = format!("{}; {cpu:.2} cores", times.shown());
        table.row(&format!("1,000 look-ups a second for {} s", LOOK_UPS_LAST.as_secs()), &shown, "p99 20 ms");
        assert!(times.at(0.99) <= LOOK_UP_P99, "{shown}");
    }

    /// Looks up for a while. Returns when that began, and how long each took.
    #[track_caller]
    pub(crate) fn look_up(&mut self, lasting: Duration) -> (Instant, Times) {
        let count = (lasting.as_secs_f64() * LOOK_UPS) as usize;
        // 7,919 is a prime: neighbours in time are not neighbours in the crowd.
        let all = self.members.len();
        let orders = (0..count).map(|turn| self.members[turn * 7_919 % all].orders.clone()).collect();
        let began = self
            .order(orders, LOOK_UPS, move |turn, at| Order::Find(Find::Name(name_of((turn * 104_729 + 1) % all)), at));
        let mut times = Times::default();
        self.hear(AT_LENGTH, "all answers", |fact| {
            if let What::Found { began, records } = fact.what {
                assert_eq!(records, 1, "each name is registered");
                times.add(fact.at - began);
            }
            times.len() == count
        });
        (began, times)
    }

    /// Single agents register a new record. Their watchers hear of it, and nobody else hears anything.
    #[track_caller]
    pub(crate) fn hears_changes(&mut self, table: &mut Table) {
        let count = self.members.len();
        let changed: Vec<_> = (0..CHANGES).map(|turn| turn * count / CHANGES).collect();
        let mut expected: Vec<u64> = self.members.iter().map(|member| member.pushes.load(Relaxed)).collect();
        for who in &changed {
            (1..=WATCHERS).for_each(|before| expected[(who + count - before) % count] += 1);
        }
        let pushes = self.world.counter("pushes");
        let orders = changed.iter().map(|who| self.members[*who].orders.clone()).collect();
        let began = self.order(orders, CHANGES_PER_SECOND, |_, at| Order::Register(at));
        let turns: BTreeMap<PublicKey, usize> =
            (0..).zip(&changed).map(|(turn, who)| (self.members[*who].identity, turn)).collect();
        let (mut each, mut told) = (Times::default(), vec![(0, Duration::ZERO); CHANGES]);
        self.hear(AT_LENGTH, "all watchers to hear of all changes", |fact| {
            if let What::Record { of, .. } = fact.what {
                let turn = turns[&of];
                let took = fact.at.saturating_duration_since(began + planned(turn, CHANGES_PER_SECOND));
                each.add(took);
                told[turn] = (told[turn].0 + 1, took.max(told[turn].1));
            }
            each.len() == CHANGES * WATCHERS
        });
        assert!(told.iter().all(|(watchers, _)| *watchers == WATCHERS), "{told:?}");
        let mut slowest = Times::default();
        told.iter().for_each(|(_, took)| slowest.add(*took));
        let pushes = self.world.counter("pushes") - pushes;
        let heard: Vec<u64> = self.members.iter().map(|member| member.pushes.load(Relaxed)).collect();
        table.row("a change until the last of its 20 watchers has it", &slowest.shown(), "p99 500 ms");
        let shown = format!("{} messages for {CHANGES} changes", pushes);
        table.row("what a change costs", &shown, "20 messages, nothing for the others");
        assert_eq!(pushes, (CHANGES * WATCHERS) as u64, "the server has sent nothing else");
        assert!(heard == expected, "each agent was told what it watches, and nothing else");
        assert!(slowest.at(0.99) <= CHANGE_P99, "{}", slowest.shown());
    }

    /// Gives orders at a rate, from a task, and returns when that began.
    pub(crate) fn order(
        &self,
        orders: Vec<mpsc::UnboundedSender<Order>>,
        per_second: f64,
        order: impl Fn(usize, Instant) -> Order + Send + 'static,
    ) -> Instant {
        let began = Instant::now();
        self.runtime.spawn(async move {
            for (turn, member) in orders.into_iter().enumerate() {
                let at = began + planned(turn, per_second);
                until(at).await;
                // A member that has ended is missed by the test.
                let _ = member.send(order(turn, at));
            }
        });
        began
    }

    /// Listens until `is_enough`.
    #[track_caller]
    pub(crate) fn hear(&mut self, limit: Duration, what: &str, mut is_enough: impl FnMut(Fact) -> bool) {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (runtime, facts) = (&self.runtime, &mut self.facts);
            let fact = runtime.block_on(async { timeout(left, facts.recv()).await });
            let fact = fact.unwrap_or_else(|_| panic!("waited {limit:?} for {what}")).expect("members live on");
            if let What::Refused(why) = &fact.what {
                panic!("agent {} is refused: {why}", fact.who);
            }
            if is_enough(fact) {
                return;
            }
        }
    }
}

/// When something comes that happens so often, counted from the first.
fn planned(turn: usize, per_second: f64) -> Duration {
    Duration::from_secs_f64(turn as f64 / per_second)
}
