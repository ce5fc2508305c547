//! Where peers can be reached, as they say themselves: checked, kept, and followed at a pace that they cannot set.
//!
//! Each change is a file that is synced and a command to the engine for each peer. So a peer's endpoints are followed at
//! most once in [`APART`], and what comes earlier waits. Only the newest waits.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_wire::signed::{Endpoints, PublicKey, Signed};
use tokio::time::Instant;

use super::trust::Refusal;
use super::{Agent, Changed, ENDPOINTS, NOTHING};

/// The shortest time between two changes of one peer's endpoints.
const APART: Duration = Duration::from_secs(1);

/// Endpoints that came too early, and when each peer's were last followed. There is one entry for each peer at most.
#[derive(Debug, Default)]
pub(super) struct Pace {
    followed: BTreeMap<PublicKey, Instant>,
    waiting: BTreeMap<PublicKey, Signed<Endpoints>>,
}

impl Pace {
    /// Returns endpoints that may be followed now. Others wait, and replace those of the same peer that wait already.
    fn admit(&mut self, endpoints: Signed<Endpoints>, now: Instant) -> Option<Signed<Endpoints>> {
        // The others would be followed at once, so nothing has to be known of them.
        self.followed.retain(|peer, at| now < *at + APART || self.waiting.contains_key(peer));
        if self.followed.contains_key(&endpoints.from) {
            self.waiting.insert(endpoints.from, endpoints);
            return None;
        }
        self.followed.insert(endpoints.from, now);
        Some(endpoints)
    }

    /// The endpoints of a peer that wait.
    fn waiting(&self, peer: &PublicKey) -> Option<&Signed<Endpoints>> {
        self.waiting.get(peer)
    }

    /// When endpoints that wait may be followed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.keys().filter_map(|peer| self.followed.get(peer)).map(|at| *at + APART).min()
    }

    /// Takes endpoints that may be followed now.
    fn pop(&mut self, now: Instant) -> Option<Signed<Endpoints>> {
        let is_due = |peer: &&PublicKey| self.followed.get(*peer).is_none_or(|at| *at + APART <= now);
        let peer = *self.waiting.keys().find(is_due)?;
        self.followed.insert(peer, now);
        self.waiting.remove(&peer)
    }
}

impl Agent {
    /// Handles endpoints that a peer has sealed for us.
    pub(super) fn on_endpoints(&mut self, from: PublicKey, bytes: &[u8]) -> Changed {
        match self.judge_endpoints(from, bytes) {
            Ok(Some(endpoints)) => {
                let endpoints = self.pace.admit(endpoints, Instant::now());
                endpoints.map_or(NOTHING, |endpoints| self.follow_endpoints(endpoints))
            }
            Ok(None) => NOTHING,
            Err(refusal) => {
                self.refuse(refusal, "list of endpoints");
                NOTHING
            }
        }
    }

    /// Follows the endpoints whose time has come.
    pub(super) fn follow_late_endpoints(&mut self) -> Changed {
        let mut changed = NOTHING;
        while let Some(endpoints) = self.pace.pop(Instant::now()) {
            changed = changed.and(self.follow_endpoints(endpoints));
        }
        changed
    }

    fn follow_endpoints(&mut self, endpoints: Signed<Endpoints>) -> Changed {
        let from = endpoints.from;
        if !self.book.set_endpoints(&from, endpoints.clone()) {
            return NOTHING;
        }
        self.endpoints.insert(from, endpoints);
        self.on_place(&from);
        self.moved.insert(from);
        self.save(&from);
        ENDPOINTS
    }

    /// Whether these are the newest endpoints of a peer: those that count, or those that wait.
    pub(super) fn is_newest_place(&self, peer: &PublicKey, bytes: &[u8]) -> bool {
        let newest = self.pace.waiting(peer).or_else(|| self.endpoints.get(peer));
        newest.is_some_and(|newest| newest.bytes() == bytes)
    }

    /// Opens the endpoints of a peer. `None`: they are known. A rendezvous shows them again with each connection.
    fn judge_endpoints(&self, from: PublicKey, bytes: &[u8]) -> Result<Option<Signed<Endpoints>>, Refusal> {
        let endpoints = Signed::<Endpoints>::open(bytes).map_err(|_| Refusal::Malformed)?;
        if endpoints.from != from || endpoints.to != self.book.me() || endpoints.network != self.config.network_key {
            return Err(Refusal::NotOurs);
        }
        match self.pace.waiting(&from).or_else(|| self.endpoints.get(&from)) {
            Some(known) if *known == endpoints => return Ok(None),
            Some(known) if known.sequence >= endpoints.sequence => return Err(Refusal::Replayed),
            _ => {}
        }
        let is_expected = self.book.relation(&from).is_some_and(|relation| relation.expects_endpoints());
        if is_expected { Ok(Some(endpoints)) } else { Err(Refusal::Unasked) }
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    fn told(peer: u8, sequence: u64) -> Signed<Endpoints> {
        let key = SecretKey::from_bytes(&[peer; 32]);
        let [network, to] = [200, 201].map(|byte| SecretKey::from_bytes(&[byte; 32]).public());
        let endpoints =
            Endpoints { network, from: key.public(), to, sequence, issued: 1, places: Vec::new(), relays: None };
        Signed::sign(endpoints, &key).expect("good endpoints")
    }

    #[test]
    fn a_peer_that_moves_all_the_time_is_followed_once_a_second() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut followed = Vec::new();
        for millis in 0..3_500 {
            let now = start + Duration::from_millis(millis);
            while let Some(late) = pace.pop(now) {
                followed.push((millis, late.sequence));
            }
            followed.extend(pace.admit(told(1, millis + 1), now).map(|endpoints| (millis, endpoints.sequence)));
        }
        assert_eq!(followed, [(0, 1), (1_000, 1_000), (2_000, 2_000), (3_000, 3_000)]);
        assert_eq!(pace.due(), Some(start + Duration::from_secs(4)));
    }

    #[test]
    fn peers_do_not_wait_for_each_other_and_the_newest_is_followed_in_the_end() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for peer in [1, 2] {
            assert!(pace.admit(told(peer, 1), start).is_some());
            assert!(pace.admit(told(peer, 2), start).is_none());
            assert!(pace.admit(told(peer, 3), start).is_none());
        }
        assert_eq!((pace.pop(start), pace.due()), (None, Some(start + APART)));
        let late = [(); 2].map(|()| pace.pop(start + APART).map(|endpoints| endpoints.sequence));
        assert_eq!((late, pace.pop(start + APART), pace.due()), ([Some(3); 2], None, None));
        assert!(pace.admit(told(1, 4), start + APART).is_none(), "it was followed just now");
    }
}
