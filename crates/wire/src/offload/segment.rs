//! Cuts a super-packet into the packets that it stands for.
//!
//! [`SuperPacket::parse`] reads the headers once and keeps the sum of all header fields that the segments share.
//! [`SuperPacket::write_segment`] then costs a copy, a sum over the payload and a few stores. Each segment is written
//! where it is needed, usually in front of the place where it will be sealed.

use etherparse::Ipv4HeaderSlice;

use super::{Segmentation, VirtioHeader};
use crate::ip::{Chain, Header, IPV6_HEADER_LEN, Ip, Packet, TCP, UDP};
use crate::{Malformed, checksum};

const TCP_SEQUENCE: usize = 4;
const TCP_OFFSET_AND_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;
const TCP_FIN_AND_PSH: u16 = 0x0009;
const TCP_CWR: u16 = 0x0080;

const UDP_HEADER_LEN: usize = 8;
const UDP_LEN: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// A checked super-packet, ready to be cut into segments.
#[derive(Clone, Copy, Debug)]
pub struct SuperPacket<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    /// At least 1.
    segment_size: usize,
    network: Network,
    transport: Transport,
    /// Where the TCP or UDP header begins.
    transport_at: usize,
    /// The sum of the pseudo header and the transport header, without the fields that differ between segments.
    transport_sum: u32,
}

#[derive(Clone, Copy, Debug)]
enum Network {
    V4 {
        /// The sum of the header, without the fields that differ between segments.
        sum: u32,
        id: u16,
    },
    V6,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { sequence: u32, offset_and_flags: u16 },
    Udp,
}

impl<'a> SuperPacket<'a> {
    /// Checks a super-packet. Header lengths come from the headers themselves, because the virtio header's `header_len`
    /// may be wrong. Checksums are computed afresh for every segment.
    ///
    /// # Errors
    /// Returns [`Malformed`] if the virtio header names no segmentation, a type that does not match the packet's
    /// protocol, or a segment size of zero; if the packet is incomplete or a fragment; and if it is source-routed,
    /// because the checksum then covers a final destination that stands elsewhere.
    pub fn parse(header: &VirtioHeader, packet: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Packet::parse(packet)?;
        let upper = packet.upper().map_err(|_| Malformed)?;
        if upper.fragment.is_some() || is_source_routed(&packet) || header.segment_size == 0 {
            return Err(Malformed);
        }
        let at = upper.offset;
        let bytes = packet.bytes();
        let (transport, headers_len) = match (header.segmentation, packet.ip(), upper.header) {
            (Segmentation::TcpV4, Ip::V4(_), Header::Tcp { .. })
            | (Segmentation::TcpV6, Ip::V6(_), Header::Tcp { .. }) => {
                let tcp = &bytes[at..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                let offset_and_flags = word(tcp, TCP_OFFSET_AND_FLAGS);
                (Transport::Tcp { sequence, offset_and_flags }, at + usize::from(offset_and_flags >> 12) * 4)
            }
            (Segmentation::Udp, _, Header::Udp { .. }) => {
                if usize::from(word(&bytes[at..], UDP_LEN)) != bytes.len() - at {
                    return Err(Malformed);
                }
                (Transport::Udp, at + UDP_HEADER_LEN)
            }
            _ => return Err(Malformed),
        };
        let (headers, payload) = bytes.split_at(headers_len);
        Ok(Self {
            headers,
            payload,
            segment_size: usize::from(header.segment_size),
            network: Network::of(&packet),
            transport,
            transport_at: at,
            transport_sum: pseudo_sum(&packet, &transport) + transport.shared_sum(&headers[at..]),
        })
    }

    /// Length of the headers in front of each segment's payload, in bytes.
    #[inline]
    pub fn headers_len(&self) -> usize {
        self.headers.len()
    }

    /// Length of the super-packet's whole payload, in bytes.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Payload bytes in each segment except the last.
    #[inline]
    pub fn segment_size(&self) -> usize {
        self.segment_size
    }

    /// Reduces the segment size so that no packet is longer than `max_packet_len` bytes. It never exceeds the size in
    /// the virtio header. Returns whether the segments became smaller.
    ///
    /// Some packets cannot be cut further and stay as they are: UDP, because the sender decides where its datagrams
    /// end, and TCP whose headers leave no room for a single byte. The caller can tell by the
    /// [`SuperPacket::segment_len`] of segment 0, which is the longest.
    pub fn limit_segment(&mut self, max_packet_len: usize) -> bool {
        let room = max_packet_len.saturating_sub(self.headers.len());
        let is_longer = self.segment_size.min(self.payload.len()) > room;
        if !is_longer || room == 0 || matches!(self.transport, Transport::Udp) {
            return false;
        }
        self.segment_size = room;
        true
    }

    /// The number of segments, at least one.
    #[inline]
    pub fn segments(&self) -> usize {
        self.payload.len().div_ceil(self.segment_size).max(1)
    }

    /// Length of the packet for segment `index`, in bytes.
    ///
    /// # Panics
    /// Panics if `index` is not below [`SuperPacket::segments`].
    #[inline]
    pub fn segment_len(&self, index: usize) -> usize {
        self.headers.len() + self.segment_payload(index).len()
    }

    /// Writes segment `index` to the start of `out` as a whole, finished IP packet, and returns its length in bytes.
    ///
    /// As in Linux, the IPv4 identification increases by one for each segment. Only the last segment has FIN and PSH,
    /// and only the first has CWR (RFC 3168 section 6.1.2).
    ///
    /// # Panics
    /// Panics if `index` is not below [`SuperPacket::segments`], or if `out` is shorter than
    /// [`SuperPacket::segment_len`].
    #[inline]
    pub fn write_segment(&self, index: usize, out: &mut [u8]) -> usize {
        let payload = self.segment_payload(index);
        let len = self.headers.len() + payload.len();
        let (headers, body) = out[..len].split_at_mut(self.headers.len());
        headers.copy_from_slice(self.headers);
        body.copy_from_slice(payload);

        let (network, transport) = headers.split_at_mut(self.transport_at);
        self.write_network(index, len, network);
        let sum = self.transport_sum + checksum::sum(body);
        match self.transport {
            Transport::Tcp { sequence, offset_and_flags } => {
                let sequence = sequence.wrapping_add((index * self.segment_size) as u32);
                let offset_and_flags = offset_and_flags & !self.flags_absent_from(index);
                let tcp_len = (len - self.transport_at) as u32;
                let sum = sum + (sequence >> 16) + (sequence & 0xffff) + u32::from(offset_and_flags) + tcp_len;
                transport[TCP_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
                set_word(transport, TCP_OFFSET_AND_FLAGS, offset_and_flags);
                set_word(transport, TCP_CHECKSUM, checksum::finish(sum));
            }
            Transport::Udp => {
                let udp_len = (len - self.transport_at) as u16;
                // The length counts twice: in the pseudo header and in the UDP header.
                let sum = sum + 2 * u32::from(udp_len);
                set_word(transport, UDP_LEN, udp_len);
                set_word(transport, UDP_CHECKSUM, checksum::finish_nonzero(sum));
            }
        }
        len
    }

    #[inline]
    fn segment_payload(&self, index: usize) -> &'a [u8] {
        let start = index * self.segment_size;
        assert!(index == 0 || start < self.payload.len(), "there is no segment {index}");
        let rest = &self.payload[start..];
        &rest[..rest.len().min(self.segment_size)]
    }

    #[inline]
    fn write_network(&self, index: usize, len: usize, header: &mut [u8]) {
        match self.network {
            Network::V4 { sum, id } => {
                let id = id.wrapping_add(index as u16);
                set_word(header, 2, len as u16);
                set_word(header, 4, id);
                set_word(header, 10, checksum::finish(sum + len as u32 + u32::from(id)));
            }
            Network::V6 => set_word(header, 4, (len - IPV6_HEADER_LEN) as u16),
        }
    }

    #[inline]
    fn flags_absent_from(&self, index: usize) -> u16 {
        let mut absent = 0;
        if index > 0 {
            absent |= TCP_CWR;
        }
        if (index + 1) * self.segment_size < self.payload.len() {
            absent |= TCP_FIN_AND_PSH;
        }
        absent
    }
}

impl Network {
    fn of(packet: &Packet<'_>) -> Self {
        match packet.ip() {
            Ip::V4(header) => {
                let [counted_a, counted_b, counted_c] = [0..2, 6..10, 12..header.slice().len()];
                let sum = [counted_a, counted_b, counted_c].map(|part| checksum::sum(&header.slice()[part]));
                Self::V4 { sum: sum.iter().sum(), id: header.identification() }
            }
            Ip::V6(_) => Self::V6,
        }
    }
}

impl Transport {
    /// The sum of a transport header without lengths, sequence number, flags and checksum.
    fn shared_sum(&self, header: &[u8]) -> u32 {
        match self {
            Self::Tcp { .. } => {
                checksum::sum(&header[..4])
                    + checksum::sum(&header[8..12])
                    + checksum::sum(&header[14..16])
                    + checksum::sum(&header[18..])
            }
            Self::Udp => checksum::sum(&header[..4]),
        }
    }
}

/// The sum of the pseudo header without its length.
fn pseudo_sum(packet: &Packet<'_>, transport: &Transport) -> u32 {
    let protocol = match transport {
        Transport::Tcp { .. } => TCP,
        Transport::Udp => UDP,
    };
    match packet.ip() {
        Ip::V4(header) => checksum::pseudo_v4(header.source_addr(), header.destination_addr(), protocol, 0),
        Ip::V6(header) => checksum::pseudo_v6(header.source_addr(), header.destination_addr(), protocol, 0),
    }
}

/// Whether the packet is source-routed. If so, its destination address may be an intermediate hop.
fn is_source_routed(packet: &Packet<'_>) -> bool {
    match packet.ip() {
        Ip::V4(header) => has_source_route(&header),
        Ip::V6(_) => Chain::follow(packet).is_ok_and(|chain| chain.is_routed),
    }
}

/// Whether the options include a loose or strict source route.
fn has_source_route(header: &Ipv4HeaderSlice<'_>) -> bool {
    let mut options = header.options();
    loop {
        options = match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => rest,
            [131 | 137, ..] => return true,
            [_, len @ 2..=255, ..] => options.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        };
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
