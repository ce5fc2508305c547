//! Dates for users, which follow the wall clock when somebody sets it.
//!
//! A date that was taken while the clock was wrong would stay wrong after the clock is corrected: a handshake a moment
//! ago would appear to be from yesterday. A date therefore records the offset between the wall clock and the clock that
//! nobody sets, and is shown with the offset at the time of reading.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_core::Instant;
use overlay_os::wall_clock::{Step, WallOffset};

use crate::engine::now;

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub struct Date {
    wall: SystemTime,
    taken: WallOffset,
}

impl Date {
    /// Returns the current time.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// Creates a date from a current reading of the wall clock.
    pub(crate) fn of(wall: SystemTime) -> Self {
        Self { wall, taken: WallOffset::now() }
    }

    /// Returns the time since the beginning of 1970, according to the current wall clock. Zero for earlier dates.
    pub(crate) fn since_1970(&self) -> Duration {
        self.since_1970_by(WallOffset::now())
    }

    fn since_1970_by(&self, offset: WallOffset) -> Duration {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.taken.step_to(offset) {
            None => since,
            Some(Step::Forward(by)) => since.saturating_add(by),
            Some(Step::Back(by)) => since.saturating_sub(by),
        }
    }
}

/// Converts an instant of the engine's clock to wall-clock time.
pub(crate) fn wall_clock_of(at: Instant) -> SystemTime {
    SystemTime::now() - now().since(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_follows_a_clock_that_is_set() {
        let day = Duration::from_secs(86_400);
        let date = Date::of(UNIX_EPOCH + 10 * day);
        assert_eq!(date.since_1970(), 10 * day, "to the nanosecond while nobody sets it");
        let (later, earlier) = (date.taken.moved(Step::Forward(day)), date.taken.moved(Step::Back(11 * day)));
        assert_eq!(date.since_1970_by(later), 11 * day);
        assert_eq!(date.since_1970_by(earlier), Duration::ZERO);
    }
}
