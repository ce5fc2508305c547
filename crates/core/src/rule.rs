//! The rules of an allowlist.

use std::ops::RangeInclusive;

use overlay_wire::ip::{self, Version};

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

impl Rule {
    /// Whether the rule lists a packet of this protocol to this port. A packet without ports has `None`.
    pub fn lists(&self, version: Version, protocol: u8, port: Option<u16>) -> bool {
        let number = match (self.protocol, version) {
            (Protocol::Icmp, Version::V4) => ip::ICMP,
            (Protocol::Icmp, Version::V6) => ip::ICMPV6,
            (Protocol::Tcp, _) => ip::TCP,
            (Protocol::Udp, _) => ip::UDP,
            (Protocol::Number(number), _) => number,
        };
        let holds = |ports: &RangeInclusive<u16>| port.is_some_and(|port| ports.contains(&port));
        number == protocol && self.ports.as_ref().is_none_or(holds)
    }
}
