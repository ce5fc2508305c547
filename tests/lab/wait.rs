//! Waiting for something to become true, with a deadline. A test never sleeps for "long enough".

use std::thread;
use std::time::{Duration, Instant};

/// Enough for anything that takes milliseconds on an idle machine and may take seconds on a busy one.
pub const SHORTLY: Duration = Duration::from_secs(20);

/// Asks `condition` every 20 ms until it answers, and gives its answer back.
///
/// # Panics
/// When `limit` has passed; `what` completes "waited 20 s for ...".
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
