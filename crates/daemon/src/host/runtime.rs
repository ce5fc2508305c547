//! The files of one daemon in the runtime folder, and the lock that makes it the only one of its name.
//!
//! For a daemon called NAME: `NAME.lock` is held by flock for as long as the daemon lives and contains its process id;
//! `NAME.state` is the [`super::Journal`]; `NAME.sock` is the local API; `NAME.flows` is what a daemon that ended hands over; `NAME.log` is written when the daemon is
//! detached, and outlives it. The kernel lets go of the lock however the process ends, so a lock that is held means a
//! daemon that lives.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{ExitKind, Failure};

/// How long a held lock is waited for: a daemon that was just asked to end removes its socket a moment before it lets
/// go.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
/// Between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The runtime files of one daemon, exclusively ours until this is dropped.
#[derive(Debug)]
pub struct Runtime {
    directory: PathBuf,
    name: String,
    /// Holds the flock; the file is removed before it is closed.
    _lock: File,
}

impl Runtime {
    /// Takes the name in this folder, which is made if it is missing (0755). Blocks for up to 250 ms while another
    /// daemon holds it. To be dropped last, after the TUN: what waits for it may start at once.
    ///
    /// Errors: [`ExitKind::Conflict`] while another daemon holds the name, with its process id;
    /// [`ExitKind::Permission`] where the folder cannot be written to.
    pub fn acquire(directory: &Path, name: &str) -> Result<Self, Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|error| folder_failure(directory, &error))?;
        let path = file(directory, name, "lock");
        let mut waited = Duration::ZERO;
        loop {
            let mut lock = open_lock(&path).map_err(|error| folder_failure(directory, &error))?;
            match lock.try_lock() {
                // A daemon that ends removes its lock file: what was locked just now may be a file without a name.
                Ok(()) if is_still_at(&lock, &path) => {
                    write_pid(&mut lock).map_err(|error| folder_failure(directory, &error))?;
                    return Ok(Self { directory: directory.to_owned(), name: name.to_owned(), _lock: lock });
                }
                Ok(()) | Err(fs::TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {}
                Ok(()) | Err(fs::TryLockError::WouldBlock) => return Err(already_running(name, &path, &mut lock)),
                Err(fs::TryLockError::Error(error)) => return Err(folder_failure(directory, &error)),
            }
            std::thread::sleep(LOCK_RETRY);
            waited += LOCK_RETRY;
        }
    }

    /// The name of the daemon, which is that of its interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The socket of the local API.
    pub fn socket(&self) -> PathBuf {
        file(&self.directory, &self.name, "sock")
    }

    /// The journal of what was added to the system.
    pub fn state(&self) -> PathBuf {
        file(&self.directory, &self.name, "state")
    }

    /// The flows of a daemon that has ended: `super::flows`.
    pub fn flows(&self) -> PathBuf {
        file(&self.directory, &self.name, "flows")
    }

    /// Where a detached daemon logs to.
    pub fn log(&self) -> PathBuf {
        file(&self.directory, &self.name, "log")
    }
}

impl Drop for Runtime {
    /// Removes the socket and the lock. The journal removes itself when nothing is left to be taken away; one that is
    /// still there is work for the next clean-up.
    fn drop(&mut self) {
        for extension in ["sock", "lock"] {
            let _ = fs::remove_file(file(&self.directory, &self.name, extension));
        }
    }
}

/// `DIRECTORY/NAME.EXTENSION`.
pub(super) fn file(directory: &Path, name: &str, extension: &str) -> PathBuf {
    directory.join(format!("{name}.{extension}"))
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

fn is_still_at(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// A daemon that is just starting may not have written it yet.
fn read_pid(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn already_running(name: &str, path: &Path, lock: &mut File) -> Failure {
    let cause = match read_pid(lock) {
        Some(pid) => format!("process {pid} holds {}", path.display()),
        None => format!("another process holds {}", path.display()),
    };
    Failure::new(ExitKind::Conflict, format!("`{name}` is already running"))
        .with_cause(cause)
        .with_hint(format!("sudo overlay reload {name}, or sudo overlay down {name} first"))
}

fn folder_failure(directory: &Path, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ExitKind::Permission,
        _ => ExitKind::Other,
    };
    Failure::new(kind, format!("cannot write to the runtime folder {}", directory.display()))
        .with_cause(error)
        .with_hint("run it with sudo, or name another folder with --runtime-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_of_a_name_is_refused_and_told_the_process_of_the_first() {
        let directory = tempfile::tempdir().expect("a folder");
        let first = Runtime::acquire(directory.path(), "ov0").expect("free");
        let refused = Runtime::acquire(directory.path(), "ov0").expect_err("taken");
        assert_eq!(refused.code, ExitKind::Conflict);
        assert_eq!(refused.error, "`ov0` is already running");
        let lock = directory.path().join("ov0.lock");
        assert_eq!(refused.cause, Some(format!("process {} holds {}", std::process::id(), lock.display())));
        assert!(Runtime::acquire(directory.path(), "ov1").is_ok(), "another name is free");
        drop(first);
        assert!(Runtime::acquire(directory.path(), "ov0").is_ok(), "free again");
    }

    #[test]
    fn a_daemon_that_is_just_ending_is_waited_for() {
        let directory = tempfile::tempdir().expect("a folder");
        let first = Runtime::acquire(directory.path(), "ov0").expect("free");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(LOCK_PATIENCE / 5);
                drop(first);
            });
            let second = Runtime::acquire(directory.path(), "ov0").expect("free in a moment");
            assert!(directory.path().join("ov0.lock").exists(), "the file is the second one's");
            drop(second);
        });
    }

    #[test]
    fn nothing_but_the_log_stays_in_the_folder() {
        let directory = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::acquire(directory.path(), "ov0").expect("free");
        fs::write(runtime.socket(), "").expect("writable");
        fs::write(runtime.log(), "a line").expect("writable");
        drop(runtime);
        let left: Vec<_> =
            fs::read_dir(directory.path()).expect("there").map(|e| e.expect("there").file_name()).collect();
        assert_eq!(left, ["ov0.log"]);
    }

    #[test]
    fn a_lock_file_without_a_process_is_nobodys() {
        let directory = tempfile::tempdir().expect("a folder");
        fs::write(directory.path().join("ov0.lock"), "1\n").expect("writable");
        let runtime = Runtime::acquire(directory.path(), "ov0").expect("nobody holds it");
        let written = fs::read_to_string(directory.path().join("ov0.lock")).expect("there");
        assert_eq!(written, format!("{}\n", std::process::id()));
        drop(runtime);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a folder");
        let occupied = directory.path().join("file");
        fs::write(&occupied, "").expect("writable");
        let refused = Runtime::acquire(&occupied.join("run"), "ov0").expect_err("a file is in the way");
        assert_eq!(refused.code, ExitKind::Other);
        assert!(refused.error.contains("file/run"), "{}", refused.error);
    }
}
