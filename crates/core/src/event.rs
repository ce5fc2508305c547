//! Facts that the node tells control.

use std::net::SocketAddr;

use crate::{Instant, PathMtu, PathTag, PeerTag};

/// A fact for control. Events about one peer may be merged by the shell: only the last one of a kind counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake with the peer was completed at this instant.
    HandshakeCompleted(PeerTag, Instant),
    /// Datagrams to the peer go to this outer address from now on: it was authenticated from there, or there was none and
    /// its name has this one.
    EndpointChanged(PeerTag, SocketAddr),
    /// Whether the peer answers what it has to answer. False: data went unanswered for 15 s, or an initiation for 5 s, and
    /// its address may have moved. True: it was silent, and was heard again.
    Answering(PeerTag, bool),
    /// Handshakes with the peer went unanswered for 90 s; its endpoint may be stale.
    HandshakeFailed(PeerTag),
    /// What is known of the path's MTU changed.
    PathMtu(PathTag, PathMtu),
}

impl Event {
    /// The peer that it is about.
    pub fn peer(&self) -> PeerTag {
        match self {
            Self::HandshakeCompleted(peer, _)
            | Self::EndpointChanged(peer, _)
            | Self::Answering(peer, _)
            | Self::HandshakeFailed(peer) => *peer,
            Self::PathMtu(path, _) => path.peer,
        }
    }
}
