//! Deadlines of all peers, with lazy re-arming.
//!
//! A peer is armed for the earliest moment at which something may be due. When that moment comes the peer looks at its
//! facts and says when the next one is, so a packet that only pushes a deadline back costs nothing here. Arming earlier
//! leaves the later entry behind; it is recognised as stale when its turn comes.
//!
//! DEVIATION: a binary heap, not a wheel: exact, and a peer has two or three live entries at most because deadlines
//! mostly move back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::Instant;
use crate::peer::Peer;
use crate::peers::PeerId;

/// Nothing here is due more often.
const GRANULARITY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, PeerId)>>,
}

impl Deadlines {
    /// Makes sure `peer` is due at `at` or earlier. `armed` is the peer's own note of the entry that counts.
    pub(crate) fn arm(&mut self, peer: PeerId, armed: &mut Option<Instant>, at: Instant) {
        if armed.is_none_or(|current| at < current) {
            *armed = Some(at);
            self.heap.push(Reverse((at, peer)));
        }
    }

    /// Arms a peer for the next thing that may be due for it.
    pub(crate) fn arm_next(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(at) = peer.deadline(now) {
            // A deadline that stays in the past would never let the shell sleep.
            self.arm(peer.id, &mut peer.armed, at.max(now + GRANULARITY));
        }
    }

    /// The next moment at which some entry, perhaps a stale one, is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next entry that is due. It counts only if the peer is still armed for exactly that moment.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, PeerId)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn an_earlier_deadline_replaces_a_later_one_and_a_later_one_changes_nothing() {
        let (mut deadlines, mut armed) = (Deadlines::default(), None);
        deadlines.arm(PeerId(7), &mut armed, at(10));
        deadlines.arm(PeerId(7), &mut armed, at(20));
        assert_eq!((armed, deadlines.next()), (Some(at(10)), Some(at(10))));
        deadlines.arm(PeerId(7), &mut armed, at(5));
        assert_eq!((armed, deadlines.next()), (Some(at(5)), Some(at(5))));
        assert_eq!(deadlines.pop_due(at(4)), None);
        assert_eq!(deadlines.pop_due(at(5)), Some((at(5), PeerId(7))));
        assert_eq!(deadlines.pop_due(at(10)), Some((at(10), PeerId(7))), "stale, and the caller can tell");
        assert_eq!(deadlines.next(), None);
    }
}
