//! The files of one daemon in the runtime folder, and the lock that makes it the only one of its name.
//!
//! For a daemon called NAME: `NAME.lock` is held by flock for as long as the daemon lives and contains its process id;
//! `NAME.state` is the [`super::Journal`]; `NAME.sock` is the local API; `NAME.flows` is what a daemon that ended hands over; `NAME.log` is written when the daemon is
//! detached, and outlives it. The kernel lets go of the lock however the process ends, so a lock that is held means a
//! daemon that lives.
//!
//! Root follows what stands in these files, so the folder is used only where nobody else can write to it, and each file
//! is a regular one of mode 0600 ([`overlay_os::folder`]): nobody but its owner can even hold the lock.
//!
//! A service that does not run as root cannot write to a folder of root's. It has a folder of its own below it, called
//! NAME too; where there is one, everything of that daemon lies there.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overlay_os::folder::{Access, Folder, TrustError};

use crate::failure::{ExitKind, Failure};
use crate::permission::{self, denied, not_trusted};

/// How long a held lock is waited for: a daemon that was just asked to end removes its socket a moment before it lets
/// go.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
/// Between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The runtime files of one daemon, exclusively ours until this is dropped.
#[derive(Debug)]
pub struct Runtime {
    folder: Arc<Folder>,
    name: String,
    /// Holds the flock; the file is removed before it is closed.
    _lock: File,
}

impl Runtime {
    /// Takes the name in this folder, which is made if it is missing (0755). Blocks for up to 250 ms while another
    /// daemon holds it. To be dropped last, after the TUN: what waits for it may start at once.
    ///
    /// Errors: [`ExitKind::Conflict`] while another daemon holds the name, with its process id;
    /// [`ExitKind::Permission`] where the folder or a file in it cannot be used, or could be changed by somebody else.
    pub fn acquire(directory: &Path, name: &str) -> Result<Self, Failure> {
        let directory = &home(directory, name);
        let folder = open_folder(directory)?;
        let lock_name = file_name(name, "lock");
        let path = folder.path_of(&lock_name);
        let mut waited = Duration::ZERO;
        loop {
            let was_open_to_others = is_open_to_others(&path);
            let mut lock =
                folder.open(&lock_name, Access::Own).map_err(|error| file_failure(&folder, name, "lock", error))?;
            match lock.try_lock() {
                // A daemon that ends removes its lock file: what was locked just now may be a file without a name.
                Ok(()) if folder.is_at(&lock, &lock_name) => {
                    write_pid(&mut lock).map_err(|error| folder_failure(directory, &error))?;
                    return Ok(Self { folder: Arc::new(folder), name: name.to_owned(), _lock: lock });
                }
                // Earlier versions let everybody open it. A daemon that holds it listens on its socket; a stranger
                // who holds it keeps a file without a name from now on.
                Err(fs::TryLockError::WouldBlock)
                    if was_open_to_others && UnixStream::connect(file(directory, name, "sock")).is_err() =>
                {
                    folder.remove(&lock_name).map_err(|error| folder_failure(directory, &error))?;
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
        self.folder.path()
    }

    /// The folder, to open files in.
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// The socket of the local API.
    pub fn socket(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "sock"))
    }

    /// The journal of what was added to the system.
    pub fn state(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "state"))
    }

    /// The flows of a daemon that has ended: `super::flows`.
    pub fn flows(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "flows"))
    }

    /// Where a detached daemon logs to.
    pub fn log(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "log"))
    }
}

/// Opens the log of a daemon that is to run in the background, and says where it is. The folder is made if it is
/// missing.
///
/// Errors: [`ExitKind::Permission`] where folder or file cannot be used, or could be changed by somebody else.
pub fn open_log(directory: &Path, name: &str) -> Result<(File, PathBuf), Failure> {
    let folder = open_folder(&home(directory, name))?;
    let log = file_name(name, "log");
    let file = folder.open(&log, Access::Append).map_err(|error| file_failure(&folder, name, "log", error))?;
    Ok((file, folder.path_of(log)))
}

/// The folder that holds the files of a daemon: one of its own below `directory` where there is one, else that itself.
pub fn home(directory: &Path, name: &str) -> PathBuf {
    let own = directory.join(name);
    if own.is_dir() { own } else { directory.to_owned() }
}

impl Drop for Runtime {
    /// Removes the socket and the lock. The journal removes itself when nothing is left to be taken away; one that is
    /// still there is work for the next clean-up.
    fn drop(&mut self) {
        for extension in ["sock", "lock"] {
            let _ = self.folder.remove(file_name(&self.name, extension));
        }
    }
}

/// `DIRECTORY/NAME.EXTENSION`.
fn file(directory: &Path, name: &str, extension: &str) -> PathBuf {
    directory.join(file_name(name, extension))
}

/// `NAME.EXTENSION`.
pub(super) fn file_name(name: &str, extension: &str) -> String {
    format!("{name}.{extension}")
}

fn open_folder(directory: &Path) -> Result<Folder, Failure> {
    Folder::make_trusted(directory, &permission::friends()).map_err(|error| match error {
        TrustError::Io(error) => folder_failure(directory, &error),
        error => not_trusted(&format!("the runtime folder {}", directory.display()), &error),
    })
}

/// Whether others than the owner may open a file, and so hold its lock.
fn is_open_to_others(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.mode() & 0o066 != 0)
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

/// A file of the runtime folder that cannot be opened, or is not used.
pub(super) fn file_failure(folder: &Folder, name: &str, extension: &str, error: TrustError) -> Failure {
    let path = folder.path_of(file_name(name, extension));
    match error {
        TrustError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Failure::new(ExitKind::Permission, format!("cannot open {}", path.display()))
                .with_cause(denied(&path).cause)
                .with_hint(format!("sudo overlay down {name}"))
        }
        TrustError::Io(error) => folder_failure(folder.path(), &error),
        error => not_trusted(&path.display().to_string(), &error),
    }
}

fn folder_failure(directory: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot write to the runtime folder {}", directory.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let denied = denied(directory);
            let hint = format!("{}, or name another folder with --runtime-dir", denied.hint);
            Failure::new(ExitKind::Permission, what).with_cause(denied.cause).with_hint(hint)
        }
        io::ErrorKind::ReadOnlyFilesystem => Failure::new(ExitKind::Permission, what)
            .with_cause(error)
            .with_hint("name another folder with --runtime-dir"),
        _ => Failure::new(ExitKind::Other, what).with_cause(error).with_hint("name another folder with --runtime-dir"),
    }
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden_with;

    use super::*;

    #[test]
    fn the_second_daemon_of_a_name_is_refused_and_told_the_process_of_the_first() {
        let directory = tempfile::tempdir().expect("a folder");
        let first = Runtime::acquire(directory.path(), "ov0").expect("free");
        let refused = Runtime::acquire(directory.path(), "ov0").expect_err("taken");
        assert_eq!(refused.code, ExitKind::Conflict);
        let process = std::process::id().to_string();
        golden_with("the second", refused.lines(), &[(&directory.path().to_string_lossy(), "DIR"), (&process, "PID")]);
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
        golden_with("up", refused.lines(), &[(&directory.path().to_string_lossy(), "DIR")]);
    }
}
