//! The round trip of one pair (RFC 6298), and how long an answer may take.

use std::time::Duration;

/// The shortest and the longest wait for an answer to a probe.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// The wait while nothing is known (RFC 6298 section 2.1).
const UNKNOWN: Duration = Duration::from_secs(1);

/// What is known of the round trip.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    known: Option<(Duration, Duration)>,
    least: Option<Duration>,
}

impl RoundTrip {
    /// Takes the time between a probe and its reply.
    pub(crate) fn on_sample(&mut self, sample: Duration) {
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        self.known = Some(match self.known {
            None => (sample, sample / 2),
            Some((smooth, variation)) => ((smooth * 7 + sample) / 8, (variation * 3 + smooth.abs_diff(sample)) / 4),
        });
    }

    /// The smoothed round trip.
    pub(crate) fn smooth(self) -> Option<Duration> {
        self.known.map(|(smooth, _)| smooth)
    }

    /// The shortest round trip ever seen: queues add to the others.
    pub(crate) fn least(self) -> Option<Duration> {
        self.least
    }

    /// How long to wait for an answer.
    pub(crate) fn patience(self) -> Duration {
        self.known.map_or(UNKNOWN, |(smooth, variation)| (smooth + variation * 4).clamp(PATIENCE.0, PATIENCE.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn patience_follows_the_round_trip_and_its_variation_within_bounds() {
        let mut trip = RoundTrip::default();
        assert_eq!((trip.smooth(), trip.patience()), (None, ms(1_000)));
        trip.on_sample(ms(80));
        assert_eq!((trip.smooth(), trip.patience()), (Some(ms(80)), ms(80 + 4 * 40)));
        for _ in 0..50 {
            trip.on_sample(ms(80));
        }
        assert_eq!(trip.patience(), ms(100), "at least");
        trip.on_sample(ms(9_000));
        assert_eq!((trip.patience(), trip.least()), (ms(3_000), Some(ms(80))), "at most");
    }
}
