//! A folder that is opened once, and files that are reached through it.
//!
//! Root writes to files by name, and the owner of a folder decides what the names in it mean. So the folder and every
//! folder above it are checked first: each must belong to a trusted user, and other users must not be able to rename
//! entries in it. Then the folder is held open, and files are opened relative to it. Symbolic links are not followed,
//! opening a pipe does not block, and only files of our own are written.
//!
//! A sticky folder such as `/tmp` may lie above a trusted folder, because nobody can rename other users' entries there.
//! It cannot be a trusted folder itself, because a stranger could create a file of an expected name there first.

mod listen;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::process::user_name;

/// The flag of `open` that opens a pipe at once, even if nobody has opened its other end.
pub const NO_WAITING: i32 = libc::O_NONBLOCK;
/// The most symbolic links that a path may lead through. The kernel has the same limit.
const MAX_LINKS: usize = 40;
/// The permission bits that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The bit that lets only owners rename and remove entries of a folder.
const STICKY: u32 = 0o1000;
/// The bit that makes new files in a folder belong to the folder's group.
const SET_GROUP_ID: u32 = 0o2000;

/// The reason why a folder or a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It belongs to a user who is not trusted.
    #[error("{} belongs to the user {}", .path.display(), shown_user(*.user))]
    Owner {
        /// The folder or file. It may be a folder above the requested one.
        path: PathBuf,
        /// The owner's user ID.
        user: u32,
        /// Whether it is a folder.
        is_folder: bool,
    },
    /// Users other than the owner may write to it.
    #[error("others than its owner may write to {}", .path.display())]
    Writable {
        /// The folder or file.
        path: PathBuf,
        /// Whether it is a folder.
        is_folder: bool,
    },
    /// It is not a regular file, or it has a second name.
    #[error("{} is a {kind}", .path.display())]
    Kind {
        /// The path that was to be opened.
        path: PathBuf,
        /// The kind of file found there.
        kind: &'static str,
    },
    /// The system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TrustError {
    /// The shell command that fixes the problem, if there is one.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Owner { path, is_folder: true, .. } => Some(format!("sudo chown root:root {}", path.display())),
            Self::Writable { path, is_folder: true } => Some(format!("sudo chmod go-w {}", path.display())),
            Self::Owner { path, .. } | Self::Writable { path, .. } | Self::Kind { path, .. } => {
                Some(format!("sudo rm {}", path.display()))
            }
            Self::Io(_) => None,
        }
    }
}

impl From<Errno> for TrustError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<TrustError> for io::Error {
    /// A lack of trust becomes `PermissionDenied`, with the [`TrustError`] inside.
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::PermissionDenied, other),
        }
    }
}

fn shown_user(user: u32) -> String {
    user_name(user).unwrap_or_else(|| user.to_string())
}

/// The purpose for which a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read a file and trust its content: other users must not be able to write to it.
    Read,
    /// To read and write a file, created if it is missing. Its mode becomes 0600.
    Own,
    /// To append to a file, created if it is missing. Its mode becomes 0600.
    Append,
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    file: OwnedFd,
    path: PathBuf,
    trusted: Vec<u32>,
}

impl Folder {
    /// Opens a folder that only root, this process's own user and the users in `friends` can change.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn trusted(path: &Path, friends: &[u32]) -> Result<Self, TrustError> {
        Self::find(path, friends, false)
    }

    /// Like [`Folder::trusted`], but creates the missing parts of the path, with mode 0755 minus the umask.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn make_trusted(path: &Path, friends: &[u32]) -> Result<Self, TrustError> {
        Self::find(path, friends, true)
    }

    /// Opens a folder without checking its owner. New files can be put there, but existing ones must not be trusted.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn any(path: &Path) -> io::Result<Self> {
        let file = fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { file, path: path.to_owned(), trusted: vec![0, geteuid().as_raw()] })
    }

    fn find(path: &Path, friends: &[u32], make: bool) -> Result<Self, TrustError> {
        let trusted: Vec<u32> = [0, geteuid().as_raw()].iter().chain(friends).copied().collect();
        let found = walk(&std::path::absolute(path)?, &trusted, make)?;
        let file = fs::openat(&found, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { file, path: path.to_owned(), trusted })
    }

    /// The folder's path, as given when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the folder, for messages.
    pub fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The group that new files in the folder belong to, if the folder passes on its own group.
    pub fn inherited_group(&self) -> Option<u32> {
        let stat = fs::fstat(&self.file).ok()?;
        (stat.st_mode & SET_GROUP_ID != 0).then_some(stat.st_gid)
    }

    /// Opens a regular file of ours.
    ///
    /// # Errors
    /// See [`TrustError`]. It refuses links, pipes and files of untrusted users, for example.
    pub fn open(&self, name: impl AsRef<OsStr>, access: Access) -> Result<File, TrustError> {
        let name = name.as_ref();
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Own => OFlags::RDWR | OFlags::CREATE,
            Access::Append => OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE,
        };
        // Opening a pipe must not block until its other end is opened.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match fs::openat(&self.file, name, flags, Mode::from(0o600)) {
            Ok(file) => file,
            Err(error @ (Errno::LOOP | Errno::NXIO | Errno::ISDIR)) => {
                let stat = fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
                return Err(match kind_of(&stat) {
                    Some(kind) => TrustError::Kind { path: self.path_of(name), kind },
                    None => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let stat = fs::fstat(&file)?;
        if let Some(kind) = kind_of(&stat) {
            return Err(TrustError::Kind { path: self.path_of(name), kind });
        }
        if !self.trusted.contains(&stat.st_uid) {
            return Err(TrustError::Owner { path: self.path_of(name), user: stat.st_uid, is_folder: false });
        }
        if access == Access::Read && stat.st_mode & OTHERS_WRITE != 0 {
            return Err(TrustError::Writable { path: self.path_of(name), is_folder: false });
        }
        if access != Access::Read && stat.st_mode & 0o7777 != 0o600 && stat.st_uid == geteuid().as_raw() {
            fs::fchmod(&file, Mode::from(0o600))?;
        }
        Ok(file.into())
    }

    /// Writes a new file, or fails with `AlreadyExists`. The content is first written under the name `temporary`, so
    /// after a crash the file is either complete or missing.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn write_new(&self, name: &OsStr, temporary: &OsStr, content: &[u8], mode: u32) -> io::Result<()> {
        // Unlike a rename, a hard link fails if its target exists, so there is no race with other processes.
        self.install(temporary, content, mode, || {
            fs::linkat(&self.file, temporary, &self.file, name, AtFlags::empty())?;
            fs::unlinkat(&self.file, temporary, AtFlags::empty())
        })
    }

    /// Like [`Folder::write_new`], but replaces whatever has the name. A link is replaced, not followed.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn replace(&self, name: &OsStr, temporary: &OsStr, content: &[u8], mode: u32) -> io::Result<()> {
        self.install(temporary, content, mode, || fs::renameat(&self.file, temporary, &self.file, name))
    }

    fn install(
        &self,
        temporary: &OsStr,
        content: &[u8],
        mode: u32,
        publish: impl FnOnce() -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        self.remove(temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.file, temporary, flags, Mode::from(mode & 0o600))?);
        let written = fs::fchmod(&file, Mode::from(mode))
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(content))
            .and_then(|()| file.sync_all())
            .and_then(|()| publish().map_err(io::Error::from))
            .and_then(|()| fs::fsync(&self.file).map_err(io::Error::from));
        if written.is_err() {
            // A secret must not be left behind under a temporary name.
            let _ = self.remove(temporary);
        }
        written
    }

    /// Gives a file a different name in the same folder, in place of whatever has that name. It is on disk when this
    /// returns.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        fs::renameat(&self.file, from.as_ref(), &self.file, to.as_ref())?;
        self.sync()
    }

    /// Writes the names in the folder to disk.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.file)?)
    }

    /// Removes the name, if it exists. A folder is left alone.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match fs::unlinkat(&self.file, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the name belongs to a unix socket. `None` if the name does not exist. A link is not a socket.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn is_socket(&self, name: impl AsRef<OsStr>) -> io::Result<Option<bool>> {
        match fs::statat(&self.file, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode) == FileType::Socket)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether users other than the owner may open what has this name. False if the name does not exist.
    pub fn is_open_to_others(&self, name: impl AsRef<OsStr>) -> bool {
        fs::statat(&self.file, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_mode & 0o066 != 0)
    }

    /// Whether an open file still has this name.
    pub fn is_at(&self, file: &File, name: impl AsRef<OsStr>) -> bool {
        let named = fs::statat(&self.file, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW);
        match (fs::fstat(file), named) {
            (Ok(ours), Ok(named)) => (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }
}

/// Walks a path from the root and checks every folder on the way.
fn walk(path: &Path, trusted: &[u32], make: bool) -> Result<OwnedFd, TrustError> {
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names = names_of(path);
    let mut at = PathBuf::from("/");
    let mut folder = fs::openat(CWD, c"/", step, Mode::empty())?;
    let mut links = 0;
    require_trusted(&fs::fstat(&folder)?, &at, trusted, names.is_empty())?;
    while let Some(name) = names.pop_front() {
        let here = if name == ".." { at.parent().unwrap_or(&at).to_owned() } else { at.join(&name) };
        let entry = match fs::openat(&folder, &name, step, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                match fs::mkdirat(&folder, &name, Mode::from(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                fs::openat(&folder, &name, step, Mode::empty())?
            }
            entry => entry?,
        };
        let stat = fs::fstat(&entry)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                require_trusted(&stat, &here, trusted, names.is_empty())?;
                (folder, at) = (entry, here);
            }
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                if !trusted.contains(&stat.st_uid) {
                    return Err(TrustError::Owner { path: here, user: stat.st_uid, is_folder: false });
                }
                let target = fs::readlinkat(&entry, c"", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    folder = fs::openat(CWD, c"/", step, Mode::empty())?;
                }
                names_of(&target).into_iter().rev().for_each(|name| names.push_front(name));
                // The link may have been the last part of the path.
                if names.is_empty() {
                    require_trusted(&fs::fstat(&folder)?, &at, trusted, true)?;
                }
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(folder)
}

fn names_of(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// Checks one folder. `is_last` is set for the requested folder, and not set for the folders above it.
fn require_trusted(stat: &Stat, path: &Path, trusted: &[u32], is_last: bool) -> Result<(), TrustError> {
    if !trusted.contains(&stat.st_uid) {
        return Err(TrustError::Owner { path: path.to_owned(), user: stat.st_uid, is_folder: true });
    }
    if stat.st_mode & OTHERS_WRITE != 0 && (is_last || stat.st_mode & STICKY == 0) {
        return Err(TrustError::Writable { path: path.to_owned(), is_folder: true });
    }
    Ok(())
}

/// The kind of file. `None` for a regular file with only one name.
fn kind_of(stat: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_nlink == 1 => None,
        FileType::RegularFile => Some("file that has a second name elsewhere"),
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("pipe"),
        FileType::Directory => Some("folder"),
        FileType::Socket => Some("socket"),
        _ => Some("device"),
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a name can be the last part of a path: not empty, without a slash, and neither `.` nor `..`.
pub fn is_plain_name(name: &OsStr) -> bool {
    !matches!(name.as_bytes(), b"" | b"." | b"..") && !name.as_bytes().contains(&b'/')
}

#[cfg(test)]
mod tests;
