//! The rules of an allowlist.

use std::ops::RangeInclusive;

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which upper-layer protocol.
    pub protocol: Protocol,
    /// Destination ports; `None` is all of them. Only for TCP and UDP.
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
    /// An IP protocol number that is none of the above.
    Number(u8),
}
