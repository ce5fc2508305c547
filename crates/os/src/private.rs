//! Files that no other user can have written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Opens a regular file of our own for reading, without following a link.
///
/// # Errors
/// Fails if the file does not exist, if it is a link, if it belongs to a different user, or if other users may read or
/// write it.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let about = file.metadata()?;
    if about.is_file() && about.uid() == geteuid().as_raw() && about.mode() & 0o077 == 0 {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a plain file of ours that is closed to others"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_plain_file_that_is_closed_to_others_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "secret").expect("writable");
        symlink(&file, &link).expect("writable");
        for (mode, opens) in [(0o600, true), (0o400, true), (0o640, false), (0o602, false)] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("our own");
            assert_eq!(open(&file).is_ok(), opens, "{mode:o}");
            assert!(open(&link).is_err());
        }
        assert!(open(folder.path()).is_err());
    }
}
