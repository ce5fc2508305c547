//! Both clocks of the machine, as the registry wants them.

use std::time::{SystemTime, UNIX_EPOCH};

use overlay_rendezvous::now::Now;

/// Reads both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { unix: unix.as_millis().try_into().unwrap_or(u64::MAX), monotonic: overlay_os::clock::boottime() }
}
