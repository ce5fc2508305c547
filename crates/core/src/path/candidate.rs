//! Candidates: addresses at which this host or a peer may be reached (RFC 8445), as control knows them.

use std::net::{IpAddr, SocketAddr};

use overlay_wire::relay::Channel;

/// How an address of this host is known (RFC 8445 section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// The host itself has it.
    Host,
    /// A STUN server saw datagrams of the node's own socket come from there.
    ServerReflexive,
    /// A router was asked to forward it.
    Mapped,
}

/// An address at which this host may be reached from outside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address, and the UDP port.
    pub address: SocketAddr,
    /// How it is known.
    pub kind: CandidateKind,
    /// The address of this host, and the index of the interface, that datagrams have to leave from. `None`: the kernel
    /// chooses.
    pub base: Option<(IpAddr, u32)>,
}

/// Which addresses of this host a peer is told, and whether direct paths are looked for at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CandidateScope {
    /// Private addresses are told to a peer that shares a public address of ours.
    #[default]
    Auto,
    /// All addresses are told to every peer.
    All,
    /// No address is told, and no direct path is looked for.
    Relay,
}

/// Where a peer may be reached, as control knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Addresses that the peer has named, the best one first. At most [`crate::Node::MAX_REMOTE_CANDIDATES`] count.
    pub candidates: Vec<SocketAddr>,
    /// Channels of relays that lead to the peer, the best one first. The relays are among those of
    /// [`crate::Command::SetRelays`].
    pub relayed: Vec<(SocketAddr, Channel)>,
}
