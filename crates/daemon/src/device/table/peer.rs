//! A peer as control knows it: its configuration, and the facts reported since.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{Instant, PathMtu, PathMtuState, PeerKey, PeerStats, PeerTag, Rule};
use zeroize::Zeroizing;

use super::{Date, PeerState};
use crate::config::{self, Endpoint};
use crate::keys::encode_public;

/// WireGuard's REJECT_AFTER_TIME: a session older than this carries nothing.
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// A peer: its configuration, and the facts reported since.
pub(crate) struct PeerEntry {
    /// The engine's name for it.
    pub(crate) tag: PeerTag,
    pub(super) order: u64,
    pub(crate) public_key: PeerKey,
    pub(crate) name: Option<String>,
    pub(crate) preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// The configured endpoint. If it is an address, it is also the first `endpoint`.
    pub(super) configured_endpoint: Option<Endpoint>,
    /// Where the node currently sends.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Whether that is a relay.
    pub(super) is_relayed: bool,
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    /// In seconds, never zero.
    pub(crate) persistent_keepalive: Option<u16>,
    pub(crate) allow: Option<Vec<Rule>>,
    pub(crate) opens: Option<Vec<Rule>>,
    mtu_discovery: bool,
    /// What only a peer of agent mode has.
    pub(super) agent: Option<Box<config::AgentPeer>>,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) handshake: Option<Handshake>,
    /// What the engine reported about the path MTU. `None` until it did.
    pub(crate) path_mtu: Option<KnownPathMtu>,
    /// Handshakes went unanswered until the node gave up, and none has completed since.
    gave_up: bool,
    /// The engine reported that the peer does not answer what it owes.
    is_silent: bool,
    /// The number of outer bytes sent when the peer was last seen neither connected nor handshaking. If more has been sent
    /// since, initiations are in progress. [`UNSEEN`] from a handshake until the state is first read after its session ended.
    sent_at_rest: AtomicU64,
}

/// The value of [`PeerEntry::sent_at_rest`] if the peer has not been seen at rest since the last handshake.
const UNSEEN: u64 = u64::MAX;

/// When the last handshake completed, on both clocks: the age of a session must not depend on a wall clock that can be
/// set, but users want a date.
#[derive(Clone, Copy)]
pub(crate) struct Handshake {
    pub(crate) at: Instant,
    pub(crate) wall: Date,
    /// Whether its session ended early.
    is_over: bool,
}

/// What is known about a path's MTU, with a date for users.
#[derive(Clone, Copy)]
pub(crate) struct KnownPathMtu {
    pub(crate) told: PathMtu,
    pub(crate) since: Date,
}

impl PeerEntry {
    pub(super) fn new(
        tag: PeerTag,
        order: u64,
        peer: config::Peer,
        stats: Arc<PeerStats>,
        known: Option<Self>,
    ) -> Self {
        let configured = peer.endpoint.as_ref().and_then(Endpoint::address);
        let endpoint = match &known {
            Some(known) if known.configured_endpoint == peer.endpoint || configured.is_none() => known.endpoint,
            _ => configured,
        };
        let rest = stats.sent_wire_bytes.value();
        Self {
            tag,
            order,
            public_key: peer.public_key,
            name: peer.name,
            preshared_key: peer.preshared_key.filter(|key| **key != [0; 32]),
            configured_endpoint: peer.endpoint,
            endpoint,
            is_relayed: known.as_ref().is_some_and(|known| known.is_relayed && known.endpoint == endpoint),
            // Added one by one, because each is taken from its current owner.
            allowed_ips: BTreeSet::new(),
            persistent_keepalive: peer.persistent_keepalive.filter(|seconds| *seconds != 0),
            allow: peer.allow,
            opens: peer.opens,
            handshake: known.as_ref().and_then(|known| known.handshake),
            mtu_discovery: peer.mtu_discovery,
            agent: peer.agent,
            // A found MTU no longer applies if the search is switched off.
            path_mtu: known.as_ref().filter(|_| peer.mtu_discovery).and_then(|known| known.path_mtu),
            gave_up: known.as_ref().is_some_and(|known| known.gave_up),
            is_silent: known.as_ref().is_some_and(|known| known.is_silent),
            sent_at_rest: known.map_or(AtomicU64::new(rest), |known| known.sent_at_rest),
            stats,
        }
    }

    /// Whether the peer is configured as in `peer`.
    pub(crate) fn is_as(&self, peer: &config::Peer) -> bool {
        self.name == peer.name
            && self.preshared_key == peer.preshared_key.clone().filter(|key| **key != [0; 32])
            && self.configured_endpoint == peer.endpoint
            && self.allowed_ips.len() == peer.allowed_ips.len()
            && peer.allowed_ips.iter().all(|prefix| self.allowed_ips.contains(prefix))
            && self.persistent_keepalive == peer.persistent_keepalive.filter(|seconds| *seconds != 0)
            && self.allow == peer.allow
            && self.opens == peer.opens
            && self.mtu_discovery == peer.mtu_discovery
    }

    /// Returns what users call the peer: its name, or else its public key in base64.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| encode_public(&self.public_key))
    }

    /// Returns the configured endpoint.
    pub(crate) fn configured_endpoint(&self) -> Option<&Endpoint> {
        self.configured_endpoint.as_ref()
    }

    /// Returns the MTU that the routes to the peer's prefixes must carry, or `None` if it is still the start value.
    pub(crate) fn found_mtu(&self) -> Option<u16> {
        let known = self.path_mtu.filter(|known| known.told.state != PathMtuState::Assumed);
        known.map(|known| known.told.mtu)
    }

    /// Sets the endpoint.
    pub(crate) fn set_endpoint(&mut self, endpoint: SocketAddr) {
        self.configured_endpoint = Some(Endpoint::Address(endpoint));
        self.on_endpoint(endpoint, false);
    }

    /// Records where the node sends from now on, and whether that is a relay.
    pub(super) fn on_endpoint(&mut self, endpoint: SocketAddr, is_relayed: bool) {
        (self.endpoint, self.is_relayed) = (Some(endpoint), is_relayed);
    }

    /// Whether packets go through a relay. `None`: the node does not know where to send.
    pub(crate) fn is_relayed(&self) -> Option<bool> {
        self.endpoint.map(|_| self.is_relayed)
    }

    /// Sets the preshared key. All zero removes it.
    pub(crate) fn set_preshared_key(&mut self, key: Zeroizing<[u8; 32]>) {
        self.preshared_key = Some(key).filter(|key| **key != [0; 32]);
    }

    pub(super) fn on_handshake(&mut self, at: Instant, wall: Date) {
        self.handshake = Some(Handshake { at, wall, is_over: false });
        self.gave_up = false;
        self.is_silent = false;
        self.sent_at_rest.store(UNSEEN, Relaxed);
    }

    /// Records that the peer stopped answering, or was heard from again.
    pub(super) fn on_answering(&mut self, answers: bool) {
        self.is_silent = !answers;
        self.gave_up &= !answers;
    }

    pub(super) fn on_handshake_failed(&mut self) {
        self.gave_up = true;
        self.sent_at_rest.store(self.stats.sent_wire_bytes.value(), Relaxed);
    }

    /// Records that all sessions ended, because our own key changed or the interface went down.
    pub(super) fn on_sessions_over(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.is_over = true;
        }
    }

    pub(super) fn is_connected(&self, now: Instant) -> bool {
        self.handshake.is_some_and(|handshake| !handshake.is_over && now.since(handshake.at) < SESSION_LIFETIME)
    }

    /// Derives the peer's state. `sent` is the current number of outer bytes sent.
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
