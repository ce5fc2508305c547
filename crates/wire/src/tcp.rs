//! Clamps the MSS option of TCP, so that both ends of a connection send segments that fit the tunnel.
//!
//! A route's MTU limits what this host sends. Only the MSS option limits what the remote end sends, and it works even
//! where ICMP is filtered (RFC 4459 section 3.2).

use crate::checksum;
use crate::ip::{Header, ICMPV6, Packet, TCP, UDP, Version};

/// The SYN flag. Only SYN and SYN-ACK segments may carry the option.
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: usize = 4;
/// Length of a TCP header without options, in bytes.
const HEADER_LEN: usize = 20;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// Lowers the MSS option of a SYN or SYN-ACK to what fits `mtu`, the inner MTU in bytes: `mtu` minus 40 for IPv4, minus
/// 60 for IPv6. The option is never raised, and a SYN without the option is left alone. Returns whether anything
/// changed.
///
/// The packet's checksum is updated, not recomputed, so it must already be finished. Nothing changes if the packet
/// cannot be read, if it is a later fragment, or if `mtu` has no room for a single byte of data.
pub fn clamp_mss(packet: &mut [u8], mtu: usize) -> bool {
    if is_plainly_no_syn(packet) {
        return false;
    }
    let Some((tcp_at, version)) = syn(packet) else { return false };
    let headers_len = match version {
        Version::V4 => 40,
        Version::V6 => 60,
    };
    // If the MTU allows more than the option can express, there is nothing to limit.
    let Some(limit) = mtu.checked_sub(headers_len).and_then(|limit| u16::try_from(limit).ok()) else { return false };
    limit > 0 && clamp_options(&mut packet[tcp_at..], limit)
}

/// A quick check that rules out nearly every packet: no options, no extension headers and no SYN.
#[inline]
fn is_plainly_no_syn(packet: &[u8]) -> bool {
    let lacks_syn = |flags_at: usize| packet.get(flags_at).is_some_and(|flags| flags & SYN == 0);
    match packet {
        [0x45, _, _, _, _, _, _, _, _, protocol, ..] => *protocol != TCP || lacks_syn(20 + FLAGS),
        [0x60..=0x6f, _, _, _, _, _, TCP, ..] => lacks_syn(40 + FLAGS),
        [0x60..=0x6f, _, _, _, _, _, UDP | ICMPV6, ..] => true,
        _ => false,
    }
}

/// Where the TCP header begins, if this packet has SYN.
fn syn(packet: &[u8]) -> Option<(usize, Version)> {
    let packet = Packet::parse(packet).ok()?;
    let upper = packet.upper().ok()?;
    match upper.header {
        Header::Tcp { flags, .. } if flags & SYN != 0 => Some((upper.offset, packet.version())),
        _ => None,
    }
}

/// Lowers every MSS option in a checked TCP header. If there are several, receivers differ in which one they use.
fn clamp_options(tcp: &mut [u8], limit: u16) -> bool {
    let header_len = usize::from(tcp[12] >> 4) * 4;
    let mut changed = false;
    let mut at = HEADER_LEN;
    while let Some(len) = option_len(&tcp[at..header_len]) {
        if tcp[at] == OPTION_MSS && len == OPTION_MSS_LEN {
            changed |= lower(tcp, at + 2, limit);
        }
        at += len;
    }
    changed
}

/// Length of the option at the start of `options`. `None` at the end of the options, or where a receiver stops reading.
fn option_len(options: &[u8]) -> Option<usize> {
    match *options {
        [] | [OPTION_END, ..] => None,
        [OPTION_NOP, ..] => Some(1),
        [_, len, ..] if (2..=options.len()).contains(&usize::from(len)) => Some(usize::from(len)),
        _ => None,
    }
}

/// Lowers the 16-bit number at `at` to `limit`.
fn lower(tcp: &mut [u8], at: usize, limit: u16) -> bool {
    let old = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if old <= limit {
        return false;
    }
    tcp[at..at + 2].copy_from_slice(&limit.to_be_bytes());

    let checksum = u16::from_be_bytes([tcp[CHECKSUM], tcp[CHECKSUM + 1]]);
    // After a single NOP the number straddles two checksum words, so its two bytes count in swapped positions.
    let checksum = if at.is_multiple_of(2) {
        checksum::update(checksum, old, limit)
    } else {
        checksum::update(checksum, old.swap_bytes(), limit.swap_bytes())
    };
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
