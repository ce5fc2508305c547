//! The endpoints of all peers. While the node is under load, a handshake message from a known endpoint has its own rate
//! limit.
//!
//! Everybody behind one address shares the limit of that address (`session/source_limit`), and a stranger behind the same
//! carrier-grade NAT or relay could use it up. A source that is looked up here has already proved its address with a
//! cookie, and its port is one that the NAT or relay assigned to the peer. Strangers have different ports. A peer whose
//! port has just changed counts as a stranger until it is heard from.

use std::collections::BTreeMap;

use crate::Instant;
use crate::bucket::Bucket;
use crate::origin::Far;

/// The endpoints of all peers that have one, with the number of peers that share each.
#[derive(Default)]
pub(crate) struct Endpoints {
    known: BTreeMap<Far, Known>,
}

struct Known {
    peers: usize,
    budget: Bucket,
}

impl Endpoints {
    /// Records that a peer moved from one endpoint to another.
    pub(crate) fn on_moved(&mut self, before: Option<Far>, after: Option<Far>) {
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(known) = self.known.get_mut(&before)
        {
            known.peers -= 1;
            if known.peers == 0 {
                self.known.remove(&before);
            }
        }
        if let Some(after) = after {
            self.known.entry(after).or_insert(Known { peers: 0, budget: Bucket::FULL }).peers += 1;
        }
    }

    /// Whether a peer has this endpoint and one more handshake message is within the endpoint's own limit.
    pub(crate) fn allows(&mut self, source: Far, now: Instant) -> bool {
        self.known.get_mut(&source).is_some_and(|known| known.budget.take(now))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay_wire::relay::Channel;

    use super::*;

    #[test]
    fn peers_behind_one_relay_have_limits_of_their_own() {
        let relay = "192.0.2.9:7447".parse().unwrap();
        let [one, two]: [Far; 2] = [1, 2].map(|number| (relay, Channel::new(number)));
        let mut endpoints = Endpoints::default();
        endpoints.on_moved(None, Some(one));
        endpoints.on_moved(None, Some(two));
        let now = Instant::from_start(Duration::ZERO);
        assert_eq!((0..100).filter(|_| endpoints.allows(one, now)).count(), 5);
        assert!(endpoints.allows(two, now) && !endpoints.allows((relay, None), now));
    }

    #[test]
    fn an_endpoint_is_known_while_a_peer_is_there_and_has_its_own_limit() {
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let [here, there]: [Far; 2] = ["192.0.2.1:1", "192.0.2.1:2"].map(|text| (text.parse().unwrap(), None));
        let mut endpoints = Endpoints::default();
        assert!(!endpoints.allows(here, at(0)));
        endpoints.on_moved(None, Some(here));
        endpoints.on_moved(None, Some(here));
        assert_eq!((0..100).filter(|_| endpoints.allows(here, at(0))).count(), 5);
        assert_eq!((1..=1_000).filter(|ms| endpoints.allows(here, at(*ms))).count(), 20);
        assert!(!endpoints.allows(there, at(0)), "a different port is a stranger's");
        endpoints.on_moved(Some(here), Some(there));
        assert!(endpoints.allows(here, at(2_000)), "the second one is still there");
        endpoints.on_moved(Some(here), None);
        assert!(!endpoints.allows(here, at(3_000)) && endpoints.allows(there, at(3_000)));
        assert_eq!(endpoints.len(), 1);
    }
}
