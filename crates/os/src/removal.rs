//! Notices that a file lost its name: it was removed or moved away, or something else was put in its place.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::readable::wait_readable;

/// Enough for events about one file, which carry no name.
const BUFFER_LEN: usize = 1024;

/// The device and inode of no file.
const NO_FILE: (u64, u64) = (0, 0);

/// Watches one file name. It keeps neither the file nor the name in existence.
#[derive(Debug)]
pub struct NameWatch {
    path: PathBuf,
    /// Device and inode of the file that has the name.
    file: (u64, u64),
    events: AsyncFd<OwnedFd>,
}

impl NameWatch {
    /// Watches the file that is at `path` now. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Fails if there is no such file, or if the user has no inotify instances left.
    pub fn new(path: &Path) -> io::Result<Self> {
        let watch = Self::of_own(path)?;
        if watch.file == NO_FILE { Err(io::ErrorKind::NotFound.into()) } else { Ok(watch) }
    }

    /// Watches a file that the caller has just made. If somebody has removed it since, it has lost its name.
    ///
    /// # Errors
    /// Fails if the user has no inotify instances left.
    pub fn of_own(path: &Path) -> io::Result<Self> {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // While a process holds the file open, losing its last name is reported as a change of its attributes.
        let flags = inotify::WatchFlags::ATTRIB | inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::MOVE_SELF;
        let found = inotify::add_watch(&events, path, flags).map_err(io::Error::from).and_then(|_| identity(path));
        let file = match found {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => NO_FILE,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), file, events: wait_readable(events)? })
    }

    /// Whether the file still has its name.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Waits until the file no longer has its name. Can be cancelled.
    ///
    /// # Errors
    /// Linux is not known to return any.
    pub async fn lost(&self) -> io::Result<()> {
        let mut buffer = [0u8; BUFFER_LEN];
        while self.is_there() {
            let mut ready = self.events.readable().await?;
            // The events are only a reason to check the name. Their content is ignored.
            while let Ok(read) = ready.try_io(|events| Ok(rustix::io::read(events.get_ref(), &mut buffer)?)) {
                match read {
                    Ok(_) => {}
                    Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A listening socket that stays open, and its watch.
    fn socket(folder: &Path) -> (UnixListener, PathBuf, NameWatch) {
        let path = folder.join("wg0.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let watch = NameWatch::new(&path).unwrap();
        (listener, path, watch)
    }

    async fn is_noticed(watch: &NameWatch) {
        assert!(!watch.is_there());
        tokio::time::timeout(PATIENCE, watch.lost()).await.expect("a notice").unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_while_it_is_open_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (_listener, path, watch) = socket(folder.path());
        let remove = async {
            // Removes the file only once the other task is waiting.
            tokio::task::yield_now().await;
            std::fs::remove_file(&path).unwrap();
        };
        let (lost, ()) = tokio::join!(tokio::time::timeout(PATIENCE, watch.lost()), remove);
        lost.expect("a notice").unwrap();
    }

    #[tokio::test]
    async fn so_is_one_that_was_removed_before_it_was_watched() {
        let folder = tempfile::tempdir().unwrap();
        is_noticed(&NameWatch::of_own(&folder.path().join("wg0.sock")).unwrap()).await;
    }

    #[tokio::test]
    async fn so_is_one_that_is_moved_away_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (_listener, path, watch) = socket(folder.path());
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        is_noticed(&watch).await;

        let (_second, path, watch) = socket(folder.path());
        let _third = UnixListener::bind(folder.path().join("new")).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        is_noticed(&watch).await;
    }

    #[tokio::test]
    async fn another_mode_is_no_loss() {
        let folder = tempfile::tempdir().unwrap();
        let (_listener, path, watch) = socket(folder.path());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.lost()).await.is_err());
        assert!(watch.is_there());
    }

    #[tokio::test]
    async fn a_name_that_nothing_has_cannot_be_watched() {
        let folder = tempfile::tempdir().unwrap();
        let error = NameWatch::new(&folder.path().join("nothing")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
