//! Starting a daemon that outlives the terminal it was started from.

use std::io;
use std::process::{Child, Command};

/// Starts the command in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it. What its
/// standard streams are is the caller's to say.
///
/// # Errors
///
/// Those of starting a process.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    overlay_os::process::spawn_detached(command)
}
