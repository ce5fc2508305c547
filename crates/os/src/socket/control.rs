//! Control messages: information that accompanies a datagram (cmsg(3)).
//!
//! Each consists of a header with length, level and kind, then its data, then padding to the size of a pointer. The
//! length includes the header but not the padding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const WORD: usize = size_of::<usize>();
const HEADER_LEN: usize = WORD + 8;

/// A buffer for control messages, larger than everything that our sockets request or send.
#[repr(C, align(8))]
#[derive(Clone, Debug)]
pub(crate) struct ControlBuffer {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Default for ControlBuffer {
    fn default() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }
}

impl ControlBuffer {
    /// Packet info, traffic class, hop limit and segment size together take 112 bytes where a pointer has 8 bytes.
    pub(crate) const CAPACITY: usize = 128;

    /// Appends one message.
    ///
    /// # Panics
    /// Panics if there is no space left, which only a change of this crate can cause.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let end = self.len + HEADER_LEN + data.len();
        assert!(end <= Self::CAPACITY, "a control message too many");
        let message = &mut self.bytes[self.len..end];
        message[..WORD].copy_from_slice(&(HEADER_LEN + data.len()).to_ne_bytes());
        message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        message[WORD + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_LEN..].copy_from_slice(data);
        self.len = end.next_multiple_of(WORD);
    }

    /// Requests that the kernel cut the data into datagrams of this many bytes (UDP_SEGMENT).
    pub(crate) fn push_segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Sets the source address and the outgoing interface (`in_pktinfo`, `in6_pktinfo`).
    pub(crate) fn push_source(&mut self, ip: IpAddr, interface: u32) {
        let interface = interface.to_ne_bytes();
        match ip {
            IpAddr::V4(ip) => {
                let mut info = [0; 12];
                info[..4].copy_from_slice(&interface);
                info[4..8].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(ip) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                info[16..].copy_from_slice(&interface);
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Sets the traffic class.
    pub(crate) fn push_traffic_class(&mut self, is_ipv4: bool, class: u8) {
        let (level, kind) = match is_ipv4 {
            true => (libc::IPPROTO_IP, libc::IP_TOS),
            false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        self.push(level, kind, &i32::from(class).to_ne_bytes());
    }

    /// Sets how many hops the datagram lives. The kernel refuses 0.
    pub(crate) fn push_hop_limit(&mut self, is_ipv4: bool, hops: u8) {
        let (level, kind) = match is_ipv4 {
            true => (libc::IPPROTO_IP, libc::IP_TTL),
            false => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
        };
        self.push(level, kind, &i32::from(hops).to_ne_bytes());
    }

    pub(super) fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sets how many bytes the kernel wrote.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(Self::CAPACITY);
    }
}

/// A control message that one of our sockets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlMessage {
    /// UDP_GRO: the length of each datagram except the last, in bytes.
    Stride(usize),
    /// The destination address, and the index of the incoming interface.
    Local(IpAddr, u32),
    /// The traffic class.
    TrafficClass(u8),
    /// The remaining hops.
    HopLimit(u8),
    /// NETLINK_LISTEN_ALL_NSID: the number of the network namespace that a notice is about. Absent for our own
    /// namespace.
    Namespace(i32),
}

/// The messages in `buffer` that we know. Others are skipped.
pub(crate) fn control_messages(buffer: &ControlBuffer) -> impl Iterator<Item = ControlMessage> {
    let mut rest = &buffer.bytes[..buffer.len];
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(*rest.first_chunk()?);
        let level = i32::from_ne_bytes(*rest.get(WORD..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*rest.get(WORD + 4..)?.first_chunk()?);
        let data = rest.get(HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some(decode(level, kind, data))
    })
    .flatten()
}

fn decode(level: i32, kind: i32, data: &[u8]) -> Option<ControlMessage> {
    let int = || Some(u32::from_ne_bytes(*data.first_chunk()?));
    Some(match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => ControlMessage::Stride(int()? as usize),
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let ip: [u8; 4] = *data.get(4..)?.first_chunk()?;
            ControlMessage::Local(Ipv4Addr::from(ip).into(), int()?)
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let ip: [u8; 16] = *data.first_chunk()?;
            ControlMessage::Local(Ipv6Addr::from(ip).into(), u32::from_ne_bytes(*data.get(16..)?.first_chunk()?))
        }
        // This one has a single byte. The others are ints.
        (libc::IPPROTO_IP, libc::IP_TOS) => ControlMessage::TrafficClass(*data.first()?),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ControlMessage::TrafficClass(int()? as u8),
        (libc::IPPROTO_IP, libc::IP_TTL) => ControlMessage::HopLimit(int()? as u8),
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => ControlMessage::HopLimit(int()? as u8),
        (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) => ControlMessage::Namespace(int()? as i32),
        _ => return None,
    })
}

#[cfg(all(test, target_pointer_width = "64", target_endian = "little"))]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> ControlBuffer {
        let mut buffer = ControlBuffer::default();
        buffer.bytes[..bytes.len()].copy_from_slice(bytes);
        buffer.set_len(bytes.len());
        buffer
    }

    #[test]
    fn a_segment_size_is_18_bytes_padded_to_24() {
        let mut buffer = ControlBuffer::default();
        buffer.push_segment_size(1452);
        let expected = [18, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 103, 0, 0, 0, 0xac, 0x05, 0, 0, 0, 0, 0, 0];
        assert_eq!(buffer.bytes[..buffer.len], expected);
    }

    #[test]
    fn an_ipv4_source_stands_in_spec_dst() {
        let mut buffer = ControlBuffer::default();
        buffer.push_source("192.0.2.1".parse().unwrap(), 7);
        let expected = [
            28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, // length, IPPROTO_IP, IP_PKTINFO
            7, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, // interface, spec_dst, addr
            0, 0, 0, 0,
        ];
        assert_eq!(buffer.bytes[..buffer.len], expected);
    }

    #[test]
    fn everything_a_train_needs_fits_at_once() {
        let mut buffer = ControlBuffer::default();
        buffer.push_source(Ipv6Addr::LOCALHOST.into(), 1);
        buffer.push_traffic_class(false, 1);
        buffer.push_hop_limit(false, 2);
        buffer.push_segment_size(1452);
        assert_eq!(buffer.len, 40 + 24 + 24 + 24);
    }

    #[test]
    fn messages_are_read_in_order_and_unknown_ones_passed_over() {
        let buffer = received(&[
            20, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 104, 0, 0, 0, 0xac, 0x05, 0, 0, 0, 0, 0, 0, // UDP_GRO 1452
            20, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 99, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, // unknown
            17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // IP_TOS 3
        ]);
        let messages: Vec<_> = control_messages(&buffer).collect();
        assert_eq!(messages, [ControlMessage::Stride(1452), ControlMessage::TrafficClass(3)]);
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        for len in [0, 15, 21, 255] {
            let buffer = received(&[len, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 104, 0, 0, 0, 1, 0, 0, 0]);
            assert_eq!(control_messages(&buffer).next(), None, "length {len}");
        }
        let buffer = received(&[20, 0, 0, 0, 0, 0, 0, 0, 17, 0]);
        assert_eq!(control_messages(&buffer).next(), None);
    }
}
