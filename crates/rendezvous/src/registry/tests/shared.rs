//! Two processes over one store. Each is told of changes late, and in its own time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use overlay_wire::signed::PublicKey;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::now::Now;
use crate::protocol::{Call, Code, FromServer, Push, Reply, Slot, Verb};
use crate::registry::{
    Arrival, Config, ConnectionId, LEASE, Limits, NotCommitted, Order, OrderId, Output, Registry, Ticket, presence_key,
};
use crate::scene::{START, agent, code, network, record, register, rendezvous_secret, send};
use crate::store::{Change, Expected, MemoryStore, Operation, Revision, Store};

/// One of the processes.
struct Process {
    registry: Registry,
    /// What it wants written, and the outcomes that it has yet to learn.
    commits: VecDeque<(Ticket, Operation)>,
    outcomes: VecDeque<(Ticket, Result<Revision, NotCommitted>)>,
    presence: VecDeque<(PublicKey, bool)>,
    /// How many changes it has been told of.
    told: usize,
    sent: BTreeMap<ConnectionId, VecDeque<FromServer>>,
    closed: BTreeSet<ConnectionId>,
    is_dead: bool,
}

struct Cluster {
    now: Now,
    store: MemoryStore,
    changes: Vec<Change>,
    processes: [Process; 2],
    rng: ChaCha8Rng,
    last: u64,
}

fn config() -> Config {
    Config { network: network(false), key: rendezvous_secret(), relay: None, limits: Limits::default(), seed: [1; 32] }
}

impl Cluster {
    fn new(seed: u8) -> Self {
        let process = |number| {
            let mut registry = Registry::new(config());
            registry.share(number);
            Process {
                registry,
                commits: VecDeque::new(),
                outcomes: VecDeque::new(),
                presence: VecDeque::new(),
                told: 0,
                sent: BTreeMap::new(),
                closed: BTreeSet::new(),
                is_dead: false,
            }
        };
        Self {
            now: Now { unix: START, monotonic: Duration::from_secs(1_000) },
            store: MemoryStore::default(),
            changes: Vec::new(),
            processes: [process(0), process(1)],
            rng: ChaCha8Rng::from_seed([seed; 32]),
            last: 0,
        }
    }

    /// Writes, and notes what both processes will be told.
    fn write(&mut self, operation: &Operation) -> Result<Revision, NotCommitted> {
        let Ok(mut outcomes) = self.store.commit(std::slice::from_ref(operation));
        let revision = outcomes.remove(0).map_err(|_| NotCommitted::Conflict)?;
        let writes = operation.writes.iter();
        self.changes.extend(writes.map(|write| Change {
            key: write.key.clone(),
            revision,
            value: write.value.clone(),
        }));
        Ok(revision)
    }

    /// Something that is due for a process happens: it has an operation written, learns an outcome, or is told of changes.
    /// Returns false if nothing is due.
    fn step(&mut self, number: usize) -> bool {
        let choice = self.rng.next_u32() % 4;
        let process = &mut self.processes[number];
        while let Some(output) = process.registry.poll_output() {
            match output {
                Output::Send { connection, message } => process.sent.entry(connection).or_default().push_back(message),
                Output::Close { connection } => drop(process.closed.insert(connection)),
                Output::Ordered { .. } => {}
                Output::Present { identity, is_present } => process.presence.push_back((identity, is_present)),
                Output::Commit { ticket, operation } => process.commits.push_back((ticket, operation)),
            }
        }
        match choice {
            0 if !process.commits.is_empty() => {
                let (ticket, operation) = process.commits.pop_front().expect("one");
                let outcome = self.write(&operation);
                self.processes[number].outcomes.push_back((ticket, outcome));
            }
            1 if !process.outcomes.is_empty() => {
                let (ticket, outcome) = process.outcomes.pop_front().expect("one");
                process.registry.committed(ticket, outcome, self.now);
            }
            2 if !process.presence.is_empty() => {
                let (identity, is_present) = process.presence.pop_front().expect("one");
                self.write_presence(number, &identity, is_present);
            }
            3 if process.told < self.changes.len() => {
                let change = self.changes[process.told].clone();
                process.told += 1;
                process.registry.follow(change, self.now);
            }
            _ => {
                return !process.commits.is_empty()
                    || !process.outcomes.is_empty()
                    || !process.presence.is_empty()
                    || process.told < self.changes.len();
            }
        }
        true
    }

    fn write_presence(&mut self, number: usize, identity: &PublicKey, is_present: bool) {
        let (key, own) = (presence_key(identity), (number as u64).to_be_bytes().to_vec());
        let Ok(entry) = self.store.get(&key);
        let is_own = entry.is_some_and(|entry| entry.value == own);
        if is_present || is_own {
            let mut operation = Operation::default();
            operation.push(key, Expected::Any, is_present.then_some(own));
            self.write(&operation).expect("nothing is demanded");
        }
    }

    /// Lets both go on, in any order, until nothing is left to do.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 64 {
            let number = self.rng.next_u32() as usize % 2;
            let goes_on = !self.processes[number].is_dead && self.step(number);
            quiet = if goes_on { 0 } else { quiet + 1 };
        }
    }

    /// A process is gone. What it has said of its agents ends with it.
    fn kill(&mut self, number: usize) {
        self.processes[number].is_dead = true;
        let Ok(here) = self.store.scan(b"here/", None, usize::MAX);
        for (key, entry) in here {
            if entry.value == (number as u64).to_be_bytes() {
                let mut operation = Operation::default();
                operation.push(key, Expected::Any, None);
                self.write(&operation).expect("nothing is demanded");
            }
        }
        self.settle();
    }

    fn connect(&mut self, number: usize, n: u32) -> ConnectionId {
        self.last += 1;
        let connection = ConnectionId(self.last);
        let address = IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 + self.last as u32));
        let arrival = Arrival { identity: agent(n), address, epoch: 0 };
        self.processes[number].registry.connected(connection, arrival, self.now);
        connection
    }

    fn call(&mut self, number: usize, connection: ConnectionId, verb: Verb) -> u32 {
        self.last += 1;
        let id = self.last as u32;
        self.processes[number].registry.call(connection, Call { id, verb }, self.now);
        id
    }

    /// Takes the answer to a call.
    fn answer(&mut self, number: usize, connection: ConnectionId, id: u32) -> Reply {
        let sent = self.processes[number].sent.get_mut(&connection).expect("something was sent");
        let is_it = |message: &FromServer| matches!(message, FromServer::Answer(answer) if answer.id == id);
        let at = sent.iter().position(is_it).expect("an answer");
        match sent.remove(at) {
            Some(FromServer::Answer(answer)) => answer.reply,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, number: usize, connection: ConnectionId, verb: Verb) -> Reply {
        let id = self.call(number, connection, verb);
        self.settle();
        self.answer(number, connection, id)
    }

    /// Takes what was pushed to a connection.
    fn pushes(&mut self, number: usize, connection: ConnectionId) -> Vec<Push> {
        let sent = self.processes[number].sent.remove(&connection).unwrap_or_default();
        let push = |message| match message {
            FromServer::Push(push) => Some(push),
            FromServer::Answer(_) => None,
        };
        sent.into_iter().filter_map(push).collect()
    }

    /// Agent `n` connects to a process, registers under the name `agentN`, and says hello.
    fn join(&mut self, number: usize, n: u32) -> ConnectionId {
        let connection = self.connect(number, n);
        let mut mine = record(n, &format!("agent{n}"), 1, self.now);
        let mut reply = self.ask(number, connection, register(n, mine.clone()));
        if let Reply::Refused { code: Code::Ipv4, ipv4, .. } = reply {
            mine.ipv4 = ipv4;
            reply = self.ask(number, connection, register(n, mine));
        }
        assert_eq!(reply, Reply::Done, "agent {n} registers");
        self.ask(number, connection, Verb::Hello);
        connection
    }

    /// Requires that both processes hold what one would that opened the store now.
    #[track_caller]
    fn agrees(&self) {
        let Ok(fresh) = Registry::open(config(), &self.store, self.now);
        for process in self.processes.iter().filter(|process| !process.is_dead) {
            let held = [&process.registry, &fresh].map(held);
            assert_eq!(held[0], held[1]);
        }
    }
}

/// All that a registry holds, but for who is connected.
fn held(registry: &Registry) -> Vec<String> {
    let mut held = Vec::new();
    for view in registry.agents_after(None, usize::MAX) {
        let record = view.record.map(|record| record.bytes());
        held.push(format!("{:?} {:?} {:?} {:?}", view.identity, record, view.left, view.banned));
        held.push(format!("{:?}", registry.mail.waiting(view.identity)));
        for other in registry.agents_after(None, usize::MAX) {
            held.push(format!("{:?}", registry.slots.of(view.identity, other.identity)));
        }
        held.push(format!("{:?}", registry.entries(view.identity, None)));
    }
    held.extend((0..64).map(|n| format!("{:?}", registry.owner_of_name(&format!("agent{n}")))));
    held.extend((0..=255).map(|n| format!("{:?}", registry.agents.addresses.owner(&[10, 64, 0, n]))));
    held
}

#[test]
fn two_processes_never_give_one_name_to_two_agents() {
    let mut winners = [0; 2];
    for round in 0..1_000_u32 {
        let mut cluster = Cluster::new(round as u8);
        cluster.rng = ChaCha8Rng::seed_from_u64(u64::from(round));
        let agents = [1, 2];
        let connections = [0, 1].map(|number| cluster.connect(number, agents[number]));
        let claim = |n: u32, now| {
            let mut mine = record(n, "search", 1, now);
            mine.ipv4 = Some(overlay_wire::signed::ipv4_candidate(&network(false).pool, &agent(n), 0).octets());
            register(n, mine)
        };
        let now = cluster.now;
        let calls = [0, 1].map(|number| cluster.call(number, connections[number], claim(agents[number], now)));
        cluster.settle();
        let replies = [0, 1].map(|number| cluster.answer(number, connections[number], calls[number]));
        let done: Vec<_> = (0..2).filter(|number| replies[*number] == Reply::Done).collect();
        assert_eq!(done.len(), 1, "{replies:?}");
        let (winner, loser) = (done[0], 1 - done[0]);
        assert!(matches!(code(&replies[loser]), Some(Code::Later | Code::NameTaken)), "{replies:?}");
        cluster.now.monotonic += Duration::from_secs(2);
        let again = cluster.ask(loser, connections[loser], claim(agents[loser], now));
        assert_eq!(code(&again), Some(Code::NameTaken));
        for process in &cluster.processes {
            assert_eq!(process.registry.owner_of_name("search"), Some(&agent(agents[winner])));
        }
        cluster.agrees();
        winners[winner] += 1;
    }
    assert!(winners.iter().all(|count| *count > 200), "both win: {winners:?}");
}

#[test]
fn what_one_writes_the_other_shows() {
    let mut cluster = Cluster::new(1);
    let (alice, bob) = (cluster.join(0, 1), cluster.join(1, 2));
    assert_eq!(cluster.ask(1, bob, Verb::Watch { identities: vec![agent(1)] }), Reply::Done);
    let pushes = cluster.pushes(1, bob);
    assert!(pushes.contains(&Push::Presence { identity: agent(1), is_present: true }), "{pushes:?}");
    assert!(pushes.iter().any(|push| matches!(push, Push::Record { .. })), "{pushes:?}");

    let put = Verb::PutSlot { to: agent(2), slot: Slot::Endpoints, sealed: b"here".to_vec().into() };
    assert_eq!(cluster.ask(0, alice, put), Reply::Done);
    let slot = Push::Slot { from: agent(1), slot: Slot::Endpoints, sealed: b"here".to_vec().into() };
    assert_eq!(cluster.pushes(1, bob), [slot]);

    assert_eq!(cluster.ask(0, alice, send(2, 7, b"hello")), Reply::Done);
    let message = Push::Message { from: agent(1), message: [7; 16], sealed: b"hello".to_vec().into() };
    assert_eq!(cluster.pushes(1, bob), [message]);
    assert_eq!(cluster.ask(1, bob, Verb::Acknowledge { from: agent(1), message: [7; 16] }), Reply::Done);
    assert_eq!(cluster.pushes(0, alice), [Push::Delivered { to: agent(2), message: [7; 16] }]);

    let newer = record(1, "agent1", 2, cluster.now);
    assert_eq!(cluster.ask(0, alice, register(1, newer)), Reply::Done);
    assert!(matches!(&cluster.pushes(1, bob)[..], [Push::Record { .. }]));
    cluster.agrees();
}

#[test]
fn what_a_process_has_written_itself_is_shown_once() {
    let mut cluster = Cluster::new(5);
    let (alice, bob) = (cluster.join(0, 1), cluster.join(0, 2));
    assert_eq!(cluster.ask(0, bob, Verb::Watch { identities: vec![agent(1)] }), Reply::Done);
    cluster.pushes(0, bob);
    let put = Verb::PutSlot { to: agent(2), slot: Slot::Endpoints, sealed: b"here".to_vec().into() };
    assert_eq!(cluster.ask(0, alice, put), Reply::Done);
    assert_eq!(cluster.ask(0, alice, send(2, 7, b"hello")), Reply::Done);
    assert_eq!(cluster.ask(0, alice, register(1, record(1, "agent1", 2, cluster.now))), Reply::Done);
    let pushes = cluster.pushes(0, bob);
    assert!(matches!(&pushes[..], [Push::Slot { .. }, Push::Message { .. }, Push::Record { .. }]), "{pushes:?}");
    assert_eq!(cluster.processes[0].registry.stats().followed, 0);
    let kept = &cluster.processes[0].registry.shared.as_ref().expect("it is shared");
    assert!(kept.is_small(), "what it has written is forgotten once it was told: {kept:?}");
}

#[test]
fn an_agent_that_goes_to_the_other_process_stays_present_and_one_whose_process_is_gone_does_not() {
    let mut cluster = Cluster::new(2);
    let (alice, bob) = (cluster.join(0, 1), cluster.join(0, 2));
    assert_eq!(cluster.ask(0, alice, Verb::Watch { identities: vec![agent(2)] }), Reply::Done);
    cluster.pushes(0, alice);
    let elsewhere = cluster.connect(1, 2);
    cluster.settle();
    assert!(cluster.processes[0].closed.contains(&bob), "its older connection");
    assert!(!cluster.processes[1].closed.contains(&elsewhere));
    assert_eq!(cluster.pushes(0, alice), []);
    // And back, before anybody was told of a change.
    let back = cluster.connect(0, 2);
    let again = cluster.connect(1, 2);
    cluster.settle();
    let open =
        [(0, back), (1, again)].into_iter().filter(|(number, it)| !cluster.processes[*number].closed.contains(it));
    assert_eq!(open.count(), 1, "one connection is left");
    assert_eq!(cluster.pushes(0, alice), []);

    let last = cluster.connect(1, 2);
    cluster.settle();
    assert!(!cluster.processes[1].closed.contains(&last));
    cluster.pushes(0, alice);
    cluster.kill(1);
    assert_eq!(cluster.pushes(0, alice), [Push::Presence { identity: agent(2), is_present: false }]);
}

#[test]
fn an_agent_that_leaves_is_absent_everywhere_after_its_lease() {
    let mut cluster = Cluster::new(3);
    let (alice, bob) = (cluster.join(0, 1), cluster.join(1, 2));
    assert_eq!(cluster.ask(0, alice, Verb::Watch { identities: vec![agent(2)] }), Reply::Done);
    cluster.pushes(0, alice);
    cluster.processes[1].registry.disconnected(bob, cluster.now);
    cluster.settle();
    assert_eq!(cluster.pushes(0, alice), []);
    cluster.now.monotonic += LEASE;
    cluster.ask(0, alice, Verb::Ping);
    cluster.processes[1].registry.handle_timeout(cluster.now);
    cluster.settle();
    assert_eq!(cluster.pushes(0, alice), [Push::Presence { identity: agent(2), is_present: false }]);
}

#[test]
fn what_the_operator_orders_at_one_process_holds_at_the_other() {
    let mut cluster = Cluster::new(4);
    let (alice, bob) = (cluster.join(0, 1), cluster.join(1, 2));
    cluster.processes[0].registry.order(OrderId(1), Order::Ban(agent(2)), cluster.now);
    cluster.settle();
    assert!(cluster.processes[1].closed.contains(&bob) && !cluster.processes[0].closed.contains(&alice));
    let again = cluster.connect(1, 2);
    let reply = cluster.ask(1, again, register(2, record(2, "agent2", 2, cluster.now)));
    assert_eq!(code(&reply), Some(Code::NotAMember));
    cluster.agrees();
    cluster.processes[1].registry.order(OrderId(2), Order::Unban(agent(2)), cluster.now);
    cluster.settle();
    let mut mine = record(2, "agent2", 3, cluster.now);
    mine.ipv4 = cluster.processes[0].registry.agents.address_of(&agent(2));
    let here = cluster.connect(0, 2);
    assert_eq!(cluster.ask(0, here, register(2, mine)), Reply::Done);
    cluster.agrees();
}

/// Both hold the same in the end, and it is what the store holds, whatever agents do and in whichever order each process learns
/// of it.
#[test]
fn both_agree_with_the_store_after_anything() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(seed);
        let mut at: Vec<_> = (1..=6).map(|n| (n, n as usize % 2)).collect();
        let mut connections: Vec<_> = at.iter().map(|(n, number)| cluster.join(*number, *n)).collect();
        let mut sequence = 1;
        for step in 0..200_u8 {
            let who = cluster.rng.next_u32() as usize % at.len();
            let (n, number) = at[who];
            let other = 1 + cluster.rng.next_u32() % 6;
            let connection = connections[who];
            sequence += 1;
            match cluster.rng.next_u32() % 8 {
                0 => {
                    let name = format!("agent{}", cluster.rng.next_u32() % 8);
                    let mut mine = record(n, &name, sequence, cluster.now);
                    mine.ipv4 = cluster.processes[number].registry.agents.address_of(&agent(n));
                    cluster.call(number, connection, register(n, mine));
                }
                1 => {
                    at[who].1 = 1 - number;
                    connections[who] = cluster.connect(1 - number, n);
                }
                2 | 3 => drop(cluster.call(number, connection, send(other, step, &[step]))),
                4 => {
                    let message = [cluster.rng.next_u32() as u8 % step.max(1); 16];
                    cluster.call(number, connection, Verb::Acknowledge { from: agent(other), message });
                }
                5 => {
                    let put = Verb::PutSlot { to: agent(other), slot: Slot::Word, sealed: vec![step].into() };
                    cluster.call(number, connection, put);
                }
                6 => {
                    let put = Verb::PutEntry { label: [step % 4; 16], sealed: vec![step].into() };
                    cluster.call(number, connection, put);
                }
                _ => {
                    for _ in 0..cluster.rng.next_u32() % 30 {
                        let number = cluster.rng.next_u32() as usize % 2;
                        cluster.step(number);
                    }
                }
            }
            cluster.now.monotonic += Duration::from_millis(700);
        }
        cluster.settle();
        cluster.agrees();
        assert!(cluster.processes.iter().all(|process| process.registry.stats().followed > 0));
    }
}
