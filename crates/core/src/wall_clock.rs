//! The wall clock, as far as handshakes need it: their timestamps (TAI64N) are its time, and never go back.
//!
//! A peer takes no handshake whose timestamp is not later than the last one it took. So two things are wanted of ours
//! when somebody sets the clock. Set forward, they follow: the peer may have heard a later time from us in an earlier
//! life. Set back, they go on as if nothing had happened, and *run ahead* of the clock from then on: the peer has heard
//! the later time already. A step forward first makes up for that.
//!
//! The session engine takes the wall clock's time at the moment it is made, and counts on from there by the clock it is
//! lent. So timestamps follow by making another engine for the next handshake ([`Origin`]); an *era* begins with every
//! step, and an engine of an earlier era makes no handshakes. The steps themselves are told by the shell, which notices
//! them a moment later than they happen.

use std::time::Duration;

use crate::Instant;

/// No step is believed to be longer, in all: 100 years, which is less than the lent clock leaves room for.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How far somebody has set the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallStep {
    /// It is later than it was.
    Forward(Duration),
    /// It is earlier.
    Back(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// See [`crate::NodeConfig::wall_anchor`].
    anchor: Option<Instant>,
    /// How far timestamps run ahead of the wall clock.
    ahead: Duration,
    /// How far steps have taken timestamps forward in all.
    gained: Duration,
    era: u32,
}

/// Where the time of a session engine begins that is made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The engine is made so long before `at`, on the clock that it is lent.
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

    pub(crate) fn era(&self) -> u32 {
        self.era
    }

    pub(crate) fn origin(&self, now: Instant) -> Origin {
        match self.anchor {
            None => Origin { at: now, before: self.ahead, era: self.era },
            // The engine's idea of the wall clock stands still, so every step counts in all.
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

    /// How far timestamps run ahead of the wall clock, and how far they have come by steps alone, after these.
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
        assert_eq!(after(&[Back(far), Back(far)]), (LONGEST, Duration::ZERO));
        assert_eq!(after(&[Forward(far), Forward(far)]), (Duration::ZERO, LONGEST));
    }
}
