//! Peers that have our answer to their request, and with it a new preshared key.
//!
//! Such a peer may not be able to call us: after its state was lost and its clock was set back, its handshakes look like replays.
//! So we call it. It may need a moment until its data plane has the key, so it is called again soon, while the present turn of
//! the preshared keys lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::PeerKey;
use overlay_wire::signed::PublicKey;
use tokio::time::Instant;

use super::{Agent, Changed, ENDPOINTS, NOTHING};

/// The pause before each call.
const CALLS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];

/// The calls that are due. There is one entry for each peer at most.
#[derive(Debug, Default)]
pub(super) struct Informed {
    /// When the next call is due, and how many were made.
    calls: BTreeMap<PublicKey, (Instant, usize)>,
    /// The last answer that each peer is known to have. A delivery may be told more than once.
    answers: BTreeMap<PublicKey, [u8; 16]>,
}

impl Informed {
    /// A peer has this answer. Returns whether that is news.
    fn on_delivered(&mut self, peer: PublicKey, answer: [u8; 16], now: Instant) -> bool {
        let is_new = self.answers.insert(peer, answer) != Some(answer);
        if is_new {
            self.calls.insert(peer, (now + CALLS[0], 0));
        }
        is_new
    }

    /// When the next call is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.calls.values().map(|(at, _)| *at).min()
    }

    /// Takes the peers whose time has come.
    fn take_due(&mut self, now: Instant) -> BTreeSet<PublicKey> {
        let due: BTreeSet<_> = self.calls.iter().filter(|(_, (at, _))| *at <= now).map(|(peer, _)| *peer).collect();
        for peer in &due {
            let made = self.calls.get(peer).map_or(0, |(_, made)| made + 1);
            match CALLS.get(made) {
                Some(pause) => _ = self.calls.insert(*peer, (now + *pause, made)),
                None => _ = self.calls.remove(peer),
            }
        }
        due
    }
}

impl Agent {
    /// A peer has acknowledged a message of ours, which may be our answer to its request.
    pub(super) fn on_answer_delivered(&mut self, to: PublicKey, id: [u8; 16]) -> Changed {
        let answered = self.book.relation(&to).and_then(|relation| relation.answered.as_ref());
        let is_answer = answered.is_some_and(|answered| answered.request == id);
        if is_answer && self.informed.on_delivered(to, id, Instant::now()) { ENDPOINTS } else { NOTHING }
    }

    /// Whether a peer is to be called again.
    pub(super) fn tend_informed(&self) -> Changed {
        let is_due = self.informed.due().is_some_and(|at| at <= Instant::now());
        if is_due { ENDPOINTS } else { NOTHING }
    }

    /// The peers to call, because they have the present preshared key.
    pub(crate) fn take_informed(&mut self) -> Vec<PeerKey> {
        let due = self.informed.take_due(Instant::now());
        let open = self.open_peers().filter(|open| due.contains(&open.record.identity));
        open.filter_map(|open| open.record.tunnel_keys.first()).map(|key| PeerKey(key.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_called_three_times_for_each_answer() {
        let mut informed = Informed::default();
        let (peer, now) = (PublicKey([7; 32]), Instant::now());
        assert!(informed.on_delivered(peer, [1; 16], now));
        assert!(!informed.on_delivered(peer, [1; 16], now), "it was told already");
        for (seconds, is_due) in [(0, true), (0, false), (1, true), (2, false), (3, true), (9, false)] {
            let due = informed.take_due(now + Duration::from_secs(seconds));
            assert_eq!(due.contains(&peer), is_due, "after {seconds} s");
        }
        assert_eq!(informed.due(), None);
        assert!(informed.on_delivered(peer, [2; 16], now));
    }
}
