//! Replay state that outlives a session: the newest valid initiation for each of our last keys. That initiation and older
//! ones are replays.
//!
//! It is kept when the sessions are forgotten, when the peer is removed and added again ([`crate::parked`]), and when the
//! node ends in order ([`crate::hand_over`]). Without it, anybody who recorded an initiation could send it again, and the
//! peer's endpoint would move there.

use overlay_wire::wireguard::INITIATION_LEN;

use crate::PeerKey;
use crate::parked::Keep;

/// The number of our own keys for which replay state is kept.
const MAX_REMEMBERED: usize = 4;

/// The replay state of one peer, as a value that one node hands over to its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInitiations {
    /// The key of the peer.
    pub peer: PeerKey,
    /// The newest valid initiation for each of our last keys, four at most. Each is what passed on the wire.
    pub initiations: Vec<[u8; INITIATION_LEN]>,
}

/// The newest valid initiations of forgotten sessions, one for each of our last keys. They are still replays when such a
/// key comes back.
#[derive(Clone, Default)]
pub(crate) struct Replays(Vec<[u8; INITIATION_LEN]>);

impl Replays {
    /// Adds initiations. The oldest ones make room.
    pub(crate) fn add(&mut self, initiations: impl IntoIterator<Item = [u8; INITIATION_LEN]>) {
        self.0.extend(initiations);
        let surplus = self.0.len().saturating_sub(MAX_REMEMBERED);
        self.0.drain(..surplus);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8; INITIATION_LEN]> {
        self.0.iter()
    }

    /// Drops those that the session knows from now on.
    pub(crate) fn drop_if(&mut self, mut is_known: impl FnMut(&[u8; INITIATION_LEN]) -> bool) {
        self.0.retain(|initiation| !is_known(initiation));
    }
}

impl Keep for Replays {
    /// A reload may remove and add 10,000 peers at once.
    const MAX_PEERS: usize = 16_384;
    /// Counted in initiations: 2.4 MB.
    const MAX_SIZE: usize = 16_384;

    fn size(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instant;
    use crate::parked::Parked;

    #[test]
    fn initiations_for_four_keys_of_ours_are_kept_and_16_384_of_removed_peers() {
        let mut replays = Replays::default();
        replays.add((0..6).map(|n| [n; INITIATION_LEN]));
        assert_eq!(replays.iter().map(|initiation| initiation[0]).collect::<Vec<_>>(), [2, 3, 4, 5]);

        let mut parked = Parked::default();
        let key = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            PeerKey(key)
        };
        for n in 0..=Replays::MAX_SIZE / 4 {
            parked.park(key(n), replays.clone(), Instant::default());
        }
        assert!(parked.take(key(0), Instant::default()).is_none(), "the oldest went");
        assert!(parked.take(key(1), Instant::default()).is_some());
    }
}
