//! What control knows about the running daemon: the one place that the local API, the UAPI and metrics read.
//!
//! The supervisor updates it when a config is applied and when the engine reports an event. Counters are read where the
//! engine keeps them. A status request therefore never waits for the packet path, and a slow reader of status delays no
//! packet. Only control threads take the lock, and briefly.
//!
//! The view repeats no decision of the node: the state of a peer that it shows follows from reported facts.

mod date;
mod path_mtu;
mod peer;
mod status;
mod tags;
mod warnings;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use ipnet::IpNet;
use overlay_core::{Event, Instant, NodeStats, PeerKey, PeerStats, PeerTag, Rule};

use crate::config;
use crate::engine::Sockets;
use crate::host::HostFacts;
use crate::keys::PrivateKey;
use crate::offload::{Offload, Offloads};
use crate::queues::{QueueFigures, Queues};
use crate::shell::ShellStats;

pub use date::Date;
pub(crate) use path_mtu::KnownPathMtu;
pub use path_mtu::{MtuLimit, PathMtuState, PathMtuStatus, ProbedBy};
pub(crate) use peer::PeerView;
pub use status::{InterfaceStatus, PeerState, PeerStatus, Status, rule_text};
use tags::Tags;
pub use warnings::StatusWarning;
use warnings::Warnings;

/// What control knows about the running daemon.
pub struct View {
    node: Arc<NodeStats>,
    shell: Arc<ShellStats>,
    queues: OnceLock<Queues>,
    host: OnceLock<Arc<HostFacts>>,
    started: Instant,
    warnings: Warnings,
    state: RwLock<State>,
}

/// Our own side, as configured.
#[derive(Clone)]
pub struct InterfaceView {
    /// The name of the kernel interface.
    pub name: String,
    /// The index of the kernel interface.
    pub index: u32,
    /// Our public key, if there is a private key.
    pub public_key: Option<PeerKey>,
    /// Our private key. Shown only by `get=1` over the UAPI.
    pub private_key: Option<PrivateKey>,
    /// The virtual IPs with their configured prefixes.
    pub addresses: Vec<IpNet>,
    /// The MTU in bytes of inner packets to a peer about whose path nothing is known.
    pub mtu: u16,
    /// The MTU of the kernel interface in bytes. No path is found to carry more.
    pub max_mtu: u16,
    /// The UDP port that is bound, or that will be bound if no socket is open.
    pub listen_port: u16,
    /// The mark on our own datagrams.
    pub fwmark: Option<u32>,
    /// The path of the config in force.
    pub config_path: PathBuf,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// When the daemon was started.
    pub started: Date,
}

/// The data behind the lock.
pub(crate) struct State {
    pub(crate) interface: InterfaceView,
    peers: HashMap<PeerKey, PeerView>,
    tags: Tags,
    /// The owner of each allowed IP: the peer that it was given to last.
    owners: HashMap<IpNet, PeerKey>,
    /// What the config file in force says about peers and `wg` cannot say, whether or not the peer currently exists.
    declared: HashMap<PeerKey, Declared>,
    next_order: u64,
}

/// A peer that was added.
pub(crate) struct Added {
    pub(crate) tag: PeerTag,
    pub(crate) config: config::Peer,
}

/// Name, allow list and path MTU search of a peer in the config file. Kept only for peers that set any of them.
struct Declared {
    name: Option<String>,
    allow: Option<Vec<Rule>>,
    mtu_discovery: bool,
}

impl View {
    /// Creates the view of a daemon that starts now and has no peers yet.
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
                tags: Tags::default(),
                owners: HashMap::new(),
                declared: HashMap::new(),
                next_order: 0,
            }),
        })
    }

    /// Sets where the kernel is asked about queues. Called once, before the engine has the sockets.
    pub fn watch(&self, queues: Queues) {
        let _ = self.queues.set(queues);
    }

    /// Sets where the state of the footprint is read. Called once.
    pub fn attach_host(&self, facts: Arc<HostFacts>) {
        let _ = self.host.set(facts);
    }

    /// Switches to the sockets that the engine is about to use.
    pub fn follow(&self, sockets: &Sockets) {
        if let Some(queues) = self.queues.get() {
            queues.follow(sockets);
        }
    }

    /// Replaces our own side after a reload.
    pub fn set_interface(&self, interface: InterfaceView) {
        self.write().interface = interface;
    }

    /// Replaces the peers with those of the config file in force, in display order. A peer that already exists keeps
    /// what was learned about it.
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
        for gone in before.into_keys() {
            state.tags.give_back(gone);
        }
    }

    /// What the engine calls the peer with this key, or is to call it. `None`: there are too many peers.
    pub fn tag_for(&self, key: PeerKey) -> Option<PeerTag> {
        self.write().tags.take_for(key)
    }

    /// The key of a peer that the engine speaks of. `None`: it is gone.
    pub fn key_of(&self, peer: PeerTag) -> Option<PeerKey> {
        self.read().tags.key_of(peer)
    }

    /// Changes or removes our own key, which ends every session. A peer that has this key is removed.
    pub fn set_private_key(&self, key: Option<PrivateKey>) {
        let mut state = self.write();
        state.interface.public_key = key.as_ref().map(PrivateKey::public);
        state.interface.private_key = key;
        if let Some(own) = state.interface.public_key {
            state.remove(own);
        }
        state.peers.values_mut().for_each(PeerView::on_sessions_over);
    }

    /// Records that every session has ended, for any reason.
    pub fn on_sessions_over(&self) {
        self.write().peers.values_mut().for_each(PeerView::on_sessions_over);
    }

    /// Edits our own side.
    pub fn edit_interface(&self, edit: impl FnOnce(&mut InterfaceView)) {
        edit(&mut self.write().interface);
    }

    /// Edits everything behind the lock.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.write())
    }

    /// Applies an event from the engine. An event about a removed peer is ignored.
    pub fn on_event(&self, event: Event, wall_clock_of: impl Fn(Instant) -> SystemTime) {
        let mut state = self.write();
        let Some(key) = state.tags.key_of(event.peer()) else { return };
        let Some(peer) = state.peers.get_mut(&key) else { return };
        match event {
            Event::HandshakeCompleted(_, at) => peer.on_handshake(at, Date::of(wall_clock_of(at))),
            Event::EndpointChanged(_, endpoint) => peer.endpoint = Some(endpoint),
            Event::HandshakeFailed(_) => peer.on_handshake_failed(),
            Event::Answering(_, answers) => peer.on_answering(answers),
            Event::PathMtu(_, told) => {
                peer.path_mtu = Some(KnownPathMtu { told, since: Date::of(wall_clock_of(told.since)) });
            }
        }
    }

    /// Applies an address of the host name that is a peer's endpoint. As in the node, it does not replace an existing
    /// endpoint. Later changes are reported by events.
    pub fn on_endpoint_resolved(&self, key: PeerKey, endpoint: SocketAddr) {
        if let Some(peer) = self.write().peers.get_mut(&key) {
            peer.endpoint.get_or_insert(endpoint);
        }
    }

    /// Returns everything that `overlay status` shows.
    pub fn status(&self) -> Status {
        self.status_at(now())
    }

    /// Returns our own side.
    pub fn interface(&self) -> InterfaceView {
        self.read().interface.clone()
    }

    /// Returns the counters of a peer, or `None` if the peer does not exist.
    pub fn peer_stats(&self, key: PeerKey) -> Option<Arc<PeerStats>> {
        self.read().peers.get(&key).map(|peer| Arc::clone(&peer.stats))
    }

    /// Returns the allowed IPs of a peer, or an empty list if the peer does not exist.
    pub fn allowed_ips(&self, key: PeerKey) -> Vec<IpNet> {
        self.read().peers.get(&key).map(|peer| peer.allowed_ips.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns the current endpoints of all peers.
    pub fn endpoints(&self) -> Vec<IpAddr> {
        self.read().peers.values().filter_map(|peer| Some(peer.endpoint?.ip())).collect()
    }

    /// Returns the allowed IPs of all peers whose path MTU has been found.
    pub fn prefixes_of_found_paths(&self) -> Vec<IpNet> {
        let state = self.read();
        let found = state.peers.values().filter(|peer| peer.found_mtu().is_some());
        found.flat_map(|peer| peer.allowed_ips.iter().copied()).collect()
    }

    /// Returns the name of the kernel interface.
    pub fn interface_name(&self) -> String {
        self.read().interface.name.clone()
    }

    pub(crate) fn node_stats(&self) -> &NodeStats {
        &self.node
    }

    pub(crate) fn shell_stats(&self) -> &ShellStats {
        &self.shell
    }

    /// Returns the state of the footprint on the host, or `None` for a daemon without one.
    pub(crate) fn host(&self) -> Option<&HostFacts> {
        self.host.get().map(Arc::as_ref)
    }

    /// Returns the current figures of the kernel's queues.
    pub(crate) fn queue_figures(&self) -> QueueFigures {
        self.queues.get().map(Queues::read).unwrap_or_default()
    }

    /// Returns which offloads are in use. Only the sockets know about segmentation.
    pub(crate) fn offloads(&self) -> &Offloads {
        if self.queues.get().is_some_and(|queues| !queues.all_segment()) {
            self.shell.offloads.on_fallen_back(Offload::UdpSegmentation);
        }
        &self.shell.offloads
    }

    /// Locks the facts for reading. Held while they are formatted, never across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics in the middle of a change, so the data behind a poisoned lock is consistent.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns all peers in display order.
    pub(crate) fn peers(&self) -> Vec<&PeerView> {
        let mut peers: Vec<_> = self.peers.values().collect();
        peers.sort_unstable_by_key(|peer| peer.order);
        peers
    }

    /// Returns a peer.
    pub(crate) fn peer(&self, key: PeerKey) -> Option<&PeerView> {
        self.peers.get(&key)
    }

    /// Returns a peer for changes to anything but its allowed IPs.
    pub(crate) fn peer_mut(&mut self, key: PeerKey) -> Option<&mut PeerView> {
        self.peers.get_mut(&key)
    }

    /// Returns the peer that owns this allowed IP.
    pub(crate) fn owner(&self, prefix: &IpNet) -> Option<&PeerView> {
        self.peers.get(self.owners.get(prefix)?)
    }

    /// Whether any peer has an allow list, or would have one if it were added.
    pub(crate) fn has_allowlists(&self) -> bool {
        let declared = self.declared.values().any(|declared| declared.allow.is_some());
        declared || self.peers.values().any(|peer| peer.allow.is_some())
    }

    /// Adds a peer behind the others and returns it. It has nothing but its key, unless the config file has an entry for
    /// the key: then it gets that entry's name, allow list and path MTU search. Returns `None` if there are too many peers.
    pub(crate) fn add(&mut self, key: PeerKey, stats: Arc<PeerStats>) -> Option<Added> {
        let tag = self.tags.take_for(key)?;
        let order = self.take_order();
        let mut peer = config::Peer::of(key);
        if let Some(declared) = self.declared.get(&key) {
            peer.name.clone_from(&declared.name);
            peer.allow.clone_from(&declared.allow);
            peer.mtu_discovery = declared.mtu_discovery;
        }
        self.insert(order, peer.clone(), stats, None);
        Some(Added { tag, config: peer })
    }

    /// Removes a peer and returns it.
    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<PeerView> {
        let peer = self.peers.remove(&key)?;
        self.tags.give_back(key);
        for prefix in &peer.allowed_ips {
            self.owners.remove(prefix);
        }
        Some(peer)
    }

    /// Gives `prefix` to the peer. Returns false if the peer already owns it.
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

    /// Takes `prefix` away from the peer. Returns false if the peer does not own it.
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
        // It was taken before the engine was told.
        let Some(tag) = self.tags.take_for(key) else { return };
        self.peers.insert(key, PeerView::new(tag, order, peer, stats, known));
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

/// Returns the time on the clock that the engine passes to the node.
pub(crate) fn now() -> Instant {
    Instant::from_start(overlay_os::clock::boottime())
}

#[cfg(test)]
pub(crate) mod tests;
