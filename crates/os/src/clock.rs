//! The daemon's clock: CLOCK_BOOTTIME.
//!
//! It includes the time that the machine was suspended, unlike CLOCK_MONOTONIC behind [`std::time::Instant`]. A session
//! from before a night's suspend must be dead, not three minutes old.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since the machine was started, including suspend. It never goes backwards.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel never reports a negative time since boot.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_advances_and_agrees_with_proc_uptime() {
        let before = boottime();
        let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc is mounted");
        let after = boottime();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(after > before);
        // /proc/uptime shows no more than hundredths of a second.
        assert!(before.as_secs_f64() - 0.02 <= uptime && uptime <= after.as_secs_f64() + 0.02);
    }
}
