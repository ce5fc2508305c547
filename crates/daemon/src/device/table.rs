//! What control knows about the device: our own side and the peers, as configured and as reported by the engine.
//!
//! A change of the device is entered in the table first. The difference decides which commands the engine gets, so that a
//! small change of a large device stays cheap. The engine's reports are entered here too. The view reads from the table
//! what users and programs are shown. Only control threads take the lock, and only for a short time.
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
use overlay_wire::signed::PublicKey;

pub use self::date::Date;
pub(crate) use self::date::wall_clock_of;
pub(crate) use self::peer::{Handshake, KnownPathMtu, PeerEntry};
pub use self::peer_state::PeerState;
pub(crate) use self::state::State;
use crate::config;
use crate::keys::PrivateKey;

/// What control knows about the device.
pub struct Table {
    state: RwLock<State>,
}

/// Our own side, as it was configured.
#[derive(Clone)]
pub struct InterfaceEntry {
    /// Name of the kernel interface.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Our public key, if there is a private one.
    pub public_key: Option<PeerKey>,
    /// Our private key. Only `get=1` over the UAPI shows it.
    pub private_key: Option<PrivateKey>,
    /// Our former private keys that are still answered.
    pub former_keys: Vec<PrivateKey>,
    /// The virtual IPs with the prefix they were configured with.
    pub addresses: Vec<IpNet>,
    /// MTU of inner packets to a peer about whose path nothing is known, in bytes.
    pub mtu: u16,
    /// MTU of the kernel interface, in bytes: the most that a path may turn out to carry.
    pub max_mtu: u16,
    /// The UDP port that is bound, or that will be bound when the sockets open.
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

    /// Replaces our own side, after a reload.
    pub fn set_interface(&self, interface: InterfaceEntry) {
        self.write().interface = interface;
    }

    /// Replaces all peers by those of the config file in force, in the order in which they are shown. A peer that is already
    /// known keeps what was learned about it.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (config::Peer, Arc<PeerStats>)>) {
        self.write().set_peers(peers);
    }

    /// Records a change of our own keys: every session is over, unless the key before is still answered. A peer that has
    /// one of these keys is removed.
    pub fn set_private_keys(&self, key: Option<PrivateKey>, former: Vec<PrivateKey>) {
        let mut state = self.write();
        let before = state.interface.public_key;
        state.interface.public_key = key.as_ref().map(PrivateKey::public);
        state.interface.private_key = key;
        let own: Vec<_> = state.interface.public_key.into_iter().chain(former.iter().map(PrivateKey::public)).collect();
        state.interface.former_keys = former;
        for own in &own {
            state.remove(*own);
        }
        if !before.is_some_and(|before| own.contains(&before)) {
            state.peers.values_mut().for_each(|peer| peer.on_sessions_over());
        }
    }

    /// Records that every session is over.
    pub fn on_sessions_over(&self) {
        self.write().peers.values_mut().for_each(|peer| peer.on_sessions_over());
    }

    /// Changes our own side.
    pub fn edit_interface(&self, edit: impl FnOnce(&mut InterfaceEntry)) {
        edit(&mut self.write().interface);
    }

    /// Changes anything in the table.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.write())
    }

    /// Records an event of the engine. Ignores events about peers that are gone.
    pub fn on_event(&self, event: Event, wall_clock_of: impl Fn(Instant) -> SystemTime) {
        let mut state = self.write();
        let Some(key) = state.tags.key_of(event.peer()) else { return };
        let Some(peer) = state.peers.get_mut(&key) else { return };
        match event {
            Event::HandshakeCompleted(_, at) => peer.on_handshake(at, Date::of(wall_clock_of(at))),
            Event::EndpointChanged(_, endpoint, is_relayed) => peer.on_endpoint(endpoint, is_relayed),
            Event::HandshakeFailed(_) => peer.on_handshake_failed(),
            Event::Answering(_, answers) => peer.on_answering(answers),
            Event::PresharedKeyProven(_) | Event::KnowsPresentKey(_) => {}
            Event::PathMtu(_, told) => {
                peer.path_mtu = Some(KnownPathMtu { told, since: Date::of(wall_clock_of(told.since)) });
            }
            // It is the agent's.
            Event::Word(..) | Event::Parcel(..) | Event::Unreachable(_) => {}
        }
    }

    /// Returns the engine's name for the peer with this key, or the name that it is about to get. `None` if there are too many
    /// peers.
    pub fn tag_for(&self, key: PeerKey) -> Option<PeerTag> {
        self.write().tags.take_for(key)
    }

    /// Returns the engine's name for the peer with this key, or `None` if there is no such peer.
    pub fn tag_of(&self, key: PeerKey) -> Option<PeerTag> {
        self.read().tags.tag_of(key)
    }

    /// Returns the key of a peer that the engine reports on, or `None` if the peer is gone.
    pub fn key_of(&self, peer: PeerTag) -> Option<PeerKey> {
        self.read().tags.key_of(peer)
    }

    /// Returns the agent that is this peer, if the peer is one of agent mode.
    pub(crate) fn agent_of(&self, key: PeerKey) -> Option<PublicKey> {
        self.read().peers.get(&key).and_then(|peer| Some(peer.agent.as_ref()?.identity))
    }

    /// Records where a peer will be called first, which is perhaps a relay. As in the node, it does not replace a known endpoint.
    /// Events report when that one changes.
    pub fn on_first_endpoint(&self, key: PeerKey, endpoint: SocketAddr, is_relayed: bool) {
        if let Some(peer) = self.write().peers.get_mut(&key)
            && peer.endpoint.is_none()
        {
            peer.on_endpoint(endpoint, is_relayed);
        }
    }

    /// Returns our own side.
    pub fn interface(&self) -> InterfaceEntry {
        self.read().interface.clone()
    }

    /// Returns the allowed IPs of a peer. Empty if there is no such peer.
    pub fn allowed_ips(&self, key: PeerKey) -> Vec<IpNet> {
        self.read().peers.get(&key).map(|peer| peer.allowed_ips.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns the IPs of the current endpoints.
    pub fn endpoints(&self) -> Vec<IpAddr> {
        self.read().peers.values().filter_map(|peer| Some(peer.endpoint?.ip())).collect()
    }

    /// Returns the allowed IPs of all peers whose path MTU was found.
    pub fn prefixes_of_found_paths(&self) -> Vec<IpNet> {
        let state = self.read();
        let found = state.peers.values().filter(|peer| peer.found_mtu().is_some());
        found.flat_map(|peer| peer.allowed_ips.iter().copied()).collect()
    }

    /// Name of the kernel interface.
    pub fn interface_name(&self) -> String {
        self.read().interface.name.clone()
    }

    /// Locks the table for reading. The guard may be held while output is written, but never across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics between the writes of one change, so what a poisoned lock guards is whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
