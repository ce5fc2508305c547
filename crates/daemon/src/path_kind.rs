//! How datagrams reach a peer: the word for it in JSON, in metrics and for people.

use overlay_core as core;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How datagrams reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Without a relay.
    Direct,
    /// Through a relay.
    Relay,
}

impl PathKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Relay];

    pub(crate) fn of(is_relayed: bool) -> Self {
        if is_relayed { Self::Relay } else { Self::Direct }
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
        }
    }
}

impl From<core::PathKind> for PathKind {
    fn from(kind: core::PathKind) -> Self {
        Self::of(kind == core::PathKind::Relay)
    }
}
