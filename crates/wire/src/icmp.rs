//! ICMP and ICMPv6 errors: writing the two that we answer with, and reading the flow that a passing error is about.
//! Also echo requests and replies.
//!
//! An answer goes into the TUN, to the local sender of a packet that we refused. Its source address is the refused
//! packet's destination: Linux ignores an error that comes from one of its own addresses, and we do not know of another
//! address that is reachable. RFC 1122 section 3.2.2 and RFC 4443 section 2.4 say when not to answer.

mod echo;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use echo::{EchoReply, echo_reply, may_be_echo_reply, write_echo_request};

use crate::checksum;
use crate::ip::{Chain, Header, ICMP, ICMPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, Upper, Version};

/// Length of the ICMP header in front of the quote, in bytes. It is the same in both families.
const HEADER_LEN: usize = 8;

/// The longest message over IPv4, in bytes: the size that every host accepts (RFC 1812 section 4.3.2.3).
const MAX_LEN_V4: usize = 576;
/// The longest message over IPv6, in bytes: IPv6's minimum MTU (RFC 4443 section 2.4 c).
const MAX_LEN_V6: usize = 1280;

const HOP_LIMIT: u8 = 64;
/// Type of service "internetwork control", which Linux and RFC 1812 section 4.3.2.5 use for errors.
const INTERNETWORK_CONTROL: u8 = 0xc0;

const DESTINATION_UNREACHABLE_V4: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
const PROHIBITED_V4: u8 = 13;
const PROHIBITED_V6: u8 = 1;
const PROTOCOL_UNREACHABLE: u8 = 2;
const PORT_UNREACHABLE_V4: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const DESTINATION_UNREACHABLE_V6: u8 = 1;
const ADDRESS_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;
const PARAMETER_PROBLEM_V6: u8 = 4;
const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const REDIRECT_V6: u8 = 137;

/// The flow that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The source address of the quoted packet.
    pub source: IpAddr,
    /// The destination address of the quoted packet.
    pub destination: IpAddr,
    /// The protocol number of the last header.
    pub protocol: u8,
    /// The first fields of that header. TCP flags are zero if the quote ends before them.
    pub header: Header,
}

/// What an ICMP error reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The packet is not an ICMP error.
    Nothing,
    /// An error about a packet with these addresses.
    About {
        /// The source address of the quoted packet.
        source: IpAddr,
        /// The destination address of the quoted packet.
        destination: IpAddr,
    },
    /// An error whose quote is left to later fragments.
    Hidden,
}

/// Returns which packet an ICMP error reports. Unlike [`quoted`], it needs only the addresses of that packet, which are
/// read even where the rest makes no sense: receivers differ in what they check. An error without addresses reports
/// nothing.
pub fn report(packet: &Packet<'_>) -> Report {
    let (offset, is_fragment) = match packet.upper() {
        Ok(Upper { offset, fragment, header: Header::Icmp { kind, .. }, .. }) if is_error(packet.version(), kind) => {
            (offset, fragment.is_some())
        }
        _ => return Report::Nothing,
    };
    let quote = packet.bytes().get(offset + HEADER_LEN..).unwrap_or_default();
    let ends = match packet.version() {
        Version::V4 => quote
            .get(12..20)
            .and_then(|ends| Some((ends.first_chunk::<4>()?, ends.last_chunk::<4>()?)))
            .map(|(source, destination)| (IpAddr::from(*source), IpAddr::from(*destination))),
        Version::V6 => quote
            .get(8..40)
            .and_then(|ends| Some((ends.first_chunk::<16>()?, ends.last_chunk::<16>()?)))
            .map(|(source, destination)| (IpAddr::from(*source), IpAddr::from(*destination))),
    };
    match ends {
        Some((source, destination)) => Report::About { source, destination },
        None if is_fragment => Report::Hidden,
        None => Report::Nothing,
    }
}

/// Writes ICMP "fragmentation needed" (RFC 1191) or ICMPv6 "packet too big" for a refused packet into `out`, as a whole
/// IP packet. `mtu` is the inner MTU in bytes. `out` is cleared first.
///
/// Returns false, with `out` empty, if an error must not be sent: for ICMP errors and redirects, for later fragments,
/// for addresses that are multicast, broadcast or unspecified, and for packets that cannot be read. The beginning of
/// the refused packet is enough ([`Packet::parse_start`]).
pub fn too_big(refused: &Packet<'_>, mtu: u16, out: &mut Vec<u8>) -> bool {
    let [high, low] = mtu.to_be_bytes();
    match refused.version() {
        Version::V4 => answer(refused, [DESTINATION_UNREACHABLE_V4, FRAGMENTATION_NEEDED], [0, 0, high, low], out),
        Version::V6 => answer(refused, [PACKET_TOO_BIG, 0], [0, 0, high, low], out),
    }
}

/// Writes ICMP "host unreachable" or ICMPv6 "address unreachable" for a refused packet into `out`, as WireGuard in the
/// kernel does. The rules are those of [`too_big`].
pub fn unreachable(refused: &Packet<'_>, out: &mut Vec<u8>) -> bool {
    match refused.version() {
        Version::V4 => answer(refused, [DESTINATION_UNREACHABLE_V4, HOST_UNREACHABLE], [0; 4], out),
        Version::V6 => answer(refused, [DESTINATION_UNREACHABLE_V6, ADDRESS_UNREACHABLE], [0; 4], out),
    }
}

/// Writes ICMP "communication administratively prohibited" (RFC 1812, RFC 4443) for a refused packet into `out`. The rules
/// are those of [`too_big`].
pub fn prohibited(refused: &Packet<'_>, out: &mut Vec<u8>) -> bool {
    match refused.version() {
        Version::V4 => answer(refused, [DESTINATION_UNREACHABLE_V4, PROHIBITED_V4], [0; 4], out),
        Version::V6 => answer(refused, [DESTINATION_UNREACHABLE_V6, PROHIBITED_V6], [0; 4], out),
    }
}

/// Whether an ICMP or ICMPv6 type is an error message. Errors quote the packet they are about.
pub fn is_error(version: Version, kind: u8) -> bool {
    match version {
        // Unreachable, source quench, redirect, time exceeded and parameter problem (RFC 1122 section 3.2.2).
        Version::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // RFC 4443 section 2.1.
        Version::V6 => kind < 128,
    }
}

/// The flow that an ICMP error quotes.
///
/// Returns `None` if `packet` is not an error, if it quotes fewer than eight bytes above IP, or if the quoted chain of
/// headers cannot be followed. The quoted packet may be cut short, and usually is. There is no proof that the quoted
/// packet was ever sent: callers must look for the flow in their own tables.
pub fn quoted(packet: &Packet<'_>) -> Option<Quoted> {
    let upper = packet.upper().ok()?;
    match upper.header {
        Header::Icmp { kind, .. } if is_error(packet.version(), kind) => {}
        _ => return None,
    }
    let quote = Packet::parse_start(packet.bytes().get(upper.offset + HEADER_LEN..)?).ok()?;
    if quote.version() != packet.version() {
        return None;
    }
    let chain = Chain::follow(&quote).ok()?;
    let header = chain.quoted_header(&quote).ok()?;
    Some(Quoted { source: quote.source(), destination: quote.destination(), protocol: chain.protocol, header })
}

/// The flow of a packet that its destination refuses because nothing there takes it: ICMP "protocol unreachable" and "port
/// unreachable", ICMPv6 "port unreachable" and "unrecognized next header".
///
/// Returns `None` for everything else, also for an error that does not come from the destination of the quoted packet or
/// does not go to its source. See [`quoted`].
pub fn refused(packet: &Packet<'_>) -> Option<Quoted> {
    let Header::Icmp { kind, code, .. } = packet.upper().ok()?.header else { return None };
    let is_refusal = match packet.version() {
        Version::V4 => kind == DESTINATION_UNREACHABLE_V4 && matches!(code, PROTOCOL_UNREACHABLE | PORT_UNREACHABLE_V4),
        Version::V6 => matches!(
            (kind, code),
            (DESTINATION_UNREACHABLE_V6, PORT_UNREACHABLE_V6) | (PARAMETER_PROBLEM_V6, UNRECOGNIZED_NEXT_HEADER)
        ),
    };
    let is_for = |quoted: &Quoted| (quoted.source, quoted.destination) == (packet.destination(), packet.source());
    if is_refusal { quoted(packet).filter(is_for) } else { None }
}

/// Writes an error. `rest` is the four bytes in front of the quote.
fn answer(refused: &Packet<'_>, kind_and_code: [u8; 2], rest: [u8; 4], out: &mut Vec<u8>) -> bool {
    out.clear();
    if !may_be_answered(refused) {
        return false;
    }
    match (refused.source(), refused.destination()) {
        (IpAddr::V4(sender), IpAddr::V4(receiver)) => {
            let quote = &refused.bytes()[..refused.len().min(MAX_LEN_V4 - IPV4_HEADER_LEN - HEADER_LEN)];
            out.extend_from_slice(&header_v4(receiver, sender, INTERNETWORK_CONTROL, HEADER_LEN + quote.len()));
            write_message(kind_and_code, rest, quote, 0, out);
        }
        (IpAddr::V6(sender), IpAddr::V6(receiver)) => {
            let quote = &refused.bytes()[..refused.len().min(MAX_LEN_V6 - IPV6_HEADER_LEN - HEADER_LEN)];
            let len = HEADER_LEN + quote.len();
            out.extend_from_slice(&header_v6(receiver, sender, len));
            write_message(kind_and_code, rest, quote, checksum::pseudo_v6(receiver, sender, ICMPV6, len), out);
        }
        _ => return false,
    }
    true
}

fn may_be_answered(refused: &Packet<'_>) -> bool {
    let names_one_host = |address: IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_multicast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
    };
    if !names_one_host(refused.source()) || !names_one_host(refused.destination()) {
        return false;
    }
    // The bytes that an error would quote are enough to decide, since only the beginning of a packet that was already
    // sent is kept.
    match Chain::follow(refused).and_then(|chain| chain.quoted_header(refused)) {
        Ok(Header::Icmp { kind: REDIRECT_V6, .. }) if refused.version() == Version::V6 => false,
        Ok(Header::Icmp { kind, .. }) => !is_error(refused.version(), kind),
        Ok(Header::LaterFragment) => false,
        Ok(_) => true,
        // A packet that cannot be followed might hide an error.
        Err(_) => false,
    }
}

/// An IPv4 header with DF set. `len` is the length of the message behind it.
fn header_v4(source: Ipv4Addr, destination: Ipv4Addr, class: u8, len: usize) -> [u8; IPV4_HEADER_LEN] {
    const DONT_FRAGMENT: u8 = 0x40;
    let mut header = [0; IPV4_HEADER_LEN];
    header[0] = 0x45;
    header[1] = class;
    header[2..4].copy_from_slice(&((IPV4_HEADER_LEN + len) as u16).to_be_bytes());
    header[6] = DONT_FRAGMENT;
    header[8] = HOP_LIMIT;
    header[9] = ICMP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = checksum::finish(checksum::sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// An IPv6 header. `len` is the length of the message behind it.
fn header_v6(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> [u8; IPV6_HEADER_LEN] {
    let mut header = [0; IPV6_HEADER_LEN];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = ICMPV6;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}

/// Writes the message. Its checksum includes `pseudo`: zero for ICMP, the sum of the pseudo header for ICMPv6.
fn write_message(kind_and_code: [u8; 2], rest: [u8; 4], quote: &[u8], pseudo: u32, out: &mut Vec<u8>) {
    let sum = pseudo + checksum::sum(&kind_and_code) + checksum::sum(&rest) + checksum::sum(quote);
    out.extend_from_slice(&kind_and_code);
    out.extend_from_slice(&checksum::finish(sum).to_be_bytes());
    out.extend_from_slice(&rest);
    out.extend_from_slice(quote);
}

#[cfg(test)]
mod tests;
