//! Joins packets of one flow into a super-packet, as the kernel's GRO does.
//!
//! Packets are joined only if cutting the result would give them back. Their headers must be the same except for
//! length, IPv4 identification and the fields that count the payload. All packets except the last must have the same
//! size. TCP segments must be in sequence, and only the last one may have PSH. These are never joined: different ECN
//! marks, IP options, fragments, SYN, FIN, RST or URG, and UDP without a checksum. Other checksums are not verified:
//! the packets come out of a session that authenticated them, and the kernel is told to compute a new checksum.

use crate::ip::{IPV6_HEADER_LEN, TCP, UDP};
use crate::offload::{Segmentation, VirtioHeader};
use crate::{checksum, ip};

const IPV4_HEADER_LEN: usize = 20;
const TCP_CHECKSUM: usize = 16;
const TCP_FLAGS: usize = 13;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const UDP_HEADER_LEN: usize = 8;
const UDP_LEN: usize = 4;
const UDP_CHECKSUM: usize = 6;
/// The longest packet that an IP length field can express, in bytes.
const MAX_LEN: usize = 65_535;
/// The most datagrams that the kernel cuts a UDP super-packet into (its UDP_MAX_SEGMENTS before Linux 6.9).
const MAX_DATAGRAMS: usize = 64;

/// The protocols to join: those that the reader of the super-packets accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Joins {
    /// Whether to join TCP segments.
    pub tcp: bool,
    /// Whether to join UDP datagrams.
    pub udp: bool,
}

impl Joins {
    /// Joins nothing. Every packet stays separate.
    pub const NOTHING: Self = Self { tcp: false, udp: false };
}

/// A super-packet under construction. The caller keeps the bytes: the whole first packet, then the payloads of the
/// others.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    version: ip::Version,
    transport: Transport,
    transport_at: usize,
    headers_len: usize,
    segment_size: usize,
    len: usize,
    segments: usize,
    next_id: u16,
    /// Whether the super-packet is full or ended, so that no packet may follow.
    is_complete: bool,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { next_sequence: u32, is_pushed: bool },
    Udp,
}

impl Join {
    /// Begins with a whole packet. Returns `None` if its protocol is not in `joins`, or if it has no payload.
    #[inline]
    pub fn begin(packet: &[u8], joins: Joins) -> Option<Self> {
        let (version, transport_at, protocol, id) = match packet {
            [0x45, _, _, _, id0, id1, f0, f1, _, protocol, ..] if (f0 & 0x3f) | f1 == 0 => {
                (ip::Version::V4, IPV4_HEADER_LEN, *protocol, u16::from_be_bytes([*id0, *id1]))
            }
            [0x60..=0x6f, _, _, _, _, _, protocol, ..] => (ip::Version::V6, IPV6_HEADER_LEN, *protocol, 0),
            _ => return None,
        };
        let upper = packet.get(transport_at..)?;
        let (transport, header_len, is_complete) = match protocol {
            TCP if joins.tcp => {
                let header_len = usize::from(upper.get(12)? >> 4) * 4;
                let flags = upper.get(TCP_FLAGS)?;
                if header_len < 20 || upper.len() <= header_len || flags & !PSH != ACK {
                    return None;
                }
                let sequence = u32::from_be_bytes(upper[4..8].try_into().ok()?);
                let next_sequence = sequence.wrapping_add((upper.len() - header_len) as u32);
                (Transport::Tcp { next_sequence, is_pushed: false }, header_len, flags & PSH != 0)
            }
            UDP if joins.udp && is_plain_datagram(upper) => (Transport::Udp, UDP_HEADER_LEN, false),
            _ => return None,
        };
        Some(Self {
            version,
            transport,
            transport_at,
            headers_len: transport_at + header_len,
            segment_size: upper.len() - header_len,
            len: packet.len(),
            segments: 1,
            next_id: id.wrapping_add(1),
            is_complete,
        })
    }

    /// The number of packets joined so far.
    #[inline]
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Adds the packet `next` if it continues the super-packet that began with `first`. Returns where its payload
    /// begins.
    #[inline]
    pub fn append(&mut self, first: &[u8], next: &[u8]) -> Option<usize> {
        let (at, headers_len) = (self.transport_at, self.headers_len);
        if self.is_complete || next.len() <= headers_len || first.len() < headers_len {
            return None;
        }
        let payload_len = next.len() - headers_len;
        if payload_len > self.segment_size || self.len + payload_len > MAX_LEN {
            return None;
        }
        if !self.continues_network(&first[..at], &next[..at]) {
            return None;
        }
        let (old, new) = (&first[at..headers_len], &next[at..headers_len]);
        let is_last = match &mut self.transport {
            Transport::Tcp { next_sequence, is_pushed } => {
                let sequence = u32::from_be_bytes([new[4], new[5], new[6], new[7]]);
                let continues = old[..4] == new[..4]
                    && sequence == *next_sequence
                    && old[8..13] == new[8..13]
                    && new[TCP_FLAGS] & !PSH == ACK
                    && old[14..16] == new[14..16]
                    && old[20..] == new[20..];
                if !continues {
                    return None;
                }
                *next_sequence = sequence.wrapping_add(payload_len as u32);
                *is_pushed = new[TCP_FLAGS] & PSH != 0;
                *is_pushed
            }
            Transport::Udp => {
                if old[..4] != new[..4] || !is_plain_datagram(&next[at..]) {
                    return None;
                }
                self.segments + 1 == MAX_DATAGRAMS
            }
        };
        self.len += payload_len;
        self.segments += 1;
        self.next_id = self.next_id.wrapping_add(1);
        self.is_complete = is_last || payload_len < self.segment_size;
        Some(headers_len)
    }

    #[inline]
    fn continues_network(&self, old: &[u8], new: &[u8]) -> bool {
        match self.version {
            ip::Version::V4 => {
                let id = u16::from_be_bytes([new[4], new[5]]);
                // The ids must count up, unless DF is set, when the id has no meaning (RFC 6864).
                let is_atomic = new[6] & 0x40 != 0;
                old[..2] == new[..2]
                    && old[6..10] == new[6..10]
                    && old[12..20] == new[12..20]
                    && (is_atomic || id == self.next_id)
            }
            ip::Version::V6 => old[..4] == new[..4] && old[6..40] == new[6..40],
        }
    }

    /// Rewrites the headers of the first packet to cover all packets, and returns the virtio header for the kernel.
    #[inline]
    pub fn finish(&self, first: &mut [u8]) -> VirtioHeader {
        if self.segments == 1 {
            return VirtioHeader::NONE;
        }
        let upper_len = self.len - self.transport_at;
        let (network, upper) = first.split_at_mut(self.transport_at);
        let addresses = match self.version {
            ip::Version::V4 => {
                network[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                network[10..12].fill(0);
                let sum = checksum::finish(checksum::sum(network));
                network[10..12].copy_from_slice(&sum.to_be_bytes());
                checksum::sum(&network[12..20])
            }
            ip::Version::V6 => {
                network[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
                checksum::sum(&network[8..40])
            }
        };
        let (protocol, checksum_at, segmentation) = match self.transport {
            Transport::Tcp { is_pushed, .. } => {
                if is_pushed {
                    upper[TCP_FLAGS] |= PSH;
                }
                let segmentation = match self.version {
                    ip::Version::V4 => Segmentation::TcpV4,
                    ip::Version::V6 => Segmentation::TcpV6,
                };
                (TCP, TCP_CHECKSUM, segmentation)
            }
            Transport::Udp => {
                upper[UDP_LEN..][..2].copy_from_slice(&(upper_len as u16).to_be_bytes());
                (UDP, UDP_CHECKSUM, Segmentation::Udp)
            }
        };
        let partial = checksum::fold(addresses + u32::from(protocol) + upper_len as u32);
        upper[checksum_at..][..2].copy_from_slice(&partial.to_be_bytes());
        VirtioHeader {
            needs_checksum: true,
            segmentation,
            header_len: self.headers_len as u16,
            segment_size: self.segment_size as u16,
            checksum_start: self.transport_at as u16,
            checksum_offset: checksum_at as u16,
            ..VirtioHeader::NONE
        }
    }
}

/// Whether these bytes are one whole UDP datagram with payload and a checksum.
#[inline]
fn is_plain_datagram(upper: &[u8]) -> bool {
    let &[_, _, _, _, len0, len1, sum0, sum1, _, ..] = upper else { return false };
    usize::from(u16::from_be_bytes([len0, len1])) == upper.len() && (sum0 | sum1) != 0
}

#[cfg(test)]
mod tests;
