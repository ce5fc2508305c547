//! Inner packets made from scratch: the packets that an application or a kernel would pass to TUN.
//!
//! This covers only what scenarios need: UDP, TCP SYN and ICMP echo over IPv4 and IPv6, with valid checksums. It parses
//! just as little: UDP payloads, and echo requests for the kernel's reply.

use std::net::IpAddr;

use overlay_wire::checksum;
use overlay_wire::ip::{Header, ICMP, ICMPV6, IPV4_HEADER_LEN, Packet, TCP, UDP};

const UDP_HEADER_LEN: usize = 8;
const ICMP_ECHO_LEN: usize = 8;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// The DF flag of IPv4.
const DF: u8 = 0x40;

/// The two inner addresses of a packet to be made. Both have the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
}

impl Ends {
    /// A packet from `source` to `destination`.
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self { source: source.into(), destination: destination.into() }
    }

    /// The addresses of a packet in the opposite direction.
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    /// UDP from port 4660 to port 9, the discard port.
    pub fn udp(self, payload: &[u8]) -> Vec<u8> {
        self.udp_between(4660, 9, payload)
    }

    /// UDP between these two ports.
    pub fn udp_between(self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let len = (UDP_HEADER_LEN + payload.len()) as u16;
        let mut datagram = Vec::with_capacity(usize::from(len));
        datagram.extend(source_port.to_be_bytes());
        datagram.extend(destination_port.to_be_bytes());
        datagram.extend(len.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        let sum = checksum::finish_nonzero(self.pseudo(UDP, datagram.len()) + checksum::sum(&datagram));
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        self.ip(UDP, &datagram)
    }

    /// The first segment of a TCP connection, with this MSS.
    pub fn tcp_syn(self, source_port: u16, destination_port: u16, mss: u16) -> Vec<u8> {
        const SYN: u8 = 0x02;
        const DATA_OFFSET_24: u8 = 6 << 4;
        let mut segment = Vec::with_capacity(24);
        segment.extend(source_port.to_be_bytes());
        segment.extend(destination_port.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, DATA_OFFSET_24, SYN, 0xff, 0xff, 0, 0, 0, 0, 2, 4]);
        segment.extend(mss.to_be_bytes());
        let sum = checksum::finish(self.pseudo(TCP, segment.len()) + checksum::sum(&segment));
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.ip(TCP, &segment)
    }

    /// An echo request with this payload.
    pub fn echo_request(self, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { ECHO_REQUEST_V4 } else { ECHO_REQUEST_V6 };
        self.echo(kind, identifier, sequence, payload)
    }

    fn echo(self, kind: u8, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(payload);
        let (protocol, pseudo) = match self.source {
            IpAddr::V4(_) => (ICMP, 0),
            IpAddr::V6(_) => (ICMPV6, self.pseudo(ICMPV6, message.len())),
        };
        let sum = checksum::finish(pseudo + checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.ip(protocol, &message)
    }

    /// An IP header in front of `payload`: no options, a TTL of 64, DF for IPv4.
    pub fn ip(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = (IPV4_HEADER_LEN + payload.len()) as u16;
                let mut header = vec![0x45, 0];
                header.extend(len.to_be_bytes());
                header.extend([0, 0, DF, 0, 64, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum::finish(checksum::sum(&header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((payload.len() as u16).to_be_bytes());
                header.extend([protocol, 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("{self:?} are of two families"),
        };
        packet.extend(payload);
        packet
    }

    fn pseudo(self, protocol: u8, len: usize) -> u32 {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => checksum::pseudo_v4(source, destination, protocol, len),
            (IpAddr::V6(source), IpAddr::V6(destination)) => checksum::pseudo_v6(source, destination, protocol, len),
            _ => panic!("{self:?} are of two families"),
        }
    }
}

/// The payload of an unfragmented UDP packet. `None` for any other packet.
pub fn udp_payload(packet: &[u8]) -> Option<&[u8]> {
    let packet = Packet::parse(packet).ok()?;
    let upper = packet.upper().ok()?;
    match upper.header {
        Header::Udp { .. } if upper.fragment.is_none() => packet.bytes().get(upper.offset + UDP_HEADER_LEN..),
        _ => None,
    }
}

/// The destination kernel's reply to an echo request. `None` for any other packet.
pub(crate) fn echo_reply(request: &[u8]) -> Option<Vec<u8>> {
    let echo = Echo::of(request).filter(|echo| echo.is_request)?;
    let kind = if echo.ends.source.is_ipv4() { ECHO_REPLY_V4 } else { ECHO_REPLY_V6 };
    Some(echo.ends.reversed().echo(kind, echo.identifier, echo.sequence, echo.payload))
}

/// An echo request or an echo reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Source and destination.
    pub ends: Ends,
    /// Whether it is a request.
    pub is_request: bool,
    /// Identifies the program that sent the request.
    pub identifier: u16,
    /// The number of the request.
    pub sequence: u16,
    /// The payload, which the reply repeats unchanged.
    pub payload: &'a [u8],
}

impl<'a> Echo<'a> {
    /// Parses an echo. `None` for any other packet.
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        let packet = Packet::parse(packet).ok()?;
        let header_len = packet.header_len();
        let message = packet.bytes().get(header_len..).filter(|message| message.len() >= ICMP_ECHO_LEN)?;
        let is_request = match (packet.protocol(), message[0]) {
            (ICMP, ECHO_REQUEST_V4) | (ICMPV6, ECHO_REQUEST_V6) => true,
            (ICMP, ECHO_REPLY_V4) | (ICMPV6, ECHO_REPLY_V6) => false,
            _ => return None,
        };
        Some(Self {
            ends: Ends::new(packet.source(), packet.destination()),
            is_request,
            identifier: u16::from_be_bytes([message[4], message[5]]),
            sequence: u16::from_be_bytes([message[6], message[7]]),
            payload: &message[ICMP_ECHO_LEN..],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// The vector comes from an independent program. The tests of `overlay_wire` use the same packets.
    #[test]
    fn udp_has_the_bytes_that_the_rfcs_ask_for() {
        let ends = Ends::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
        let mut packet = ends.udp_between(0x1234, 53, b"abc");
        assert_eq!(packet[24..], [0x00, 0x0b, 0x3c, 0xd5, b'a', b'b', b'c']);
        // The vector has identification 1234, which changes the header's checksum by that much.
        assert_eq!(u16::from_be_bytes([packet[10], packet[11]]), 0x3c63 + 0x1234);
        assert_eq!(udp_payload(&packet), Some(&b"abc"[..]));
        packet.truncate(30);
        assert_eq!(udp_payload(&packet), None);

        let v6 = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        let packet = Ends::new(v6(1), v6(2)).udp_between(0x1234, 53, b"abc");
        assert_eq!(packet[44..48], [0x00, 0x0b, 0xcd, 0x97]);
    }

    #[test]
    fn a_ping_is_answered_with_what_it_carried() {
        let ends = Ends::new(Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        let reply = echo_reply(&ends.echo_request(7, 9, b"payload")).expect("a ping");
        let echo = Echo::of(&reply).expect("an echo reply");
        assert_eq!(echo.ends, ends.reversed());
        assert_eq!((echo.is_request, echo.identifier, echo.sequence, echo.payload), (false, 7, 9, &b"payload"[..]));
        assert_eq!(checksum::fold(checksum::sum(&reply[20..])), 0xffff);
        assert_eq!(echo_reply(&reply), None);
    }
}
