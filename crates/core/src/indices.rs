//! Receiver indices: which peer a message on the wire belongs to.
//!
//! Each peer has an index of 24 bits, to which the session engine adds eight bits of its own. A peer that gets a new
//! engine gets a new index, and keeps its earlier indices for as long as a session uses them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand_core::RngCore;

use crate::Instant;
use crate::peer::Peer;
use crate::peers::PeerId;

/// The width of an index, in bits above boringtun's eight.
const BITS: u32 = 24;

#[derive(Default)]
pub(crate) struct Indices {
    owners: BTreeMap<u32, PeerId>,
}

impl Indices {
    /// Returns the peer that a receiver index on the wire belongs to.
    pub(crate) fn find(&self, receiver_index: u32) -> Option<PeerId> {
        self.owners.get(&(receiver_index >> 8)).copied()
    }

    /// Assigns a free index to this peer. It is random, so that it does not reveal the number of peers.
    pub(crate) fn assign(&mut self, id: PeerId, rng: &mut impl RngCore) -> u32 {
        loop {
            let index = rng.next_u32() >> (u32::BITS - BITS);
            if let Entry::Vacant(free) = self.owners.entry(index) {
                free.insert(id);
                return index;
            }
        }
    }

    /// Gives a peer a new index for its next sessions. The earlier ones stay valid as long as a session uses them.
    pub(crate) fn renew(&mut self, peer: &mut Peer, now: Instant, rng: &mut impl RngCore) {
        let index = self.assign(peer.id, rng);
        peer.former_indices.push(std::mem::replace(&mut peer.index, index));
        let session = peer.session.as_ref();
        peer.former_indices.retain(|former| {
            let is_used = session.is_some_and(|session| session.uses(*former, now));
            if !is_used {
                self.owners.remove(former);
            }
            is_used
        });
    }

    /// Frees the indices of a removed peer.
    pub(crate) fn release(&mut self, peer: &Peer) {
        for index in peer.former_indices.iter().chain([&peer.index]) {
            self.owners.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::PeerKey;
    use crate::peers::Peers;

    #[test]
    fn an_index_that_no_session_bears_names_nobody() {
        let (mut peers, mut indices) = (Peers::new(), Indices::default());
        let (mut rng, now) = (ChaCha8Rng::seed_from_u64(7), Instant::default());
        let key = PeerKey([7; 32]);
        let id = peers.insert(key, &mut indices, now, &mut rng);
        for _ in 0..10 {
            let peer = peers.peer(id).expect("it is there");
            let before = peer.index;
            indices.renew(peer, now, &mut rng);
            let index = peer.index;
            assert_eq!([before << 8, index << 8 | 0xff].map(|receiver| indices.find(receiver)), [None, Some(id)]);
            assert_eq!(indices.owners.len(), 1);
        }
        let peer = peers.remove(key).expect("it is there");
        indices.release(&peer);
        assert!(indices.owners.is_empty());
    }
}
