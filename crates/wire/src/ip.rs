//! IP packets, version 4 and 6: a checked view, the layer above the IP header, and fragmentation for a smaller MTU.
//!
//! [`Packet::parse`] is for every packet. It compares version, header length and total length once, and each accessor
//! is then a single load. [`Packet::upper`] is for callers that need ports. It follows the chain of IPv6 extension
//! headers and recognises fragments.
//!
//! Left out: verifying the IPv4 header checksum (the kernel that receives the packet does that, and a packet that came
//! out of a session was authenticated), and reassembly.

mod fragment;
mod upper;

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

pub use fragment::fragment_v4;
pub(crate) use upper::Chain;
pub use upper::{Fragment, Header, Opaque, Upper};

use crate::Malformed;

/// Protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of an IPv6 header without extension headers, in bytes.
pub const IPV6_HEADER_LEN: usize = 40;

/// What every link carries for IPv6, in bytes (RFC 8200 section 5): its senders need not, and Linux does not, send less.
pub const IPV6_MINIMUM_MTU: usize = 1_280;

/// The longest packet that its sender is not told to be too long, on a path that carries `mtu` bytes.
pub fn least_mtu(packet: &[u8], mtu: usize) -> usize {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    if is_v6 { mtu.max(IPV6_MINIMUM_MTU) } else { mtu }
}

/// IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One whole IP packet. Its version, header length and total length agree with each other and with the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    ip: Ip<'a>,
}

/// The checked IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ip<'a> {
    V4(Ipv4HeaderSlice<'a>),
    V6(Ipv6HeaderSlice<'a>),
}

impl<'a> Packet<'a> {
    /// Parses the packet at the start of `bytes`. Bytes after its total length (WireGuard's padding) are cut off.
    ///
    /// # Errors
    /// Returns [`Malformed`] if it is neither IPv4 nor IPv6, if its lengths contradict each other, or if it is
    /// incomplete.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (ip, len) = header(bytes)?;
        let bytes = bytes.get(..len).ok_or(Malformed)?;
        Ok(Self { bytes, ip })
    }

    /// Like [`Packet::parse`], for the beginning of a packet as an ICMP error quotes it. The bytes may end before the
    /// packet's total length.
    ///
    /// # Errors
    /// Those of [`Packet::parse`], except that an incomplete packet is accepted.
    pub fn parse_start(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (ip, len) = header(bytes)?;
        Ok(Self { bytes: &bytes[..len.min(bytes.len())], ip })
    }

    /// The packet's bytes, from the first of its IP header to the last of its payload.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The packet's total length in bytes, including the IP header. At least 20.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a packet has a header, it is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The IP version.
    #[inline]
    pub fn version(&self) -> Version {
        match self.ip {
            Ip::V4(_) => Version::V4,
            Ip::V6(_) => Version::V6,
        }
    }

    /// Length of the IP header in bytes. It includes the options of IPv4 but not the extension headers of IPv6.
    #[inline]
    pub fn header_len(&self) -> usize {
        match self.ip {
            Ip::V4(header) => header.slice().len(),
            Ip::V6(_) => IPV6_HEADER_LEN,
        }
    }

    /// The source address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        match self.ip {
            Ip::V4(header) => IpAddr::V4(header.source_addr()),
            Ip::V6(header) => IpAddr::V6(header.source_addr()),
        }
    }

    /// The destination address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        match self.ip {
            Ip::V4(header) => IpAddr::V4(header.destination_addr()),
            Ip::V6(header) => IpAddr::V6(header.destination_addr()),
        }
    }

    /// The protocol field of IPv4, or the first next header of IPv6, which may be an extension header.
    #[inline]
    pub fn protocol(&self) -> u8 {
        match self.ip {
            Ip::V4(header) => header.protocol().0,
            Ip::V6(header) => header.next_header().0,
        }
    }

    /// The two bits of explicit congestion notification (RFC 3168): 0 to 3.
    #[inline]
    pub fn ecn(&self) -> u8 {
        match self.ip {
            Ip::V4(header) => header.ecn().value(),
            Ip::V6(header) => header.ecn().value(),
        }
    }

    /// Whether routers must not fragment this packet. Always true for IPv6.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        match self.ip {
            Ip::V4(header) => header.dont_fragment(),
            Ip::V6(_) => true,
        }
    }

    #[inline]
    pub(crate) fn ip(&self) -> Ip<'a> {
        self.ip
    }
}

/// The IP header at the start of `bytes`, and its total length field, which covers at least that header.
#[inline]
fn header(bytes: &[u8]) -> Result<(Ip<'_>, usize), Malformed> {
    match bytes.first().ok_or(Malformed)? >> 4 {
        4 => {
            let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| Malformed)?;
            let len = usize::from(header.total_len());
            if len < header.slice().len() {
                return Err(Malformed);
            }
            Ok((Ip::V4(header), len))
        }
        6 => {
            let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| Malformed)?;
            Ok((Ip::V6(header), IPV6_HEADER_LEN + usize::from(header.payload_length())))
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;
