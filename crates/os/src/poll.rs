//! Waiting: for packets, for a deadline, for another thread.
//!
//! The engine thread sleeps in one [`Poller`], which watches its sockets, its TUN device, a [`Timer`] that holds the
//! node's next deadline and a [`Waker`] through which other threads say that there are commands. All of them are
//! level-triggered: what was not read out wakes again.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// How many ready sources one [`Poller::wait`] reports at most; the rest follow with the next one.
const EVENTS_MAX: usize = 16;

/// A set of file descriptors that can be waited for together (epoll).
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// The process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `source` for something to read and reports it as `token`. It is watched until it is closed or
    /// [`Poller::remove`]d.
    ///
    /// # Errors
    /// `AlreadyExists` when it is being watched; `PermissionDenied` for what cannot be waited for, a plain file.
    pub fn add(&self, source: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// No longer watches `source`.
    ///
    /// # Errors
    /// `NotFound` when it was not being watched.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// From now on reports `source` when there is something to read, as it did since [`Poller::add`], or no longer: then
    /// only when it is broken, and not every source tells of that by itself.
    ///
    /// # Errors
    /// `NotFound` when it is not being watched.
    pub fn set_reading(&self, source: &impl AsFd, token: u64, is_reading: bool) -> io::Result<()> {
        let flags = if is_reading { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits until something can be read, for at most `timeout`, or for ever. Yields the tokens of what is ready;
    /// none after the timeout or after a signal. Deadlines belong into a [`Timer`]: this timeout does not count suspend.
    ///
    /// # Errors
    /// None that a correct caller meets.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = u64> + use<>> {
        let timeout = timeout.map(timespec);
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS_MAX];
        let ready = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(events.map(|event| event.data.u64()).into_iter().take(ready))
    }
}

/// A deadline to wait for (timerfd), on the clock of [`crate::clock::boottime`].
#[derive(Debug)]
pub struct Timer {
    timer: OwnedFd,
    /// What the kernel was last told, so that an unchanged deadline costs no system call.
    armed: Cell<Option<Duration>>,
}

impl Timer {
    /// A timer without a deadline.
    ///
    /// # Errors
    /// The process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer, armed: Cell::new(None) })
    }

    /// Becomes readable when the clock reaches `deadline`, at once if it has, never for `None`. Replaces the deadline
    /// before it. Costs nothing when nothing changes.
    ///
    /// # Errors
    /// None that a correct caller meets.
    pub fn set(&self, deadline: Option<Duration>) -> io::Result<()> {
        if self.armed.get() == deadline {
            return Ok(());
        }
        // Zero would disarm it.
        let value = deadline.map_or(Duration::ZERO, |deadline| deadline.max(Duration::from_nanos(1)));
        let setting = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        self.armed.set(deadline);
        Ok(())
    }

    /// Takes note of an expiry: no longer readable. The timer has no deadline then.
    ///
    /// # Errors
    /// None that a correct caller meets.
    pub fn clear(&self) -> io::Result<()> {
        if drain(&self.timer)? {
            self.armed.set(None);
        }
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Wakes a thread that waits in a [`Poller`], from any thread (eventfd). Clones wake the same one.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// A waker that was not used yet.
    ///
    /// # Errors
    /// The process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?) })
    }

    /// Becomes readable. Waking twice is waking once.
    pub fn wake(&self) {
        // The one error is a counter at its end (2^64 - 2), and then it is readable already.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// No longer readable, until the next [`Waker::wake`]. To be called before the work is looked at, not after.
    pub fn clear(&self) {
        // The one error is that nobody woke it.
        let _ = drain(&self.event);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Reads out the counter of a timerfd or eventfd; whether there was anything to read.
fn drain(fd: impl AsFd) -> io::Result<bool> {
    match rustix::io::read(fd, &mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        // The clock was set discontinuously: cannot be for this clock, and is an expiry where it could.
        Err(Errno::CANCELED) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests;
