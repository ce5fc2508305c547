//! What control knows of the device: our own end and the peers, as they were configured and as the engine reported.
//!
//! A change of the device is entered in the table first, and the table says what the engine has to be told, so that a change
//! costs what changed. The engine's reports are entered here too. What people and programs are shown is read from it by
//! the view. Only control threads take the lock, and briefly.
//!
//! It does not repeat decisions of the node: a peer's state follows from the reported facts.

mod date;
mod peer;
mod peer_state;
mod state;
mod tags;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use ipnet::IpNet;
use overlay_core::{Event, Instant, PeerKey, PeerStats, PeerTag};

pub use self::date::Date;
pub(crate) use self::date::wall_clock_of;
pub(crate) use self::peer::{Handshake, KnownPathMtu, PeerEntry};
pub use self::peer_state::PeerState;
pub(crate) use self::state::State;
use crate::config;
use crate::keys::PrivateKey;

/// What control knows of the device.
pub struct Table {
    state: RwLock<State>,
}

/// Our own end, as it was configured.
#[derive(Clone)]
pub struct InterfaceEntry {
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
    pub config_file: PathBuf,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// When the daemon was started.
    pub started: Date,
}

impl Table {
    /// The table of a device that has no peers yet.
    pub fn new(interface: InterfaceEntry) -> Self {
        Self { state: RwLock::new(State::new(interface)) }
    }

    /// Our own end, after a reload.
    pub fn set_interface(&self, interface: InterfaceEntry) {
        self.write().interface = interface;
    }

    /// All peers of the config file in force, in the order they are shown in. A peer that is already known keeps what was
    /// learned of it.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (config::Peer, Arc<PeerStats>)>) {
        self.write().set_peers(peers);
    }

    /// Records a change of our own key: every session is over. A peer that has this key is removed.
    pub fn set_private_key(&self, key: Option<PrivateKey>) {
        let mut state = self.write();
        state.interface.public_key = key.as_ref().map(PrivateKey::public);
        state.interface.private_key = key;
        if let Some(own) = state.interface.public_key {
            state.remove(own);
        }
        state.peers.values_mut().for_each(PeerEntry::on_sessions_over);
    }

    /// Every session is over, whatever the reason.
    pub fn on_sessions_over(&self) {
        self.write().peers.values_mut().for_each(PeerEntry::on_sessions_over);
    }

    /// Changes our own end.
    pub fn edit_interface(&self, edit: impl FnOnce(&mut InterfaceEntry)) {
        edit(&mut self.write().interface);
    }

    /// Changes what is known; `edit` sees all of it.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.write())
    }

    /// A fact from the engine. About a peer that is gone: nothing.
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

    /// Returns the engine's name for the peer with this key, or the name that it is about to get. `None` if there are too many
    /// peers.
    pub fn tag_for(&self, key: PeerKey) -> Option<PeerTag> {
        self.write().tags.take_for(key)
    }

    /// Returns the key of a peer that the engine reports on, or `None` if the peer is gone.
    pub fn key_of(&self, peer: PeerTag) -> Option<PeerKey> {
        self.read().tags.key_of(peer)
    }

    /// The configured host name of a peer's endpoint has this address. As in the node, it does not replace an endpoint that is
    /// there: what becomes of that is told by events.
    pub fn on_endpoint_resolved(&self, key: PeerKey, endpoint: SocketAddr) {
        if let Some(peer) = self.write().peers.get_mut(&key) {
            peer.endpoint.get_or_insert(endpoint);
        }
    }

    /// Our own end.
    pub fn interface(&self) -> InterfaceEntry {
        self.read().interface.clone()
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

    /// The facts themselves. Held while something is printed from them, never across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics between the writes of one change, so what a poisoned lock guards is whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
