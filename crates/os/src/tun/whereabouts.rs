//! Where a TUN device is, and what it is called by now, asked of its file descriptor: that stays true when somebody
//! renames the interface or moves it into another network namespace.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `TUNGETIFF`, `_IOR('T', 210, unsigned int)`.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
/// `TUNGETDEVNETNS`, `_IO('T', 227)`, Linux 5.2.
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// The network namespace that a device is in.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Keeps the namespace in existence: to be held briefly.
    pub(super) file: File,
    /// Names it for as long as it exists.
    pub(super) inode: u64,
}

/// The name of the interface; `None` when it was deleted.
pub(super) fn name_of(tun: BorrowedFd<'_>) -> io::Result<Option<String>> {
    // SAFETY: an `ifreq` is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an `ifreq`, and `request` lives across the call.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETIFF, &raw mut request) };
    if result < 0 {
        return deleted(io::Error::last_os_error());
    }
    let bytes = request.ifr_name.map(|byte| byte as u8);
    let name = CStr::from_bytes_until_nul(&bytes).map_err(io::Error::other)?;
    Ok(Some(name.to_string_lossy().into_owned()))
}

/// The namespace of the interface; `None` when the interface was deleted.
///
/// # Errors
/// `Unsupported` before Linux 5.2, and for a namespace that is going away; `PermissionDenied` without CAP_NET_ADMIN in that namespace.
pub(super) fn namespace_of(tun: BorrowedFd<'_>) -> io::Result<Option<Namespace>> {
    // SAFETY: takes no argument and touches no memory.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETDEVNETNS) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOTTY) => Err(io::ErrorKind::Unsupported.into()),
            _ => deleted(error),
        };
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows of it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(result) });
    let inode = file.metadata()?.ino();
    Ok(Some(Namespace { file, inode }))
}

/// A descriptor whose device is gone says EBADFD.
fn deleted<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.raw_os_error() == Some(libc::EBADFD) { Ok(None) } else { Err(error) }
}
