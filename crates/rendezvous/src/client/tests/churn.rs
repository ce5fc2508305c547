//! A thousand agents of which one in ten moves in an hour, and how often what one knows of another is stale.
//!
//! Clients and registry are the real ones. Each agent tells its friends where it is, in slots, as soon as a rendezvous has said
//! from where it sees the agent. In the middle of the hour the rendezvous is gone for five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_wire::signed::PublicKey;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::peers::Peer;
use crate::client::{Event, Output};
use crate::now::Now;
use crate::protocol::Slot;
use crate::registry::ConnectionId;
use crate::scene::{World, agent};

const AGENTS: usize = 1_000;
/// How many others each agent trusts at least.
const FRIENDS: usize = 8;
const HOUR: Duration = Duration::from_secs(3_600);
const MOVES: u32 = AGENTS as u32 / 10;
/// How long the agents have to register, and then to meet.
const BEFORE: Duration = Duration::from_secs(60);
/// When the rendezvous ends, and for how long.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(1_800), Duration::from_secs(300));
/// How often an agent looks a peer up.
const LOOK_UP: Duration = Duration::from_millis(50);
/// How soon an agent knows that it has moved if its kernel says so.
const NOTICED: Duration = Duration::from_secs(2);
/// How long the host of an agent sleeps.
const NAP: Duration = Duration::from_secs(600);

/// How an agent moves.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// The kernel says so.
    Noticed,
    /// The address changes at a router. The connection falls silent.
    Unnoticed,
    /// It sleeps, and wakes up elsewhere.
    Asleep,
}

struct Agent {
    peer: Peer,
    friends: Vec<usize>,
    /// Where it is, and where it says that it is.
    place: u32,
    told: u32,
    /// Whether what it sends and what is sent to it is lost.
    is_cut_off: bool,
    /// When it looks at its network again: it has moved, or wakes up.
    looks_at: Option<Duration>,
    is_asleep: bool,
    /// Where its friends are, as they say.
    known: BTreeMap<PublicKey, u32>,
}

impl Agent {
    /// Tells its friends where it is, if that is different now.
    fn tell(&mut self, now: Now) {
        if std::mem::replace(&mut self.told, self.place) == self.place {
            return;
        }
        for friend in &self.friends {
            let (friend, sealed) = (agent(*friend as u32 + 1), self.place.to_be_bytes().to_vec());
            self.peer.client.put_slot(friend, Slot::Endpoints, sealed, now).expect("a few slots");
        }
    }
}

struct Crowd {
    world: World,
    agents: Vec<Agent>,
    by_connection: BTreeMap<ConnectionId, usize>,
    /// When each client wants to act.
    due: BTreeSet<(Duration, usize)>,
    deadlines: Vec<Duration>,
    is_rendezvous_gone: bool,
    rng: ChaCha8Rng,
}

impl Crowd {
    fn new() -> Self {
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let world = World::new();
        let mut friends = vec![BTreeSet::new(); AGENTS];
        for number in 0..AGENTS {
            while friends[number].len() < FRIENDS {
                let other = rng.next_u32() as usize % AGENTS;
                if other != number {
                    friends[number].insert(other);
                    friends[other].insert(number);
                }
            }
        }
        let agents: Vec<_> = (1..)
            .map(Peer::new)
            .zip(friends)
            .map(|(mut peer, friends)| {
                peer.set_record(None, &world);
                Agent {
                    peer,
                    friends: friends.into_iter().collect(),
                    place: 1,
                    told: 0,
                    is_cut_off: false,
                    looks_at: None,
                    is_asleep: false,
                    known: BTreeMap::new(),
                }
            })
            .collect();
        let mut crowd = Self {
            world,
            agents,
            by_connection: BTreeMap::new(),
            due: BTreeSet::new(),
            deadlines: vec![Duration::MAX; AGENTS],
            is_rendezvous_gone: false,
            rng,
        };
        for number in 0..AGENTS {
            let friends = crowd.agents[number].friends.iter().map(|friend| crowd.agents[*friend].peer.identity());
            let friends: Vec<_> = friends.collect();
            let now = crowd.world.now;
            crowd.agents[number].peer.client.watch(&friends, now).expect("few");
            crowd.schedule(number);
        }
        crowd
    }

    /// Notes when a client wants to act next.
    fn schedule(&mut self, number: usize) {
        let agent = &self.agents[number];
        let client = if agent.is_asleep { Duration::MAX } else { agent.peer.client.deadline() };
        let deadline = agent.looks_at.unwrap_or(Duration::MAX).min(client);
        self.due.remove(&(self.deadlines[number], number));
        self.deadlines[number] = deadline;
        self.due.insert((deadline, number));
    }

    /// Carries out what this client wants, and all that follows for others.
    fn settle(&mut self, number: usize) {
        let mut moving = BTreeSet::from([number]);
        while let Some(number) = moving.pop_first() {
            self.carry_out(number);
            self.schedule(number);
            for (connection, messages) in std::mem::take(&mut self.world.sent) {
                let Some(to) = self.by_connection.get(&connection).copied() else { continue };
                let agent = &mut self.agents[to];
                if agent.is_cut_off || agent.peer.connection != Some(connection) {
                    continue;
                }
                for message in messages {
                    agent.peer.client.received(message, self.world.now);
                }
                moving.insert(to);
            }
            for connection in std::mem::take(&mut self.world.closed) {
                let Some(to) = self.by_connection.remove(&connection) else { continue };
                let agent = &mut self.agents[to];
                if !agent.is_cut_off && agent.peer.connection == Some(connection) {
                    agent.peer.connection = None;
                    agent.peer.client.lost(self.world.now);
                    moving.insert(to);
                }
            }
        }
    }

    fn carry_out(&mut self, number: usize) {
        let now = self.world.now;
        let agent = &mut self.agents[number];
        while let Some(output) = agent.peer.client.poll_output() {
            match output {
                Output::Connect if self.is_rendezvous_gone => agent.peer.client.lost(now),
                Output::Connect => {
                    agent.is_cut_off = false;
                    let connection = self.world.connect(agent.peer.identity(), 0);
                    agent.peer.connection = Some(connection);
                    self.by_connection.insert(connection, number);
                    agent.peer.client.connected(crate::protocol::VERSION, now);
                }
                Output::Disconnect => {
                    if let Some(connection) = agent.peer.connection.take()
                        && !agent.is_cut_off
                    {
                        self.by_connection.remove(&connection);
                        self.world.registry.disconnected(connection, now);
                        self.world.settle();
                    }
                }
                Output::Send(call) => {
                    if let Some(connection) = agent.peer.connection
                        && !agent.is_cut_off
                    {
                        self.world.registry.call(connection, call, now);
                        self.world.settle();
                    }
                }
                Output::Event(Event::NeedsIpv4 { address }) => agent.peer.set_record(address, &self.world),
                // Somebody who is not registered yet cannot be told anything.
                Output::Event(Event::Online { .. }) if agent.told != 0 => agent.tell(now),
                Output::Event(Event::Slot { from, sealed, .. }) => {
                    agent.known.insert(from, u32::from_be_bytes(sealed[..].try_into().expect("a place")));
                }
                Output::Event(_) => {}
            }
        }
    }

    fn moves(&mut self, number: usize, how: Move) {
        let now = self.world.now.monotonic;
        let agent = &mut self.agents[number];
        agent.place += 1;
        agent.is_cut_off = true;
        match how {
            Move::Noticed => agent.looks_at = Some(now + NOTICED),
            Move::Unnoticed => {}
            Move::Asleep => (agent.is_asleep, agent.looks_at) = (true, Some(now + NAP)),
        }
        self.schedule(number);
    }

    /// The rendezvous crashes, or is back.
    fn lose_rendezvous(&mut self, is_gone: bool) {
        self.is_rendezvous_gone = is_gone;
        if is_gone {
            self.world.restart();
            self.by_connection.clear();
            for number in 0..AGENTS {
                let agent = &mut self.agents[number];
                agent.peer.connection = None;
                if !agent.is_asleep {
                    agent.peer.client.lost(self.world.now);
                }
                self.settle(number);
            }
        }
    }

    /// Lets time pass until then.
    fn run_until(&mut self, end: Duration) {
        loop {
            let agents = self.due.first().map_or(Duration::MAX, |(at, _)| *at);
            let registry = self.world.registry.deadline(self.world.now).unwrap_or(Duration::MAX);
            let at = agents.min(registry);
            let now = at.min(end).max(self.world.now.monotonic);
            self.world.now.unix += (now - self.world.now.monotonic).as_millis() as u64;
            self.world.now.monotonic = now;
            if at > end {
                return;
            }
            if registry <= now {
                self.world.registry.handle_timeout(self.world.now);
                self.world.settle();
            }
            let number = if agents <= now { self.due.first().map_or(0, |(_, number)| *number) } else { 0 };
            if agents <= now {
                self.act(number);
            }
            self.settle(number);
        }
    }

    /// A client's time has come, or an agent looks at its network.
    fn act(&mut self, number: usize) {
        let now = self.world.now;
        let agent = &mut self.agents[number];
        if agent.looks_at.take_if(|at| *at <= now.monotonic).is_some() {
            agent.is_asleep = false;
            agent.peer.client.on_network_changed(now);
        } else if !agent.is_asleep {
            agent.peer.client.handle_timeout(now);
        }
    }

    /// An agent looks a peer up that it trusts. Returns whether what it knows is stale. `None`: it sleeps.
    fn look_up(&mut self) -> Option<bool> {
        let agent = &self.agents[self.rng.next_u32() as usize % AGENTS];
        let friend = &self.agents[agent.friends[self.rng.next_u32() as usize % agent.friends.len()]];
        let known = agent.known.get(&friend.peer.identity());
        (!agent.is_asleep).then(|| friend.is_asleep || known != Some(&friend.place))
    }
}

#[test]
fn what_agents_know_of_each_other_is_seldom_stale_although_one_in_ten_moves_in_an_hour() {
    let mut crowd = Crowd::new();
    let begin = crowd.world.now.monotonic;
    crowd.run_until(begin + BEFORE);
    for number in 0..AGENTS {
        crowd.agents[number].tell(crowd.world.now);
        crowd.settle(number);
    }
    let start = begin + 2 * BEFORE;
    crowd.run_until(start);
    let is_met = |agent: &Agent| agent.known.len() == agent.friends.len();
    assert!(crowd.agents.iter().all(is_met), "all of them have met");

    let mut moves: BTreeSet<(Duration, usize)> = BTreeSet::new();
    for number in 0..MOVES as usize {
        moves
            .insert((start + Duration::from_millis(u64::from(crowd.rng.next_u32()) % HOUR.as_millis() as u64), number));
    }
    let (gone, back) = (start + OUTAGE.0, start + OUTAGE.0 + OUTAGE.1);
    let (mut tried, mut stale, mut moved) = (0_u32, 0_u32, 0);
    let mut next = start;
    while next < start + HOUR {
        next += LOOK_UP;
        crowd.run_until(next);
        if !crowd.is_rendezvous_gone && (gone..back).contains(&next) {
            crowd.lose_rendezvous(true);
        } else if crowd.is_rendezvous_gone && next >= back {
            crowd.lose_rendezvous(false);
        }
        while moves.first().is_some_and(|(at, _)| *at <= next) {
            moves.pop_first();
            moved += 1;
            let how = match moved % 10 {
                0 => Move::Asleep,
                1..=3 => Move::Unnoticed,
                _ => Move::Noticed,
            };
            let number = crowd.rng.next_u32() as usize % AGENTS;
            crowd.moves(number, how);
        }
        if let Some(is_stale) = crowd.look_up() {
            tried += 1;
            stale += u32::from(is_stale);
        }
    }
    let share = f64::from(stale) / f64::from(tried);
    eprintln!("{moved} moves, {tried} look-ups, {:.2} % stale", share * 100.0);
    assert!(tried > 70_000 && moved == MOVES, "{tried} look-ups");
    assert!(share <= 0.02, "{stale} of {tried} were stale");
    assert!(stale > 0, "some agent looked while a peer moved");
}
