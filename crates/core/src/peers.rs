//! All peers of the node, found by key and by inner address.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use rand_core::RngCore;

use crate::data::allowed_ips::AllowedIps;
use crate::indices::Indices;
use crate::peer::Peer;
use crate::{Instant, PeerKey};

/// A peer's place in the table. Reused only after the peer was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    by_key: BTreeMap<PeerKey, PeerId>,
    pub(crate) allowed_ips: AllowedIps<PeerId>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_key: BTreeMap::new(), allowed_ips: AllowedIps::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: PeerKey) -> Option<PeerId> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// A peer, and the table that says whose an inner source is.
    pub(crate) fn peer_and_allowed_ips(&mut self, id: PeerId) -> Option<(&mut Peer, &AllowedIps<PeerId>)> {
        let peer = self.slots.get_mut(id.0 as usize)?.as_mut()?;
        Some((peer, &self.allowed_ips))
    }

    /// All that there are.
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.by_key.values().copied().collect()
    }

    pub(crate) fn insert(
        &mut self,
        key: PeerKey,
        indices: &mut Indices,
        now: Instant,
        rng: &mut impl RngCore,
    ) -> PeerId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PeerId(self.slots.len() as u32 - 1)
        });
        let index = indices.assign(id, rng);
        self.by_key.insert(key, id);
        self.slots[id.0 as usize] = Some(Peer::new(id, key, index, now));
        id
    }

    /// Its receiver indices are still to be released.
    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        let id = self.by_key.remove(&key)?;
        let peer = self.slots[id.0 as usize].take()?;
        for prefix in &peer.allowed_ips {
            self.allowed_ips.remove(prefix, id);
        }
        self.free.push(id);
        Some(peer)
    }

    /// Makes these, and no others, the peer's prefixes, and answers which it had. A prefix that was another peer's moves, as in
    /// WireGuard.
    pub(crate) fn set_allowed_ips(&mut self, id: PeerId, prefixes: Vec<IpNet>) -> BTreeSet<IpNet> {
        let Some(peer) = self.peer(id) else { return BTreeSet::new() };
        let before = std::mem::take(&mut peer.allowed_ips);
        for prefix in &before {
            self.allowed_ips.remove(prefix, id);
        }
        for prefix in prefixes {
            self.add_allowed_ip(id, prefix);
        }
        before
    }

    /// Makes `prefix` the peer's, whoever had it.
    pub(crate) fn add_allowed_ip(&mut self, id: PeerId, prefix: IpNet) {
        let prefix = prefix.trunc();
        let before = self.allowed_ips.insert(prefix, id);
        if let Some(other) = before.filter(|other| *other != id).and_then(|other| self.peer(other)) {
            other.allowed_ips.remove(&prefix);
        }
        if let Some(peer) = self.peer(id) {
            peer.allowed_ips.insert(prefix);
        }
    }

    /// Takes `prefix` away from the peer, if it is the peer's.
    pub(crate) fn remove_allowed_ip(&mut self, id: PeerId, prefix: IpNet) {
        let prefix = prefix.trunc();
        if let Some(peer) = self.peer(id)
            && peer.allowed_ips.remove(&prefix)
        {
            self.allowed_ips.remove(&prefix, id);
        }
    }
}
