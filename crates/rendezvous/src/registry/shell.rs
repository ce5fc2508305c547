//! What the registry and its shell say to each other.

use std::net::IpAddr;

use overlay_wire::signed::PublicKey;

use crate::protocol::FromServer;
use crate::store::Operation;

use super::operator::{OrderId, OrderRefused};

/// Names a connection. The shell chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names an operation that is under way. Tickets ascend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The agent at the other end of a new connection, as its channel proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The agent.
    pub identity: PublicKey,
    /// The address that the connection comes from.
    pub address: IpAddr,
    /// The epoch that the agent presented. 0: none.
    pub epoch: u64,
}

/// Why an operation is not on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCommitted {
    /// A condition was not met.
    Conflict,
    /// The store failed, and nothing is known of the operation. The shell must start again from the store: what this
    /// registry holds in memory may differ from it.
    Failed,
}

/// What the registry wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// The message.
        message: FromServer,
    },
    /// Close a connection, of which the registry knows nothing any more.
    Close {
        /// Which one.
        connection: ConnectionId,
    },
    /// Tell the operator what came of an order.
    Ordered {
        /// Which order.
        order: OrderId,
        /// What came of it. `Ok`: it is done, and kept on disk.
        result: Result<(), OrderRefused>,
    },
    /// Say in the store that several processes share that an agent is connected to this one ([`presence_key`]), in an entry that
    /// ends with this process. Or end that entry, if it still names this process.
    ///
    /// [`presence_key`]: super::presence_key
    Present {
        /// The agent.
        identity: PublicKey,
        /// Whether it is connected.
        is_present: bool,
    },
    /// Commit an operation. Outcomes come back in the order of their tickets.
    Commit {
        /// Names it.
        ticket: Ticket,
        /// The operation.
        operation: Operation,
    },
}
