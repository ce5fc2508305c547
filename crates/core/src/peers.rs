//! All peers of the node, found by key, by receiver index and by inner address.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use rand_core::RngCore;

use crate::data::allowed_ips::AllowedIps;
use crate::peer::Peer;
use crate::{Instant, PeerKey};

/// A peer's place in the table. Reused only after the peer was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

/// Receiver indices are this many bits wide above boringtun's eight.
const INDEX_BITS: u32 = 24;

pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    by_key: BTreeMap<PeerKey, PeerId>,
    by_index: BTreeMap<u32, PeerId>,
    pub(crate) allowed_ips: AllowedIps<PeerId>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_index: BTreeMap::new(),
            allowed_ips: AllowedIps::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: PeerKey) -> Option<PeerId> {
        self.by_key.get(&key).copied()
    }

    /// The peer that a receiver index on the wire belongs to.
    pub(crate) fn find_receiver(&self, receiver_index: u32) -> Option<PeerId> {
        self.by_index.get(&(receiver_index >> 8)).copied()
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

    pub(crate) fn insert(&mut self, key: PeerKey, now: Instant, rng: &mut impl RngCore) -> PeerId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PeerId(self.slots.len() as u32 - 1)
        });
        let index = self.unused_index(rng);
        self.by_key.insert(key, id);
        self.by_index.insert(index, id);
        self.slots[id.0 as usize] = Some(Peer::new(id, key, index, now));
        id
    }

    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        let id = self.by_key.remove(&key)?;
        let peer = self.slots[id.0 as usize].take()?;
        for index in peer.former_indices.iter().chain([&peer.index]) {
            self.by_index.remove(index);
        }
        for prefix in &peer.allowed_ips {
            self.allowed_ips.remove(prefix, id);
        }
        self.free.push(id);
        Some(peer)
    }

    /// Gives a peer another index for its next sessions. The ones before find it as long as a session bears them.
    pub(crate) fn renew_index(&mut self, id: PeerId, now: Instant, rng: &mut impl RngCore) {
        let index = self.unused_index(rng);
        let Some(peer) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        peer.former_indices.push(std::mem::replace(&mut peer.index, index));
        let session = peer.session.as_ref();
        peer.former_indices.retain(|former| {
            let is_used = session.is_some_and(|session| session.uses(*former, now));
            if !is_used {
                self.by_index.remove(former);
            }
            is_used
        });
        self.by_index.insert(index, id);
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

    /// Random, so that it says nothing of how many there are.
    fn unused_index(&self, rng: &mut impl RngCore) -> u32 {
        loop {
            let index = rng.next_u32() >> (u32::BITS - INDEX_BITS);
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_index_that_no_session_bears_names_nobody() {
        let (mut peers, mut rng, now) = (Peers::new(), ChaCha8Rng::seed_from_u64(7), Instant::default());
        let key = PeerKey([7; 32]);
        let id = peers.insert(key, now, &mut rng);
        for _ in 0..10 {
            let before = peers.peer(id).expect("it is there").index;
            peers.renew_index(id, now, &mut rng);
            let index = peers.peer(id).expect("it is there").index;
            assert_eq!(
                [before << 8, index << 8 | 0xff].map(|receiver| peers.find_receiver(receiver)),
                [None, Some(id)]
            );
            assert_eq!(peers.by_index.len(), 1);
        }
        peers.remove(key);
        assert!(peers.by_index.is_empty());
    }
}
