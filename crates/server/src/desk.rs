//! The task that owns the registry: it passes on what connections report, and puts what comes back into their queues.
//!
//! What the registry wants kept goes to the thread that owns the store. Its outcomes come back in a queue of their own. It
//! has no bound of its own, because the registry has at most [`MAX_WAITING`](crate::redb_store::MAX_WAITING) operations
//! under way, and each has one outcome. If other processes share the store, what they write comes in one more queue.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use overlay_rendezvous::protocol::{Answer, Call, Code, FromServer, Push, Reply, encode};
use overlay_rendezvous::registry::{
    Arrival, ConnectionId, NotCommitted, Order, OrderId, OrderRefused, Output, Registry, Ticket,
};
use overlay_rendezvous::store::{Change, Conflict, Operation, Revision};
use tokio::sync::{mpsc, oneshot};

use crate::clock::now;
use crate::end::End;
use crate::kept::Following;
use crate::outbox::Outbox;
use crate::redb_store::Submitter;

/// Reports that wait for the registry. A connection that reports more waits, and so does its agent.
pub(crate) const MAX_REPORTS: usize = 1_024;
/// Reconnects after the end of a rendezvous are spread over this time, in milliseconds: if it is about to start again, or if
/// different processes go on meanwhile.
const SPREAD: (u32, u32) = (30_000, 8_000);

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its agent has proved who it is.
    Connected(ConnectionId, Arrival, Outbox),
    /// Its agent calls.
    Call(ConnectionId, Call),
    /// It has ended.
    Disconnected(ConnectionId),
    /// The operator orders something, and waits for the outcome.
    Order(Order, oneshot::Sender<Result<(), OrderRefused>>),
    /// The operator looks at the registry.
    Look(Look),
    /// The rendezvous ends: what is under way is kept and answered, then all agents are told, and all connections end.
    Shutdown,
}

/// What the operator wants to see.
pub(crate) struct Look(pub(crate) Box<dyn FnOnce(&Registry) + Send>);

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// The store has failed. What the registry holds in memory may differ from what is on disk, so the process must start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreFailed;

/// The outcome of an operation.
type Outcome = (Ticket, Result<Revision, NotCommitted>);

/// Runs until [`Report::Shutdown`], or until nobody can report any longer. What is under way is answered first.
///
/// # Errors
/// [`StoreFailed`]. All connections end with it.
pub(crate) async fn run(
    mut registry: Registry,
    (store, mut following): (Submitter, Option<Following>),
    mut reports: mpsc::Receiver<Report>,
) -> Result<(), StoreFailed> {
    let (outcomes, mut arriving) = mpsc::unbounded_channel();
    let mut outboxes: HashMap<ConnectionId, Outbox> = HashMap::new();
    let mut orders: HashMap<OrderId, oneshot::Sender<Result<(), OrderRefused>>> = HashMap::new();
    let mut last_order = 0;
    let (mut ended, mut is_ending, mut under_way) = (Ok(()), false, 0_usize);
    while ended.is_ok() && !(is_ending && under_way == 0) {
        let due = registry.deadline(now()).map(|at| at.saturating_sub(now().monotonic));
        let (mut taken, mut is_refused_for_now) = (None, false);
        tokio::select! {
            report = reports.recv(), if !is_ending => match report {
                Some(Report::Connected(connection, arrival, outbox)) => {
                    outboxes.insert(connection, outbox);
                    registry.connected(connection, arrival, now());
                }
                Some(Report::Call(connection, call)) => {
                    taken = Some((connection, call.id));
                    registry.call(connection, call, now());
                }
                Some(Report::Disconnected(connection)) => {
                    if outboxes.remove(&connection).is_some() {
                        registry.disconnected(connection, now());
                    }
                }
                Some(Report::Order(order, reply)) => {
                    last_order += 1;
                    orders.insert(OrderId(last_order), reply);
                    registry.order(OrderId(last_order), order, now());
                }
                Some(Report::Look(Look(look))) => look(&registry),
                Some(Report::Shutdown) | None => is_ending = true,
            },
            Some((ticket, result)) = arriving.recv() => {
                under_way -= 1;
                if result == Err(NotCommitted::Failed) {
                    ended = Err(StoreFailed);
                }
                registry.committed(ticket, result, now());
            }
            changes = followed(&mut following) => match changes {
                Some(changes) => changes.into_iter().for_each(|change| registry.follow(change, now())),
                None => ended = Err(StoreFailed),
            },
            () = passed(due), if !is_ending => registry.handle_timeout(now()),
        }
        while let Some(output) = registry.poll_output() {
            match output {
                Output::Send { connection, message } => {
                    is_refused_for_now |= taken.is_some_and(|taken| refuses_for_now(&message, connection, taken));
                    outboxes.get(&connection).inspect(|outbox| outbox.push(encode(&message)));
                }
                Output::Close { connection } => {
                    outboxes.get(&connection).inspect(|outbox| outbox.finish(End::Registry));
                }
                Output::Ordered { order, result } => {
                    // The operator may have hung up.
                    orders.remove(&order).map(|reply| reply.send(result));
                }
                Output::Present { identity, is_present } => {
                    following.as_ref().inspect(|following| (following.show)(identity, is_present));
                }
                Output::Commit { ticket, operation } => {
                    under_way += 1;
                    submit(&store, ticket, operation, &outcomes);
                }
            }
        }
        if let Some((connection, _)) = taken {
            outboxes.get(&connection).inspect(|outbox| outbox.on_taken(is_refused_for_now));
        }
    }
    let longest = if following.is_some() { SPREAD.1 } else { SPREAD.0 };
    for outbox in outboxes.values() {
        outbox.push(encode(&FromServer::Push(Push::Reconnect { wait: spread(longest) })));
        outbox.finish(End::Shutdown);
    }
    ended
}

/// Whether a message is the answer to this call of this connection, and tells it to ask again later.
fn refuses_for_now(message: &FromServer, to: ConnectionId, (connection, call): (ConnectionId, u32)) -> bool {
    let FromServer::Answer(Answer { id, reply: Reply::Refused { code: Code::Later, .. } }) = message else {
        return false;
    };
    (to, *id) == (connection, call)
}

/// Hands an operation to the store. Its outcome always arrives, as a failure if need be.
fn submit(store: &Submitter, ticket: Ticket, operation: Operation, outcomes: &mpsc::UnboundedSender<Outcome>) {
    let mut pending = Pending { ticket, outcomes: outcomes.clone(), is_told: false };
    let reply = move |outcome: Result<Revision, Conflict>| {
        pending.tell(outcome.map_err(|Conflict| NotCommitted::Conflict));
    };
    // What is not taken is dropped, and tells that by itself.
    let _ = store.submit(operation, Box::new(reply));
}

/// An operation without an outcome. Dropping it is one: the store has failed.
struct Pending {
    ticket: Ticket,
    outcomes: mpsc::UnboundedSender<Outcome>,
    is_told: bool,
}

impl Pending {
    fn tell(&mut self, result: Result<Revision, NotCommitted>) {
        self.is_told = true;
        // At the end nobody listens any more. What was committed is on disk.
        let _ = self.outcomes.send((self.ticket, result));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(Err(NotCommitted::Failed));
        }
    }
}

/// What others have written. `None`: the store has failed for good.
async fn followed(following: &mut Option<Following>) -> Option<Vec<Change>> {
    match following {
        Some(following) => following.changes.recv().await,
        None => std::future::pending().await,
    }
}

async fn passed(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}

fn spread(longest: u32) -> u32 {
    let mut bytes = [0; 4];
    // Without randomness all reconnect at once, which is only slower.
    let _ = overlay_os::random::fill(&mut bytes);
    u32::from_ne_bytes(bytes) % longest
}
