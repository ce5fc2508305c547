//! What control knows of the running daemon: the one place that local API, UAPI and metrics read.
//!
//! The supervisor writes it when a config is applied and when the engine reports an event; counters are read where the
//! engine keeps them. So nobody who asks "how are you?" ever waits for the packet path, and a slow reader of status
//! costs no packet. Only control threads take the lock, and briefly.
//!
//! It repeats no decision of the node: what it says about a peer's state follows from facts that were reported.

mod date;
pub mod metrics;
mod path_mtu;
mod peer;
mod status;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use ipnet::IpNet;
use overlay_core::{Event, Instant, NodeStats, PeerKey, PeerStats, Rule};

use crate::config;
use crate::engine::{Offload, Offloads, QueueFigures, Queues, ShellStats, Sockets};
use crate::host::HostFacts;
use crate::keys::PrivateKey;
pub use crate::warnings::StatusWarning;
use crate::warnings::Warnings;

pub use date::Date;
pub(crate) use path_mtu::KnownPathMtu;
pub use path_mtu::{MtuLimit, PathMtuState, PathMtuStatus, ProbedBy};
pub(crate) use peer::PeerView;
pub(crate) use status::node_counters;
pub use status::{InterfaceStatus, PeerState, PeerStatus, Status, rule_text};

/// What control knows of the running daemon.
pub struct View {
    node: Arc<NodeStats>,
    shell: Arc<ShellStats>,
    queues: OnceLock<Queues>,
    host: OnceLock<Arc<HostFacts>>,
    started: Instant,
    warnings: Warnings,
    state: RwLock<State>,
}

/// Our own end, as it was configured.
#[derive(Clone)]
pub struct InterfaceView {
    /// Name of the kernel interface.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Our public key, if there is a private one.
    pub public_key: Option<PeerKey>,
    /// For `get=1` over the UAPI alone; shown nowhere else.
    pub private_key: Option<PrivateKey>,
    /// The virtual IPs with the prefix they were configured with.
    pub addresses: Vec<IpNet>,
    /// MTU of inner packets to a peer of whose path nothing is known, bytes.
    pub mtu: u16,
    /// MTU of the kernel interface, bytes: no path is found to carry more.
    pub max_mtu: u16,
    /// The UDP port that is really bound, or is to be while none is.
    pub listen_port: u16,
    /// Mark on our own datagrams.
    pub fwmark: Option<u32>,
    /// The config in force.
    pub config_path: PathBuf,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// When the daemon was started.
    pub started: Date,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) interface: InterfaceView,
    peers: HashMap<PeerKey, PeerView>,
    /// Whose each allowed IP is: it moves to whoever it is given to last.
    owners: HashMap<IpNet, PeerKey>,
    /// What the config file in force says of a peer and `wg` cannot say, whether the peer is there or not.
    declared: HashMap<PeerKey, Declared>,
    next_order: u64,
}

/// Name, allow list and search of a peer, as the config file has them; of peers that have any of them.
struct Declared {
    name: Option<String>,
    allow: Option<Vec<Rule>>,
    mtu_discovery: bool,
}

impl View {
    /// The view of a daemon that starts now and has no peers yet.
    pub fn new(interface: InterfaceView, node: Arc<NodeStats>, shell: Arc<ShellStats>) -> Arc<Self> {
        Arc::new(Self {
            node,
            shell,
            queues: OnceLock::new(),
            host: OnceLock::new(),
            started: now(),
            warnings: Warnings::default(),
            state: RwLock::new(State {
                interface,
                peers: HashMap::new(),
                owners: HashMap::new(),
                declared: HashMap::new(),
                next_order: 0,
            }),
        })
    }

    /// Where the kernel is asked about queues. Once, before the engine has the sockets.
    pub fn watch(&self, queues: Queues) {
        let _ = self.queues.set(queues);
    }

    /// Where to ask how the footprint on the host fares. Once.
    pub fn attach_host(&self, facts: Arc<HostFacts>) {
        let _ = self.host.set(facts);
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

    /// All peers of the config file in force, in the order they are shown in. A peer that is already known keeps what was
    /// learned of it.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (config::Peer, Arc<PeerStats>)>) {
        let mut state = self.write();
        let mut before = std::mem::take(&mut state.peers);
        state.owners.clear();
        state.declared.clear();
        for (peer, stats) in peers {
            state.declare(&peer);
            let known = before.remove(&peer.public_key);
            let order = state.take_order();
            state.insert(order, peer, stats, known);
        }
    }

    /// Our own key is another one, or none: every session is over. A peer that has it now is gone.
    pub fn set_private_key(&self, key: Option<PrivateKey>) {
        let mut state = self.write();
        state.interface.public_key = key.as_ref().map(PrivateKey::public);
        state.interface.private_key = key;
        if let Some(own) = state.interface.public_key {
            state.remove(own);
        }
        state.peers.values_mut().for_each(PeerView::on_sessions_over);
    }

    /// Every session is over, whatever the reason.
    pub fn on_sessions_over(&self) {
        self.write().peers.values_mut().for_each(PeerView::on_sessions_over);
    }

    /// Changes our own end.
    pub fn edit_interface(&self, edit: impl FnOnce(&mut InterfaceView)) {
        edit(&mut self.write().interface);
    }

    /// Changes what is known; `edit` sees all of it.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.write())
    }

    /// A fact from the engine. About a peer that is gone: nothing.
    pub fn on_event(&self, event: Event, wall_clock_of: impl Fn(Instant) -> SystemTime) {
        let mut state = self.write();
        match event {
            Event::HandshakeCompleted(key, at) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.on_handshake(at, Date::of(wall_clock_of(at)));
                }
            }
            Event::EndpointChanged(key, endpoint) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.endpoint = Some(endpoint);
                }
            }
            Event::HandshakeFailed(key) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.on_handshake_failed();
                }
            }
            Event::Answering(key, answers) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.on_answering(answers);
                }
            }
            Event::PathMtu(key, path_mtu) => {
                if let Some(peer) = state.peers.get_mut(&key) {
                    peer.path_mtu =
                        Some(KnownPathMtu { told: path_mtu, since: Date::of(wall_clock_of(path_mtu.since)) });
                }
            }
        }
    }

    /// The configured host name of a peer's endpoint has this address. As in the node, it does not replace an endpoint that is
    /// there: what becomes of that is told by events.
    pub fn on_endpoint_resolved(&self, key: PeerKey, endpoint: SocketAddr) {
        if let Some(peer) = self.write().peers.get_mut(&key) {
            peer.endpoint.get_or_insert(endpoint);
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

    /// The allowed IPs of a peer, none where there is no such peer.
    pub fn allowed_ips(&self, key: PeerKey) -> Vec<IpNet> {
        self.read().peers.get(&key).map(|peer| peer.allowed_ips.iter().copied().collect()).unwrap_or_default()
    }

    /// Where peers are reached now.
    pub fn endpoints(&self) -> Vec<IpAddr> {
        self.read().peers.values().filter_map(|peer| Some(peer.endpoint?.ip())).collect()
    }

    /// The allowed IPs of all peers of whose paths something was found.
    pub fn prefixes_of_found_paths(&self) -> Vec<IpNet> {
        let state = self.read();
        let found = state.peers.values().filter(|peer| peer.found_mtu().is_some());
        found.flat_map(|peer| peer.allowed_ips.iter().copied()).collect()
    }

    /// Name of the kernel interface.
    pub fn interface_name(&self) -> String {
        self.read().interface.name.clone()
    }

    /// These are the warnings of `topic` from now on, and no others.
    pub fn set_warnings(&self, topic: &'static str, warnings: Vec<StatusWarning>) {
        self.warnings.set(topic, warnings);
    }

    /// All warnings that stand.
    pub(crate) fn warnings(&self) -> Vec<StatusWarning> {
        self.warnings.all()
    }

    /// Whether a warning of `topic` stands.
    pub(crate) fn has_warnings(&self, topic: &str) -> bool {
        self.warnings.has(topic)
    }

    pub(crate) fn node_stats(&self) -> &NodeStats {
        &self.node
    }

    pub(crate) fn shell_stats(&self) -> &ShellStats {
        &self.shell
    }

    /// How the footprint on the host fares; `None` for a daemon that has none.
    pub(crate) fn host(&self) -> Option<&HostFacts> {
        self.host.get().map(Arc::as_ref)
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

    /// One of them.
    pub(crate) fn peer(&self, key: PeerKey) -> Option<&PeerView> {
        self.peers.get(&key)
    }

    /// One of them, to be changed in all but its allowed IPs.
    pub(crate) fn peer_mut(&mut self, key: PeerKey) -> Option<&mut PeerView> {
        self.peers.get_mut(&key)
    }

    /// The peer whose allowed IP this is.
    pub(crate) fn owner(&self, prefix: &IpNet) -> Option<&PeerView> {
        self.peers.get(self.owners.get(prefix)?)
    }

    /// How many there are.
    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Adds a peer behind the others, and returns it: with nothing but its key, and where the config file names that, with
    /// the name and the allow list it has there, and searched for as there.
    /// Whether any peer has an allow list, or would have one if it was added.
    pub(crate) fn has_allowlists(&self) -> bool {
        let declared = self.declared.values().any(|declared| declared.allow.is_some());
        declared || self.peers.values().any(|peer| peer.allow.is_some())
    }

    pub(crate) fn add(&mut self, key: PeerKey, stats: Arc<PeerStats>) -> config::Peer {
        let order = self.take_order();
        let mut peer = config::Peer::nameless(key);
        if let Some(declared) = self.declared.get(&key) {
            peer.name.clone_from(&declared.name);
            peer.allow.clone_from(&declared.allow);
            peer.mtu_discovery = declared.mtu_discovery;
        }
        self.insert(order, peer.clone(), stats, None);
        peer
    }

    /// Forgets a peer, and returns it.
    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<PeerView> {
        let peer = self.peers.remove(&key)?;
        for prefix in &peer.allowed_ips {
            self.owners.remove(prefix);
        }
        Some(peer)
    }

    /// Makes `prefix` the peer's. False when it is already.
    pub(crate) fn add_allowed_ip(&mut self, key: PeerKey, prefix: IpNet) -> bool {
        match self.owners.insert(prefix, key) {
            Some(owner) if owner == key => return false,
            Some(owner) => {
                if let Some(other) = self.peers.get_mut(&owner) {
                    other.allowed_ips.remove(&prefix);
                }
            }
            None => {}
        }
        self.peers.get_mut(&key).is_some_and(|peer| peer.allowed_ips.insert(prefix))
    }

    /// Takes `prefix` away from the peer. False when it is not the peer's.
    pub(crate) fn remove_allowed_ip(&mut self, key: PeerKey, prefix: IpNet) -> bool {
        let is_gone = self.peers.get_mut(&key).is_some_and(|peer| peer.allowed_ips.remove(&prefix));
        if is_gone {
            self.owners.remove(&prefix);
        }
        is_gone
    }

    fn insert(&mut self, order: u64, peer: config::Peer, stats: Arc<PeerStats>, known: Option<PeerView>) {
        let key = peer.public_key;
        let prefixes = peer.allowed_ips.clone();
        self.peers.insert(key, PeerView::new(order, peer, stats, known));
        for prefix in prefixes {
            self.add_allowed_ip(key, prefix);
        }
    }

    fn declare(&mut self, peer: &config::Peer) {
        if peer.name.is_some() || peer.allow.is_some() || peer.mtu_discovery {
            let declared =
                Declared { name: peer.name.clone(), allow: peer.allow.clone(), mtu_discovery: peer.mtu_discovery };
            self.declared.insert(peer.public_key, declared);
        }
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }
}

/// The clock that the engine lends to the node.
pub(crate) fn now() -> Instant {
    Instant::from_start(overlay_os::clock::boottime())
}

#[cfg(test)]
pub(crate) mod tests;
