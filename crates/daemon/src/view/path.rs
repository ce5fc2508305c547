//! How a peer is reached, as people and programs are told: `overlay.path.v1`.
//!
//! The node reports facts ([`PathsReport`]). What follows from them for people is judged here: above all, why packets do not
//! take a direct path.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use overlay_core::{self as core, CandidateScope, Instant, PairReport, PathsReport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::table::{PeerEntry, PeerState, wall_clock_of};
use crate::keys::encode_public;
use crate::path_kind::PathKind;

/// The answer to `GET /v1/peers/{peer}/path`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathStatus {
    /// The name of this JSON schema.
    #[schemars(extend("const" = Self::SCHEMA))]
    pub schema: Cow<'static, str>,
    /// The peer's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The peer's public key in base64, as `overlay status` shows it.
    pub public_key: String,
    /// The peer's state, as `overlay status` shows it.
    pub state: PeerState,
    /// The path in use. Absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<PairStatus>,
    /// The round trip of the path in use, in milliseconds. Absent until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The loss of the path in use: [`PairStatus::loss`]. Absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Since when packets take the path in use, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Why the path in use is not direct. Absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_direct: Option<WhyNotDirect>,
    /// Whether direct paths are being tried now.
    pub is_trying: bool,
    /// In how many seconds direct paths are tried again, if an application uses the peer then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_seconds: Option<u64>,
    /// Whether an application has used the peer in the last minute. If not, nothing is sent to it.
    pub is_active: bool,
    /// Whether the path in use is in doubt.
    pub is_suspect: bool,
    /// Whether packets go out over a second path, too.
    pub is_mirroring: bool,
    /// How often packets moved to a different path.
    pub switches: u64,
    /// How often the path in use was in doubt.
    pub suspicions: u64,
    /// Whether the peer has told its addresses in the session.
    pub has_heard_addresses: bool,
    /// The addresses of this host that the peer is told in the session.
    pub told_addresses: Vec<SocketAddr>,
    /// All pairs of addresses that are known, the path in use first.
    pub pairs: Vec<PairStatus>,
}

/// One pair of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairStatus {
    /// Whether there is a relay between.
    pub kind: PathKind,
    /// The address of this host. Absent if the kernel chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The peer's address, or the relay's.
    pub remote: SocketAddr,
    /// The number of the relay's channel. Two channels of one relay are two pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u32>,
    /// What is known of it.
    pub state: PairState,
    /// Whether packets take it.
    pub is_primary: bool,
    /// Whether packets go there, too, while the path in use is in doubt.
    pub is_mirror: bool,
    /// Whether the peer has named the address. If not, the peer was heard from there.
    pub is_named: bool,
    /// Since when packets take it, in seconds since 1970. Only for the path in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The smoothed round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The share of round trips that are lost, from 0 to 1. A direction of which nothing is known counts as one without loss.
    pub loss: f64,
    /// The share of datagrams that were lost on the way to the peer. Absent while too few were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_to_peer: Option<f64>,
    /// The share of datagrams that were lost on the way from the peer. Absent while too few were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_from_peer: Option<f64>,
    /// Probes sent.
    pub probes_sent: u64,
    /// Probes that were answered.
    pub probes_answered: u64,
    /// How long ago the latest probe was sent, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_ms_ago: Option<u64>,
    /// How long ago a probe was last answered, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_ms_ago: Option<u64>,
}

/// What is known of a pair of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairState {
    /// It was not tried yet.
    Idle,
    /// It is being probed.
    Probing,
    /// A probe was answered.
    Proven,
    /// No probe was answered.
    Failed,
}

/// Why packets do not take a direct path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyNotDirect {
    /// The reason as one word.
    pub reason: NotDirect,
    /// The reason in plain words.
    pub message: String,
}

/// A reason why packets do not take a direct path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotDirect {
    /// The config says so.
    RelayOnly,
    /// There is no session, and pairs are probed inside one.
    NoSession,
    /// A direct pair is proven, and the relay is in use.
    NotBetter,
    /// Pairs are being tried.
    Trying,
    /// No application uses the peer, so nothing is tried.
    Asleep,
    /// The peer has not told its addresses.
    NotTold,
    /// The peer has told no address that can be tried.
    NothingToTry,
    /// Pairs have not been tried yet.
    NotTriedYet,
    /// A direct pair worked and works no more.
    Lost,
    /// No probe was answered, and the peer was told no address of this host.
    NothingToTell,
    /// No probe was answered.
    Unanswered,
}

impl From<core::PairState> for PairState {
    fn from(state: core::PairState) -> Self {
        match state {
            core::PairState::Idle => Self::Idle,
            core::PairState::Probing => Self::Probing,
            core::PairState::Proven => Self::Proven,
            core::PairState::Failed => Self::Failed,
        }
    }
}

impl NotDirect {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::RelayOnly,
        Self::NoSession,
        Self::NotBetter,
        Self::Trying,
        Self::Asleep,
        Self::NotTold,
        Self::NothingToTry,
        Self::NotTriedYet,
        Self::Lost,
        Self::NothingToTell,
        Self::Unanswered,
    ];

    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::RelayOnly => "relay_only",
            Self::NoSession => "no_session",
            Self::NotBetter => "not_better",
            Self::Trying => "trying",
            Self::Asleep => "asleep",
            Self::NotTold => "not_told",
            Self::NothingToTry => "nothing_to_try",
            Self::NotTriedYet => "not_tried_yet",
            Self::Lost => "lost",
            Self::NothingToTell => "nothing_to_tell",
            Self::Unanswered => "unanswered",
        }
    }

    /// The reason in plain words.
    pub fn message(self) -> &'static str {
        match self {
            Self::RelayOnly => "this agent uses relays only: its config says `candidates = \"relay\"`",
            Self::NoSession => "there is no session with the peer, and direct paths are tried inside one",
            Self::NotBetter => {
                "a direct path works, but it is new, or loses more than the relay, or is slower by 100 ms or more"
            }
            Self::Trying => "direct paths are being tried now",
            Self::Asleep => "no application has used the peer in the last minute, so nothing is tried",
            Self::NotTold => "the peer has not told its addresses yet",
            Self::NothingToTry => {
                "the peer has told no address that this host can try: it may be set to use relays only"
            }
            Self::NotTriedYet => "direct paths have not been tried yet",
            Self::Lost => "the direct path has stopped answering",
            Self::NothingToTell => "no probe was answered, and this host knows no public address of its own to tell",
            Self::Unanswered => {
                "no probe was answered: both sides may be behind NATs that change ports, or a firewall drops UDP"
            }
        }
    }

    /// What to do about it: for `docs/paths.md`.
    pub fn advice(self) -> &'static str {
        match self {
            Self::RelayOnly => "Set `candidates = \"auto\"` in `[agent]`, then `down` and `up`.",
            Self::NoSession => {
                "Send something, such as `overlay ping PEER`. If it is not answered: `overlay doctor --peer PEER`."
            }
            Self::NotBetter => "Nothing: packets move to the direct path once it has been better for two seconds.",
            Self::Trying => "Wait some seconds: `overlay ping PEER --until-direct`.",
            Self::Asleep => "Use the peer, for example with `overlay ping PEER`.",
            Self::NotTold => "Wait a second. If it stays so, the peer may run a release that finds no paths.",
            Self::NothingToTry => {
                "Look at `candidates` in the peer's config. A peer that has IPv6 alone has no path to a host with IPv4 alone."
            }
            Self::NotTriedYet => "Wait a second.",
            Self::Lost => "Nothing: it is tried again after 35 s, and later more rarely.",
            Self::NothingToTell => "Run `overlay netcheck`: UDP may be blocked here.",
            Self::Unanswered => {
                "Run `overlay netcheck` on both sides. If both map each peer to a different port, no direct path can exist: open a \
                 UDP port to one of them, or give it IPv6. Otherwise look for a firewall."
            }
        }
    }

    /// Finds the reason. `None`: packets take a direct path.
    fn of(report: &PathsReport, state: PeerState) -> Option<Self> {
        let direct = || report.pairs.iter().filter(|pair| pair.kind == core::PathKind::Direct);
        let is_in = |wanted: core::PairState| direct().any(|pair| pair.state == wanted);
        if direct().any(|pair| pair.is_primary) {
            return None;
        }
        Some(if report.scope == CandidateScope::Relay {
            Self::RelayOnly
        } else if !matches!(state, PeerState::Connected | PeerState::Suspect) {
            Self::NoSession
        } else if is_in(core::PairState::Proven) {
            Self::NotBetter
        } else if report.is_trying && report.is_active {
            Self::Trying
        } else if direct().any(|pair| pair.proven.is_some()) {
            Self::Lost
        } else if is_in(core::PairState::Failed) {
            if report.told.is_empty() { Self::NothingToTell } else { Self::Unanswered }
        } else if !report.is_active {
            Self::Asleep
        } else if !report.has_heard_list {
            Self::NotTold
        } else if direct().next().is_none() {
            Self::NothingToTry
        } else {
            Self::NotTriedYet
        })
    }
}

impl PathStatus {
    /// The name of this JSON schema.
    pub const SCHEMA: &'static str = "overlay.path.v1";

    /// Tells what the node reports of a peer at `now`.
    pub(crate) fn of(peer: &PeerEntry, report: &PathsReport, now: Instant) -> Self {
        let state = peer.state(now, peer.stats.sent_wire_bytes.value());
        let since = report.since.map(|at| since_1970(wall_clock_of(at)));
        let pairs: Vec<_> = report.pairs.iter().map(|pair| PairStatus::of(pair, since, now)).collect();
        let primary = pairs.iter().find(|pair| pair.is_primary).cloned();
        let reason = NotDirect::of(report, state);
        Self {
            schema: Self::SCHEMA.into(),
            peer: peer.name.clone(),
            public_key: encode_public(&peer.public_key),
            state,
            rtt_ms: primary.as_ref().and_then(|pair| pair.rtt_ms),
            loss: primary.as_ref().map(|pair| pair.loss),
            since: primary.as_ref().and(since),
            primary,
            why_not_direct: reason.map(|reason| WhyNotDirect { reason, message: reason.message().to_owned() }),
            is_trying: report.is_trying && report.is_active,
            next_try_seconds: report.next_try.map(|at| at.since(now).as_secs()),
            is_active: report.is_active,
            is_suspect: report.is_suspect,
            is_mirroring: pairs.iter().any(|pair| pair.is_mirror),
            switches: report.switches,
            suspicions: report.suspicions,
            has_heard_addresses: report.has_heard_list,
            told_addresses: report.told.clone(),
            pairs,
        }
    }
}

impl PairStatus {
    fn of(pair: &PairReport, since: Option<u64>, now: Instant) -> Self {
        let (to_peer, from_peer) = pair.loss;
        let arrives = |loss: Option<f64>| 1.0 - loss.unwrap_or_default();
        let ago = |at: Option<Instant>| at.map(|at| now.since(at).as_millis().try_into().unwrap_or(u64::MAX));
        Self {
            kind: pair.kind.into(),
            local: pair.local,
            remote: pair.remote,
            channel: pair.channel.map(|channel| channel.number()),
            state: pair.state.into(),
            is_primary: pair.is_primary,
            is_mirror: pair.is_mirror,
            is_named: pair.is_named,
            since: since.filter(|_| pair.is_primary),
            rtt_ms: pair.round_trip.map(|trip| rounded(trip.as_secs_f64() * 1e3)),
            loss: rounded(1.0 - arrives(to_peer) * arrives(from_peer)),
            loss_to_peer: to_peer,
            loss_from_peer: from_peer,
            probes_sent: pair.probes.0,
            probes_answered: pair.probes.1,
            tried_ms_ago: ago(pair.tried),
            proven_ms_ago: ago(pair.proven),
        }
    }
}

/// To three places.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn since_1970(at: std::time::SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
