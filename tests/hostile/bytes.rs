//! Handwritten packets, byte by byte and without the code under attack: honest packets, and the parts that malicious
//! ones are made of. Checksums are correct, so that the victim's kernel accepts what gets through.

use std::net::IpAddr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// The IPv6 fragment header.
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// The source and destination that a packet claims. Both have the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// From `source` to `destination`, given as text.
pub(crate) fn ends(source: &str, destination: &str) -> Ends {
    let parse = |text: &str| text.parse().unwrap_or_else(|_| panic!("`{text}` is not an address"));
    Ends { source: parse(source), destination: parse(destination) }
}

impl Ends {
    /// The opposite direction.
    pub(crate) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    pub(crate) fn is_v4(self) -> bool {
        self.source.is_ipv4()
    }

    /// The protocol number of the family's ICMP.
    pub(crate) fn icmp_protocol(self) -> u8 {
        if self.is_v4() { ICMP } else { ICMPV6 }
    }

    /// An IP header and its payload. In IPv6, `protocol` may be an extension header that `payload` begins with.
    pub(crate) fn ip(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [high, low] = (20 + payload.len() as u16).to_be_bytes();
                let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [high, low] = (payload.len() as u16).to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("{self:?} are of two families"),
        };
        packet.extend(payload);
        if self.is_v4() {
            finish_v4_header(&mut packet);
        }
        packet
    }

    /// A UDP packet.
    pub(crate) fn udp(self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        self.ip(UDP, &self.udp_bytes(source, destination, data))
    }

    /// The bytes of a UDP packet after the IP header.
    pub(crate) fn udp_bytes(self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend((8 + data.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        self.finish(UDP, &mut bytes, 6);
        bytes
    }

    /// A TCP packet without data.
    pub(crate) fn tcp(self, source: u16, destination: u16, flags: u8) -> Vec<u8> {
        self.ip(TCP, &self.tcp_bytes(source, destination, 1, flags, &[]))
    }

    /// The bytes of a TCP packet after the IP header: a header of 20 bytes, and data.
    pub(crate) fn tcp_bytes(self, source: u16, destination: u16, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(data);
        self.finish(TCP, &mut bytes, 16);
        bytes
    }

    /// An echo request.
    pub(crate) fn echo_request(self, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        let [id_high, id_low] = identifier.to_be_bytes();
        let [sequence_high, sequence_low] = sequence.to_be_bytes();
        let kind = if self.is_v4() { 8 } else { 128 };
        self.icmp(kind, 0, [id_high, id_low, sequence_high, sequence_low], data)
    }

    /// A packet of the family's ICMP: type, code, the four bytes whose meaning depends on the type, and the body.
    pub(crate) fn icmp(self, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
        self.ip(self.icmp_protocol(), &self.icmp_bytes(kind, code, rest, body))
    }

    /// The bytes of that packet after the IP header.
    pub(crate) fn icmp_bytes(self, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest);
        bytes.extend(body);
        self.finish(self.icmp_protocol(), &mut bytes, 2);
        bytes
    }

    /// A fragment with this payload. `offset` is in units of 8 bytes.
    pub(crate) fn fragment(self, protocol: u8, id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        if !self.is_v4() {
            let header = fragment_header(protocol, id, offset, more);
            return self.ip(FRAGMENT, &[&header[..], payload].concat());
        }
        let mut packet = self.ip(protocol, payload);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        finish_v4_header(&mut packet);
        packet
    }

    /// Writes the checksum of an upper header at offset `at`.
    fn finish(self, protocol: u8, bytes: &mut [u8], at: usize) {
        bytes[at..at + 2].fill(0);
        let mut pseudo = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            _ => panic!("{self:?} are of two families"),
        }
        pseudo.extend([0, protocol]);
        pseudo.extend((bytes.len() as u16).to_be_bytes());
        let covered = if protocol == ICMP { bytes.to_vec() } else { [&pseudo[..], bytes].concat() };
        let sum = match checksum(&covered) {
            0 if protocol == UDP => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// An IPv6 fragment header. `offset` is in units of 8 bytes.
pub(crate) fn fragment_header(next: u8, id: u16, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    [next, 0, high, low, 0, 0, id_high, id_low]
}

/// IPv6 hop-by-hop or destination options with a length of `units` times 8 bytes. They have one option, which receivers
/// skip.
pub(crate) fn options(next: u8, units: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(units) * 8];
    header[..4].copy_from_slice(&[next, units - 1, 0x1e, units * 8 - 4]);
    header
}

/// The same packet with these bytes at `at`, and a correct IPv4 header checksum.
pub(crate) fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    if packet[0] >> 4 == 4 && packet.len() >= 20 {
        finish_v4_header(&mut packet);
    }
    packet
}

/// Writes the checksum of an IPv4 header, even if the header is incomplete.
pub(crate) fn finish_v4_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let len = (usize::from(packet[0] & 0x0f) * 4).min(packet.len());
    let sum = checksum(&packet[..len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
