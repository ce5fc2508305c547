//! Waiting for a condition, with a deadline. Tests never sleep for a "long enough" time.

use std::thread;
use std::time::{Duration, Instant};

/// Enough for anything that takes milliseconds on an idle machine but may take seconds on a busy one.
pub const SHORTLY: Duration = Duration::from_secs(20);
/// What is promised within a second. A machine that is busy with other things may take half a second more.
pub const A_SECOND: Duration = Duration::from_millis(1_500);
/// How long a daemon that was asked to end may take: less than half of what would make a service manager kill it.
pub const ENDED: Duration = Duration::from_secs(10);
/// Only a hang takes longer: a transfer of megabytes through the tunnel, or the start of a daemon with 10,000 peers.
pub const AT_LENGTH: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for: short beside anything that is measured, and no load for the machine.
pub const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` every [`POLL`] until it answers, and gives its answer back.
///
/// # Panics
/// Panics when `limit` has passed. `what` completes the message "waited 20 s for ...".
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", limit.as_secs());
        thread::sleep(POLL);
    }
}
