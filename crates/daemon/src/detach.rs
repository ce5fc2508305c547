//! Starts a daemon that outlives the terminal it was started from.

use std::io;
use std::process::{Child, Command};

/// Starts the command in a new session, so that neither Ctrl-C nor closing the terminal reaches it. The caller sets its
/// standard streams.
///
/// # Errors
///
/// Those of starting a process.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    overlay_os::process::spawn_detached(command)
}
