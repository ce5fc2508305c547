//! Echo requests of an exact length and the replies to them: path MTU probes that every peer answers, whatever software
//! it runs.
//!
//! A reply is as long as its request. If it exceeds the peer's own MTU, it comes in fragments. The first fragment
//! already proves that the request arrived whole. Later fragments are ignored.
//!
//! Left out: the checksum of a reply. It cannot be verified from a first fragment, and the reply came out of a session.

use std::net::IpAddr;

use super::{HEADER_LEN, header_v4, header_v6};
use crate::checksum;
use crate::ip::{Header, ICMP, ICMPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, TCP, UDP, Version};

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// A reply to an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// The address that replied.
    pub source: IpAddr,
    /// Identifier of the request.
    pub id: u16,
    /// Sequence number of the request.
    pub sequence: u16,
}

/// Writes an echo request to the front of `out` as a whole IP packet of exactly `len` bytes with DF set. Its data are
/// zeros.
///
/// Returns false, with nothing written, if the addresses belong to different families, if `len` is too small for the
/// headers (28 bytes, 48 in IPv6) or above 65,535, or if `out` is shorter than `len`.
pub fn write_echo_request(
    source: IpAddr,
    destination: IpAddr,
    id: u16,
    sequence: u16,
    len: usize,
    out: &mut [u8],
) -> bool {
    let ip_header_len = if source.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
    if !(ip_header_len + HEADER_LEN..=usize::from(u16::MAX)).contains(&len) {
        return false;
    }
    let Some(packet) = out.get_mut(..len) else { return false };
    let (header, message) = packet.split_at_mut(ip_header_len);
    let (kind, pseudo) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.copy_from_slice(&header_v4(source, destination, 0, message.len()));
            (ECHO_REQUEST_V4, 0)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.copy_from_slice(&header_v6(source, destination, message.len()));
            (ECHO_REQUEST_V6, checksum::pseudo_v6(source, destination, ICMPV6, message.len()))
        }
        _ => return false,
    };
    message.fill(0);
    message[0] = kind;
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum::finish(pseudo + checksum::sum(&message[..HEADER_LEN]));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Whether a packet may be an echo reply, judged by its protocol number alone. This is cheap enough for every packet,
/// and [`echo_reply`] gives the exact answer. In IPv6 a reply may stand behind extension headers, so only TCP and UDP
/// are ruled out.
#[inline]
pub fn may_be_echo_reply(packet: &[u8]) -> bool {
    match packet {
        [0x40..=0x4f, ..] => packet.get(9) == Some(&ICMP),
        [0x60..=0x6f, ..] => !matches!(packet.get(6), None | Some(&(TCP | UDP))),
        _ => false,
    }
}

/// The echo reply in a packet, which may be whole or a first fragment. `None` for everything else, later fragments
/// included. There is no proof that anyone sent the request: callers must compare identifier and sequence number with
/// their own.
pub fn echo_reply(packet: &Packet<'_>) -> Option<EchoReply> {
    let upper = packet.upper().ok()?;
    let reply = match packet.version() {
        Version::V4 => ECHO_REPLY_V4,
        Version::V6 => ECHO_REPLY_V6,
    };
    match upper.header {
        Header::Icmp { kind, code: 0, id } if kind == reply => {
            let sequence = packet.bytes().get(upper.offset + 6..upper.offset + 8)?;
            Some(EchoReply { source: packet.source(), id, sequence: u16::from_be_bytes([sequence[0], sequence[1]]) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
