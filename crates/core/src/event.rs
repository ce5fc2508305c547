//! Facts that the node tells control.

use std::net::SocketAddr;

use crate::{Instant, PathMtu, PathTag, PeerTag};

/// A fact for control. The shell may merge events about one peer: only the last one of each kind counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake with the peer was completed at this instant.
    HandshakeCompleted(PeerTag, Instant),
    /// Datagrams to the peer go to this outer address from now on. Either the peer was authenticated from there, or its
    /// address was not known and its name resolves to this one. True: it is the address of a relay.
    EndpointChanged(PeerTag, SocketAddr, bool),
    /// Whether the peer answers. False: data went unanswered for 15 s, or an initiation for 5 s, and its address may have
    /// moved. True: it was silent, and was heard again.
    Answering(PeerTag, bool),
    /// Handshakes with the peer went unanswered for 90 s; its endpoint may be stale.
    HandshakeFailed(PeerTag),
    /// The peer has proven that it holds the present preshared key, so the former one counts no longer.
    PresharedKeyProven(PeerTag),
    /// The peer has proved in a handshake that it knows the present key of ours. Told once for each present key, and only
    /// while former keys are answered too.
    KnowsPresentKey(PeerTag),
    /// What is known of the path's MTU changed.
    PathMtu(PathTag, PathMtu),
    /// The peer's control says this to ours. The session authenticates it as the peer's.
    Word(PeerTag, Box<[u8]>),
    /// The peer's control hands this to ours. The session authenticates it as the peer's.
    Parcel(PeerTag, Box<[u8]>),
    /// Packets for a peer whose paths the node finds have waited a second for a session, or every path to it has failed for 1.5 s.
    /// Others may know where it is now. Told again after a minute.
    Unreachable(PeerTag),
}

impl Event {
    /// The peer that the event is about.
    pub fn peer(&self) -> PeerTag {
        match self {
            Self::HandshakeCompleted(peer, _)
            | Self::EndpointChanged(peer, ..)
            | Self::Answering(peer, _)
            | Self::Word(peer, _)
            | Self::Parcel(peer, _)
            | Self::Unreachable(peer)
            | Self::PresharedKeyProven(peer)
            | Self::HandshakeFailed(peer)
            | Self::KnowsPresentKey(peer) => *peer,
            Self::PathMtu(path, _) => path.peer,
        }
    }
}
