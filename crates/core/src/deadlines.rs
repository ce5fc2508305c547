//! Deadlines of all peers, with lazy re-arming.
//!
//! A peer is armed for the earliest moment at which something may be due. At that moment the peer looks at its facts and
//! returns the next one, so a packet that only postpones a deadline costs nothing here. Arming earlier leaves the later
//! entry in the heap, where it is recognised as stale when its turn comes.
//!
//! DEVIATION: this is a binary heap, not a timer wheel. It is exact, and a peer has two or three entries at most, because a
//! superseded entry is remembered and used again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::{Instant, PeerTag};

/// The shortest time between two deadlines of a peer.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, PeerTag)>>,
}

/// The entries of a peer in the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed {
    /// The entry that counts now.
    at: Option<Instant>,
    /// A later entry that is still in the heap. It counts again when its turn comes.
    parked: Option<Instant>,
}

impl Armed {
    /// Records that the entry for `at` left the heap. Returns whether it was the one that counts.
    pub(crate) fn take(&mut self, at: Instant) -> bool {
        self.parked.take_if(|parked| *parked <= at);
        self.at.take_if(|armed| *armed == at).is_some()
    }
}

impl Deadlines {
    /// Makes sure `peer` is due at `at` or earlier.
    pub(crate) fn arm(&mut self, peer: PeerTag, armed: &mut Armed, at: Instant) {
        match armed.at {
            Some(current) if current <= at => return,
            Some(current) => armed.parked = Some(current),
            None => {
                if let Some(parked) = armed.parked.take_if(|parked| *parked <= at) {
                    armed.at = Some(parked);
                    return;
                }
            }
        }
        armed.at = Some(at);
        self.heap.push(Reverse((at, peer)));
    }

    /// The next moment at which an entry is due. The entry may be stale.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next entry that is due. It counts only if the peer is still armed for exactly that moment.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, PeerTag)> {
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
        let (mut deadlines, mut armed) = (Deadlines::default(), Armed::default());
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(10));
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(20));
        assert_eq!(deadlines.next(), Some(at(10)));
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(5));
        assert_eq!(deadlines.next(), Some(at(5)));
        assert_eq!(deadlines.pop_due(at(4)), None);
        assert_eq!(deadlines.pop_due(at(5)), Some((at(5), PeerTag::from_bits(7))));
        assert!(armed.take(at(5)));
        assert_eq!(deadlines.pop_due(at(10)), Some((at(10), PeerTag::from_bits(7))));
        assert!(!armed.take(at(10)), "stale");
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn an_entry_that_went_by_unheeded_serves_no_more() {
        let (mut deadlines, mut armed) = (Deadlines::default(), Armed::default());
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(10));
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(5));
        while let Some((due, _)) = deadlines.pop_due(at(15)) {
            armed.take(due);
        }
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(20));
        assert_eq!(deadlines.next(), Some(at(20)));
    }

    #[test]
    fn deadlines_that_come_and_go_before_a_far_one_leave_no_entries_behind() {
        let (mut deadlines, mut armed) = (Deadlines::default(), Armed::default());
        for round in 0..100 {
            deadlines.arm(PeerTag::from_bits(7), &mut armed, at(10_000 + round));
            deadlines.arm(PeerTag::from_bits(7), &mut armed, at(round));
            assert!(deadlines.heap.len() <= 2, "round {round}");
            let (due, _) = deadlines.pop_due(at(round)).expect("it is due");
            assert!(armed.take(due));
        }
        deadlines.arm(PeerTag::from_bits(7), &mut armed, at(20_000));
        assert_eq!(deadlines.next(), Some(at(10_000)), "the entry that is there already serves");
    }
}
