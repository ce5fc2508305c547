//! Joining the segments of a TCP flow into the super-packet that they were cut from, as the kernel's GRO does.
//!
//! Segments join only when cutting the result again would give them back: same headers but for length, IPv4 id and
//! sequence number, each the next in sequence, all but the last of one size, and only the last one pushed. Never across
//! ECN marks, IP options, fragments, SYN, FIN, RST or URG. Their checksums are not looked at: they come out of a session
//! that has authenticated them, and the kernel is told to make a new one.

use crate::ip::{IPV6_HEADER_LEN, TCP};
use crate::offload::{Segmentation, VirtioHeader};
use crate::{checksum, ip};

const IPV4_HEADER_LEN: usize = 20;
const TCP_CHECKSUM: usize = 16;
const TCP_FLAGS: usize = 13;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// The longest packet that IP can name.
const MAX_LEN: usize = 65_535;

/// A super-packet in the making. The caller keeps the bytes: the first segment whole, of each further one the payload.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    version: ip::Version,
    transport_at: usize,
    headers_len: usize,
    segment_size: usize,
    len: usize,
    segments: usize,
    next_sequence: u32,
    next_id: u16,
    /// Nothing may follow.
    is_complete: bool,
    is_pushed: bool,
}

impl Join {
    /// Begins with a whole packet; `None` when it is no plain TCP segment with payload.
    #[inline]
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let (version, transport_at, id) = match packet {
            [0x45, _, _, _, id0, id1, f0, f1, _, TCP, ..] if (f0 & 0x3f) | f1 == 0 => {
                (ip::Version::V4, IPV4_HEADER_LEN, u16::from_be_bytes([*id0, *id1]))
            }
            [0x60..=0x6f, _, _, _, _, _, TCP, ..] => (ip::Version::V6, IPV6_HEADER_LEN, 0),
            _ => return None,
        };
        let tcp = packet.get(transport_at..)?;
        let headers_len = transport_at + usize::from(tcp.get(12)? >> 4) * 4;
        let flags = tcp.get(TCP_FLAGS)?;
        if headers_len < transport_at + 20 || packet.len() <= headers_len || flags & !PSH != ACK {
            return None;
        }
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().ok()?);
        let segment_size = packet.len() - headers_len;
        Some(Self {
            version,
            transport_at,
            headers_len,
            segment_size,
            len: packet.len(),
            segments: 1,
            next_sequence: sequence.wrapping_add(segment_size as u32),
            next_id: id.wrapping_add(1),
            is_complete: flags & PSH != 0,
            is_pushed: false,
        })
    }

    /// How many segments there are.
    #[inline]
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Adds the packet `next` if it continues the super-packet that began with `first`; tells where its payload begins.
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
        let (old, new) = (&first[..headers_len], &next[..headers_len]);
        let same_network = match self.version {
            ip::Version::V4 => {
                let id = u16::from_be_bytes([new[4], new[5]]);
                // Either ids count up, or the packet may not be fragmented and its id means nothing (RFC 6864).
                let is_atomic = new[6] & 0x40 != 0;
                old[..2] == new[..2]
                    && old[6..10] == new[6..10]
                    && old[12..20] == new[12..20]
                    && (is_atomic || id == self.next_id)
            }
            ip::Version::V6 => old[..4] == new[..4] && old[6..40] == new[6..40],
        };
        let (old, new) = (&old[at..], &new[at..]);
        let sequence = u32::from_be_bytes([new[4], new[5], new[6], new[7]]);
        let same_transport = old[..4] == new[..4]
            && sequence == self.next_sequence
            && old[8..13] == new[8..13]
            && new[TCP_FLAGS] & !PSH == ACK
            && old[14..16] == new[14..16]
            && old[20..] == new[20..];
        if !same_network || !same_transport {
            return None;
        }
        self.len += payload_len;
        self.segments += 1;
        self.next_sequence = sequence.wrapping_add(payload_len as u32);
        self.next_id = self.next_id.wrapping_add(1);
        self.is_complete = payload_len < self.segment_size || new[TCP_FLAGS] & PSH != 0;
        self.is_pushed |= new[TCP_FLAGS] & PSH != 0;
        Some(headers_len)
    }

    /// Rewrites the headers of the first segment for all of them, and says how the kernel is to read them.
    #[inline]
    pub fn finish(&self, first: &mut [u8]) -> VirtioHeader {
        if self.segments == 1 {
            return VirtioHeader::NONE;
        }
        let tcp_len = self.len - self.transport_at;
        let (network, tcp) = first.split_at_mut(self.transport_at);
        let pseudo = match self.version {
            ip::Version::V4 => {
                network[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                network[10..12].fill(0);
                let sum = checksum::finish(checksum::sum(network));
                network[10..12].copy_from_slice(&sum.to_be_bytes());
                checksum::sum(&network[12..20])
            }
            ip::Version::V6 => {
                network[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
                checksum::sum(&network[8..40])
            }
        };
        if self.is_pushed {
            tcp[TCP_FLAGS] |= PSH;
        }
        let partial = checksum::fold(pseudo + u32::from(TCP) + tcp_len as u32);
        tcp[TCP_CHECKSUM..][..2].copy_from_slice(&partial.to_be_bytes());
        VirtioHeader {
            needs_checksum: true,
            segmentation: match self.version {
                ip::Version::V4 => Segmentation::TcpV4,
                ip::Version::V6 => Segmentation::TcpV6,
            },
            header_len: self.headers_len as u16,
            segment_size: self.segment_size as u16,
            checksum_start: self.transport_at as u16,
            checksum_offset: TCP_CHECKSUM as u16,
            ..VirtioHeader::NONE
        }
    }
}

#[cfg(test)]
mod tests;
