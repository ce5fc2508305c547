//! What is kept of removed peers, in case they come back: `wg setconf` and `wg syncconf` remove peers and add them again.
//!
//! It is returned to the same public key only. It is discarded when it is too old or when one of two limits is reached. A
//! peer that comes back after that starts as a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Instant, PeerKey};

/// How long anything is kept: the longest time that any flow may be silent.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// State of a peer that outlives the peer.
pub(crate) trait Keep {
    /// How many removed peers are kept.
    const MAX_PEERS: usize;
    /// The largest sum of [`Keep::size`] that is kept.
    const MAX_SIZE: usize;

    /// What it takes of [`Keep::MAX_SIZE`].
    fn size(&self) -> usize;
}

/// One kind of state of removed peers.
pub(crate) struct Parked<T> {
    by_key: BTreeMap<PeerKey, Spot<T>>,
    /// In order of removal.
    order: BTreeMap<u64, PeerKey>,
    next: u64,
    size: usize,
}

struct Spot<T> {
    number: u64,
    since: Instant,
    kept: T,
}

impl<T> Default for Parked<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), order: BTreeMap::new(), next: 0, size: 0 }
    }
}

impl<T: Keep> Parked<T> {
    /// Keeps the state of a removed peer. The oldest ones make room.
    pub(crate) fn park(&mut self, key: PeerKey, kept: T, now: Instant) {
        self.take(key, now);
        self.size += kept.size();
        self.by_key.insert(key, Spot { number: self.next, since: now, kept });
        self.order.insert(self.next, key);
        self.next += 1;
        while let Some((_, oldest)) = self.order.first_key_value()
            && (self.order.len() > T::MAX_PEERS
                || self.size > T::MAX_SIZE
                || self.by_key.get(oldest).is_none_or(|spot| now.since(spot.since) >= LIFETIME))
        {
            let oldest = *oldest;
            self.take(oldest, now);
        }
    }

    /// Returns the state of a peer that comes back.
    pub(crate) fn take(&mut self, key: PeerKey, now: Instant) -> Option<T> {
        let Spot { number, since, kept } = self.by_key.remove(&key)?;
        self.order.remove(&number);
        self.size -= kept.size();
        (now.since(since) < LIFETIME).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::allowlist::{Allowlist, MAX_FLOWS};
    use crate::data::budget::{Budget, Purse};
    use crate::data::shares::Party;

    const MAX_PARKED: usize = Allowlist::MAX_PEERS;
    const MAX_PARKED_FLOWS: usize = Allowlist::MAX_SIZE;

    fn empty() -> Allowlist {
        Allowlist::new(Vec::new(), 1, Purse { party: Party::OWN, budget: Budget::new(MAX_FLOWS) })
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(10_000 + seconds))
    }

    fn key(n: usize) -> PeerKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        PeerKey(key)
    }

    #[test]
    fn a_peer_gets_back_its_own_flows_once_and_for_two_hours() {
        let mut parked = Parked::<Allowlist>::default();
        parked.park(key(1), empty(), at(0));
        parked.park(key(2), empty(), at(0));
        assert!(parked.take(key(3), at(0)).is_none());
        assert!(parked.take(key(1), at(7_199)).is_some());
        assert!(parked.take(key(1), at(7_199)).is_none());
        assert!(parked.take(key(2), at(7_200)).is_none());
        assert!(parked.by_key.is_empty() && parked.order.is_empty());
    }

    #[test]
    fn peers_and_flows_that_are_kept_are_bounded() {
        let mut parked = Parked::<Allowlist>::default();
        for n in 0..=MAX_PARKED {
            parked.park(key(n), empty(), at(0));
        }
        assert_eq!((parked.by_key.len(), parked.order.len()), (MAX_PARKED, MAX_PARKED));
        assert!(parked.take(key(0), at(0)).is_none(), "the oldest went");
        assert!(parked.take(key(1), at(0)).is_some());

        let mut parked = Parked::<Allowlist>::default();
        let full = Allowlist::full_of_flows(at(0)).len();
        for n in 0..=MAX_PARKED_FLOWS / full {
            parked.park(key(n), Allowlist::full_of_flows(at(0)), at(0));
        }
        assert_eq!(parked.size, MAX_PARKED_FLOWS / full * full);
        assert!(parked.take(key(0), at(0)).is_none(), "the oldest went");

        // Expired entries are removed when the next peer is parked.
        parked.park(key(9_999), empty(), at(7_200));
        assert_eq!((parked.by_key.len(), parked.size), (1, 0));
    }
}
