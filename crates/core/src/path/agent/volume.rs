//! How much was sent or received lately.

use std::time::Duration;

use crate::Instant;

/// What there was in the last one or two spans: bytes, or datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume {
    span: Duration,
    since: Instant,
    amount: u64,
    before: u64,
}

impl Volume {
    pub(super) fn over(span: Duration) -> Self {
        Self { span, since: Instant::default(), amount: 0, before: 0 }
    }

    pub(super) fn add(&mut self, amount: usize, now: Instant) {
        let passed = now.since(self.since);
        if passed >= self.span {
            self.before = if passed < self.span * 2 { self.amount } else { 0 };
            (self.since, self.amount) = (now, 0);
        }
        self.amount += amount as u64;
    }

    /// How much there was in the present span or in the one before it, whichever is more.
    pub(super) fn recent(self, now: Instant) -> u64 {
        if now.since(self.since) < self.span * 2 { self.before.max(self.amount) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_counts_for_two_spans_at_most() {
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let mut volume = Volume::over(Duration::from_secs(1));
        volume.add(70, at(5_000));
        volume.add(30, at(5_900));
        assert_eq!(volume.recent(at(5_900)), 100);
        volume.add(1, at(6_500));
        assert_eq!(volume.recent(at(6_600)), 100);
        volume.add(2, at(7_600));
        assert_eq!(volume.recent(at(7_600)), 2);
        assert_eq!(volume.recent(at(9_600)), 0);
    }
}
