//! How an agent is, as `GET /v1/agent/health` tells it.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::agent::explain::{Reason, Side};

/// How an agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The agent's name.
    pub name: String,
    /// Every rendezvous that it uses.
    pub rendezvous: Vec<RendezvousHealth>,
    /// The agent's virtual IPs.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// How it stands with its clock.
    pub time: Times,
    /// Every peer that something is known of.
    pub peers: Vec<PeerHealth>,
}

/// How a rendezvous and this agent stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RendezvousHealth {
    /// Where it is, with the pinned keys.
    pub url: String,
    /// `connected`, `connecting`, or as one word why it does not serve this agent.
    pub connection: String,
    /// Why it does not serve this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Why it refuses the agent's record, as one word. Left out if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_record: Option<String>,
    /// For how many seconds it has not answered a call, although the connection lives. Left out if no call waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_for: Option<u64>,
    /// How far its clock was ahead of this host's when it was heard last, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_ms: Option<i64>,
}

/// What an agent knows of the time. All times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// The clock of this host.
    pub wall_ms: u64,
    /// The latest time that the agent has reached. It ends grants.
    pub latest_ms: u64,
    /// The newest time that a trusted peer has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by_peers_ms: Option<u64>,
}

/// How an agent stands to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerHealth {
    /// The peer's name, as far as it is known.
    pub name: String,
    /// The peer's key.
    pub identity: String,
    /// The key by which `overlay status` shows its tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_key: Option<String>,
    /// How far our request came, as in `overlay agents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Why there is no tunnel. Left out if both sides agree on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<Bar>,
}

/// What keeps two agents from having a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bar {
    /// The side that has to do something.
    pub side: Side,
    /// Why.
    pub reason: Reason,
    /// Since when, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Whether this side has granted something that it has not taken back.
    pub is_granted_here: bool,
}
