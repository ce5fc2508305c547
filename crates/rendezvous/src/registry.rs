//! The registry: who is registered, who is connected, who watches whom, and what waits for whom.
//!
//! The registry is the server's state machine. Connections, calls and the time go in. Answers, pushes and operations of
//! the store come out of [`Registry::poll_output`]. A call that changes something is answered only after
//! [`Registry::committed`] said that the change is on disk. Nobody is shown a change before that either. The shell
//! gathers operations of many calls into one commit.
//!
//! A registration, in order:
//!
//! 1. The quotas: may this identity, and this address, ask now?
//! 2. The record: this network, the caller's own, a good signature, fresh, not from the future.
//! 3. Its sequence: higher than the one that is registered.
//! 4. The name: free, or the caller's.
//! 5. The network, if it is closed: a token of the operator.
//! 6. The IPv4 address: a candidate of the caller that is free, or the caller's.
//! 7. One operation claims name, address and identity together. While it is under way, others who want the same are
//!    told to ask again.
//! 8. Once it is on disk, the caller gets its answer, and those who watch it get the record.
//!
//! Records, claims, messages and slots are in the store, and in memory as they are on disk. Leases, watches and quotas
//! are in memory alone, because they end with the connections. Everything has a bound in [`Limits`] or beside its type.
//!
//! The operator of the network gives orders ([`Registry::order`]), which are operations like those of calls.
//!
//! Several processes may share a store ([`Registry::follow`]). A conflict in the store is counted, and the caller is told to ask
//! again.

mod agenda;
mod agents;
mod connections;
mod find;
mod follow;
mod leave;
mod ledger;
mod letters;
mod limits;
mod load;
mod membership;
mod operator;
mod presence;
mod register;
mod shell;
mod stats;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use minicbor::bytes::ByteVec;
use overlay_wire::signed::{Network, PublicKey, Refused, SecretKey, Signed};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::mailbox::{Ledgers, Mailboxes, Slots};
use crate::now::Now;
use crate::protocol::{Answer, Call, Code, FromServer, Push, RelayAt, Reply, Verb};
use crate::quota::Quotas;
use crate::store::{Operation, Revision};

use agenda::Agenda;
use agents::Agents;
use connections::Connection;
use follow::Shared;
use limits::cost;
use operator::KnownToken;
use presence::{Leases, Watches};

pub use limits::{Config, Limits};
pub use operator::{AgentView, Order, OrderId, OrderRefused, TokenView};
pub use presence::LEASE;
pub use shell::{Arrival, ConnectionId, NotCommitted, Output, Ticket};
pub use stats::Stats;
pub use stored::{is_presence_key, presence_key};

/// An object from further in the future is refused, in milliseconds: ten minutes.
pub const MAX_AHEAD: u64 = 10 * 60 * 1_000;
/// The most operations that are under way. Further calls that need one are told to ask again.
const MAX_UNDER_WAY: usize = 4_096;
/// When an agent is to reconnect whose connection was replaced, in milliseconds.
const REPLACED_WAIT: u32 = 2_000;
/// How long to wait for an operation that is under way.
const A_MOMENT: Duration = Duration::from_millis(100);
/// The longest time until [`Registry::handle_timeout`], because somebody may set the wall clock.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What waits for the outcome of an operation.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// A connection, for the answer to this call.
    Call(ConnectionId, u32),
    /// The operator.
    Order(OrderId),
}

impl From<(ConnectionId, u32)> for Asker {
    fn from((connection, call): (ConnectionId, u32)) -> Self {
        Self::Call(connection, call)
    }
}

/// An operation that is under way.
#[derive(Debug)]
struct UnderWay {
    asker: Option<Asker>,
    /// Keys of the store that nobody else may claim meanwhile.
    locks: Vec<Vec<u8>>,
    effect: Effect,
}

/// What happens in memory once an operation is on disk.
#[derive(Debug)]
enum Effect {
    Registered(Box<register::Registered>),
    Left(Box<leave::Left>),
    Ordered(Box<operator::Change>),
    Letter(letters::Effect),
    Entry(ledger::Put),
    Forgotten(agenda::Forgotten),
}

/// Why a call is refused, with what goes into the answer.
#[derive(Debug)]
struct Refusal {
    code: Code,
    ipv4: Option<[u8; 4]>,
    record: Option<ByteVec>,
    wait: Option<Duration>,
}

/// `None`: the answer comes once an operation is on disk.
type Outcome = Result<Option<Reply>, Refusal>;

/// The state machine. See the module's text.
#[derive(Debug)]
pub struct Registry {
    network: Signed<Network>,
    key: SecretKey,
    relay: Option<RelayAt>,
    limits: Limits,
    rng: ChaCha8Rng,
    agents: Agents,
    /// The last two epochs that each registered agent was told. Its answer to the newest may have been lost.
    epochs: BTreeMap<PublicKey, [u64; 2]>,
    /// The tokens that were used, or that the operator has told of.
    tokens: BTreeMap<PublicKey, KnownToken>,
    /// The agents that may do nothing here, since when, and the operation that wrote it.
    bans: BTreeMap<PublicKey, (u64, Revision)>,
    mail: Mailboxes,
    slots: Slots,
    ledgers: Ledgers,
    connections: BTreeMap<ConnectionId, Connection>,
    leases: Leases,
    watches: Watches,
    quotas: Quotas,
    agenda: Agenda,
    under_way: BTreeMap<Ticket, UnderWay>,
    locks: BTreeSet<Vec<u8>>,
    last_ticket: Ticket,
    /// `None`: this is the only process.
    shared: Option<Shared>,
    revision: Revision,
    outputs: VecDeque<Output>,
    stats: Stats,
}

impl Registry {
    /// A registry without agents. [`Registry::open`] makes one with those of a store.
    pub fn new(config: Config) -> Self {
        let Config { network, key, relay, limits, seed } = config;
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            agents: Agents::new(network.pool),
            epochs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            bans: BTreeMap::new(),
            mail: Mailboxes::new(limits.mailbox_len),
            slots: Slots::new(limits.slots_len),
            ledgers: Ledgers::new(limits.ledgers_len),
            connections: BTreeMap::new(),
            leases: Leases::default(),
            watches: Watches::default(),
            quotas: Quotas::new(limits.identity_rates, limits.address_rates),
            agenda: Agenda::default(),
            under_way: BTreeMap::new(),
            locks: BTreeSet::new(),
            last_ticket: Ticket(0),
            shared: None,
            revision: Revision(0),
            outputs: VecDeque::new(),
            stats: Stats::default(),
            network,
            key,
            relay,
            limits,
        }
    }

    /// A connection calls.
    pub fn call(&mut self, connection: ConnectionId, call: Call, now: Now) {
        let Some(caller) = self.connections.get(&connection) else { return };
        let (identity, address) = (caller.identity, caller.address);
        // What keeps an agent online is its own. Otherwise a neighbour behind the same address could take it offline.
        let is_own = match call.verb {
            Verb::Ping => true,
            Verb::Hello => !caller.is_greeted,
            _ => false,
        };
        self.stats.calls += 1;
        self.leases.renew(&identity, now.monotonic);
        let taken = if is_own {
            self.quotas.take_of_identity(&identity, cost(&call.verb), now.monotonic)
        } else {
            self.quotas.take(&identity, address, cost(&call.verb), now.monotonic)
        };
        let outcome = match taken {
            Ok(()) => self.judge((connection, call.id), identity, call.verb, now),
            Err(exceeded) => {
                let counter = if exceeded.is_address {
                    &mut self.stats.over_address_rate
                } else {
                    &mut self.stats.over_identity_rate
                };
                *counter += 1;
                Err(Refusal::later(exceeded.wait))
            }
        };
        match outcome {
            Ok(Some(reply)) => self.answer(connection, call.id, reply),
            Ok(None) => {}
            Err(refusal) => self.refuse(connection, call.id, refusal),
        }
    }

    fn judge(&mut self, asker: (ConnectionId, u32), caller: PublicKey, verb: Verb, now: Now) -> Outcome {
        // A banned agent keeps a connection, so it learns why it gets nothing.
        if self.is_banned(&caller) && !matches!(verb, Verb::Hello | Verb::Ping) {
            return Err(Code::NotAMember.into());
        }
        match verb {
            Verb::Hello => Ok(self.greet(asker, caller)),
            Verb::Ping => Ok(Some(Reply::Revision { revision: self.revision.0, time: now.unix })),
            Verb::Register { record } => self.register(asker, caller, &record, now),
            Verb::Release { release } => self.release(asker, caller, &release, now),
            Verb::Find { by, after } => self.find(&caller, &by, after, now),
            Verb::Send { to, message, sealed, permit } => {
                let letter = letters::Letter { from: caller, to, id: message, sealed, permit };
                self.send(asker, letter, now)
            }
            Verb::Acknowledge { from, message } => self.acknowledge(asker, caller, (from, message)),
            Verb::PutSlot { to, slot, sealed } => self.put_slot(asker, (caller, slot), to, sealed.into(), now),
            Verb::Watch { identities } => self.watch(asker.0, caller, &identities, now),
            Verb::Unwatch { identities } => self.unwatch(asker.0, &identities),
            Verb::PutEntry { label, sealed } => self.put_entry(asker, caller, label, sealed.into()),
            Verb::Entries { after } => Ok(Some(self.entries(&caller, after))),
            Verb::Membership => self.vouch_for(caller, now).map(Some),
        }
    }

    /// The outcome of an operation.
    pub fn committed(&mut self, ticket: Ticket, result: Result<Revision, NotCommitted>, now: Now) {
        self.settle(ticket, result, now);
        self.follow_late(ticket, result, now);
    }

    fn settle(&mut self, ticket: Ticket, result: Result<Revision, NotCommitted>, now: Now) {
        let Some(UnderWay { asker, locks, effect }) = self.under_way.remove(&ticket) else { return };
        for lock in &locks {
            self.locks.remove(lock);
        }
        match result {
            Ok(revision) => {
                self.stats.commits += 1;
                self.revision = self.revision.max(revision);
                let mut asker_connection = None;
                match asker {
                    Some(Asker::Call(connection, id)) => {
                        asker_connection = Some(connection);
                        self.answer(connection, id, Reply::Done);
                    }
                    Some(Asker::Order(order)) => self.outputs.push_back(Output::Ordered { order, result: Ok(()) }),
                    None => {}
                }
                match effect {
                    Effect::Registered(registered) => {
                        self.on_registered(*registered, revision, asker_connection, now);
                    }
                    Effect::Left(left) => self.on_left(*left, revision),
                    Effect::Ordered(change) => self.on_ordered(*change, revision),
                    Effect::Letter(letter) => self.on_letter_committed(letter),
                    Effect::Entry(put) => self.on_entry_committed(put),
                    Effect::Forgotten(forgotten) => self.on_forgotten(forgotten, now),
                }
            }
            Err(reason) => {
                let counter = match reason {
                    NotCommitted::Conflict => &mut self.stats.conflicts,
                    NotCommitted::Failed => &mut self.stats.failures,
                };
                *counter += 1;
                match effect {
                    Effect::Letter(letter) => self.on_letter_lost(letter),
                    Effect::Entry(put) => self.on_entry_lost(&put),
                    _ => {}
                }
                match asker {
                    Some(Asker::Call(connection, id)) => {
                        self.refuse(connection, id, Refusal::later(Duration::from_secs(1)));
                    }
                    Some(Asker::Order(order)) => {
                        self.outputs.push_back(Output::Ordered { order, result: Err(OrderRefused::Later) });
                    }
                    None => {}
                }
            }
        }
    }

    /// The time that [`Registry::deadline`] named has come.
    pub fn handle_timeout(&mut self, now: Now) {
        for (identity, connection) in self.leases.pop_ended(now.monotonic) {
            if let Some(connection) = connection {
                self.stats.silent_connections += 1;
                self.close(connection);
            }
            self.push_absence(&identity);
            self.note_absence(identity, now);
        }
        self.handle_agenda(now);
    }

    /// When [`Registry::handle_timeout`] is wanted, by the monotonic clock.
    pub fn deadline(&self, now: Now) -> Option<Duration> {
        let agenda = self.agenda.next().map(|unix| now.until(unix).min(now.monotonic + LONGEST_WAIT));
        [self.leases.deadline(), agenda].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The network.
    pub fn network(&self) -> &Signed<Network> {
        &self.network
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How many agents are registered, or have left within 30 days.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// How many things are due at some time. It is bounded by what there is.
    pub fn due(&self) -> usize {
        self.agenda.len()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Hands an operation to the shell. `locks` are the keys that nobody else may claim until its outcome is known.
    fn commit(&mut self, asker: Option<Asker>, operation: Operation, locks: Vec<Vec<u8>>, effect: Effect) {
        self.last_ticket.0 += 1;
        self.locks.extend(locks.iter().cloned());
        self.under_way.insert(self.last_ticket, UnderWay { asker, locks, effect });
        if let Some(shared) = &mut self.shared {
            shared.on_commit(self.last_ticket, &operation);
        }
        self.outputs.push_back(Output::Commit { ticket: self.last_ticket, operation });
    }

    /// Whether one more operation may be under way, and nobody claims any of these keys.
    fn check_free(&self, locks: &[Vec<u8>]) -> Result<(), Refusal> {
        let is_free = self.under_way.len() < MAX_UNDER_WAY && locks.iter().all(|lock| !self.locks.contains(lock));
        if is_free { Ok(()) } else { Err(Refusal::later(A_MOMENT)) }
    }

    fn answer(&mut self, connection: ConnectionId, id: u32, reply: Reply) {
        if self.connections.contains_key(&connection) {
            let message = FromServer::Answer(Answer { id, reply });
            self.outputs.push_back(Output::Send { connection, message });
        }
    }

    fn refuse(&mut self, connection: ConnectionId, id: u32, refusal: Refusal) {
        let Refusal { code, ipv4, record, wait } = refusal;
        self.stats.on_refused(code);
        // Rounded up: who asks again after exactly this time must not be too early.
        let wait = wait.map(|wait| u32::try_from(wait.as_millis() + 1).unwrap_or(u32::MAX));
        self.answer(connection, id, Reply::Refused { code, ipv4, record, wait });
    }

    fn push(&mut self, connection: ConnectionId, push: Push) {
        self.stats.pushes += 1;
        self.outputs.push_back(Output::Send { connection, message: FromServer::Push(push) });
    }

    /// Notes why an object is refused.
    fn bad_object(&mut self, _: Refused) -> Refusal {
        self.stats.bad_objects += 1;
        Code::Malformed.into()
    }
}

impl Refusal {
    fn later(wait: Duration) -> Self {
        Self { wait: Some(wait), ..Code::Later.into() }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, ipv4: None, record: None, wait: None }
    }
}
