//! The Internet checksum (RFC 1071): sums over bytes and pseudo headers, and the incremental update of RFC 1624.
//!
//! A sum here is a `u32` that has already been folded to 16 bits, so a handful of sums can be added with `+` before
//! [`finish`]. Sums of parts add up correctly only if every part except the last has an even length.
//!
//! The bytes are added as native 64-bit words, and the result is converted to network order at the end. One's
//! complement addition allows that (RFC 1071 section 2). Four independent 128-bit sums compile to an add and an
//! add-with-carry for each word, which is twice as fast as what the compiler makes of 16-bit or 32-bit lanes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The folded one's complement sum of `bytes` as big-endian 16-bit words. An odd last byte is padded with zero. The
/// result lies between 0 and 65,535. It is zero only if every byte is zero.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0u128; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u128::from(u64::from_ne_bytes(*word));
        }
    }
    // 2^64 and 2^32 are both 1 in 16-bit one's complement, so the parts can be added to each other as they are.
    let total = lanes.iter().sum::<u128>();
    let mut total = u64::from(total as u32) + u64::from((total >> 32) as u32) + (total >> 64) as u64;

    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));

    u32::from(u16::from_be(fold_wide(total)))
}

/// The sum of the IPv4 pseudo header that a TCP, UDP or ICMP checksum covers. `len` is the length of the upper header
/// and its payload in bytes.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + len_sum(len)
}

/// The sum of the IPv6 pseudo header that a TCP, UDP or ICMPv6 checksum covers. `len` is the length of the upper header
/// and its payload in bytes. If the packet has a routing header, `destination` is the final destination.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + len_sum(len)
}

/// Folds a sum of sums to 16 bits.
#[inline]
pub fn fold(sum: u32) -> u16 {
    fold_wide(u64::from(sum))
}

/// The checksum for a sum of sums: folded, then complemented.
#[inline]
pub fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// Like [`finish`], for fields where zero means "no checksum" (UDP). It returns the other one's complement zero
/// (0xffff) instead.
#[inline]
pub fn finish_nonzero(sum: u32) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The checksum after one 16-bit word that it covers changed from `old` to `new` (RFC 1624, equation 3). Swap the bytes
/// of a word that stands at an odd offset.
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

#[inline]
fn len_sum(len: usize) -> u32 {
    // IPv6 counts the length in 32 bits, but no packet is long enough to need the upper ones.
    u32::from(fold_wide(len as u64))
}

#[inline]
fn fold_wide(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
