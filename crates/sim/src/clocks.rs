//! The two clocks of an agent or relay: the world's, and a wall clock that runs beside it.

use overlay_core::Instant;
use overlay_rendezvous::now::Now;

/// What the wall clock shows when the other one shows zero, in milliseconds since 1970.
const UNIX_START: u64 = 1_800_000_000_000;

/// Both clocks at this moment.
pub(crate) fn both(at: Instant) -> Now {
    let monotonic = at.since_start();
    Now { unix: UNIX_START + monotonic.as_millis() as u64, monotonic }
}
