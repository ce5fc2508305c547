//! What is known about the largest packet that reaches a peer: as reported by the engine, and as shown to users.

use overlay_core as core;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::table::KnownPathMtu;

/// The longest packet to a peer, and where this number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMtuStatus {
    /// The longest inner packet that is sent to the peer unfragmented, in bytes.
    pub mtu: u16,
    /// How well the MTU is known.
    pub state: PathMtuState,
    /// How the peer answers probes.
    pub probed_by: ProbedBy,
    /// What keeps the MTU from being larger.
    pub limit: MtuLimit,
    /// Since when the MTU has had this value, in seconds since 1970.
    pub since: u64,
    /// The start value: the interface's `mtu`, in bytes.
    pub configured: u16,
    /// Whether the path was found to carry less than `configured`, which is what the interface promises.
    pub is_narrow: bool,
}

/// How well the MTU of a path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathMtuState {
    /// The start value of every peer: no probe was answered.
    Assumed,
    /// The largest size proven so far. The search continues.
    Searching,
    /// Proven, and the search has ended.
    Found,
}

/// How a peer answers probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbedBy {
    /// It is not known to answer any.
    Nothing,
    /// With control frames inside the session: the peer is an overlay node.
    ControlFrames,
    /// With ICMP echo replies from its virtual IP: any other WireGuard implementation.
    Echoes,
}

/// What keeps the MTU of a path from being larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MtuLimit {
    /// Our interface, which accepts no longer packets.
    Interface,
    /// The peer's interface, which accepts no longer packets.
    Peer,
    /// This host: longer datagrams do not fit the device through which they leave.
    Host,
    /// The path: longer probes were not answered.
    Path,
}

impl PathMtuStatus {
    /// Returns what is shown about a path. `configured` is the start value of every path.
    pub(super) fn of(known: &KnownPathMtu, configured: u16) -> Self {
        let told = &known.told;
        Self {
            mtu: told.mtu,
            state: told.state.into(),
            probed_by: told.probed_by.into(),
            limit: told.limit.into(),
            since: known.since.since_1970().as_secs(),
            configured,
            // While the search continues, the path may still turn out to carry the full size. And a limit set by the
            // peer is not the path's fault.
            is_narrow: told.state == core::PathMtuState::Found
                && told.mtu < configured
                && told.limit != core::MtuLimit::Peer,
        }
    }
}

impl PathMtuState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Assumed, Self::Searching, Self::Found];

    /// The name in metrics.
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
