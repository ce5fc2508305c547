//! One peer as control knows it: how it was configured, and the facts since.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{Instant, PathMtu, PathMtuState, PeerKey, PeerStats, Rule};
use zeroize::Zeroizing;

use super::{Date, PeerState};
use crate::config::{self, Endpoint};
use crate::keys::encode_public;

/// WireGuard's REJECT_AFTER_TIME: a session older than this carries nothing.
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// One peer: what it was configured with, and the facts since.
pub(crate) struct PeerEntry {
    pub(super) order: u64,
    pub(crate) public_key: PeerKey,
    pub(crate) name: Option<String>,
    pub(crate) preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// As configured; an address here is also the first `endpoint`.
    pub(super) configured_endpoint: Option<Endpoint>,
    /// Where the node sends now.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    /// Seconds; never zero.
    pub(crate) persistent_keepalive: Option<u16>,
    pub(crate) allow: Option<Vec<Rule>>,
    mtu_discovery: bool,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) handshake: Option<Handshake>,
    /// What the engine told of the path's MTU; `None` until then.
    pub(crate) path_mtu: Option<KnownPathMtu>,
    /// Handshakes went unanswered until the node gave up, and none was completed since.
    gave_up: bool,
    /// It does not answer what it has to answer, says the engine.
    is_silent: bool,
    /// Outer bytes sent when the peer was last seen to be neither connected nor handshaking: more than that since means
    /// that initiations are under way. [`UNSEEN`] from a handshake on until somebody looks after its session ended.
    sent_at_rest: AtomicU64,
}

/// Of [`PeerEntry::sent_at_rest`]: not seen at rest since the last handshake.
const UNSEEN: u64 = u64::MAX;

/// When the last handshake was completed, on both clocks: the age of a session must not follow a wall clock that is
/// set, and people want a date.
#[derive(Clone, Copy)]
pub(crate) struct Handshake {
    pub(crate) at: Instant,
    pub(crate) wall: Date,
    /// What it made ended before its time.
    is_over: bool,
}

/// What is known of a path's MTU, with a date for people.
#[derive(Clone, Copy)]
pub(crate) struct KnownPathMtu {
    pub(crate) told: PathMtu,
    pub(crate) since: Date,
}

impl PeerEntry {
    pub(super) fn new(order: u64, peer: config::Peer, stats: Arc<PeerStats>, known: Option<Self>) -> Self {
        let configured = match &peer.endpoint {
            Some(Endpoint::Address(address)) => Some(*address),
            _ => None,
        };
        let endpoint = match &known {
            Some(known) if known.configured_endpoint == peer.endpoint || configured.is_none() => known.endpoint,
            _ => configured,
        };
        let rest = stats.sent_wire_bytes.value();
        Self {
            order,
            public_key: peer.public_key,
            name: peer.name,
            preshared_key: peer.preshared_key.filter(|key| **key != [0; 32]),
            configured_endpoint: peer.endpoint,
            endpoint,
            // They are given to it one by one, from whoever has them.
            allowed_ips: BTreeSet::new(),
            persistent_keepalive: peer.persistent_keepalive.filter(|seconds| *seconds != 0),
            allow: peer.allow,
            handshake: known.as_ref().and_then(|known| known.handshake),
            mtu_discovery: peer.mtu_discovery,
            // What was found is no longer in force where nothing is searched for.
            path_mtu: known.as_ref().filter(|_| peer.mtu_discovery).and_then(|known| known.path_mtu),
            gave_up: known.as_ref().is_some_and(|known| known.gave_up),
            is_silent: known.as_ref().is_some_and(|known| known.is_silent),
            sent_at_rest: known.map_or(AtomicU64::new(rest), |known| known.sent_at_rest),
            stats,
        }
    }

    /// Whether this is how the config describes it.
    pub(crate) fn is_as(&self, peer: &config::Peer) -> bool {
        self.name == peer.name
            && self.preshared_key == peer.preshared_key.clone().filter(|key| **key != [0; 32])
            && self.configured_endpoint == peer.endpoint
            && self.allowed_ips.len() == peer.allowed_ips.len()
            && peer.allowed_ips.iter().all(|prefix| self.allowed_ips.contains(prefix))
            && self.persistent_keepalive == peer.persistent_keepalive.filter(|seconds| *seconds != 0)
            && self.allow == peer.allow
            && self.mtu_discovery == peer.mtu_discovery
    }

    /// What people call it: its name, else its public key in base64.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| encode_public(&self.public_key))
    }

    /// Where it was configured to be.
    pub(crate) fn configured_endpoint(&self) -> Option<&Endpoint> {
        self.configured_endpoint.as_ref()
    }

    /// What the routes to its prefixes are to say, where that is not what all begin with.
    pub(crate) fn found_mtu(&self) -> Option<u16> {
        let known = self.path_mtu.filter(|known| known.told.state != PathMtuState::Assumed);
        known.map(|known| known.told.mtu)
    }

    /// It is to be reached here from now on.
    pub(crate) fn set_endpoint(&mut self, endpoint: SocketAddr) {
        self.configured_endpoint = Some(Endpoint::Address(endpoint));
        self.endpoint = Some(endpoint);
    }

    /// All zero means none.
    pub(crate) fn set_preshared_key(&mut self, key: Zeroizing<[u8; 32]>) {
        self.preshared_key = Some(key).filter(|key| **key != [0; 32]);
    }

    pub(super) fn on_handshake(&mut self, at: Instant, wall: Date) {
        self.handshake = Some(Handshake { at, wall, is_over: false });
        self.gave_up = false;
        self.is_silent = false;
        self.sent_at_rest.store(UNSEEN, Relaxed);
    }

    /// The peer stopped to answer, or was heard again.
    pub(super) fn on_answering(&mut self, answers: bool) {
        self.is_silent = !answers;
        self.gave_up &= !answers;
    }

    pub(super) fn on_handshake_failed(&mut self) {
        self.gave_up = true;
        self.sent_at_rest.store(self.stats.sent_wire_bytes.value(), Relaxed);
    }

    /// Our own key changed, or the interface went down.
    pub(super) fn on_sessions_over(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.is_over = true;
        }
    }

    pub(super) fn is_connected(&self, now: Instant) -> bool {
        self.handshake.is_some_and(|handshake| !handshake.is_over && now.since(handshake.at) < SESSION_LIFETIME)
    }

    /// `sent` is the present count of outer bytes sent.
    pub(crate) fn state(&self, now: Instant, sent: u64) -> PeerState {
        if self.is_connected(now) {
            return match (self.is_silent, self.gave_up) {
                (false, _) => PeerState::Connected,
                (true, false) => PeerState::Suspect,
                (true, true) => PeerState::Unreachable,
            };
        }
        if self.endpoint.is_none() {
            return PeerState::NoEndpoint;
        }
        let _ = self.sent_at_rest.compare_exchange(UNSEEN, sent, Relaxed, Relaxed);
        match (sent > self.sent_at_rest.load(Relaxed), self.gave_up) {
            (true, _) => PeerState::Handshaking,
            (false, true) => PeerState::Unreachable,
            (false, false) => PeerState::Idle,
        }
    }
}
