//! What is known of the largest packet that reaches a peer, as control is told of it.

use crate::Instant;

/// The MTU that packets to a peer are held to, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// The longest inner packet that is sent whole, bytes.
    pub mtu: u16,
    /// How well it is known.
    pub state: PathMtuState,
    /// How the peer answers probes.
    pub probed_by: ProbedBy,
    /// What keeps it from being more.
    pub limit: MtuLimit,
    /// Since when it is this much.
    pub since: Instant,
}

/// How well the MTU of a path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathMtuState {
    /// It is the one that every peer starts with: no probe was answered, and datagrams may be fragmented outside.
    Assumed,
    /// What was proven so far; the search goes on.
    Searching,
    /// Proven, and the search is over.
    Found,
}

/// What the peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbedBy {
    /// Nothing, as far as is known.
    Nothing,
    /// Control frames inside the session: it is an overlay node.
    ControlFrames,
    /// ICMP echoes to its virtual IP: any other WireGuard.
    Echoes,
}

/// What keeps the MTU of a path from being more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MtuLimit {
    /// Our interface, which takes no longer packets.
    Interface,
    /// The peer's interface, which takes no longer packets.
    Peer,
    /// This host: longer datagrams do not fit the device that they leave by.
    Host,
    /// Something on the way: longer probes were not answered.
    Path,
}
