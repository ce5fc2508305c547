//! The age at which direct paths end. Some carriers end every mapping of their NAT at a fixed age, whatever the traffic, and
//! give the next one a different port. Two ends at the same age tell when the third one comes: packets are mirrored then
//! before anything is lost.
//!
//! ```text
//! unknown -> expected (two ends in a row came at the same age) -> unknown (an end came at a different age, or none came)
//! ```

use std::time::Duration;

use crate::Instant;

/// The ages that count. What ends earlier or later ends for other reasons.
const SHORTEST: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(200);
/// How exactly an end is known: it is noticed by probes.
const TOLERANCE: Duration = Duration::from_millis(1_500);
/// Trouble this soon after an end belongs to that end.
const AFTERMATH: Duration = Duration::from_secs(10);
/// How long before the expected end packets are mirrored.
const LEAD: Duration = Duration::from_millis(400);

/// When direct paths to one peer have ended.
#[derive(Debug, Default)]
pub(super) struct Ages {
    ended: Option<Instant>,
    age: Option<Duration>,
    is_regular: bool,
}

impl Ages {
    /// Records that the direct path in use has ended, or may have.
    pub(super) fn on_end(&mut self, now: Instant) {
        let Some(ended) = self.ended else {
            self.ended = Some(now);
            return;
        };
        let age = now.since(ended);
        if age < AFTERMATH {
            return;
        }
        self.is_regular = self.age.is_some_and(|before| before.abs_diff(age) <= TOLERANCE);
        self.age = Some(age).filter(|age| (SHORTEST..=LONGEST).contains(age));
        self.ended = Some(now);
    }

    /// Whether the latest end came at the age at which the one before it did.
    pub(super) fn are_regular(&self) -> bool {
        self.is_regular
    }

    /// When the path in use is to be doubted, because it ends soon.
    pub(super) fn doubted_at(&self) -> Option<Instant> {
        let (ended, age) = self.ended.zip(self.age.filter(|_| self.is_regular))?;
        Some(ended + (age - LEAD))
    }

    /// Records that the end that was expected next is being waited for. The one after it depends on whether it comes.
    pub(super) fn on_doubted(&mut self) {
        self.is_regular = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ends: &[u64]) -> Option<Instant> {
        let mut ages = Ages::default();
        for end in ends {
            ages.on_end(Instant::from_start(Duration::from_millis(*end)));
        }
        ages.doubted_at()
    }

    #[test]
    fn the_third_end_is_expected_where_two_came_at_the_same_age() {
        let at = |millis| Some(Instant::from_start(Duration::from_millis(millis)));
        let table: [(&[u64], _); 9] = [
            (&[], None),
            (&[60_000], None),
            (&[60_000, 120_000], None),
            (&[60_000, 120_000, 180_000], at(239_600)),
            // What follows at once is not another end.
            (&[60_000, 60_200, 120_000, 121_000, 180_000, 188_000], at(239_600)),
            (&[60_000, 120_000, 181_400], at(242_400)),
            (&[60_000, 120_000, 182_000], None),
            // Too short and too long.
            (&[15_000, 30_000, 45_000], None),
            (&[300_000, 600_000, 900_000], None),
        ];
        for (ends, expected) in table {
            assert_eq!(after(ends), expected, "{ends:?}");
        }
    }

    #[test]
    fn an_end_that_does_not_come_is_expected_no_more_until_one_comes() {
        let at = |seconds| Instant::from_start(Duration::from_secs(seconds));
        let mut ages = Ages::default();
        [60, 120, 180].into_iter().for_each(|end| ages.on_end(at(end)));
        ages.on_doubted();
        assert_eq!(ages.doubted_at(), None);
        ages.on_end(at(240));
        assert_eq!(ages.doubted_at(), Some(at(300) - LEAD));
        ages.on_doubted();
        ages.on_end(at(400));
        assert_eq!(ages.doubted_at(), None, "a different age");
    }
}
