//! The thread-local clock that `Tunn` reads.
//!
//! It has already run for a long time when our clock starts, so a `Tunn` can be made as of an earlier moment. The
//! timestamps of a `Tunn` count from the moment that it is made as of ([`Origin`]).

use std::time::Duration;

use mock_instant::MockClock;

use crate::Instant;
use crate::wall_clock::Origin;

/// What this clock shows when ours starts. An [`Origin`] never lies further than this before that moment.
const BEGAN: Duration = Duration::from_secs(200 * 365 * 86_400);

pub(super) fn set_clock(now: Instant) {
    MockClock::set_time(BEGAN + now.since_start());
}

pub(super) fn set_clock_to(origin: Origin) {
    MockClock::set_time((BEGAN + origin.at.since_start()).saturating_sub(origin.before));
}
