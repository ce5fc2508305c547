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
}
