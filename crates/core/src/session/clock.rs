//! The clock that `Tunn` is lent, through the thread.
//!
//! It has run for long when ours starts, so that a `Tunn` can be made as of a moment before that: its timestamps count from
//! the moment it is made as of ([`Origin`]).

use std::time::Duration;

use mock_instant::MockClock;

use crate::Instant;
use crate::wall_clock::Origin;

/// What it shows when ours starts: more than an [`Origin`] ever lies before that.
const BEGAN: Duration = Duration::from_secs(200 * 365 * 86_400);

pub(super) fn set_clock(now: Instant) {
    MockClock::set_time(BEGAN + now.since_start());
}

pub(super) fn set_clock_to(origin: Origin) {
    MockClock::set_time((BEGAN + origin.at.since_start()).saturating_sub(origin.before));
}
