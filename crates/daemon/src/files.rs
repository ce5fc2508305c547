//! Files that users ask for by name: keys, configs, manual pages.
//!
//! Others may be able to write to the folder, so nothing in it is trusted. A new file never replaces an existing one, a
//! replacement never follows a link, and the folder is held open from the first check to the last.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use overlay_os::folder::Folder;
use zeroize::Zeroizing;

use crate::permission::service_group;

/// The size in bytes of the largest file that is accepted as a key.
const MAX_KEY_FILE: u64 = 4096;

/// Writes a secret and a newline to a new file with mode 0600. After a crash there is either the whole file or none.
/// The folder is created with mode 0700 if it is missing. In a folder that passes on the service's group, like
/// `/etc/overlay`, that group may read the file too.
///
/// # Errors
/// `AlreadyExists` if the file exists, so that a key is never overwritten by accident. Otherwise the file system's error.
pub fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    install(path, secret, Folder::write_new)
}

/// Like [`write_secret`], but replaces an existing file.
///
/// # Errors
/// The file system's error.
pub fn replace_secret(path: &Path, secret: &str) -> io::Result<()> {
    install(path, secret, Folder::replace)
}

/// Writes a file that the user named, such as a new config. The umask decides who else may read it. It is on disk when this
/// returns, and nothing is left of it if it cannot be written.
///
/// # Errors
/// `AlreadyExists` if the file exists, otherwise the file system's error.
pub fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = fill_new(&mut file, path, text);
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn fill_new(file: &mut File, path: &Path, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    let (folder, _) = split(path)?;
    if is_of_service(&Folder::any(folder)?) {
        // Whatever the umask, the service must be able to read it.
        let mode = file.metadata()?.permissions().mode() | 0o040;
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Writes files into a folder, which is created if it is missing. Each file replaces any existing one of its name. A
/// link is replaced, not followed.
///
/// # Errors
/// The file system's error.
pub fn replace_all<'a>(folder: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let folder = Folder::any(folder)?;
    for (name, content) in files {
        folder.replace(OsStr::new(name), OsStr::new(&temporary_for(name)), content, 0o644)?;
    }
    Ok(())
}

/// Reads a regular file that contains a key. The text is wiped when dropped. Never blocks on a pipe.
///
/// # Errors
/// `InvalidInput` for anything but a regular file of at most 4 KiB, otherwise the file system's error.
pub fn read_key(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = OpenOptions::new().read(true).custom_flags(overlay_os::folder::NO_WAITING).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file that holds one key"));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// How a complete file gets its name: [`Folder::write_new`] or [`Folder::replace`].
type Publish = fn(&Folder, &OsStr, &OsStr, &[u8], u32) -> io::Result<()>;

fn install(path: &Path, secret: &str, publish: Publish) -> io::Result<()> {
    let (folder, name) = split(path)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Held open, so that nothing is written to a folder that is swapped in meanwhile.
    let folder = Folder::any(folder)?;
    let mode = if is_of_service(&folder) { 0o640 } else { 0o600 };
    let temporary = temporary_for(&name.to_string_lossy());
    let newline = if secret.ends_with('\n') { "" } else { "\n" };
    let content = Zeroizing::new([secret, newline].concat());
    publish(&folder, name, OsStr::new(&temporary), content.as_bytes(), mode)
}

/// Returns a file name that no other writer in this or any other process uses.
fn temporary_for(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(".{name}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` does not name a file", path.display())));
    };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, name))
}

/// Whether files in this folder are meant for the service: `/etc/overlay`, as installed.
fn is_of_service(folder: &Folder) -> bool {
    folder.inherited_group().is_some_and(|group| Some(group) == service_group())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=";
    const PUBLIC: &str = "R2iW4KAwjOrKGU3UKkqY5tSkxt8ai44r7GaojS2WBR4=";

    #[test]
    fn a_secret_is_written_for_its_owner_alone_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/own.key");
        write_secret(&path, PRIVATE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{PRIVATE}\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

        let error = write_secret(&path, PUBLIC).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{PRIVATE}\n"), "untouched");

        replace_secret(&path, PUBLIC).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{PUBLIC}\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing temporary stays behind");
    }
}
