//! What each process of names does first: it takes the daemon's socket, and gives up every privilege.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use overlay_os::privileges;

use crate::failure::{ExitKind, Failure};

/// Returns the socket to the daemon.
///
/// # Errors
/// The standard input is not such a socket, or privileges cannot be given up.
pub(super) fn begin() -> Result<UnixStream, Failure> {
    let stream = inherited().map_err(failed("this verb is started by `overlay up`, not by people"))?;
    privileges::harden().map_err(failed("core dumps of this process could not be switched off"))?;
    privileges::keep_only(&[], &[]).map_err(failed("privileges could not be given up"))?;
    Ok(stream)
}

/// Makes a failure of an error.
pub(super) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::new(ExitKind::Other, what).with_cause(error)
}

fn inherited() -> io::Result<UnixStream> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A file or a terminal has no other end.
    stream.peer_addr()?;
    Ok(stream)
}
