//! What a world remembers of a run: every datagram on the wire, and every packet that came out of a tunnel.
//!
//! The session engine draws its ephemeral keys from the operating system, so ciphertext differs from run to run. All
//! that a seed does decide (when, from where, to where, which kind, which index and counter, how long, what became of
//! it) is what a record prints, and two runs of one seed print the same.

use std::fmt;
use std::net::SocketAddr;

use overlay_core::Instant;
use overlay_wire::wireguard::{DATA_OVERHEAD, Message};

use crate::HostId;

/// A datagram that a host sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it left.
    pub at: Instant,
    /// Who sent it.
    pub from: HostId,
    /// The outer address it was sent from.
    pub source: SocketAddr,
    /// The outer address it was sent to.
    pub destination: SocketAddr,
    /// The traffic class of its outer header, whose lower two bits are ECN.
    pub traffic_class: u8,
    /// Whether the node forbade everyone to fragment it.
    pub dont_fragment: bool,
    /// What was sent, before the network touched it.
    pub bytes: Vec<u8>,
    /// When it arrives: never, once, or twice where the network doubled it.
    pub arrivals: Vec<Instant>,
    /// The bit that the network flipped, counted from the first of the first byte.
    pub flipped: Option<usize>,
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation,
    /// The second message of a handshake.
    Response,
    /// A cookie.
    CookieReply,
    /// A packet inside a session.
    Data,
    /// Nothing inside a session.
    Keepalive,
    /// Not WireGuard.
    Other,
}

impl Kind {
    /// What these bytes are.
    pub fn of(datagram: &[u8]) -> Self {
        match Message::parse(datagram) {
            Ok(Message::Initiation(_)) => Self::Initiation,
            Ok(Message::Response { .. }) => Self::Response,
            Ok(Message::CookieReply { .. }) => Self::CookieReply,
            Ok(Message::Data { .. }) if datagram.len() == DATA_OVERHEAD => Self::Keepalive,
            Ok(Message::Data { .. }) => Self::Data,
            Err(_) => Self::Other,
        }
    }
}

impl Sent {
    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.bytes)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} > {}: {:?}", self.at, self.source, self.destination, self.kind())?;
        match Message::parse(&self.bytes) {
            Ok(Message::Initiation(bytes)) => write!(f, " from index {:02x?}", &bytes[4..8])?,
            Ok(Message::Response { receiver, .. } | Message::CookieReply { receiver, .. }) => {
                write!(f, " to index {receiver:08x}")?;
            }
            Ok(Message::Data { receiver, counter, .. }) => write!(f, " to index {receiver:08x} counter {counter}")?,
            Err(_) => {}
        }
        write!(f, ", {} bytes, class {:02x}, arrives {:?}", self.bytes.len(), self.traffic_class, self.arrivals)?;
        match self.flipped {
            Some(bit) => write!(f, " with bit {bit} flipped"),
            None => Ok(()),
        }
    }
}

/// A packet that a node delivered to its TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When.
    pub at: Instant,
    /// The packet.
    pub packet: Vec<u8>,
}
