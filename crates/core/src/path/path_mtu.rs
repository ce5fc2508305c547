//! The largest packet that reaches a peer, in the form that control is told.

use crate::Instant;

/// The MTU that packets to a peer are held to, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// The longest inner packet that is sent whole, in bytes.
    pub mtu: u16,
    /// How well it is known.
    pub state: PathMtuState,
    /// How the peer answers probes.
    pub probed_by: ProbedBy,
    /// What limits it.
    pub limit: MtuLimit,
    /// When it last changed.
    pub since: Instant,
}

/// How well the MTU of a path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathMtuState {
    /// It is the MTU that every peer starts with. No probe was answered, and datagrams may be fragmented outside.
    Assumed,
    /// It is proven so far, and the search continues.
    Searching,
    /// It is proven, and the search is over.
    Found,
}

/// The kind of probe that the peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbedBy {
    /// None, as far as is known.
    Nothing,
    /// Control frames inside the session: it is an overlay node.
    ControlFrames,
    /// ICMP echoes to its virtual IP: any other WireGuard.
    Echoes,
}

/// What limits the MTU of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MtuLimit {
    /// Our interface, which does not take longer packets.
    Interface,
    /// The peer's interface, which does not take longer packets.
    Peer,
    /// This host: longer datagrams do not fit the device that they leave through.
    Host,
    /// A hop on the way: longer probes were not answered.
    Path,
}
