//! Names of network interfaces.

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The longest name that the kernel accepts, in bytes.
const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Whether the kernel accepts this as the name of a new interface: 1 to 15 bytes, without white space, slash, colon or
/// percent sign (which the kernel treats as a pattern), and neither `.` nor `..`.
pub fn is_valid_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
}

/// The index of the named interface in the calling thread's network namespace.
///
/// It is asked through a socket and not read from `/sys`, which shows the namespace that it was mounted in.
///
/// # Errors
/// Fails if the process has no file descriptors left.
pub fn index_of(name: &str) -> std::io::Result<Option<u32>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    match name_to_index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for good in ["overlay0", "wg-1", "a.b_c", "a", "exactly15bytes_"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "sixteen_bytes_xx", "a b", "a/b", "a:b", "tun%d", ".", "..", "naïf"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn loopback_has_an_index_and_a_name_in_nobodys_use_has_none() {
        assert!(index_of("lo").unwrap().is_some());
        assert_eq!(index_of("nobody-has-this").unwrap(), None);
    }
}
