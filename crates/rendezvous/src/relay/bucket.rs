//! How often something may happen: so many times a second, and so many at once after a pause.
//!
//! A bucket is the moment at which it is full again (the generic cell rate algorithm). A full bucket need not be kept.

use std::time::Duration;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// The time that one unit costs.
    pub(super) interval: Duration,
    /// How much time may be owed.
    pub(super) burst: Duration,
}

impl Rate {
    /// `per_second` times a second, not 0, and `at_once` times after a pause.
    pub(super) const fn times(per_second: u32, at_once: u32) -> Self {
        let interval = Duration::from_nanos(1_000_000_000 / per_second as u64);
        Self { interval, burst: Duration::from_nanos(interval.as_nanos() as u64 * at_once as u64) }
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one unit, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + rate.interval;
        let has_room = full_at <= now + rate.burst;
        if has_room {
            self.full_at = full_at;
        }
        has_room
    }

    /// Takes what costs this time, although there may be less. [`Bucket::ready_at`] says when it is paid.
    pub(super) fn charge(&mut self, cost: Duration, now: Duration) {
        self.full_at = self.full_at.max(now) + cost;
    }

    /// From when on something can be charged.
    pub(super) fn ready_at(&self, burst: Duration) -> Duration {
        self.full_at.saturating_sub(burst)
    }

    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let (rate, mut bucket) = (Rate::times(10, 3), Bucket::default());
        let now = Duration::from_secs(5);
        assert_eq!([(); 4].map(|()| bucket.take(rate, now)), [true, true, true, false]);
        let later = now + Duration::from_millis(100);
        assert_eq!([(); 2].map(|()| bucket.take(rate, later)), [true, false]);
        assert!(!bucket.is_full(later) && bucket.is_full(later + Duration::from_millis(300)));
    }
}
