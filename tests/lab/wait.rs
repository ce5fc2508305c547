//! Waiting for a condition, with a deadline. Tests never sleep for a "long enough" time.

use std::thread;
use std::time::{Duration, Instant};

/// Enough for anything that takes milliseconds on an idle machine but may take seconds on a busy one.
pub const SHORTLY: Duration = Duration::from_secs(20);

/// Calls `condition` every 20 ms until it returns a value, and returns that value.
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
        thread::sleep(Duration::from_millis(20));
    }
}
