//! The files of one daemon in the runtime folder, and the lock that makes it the only one of its name.
//!
//! A daemon called NAME has these files. `NAME.lock` is locked with flock for as long as the daemon lives, and contains
//! its process id. `NAME.state` is the [`super::Journal`]. `NAME.sock` is the local API. `NAME.flows` says
//! that a daemon ran, and is what a daemon hands over when it ends. `NAME.log` is written when the daemon is detached, and outlives it. The kernel releases the
//! lock however the process ends, so a held lock means a live daemon.
//!
//! Root acts on the content of these files. The folder is therefore used only if nobody else can write to it, and each
//! file must be a regular file of mode 0600 ([`overlay_os::folder`]), so that only its owner can even hold the lock.
//!
//! A service that does not run as root cannot write to a folder that root owns. It has its own subfolder, also called
//! NAME. If that folder exists, all files of the daemon are in it.

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

/// How long to wait for a held lock: a daemon that is ending removes its socket a moment before it releases the lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
/// The time between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The runtime files of one daemon. They are exclusively ours until this is dropped.
#[derive(Debug)]
pub struct Runtime {
    folder: Arc<Folder>,
    name: String,
    /// Holds the flock. The file is removed before it is closed.
    _lock: File,
}

impl Runtime {
    /// Claims the name in this folder, which is created if it is missing (0755). Blocks for up to 250 ms while another
    /// daemon holds the name. Drop this last, after the TUN: a process that waits for the lock may start at once.
    ///
    /// Errors: [`ExitKind::Conflict`] while another daemon holds the name, with its process id.
    /// [`ExitKind::Permission`] if the folder or a file in it cannot be used or could be changed by other users.
    pub fn acquire(directory: &Path, name: &str) -> Result<Self, Failure> {
        let directory = &home(directory, name);
        let folder = open_folder(directory)?;
        let lock_name = file_name(name, "lock");
        let path = folder.path_of(&lock_name);
        let mut waited = Duration::ZERO;
        loop {
            let was_open_to_others = folder.is_open_to_others(&lock_name);
            let mut lock =
                folder.open(&lock_name, Access::Own).map_err(|error| file_failure(&folder, name, "lock", error))?;
            match lock.try_lock() {
                // A daemon that ends removes its lock file, so the file that we just locked may no longer have a name.
                Ok(()) if folder.is_at(&lock, &lock_name) => {
                    write_pid(&mut lock).map_err(|error| folder_failure(directory, &error))?;
                    return Ok(Self { folder: Arc::new(folder), name: name.to_owned(), _lock: lock });
                }
                // Earlier versions let everybody open the lock file. A daemon that holds it listens on its socket. If a
                // stranger holds it, we remove the file, and the stranger keeps one without a name.
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

    /// Like [`Runtime::acquire`], for a daemon that is to run. Root does not run it in the service's folder: the service
    /// user could exchange every file there.
    ///
    /// Errors: [`ExitKind::Conflict`] for root if the folder belongs to the service, and those of
    /// [`Runtime::acquire`].
    pub fn acquire_to_run(directory: &Path, name: &str) -> Result<Self, Failure> {
        refuse_service_folder(&home(directory, name), name)?;
        Self::acquire(directory, name)
    }

    /// The name of the daemon, which is the name of its interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the runtime folder.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// The runtime folder, for opening files in it.
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// The path of the local API's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "sock"))
    }

    /// The path of the journal of what was added to the system.
    pub fn state(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "state"))
    }

    /// The path of what an ended daemon left to the next one: `super::flows`.
    pub fn flows(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "flows"))
    }

    /// The path of the log of a detached daemon.
    pub fn log(&self) -> PathBuf {
        self.folder.path_of(file_name(&self.name, "log"))
    }
}

/// Opens the log of a daemon that is to run in the background, and returns its path. The folder is created if it is
/// missing.
///
/// Errors: [`ExitKind::Conflict`] for root if the folder belongs to the service. [`ExitKind::Permission`] if the folder or the file cannot be used or could be changed by other users.
pub fn open_log(directory: &Path, name: &str) -> Result<(File, PathBuf), Failure> {
    refuse_service_folder(&home(directory, name), name)?;
    let folder = open_folder(&home(directory, name))?;
    let log = file_name(name, "log");
    let file = folder.open(&log, Access::Append).map_err(|error| file_failure(&folder, name, "log", error))?;
    Ok((file, folder.path_of(log)))
}

/// Returns the folder with the files of a daemon: its own subfolder of `directory` if there is one, otherwise
/// `directory`.
pub fn home(directory: &Path, name: &str) -> PathBuf {
    let own = directory.join(name);
    if own.is_dir() { own } else { directory.to_owned() }
}

impl Drop for Runtime {
    /// Removes the socket and the lock. The journal is removed when nothing is left to be cleaned up. A journal that is
    /// still there is work for the next clean-up.
    fn drop(&mut self) {
        for extension in ["sock", "lock"] {
            let _ = self.folder.remove(file_name(&self.name, extension));
        }
    }
}

/// Returns `DIRECTORY/NAME.EXTENSION`.
fn file(directory: &Path, name: &str, extension: &str) -> PathBuf {
    directory.join(file_name(name, extension))
}

/// Returns `NAME.EXTENSION`.
pub(super) fn file_name(name: &str, extension: &str) -> String {
    format!("{name}.{extension}")
}

fn open_folder(directory: &Path) -> Result<Folder, Failure> {
    Folder::make_trusted(directory, &permission::friends()).map_err(|error| match error {
        TrustError::Io(error) => folder_failure(directory, &error),
        error => not_trusted(&format!("the runtime folder {}", directory.display()), &error),
    })
}

fn refuse_service_folder(folder: &Path, name: &str) -> Result<(), Failure> {
    let owner = fs::metadata(folder).map(|metadata| metadata.uid());
    match owner {
        Ok(owner) if permission::friends().contains(&owner) => Err(service_folder(folder, name)),
        _ => Ok(()),
    }
}

fn service_folder(folder: &Path, name: &str) -> Failure {
    Failure::new(ExitKind::Conflict, format!("`{name}` belongs to the systemd service overlay@{name}"))
        .with_cause(format!(
            "{} belongs to the user {}, who could exchange what root writes there",
            folder.display(),
            permission::SERVICE_USER
        ))
        .with_hint(format!("sudo systemctl start overlay@{name}"))
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Returns the process id in the lock file. A daemon that is just starting may not have written it yet.
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

/// Describes a file of the runtime folder that cannot be opened or is not trusted.
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
            let hint = format!("{}, or choose a different folder with --runtime-dir", denied.hint);
            Failure::new(ExitKind::Permission, what).with_cause(denied.cause).with_hint(hint)
        }
        io::ErrorKind::ReadOnlyFilesystem => Failure::new(ExitKind::Permission, what)
            .with_cause(error)
            .with_hint("choose a different folder with --runtime-dir"),
        _ => Failure::new(ExitKind::Other, what)
            .with_cause(error)
            .with_hint("choose a different folder with --runtime-dir"),
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
        assert!(Runtime::acquire(directory.path(), "ov1").is_ok(), "a different name is free");
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
