//! The wall clock, as far as handshakes need it: their timestamps (TAI64N) follow it and never go back.
//!
//! A peer accepts a handshake only if its timestamp is later than the last one it accepted. This requires two things
//! when somebody sets the clock. If the clock is set forward, timestamps follow it, because before a restart we may
//! have sent the peer a later time. If it is set back, timestamps continue as if nothing had happened, and from then on
//! they *run ahead* of the clock, because the peer has already seen the later time. A later step forward makes up for
//! that first.
//!
//! A node that ends in order says how far ahead its timestamps ran ([`crate::HandOver`]), and the next one begins from
//! there. A node that was killed says nothing. If its clock had been set back, peers refuse the next one as a replay until
//! the clock passes the last timestamp that they saw, or until they have been restarted.
//!
//! The session engine reads the wall clock when it is created and counts on from there by the clock that it is given.
//! Timestamps therefore follow a step only in a new engine, created for the next handshake ([`Origin`]). An *era*
//! begins with every step, and an engine of an earlier era makes no further handshakes. The shell reports the steps and
//! notices them a moment after they happen.

use std::time::Duration;

use crate::Instant;

/// The largest sum of steps that is believed: 100 years, which is less than the clock of the engine has room for.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallStep {
    /// The clock was set to a later time.
    Forward(Duration),
    /// The clock was set to an earlier time.
    Back(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// See [`crate::NodeConfig::wall_anchor`].
    anchor: Option<Instant>,
    /// How far timestamps run ahead of the wall clock.
    ahead: Duration,
    /// How far all steps together have moved timestamps forward.
    gained: Duration,
    era: u32,
}

/// The starting point of the time in a session engine that is created now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// On the clock that the engine is given, it is created `before` earlier than `at`.
    pub(crate) at: Instant,
    pub(crate) before: Duration,
    pub(crate) era: u32,
}

impl WallClock {
    pub(crate) fn new(anchor: Option<Instant>) -> Self {
        Self { anchor, ahead: Duration::ZERO, gained: Duration::ZERO, era: 0 }
    }

    pub(crate) fn on_step(&mut self, step: WallStep) {
        self.era = self.era.wrapping_add(1);
        match step {
            WallStep::Back(by) => self.ahead = (self.ahead + by.min(LONGEST)).min(LONGEST),
            WallStep::Forward(by) => {
                self.gained = (self.gained + by.min(LONGEST).saturating_sub(self.ahead)).min(LONGEST);
                self.ahead = self.ahead.saturating_sub(by);
            }
        }
    }

    /// Makes timestamps run at least this far ahead of the wall clock.
    pub(crate) fn run_ahead(&mut self, by: Duration) {
        let more = by.min(LONGEST).saturating_sub(self.ahead);
        self.ahead += more;
        self.gained = (self.gained + more).min(LONGEST);
        self.era = self.era.wrapping_add(1);
    }

    /// How far timestamps run ahead of the wall clock.
    pub(crate) fn ahead(&self) -> Duration {
        self.ahead
    }

    pub(crate) fn era(&self) -> u32 {
        self.era
    }

    pub(crate) fn origin(&self, now: Instant) -> Origin {
        match self.anchor {
            None => Origin { at: now, before: self.ahead, era: self.era },
            // The engine's wall clock stands still, so the steps add up.
            Some(anchor) => Origin { at: anchor, before: self.gained, era: self.era },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_start(Duration::from_secs(1_000));

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(3_600 * hours)
    }

    /// Returns how far timestamps run ahead of the wall clock after these steps, and how far steps alone have moved
    /// them forward.
    fn after(steps: &[WallStep]) -> (Duration, Duration) {
        let (mut real, mut simulated) = (WallClock::new(None), WallClock::new(Some(Instant::default())));
        for step in steps {
            real.on_step(*step);
            simulated.on_step(*step);
        }
        (real.origin(NOW).before, simulated.origin(NOW).before)
    }

    #[test]
    fn timestamps_follow_a_clock_that_is_set_forward_and_stay_ahead_of_one_that_is_set_back() {
        use WallStep::{Back, Forward};
        for (steps, ahead, gained) in [
            (&[][..], 0, 0),
            (&[Forward(hours(24))], 0, 24),
            (&[Back(hours(24))], 24, 0),
            (&[Back(hours(24)), Forward(hours(24))], 0, 0),
            (&[Back(hours(24)), Forward(hours(1))], 23, 0),
            (&[Back(hours(1)), Forward(hours(24))], 0, 23),
            (&[Forward(hours(24)), Back(hours(24))], 24, 24),
            (&[Back(hours(2)), Back(hours(3))], 5, 0),
        ] {
            assert_eq!(after(steps), (hours(ahead), hours(gained)), "{steps:?}");
        }
        let far = Duration::from_secs(u64::MAX / 2);
        for anchor in [None, Some(Instant::default())] {
            let mut next = WallClock::new(anchor);
            next.run_ahead(hours(24));
            next.run_ahead(hours(1));
            assert_eq!((next.ahead(), next.origin(NOW).before), (hours(24), hours(24)));
            next.on_step(Forward(hours(23)));
            assert_eq!(
                (next.ahead(), next.origin(NOW).before),
                (hours(1), hours(if anchor.is_some() { 24 } else { 1 }))
            );
            next.run_ahead(far);
            assert_eq!(next.ahead(), LONGEST);
        }
        assert_eq!(after(&[Back(far), Back(far)]), (LONGEST, Duration::ZERO));
        assert_eq!(after(&[Forward(far), Forward(far)]), (Duration::ZERO, LONGEST));
    }
}
