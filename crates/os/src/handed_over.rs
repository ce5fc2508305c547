//! Sockets that the service manager created and passed to us: sd_listen_fds(3).
//!
//! They begin at file descriptor 3. The environment gives their number and their names.

use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first file descriptor passed by the service manager.
const FIRST: i32 = 3;
/// The largest number of sockets that we accept.
const MAX_HANDED_OVER: i32 = 64;

/// The listening unix socket that was passed under this name. It can be taken only once.
pub fn take_listener(name: &str) -> Option<UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_for_us = env::var("LISTEN_PID").ok()?.parse() == Ok(std::process::id());
    let count: i32 = env::var("LISTEN_FDS").ok()?.parse().ok()?;
    let names = env::var("LISTEN_FDNAMES").ok()?;
    let at = position(&names, name, count)?;
    if !is_for_us || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the service manager opened it for this process, and this code runs only once, so it has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST + at) };
    fcntl_setfd(&socket, FdFlags::CLOEXEC).ok()?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

/// Keeps the sockets that were passed from programs that we start.
pub fn keep_to_ourselves() {
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<i32>().ok()).unwrap_or_default();
    for fd in FIRST..FIRST + count.clamp(0, if is_for_us { MAX_HANDED_OVER } else { 0 }) {
        // SAFETY: the service manager has opened it for this process, and it is borrowed for this call alone.
        let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC);
    }
}

/// The position of `name` among the `count` names, which are separated by colons.
fn position(names: &str, name: &str, count: i32) -> Option<i32> {
    let at = i32::try_from(names.split(':').position(|other| other == name)?).ok()?;
    (at < count && count <= MAX_HANDED_OVER).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_name_among_those_that_there_are() {
        assert_eq!(position("uapi", "uapi", 1), Some(0));
        assert_eq!(position("api:uapi", "uapi", 2), Some(1));
        assert_eq!(position("api:uapi", "uapi", 1), None);
        assert_eq!(position("unknown", "uapi", 1), None);
        assert_eq!(position("uapi", "uapi", 1000), None);
    }

    #[test]
    fn nothing_was_handed_over_to_this_process() {
        assert!(take_listener("uapi").is_none());
    }
}
