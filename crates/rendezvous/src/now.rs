//! The time, which the caller tells with every call.
//!
//! Signed objects speak of the wall clock, which may step. Leases, quotas and pings count on a clock that never goes
//! backwards. A caller reads both at once.

use std::time::Duration;

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, by the wall clock.
    pub unix: u64,
    /// The time since an arbitrary start. It never goes backwards.
    pub monotonic: Duration,
}

impl Now {
    /// The monotonic time at which the wall clock will show `unix`, unless somebody sets it.
    pub(crate) fn until(self, unix: u64) -> Duration {
        self.monotonic.saturating_add(Duration::from_millis(unix.saturating_sub(self.unix)))
    }
}
