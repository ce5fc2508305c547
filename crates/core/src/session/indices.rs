//! Receiver indices: which peer a message on the wire belongs to.
//!
//! Each peer has an index of 24 bits, to which the session engine adds eight bits of its own. A peer with a new engine gets
//! a new index. It keeps the earlier ones for as long as a session uses them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand_core::RngCore;

use crate::PeerTag;

/// Receiver indices are this many bits wide above boringtun's eight.
const BITS: u32 = 24;

/// The indices of all peers.
#[derive(Default)]
pub(crate) struct Indices {
    owners: BTreeMap<u32, PeerTag>,
}

/// The indices of one peer.
pub(crate) struct Receivers {
    /// The upper 24 bits of the indices of its next sessions.
    pub(crate) present: u32,
    /// The upper 24 bits of the indices of sessions that former engines made.
    former: Vec<u32>,
}

impl Indices {
    /// The peer that a receiver index on the wire belongs to.
    pub(crate) fn find(&self, receiver_index: u32) -> Option<PeerTag> {
        self.owners.get(&(receiver_index >> 8)).copied()
    }

    /// Assigns this peer an index that no other peer has. It is random, so that it does not reveal how many peers there
    /// are.
    pub(crate) fn assign(&mut self, peer: PeerTag, rng: &mut impl RngCore) -> Receivers {
        Receivers { present: self.draw(peer, rng), former: Vec::new() }
    }

    /// Gives a peer a new index for its next sessions. The earlier ones still find the peer while `is_used` returns true
    /// for them.
    pub(crate) fn renew(
        &mut self,
        peer: PeerTag,
        receivers: &mut Receivers,
        is_used: impl Fn(u32) -> bool,
        rng: &mut impl RngCore,
    ) {
        let index = self.draw(peer, rng);
        receivers.former.push(std::mem::replace(&mut receivers.present, index));
        receivers.former.retain(|former| {
            let is_used = is_used(*former);
            if !is_used {
                self.owners.remove(former);
            }
            is_used
        });
    }

    /// Releases the indices of a peer that was removed.
    pub(crate) fn release(&mut self, receivers: &Receivers) {
        for index in receivers.former.iter().chain([&receivers.present]) {
            self.owners.remove(index);
        }
    }

    fn draw(&mut self, peer: PeerTag, rng: &mut impl RngCore) -> u32 {
        loop {
            let index = rng.next_u32() >> (u32::BITS - BITS);
            if let Entry::Vacant(free) = self.owners.entry(index) {
                free.insert(peer);
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
        let mut indices = Indices::default();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let peer = PeerTag::from_bits(7);
        let mut receivers = indices.assign(peer, &mut rng);
        for _ in 0..10 {
            let before = receivers.present;
            indices.renew(peer, &mut receivers, |_| false, &mut rng);
            let found = [before << 8, receivers.present << 8 | 0xff].map(|receiver| indices.find(receiver));
            assert_eq!(found, [None, Some(peer)]);
            assert_eq!(indices.owners.len(), 1);
        }
        let before = receivers.present;
        indices.renew(peer, &mut receivers, |former| former == before, &mut rng);
        assert_eq!(indices.find(before << 8), Some(peer), "a session bears it");
        indices.release(&receivers);
        assert!(indices.owners.is_empty());
    }
}
