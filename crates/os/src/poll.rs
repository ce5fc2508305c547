//! Waiting for packets, for a deadline, or for another thread.
//!
//! The engine thread sleeps in one [`Poller`], which watches its sockets, its TUN device, a [`Timer`] that holds the
//! node's next deadline, and a [`Waker`] through which other threads announce commands. All of them are
//! level-triggered: a source that was not fully read wakes the thread again.

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

/// The most ready sources that one [`Poller::wait`] reports. The next call reports the rest.
const EVENTS_MAX: usize = 16;

/// A set of file descriptors that can be waited for together (epoll).
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Creates an empty set.
    ///
    /// # Errors
    /// Fails if the process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `source` for readability and reports it as `token`, until it is closed or [`Poller::remove`]d.
    ///
    /// # Errors
    /// `AlreadyExists` if it is already watched. `PermissionDenied` for files that cannot be waited for, such as
    /// regular files.
    pub fn add(&self, source: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// Stops watching `source`.
    ///
    /// # Errors
    /// `NotFound` if it was not watched.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Switches reports of readability for `source` on, as after [`Poller::add`], or off. While they are off, `source`
    /// is reported only when it is broken, and not every kind of source reports that by itself.
    ///
    /// # Errors
    /// `NotFound` if it is not watched.
    pub fn set_reading(&self, source: &impl AsFd, token: u64, is_reading: bool) -> io::Result<()> {
        self.set_interest(source, token, is_reading, false)
    }

    /// Chooses what `source` is reported for: that it can be read, as after [`Poller::add`], that it can be written, both, or
    /// neither.
    ///
    /// # Errors
    /// `NotFound` if it is not watched.
    pub fn set_interest(&self, source: &impl AsFd, token: u64, is_reading: bool, is_writing: bool) -> io::Result<()> {
        let when = |is_wanted, flag| if is_wanted { flag } else { epoll::EventFlags::empty() };
        let flags = when(is_reading, epoll::EventFlags::IN) | when(is_writing, epoll::EventFlags::OUT);
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits until something can be read, for at most `timeout`, or without a limit. Yields the tokens of the ready
    /// sources, and none after the timeout or a signal. Use a [`Timer`] for deadlines: this timeout does not count
    /// suspend.
    ///
    /// # Errors
    /// None for a correct caller.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = u64> + Clone + use<>> {
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
    /// The deadline last passed to the kernel, so that an unchanged deadline costs no system call.
    armed: Cell<Option<Duration>>,
}

impl Timer {
    /// Creates a timer without a deadline.
    ///
    /// # Errors
    /// Fails if the process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer, armed: Cell::new(None) })
    }

    /// Replaces the deadline. The timer becomes readable when the clock reaches it: at once if it has passed, never for
    /// `None`. Setting the same deadline again costs nothing.
    ///
    /// # Errors
    /// None for a correct caller.
    pub fn set(&self, deadline: Option<Duration>) -> io::Result<()> {
        if self.armed.get() == deadline {
            return Ok(());
        }
        // A value of zero would disarm the timer.
        let value = deadline.map_or(Duration::ZERO, |deadline| deadline.max(Duration::from_nanos(1)));
        let setting = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        self.armed.set(deadline);
        Ok(())
    }

    /// Resets the timer after it expired, so that it is no longer readable and has no deadline.
    ///
    /// # Errors
    /// None for a correct caller.
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

/// Wakes a thread that waits in a [`Poller`], from any thread (eventfd). All clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Creates a waker that is not yet readable.
    ///
    /// # Errors
    /// Fails if the process or the machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?) })
    }

    /// Makes the waker readable. Waking it twice has the same effect as once.
    pub fn wake(&self) {
        // The only possible error is a counter at its maximum (2^64 - 2), and then the waker is already readable.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Makes the waker unreadable until the next [`Waker::wake`]. Call this before looking for work, not after.
    pub fn clear(&self) {
        // The only possible error is that the waker was not readable.
        let _ = drain(&self.event);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Reads and resets the counter of a timerfd or eventfd. Returns whether there was anything to read.
fn drain(fd: impl AsFd) -> io::Result<bool> {
    match rustix::io::read(fd, &mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        // The clock was set discontinuously. That cannot happen to this clock, and if it did it would count as an
        // expiry.
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
