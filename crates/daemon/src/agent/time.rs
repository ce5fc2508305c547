//! The time for signed objects and for the client of the rendezvous, and the time that ends grants.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_rendezvous::now::Now;

/// Both clocks.
pub(super) fn now() -> Now {
    Now { unix: unix_now(), monotonic: overlay_os::clock::boottime() }
}

/// Milliseconds since 1970.
pub(super) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    milliseconds(since)
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The latest time that this host has reached. It goes on while the wall clock is set back, and after a reboot it begins at the
/// mark that was written before. So a grant that has ended stays ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct HighWater {
    reached: u64,
    /// When that was, by the monotonic clock.
    at: Duration,
    /// What is on disk.
    mark: u64,
}

/// How far the mark on disk may lag behind, in milliseconds.
const LAG: u64 = 60_000;

impl HighWater {
    /// Begins at the mark that was written last, or now.
    pub(super) fn new(mark: Option<u64>, now: Now) -> Self {
        let mark = mark.unwrap_or_default();
        Self { reached: now.unix.max(mark), at: now.monotonic, mark }
    }

    pub(super) fn read(&self, now: Now) -> u64 {
        let passed = milliseconds(now.monotonic.saturating_sub(self.at));
        now.unix.max(self.reached.saturating_add(passed))
    }

    /// Notes the time, so that it is known when the wall clock is set back.
    pub(super) fn note(&mut self, now: Now) {
        (self.reached, self.at) = (self.read(now), now.monotonic);
    }

    /// The time that was noted last.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// Whether the mark on disk is so old that it has to be written while a grant has an end.
    pub(super) fn lags(&self) -> bool {
        self.reached >= self.mark.saturating_add(LAG)
    }

    pub(super) fn on_written(&mut self, mark: u64) {
        self.mark = mark;
    }
}

/// A time in milliseconds since 1970 as RFC 3339 writes it, in UTC and in whole seconds: `2026-11-28T12:00:00Z`.
pub(crate) fn rfc3339(milliseconds: u64) -> String {
    let (days, time) = (milliseconds / 86_400_000, milliseconds / 1_000 % 86_400);
    // Years begin in March here, so that the leap day is the last. 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const START: u64 = 20_000 * DAY;

    fn at(unix: u64, seconds: u64) -> Now {
        Now { unix, monotonic: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_nothing() {
        let mut time = HighWater::new(None, at(START, 100));
        assert_eq!(time.read(at(START + 5_000, 105)), START + 5_000);
        time.note(at(START + 5_000, 105));
        assert_eq!(time.read(at(START - DAY, 107)), START + 7_000, "it goes on by the monotonic clock");
        time.note(at(START - DAY, 107));
        assert_eq!(time.read(at(START - DAY, 110)), START + 10_000);
        assert_eq!(time.read(at(START + DAY, 110)), START + DAY, "a clock that is set forward counts");
    }

    #[test]
    fn a_reboot_with_a_clock_set_back_begins_at_the_mark() {
        let mut time = HighWater::new(None, at(START, 100));
        assert!(time.lags(), "nothing is on disk yet");
        time.on_written(START);
        time.note(at(START + 59_999, 159));
        assert!(!time.lags());
        time.note(at(START + 60_000, 160));
        assert!(time.lags());
        let time = HighWater::new(Some(time.reached()), at(START - 400 * DAY, 3));
        assert_eq!(time.read(at(START - 400 * DAY + 1_000, 4)), START + 61_999);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (at, text) in cases {
            assert_eq!(rfc3339(at), text);
        }
    }
}
