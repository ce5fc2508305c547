//! The layer above the IP header: the chain of IPv6 extension headers, fragments, and the first fields of TCP, UDP and
//! ICMP.
//!
//! The allowlist relies on this, so it assumes a hostile sender. It returns ports only if every receiver would read the
//! same ports from the packet. If that is not certain, it returns the reason ([`Opaque`]), and the caller fails closed.
//! The three evasions of RFC 1858, RFC 3128 and RFC 7112 each have a name: a first fragment too short for its ports,
//! TCP at fragment offset 1, and a chain of headers that continues in a later fragment.
//!
//! Left out: ESP, whose content is encrypted (it counts as an upper protocol here), and verifying checksums.

use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, UdpHeaderSlice,
};

use super::{ICMP, ICMPV6, IPV6_HEADER_LEN, Ip, Packet, TCP, UDP, Version};

/// Protocols whose header begins with both ports, as those of TCP and UDP do (RFC 9260, RFC 4340, RFC 3828).
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// The most extension headers followed in one packet. Hosts send one or two. RFC 8504 section 5.3 allows a limit.
const MAX_EXTENSIONS: usize = 8;

/// The layer above IP, as far as this packet shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The last header's protocol number: TCP's, for example, not that of the extension header in front of it. For a
    /// later fragment of IPv6 it is the number in the fragment header.
    pub protocol: u8,
    /// Where that header begins, in bytes from the start of the packet. For a later fragment, where the payload begins.
    pub offset: usize,
    /// Set if this packet is a fragment. A fragment header on an unfragmented packet (RFC 6946) leaves it unset.
    pub fragment: Option<Fragment>,
    /// The header's first fields.
    pub header: Header,
}

/// Identifies a fragment: the packet it belongs to, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification, which all fragments of a packet share: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// The position of the fragment's payload in the original packet, in units of 8 bytes: 0 to 8,191.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Where that payload begins, in bytes from the start of this packet. In IPv6 that is right behind the fragment
    /// header, so extension headers that were cut along with the payload belong to it.
    pub start: usize,
}

/// The first fields of the upper header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The flags CWR, ECE, URG, ACK, PSH, RST, SYN and FIN, from the highest bit to the lowest.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// SCTP, DCCP or UDP-Lite, of which only the ports are read.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP in IPv4 or ICMPv6 in IPv6. Either of them inside the other IP version is [`Header::Other`].
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo request or reply. 0 for all other types.
        id: u16,
    },
    /// A different protocol, or no next header (59).
    Other,
    /// A later fragment, which shows nothing above IP.
    LaterFragment,
}

/// The reason why the chain of headers cannot be followed. An allowlist fails closed on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// An extension header of unknown layout (253 and 254, the experimental numbers).
    UnknownExtension,
    /// More extension headers than any real host sends, or two fragment headers.
    ChainTooLong,
    /// The packet ends before its headers do, or a length field in them claims so.
    Truncated,
    /// A first fragment that leaves some of the headers to later fragments.
    ShortFirstFragment,
    /// A fragment that would overwrite the TCP flags of an earlier one (RFC 1858 section 3.1).
    TcpAtOffsetOne,
}

impl Packet<'_> {
    /// The layer above IP, found through extension headers and fragmentation.
    ///
    /// # Errors
    /// Returns [`Opaque`] if that layer cannot be determined with certainty.
    #[inline]
    pub fn upper(&self) -> Result<Upper, Opaque> {
        let chain = Chain::follow(self)?;
        let header = chain.header(self)?;
        Ok(Upper { protocol: chain.protocol, offset: chain.offset, fragment: chain.fragment, header })
    }

    /// Whether this packet ends an association of SCTP or a connection of DCCP, as a kernel does that knows of none. `upper`
    /// is what [`Packet::upper`] returned.
    pub fn ends_association(&self, upper: &Upper) -> bool {
        let byte = |at: usize| self.bytes().get(upper.offset + at).copied();
        match (upper.protocol, upper.header) {
            // The first chunk is ABORT or SHUTDOWN COMPLETE (RFC 9260 sections 3.3.7 and 3.3.13).
            (SCTP, Header::Ports { .. }) => matches!(byte(12), Some(6 | 14)),
            // Reset (RFC 4340 section 5.1).
            (DCCP, Header::Ports { .. }) => byte(8).is_some_and(|byte| byte >> 1 & 0xf == 7),
            _ => false,
        }
    }
}

/// The path from the IP header to the upper header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) protocol: u8,
    /// The end of the packet at most.
    pub(crate) offset: usize,
    pub(crate) fragment: Option<Fragment>,
    /// Whether there is a routing header. If so, the destination address may not be the final one.
    pub(crate) is_routed: bool,
}

impl Chain {
    #[inline]
    pub(crate) fn follow(packet: &Packet<'_>) -> Result<Self, Opaque> {
        match packet.ip() {
            Ip::V4(header) => Ok(Self::of_v4(header)),
            Ip::V6(header) => Self::of_v6(header, packet.bytes()),
        }
    }

    #[inline]
    fn of_v4(header: Ipv4HeaderSlice<'_>) -> Self {
        let fragment = header.is_fragmenting_payload().then(|| Fragment {
            id: u32::from(header.identification()),
            offset: header.fragments_offset().value(),
            more: header.more_fragments(),
            start: header.slice().len(),
        });
        Self { protocol: header.protocol().0, offset: header.slice().len(), fragment, is_routed: false }
    }

    #[inline]
    fn of_v6(header: Ipv6HeaderSlice<'_>, bytes: &[u8]) -> Result<Self, Opaque> {
        let chain =
            Self { protocol: header.next_header().0, offset: IPV6_HEADER_LEN, fragment: None, is_routed: false };
        match chain.protocol {
            TCP | UDP | ICMPV6 => Ok(chain),
            _ => chain.extended(bytes),
        }
    }

    /// Steps over the extension headers that begin here.
    fn extended(mut self, bytes: &[u8]) -> Result<Self, Opaque> {
        let mut has_fragment_header = false;
        for _ in 0..=MAX_EXTENSIONS {
            let rest = &bytes[self.offset..];
            let (next, len) = match self.protocol {
                // Hop-by-hop options, routing, destination options, mobility, HIP and shim6 share one layout.
                0 | 43 | 60 | 135 | 139 | 140 => {
                    let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| self.cut_short())?;
                    self.is_routed |= self.protocol == 43;
                    (header.next_header(), header.slice().len())
                }
                44 if has_fragment_header => return Err(Opaque::ChainTooLong),
                44 => {
                    let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| self.cut_short())?;
                    has_fragment_header = true;
                    if header.is_fragmenting_payload() {
                        self.fragment = Some(Fragment {
                            id: header.identification(),
                            offset: header.fragment_offset().value(),
                            more: header.more_fragments(),
                            start: self.offset + header.slice().len(),
                        });
                    }
                    (header.next_header(), header.slice().len())
                }
                // The authentication header counts its length differently.
                51 => {
                    let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| self.cut_short())?;
                    (header.next_header(), header.slice().len())
                }
                253 | 254 => return Err(Opaque::UnknownExtension),
                _ => return Ok(self),
            };
            self.protocol = next.0;
            self.offset += len;
            if self.is_later_fragment() {
                return Ok(self);
            }
        }
        Err(Opaque::ChainTooLong)
    }

    /// The first fields of the upper header, if the whole header is present.
    #[inline]
    fn header(&self, packet: &Packet<'_>) -> Result<Header, Opaque> {
        if self.is_later_fragment() {
            return self.later_fragment();
        }
        let bytes = &packet.bytes()[self.offset..];
        let header = match self.protocol {
            TCP => {
                let tcp = TcpHeaderSlice::from_slice(bytes).map_err(|_| self.cut_short())?;
                Header::Tcp { source: tcp.source_port(), destination: tcp.destination_port(), flags: tcp.slice()[13] }
            }
            UDP => {
                let udp = UdpHeaderSlice::from_slice(bytes).map_err(|_| self.cut_short())?;
                let len = usize::from(udp.length());
                // The length in a first fragment includes what later fragments carry.
                if len < udp.slice().len() || (self.fragment.is_none() && len > bytes.len()) {
                    return Err(Opaque::Truncated);
                }
                Header::Udp { source: udp.source_port(), destination: udp.destination_port() }
            }
            protocol if protocol == icmp_of(packet.version()) => {
                let header = bytes.first_chunk::<8>().ok_or(self.cut_short())?;
                icmp_header(packet.version(), header)
            }
            SCTP | DCCP | UDP_LITE => ports(bytes.first_chunk::<4>().ok_or(self.cut_short())?),
            _ => Header::Other,
        };
        Ok(header)
    }

    /// Like [`Chain::header`], for the quote in an ICMP error. Eight bytes are enough (RFC 792), lengths may point
    /// beyond the quote, and TCP flags that were not quoted read as zero.
    pub(crate) fn quoted_header(&self, packet: &Packet<'_>) -> Result<Header, Opaque> {
        if self.is_later_fragment() {
            return self.later_fragment();
        }
        let bytes = &packet.bytes()[self.offset..];
        let header = bytes.first_chunk::<8>();
        let source_and_destination =
            |header: &[u8; 8]| (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]));
        Ok(match self.protocol {
            TCP => {
                let (source, destination) = source_and_destination(header.ok_or(self.cut_short())?);
                Header::Tcp { source, destination, flags: bytes.get(13).copied().unwrap_or(0) }
            }
            UDP => {
                let (source, destination) = source_and_destination(header.ok_or(self.cut_short())?);
                Header::Udp { source, destination }
            }
            protocol if protocol == icmp_of(packet.version()) => {
                icmp_header(packet.version(), header.ok_or(self.cut_short())?)
            }
            SCTP | DCCP | UDP_LITE => ports(bytes.first_chunk::<4>().ok_or(self.cut_short())?),
            _ => Header::Other,
        })
    }

    fn later_fragment(&self) -> Result<Header, Opaque> {
        match self.fragment {
            Some(Fragment { offset: 1, .. }) if self.protocol == TCP => Err(Opaque::TcpAtOffsetOne),
            _ => Ok(Header::LaterFragment),
        }
    }

    fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// The reason to report when a header is incomplete. In a first fragment, the sender hides the rest in a later one.
    fn cut_short(&self) -> Opaque {
        if self.fragment.is_some() { Opaque::ShortFirstFragment } else { Opaque::Truncated }
    }
}

fn ports(&[a, b, c, d]: &[u8; 4]) -> Header {
    Header::Ports { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) }
}

fn icmp_of(version: Version) -> u8 {
    match version {
        Version::V4 => ICMP,
        Version::V6 => ICMPV6,
    }
}

fn icmp_header(version: Version, header: &[u8; 8]) -> Header {
    let kind = header[0];
    let is_echo = match version {
        Version::V4 => matches!(kind, 8 | 0),
        Version::V6 => matches!(kind, 128 | 129),
    };
    let id = if is_echo { u16::from_be_bytes([header[4], header[5]]) } else { 0 };
    Header::Icmp { kind, code: header[1], id }
}

#[cfg(test)]
mod tests;
