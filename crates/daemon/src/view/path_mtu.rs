//! What is known of the largest packet that reaches a peer: as the engine told it, and as it is shown.

use overlay_core as core;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::table::KnownPathMtu;

/// The longest packet to a peer, and where that figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMtuStatus {
    /// The longest inner packet that is sent to it whole, bytes.
    pub mtu: u16,
    /// How well that is known.
    pub state: PathMtuState,
    /// How the peer answers probes.
    pub probed_by: ProbedBy,
    /// What keeps it from being more.
    pub limit: MtuLimit,
    /// Since when it is this much, seconds since 1970.
    pub since: u64,
    /// What it began with: the interface's `mtu`, bytes.
    pub configured: u16,
    /// Whether it was found to carry less than what the interface promises, which is `configured`.
    pub is_narrow: bool,
}

/// How well the MTU of a path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathMtuState {
    /// It is the one that every peer starts with: no probe was answered.
    Assumed,
    /// What was proven so far; the search goes on.
    Searching,
    /// Proven, and the search is over.
    Found,
}

/// How a peer answers probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbedBy {
    /// Not at all, as far as is known.
    Nothing,
    /// By control frames inside the session: it is an overlay node.
    ControlFrames,
    /// By ICMP echoes to its virtual IP: any other WireGuard.
    Echoes,
}

/// What keeps the MTU of a path from being more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MtuLimit {
    /// Our interface, which takes no longer packets.
    Interface,
    /// The peer's interface, which takes no longer packets.
    Peer,
    /// This host: longer datagrams do not fit the device that they leave by.
    Host,
    /// Something on the way: longer probes were not answered.
    Path,
}

impl PathMtuStatus {
    /// What is shown of it where paths begin with `configured`.
    pub(super) fn of(known: &KnownPathMtu, configured: u16) -> Self {
        let told = &known.told;
        Self {
            mtu: told.mtu,
            state: told.state.into(),
            probed_by: told.probed_by.into(),
            limit: told.limit.into(),
            since: known.since.since_1970().as_secs(),
            configured,
            // While the search goes on it may still turn out to carry all of it; and the path is not to blame for what the
            // peer was told to take.
            is_narrow: told.state == core::PathMtuState::Found
                && told.mtu < configured
                && told.limit != core::MtuLimit::Peer,
        }
    }
}

impl PathMtuState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Assumed, Self::Searching, Self::Found];

    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Searching => "searching",
            Self::Found => "found",
        }
    }
}

impl From<core::PathMtuState> for PathMtuState {
    fn from(state: core::PathMtuState) -> Self {
        match state {
            core::PathMtuState::Assumed => Self::Assumed,
            core::PathMtuState::Searching => Self::Searching,
            core::PathMtuState::Found => Self::Found,
        }
    }
}

impl From<core::ProbedBy> for ProbedBy {
    fn from(probed_by: core::ProbedBy) -> Self {
        match probed_by {
            core::ProbedBy::Nothing => Self::Nothing,
            core::ProbedBy::ControlFrames => Self::ControlFrames,
            core::ProbedBy::Echoes => Self::Echoes,
        }
    }
}

impl From<core::MtuLimit> for MtuLimit {
    fn from(limit: core::MtuLimit) -> Self {
        match limit {
            core::MtuLimit::Interface => Self::Interface,
            core::MtuLimit::Peer => Self::Peer,
            core::MtuLimit::Host => Self::Host,
            core::MtuLimit::Path => Self::Path,
        }
    }
}
