//! The content of the table: our own side, the peers, and the owner of each prefix.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{PeerKey, PeerStats, PeerTag, Rule};

use super::tags::Tags;
use super::{InterfaceEntry, PeerEntry};
use crate::config;
use crate::keys::encode_public;

/// The content of the table, which the lock guards.
pub(crate) struct State {
    pub(crate) interface: InterfaceEntry,
    /// Boxed: a third of the places in a map is empty.
    pub(super) peers: HashMap<PeerKey, Box<PeerEntry>>,
    pub(super) tags: Tags,
    /// The owner of each allowed IP: the peer that it was given to last.
    owners: HashMap<IpNet, PeerKey>,
    /// What the config file in force says about peers and `wg` cannot say. Kept while a peer is removed.
    declared: HashMap<PeerKey, Declared>,
    next_order: u64,
}

/// A peer that was added.
pub(crate) struct Added {
    pub(crate) tag: PeerTag,
    pub(crate) config: config::Peer,
}

/// What the config file or a grant gives to a peer, and `wg` cannot say. Kept for peers that have any of it.
struct Declared {
    name: Option<String>,
    allow: Option<Vec<Rule>>,
    opens: Option<Vec<Rule>>,
    mtu_discovery: bool,
}

impl State {
    pub(super) fn new(interface: InterfaceEntry) -> Self {
        Self {
            interface,
            peers: HashMap::new(),
            tags: Tags::default(),
            owners: HashMap::new(),
            declared: HashMap::new(),
            next_order: 0,
        }
    }

    /// Replaces all peers by those of the config file in force. A peer that is already known keeps what was learned about it.
    pub(super) fn set_peers(&mut self, peers: impl IntoIterator<Item = (config::Peer, Arc<PeerStats>)>) {
        let mut before = std::mem::take(&mut self.peers);
        self.owners.clear();
        self.declared.clear();
        for (peer, stats) in peers {
            self.declare(&peer);
            let known = before.remove(&peer.public_key);
            let order = self.take_order();
            self.insert(order, peer, stats, known.map(|known| *known));
        }
        for gone in before.into_keys() {
            self.tags.give_back(gone);
        }
    }

    /// Gives every agent in `new` that is here under a different tunnel key the new one. It stays the same peer. Returns the
    /// new keys.
    pub(crate) fn rekey(&mut self, new: &[config::Peer]) -> HashSet<PeerKey> {
        let known = self.peers.values().filter_map(|peer| Some((peer.agent.as_ref()?.identity, peer.public_key)));
        let known: HashMap<_, _> = known.collect();
        let mut rekeyed = HashSet::new();
        for peer in new {
            let Some(agent) = &peer.agent else { continue };
            let (Some(before), now) = (known.get(&agent.identity), peer.public_key) else { continue };
            if *before == now || self.peers.contains_key(&now) {
                continue;
            }
            let Some(mut entry) = self.peers.remove(before) else { continue };
            entry.public_key = now;
            if agent.former_key != Some(*before) {
                entry.on_sessions_over();
            }
            for prefix in &entry.allowed_ips {
                self.owners.insert(*prefix, now);
            }
            self.tags.rekey(*before, now);
            self.peers.insert(now, entry);
            rekeyed.insert(now);
        }
        rekeyed
    }

    /// Returns all peers, in the order in which they are shown.
    pub(crate) fn peers(&self) -> Vec<&PeerEntry> {
        let mut peers: Vec<_> = self.peers.values().map(Box::as_ref).collect();
        peers.sort_unstable_by_key(|peer| peer.order);
        peers
    }

    /// Returns a peer.
    pub(crate) fn peer(&self, key: PeerKey) -> Option<&PeerEntry> {
        self.peers.get(&key).map(Box::as_ref)
    }

    /// Returns the peer that a person means: the one with this name or key, or with the longest prefix that has this address.
    pub(crate) fn find(&self, text: &str) -> Option<&PeerEntry> {
        let peers = self.peers();
        let is_named =
            |peer: &&PeerEntry| peer.name.as_deref() == Some(text) || encode_public(&peer.public_key) == text;
        if let Some(peer) = peers.iter().copied().find(is_named) {
            return Some(peer);
        }
        let ip: IpAddr = text.parse().ok()?;
        let longest = |peer: &PeerEntry| {
            let prefixes = peer.allowed_ips.iter().filter(|prefix| prefix.contains(&ip));
            prefixes.map(|prefix| prefix.prefix_len()).max()
        };
        let owners = peers.into_iter().filter_map(|peer| Some((longest(peer)?, peer)));
        owners.max_by_key(|(length, _)| *length).map(|(_, peer)| peer)
    }

    /// Returns a peer for a change of anything but its allowed IPs.
    pub(crate) fn peer_mut(&mut self, key: PeerKey) -> Option<&mut PeerEntry> {
        self.peers.get_mut(&key).map(Box::as_mut)
    }

    /// Returns the owner of this allowed IP.
    pub(crate) fn owner(&self, prefix: &IpNet) -> Option<&PeerEntry> {
        self.peers.get(self.owners.get(prefix)?).map(Box::as_ref)
    }

    /// Whether any peer has an allow list, or would have one if it was added.
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
            peer.opens.clone_from(&declared.opens);
            peer.mtu_discovery = declared.mtu_discovery;
        }
        self.insert(order, peer.clone(), stats, None);
        Some(Added { tag, config: peer })
    }

    /// Forgets a peer, and returns it.
    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<PeerEntry> {
        let peer = self.peers.remove(&key)?;
        self.tags.give_back(key);
        for prefix in &peer.allowed_ips {
            self.owners.remove(prefix);
        }
        Some(*peer)
    }

    /// Gives `prefix` to the peer. Returns false if the peer already has it.
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

    /// Takes `prefix` away from the peer. Returns false if the peer does not have it.
    pub(crate) fn remove_allowed_ip(&mut self, key: PeerKey, prefix: IpNet) -> bool {
        let is_gone = self.peers.get_mut(&key).is_some_and(|peer| peer.allowed_ips.remove(&prefix));
        if is_gone {
            self.owners.remove(&prefix);
        }
        is_gone
    }

    fn insert(&mut self, order: u64, peer: config::Peer, stats: Arc<PeerStats>, known: Option<PeerEntry>) {
        let key = peer.public_key;
        let prefixes = peer.allowed_ips.clone();
        // The tag was taken before the engine learned about the peer.
        let Some(tag) = self.tags.take_for(key) else { return };
        self.peers.insert(key, Box::new(PeerEntry::new(tag, order, peer, stats, known)));
        for prefix in prefixes {
            self.add_allowed_ip(key, prefix);
        }
    }

    fn declare(&mut self, peer: &config::Peer) {
        if peer.name.is_some() || peer.allow.is_some() || peer.opens.is_some() || peer.mtu_discovery {
            let declared = Declared {
                name: peer.name.clone(),
                allow: peer.allow.clone(),
                opens: peer.opens.clone(),
                mtu_discovery: peer.mtu_discovery,
            };
            self.declared.insert(peer.public_key, declared);
        }
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }
}
