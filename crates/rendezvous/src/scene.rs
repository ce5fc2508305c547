//! A registry, its store and its callers in memory, with virtual time. Tests alone use it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use overlay_wire::signed::{
    Abilities, Attestation, Bind, Network, Permit, Pool, PublicKey, Record, Release, SecretKey, Signed, Token,
    TunnelKey, Visibility,
};

use crate::now::Now;
use crate::protocol::{Call, Code, Find, FromServer, Push, Reply, Verb};
use crate::registry::{
    Arrival, Config, ConnectionId, Limits, NotCommitted, Order, OrderId, OrderRefused, Output, Registry, Ticket,
};
use crate::store::{MemoryStore, Operation, Store};

/// When the world begins, in milliseconds since 1970.
pub(crate) const START: u64 = 1_800_000_000_000;
/// One day in milliseconds.
pub(crate) const DAY: u64 = 24 * 3_600 * 1_000;
/// The prefix length of the pool: few addresses, so that candidates meet.
pub(crate) const POOL_LEN: u8 = 24;

pub(crate) fn secret(n: u32) -> SecretKey {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_bytes(&bytes)
}

/// The identity of agent `n`.
pub(crate) fn agent(n: u32) -> PublicKey {
    secret(n).public()
}

pub(crate) fn network_secret() -> SecretKey {
    SecretKey::from_bytes(&[200; 32])
}

pub(crate) fn rendezvous_secret() -> SecretKey {
    SecretKey::from_bytes(&[201; 32])
}

pub(crate) fn network(is_closed: bool) -> Signed<Network> {
    let network = Network {
        network: network_secret().public(),
        sequence: 1,
        issued: START,
        name: "lab".to_owned(),
        pool: Pool::new(Ipv4Addr::new(10, 64, 0, 0), POOL_LEN).expect("a pool"),
        rendezvous: Vec::new(),
        is_closed,
    };
    Signed::sign(network, &network_secret()).expect("a good network")
}

/// A record of agent `n`, which is signed with [`sign`].
pub(crate) fn record(n: u32, name: &str, sequence: u64, now: Now) -> Record {
    Record {
        network: network_secret().public(),
        identity: agent(n),
        sequence,
        issued: now.unix,
        fresh_until: now.unix + DAY,
        name: name.to_owned(),
        ipv4: None,
        tunnel_keys: vec![TunnelKey([9; 32])],
        mailbox_x25519: [8; 32],
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    }
}

pub(crate) fn sign(n: u32, record: Record) -> Signed<Record> {
    Signed::sign(record, &secret(n)).expect("a good record")
}

pub(crate) fn register(n: u32, record: Record) -> Verb {
    Verb::Register { record: sign(n, record).bytes().to_vec().into() }
}

pub(crate) fn release(n: u32, name: &str, sequence: u64) -> Verb {
    let network = network_secret().public();
    let release = Release { network, identity: agent(n), sequence, issued: START, name: name.to_owned() };
    Verb::Release { release: Signed::sign(release, &secret(n)).expect("a good release").bytes().to_vec().into() }
}

/// The permit of agent `issuer` for `subject`.
pub(crate) fn permit(issuer: u32, subject: u32, expires: u64) -> Vec<u8> {
    let network = network_secret().public();
    let permit = Permit { network, issuer: agent(issuer), subject: agent(subject), issued: START, expires };
    Signed::sign(permit, &secret(issuer)).expect("a good permit").bytes().to_vec()
}

/// A token of the network, which anybody may use `uses` times, used for agent `n`.
pub(crate) fn attestation(n: u32, token: u32, uses: u32, is_ephemeral: bool) -> Attestation {
    attest(n, token, uses, is_ephemeral, None)
}

fn attest(n: u32, token: u32, uses: u32, is_ephemeral: bool, name: Option<String>) -> Attestation {
    let key = secret(1_000_000 + token);
    let token = sign_token(Token { is_ephemeral, name, ..new_token(token, uses) });
    let bind = Bind { network: token.network, token: key.public(), identity: agent(n), nonce: [1; 16] };
    Attestation { token: token.bytes().to_vec(), bind: Signed::sign(bind, &key).expect("a good bind").bytes().to_vec() }
}

/// Token number `n`.
pub(crate) fn new_token(n: u32, uses: u32) -> Token {
    Token {
        network: network_secret().public(),
        token: secret(1_000_000 + n).public(),
        issued: START,
        expires: START + DAY,
        uses,
        is_ephemeral: false,
        name: None,
        tags: Vec::new(),
    }
}

pub(crate) fn sign_token(token: Token) -> Signed<Token> {
    Signed::sign(token, &network_secret()).expect("a good token")
}

pub(crate) fn send(to: u32, id: u8, sealed: &[u8]) -> Verb {
    Verb::Send { to: agent(to), message: [id; 16], sealed: sealed.to_vec().into(), permit: None }
}

/// The code of a refusal.
pub(crate) fn code(reply: &Reply) -> Option<Code> {
    match reply {
        Reply::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

/// The world of a registry.
pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) registry: Registry,
    pub(crate) store: MemoryStore,
    pub(crate) limits: Limits,
    is_closed: bool,
    /// Whether operations wait until [`World::commit`].
    pub(crate) is_commit_held: bool,
    waiting: VecDeque<(Ticket, Operation)>,
    /// What each connection was sent and nobody has taken yet.
    pub(crate) sent: BTreeMap<ConnectionId, VecDeque<FromServer>>,
    pub(crate) closed: BTreeSet<ConnectionId>,
    ordered: BTreeMap<OrderId, Result<(), OrderRefused>>,
    last_connection: u64,
    last_call: u32,
    last_order: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), false)
    }

    pub(crate) fn with(limits: Limits, is_closed: bool) -> Self {
        let now = Now { unix: START, monotonic: Duration::from_secs(1_000) };
        let config =
            Config { network: network(is_closed), key: rendezvous_secret(), relay: None, limits, seed: [1; 32] };
        Self {
            now,
            registry: Registry::new(config),
            store: MemoryStore::default(),
            limits,
            is_closed,
            is_commit_held: false,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            closed: BTreeSet::new(),
            ordered: BTreeMap::new(),
            last_connection: 0,
            last_call: 0,
            last_order: 0,
        }
    }

    pub(crate) fn connect(&mut self, identity: PublicKey, epoch: u64) -> ConnectionId {
        let address = IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 + self.last_connection as u32));
        self.connect_from(identity, address, epoch)
    }

    pub(crate) fn connect_from(&mut self, identity: PublicKey, address: IpAddr, epoch: u64) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.registry.connected(connection, Arrival { identity, address, epoch }, self.now);
        self.settle();
        connection
    }

    /// A connection of agent `n`, which has registered under the name `agentN` with the address it was offered.
    pub(crate) fn join(&mut self, n: u32) -> ConnectionId {
        self.join_as(n, |_| {})
    }

    pub(crate) fn join_as(&mut self, n: u32, change: impl FnOnce(&mut Record)) -> ConnectionId {
        let connection = self.connect(agent(n), 0);
        let mut mine = record(n, &format!("agent{n}"), 1, self.now);
        change(&mut mine);
        let mut reply = self.ask(connection, register(n, mine.clone()));
        if let Reply::Refused { code: Code::Ipv4, ipv4, .. } = reply {
            mine.ipv4 = ipv4;
            reply = self.ask(connection, register(n, mine));
        }
        assert_eq!(reply, Reply::Done, "agent {n} registers");
        self.ask(connection, Verb::Hello);
        connection
    }

    /// Makes a call without looking for its answer.
    pub(crate) fn call(&mut self, connection: ConnectionId, verb: Verb) -> u32 {
        self.last_call += 1;
        self.registry.call(connection, Call { id: self.last_call, verb }, self.now);
        self.settle();
        self.last_call
    }

    /// Makes a call and takes its answer.
    pub(crate) fn ask(&mut self, connection: ConnectionId, verb: Verb) -> Reply {
        let id = self.call(connection, verb);
        self.answer(connection, id).expect("an answer")
    }

    /// Orders something. `None`: the outcome is not known yet.
    pub(crate) fn order(&mut self, order: Order) -> Option<Result<(), OrderRefused>> {
        self.last_order += 1;
        let id = OrderId(self.last_order);
        self.registry.order(id, order, self.now);
        self.settle();
        self.ordered.remove(&id)
    }

    /// Takes the answer to a call, if there is one.
    pub(crate) fn answer(&mut self, connection: ConnectionId, id: u32) -> Option<Reply> {
        let sent = self.sent.get_mut(&connection)?;
        let is_it = |message: &FromServer| matches!(message, FromServer::Answer(answer) if answer.id == id);
        let at = sent.iter().position(is_it)?;
        match sent.remove(at)? {
            FromServer::Answer(answer) => Some(answer.reply),
            FromServer::Push(_) => None,
        }
    }

    /// Takes what was pushed to a connection.
    pub(crate) fn pushes(&mut self, connection: ConnectionId) -> Vec<Push> {
        let sent = self.sent.remove(&connection).unwrap_or_default();
        let push = |message| match message {
            FromServer::Push(push) => Some(push),
            FromServer::Answer(_) => None,
        };
        sent.into_iter().filter_map(push).collect()
    }

    /// The names of the records that a query finds, over all its pages.
    pub(crate) fn find(&mut self, connection: ConnectionId, by: Find) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let Reply::Found { records, next } = self.ask(connection, Verb::Find { by: by.clone(), after }) else {
                panic!("a query finds or finds not");
            };
            let open = |bytes: &[u8]| Signed::<Record>::open(bytes).expect("what was registered").name.clone();
            names.extend(records.iter().map(|bytes| open(bytes)));
            let Some(next) = next else { return names };
            assert!(after < Some(next), "pages go on");
            after = Some(next);
        }
    }

    /// Carries out what the registry wants.
    pub(crate) fn settle(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Send { connection, message } => {
                    let len = crate::protocol::encode(&message).len();
                    assert!(len <= crate::protocol::MAX_MESSAGE_LEN, "a message of {len} bytes");
                    self.sent.entry(connection).or_default().push_back(message);
                }
                Output::Close { connection } => drop(self.closed.insert(connection)),
                Output::Ordered { order, result } => drop(self.ordered.insert(order, result)),
                Output::Present { .. } => unreachable!("the store is not shared"),
                Output::Commit { ticket, operation } => {
                    assert!(operation.is_well_formed());
                    self.waiting.push_back((ticket, operation));
                    if !self.is_commit_held {
                        self.commit();
                    }
                }
            }
        }
    }

    /// Commits what waits, and tells the registry.
    pub(crate) fn commit(&mut self) {
        for (ticket, outcome) in self.write() {
            self.registry.committed(ticket, outcome, self.now);
        }
        self.settle();
    }

    /// Commits what waits, and tells nobody.
    pub(crate) fn write(&mut self) -> Vec<(Ticket, Result<crate::store::Revision, NotCommitted>)> {
        let (tickets, operations): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let Ok(outcomes) = self.store.commit(&operations);
        let outcomes = outcomes.into_iter().map(|outcome| outcome.map_err(|_| NotCommitted::Conflict));
        tickets.into_iter().zip(outcomes).collect()
    }

    /// How many operations wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The store fails for everything that waits.
    pub(crate) fn fail(&mut self) {
        for (ticket, _) in std::mem::take(&mut self.waiting) {
            self.registry.committed(ticket, Err(NotCommitted::Failed), self.now);
        }
        self.settle();
    }

    /// Lets time pass, and handles what is due.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.monotonic + by;
        loop {
            let next = self.registry.deadline(self.now).filter(|at| *at <= end);
            let at = next.unwrap_or(end).max(self.now.monotonic);
            self.now.unix += (at - self.now.monotonic).as_millis() as u64;
            self.now.monotonic = at;
            if next.is_none() {
                return;
            }
            self.registry.handle_timeout(self.now);
            self.settle();
        }
    }

    pub(crate) fn advance_days(&mut self, days: u32) {
        self.advance(Duration::from_secs(24 * 3_600) * days);
    }

    /// Closes the network from the next start on.
    pub(crate) fn set_closed(&mut self) {
        self.is_closed = true;
    }

    /// The registry ends without a word, and a new one starts from the store. What was not committed is lost.
    pub(crate) fn restart(&mut self) {
        let config = Config {
            network: network(self.is_closed),
            key: rendezvous_secret(),
            relay: None,
            limits: self.limits,
            seed: [2; 32],
        };
        let Ok(registry) = Registry::open(config, &self.store, self.now);
        self.registry = registry;
        self.waiting.clear();
        self.sent.clear();
    }
}
