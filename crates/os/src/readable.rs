//! Waiting with tokio for a file descriptor of our own.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers the descriptor to be waited for until it is readable. Must be called on a tokio runtime.
///
/// # Errors
/// Fails if the descriptor cannot be waited for, or if the process has no file descriptors left.
pub(crate) fn wait_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    wait(fd, Interest::READABLE)
}

/// As [`wait_readable`], for whatever `interest` says.
///
/// # Errors
/// As [`wait_readable`].
pub(crate) fn wait(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and refers to the same file until it is dropped. `AsyncFd` lends it out only as a
    // shared reference, and deregisters it from the poller before dropping it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}
