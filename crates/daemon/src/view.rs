//! What control knows of the running daemon: the one place that local API, UAPI and metrics read.
//!
//! The supervisor writes it when a config is applied and when the engine reports an event; counters are read where the
//! engine keeps them. So nobody who asks "how are you?" ever waits for the packet path, and a slow reader of status
//! costs no packet. Only control threads take the lock, and briefly.
//!
//! It repeats no decision of the node: what it says about a peer's state follows from facts that were reported.

mod status;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use overlay_core::{Event, Instant, NodeStats, PeerKey, PeerStats, Rule};
use zeroize::Zeroizing;

use crate::config::{self, Endpoint};
use crate::engine::Sockets;
use crate::offload::{Offload, Offloads};
use crate::queues::{QueueFigures, Queues};
use crate::shell::ShellStats;

pub(crate) use status::node_counters;
pub use status::{InterfaceStatus, PeerState, PeerStatus, Status, rule_text};

/// WireGuard's REJECT_AFTER_TIME: a session older than this carries nothing.
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// What control knows of the running daemon.
pub struct View {
    node: Arc<NodeStats>,
    shell: Arc<ShellStats>,
    queues: OnceLock<Queues>,
    started: Instant,
    state: RwLock<State>,
}

/// Our own end, as it was configured.
#[derive(Clone)]
pub struct InterfaceView {
    /// Name of the kernel interface.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Our public key.
    pub public_key: PeerKey,
    /// For `get=1` over the UAPI alone; shown nowhere else.
    pub private_key: Zeroizing<[u8; 32]>,
    /// The virtual IPs with the prefix they were configured with.
    pub addresses: Vec<IpNet>,
    /// MTU of the inner packets, bytes.
    pub mtu: u16,
    /// The UDP port that is really bound.
    pub listen_port: u16,
    /// Mark on our own datagrams.
    pub fwmark: Option<u32>,
    /// The config in force.
    pub config_path: PathBuf,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// When the daemon was started.
    pub started: SystemTime,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) interface: InterfaceView,
    peers: HashMap<PeerKey, PeerView>,
    next_order: u64,
}

/// One peer: what it was configured with, and the facts since.
pub(crate) struct PeerView {
    order: u64,
    pub(crate) public_key: PeerKey,
    pub(crate) name: Option<String>,
    pub(crate) preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// As configured; an address here is also the first `endpoint`.
    configured_endpoint: Option<Endpoint>,
    /// Where the node sends now.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) allowed_ips: Vec<IpNet>,
    /// Seconds; never zero.
    pub(crate) persistent_keepalive: Option<u16>,
    allow: Option<Vec<Rule>>,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) handshake: Option<Handshake>,
    /// Handshakes went unanswered until the node gave up, and none was completed since.
    gave_up: bool,
    /// Outer bytes sent when the peer was last seen to be neither connected nor handshaking: more than that since means
    /// that initiations are under way. [`UNSEEN`] from a handshake on until somebody looks after its session ended.
    sent_at_rest: AtomicU64,
}

/// Of [`PeerView::sent_at_rest`]: not seen at rest since the last handshake.
const UNSEEN: u64 = u64::MAX;

/// When the last handshake was completed, on both clocks: the age of a session must not follow a wall clock that is
/// set, and people want a date.
#[derive(Clone, Copy)]
pub(crate) struct Handshake {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

impl View {
    /// The view of a daemon that starts now and has no peers yet.
    pub fn new(interface: InterfaceView, node: Arc<NodeStats>, shell: Arc<ShellStats>) -> Arc<Self> {
        Arc::new(Self {
            node,
            shell,
            queues: OnceLock::new(),
            started: now(),
            state: RwLock::new(State { interface, peers: HashMap::new(), next_order: 0 }),
        })
    }

    /// Where the kernel is asked about queues. Once, before the engine has the sockets.
    pub fn watch(&self, queues: Queues) {
        let _ = self.queues.set(queues);
    }

    /// The engine is about to use these sockets instead of those it has.
    pub fn follow(&self, sockets: &Sockets) {
        if let Some(queues) = self.queues.get() {
            queues.follow(sockets);
        }
    }

    /// Our own end, after a reload.
    pub fn set_interface(&self, interface: InterfaceView) {
        self.write().interface = interface;
    }

    /// All peers, in the order they are shown in. A peer that is already known keeps what was learned of it.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (config::Peer, Arc<PeerStats>)>) {
        let mut state = self.write();
        let mut before = std::mem::take(&mut state.peers);
        for (peer, stats) in peers {
            let known = before.remove(&peer.public_key);
            let order = state.take_order();
            state.peers.insert(peer.public_key, PeerView::new(order, peer, stats, known));
        }
    }

    /// Adds a peer behind the others, or gives a known one this configuration where it stands. What was learned of it
    /// stays.
    pub fn upsert_peer(&self, peer: config::Peer, stats: Arc<PeerStats>) {
        let mut state = self.write();
        let known = state.peers.remove(&peer.public_key);
        let order = known.as_ref().map_or_else(|| state.take_order(), |known| known.order);
        state.peers.insert(peer.public_key, PeerView::new(order, peer, stats, known));
    }

    /// Forgets a peer.
    pub fn remove_peer(&self, key: PeerKey) {
        self.write().peers.remove(&key);
    }

    /// A fact from the engine. About a peer that is gone: nothing.
    pub fn on_event(&self, event: Event, wall_clock_of: impl Fn(Instant) -> SystemTime) {
        let mut state = self.write();
        match event {
            Event::HandshakeCompleted(key, at) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.handshake = Some(Handshake { at, wall: wall_clock_of(at) });
                    peer.gave_up = false;
                    peer.sent_at_rest.store(UNSEEN, Relaxed);
                }
            }
            Event::EndpointChanged(key, endpoint) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.endpoint = Some(endpoint);
                }
            }
            Event::HandshakeFailed(key) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.gave_up = true;
                    peer.sent_at_rest.store(peer.stats.sent_wire_bytes.value(), Relaxed);
                }
            }
        }
    }

    /// The configured host name of a peer's endpoint has this address. As in the node, it does not replace the endpoint
    /// of a session that is alive.
    pub fn on_endpoint_resolved(&self, key: PeerKey, endpoint: SocketAddr) {
        let now = now();
        if let Some(peer) = self.write().peers.get_mut(&key)
            && (peer.endpoint.is_none() || !peer.is_connected(now))
        {
            peer.endpoint = Some(endpoint);
        }
    }

    /// Everything that `overlay status` shows.
    pub fn status(&self) -> Status {
        self.status_at(now())
    }

    /// Our own end.
    pub fn interface(&self) -> InterfaceView {
        self.read().interface.clone()
    }

    /// The counters of a peer; `None` when there is no such peer.
    pub fn peer_stats(&self, key: PeerKey) -> Option<Arc<PeerStats>> {
        self.read().peers.get(&key).map(|peer| Arc::clone(&peer.stats))
    }

    /// Name of the kernel interface.
    pub fn interface_name(&self) -> String {
        self.read().interface.name.clone()
    }

    pub(crate) fn node_stats(&self) -> &NodeStats {
        &self.node
    }

    pub(crate) fn shell_stats(&self) -> &ShellStats {
        &self.shell
    }

    /// What the kernel says of the queues now.
    pub(crate) fn queue_figures(&self) -> QueueFigures {
        self.queues.get().map(Queues::read).unwrap_or_default()
    }

    /// Which offloads are in use. Of segmentation only the sockets know.
    pub(crate) fn offloads(&self) -> &Offloads {
        if self.queues.get().is_some_and(|queues| !queues.all_segment()) {
            self.shell.offloads.on_fallen_back(Offload::UdpSegmentation);
        }
        &self.shell.offloads
    }

    /// The facts themselves. Held while something is printed from them, never across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics between the writes of one change, so what a poisoned lock guards is whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// All peers, in the order they are shown in.
    pub(crate) fn peers(&self) -> Vec<&PeerView> {
        let mut peers: Vec<_> = self.peers.values().collect();
        peers.sort_unstable_by_key(|peer| peer.order);
        peers
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }
}

impl PeerView {
    fn new(order: u64, peer: config::Peer, stats: Arc<PeerStats>, known: Option<Self>) -> Self {
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
            preshared_key: peer.preshared_key,
            configured_endpoint: peer.endpoint,
            endpoint,
            allowed_ips: peer.allowed_ips,
            persistent_keepalive: peer.persistent_keepalive.filter(|seconds| *seconds != 0),
            allow: peer.allow,
            handshake: known.as_ref().and_then(|known| known.handshake),
            gave_up: known.as_ref().is_some_and(|known| known.gave_up),
            sent_at_rest: known.map_or(AtomicU64::new(rest), |known| known.sent_at_rest),
            stats,
        }
    }

    fn is_connected(&self, now: Instant) -> bool {
        self.handshake.is_some_and(|handshake| now.since(handshake.at) < SESSION_LIFETIME)
    }

    /// `sent` is the present count of outer bytes sent.
    fn state(&self, now: Instant, sent: u64) -> PeerState {
        if self.is_connected(now) {
            return PeerState::Connected;
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

/// The clock that the engine lends to the node.
fn now() -> Instant {
    Instant::from_start(overlay_os::clock::boottime())
}

#[cfg(test)]
pub(crate) mod tests;
