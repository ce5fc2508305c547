//! The registry with its store, its connections, and the filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_rendezvous::protocol::{Call, FromServer, Verb};
use overlay_rendezvous::registry::{Arrival, ConnectionId, NotCommitted, Output, Registry};
use overlay_rendezvous::store::{MemoryStore, Store as _};
use overlay_wire::signed::{Auth, PublicKey, Signed};
use tokio::sync::mpsc::UnboundedSender;

use super::now;

/// What is made of a message of the registry to an agent.
pub(super) type Filter = Box<dyn FnMut(Told<'_>) -> Vec<FromServer> + Send>;
/// What an agent is shown in place of the right auth, made from the hash of its handshake.
pub(super) type Forgery = Arc<dyn Fn([u8; 32]) -> Vec<u8> + Send + Sync>;

/// What the registry tells an agent.
pub struct Told<'a> {
    pub to: &'a PublicKey,
    /// What it answers, if it is an answer.
    pub asked: Option<&'a Verb>,
    pub message: FromServer,
}

pub(super) struct Desk {
    registry: Option<Registry>,
    store: MemoryStore,
    seats: BTreeMap<ConnectionId, Seat>,
    last: u64,
    pub(super) filter: Filter,
    pub(super) forgery: Option<Forgery>,
    pub(super) auths: Vec<Signed<Auth>>,
    /// How often a forgery was shown, and how many messages came after it.
    pub(super) deceived: (usize, usize),
    pub(super) calls: Vec<(PublicKey, Call)>,
    pub(super) told: Vec<(PublicKey, FromServer)>,
}

/// A connection, and what takes messages to it.
struct Seat {
    identity: PublicKey,
    out: UnboundedSender<FromServer>,
}

impl Desk {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry: Some(registry), ..Self::closed() }
    }

    /// A desk where nobody is served.
    pub(super) fn closed() -> Self {
        Self {
            registry: None,
            store: MemoryStore::default(),
            seats: BTreeMap::new(),
            last: 0,
            filter: Box::new(|told| vec![told.message]),
            forgery: None,
            auths: Vec::new(),
            deceived: (0, 0),
            calls: Vec::new(),
            told: Vec::new(),
        }
    }

    /// An agent is there. What it is told goes to `out`, which is dropped when the connection has to end.
    pub(super) fn connect(&mut self, arrival: Arrival, out: UnboundedSender<FromServer>) -> ConnectionId {
        self.last += 1;
        let connection = ConnectionId(self.last);
        self.seats.insert(connection, Seat { identity: arrival.identity, out });
        self.drive(|registry| registry.connected(connection, arrival, now()));
        connection
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        if self.seats.remove(&connection).is_some() {
            self.drive(|registry| registry.disconnected(connection, now()));
        }
    }

    pub(super) fn call(&mut self, connection: ConnectionId, call: Call) {
        let Some(seat) = self.seats.get(&connection) else { return };
        self.calls.push((seat.identity, call.clone()));
        self.drive(|registry| registry.call(connection, call, now()));
    }

    /// Tells an agent something without the filter. Returns whether it is connected.
    pub(super) fn tell(&mut self, to: &PublicKey, message: FromServer) -> bool {
        let seat = self.seats.values().rev().find(|seat| seat.identity == *to);
        seat.is_some_and(|seat| seat.out.send(message).is_ok())
    }

    /// Lets the registry do something, and carries out what it wants.
    fn drive(&mut self, act: impl FnOnce(&mut Registry)) {
        let Some(registry) = &mut self.registry else { return };
        registry.handle_timeout(now());
        act(registry);
        while let Some(output) = registry.poll_output() {
            match output {
                Output::Commit { ticket, operation } => {
                    let Ok(outcomes) = self.store.commit(&[operation]);
                    for outcome in outcomes {
                        registry.committed(ticket, outcome.map_err(|_| NotCommitted::Conflict), now());
                    }
                }
                Output::Close { connection } => drop(self.seats.remove(&connection)),
                Output::Ordered { .. } | Output::Present { .. } => {}
                Output::Send { connection, message } => {
                    let Some(seat) = self.seats.get(&connection) else { continue };
                    self.told.push((seat.identity, message.clone()));
                    let asked = match &message {
                        FromServer::Answer(answer) => {
                            let is_it = |(from, call): &&(_, Call)| *from == seat.identity && call.id == answer.id;
                            self.calls.iter().rev().find(is_it).map(|(_, call)| &call.verb)
                        }
                        FromServer::Push(_) => None,
                    };
                    for message in (self.filter)(Told { to: &seat.identity, asked, message }) {
                        // If the connection has ended, its task says so.
                        let _ = seat.out.send(message);
                    }
                }
            }
        }
    }
}
