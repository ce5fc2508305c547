//! Where something is in a world's network: on the Internet or behind a router, and at which end of a link.

use std::net::SocketAddr;

use crate::host::HostId;

/// Identifies a router of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub(crate) usize);

/// Identifies a plain UDP socket of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket(pub(crate) usize);

/// Identifies a relay of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub(crate) usize);

/// A network in which addresses are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm {
    /// The Internet.
    Internet,
    /// The network on the inside of a router.
    Behind(RouterId),
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A host. The plain sockets on it use its links.
    Host(HostId),
    /// A plain socket that is on no host.
    Socket(Socket),
    /// A relay, with all of its addresses.
    Relay(RelayId),
}

impl From<HostId> for Party {
    fn from(host: HostId) -> Self {
        Self::Host(host)
    }
}

impl From<Socket> for Party {
    fn from(socket: Socket) -> Self {
        Self::Socket(socket)
    }
}

impl From<RelayId> for Party {
    fn from(relay: RelayId) -> Self {
        Self::Relay(relay)
    }
}

/// A datagram that a plain socket received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its source, as the socket sees it.
    pub source: SocketAddr,
    /// What it carries.
    pub bytes: Vec<u8>,
}
