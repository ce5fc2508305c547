//! Sockets that the service manager made and handed over: sd_listen_fds(3).
//!
//! They begin at file descriptor 3, and the environment says how many there are and what they are called.

use std::env;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first file descriptor that is handed over.
const FIRST: i32 = 3;
/// More than this is not believed.
const MAX_HANDED_OVER: i32 = 64;

/// The listening unix socket that was handed over under this name. It can be taken once.
pub fn take_listener(name: &str) -> Option<UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_for_us = env::var("LISTEN_PID").ok()?.parse() == Ok(std::process::id());
    let count: i32 = env::var("LISTEN_FDS").ok()?.parse().ok()?;
    let names = env::var("LISTEN_FDNAMES").ok()?;
    let at = position(&names, name, count)?;
    if !is_for_us || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the service manager opened it for this process, and nobody else takes it: this happens once.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST + at) };
    fcntl_setfd(&socket, FdFlags::CLOEXEC).ok()?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

/// Which of the `count` sockets with these names, parted by colons, is called so.
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
