//! Socket options that no safe library offers. Most of them are ints.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The number of memory figures of a socket: `SK_MEMINFO_VARS`.
const MEMORY_FIGURES: usize = libc::SK_MEMINFO_DROPS as usize + 1;

/// Sets an option whose value is an int.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// The value of an option that is an int.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, and both live across the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The memory that the kernel holds for a socket (SO_MEMINFO, Linux 4.12), indexed by `libc::SK_MEMINFO_*`.
pub(crate) fn memory_of(socket: BorrowedFd<'_>) -> io::Result<[u32; MEMORY_FIGURES]> {
    let mut figures = [0u32; MEMORY_FIGURES];
    let mut len = size_of_val(&figures) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
    // SAFETY: the kernel writes at most `len` bytes, the size of `figures`, and both live across the call.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, figures.as_mut_ptr().cast(), &raw mut len) };
    if result == 0 { Ok(figures) } else { Err(io::Error::last_os_error()) }
}

/// Restricts sending and receiving to this interface.
pub(crate) fn bind_to_device(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    set_bytes(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())
}

fn set_bytes(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from `value`, which has that many.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_option_that_was_set_is_read_back() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO).unwrap(), 0);
        set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        assert_eq!(option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO).unwrap(), 1);
    }

    #[test]
    fn an_unknown_option_and_an_unknown_device_are_errors() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = set_option(socket.as_fd(), libc::SOL_UDP, 9999, 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
        let error = bind_to_device(socket.as_fd(), "nobody-has-this").unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
