//! The Internet checksum (RFC 1071): sums over bytes and pseudo headers, and the incremental update of RFC 1624.
//!
//! A sum here is a `u32` that was folded to 16 bits, so that a handful of them can be added with `+` before
//! [`finish`]. Sums add up only if each part but the last has an even length.
//!
//! The bytes are added as native 64-bit words and put into network order at the end: one's complement addition does
//! not mind (RFC 1071 section 2). Four independent sums of 128 bits become an add and an add-with-carry per word,
//! which is twice as fast as what the compiler makes of 16-bit or 32-bit lanes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The folded one's complement sum of `bytes` as big-endian 16-bit words; an odd last byte is padded with zero.
/// Between 0 and 65,535; zero only if every byte is.
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
    // 2^64 is 1 in one's complement of 16 bits, and so is 2^32: every part may be added to every other.
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

/// What the checksum of TCP, UDP or ICMP counts of an IPv4 header. `len` is that of the upper header and its payload
/// in bytes.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + len_sum(len)
}

/// What the checksum of TCP, UDP or ICMPv6 counts of an IPv6 header. `len` is that of the upper header and its
/// payload in bytes; `destination` is the final one where a routing header stands in between.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + len_sum(len)
}

/// Folds a sum of sums to 16 bits.
#[inline]
pub fn fold(sum: u32) -> u16 {
    fold_wide(u64::from(sum))
}

/// The checksum that a sum of sums makes: its complement, folded.
#[inline]
pub fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// As [`finish`], for fields where zero says "no checksum" (UDP): the other zero of one's complement in its place.
#[inline]
pub fn finish_nonzero(sum: u32) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3). A word that stands
/// at an odd offset is passed with its bytes swapped.
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

#[inline]
fn len_sum(len: usize) -> u32 {
    // IPv6 counts the length in 32 bits; a packet's never needs the upper ones.
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
