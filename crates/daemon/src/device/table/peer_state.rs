//! The states of a peer, as status and metrics show them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How things stand with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A session is alive, and the peer answers.
    Connected,
    /// A session is alive, but the peer did not answer for 15 s: it is called at every address that is known.
    Suspect,
    /// Initiations are being sent.
    Handshaking,
    /// No session, and nobody asked for one.
    Idle,
    /// Initiations went unanswered for 90 s.
    Unreachable,
    /// Nothing is known of where it is: it has to call.
    NoEndpoint,
}

impl PeerState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connected, Self::Suspect, Self::Handshaking, Self::Idle, Self::Unreachable, Self::NoEndpoint];

    /// As JSON and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Suspect => "suspect",
            Self::Handshaking => "handshaking",
            Self::Idle => "idle",
            Self::Unreachable => "unreachable",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}
