//! The wall clock, and detecting that it was set.
//!
//! Two clocks run side by side: CLOCK_BOOTTIME, which cannot be set ([`crate::clock`]), and the wall clock. The
//! difference between them changes only when the wall clock is set. If NTP makes the wall clock run a little faster,
//! CLOCK_BOOTTIME runs faster too. So if the difference has changed, the clock was set. The kernel tells us when to
//! look (TFD_TIMER_CANCEL_ON_SET). A look at any other time detects it too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::boottime;

/// Differences below this are ignored: a thread that is interrupted between reading the two clocks can see as much.
const NOTICEABLE_NANOS: i128 = 100_000_000;
/// How many times both clocks are read. The quickest reading counts.
const READINGS: usize = 3;

/// The difference between the wall clock and CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallOffset {
    nanos: i128,
}

/// How far the wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was set to a later time.
    Forward(Duration),
    /// It was set to an earlier time.
    Back(Duration),
}

impl WallOffset {
    /// The current difference.
    pub fn now() -> Self {
        let reading = || {
            let before = boottime();
            let wall = SystemTime::now();
            let after = boottime();
            let wall = match wall.duration_since(UNIX_EPOCH) {
                Ok(since) => nanos(since),
                Err(before) => -nanos(before.duration()),
            };
            (after.saturating_sub(before), wall - nanos(before))
        };
        let quickest = (0..READINGS).map(|_| reading()).min();
        Self { nanos: quickest.map_or(0, |(_, nanos)| nanos) }
    }

    /// The difference after such a step.
    pub fn moved(self, step: Step) -> Self {
        let by = match step {
            Step::Forward(by) => nanos(by),
            Step::Back(by) => -nanos(by),
        };
        Self { nanos: self.nanos + by }
    }

    /// How far the wall clock was set between this offset and `later`. `None` if it was not set.
    pub fn step_to(self, later: Self) -> Option<Step> {
        let difference = later.nanos - self.nanos;
        let by = Duration::from_nanos(difference.unsigned_abs().try_into().unwrap_or(u64::MAX));
        match difference {
            NOTICEABLE_NANOS.. => Some(Step::Forward(by)),
            _ if difference <= -NOTICEABLE_NANOS => Some(Step::Back(by)),
            _ => None,
        }
    }
}

/// Becomes readable when the wall clock is set.
#[derive(Debug)]
pub struct WallWatch {
    timer: OwnedFd,
    offset: WallOffset,
}

impl WallWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// Fails if the process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // A date that never comes. The timer exists only to be cancelled.
        let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &setting)?;
        Ok(Self { timer, offset: WallOffset::now() })
    }

    /// Makes the watch unreadable again.
    pub fn clear(&self) {
        // ECANCELED means that the clock was set. The timer keeps watching.
        let answer = rustix::io::read(&self.timer, &mut [0; 8]);
        debug_assert!(matches!(answer, Err(Errno::CANCELED | Errno::AGAIN)), "{answer:?}");
    }

    /// How far the clock was set since the last call. It reads two clocks three times, without a system call.
    pub fn take_step(&mut self) -> Option<Step> {
        let now = WallOffset::now();
        let step = self.offset.step_to(now)?;
        self.offset = now;
        Some(step)
    }
}

impl AsFd for WallWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn nanos(duration: Duration) -> i128 {
    // The value is below 2^94 + 2^30.
    duration.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Poller;

    const DAY: i128 = 86_400_000_000_000;

    fn at(nanos: i128) -> WallOffset {
        WallOffset { nanos }
    }

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_was_read_late() {
        let day = Duration::from_secs(86_400);
        for (before, after, step) in [
            (0, DAY, Some(Step::Forward(day))),
            (DAY, 0, Some(Step::Back(day))),
            (DAY, -DAY, Some(Step::Back(2 * day))),
            (5, 5, None),
            (0, 99_999_999, None),
            (0, 100_000_000, Some(Step::Forward(Duration::from_millis(100)))),
            (0, -99_999_999, None),
            (0, -100_000_000, Some(Step::Back(Duration::from_millis(100)))),
        ] {
            assert_eq!(at(before).step_to(at(after)), step, "{before} {after}");
        }
    }

    #[test]
    fn small_steps_add_up_and_each_is_told_once() {
        let mut watch = WallWatch::new().unwrap();
        watch.offset = at(WallOffset::now().nanos - 3 * NOTICEABLE_NANOS);
        let Some(Step::Forward(by)) = watch.take_step() else { panic!("it was set") };
        assert!(by.abs_diff(Duration::from_millis(300)) < Duration::from_millis(50), "{by:?}");
        assert_eq!(watch.take_step(), None, "once");
        watch.offset.nanos -= 60_000_000;
        assert_eq!(watch.take_step(), None);
        watch.offset.nanos -= 60_000_000;
        assert!(watch.take_step().is_some(), "what was not told is not forgotten");
    }

    /// That it wakes when the clock is set cannot be tested without setting this machine's clock.
    #[test]
    fn it_is_silent_while_nobody_sets_the_clock() {
        let (watch, mut poller) = (WallWatch::new().unwrap(), Poller::new().unwrap());
        poller.add(&watch, 7).unwrap();
        assert_eq!(poller.wait(Some(Duration::from_millis(20))).unwrap().count(), 0);
        watch.clear();
        let now = WallOffset::now().nanos + nanos(boottime());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        assert!((now - wall).abs() < NOTICEABLE_NANOS, "{now} {wall}");
    }
}
