//! Questions that the agent answers at once from what it knows, and the answers.

use overlay_core::PeerKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stream::EventSender;
use crate::agent::decisions_log::Decision;
use crate::agent::explain::Explain;

/// A question to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which rule decides whether something may be opened.
    Explain(Explain),
    /// What a peer may open here, and what may be opened there.
    Rules(String),
    /// The newest decisions.
    Decisions(Decisions),
    /// The code by which two people compare keys.
    Verify(String),
    /// How this agent is.
    Health,
    /// The events from now on.
    Watch(EventSender),
}

/// The query of `GET /v1/agent/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// Only those about this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// How many, at most 1,000. Left out: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
}

/// What is explained, and the tunnel key by which the data plane knows the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About<T> {
    /// The answer.
    pub answer: T,
    /// The peer's tunnel key, if it is known.
    pub tunnel_key: Option<PeerKey>,
}

/// The decisions that were logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logged {
    /// The newest come first.
    pub decisions: Vec<Decision>,
    /// How many decisions could not be logged since the daemon started, or were made too often by the config.
    pub unwritten: u64,
}

/// The rules between this agent and a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerRules {
    /// The peer's name.
    pub name: String,
    /// The peer's key.
    pub identity: String,
    /// The peer's virtual IPs or prefixes.
    pub addresses: Vec<String>,
    /// How this agent stands to the peer, as in `overlay agents`. `static` for a `[[peer]]` of the config.
    pub state: String,
    /// What the peer may open here.
    pub here: Granted,
    /// What this agent may open there.
    pub there: Granted,
    /// The state of the tunnel, as `overlay status` shows it. Left out if the data plane does not have the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Packets since the daemon started. Left out if the data plane does not have the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
}

/// What one side has granted to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// `granted`, `beforehand` (the peer has not asked yet), `expired`, `revoked`, `nothing`, `everything` (static mode
    /// without a list) or `not_known` (the rules of a static peer).
    pub state: String,
    /// The scopes. Left out if there is no grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// When it was said, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When the grant ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The user or the rule that decided, if that is this side and the log knows it: `uid 0`, `[[trust]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Packets of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packets {
    /// Inner packets from the peer.
    pub received: u64,
    /// Inner packets to the peer.
    pub sent: u64,
    /// Packets that were dropped, in either direction and for any reason.
    pub dropped: u64,
}

/// The code of two agents, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// The peer's name.
    pub name: String,
    /// The peer's key.
    pub identity: String,
    /// This agent's name.
    pub own_name: String,
    /// This agent's key.
    pub own_identity: String,
    /// The network's key.
    pub network: String,
    /// The code: both sides see the same.
    pub code: String,
}
