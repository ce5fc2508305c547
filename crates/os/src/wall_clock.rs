//! The wall clock, and noticing that it was set.
//!
//! Two clocks run side by side: CLOCK_BOOTTIME, which nobody sets ([`crate::clock`]), and the wall clock. The difference
//! between them changes when somebody sets the wall clock and at no other time: where NTP only makes it run a little
//! faster, both do. So a clock that was set is a difference that changed. The kernel says when to look
//! (TFD_TIMER_CANCEL_ON_SET); whoever looks at other times too notices without it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::boottime;

/// Less than this is no step: a thread that was interrupted between reading two clocks sees as much.
const NOTICEABLE_NANOS: i128 = 100_000_000;
/// Readings of both clocks, of which the quickest counts.
const READINGS: usize = 3;

/// How far the wall clock is from the clock that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallOffset {
    nanos: i128,
}

/// How far the wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is later than it was thought to be.
    Forward(Duration),
    /// It is earlier.
    Back(Duration),
}

impl WallOffset {
    /// What it is now.
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

    /// What it is after such a step.
    pub fn moved(self, step: Step) -> Self {
        let by = match step {
            Step::Forward(by) => nanos(by),
            Step::Back(by) => -nanos(by),
        };
        Self { nanos: self.nanos + by }
    }

    /// How far the wall clock was set between this moment and `later`. `None`: it was not.
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

/// Becomes readable when somebody sets the wall clock.
#[derive(Debug)]
pub struct WallWatch {
    timer: OwnedFd,
    offset: WallOffset,
}

impl WallWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// The process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // A date that never comes: the timer is there to be cancelled.
        let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &setting)?;
        Ok(Self { timer, offset: WallOffset::now() })
    }

    /// Takes note that it was readable: it is no longer.
    pub fn clear(&self) {
        // That the clock was set is the answer; it goes on watching.
        let answer = rustix::io::read(&self.timer, &mut [0; 8]);
        debug_assert!(matches!(answer, Err(Errno::CANCELED | Errno::AGAIN)), "{answer:?}");
    }

    /// How far the clock was set since this was last asked. Three readings of two clocks, and no system call.
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
    // Below 2^94 + 2^30.
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

    /// That it wakes when the clock is set cannot be tried without setting the clock of this machine.
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
