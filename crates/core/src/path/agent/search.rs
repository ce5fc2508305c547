//! Searches for a direct path, as they are counted. A search begins with a round while no direct pair is proven, and ends when
//! one is, or with the round.
//!
//! ```text
//! none -> searching (a round is under way, and no direct pair is proven) -> none (one is: a success) | none (the round is over)
//! ```
//!
//! What keeps a direct path that works alive is no search, and neither is a session that begins on one.

use std::time::Duration;

use crate::Instant;

/// Searches since they were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Searches {
    /// How many began.
    pub(crate) begun: u64,
    /// How many have found a direct path.
    pub(crate) succeeded: u64,
    /// How long the successful ones took, all together.
    pub(crate) took: Duration,
}

/// The search that is under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Search {
    since: Option<Instant>,
    counted: Searches,
}

impl Search {
    /// Looks at how things stand.
    pub(super) fn look(&mut self, is_round_under_way: bool, is_direct_proven: bool, now: Instant) {
        match (self.since, is_round_under_way, is_direct_proven) {
            (None, true, false) => {
                self.since = Some(now);
                self.counted.begun += 1;
            }
            (Some(since), _, true) => {
                self.since = None;
                self.counted.succeeded += 1;
                self.counted.took += now.since(since);
            }
            (Some(_), false, false) => self.since = None,
            (None, _, _) | (Some(_), true, false) => {}
        }
    }

    /// Returns what was counted since the last call. `None`: nothing.
    pub(super) fn take(&mut self) -> Option<Searches> {
        let counted = std::mem::take(&mut self.counted);
        (counted != Searches::default()).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_table() {
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let begun = Searches { begun: 1, ..Searches::default() };
        let found = Searches { succeeded: 1, took: Duration::from_millis(400), ..Searches::default() };
        let table = [
            // searching since; whether a round is under way and a direct pair proven; searching since, counted
            (None, (false, false), (None, None)),
            (None, (false, true), (None, None)),
            (None, (true, true), (None, None)),
            (None, (true, false), (Some(500), Some(begun))),
            (Some(100), (true, false), (Some(100), None)),
            (Some(100), (false, false), (None, None)),
            (Some(100), (true, true), (None, Some(found))),
            (Some(100), (false, true), (None, Some(found))),
        ];
        for (before, (is_under_way, is_direct), expected) in table {
            let mut search = Search { since: before.map(at), ..Search::default() };
            search.look(is_under_way, is_direct, at(500));
            let after = (search.since, search.take());
            assert_eq!(after, (expected.0.map(at), expected.1), "{before:?} {is_under_way} {is_direct}");
            assert_eq!(search.take(), None, "once");
        }
    }
}
