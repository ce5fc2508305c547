//! The time for signed objects and for the client of the rendezvous.

use std::time::{SystemTime, UNIX_EPOCH};

use overlay_rendezvous::now::Now;

/// Both clocks.
pub(super) fn now() -> Now {
    Now { unix: unix_now(), monotonic: overlay_os::clock::boottime() }
}

/// Milliseconds since 1970.
pub(super) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
