//! A daemon in the background that reports when it is ready.
//!
//! The background half is this program again, in a session of its own and with `--json`. The one line that it prints on
//! stdout says that it is ready, or why it failed. Its stderr is the log. No secret passes between the two halves.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf, absolute};
use std::process::{Child, Command, Stdio};

use overlay_daemon::Failure;
use overlay_daemon::detach;
use overlay_daemon::failure::{ExitKind, FailureBody};
use serde::{Deserialize, Serialize};

use crate::file_failure;
use crate::session::Session;

/// The line printed with `--json` when the interface is ready.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) schema: String,
    pub(crate) status: String,
    pub(crate) pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<PathBuf>,
}

impl Ready {
    pub(crate) const SCHEMA: &'static str = "overlay.up.v1";

    pub(crate) fn now() -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            status: "ready".to_owned(),
            pid: std::process::id(),
            interface: None,
            log: None,
        }
    }
}

/// Makes a path absolute, because the background half changes to `/`.
pub(crate) fn path_from_root(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|error| file_failure("find", path, &error))
}

/// Starts the background half of a verb. `verb` includes the arguments.
pub(crate) fn spawn(session: &Session, runtime_dir: &Path, verb: &[&OsStr], log: Stdio) -> Result<Child, Failure> {
    let cannot =
        |error: std::io::Error| Failure::new(ExitKind::Other, "cannot start the background process").with_cause(error);
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    // If the file itself is called `overlay-wg`, the arguments would be understood differently.
    command
        .arg0("overlay")
        .args(["--json", "--runtime-dir"])
        .arg(runtime_dir)
        .arg("--state-dir")
        .arg(path_from_root(&session.state_dir)?)
        .args((0..session.verbose).map(|_| "-v"))
        .args(verb)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    detach::spawn(&mut command).map_err(cannot)
}

/// Waits for the background half to print its one line or to exit.
pub(crate) fn await_ready(mut child: Child, log: Option<&Path>) -> Result<Ready, Failure> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A line that cannot be read counts as missing.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    if let Ok(ready) = serde_json::from_str::<Ready>(&line)
        && ready.schema == Ready::SCHEMA
    {
        return Ok(ready);
    }
    if let Ok(failure) = serde_json::from_str::<FailureBody>(&line) {
        let _ = child.wait();
        return Err(failure.into());
    }
    let cause = match child.wait() {
        Ok(status) => format!("the background process ended before it was ready: {status}"),
        Err(error) => error.to_string(),
    };
    let failure = Failure::new(ExitKind::Other, "the interface did not come up").with_cause(cause);
    Err(match log {
        Some(log) => failure.with_hint(format!("tail {}", log.display())),
        None => failure,
    })
}

#[cfg(test)]
mod tests;
