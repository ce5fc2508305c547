//! Books of trust whose letters go through a real rendezvous, in memory and with virtual time. What counts here is that both
//! ends make the same preshared key, and when it stays.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use overlay_rendezvous::client::{Client, Event, Outgoing, Output};
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::now::Now;
use overlay_rendezvous::protocol::Slot;
use overlay_rendezvous::registry::{self, Arrival, Config, ConnectionId, Limits, NotCommitted, Registry};
use overlay_rendezvous::sealed::{MailboxKeys, SECRET_LEN};
use overlay_rendezvous::store::{MemoryStore, Store};
use overlay_wire::signed::{Network, Pool, PublicKey, Record, ScopeList, SecretKey, Signed, TunnelKey};

use super::*;
use crate::agent::post::Post;
use crate::agent::state::{Beginning, State};

const START: u64 = 1_800_000_000_000;
const WEEK: u64 = 7 * 24 * 3_600 * 1_000;

/// A rendezvous and its agents.
struct World {
    now: Now,
    registry: Registry,
    store: MemoryStore,
    agents: Vec<Agent>,
    connections: u64,
    /// Whether nothing reaches the rendezvous.
    is_cut: bool,
}

/// An agent: what `daemon::agent` joins, without sockets and config.
struct Agent {
    secret: [u8; 32],
    mailbox: [u8; SECRET_LEN],
    record: Signed<Record>,
    state: State,
    book: Book,
    post: Post,
    client: Client,
    connection: Option<ConnectionId>,
    chances: u16,
    /// Whether letters are lost on the way.
    is_deaf: bool,
    _folder: tempfile::TempDir,
}

fn network_key() -> SecretKey {
    SecretKey::from_bytes(&[200; 32])
}

impl World {
    fn new(agents: u8) -> Self {
        let network = Network {
            network: network_key().public(),
            sequence: 1,
            issued: START,
            name: "lab".to_owned(),
            pool: Pool::new(Ipv4Addr::new(10, 64, 0, 0), 16).expect("a pool"),
            rendezvous: Vec::new(),
            is_closed: false,
        };
        let network = Signed::sign(network, &network_key()).expect("a good network");
        let mut world = Self {
            now: Now { unix: START, monotonic: Duration::from_secs(1_000) },
            registry: Registry::new(Config {
                network,
                key: SecretKey::from_bytes(&[201; 32]),
                relay: None,
                limits: Limits::default(),
                seed: [1; 32],
            }),
            store: MemoryStore::default(),
            agents: (1..=agents).map(Agent::new).collect(),
            connections: 0,
            is_cut: false,
        };
        world.settle();
        world
    }

    /// Lets everybody do what is due, for a minute.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.registry.handle_timeout(self.now);
            for agent in &mut self.agents {
                agent.client.handle_timeout(self.now);
            }
            while (0..self.agents.len()).any(|agent| self.serve(agent)) || self.carry_out() {}
            self.now.unix += 1_000;
            self.now.monotonic += Duration::from_secs(1);
        }
    }

    /// Does what the client of an agent wants. Returns whether it wanted anything.
    fn serve(&mut self, agent: usize) -> bool {
        let agent = &mut self.agents[agent];
        let Some(output) = agent.client.poll_output() else { return false };
        match output {
            Output::Connect if self.is_cut => agent.client.lost(self.now),
            Output::Connect => {
                self.connections += 1;
                let connection = ConnectionId(self.connections);
                let address = IpAddr::from([192, 0, 2, 1]);
                let arrival = Arrival { identity: agent.book.me(), address, epoch: 0 };
                self.registry.connected(connection, arrival, self.now);
                agent.connection = Some(connection);
                agent.client.connected(overlay_rendezvous::protocol::VERSION, self.now);
            }
            Output::Disconnect => agent.connection = None,
            Output::Send(call) => {
                if let Some(connection) = agent.connection {
                    self.registry.call(connection, call, self.now);
                }
            }
            Output::Event(event) => agent.on_event(event, self.now),
        }
        true
    }

    /// Does what the registry wants. Returns whether it wanted anything.
    fn carry_out(&mut self) -> bool {
        let Some(output) = self.registry.poll_output() else { return false };
        match output {
            registry::Output::Send { connection, message } => {
                if let Some(agent) = self.agents.iter_mut().find(|agent| agent.connection == Some(connection)) {
                    agent.client.received(message, self.now);
                }
            }
            registry::Output::Close { connection } => {
                if let Some(agent) = self.agents.iter_mut().find(|agent| agent.connection == Some(connection)) {
                    agent.connection = None;
                    agent.client.lost(self.now);
                }
            }
            registry::Output::Ordered { .. } | registry::Output::Present { .. } => {}
            registry::Output::Commit { ticket, operation } => {
                let Ok(mut outcomes) = self.store.commit(&[operation]);
                let outcome = outcomes.remove(0).map_err(|_| NotCommitted::Conflict);
                self.registry.committed(ticket, outcome, self.now);
            }
        }
        true
    }

    /// All connections end, and none comes about until `is_cut` is false.
    fn cut(&mut self) {
        self.is_cut = true;
        for agent in &mut self.agents {
            if let Some(connection) = agent.connection.take() {
                self.registry.disconnected(connection, self.now);
            }
            agent.client.lost(self.now);
        }
        self.settle();
    }

    fn ask(&mut self, from: usize, to: usize, want: &[&str], allow: &[&str]) {
        let (now, to) = (self.now, self.agents[to].record.clone());
        let agent = &mut self.agents[from];
        let (chance, own) = (agent.chance(), agent.record.clone());
        let terms = Terms { allow: Some(scopes(allow)), expires: None };
        let effects = agent.book.ask(&to, &own, (String::new(), scopes(want), terms), now.unix, chance);
        agent.follow(effects.expect("possible"), now);
    }

    fn approve(&mut self, agent: usize, peer: usize, allow: Option<&[&str]>) {
        let (now, peer) = (self.now, self.agents[peer].book.me());
        let agent = &mut self.agents[agent];
        let (chance, own) = (agent.chance(), agent.record.clone());
        let terms = Terms { allow: allow.map(scopes), expires: None };
        let effects = agent.book.approve(&peer, &own, terms, now.unix, chance).expect("asked, or trusted");
        agent.follow(effects, now);
    }

    /// The agent ends, and starts from what it has on disk.
    fn restart(&mut self, agent: usize) {
        if let Some(connection) = self.agents[agent].connection.take() {
            self.registry.disconnected(connection, self.now);
        }
        self.agents[agent].restart(self.now);
        self.settle();
    }

    /// The preshared key of two agents with a tunnel, which both have.
    #[track_caller]
    fn preshared_key(&self, one: usize, other: usize) -> [u8; 32] {
        let key = |agent: usize, peer: usize| {
            let identity = self.agents[peer].book.me();
            let mut open = self.agents[agent].book.open(self.now.unix);
            *open.find(|open| open.record.identity == identity).expect("a tunnel").preshared_key.0
        };
        assert_eq!(key(one, other), key(other, one));
        key(one, other)
    }
}

impl Agent {
    fn new(number: u8) -> Self {
        let (secret, mailbox) = ([number; 32], [number; SECRET_LEN]);
        let (key, keys) = (SecretKey::from_bytes(&secret), MailboxKeys::from_secret(&mailbox).expect("a good secret"));
        let folder = tempfile::tempdir_in("/root").or_else(|_| tempfile::tempdir()).expect("a folder");
        let record = sample::record(network_key().public(), &key, START, |record| {
            record.fresh_until = START + WEEK;
            record.mailbox_x25519 = keys.public_x25519();
            record.mailbox_xwing = Some(keys.public_xwing());
        });
        let mut client = Client::new(network_key().public(), key.public(), secret);
        client.set_record(record.clone(), Now { unix: START, monotonic: Duration::ZERO });
        Self {
            secret,
            mailbox,
            state: State::create(folder.path(), "lab", Beginning::default()).expect("a new state"),
            post: Post::new(network_key().public(), key.public(), keys, None),
            book: Book::new(network_key().public(), key, Vec::new(), []),
            record,
            client,
            connection: None,
            chances: 0,
            is_deaf: false,
            _folder: folder,
        }
    }

    fn chance(&mut self) -> Chance {
        self.chances += 1;
        let mut share = self.secret;
        share[..2].copy_from_slice(&self.chances.to_be_bytes());
        Chance { id: *share.first_chunk().expect("longer"), share }
    }

    fn restart(&mut self, now: Now) {
        let key = SecretKey::from_bytes(&self.secret);
        let keys = MailboxKeys::from_secret(&self.mailbox).expect("a good secret");
        self.post = Post::new(network_key().public(), key.public(), keys, None);
        self.client = Client::new(network_key().public(), key.public(), self.secret);
        self.client.set_record(self.record.clone(), now);
        self.book = Book::new(network_key().public(), key, Vec::new(), self.state.relations().expect("our own files"));
        let known: Vec<_> = self.book.relations().map(|relation| relation.identity).collect();
        self.client.watch(&known, now).expect("few");
        let effects = self.book.repeat(&self.record, now.unix);
        self.follow(effects, now);
    }

    fn sign(&mut self, change: impl FnOnce(&mut Record), now: Now) {
        let mut record = Record { sequence: self.record.sequence + 1, issued: now.unix, ..Record::clone(&self.record) };
        change(&mut record);
        self.record = Signed::sign(record, &SecretKey::from_bytes(&self.secret)).expect("a good record");
        self.client.set_record(self.record.clone(), now);
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::NeedsIpv4 { address } => self.sign(|record| record.ipv4 = address, now),
            Event::Record(record) => {
                let effects = self.book.on_record(*record, now.unix);
                self.follow(effects.unwrap_or_default(), now);
            }
            Event::Message { from, id, sealed } => {
                let letter = self.post.open_message(&from, &id, &sealed).expect("sealed for this agent");
                if !self.is_deaf {
                    self.on_letter(&from, &letter, now);
                }
                self.client.acknowledge(from, id, now).expect("few");
            }
            Event::Slot { from, slot, sealed } => {
                let letter = self.post.open_slot(&from, slot, &sealed).expect("sealed for this agent");
                self.on_letter(&from, &letter, now);
            }
            _ => {}
        }
    }

    fn on_letter(&mut self, from: &PublicKey, letter: &Letter, now: Now) {
        let (chance, own) = (self.chance(), self.record.clone());
        let effects = self.book.on_letter(from, letter, &own, None, now.unix, chance);
        self.follow(effects.unwrap_or_default(), now);
    }

    fn follow(&mut self, effects: Vec<Effect>, now: Now) {
        let record_of = |book: &Book, peer: &PublicKey| {
            book.relation(peer).and_then(|relation| relation.newest_record()).expect("a known peer").clone()
        };
        for effect in effects {
            match effect {
                Effect::Changed(peer) => {
                    self.state.set_relation(self.book.relation(&peer).expect("a known peer")).expect("our own folder");
                    self.client.watch(&[peer], now).expect("few");
                }
                Effect::Send { to, id, letter } => {
                    let sealed = self.post.seal_message(&record_of(&self.book, &to), &id, &letter).expect("short");
                    self.client.send(to, id, Outgoing { sealed, permit: None }, now).expect("few");
                }
                Effect::Keep { to, letter } => {
                    let sealed = self.post.seal_slot(&record_of(&self.book, &to), Slot::Word, &letter).expect("short");
                    self.client.put_slot(to, Slot::Word, sealed, now).expect("few");
                }
                Effect::Asked(_) => {}
            }
        }
    }
}

fn scopes(texts: &[&str]) -> ScopeList {
    ScopeList(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// Agent 0 has asked, and agent 1 has approved.
fn friends() -> World {
    let mut world = World::new(2);
    world.ask(0, 1, &["tcp/8000"], &["icmp"]);
    world.settle();
    world.approve(1, 0, None);
    world.settle();
    world
}

#[test]
fn a_request_and_its_approval_make_the_same_key_on_both_ends() {
    friends().preshared_key(0, 1);
}

#[test]
fn requests_that_cross_make_the_same_key_on_both_ends() {
    for is_cut in [false, true] {
        let mut world = World::new(2);
        if is_cut {
            // Both requests wait until the rendezvous is there.
            world.cut();
        }
        world.ask(0, 1, &["any"], &["icmp"]);
        world.ask(1, 0, &["any"], &["tcp/22"]);
        world.is_cut = false;
        world.settle();
        world.preshared_key(0, 1);
    }
}

#[test]
fn requests_and_approvals_that_are_repeated_make_the_same_key_on_both_ends() {
    let mut world = World::new(2);
    for round in 0..3 {
        world.ask(0, 1, &["tcp/8000"], &["icmp"]);
        if round == 1 {
            world.cut();
            world.is_cut = false;
        }
        world.settle();
        world.restart(0);
        world.restart(1);
    }
    world.approve(1, 0, None);
    world.cut();
    world.restart(1);
    world.is_cut = false;
    world.settle();
    let key = world.preshared_key(0, 1);

    // One that is trusted asks again: the answer comes by itself, with a new key.
    world.ask(0, 1, &["tcp/8000"], &["icmp"]);
    world.settle();
    let replaced = world.preshared_key(0, 1);
    assert_ne!(replaced, key);
    // Or it asks for more, and gets it.
    world.ask(0, 1, &["any"], &["icmp"]);
    world.settle();
    assert_eq!(world.preshared_key(0, 1), replaced, "what stands goes on until it is approved");
    world.approve(1, 0, None);
    world.settle();
    assert_ne!(world.preshared_key(0, 1), replaced);
}

#[test]
fn a_new_tunnel_key_a_new_scope_and_restarts_keep_the_key() {
    let mut world = friends();
    let key = world.preshared_key(0, 1);
    let now = world.now;
    world.agents[1].sign(|record| record.tunnel_keys = vec![TunnelKey([77; 32])], now);
    world.settle();
    let known = world.agents[0].book.relation(&world.agents[1].book.me()).expect("a friend").record.clone();
    assert_eq!(known.expect("a record").tunnel_keys, [TunnelKey([77; 32])]);
    assert_eq!(world.preshared_key(0, 1), key, "a new tunnel key");

    world.approve(1, 0, Some(&["tcp/22"]));
    world.settle();
    let opens = world.agents[0].book.open(world.now.unix).next().map(|open| open.opens.clone());
    assert_eq!(opens, Some(scopes(&["tcp/22"])));
    assert_eq!(world.preshared_key(0, 1), key, "a new scope");

    world.restart(0);
    world.restart(1);
    assert_eq!(world.preshared_key(0, 1), key, "restarts");
}

/// The former key that an agent keeps for a peer.
fn former(world: &World, agent: usize, peer: usize) -> Option<[u8; 32]> {
    let relation = world.agents[agent].book.relation(&world.agents[peer].book.me()).expect("a friend");
    relation.former_preshared_key.as_ref().map(|key| *key.0)
}

#[test]
fn the_last_key_that_was_proven_is_kept_until_a_newer_one_is() {
    let mut world = friends();
    let [one, other] = [0, 1].map(|agent| world.agents[agent].book.me());
    let first = world.preshared_key(0, 1);
    let both = |world: &World| [former(world, 0, 1), former(world, 1, 0)];
    assert_eq!(both(&world), [None, None]);
    // Agent 1 answers two requests, and no answer arrives.
    for want in ["any", "tcp/22"] {
        world.agents[0].is_deaf = true;
        world.ask(0, 1, &[want], &["icmp"]);
        world.settle();
        if world.agents[1].book.pending(world.now.unix).count() > 0 {
            world.approve(1, 0, None);
        }
        world.settle();
        assert_eq!(both(&world), [None, Some(first)]);
        world.restart(1);
        assert_eq!(both(&world), [None, Some(first)], "it is on disk");
    }
    world.agents[0].is_deaf = false;
    world.ask(0, 1, &["icmp"], &["icmp"]);
    world.settle();
    assert_ne!(world.preshared_key(0, 1), first);
    assert_eq!(both(&world), [Some(first); 2]);
    assert!(world.agents[0].book.on_key_proven(&other) && world.agents[1].book.on_key_proven(&one));
    assert!(!world.agents[0].book.on_key_proven(&other), "once");
    assert_eq!(both(&world), [None, None]);

    // What a person takes back takes the former key with it.
    world.ask(0, 1, &["tcp/80"], &["icmp"]);
    world.settle();
    assert!(former(&world, 1, 0).is_some());
    world.agents[1].book.untrust(&one, world.now.unix).expect("trusted");
    assert_eq!(former(&world, 1, 0), None);
}

/// All pairs use the same random bytes. So only who they are makes the keys differ.
#[test]
fn ten_thousand_pairs_have_ten_thousand_keys() {
    const AGENTS: usize = 142;
    let template = Agent::new(1);
    let agents: Vec<_> = (1..=AGENTS).map(|number| stranger(number as u8, &template.record)).collect();
    let pairs: Vec<_> = (0..AGENTS).flat_map(|one| (0..one).map(move |other| (one, other))).collect();
    let keys_of = |pairs: &[(usize, usize)]| -> Vec<_> {
        pairs.iter().map(|(one, other)| crossing(&agents[*one], &agents[*other])).collect()
    };
    let keys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pairs.chunks(pairs.len() / 2).map(|some| scope.spawn(move || keys_of(some))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("good pairs")).collect()
    });
    assert!(keys.len() > 10_000);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

/// An agent's secret, and its record: like this one.
fn stranger(number: u8, record: &Record) -> ([u8; 32], Signed<Record>) {
    let secret = [number; 32];
    let key = SecretKey::from_bytes(&secret);
    let record = Record { identity: key.public(), ..record.clone() };
    (secret, Signed::sign(record, &key).expect("a good record"))
}

/// Two agents ask each other. Returns the key that both make.
fn crossing(one: &([u8; 32], Signed<Record>), other: &([u8; 32], Signed<Record>)) -> [u8; 32] {
    let chance = || Chance { id: [1; 16], share: [1; 32] };
    let mut books =
        [one, other].map(|agent| Book::new(network_key().public(), SecretKey::from_bytes(&agent.0), Vec::new(), []));
    let records = [&one.1, &other.1];
    let identities = records.map(|record| record.identity);
    let requests = [0, 1].map(|end| {
        let what = (String::new(), ScopeList::default(), Terms::default());
        let effects = books[end].ask(records[1 - end], records[end], what, START, chance()).expect("possible");
        let letter = |effect| if let Effect::Send { letter, .. } = effect { Some(letter) } else { None };
        effects.into_iter().find_map(letter).expect("a request")
    });
    let [made, same] = [0, 1].map(|end| {
        let (from, letter) = (&identities[1 - end], &requests[1 - end]);
        books[end].on_letter(from, letter, records[end], None, START, chance()).expect("a request");
        books[end].relation(from).and_then(|relation| relation.preshared_key.clone()).expect("a key")
    });
    assert_eq!(made, same);
    *made.0
}
