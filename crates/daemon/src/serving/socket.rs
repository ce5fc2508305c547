//! Unix sockets that have the right mode from the first moment.
//!
//! Between `bind` and `chmod` a socket has the mode that the umask gives it, and the umask belongs to the whole
//! process. The socket is therefore created in a folder that nobody else may enter, and is moved to its place when it
//! is ready. The move replaces a socket that a killed daemon left there. The caller holds the daemon's lock.
//!
//! All this works by path name, so it is done only in a folder that nobody else can change.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use overlay_os::folder::{Folder, TrustError};
use tokio::net::UnixListener;

use crate::failure::{ExitKind, Failure};
use crate::permission;

/// Binds a listening socket at `path` with this mode, and with this group if one is given and the process may set it.
/// Creates the folder (0755) if it is missing. Must be called on a tokio runtime.
///
/// # Errors
///
/// Those of the file system. A path of more than 107 bytes is `InvalidInput`. A folder that others can change is
/// `PermissionDenied`, with a [`overlay_os::folder::TrustError`] inside.
pub(crate) fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_stem()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a folder and a name"));
    };
    Folder::make_trusted(folder, &permission::friends())?;
    // The temporary path is no longer than `path` itself, so that the limit of 107 bytes applies only once.
    let workshop = folder.join(format!(".{}", name.to_string_lossy()));
    let _ = fs::remove_dir_all(&workshop);
    DirBuilder::new().mode(0o700).create(&workshop)?;
    let listener = bind_in(&workshop, path, mode, group);
    let _ = fs::remove_dir_all(&workshop);
    listener
}

fn bind_in(workshop: &Path, path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let made = workshop.join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(mode))?;
    if let Some(group) = group {
        match chown(&made, None, Some(group)) {
            // Without the privilege the group stays our own: fewer users may connect, never more.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    fs::rename(&made, path)?;
    Ok(listener)
}

/// What a socket that cannot be bound means for the user.
pub(crate) fn cannot_listen(path: &Path, error: io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::AddrInUse => ExitKind::Conflict,
        io::ErrorKind::PermissionDenied => ExitKind::Permission,
        _ => ExitKind::Other,
    };
    let failure = Failure::new(code, format!("cannot listen on {}", path.display()));
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TrustError>());
    match inner.and_then(TrustError::fix) {
        Some(fix) => failure.with_cause(error).with_hint(fix),
        None if code == ExitKind::Permission => {
            let denied = permission::denied(path.parent().unwrap_or(path));
            failure.with_cause(denied.cause).with_hint(denied.hint)
        }
        None => failure.with_cause(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_has_its_mode_replaces_a_stale_one_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("run/ov0.sock");
        drop(bind(&path, 0o660, None).expect("a fresh socket"));
        let _listener = bind(&path, 0o600, None).expect("a socket in place of the stale one");
        let mode = fs::metadata(&path).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        let names: Vec<_> = fs::read_dir(folder.path().join("run")).expect("the folder").flatten().collect();
        assert_eq!(names.len(), 1);
    }
}
