//! Unix sockets that have the right mode from the first moment.
//!
//! The socket is made by [`Folder::listen`], which trusts no name that another user could exchange. The caller holds the
//! daemon's lock.

use std::ffi::OsString;
use std::io;
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
    let (Some(folder), Some(name), Some(stem)) = (path.parent(), path.file_name(), path.file_stem()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a folder and a name"));
    };
    let folder = Folder::make_trusted(folder, &permission::friends())?;
    let mut workshop = OsString::from(".");
    workshop.push(stem);
    let listener = folder.listen(name, &workshop, mode, group)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
