//! `sockaddr_in` and `sockaddr_in6`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const V4_LEN: usize = size_of::<libc::sockaddr_in>();
const V6_LEN: usize = size_of::<libc::sockaddr_in6>();

/// A socket address in the kernel's layout: family and scope in native order, port and address in network order.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawAddress {
    bytes: [u8; V6_LEN],
    len: usize,
}

impl RawAddress {
    /// The most bytes that the kernel may write for an address.
    pub(crate) const CAPACITY: usize = V6_LEN;

    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut raw = Self::default();
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                raw.bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                raw.bytes[4..8].copy_from_slice(&address.ip().octets());
                raw.len = V4_LEN;
            }
            SocketAddr::V6(address) => {
                raw.bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                raw.bytes[8..24].copy_from_slice(&address.ip().octets());
                raw.bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                raw.len = V6_LEN;
            }
        }
        raw
    }

    /// Decodes the address. `None` if it is too short, or neither IPv4 nor IPv6.
    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        let bytes = &self.bytes;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
            libc::AF_INET if self.len >= V4_LEN => {
                let ip: [u8; 4] = bytes[4..8].try_into().ok()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 if self.len >= V6_LEN => {
                let ip: [u8; 16] = bytes[8..24].try_into().ok()?;
                let scope = u32::from_ne_bytes(bytes[24..28].try_into().ok()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }

    /// A pointer for the kernel to read or write the address: [`Self::CAPACITY`] bytes.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// A pointer for the kernel to read the address: [`Self::len`] bytes.
    pub(super) fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sets how many bytes the kernel wrote.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(V6_LEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_laid_out_as_in_ip_7() {
        let raw = RawAddress::new("192.0.2.1:51820".parse().unwrap());
        let mut expected = vec![0; 16];
        expected[..2].copy_from_slice(&2u16.to_ne_bytes());
        expected[2..8].copy_from_slice(&[0xca, 0x6c, 192, 0, 2, 1]);
        assert_eq!(raw.bytes[..raw.len], expected);
    }

    #[test]
    fn an_ipv6_address_is_laid_out_as_in_ipv6_7() {
        let raw = RawAddress::new("[fe80::1%7]:258".parse().unwrap());
        let mut expected = vec![0; 28];
        expected[..2].copy_from_slice(&10u16.to_ne_bytes());
        expected[2..4].copy_from_slice(&[1, 2]);
        expected[8..10].copy_from_slice(&[0xfe, 0x80]);
        expected[23] = 1;
        expected[24..].copy_from_slice(&7u32.to_ne_bytes());
        assert_eq!(raw.bytes[..raw.len], expected);
    }

    #[test]
    fn what_was_laid_out_is_read_back_and_nothing_shorter() {
        for address in ["192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%7]:258"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut raw = RawAddress::new(address);
            assert_eq!(raw.decode(), Some(address));
            raw.set_len(raw.len() - 1);
            assert_eq!(raw.decode(), None);
        }
    }

    #[test]
    fn another_family_is_no_address() {
        let mut raw = RawAddress::new("192.0.2.1:51820".parse().unwrap());
        raw.bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(raw.decode(), None);
    }
}
