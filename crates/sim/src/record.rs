//! The record of a run: every datagram on the wire, and every packet that came out of a tunnel.
//!
//! The session engine takes its ephemeral keys from the operating system, so ciphertext differs from run to run. A
//! record prints only what the seed determines: time, source, destination, kind, index, counter, length and fate of
//! each datagram. Two runs with the same seed print the same record.

use std::fmt;
use std::net::SocketAddr;

use overlay_core::Instant;
use overlay_wire::relay::open_data;
use overlay_wire::wireguard::{DATA_OVERHEAD, Message};

use crate::HostId;
use crate::nat::Refusal;
use crate::place::{Party, RouterId};

/// A datagram that a host sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it was sent.
    pub at: Instant,
    /// The host that sent it.
    pub from: HostId,
    /// The outer source address, as the host sees it.
    pub source: SocketAddr,
    /// The same behind the host's routers. `None` if one of them dropped it.
    pub outside: Option<SocketAddr>,
    /// The outer destination address.
    pub destination: SocketAddr,
    /// Whose link it crossed. Unknown if a router dropped it, or if nobody has the address.
    pub to: Option<Party>,
    /// The TTL that it left the host with.
    pub ttl: u8,
    /// The traffic class of its outer header. The lower two bits are ECN.
    pub traffic_class: u8,
    /// Whether the node set DF.
    pub dont_fragment: bool,
    /// The bytes as sent, before the network changed them.
    pub bytes: Vec<u8>,
    /// When it arrived: never, once, or twice if the network duplicated it.
    pub arrivals: Vec<Instant>,
    /// The bit that the network flipped, counted from the first bit of the first byte.
    pub flipped: Option<usize>,
}

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation,
    /// The second message of a handshake.
    Response,
    /// A cookie reply.
    CookieReply,
    /// A packet inside a session.
    Data,
    /// An empty packet inside a session.
    Keepalive,
    /// Not WireGuard.
    Other,
}

impl Kind {
    /// The kind of these bytes.
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
    /// The kind of this datagram.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.bytes)
    }

    /// The datagram inside if it goes through a relay, or else this one.
    pub fn inside(&self) -> &[u8] {
        open_data(&self.bytes).map_or(&self.bytes, |(_, inside)| inside)
    }

    /// The kind of the datagram inside.
    pub fn inner_kind(&self) -> Kind {
        Kind::of(self.inside())
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} host {} sends {} > {}: ", self.at, self.from.0, self.source, self.destination)?;
        if let Some((channel, _)) = open_data(&self.bytes) {
            write!(f, "in channel {:06x}, ", channel.number())?;
        }
        write!(f, "{:?}", self.inner_kind())?;
        match Message::parse(self.inside()) {
            Ok(Message::Initiation(bytes)) => write!(f, " from index {:02x?}", &bytes[4..8])?,
            Ok(Message::Response { receiver, .. } | Message::CookieReply { receiver, .. }) => {
                write!(f, " to index {receiver:08x}")?;
            }
            Ok(Message::Data { receiver, counter, .. }) => write!(f, " to index {receiver:08x} counter {counter}")?,
            Err(_) => {}
        }
        write!(f, ", {} bytes, class {:02x}, TTL {}", self.bytes.len(), self.traffic_class, self.ttl)?;
        match self.outside {
            Some(outside) if outside != self.source => write!(f, ", outside {outside}")?,
            Some(_) => {}
            None => write!(f, ", dropped by a router on the way out")?,
        }
        write!(f, ", arrives {:?}", self.arrivals)?;
        match self.flipped {
            Some(bit) => write!(f, " with bit {bit} flipped"),
            None => Ok(()),
        }
    }
}

/// A datagram that a router dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When that was.
    pub at: Instant,
    /// The router.
    pub router: RouterId,
    /// The source of the datagram, as the router saw it.
    pub source: SocketAddr,
    /// Its destination, as the router saw it.
    pub destination: SocketAddr,
    /// Why it was dropped.
    pub refusal: Refusal,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, router, source, destination, refusal } = self;
        write!(f, "{at:?} router {} drops {source} > {destination}: {refusal:?}", router.0)
    }
}

/// A packet that a node delivered to its TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When it was delivered.
    pub at: Instant,
    /// The packet.
    pub packet: Vec<u8>,
}
