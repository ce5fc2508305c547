//! What a client wants done, and what it tells the agent.

use overlay_wire::signed::{Membership, Network, PublicKey, Record, Signed};

use super::work::Task;
use crate::protocol::{Call, Code, Label, RelayAt, Slot};

/// What the client wants done, or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect.
    Connect,
    /// End the connection, or the attempt to make one. Nothing has to be said about that.
    Disconnect,
    /// Send a call.
    Send(Call),
    /// Tell the agent.
    Event(Event),
}

/// Names a query of this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query(pub u64);

/// What a refusal is about.
pub type Subject = Task;

/// The error for something that is too long, or one more than may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is too long, or too much waits for the rendezvous")
    }
}

impl std::error::Error for TooMuch {}

/// What the agent is told. Everything signed was opened, and belongs to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The rendezvous said welcome.
    Online {
        /// The network, signed by the key that the agent pins.
        network: Box<Signed<Network>>,
        /// The agent's own record, if one is registered. The agent's key signed it, on this host or on a clone.
        record: Option<Box<Signed<Record>>>,
        /// The value to present with the next connection.
        epoch: u64,
        /// The address that the connection comes from, 4 or 16 bytes.
        seen_from: Vec<u8>,
        /// Whether it keeps what the agent keeps for itself. The release before this one did not.
        keeps_entries: bool,
        /// The relay of this rendezvous, if it has one and says so.
        relay: Option<RelayAt>,
    },
    /// The connection is gone. The client makes a new one.
    Offline,
    /// The agent's record with this sequence is registered.
    Registered {
        /// The sequence of the record.
        sequence: u64,
    },
    /// The record needs an address: sign one with this, and set it. `None`: sign one without, because none is free.
    NeedsIpv4 {
        /// A free address.
        address: Option<[u8; 4]>,
    },
    /// A newer record of the agent is registered, or was until it was removed. Its next sequence must be higher.
    TooOld {
        /// That record, which the agent's key signed. `None`: it was removed.
        record: Option<Box<Signed<Record>>>,
    },
    /// Something is refused for good.
    Refused {
        /// What.
        subject: Subject,
        /// Why.
        code: Code,
    },
    /// All that is watched was told once on this connection. What has not come by now does not exist.
    Synced,
    /// The record of a watched agent.
    Record(Box<Signed<Record>>),
    /// Whether a watched agent is connected.
    Presence {
        /// The agent.
        identity: PublicKey,
        /// Whether it is.
        is_present: bool,
    },
    /// A message. It comes again with each connection until it is acknowledged.
    Message {
        /// Its sender, as the rendezvous says. What is inside is signed.
        from: PublicKey,
        /// Which of the sender's messages.
        id: [u8; 16],
        /// The sealed bytes.
        sealed: Vec<u8>,
    },
    /// What a watched agent keeps for this one.
    Slot {
        /// That agent.
        from: PublicKey,
        /// Which slot.
        slot: Slot,
        /// The sealed bytes.
        sealed: Vec<u8>,
    },
    /// The rendezvous has kept a message.
    Sent {
        /// The recipient.
        to: PublicKey,
        /// Which message.
        id: [u8; 16],
    },
    /// The recipient has acknowledged a message. This may be told more than once.
    Delivered {
        /// The recipient.
        to: PublicKey,
        /// Which message.
        id: [u8; 16],
    },
    /// What was looked for.
    Found {
        /// The query.
        query: Query,
        /// The records, in the order of their identities. Each matches the query.
        records: Vec<Signed<Record>>,
        /// If there may be more: the `after` to ask with.
        next: Option<PublicKey>,
    },
    /// What the agent keeps for itself, one page of it.
    Entries {
        /// The labels, in ascending order, and the sealed bytes.
        entries: Vec<(Label, Vec<u8>)>,
        /// If there may be more: the `after` to ask with.
        next: Option<Label>,
    },
    /// Proof that the agent is a member, signed by the rendezvous that was asked.
    Membership(Box<Signed<Membership>>),
    /// The time at the rendezvous.
    Clock {
        /// In milliseconds since 1970.
        time: u64,
    },
}
