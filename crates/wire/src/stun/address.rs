//! Addresses in attributes: as they are, and XORed with what the header begins with (RFC 8489 sections 14.1 and 14.2).
//!
//! ```text
//! 8 bits 0 | 8 bits family, 1 or 2 | 16 bits port | 4 or 16 bytes address
//! ```
//!
//! Some routers replace their own addresses wherever they find them in a packet. The XOR hides an address from them.

use std::net::{IpAddr, SocketAddr};

use super::{HEADER_LEN, MAGIC_COOKIE, TransactionId};
use crate::Malformed;

const V4: u8 = 1;
const V6: u8 = 2;
/// Length of an IPv4 address with its port, in bytes.
pub(super) const V4_LEN: usize = 8;
/// Length of an IPv6 address with its port, in bytes.
pub(super) const V6_LEN: usize = 20;

/// What the address is XORed with: the magic cookie, and for IPv6 the transaction id behind it.
type Mask = [u8; 16];

pub(super) fn len(address: SocketAddr) -> usize {
    if address.is_ipv4() { V4_LEN } else { V6_LEN }
}

pub(super) fn read(value: &[u8]) -> Result<SocketAddr, Malformed> {
    read_masked(value, &[0; 16])
}

/// Reads an address of the message with this header.
pub(super) fn read_xor(value: &[u8], header: &[u8; HEADER_LEN]) -> Result<SocketAddr, Malformed> {
    let [_, _, _, _, mask @ ..] = *header;
    read_masked(value, &mask)
}

pub(super) fn write(address: SocketAddr, into: &mut Vec<u8>) {
    write_masked(address, &[0; 16], into);
}

pub(super) fn write_xor(address: SocketAddr, id: TransactionId, into: &mut Vec<u8>) {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&id.0);
    write_masked(address, &mask, into);
}

/// The first byte has no meaning, and receivers ignore it.
fn read_masked(value: &[u8], mask: &Mask) -> Result<SocketAddr, Malformed> {
    let (&[_, family, p0, p1], ip) = value.split_first_chunk::<4>().ok_or(Malformed)?;
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let ip = match family {
        V4 => IpAddr::from(masked(<[u8; 4]>::try_from(ip).map_err(|_| Malformed)?, mask)),
        V6 => IpAddr::from(masked(<[u8; 16]>::try_from(ip).map_err(|_| Malformed)?, mask)),
        _ => return Err(Malformed),
    };
    Ok(SocketAddr::new(ip, port))
}

fn write_masked(address: SocketAddr, mask: &Mask, into: &mut Vec<u8>) {
    let [p0, p1] = address.port().to_be_bytes();
    into.extend([0, if address.is_ipv4() { V4 } else { V6 }, p0 ^ mask[0], p1 ^ mask[1]]);
    match address.ip() {
        IpAddr::V4(ip) => into.extend(masked(ip.octets(), mask)),
        IpAddr::V6(ip) => into.extend(masked(ip.octets(), mask)),
    }
}

fn masked<const N: usize>(mut octets: [u8; N], mask: &Mask) -> [u8; N] {
    octets.iter_mut().zip(mask).for_each(|(octet, bits)| *octet ^= bits);
    octets
}
