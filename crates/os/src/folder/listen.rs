//! A listening unix socket that has the right mode from the first moment.
//!
//! Between `bind` and `chmod` a socket has the mode that the umask gives it, and the umask belongs to the whole
//! process. The socket is therefore created in a workshop: a folder of mode 0700 that belongs to this process's user.
//! It is moved to its place when it is ready. The move replaces whatever has the name there.
//!
//! The owner of the outer folder may be a different user, who can exchange the workshop for anything at any time. Every
//! step therefore goes through the workshop's open descriptor, never through its name. Inside the workshop nobody else
//! can create or exchange a name, so mode and group reach the socket and nothing else.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::Folder;

/// The socket's name inside the workshop.
const MADE: &str = "s";
/// The permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

impl Folder {
    /// Binds a listening socket of this name and mode, and with this group if one is given and the process may set it.
    /// The socket replaces whatever has the name. `workshop` is the name of a folder that exists only meanwhile.
    ///
    /// # Errors
    /// Returns the system's error. `InvalidInput` if the folder's path and the name have more than 107 bytes, because
    /// nobody could connect. `PermissionDenied` if another user has exchanged the workshop.
    pub fn listen(&self, name: &OsStr, workshop: &OsStr, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
        SocketAddr::from_pathname(self.path_of(name))?;
        self.remove_workshop(workshop)?;
        fs::mkdirat(&self.file, workshop, Mode::RWXU)?;
        let listener = self.open_workshop(workshop).and_then(|within| {
            let listener = make(&within, mode, group)?;
            fs::renameat(&within, MADE, &self.file, name)?;
            Ok(listener)
        });
        let _ = self.remove_workshop(workshop);
        listener
    }

    /// Opens the workshop, and checks that it is a folder which nobody else can change.
    fn open_workshop(&self, workshop: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = fs::openat(&self.file, workshop, flags, Mode::empty())?;
        let stat = fs::fstat(&within)?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & OTHERS != 0 {
            let what = format!("another user has exchanged {}", self.path_of(workshop).display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(within)
    }

    /// Removes the workshop that a killed process left. Nothing but an empty folder and the socket in it is removed.
    fn remove_workshop(&self, workshop: &OsStr) -> io::Result<()> {
        match fs::unlinkat(&self.file, workshop, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if let Ok(within) = self.open_workshop(workshop) {
            let _ = fs::unlinkat(&within, MADE, AtFlags::empty());
        }
        match fs::unlinkat(&self.file, workshop, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Creates the socket in the workshop. `bind` knows only paths, and this one leads through the open descriptor.
fn make(within: &OwnedFd, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let mut path = OsString::from(format!("/proc/self/fd/{}/", within.as_fd().as_raw_fd()));
    path.push(MADE);
    let listener = UnixListener::bind(path)?;
    fs::chmodat(within, MADE, Mode::from(mode), AtFlags::empty())?;
    if let Some(group) = group {
        match fs::chownat(within, MADE, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW) {
            // Without the privilege the group stays our own: fewer users may connect, never more.
            Ok(()) | Err(Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::trusted(directory.path(), &[]).expect("our own folder");
        (directory, folder)
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let (directory, folder) = folder();
        let at = directory.path();
        fs::create_dir(at.join(".ov0")).expect("ours");
        fs::set_permissions(at.join(".ov0"), fs::Permissions::from_mode(0o700)).expect("ours");
        fs::write(at.join(".ov0/s"), "").expect("ours");
        fs::write(at.join("ov0.sock"), "").expect("ours");
        let _listener = folder.listen(OsStr::new("ov0.sock"), OsStr::new(".ov0"), 0o640, None).expect("a socket");
        assert_eq!(fs::metadata(at.join("ov0.sock")).expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(at).expect("there").count(), 1);
    }

    #[test]
    fn a_link_in_the_place_of_the_socket_or_the_workshop_is_not_followed() {
        let (directory, folder) = folder();
        let at = directory.path();
        let victim = at.join("victim");
        fs::write(&victim, "secret").expect("ours");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).expect("ours");
        let inside = at.join("elsewhere");
        fs::create_dir(&inside).expect("ours");
        fs::write(inside.join("s"), "kept").expect("ours");
        symlink(&victim, at.join("ov0.sock")).expect("ours");
        symlink(&inside, at.join(".ov0")).expect("ours");
        let _listener = folder.listen(OsStr::new("ov0.sock"), OsStr::new(".ov0"), 0o660, None).expect("a socket");
        assert_eq!(fs::metadata(&victim).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(inside.join("s")).expect("there"), "kept");
        assert!(std::os::unix::net::UnixStream::connect(at.join("ov0.sock")).is_ok());
    }

    #[test]
    fn a_workshop_that_others_can_change_is_refused() {
        let (directory, folder) = folder();
        let open = directory.path().join(".ov0");
        fs::create_dir(&open).expect("ours");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o770)).expect("ours");
        let refused = folder.open_workshop(OsStr::new(".ov0")).expect_err("the group may write");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
