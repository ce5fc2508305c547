//! A file descriptor of our own that tokio waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers the descriptor to be waited for until there is something to read. Must be called on a tokio runtime.
///
/// # Errors
/// It cannot be waited for, or the process has no file descriptors left.
pub(crate) fn wait_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and names the same file, until it is dropped; `AsyncFd` lends it out shared only, and
    // takes it off the poller before it drops it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}
