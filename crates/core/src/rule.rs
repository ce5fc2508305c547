//! The rules of an allowlist.

use std::ops::RangeInclusive;

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The upper-layer protocol.
    pub protocol: Protocol,
    /// The destination ports, only for TCP and UDP. `None` means all ports.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The protocols a [`Rule`] can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ICMP and ICMPv6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// A different IP protocol, by its number.
    Number(u8),
}
