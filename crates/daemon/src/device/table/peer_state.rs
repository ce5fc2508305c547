//! The states of a peer, as status and metrics show them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A session is alive, and the peer answers.
    Connected,
    /// A session is alive, but the peer did not answer for 15 s: initiations go to every known address.
    Suspect,
    /// Initiations are being sent.
    Handshaking,
    /// There is no session, and no packet has needed one.
    Idle,
    /// Initiations went unanswered for 90 s.
    Unreachable,
    /// The endpoint of the peer is unknown: the peer must send the first initiation.
    NoEndpoint,
}

impl PeerState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Connected, Self::Suspect, Self::Handshaking, Self::Idle, Self::Unreachable, Self::NoEndpoint];

    /// The name in JSON and metrics.
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
