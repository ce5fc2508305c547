//! One event, as programs read it: a line of JSON.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PendingRequest;
use crate::agent::explain::Side;
use crate::dates::rfc3339;
use crate::path_kind::PathKind;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A peer asks for trust. A stream begins with those that wait already.
    Request,
    /// Both sides have agreed: the tunnel exists.
    Trusted,
    /// What a trusted peer may open here, or what may be opened there, is different.
    Changed,
    /// A side took its trust back: the tunnel is gone.
    Untrusted,
    /// A side refused a request.
    Rejected,
    /// A grant ended by the clock: the tunnel is gone.
    Expired,
    /// A trusted peer answers.
    PeerUp,
    /// A trusted peer does not answer any more.
    PeerDown,
    /// Packets to a trusted peer take a different path.
    PathChanged,
    /// This reader was too slow. It is the last line.
    Dropped,
    /// The daemon is stopping. It is the last line.
    Ended,
}

impl Happened {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Trusted => "trusted",
            Self::Changed => "changed",
            Self::Untrusted => "untrusted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::PeerUp => "peer_up",
            Self::PeerDown => "peer_down",
            Self::PathChanged => "path_changed",
            Self::Dropped => "dropped",
            Self::Ended => "ended",
        }
    }
}

/// One line of `GET /v1/agent/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentEvent {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.event.v1"))]
    pub schema: Cow<'static, str>,
    /// What has happened.
    pub event: Happened,
    /// When, by RFC 3339 in UTC.
    pub time: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The peer's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The peer's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The side that caused it: `here` or `there`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Side>,
    /// What the peer may open here, if there is a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// What this agent may open there, if there is a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Vec<String>>,
    /// When the first of both grants ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether packets to the peer go through a relay now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathKind>,
    /// Where they go: an address of the peer, or of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// The request that waits for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<PendingRequest>,
    /// Why the stream ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl AgentEvent {
    pub(crate) fn of(event: Happened, now: u64) -> Self {
        Self {
            schema: "overlay.event.v1".into(),
            event,
            time: rfc3339(now),
            unix_ms: now,
            name: None,
            identity: None,
            by: None,
            allow: None,
            opens: None,
            expires: None,
            path: None,
            remote: None,
            request: None,
            message: None,
        }
    }

    pub(crate) fn says(event: Happened, now: u64, message: String) -> Self {
        Self { message: Some(message), ..Self::of(event, now) }
    }
}
