//! Packets built byte by byte, independent of the code that parses them.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_wire::ip::Version;

pub(super) const V4: Version = Version::V4;
pub(super) const V6: Version = Version::V6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

const fn host(v4: [u8; 4], last: u16) -> Host {
    Host { v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]), v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last) }
}

pub(super) const US: Host = host([10, 77, 0, 1], 1);
/// A second address of ours.
pub(super) const US_TOO: Host = host([10, 77, 0, 9], 9);
pub(super) const PEER: Host = host([10, 77, 0, 2], 2);
/// A host in the peer's network.
pub(super) const PEER_NET: Host = host([192, 168, 5, 5], 0x55);

/// Builds a packet of any protocol. For IPv6, `protocol` may be an extension header at the start of `payload`.
pub(super) fn packet(v: Version, from: Host, to: Host, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16;
    let mut bytes = match v {
        V4 => {
            let [high, low] = (20 + len).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(from.v4.octets());
            header.extend(to.v4.octets());
            header
        }
        V6 => {
            let [high, low] = len.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend(from.v6.octets());
            header.extend(to.v6.octets());
            header
        }
    };
    bytes.extend(payload);
    bytes
}

/// Builds a fragment. `offset` is in units of 8 bytes.
#[expect(clippy::too_many_arguments, reason = "they are a header's fields")]
pub(super) fn fragment(
    v: Version,
    from: Host,
    to: Host,
    protocol: u8,
    id: u16,
    offset: u16,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    match v {
        V4 => {
            let mut bytes = packet(V4, from, to, protocol, payload);
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
            bytes
        }
        V6 => packet(V6, from, to, 44, &[&fragment_header(protocol, id, offset, more)[..], payload].concat()),
    }
}

pub(super) fn fragment_header(next: u8, id: u16, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    [next, 0, high, low, 0, 0, id_high, id_low]
}

/// Builds hop-by-hop or destination options that hold one padding option. `len` is in units of 8 bytes.
pub(super) fn options(next: u8, len: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(len) * 8];
    header[..4].copy_from_slice(&[next, len - 1, 1, len * 8 - 4]);
    header
}

pub(super) fn tcp_bytes(source: u16, destination: u16, flags: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[12] = 0x50;
    bytes[13] = flags;
    bytes
}

pub(super) fn udp_bytes(source: u16, destination: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    bytes
}

pub(super) fn tcp(v: Version, from: Host, to: Host, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    packet(v, from, to, 6, &tcp_bytes(source, destination, flags, 20))
}

pub(super) fn udp(v: Version, from: Host, to: Host, source: u16, destination: u16) -> Vec<u8> {
    packet(v, from, to, 17, &udp_bytes(source, destination, 12))
}

pub(super) fn icmp_protocol(v: Version) -> u8 {
    if v == V4 { 1 } else { 58 }
}

pub(super) fn echo_request_packet(v: Version, from: Host, to: Host, id: u16) -> Vec<u8> {
    let kind = if v == V4 { 8 } else { 128 };
    packet(v, from, to, icmp_protocol(v), &[kind, 0, 0, 0, (id >> 8) as u8, id as u8, 0, 1])
}

pub(super) fn echo_reply_packet(v: Version, from: Host, to: Host, id: u16) -> Vec<u8> {
    let kind = if v == V4 { 0 } else { 129 };
    packet(v, from, to, icmp_protocol(v), &[kind, 0, 0, 0, (id >> 8) as u8, id as u8, 0, 1])
}

/// Builds an ICMP packet that is neither echo nor an error.
pub(super) fn icmp_packet(v: Version, from: Host, to: Host, kind: u8) -> Vec<u8> {
    packet(v, from, to, icmp_protocol(v), &[kind, 0, 0, 0, 0, 0, 0, 0])
}

pub(super) fn unreachable_kind(v: Version) -> u8 {
    if v == V4 { 3 } else { 1 }
}

/// Builds an ICMP error that quotes what RFC 792 requires: the IP header and eight bytes.
pub(super) fn icmp_error(v: Version, from: Host, to: Host, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let quote = &quoted[..(if v == V4 { 28 } else { 48 })];
    packet(v, from, to, icmp_protocol(v), &[&[kind, 1, 0, 0, 0, 0, 0, 0][..], quote].concat())
}
