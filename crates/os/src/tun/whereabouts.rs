//! The namespace and current name of a TUN device, asked through its file descriptor. That works even if the interface
//! was renamed or moved into a different network namespace.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `TUNGETIFF`, `_IOR('T', 210, unsigned int)`.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
/// `TUNGETDEVNETNS`, `_IO('T', 227)`, Linux 5.2.
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// The network namespace of a device.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Keeps the namespace in existence, so it must be held only briefly.
    pub(super) file: File,
    /// The inode, which identifies the namespace for as long as it exists.
    pub(super) inode: u64,
}

/// The name of the interface. `None` if it was deleted.
pub(super) fn name_of(tun: BorrowedFd<'_>) -> io::Result<Option<String>> {
    // SAFETY: an `ifreq` is plain data, for which all zeros is a valid value.
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

/// The namespace of the interface. `None` if the interface was deleted.
///
/// # Errors
/// `Unsupported` before Linux 5.2, and for a namespace that is going away. `PermissionDenied` without CAP_NET_ADMIN in
/// that namespace.
pub(super) fn namespace_of(tun: BorrowedFd<'_>) -> io::Result<Option<Namespace>> {
    // SAFETY: the call takes no argument and touches no memory.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETDEVNETNS) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOTTY) => Err(io::ErrorKind::Unsupported.into()),
            _ => deleted(error),
        };
    }
    // SAFETY: the kernel has just opened this descriptor for us, so it has no other owner.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(result) });
    let inode = file.metadata()?.ino();
    Ok(Some(Namespace { file, inode }))
}

/// Turns EBADFD, the error for a deleted interface, into `None`.
fn deleted<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.raw_os_error() == Some(libc::EBADFD) { Ok(None) } else { Err(error) }
}
