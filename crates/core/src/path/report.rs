//! What people are told of the paths to a peer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_wire::relay::Channel;

use crate::local::Local;
use crate::path::agent::Agent;
use crate::path::agent::pair::{Pair, State};
use crate::{CandidateScope, Instant};

/// How datagrams reach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Without a relay.
    Direct,
    /// Through a relay.
    Relay,
}

/// What is known of a pair of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// It was not tried in this round.
    Idle,
    /// It is being probed.
    Probing,
    /// A probe was answered.
    Proven,
    /// No probe was answered.
    Failed,
}

/// One pair of addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairReport {
    /// The address of ours that datagrams leave from. `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// The peer's address, or the relay's.
    pub remote: SocketAddr,
    /// Whether there is a relay between.
    pub kind: PathKind,
    /// The channel of the relay.
    pub channel: Option<Channel>,
    /// What is known of it.
    pub state: PairState,
    /// Whether packets take it.
    pub is_primary: bool,
    /// Whether packets go there, too, while the path in use is in doubt.
    pub is_mirror: bool,
    /// Whether the peer has named the address. If not, the peer was heard from there.
    pub is_named: bool,
    /// The smoothed round trip.
    pub round_trip: Option<Duration>,
    /// The share of datagrams that were lost on the way to the peer, and on the way from it, from 0 to 1. `None`: too few went
    /// over it.
    pub loss: (Option<f64>, Option<f64>),
    /// How many probes were sent and answered.
    pub probes: (u64, u64),
    /// When the latest probe was sent.
    pub tried: Option<Instant>,
    /// When a probe was last answered.
    pub proven: Option<Instant>,
}

/// The paths to a peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathsReport {
    /// All pairs that are known, the path in use first.
    pub pairs: Vec<PairReport>,
    /// Since when packets take the path in use.
    pub since: Option<Instant>,
    /// Whether the path in use is in doubt.
    pub is_suspect: bool,
    /// Whether direct pairs are being tried.
    pub is_trying: bool,
    /// When direct pairs are tried again, if they are not being tried.
    pub next_try: Option<Instant>,
    /// Whether an application has used the peer in the last minute. If not, nothing is sent to it.
    pub is_active: bool,
    /// Whether the peer has told its addresses in the session.
    pub has_heard_list: bool,
    /// Which addresses of this host peers are told.
    pub scope: CandidateScope,
    /// The addresses of this host that the peer is told in the session.
    pub told: Vec<SocketAddr>,
    /// How often packets moved to a different path.
    pub switches: u64,
    /// How often the path in use was in doubt.
    pub suspicions: u64,
}

impl Agent {
    /// What people are told.
    pub(crate) fn report(&self, local: &Local, now: Instant) -> PathsReport {
        let primary = self.primary().map(|pair| pair.number);
        let mirror = self.mirror(now);
        let mut pairs: Vec<_> = self
            .pairs()
            .map(|pair| PairReport {
                is_primary: Some(pair.number) == primary,
                is_mirror: Some(pair.endpoint) == mirror,
                ..pair.report()
            })
            .collect();
        pairs.sort_by_key(|pair| (!pair.is_primary, pair.state != PairState::Proven, pair.kind == PathKind::Relay));
        let (is_trying, next_try) = self.round_state();
        PathsReport {
            pairs,
            since: self.since(),
            is_suspect: self.is_suspect(),
            is_trying,
            next_try,
            is_active: self.is_active(now),
            has_heard_list: self.has_heard_list(),
            scope: local.candidate_scope,
            told: local.told_to(self),
            switches: self.tally.switches,
            suspicions: self.tally.suspicions,
        }
    }
}

impl Pair {
    fn report(&self) -> PairReport {
        let share = |thousandths: Option<u32>| thousandths.map(|lost| f64::from(lost) / 1_000.0);
        PairReport {
            local: self.endpoint.via.local.map(|(address, _)| address),
            remote: self.endpoint.address,
            kind: if self.is_relayed() { PathKind::Relay } else { PathKind::Direct },
            channel: self.endpoint.via.channel,
            state: match self.state {
                State::Idle => PairState::Idle,
                State::Probing { .. } => PairState::Probing,
                State::Proven => PairState::Proven,
                State::Failed => PairState::Failed,
            },
            is_primary: false,
            is_mirror: false,
            is_named: self.is_named,
            round_trip: self.trip.smooth(),
            loss: (share(self.outbound.share()), share(self.inbound.share())),
            probes: self.tally(),
            tried: self.last_asked,
            proven: self.last_proof,
        }
    }
}
