//! The flows of removed peers, kept in case a peer comes back: `wg setconf` and `wg syncconf` remove peers and add them
//! again.
//!
//! Flows are returned to the same public key only. They are discarded when they are too old or when one of two limits
//! is reached. A peer that comes back after that starts without flows.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::data::allowlist::Allowlist;
use crate::{Instant, PeerKey};

/// How many removed peers are kept.
pub(crate) const MAX_PARKED: usize = 1_024;
/// How many flows are kept in total.
pub(crate) const MAX_PARKED_FLOWS: usize = 32_768;
/// The longest time that any flow may be silent.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The allowlists of removed peers.
#[derive(Default)]
pub(crate) struct Parked {
    by_key: BTreeMap<PeerKey, Spot>,
    /// In order of removal.
    order: BTreeMap<u64, PeerKey>,
    next: u64,
    flows: usize,
}

struct Spot {
    number: u64,
    since: Instant,
    allowlist: Allowlist,
}

impl Parked {
    /// Keeps the allowlist of a removed peer. The oldest ones make room.
    pub(crate) fn park(&mut self, key: PeerKey, allowlist: Allowlist, now: Instant) {
        self.take(key, now);
        self.flows += allowlist.len();
        self.by_key.insert(key, Spot { number: self.next, since: now, allowlist });
        self.order.insert(self.next, key);
        self.next += 1;
        while let Some((_, oldest)) = self.order.first_key_value()
            && (self.order.len() > MAX_PARKED
                || self.flows > MAX_PARKED_FLOWS
                || self.by_key.get(oldest).is_none_or(|spot| now.since(spot.since) >= LIFETIME))
        {
            let oldest = *oldest;
            self.take(oldest, now);
        }
    }

    /// Returns the allowlist of a peer that comes back.
    pub(crate) fn take(&mut self, key: PeerKey, now: Instant) -> Option<Allowlist> {
        let Spot { number, since, allowlist } = self.by_key.remove(&key)?;
        self.order.remove(&number);
        self.flows -= allowlist.len();
        (now.since(since) < LIFETIME).then_some(allowlist)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut parked = Parked::default();
        parked.park(key(1), Allowlist::new(Vec::new(), 1), at(0));
        parked.park(key(2), Allowlist::new(Vec::new(), 1), at(0));
        assert!(parked.take(key(3), at(0)).is_none());
        assert!(parked.take(key(1), at(7_199)).is_some());
        assert!(parked.take(key(1), at(7_199)).is_none());
        assert!(parked.take(key(2), at(7_200)).is_none());
        assert!(parked.by_key.is_empty() && parked.order.is_empty());
    }

    #[test]
    fn peers_and_flows_that_are_kept_are_bounded() {
        let mut parked = Parked::default();
        for n in 0..=MAX_PARKED {
            parked.park(key(n), Allowlist::new(Vec::new(), 1), at(0));
        }
        assert_eq!((parked.by_key.len(), parked.order.len()), (MAX_PARKED, MAX_PARKED));
        assert!(parked.take(key(0), at(0)).is_none(), "the oldest went");
        assert!(parked.take(key(1), at(0)).is_some());

        let mut parked = Parked::default();
        let full = Allowlist::full_of_flows(at(0)).len();
        for n in 0..=MAX_PARKED_FLOWS / full {
            parked.park(key(n), Allowlist::full_of_flows(at(0)), at(0));
        }
        assert_eq!(parked.flows, MAX_PARKED_FLOWS / full * full);
        assert!(parked.take(key(0), at(0)).is_none(), "the oldest went");

        // Expired entries are removed when the next peer is parked.
        parked.park(key(9_999), Allowlist::new(Vec::new(), 1), at(7_200));
        assert_eq!((parked.by_key.len(), parked.flows), (1, 0));
    }
}
