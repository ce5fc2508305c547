//! Packets that configure the hosts that receive them: neighbour discovery and its relatives, redirects, group
//! membership, DHCP.
//!
//! Such a packet is meant for one link, and whoever may send it decides on routes, addresses and name servers of those who
//! hear it. The question is asked of every packet, so TCP and UDP are answered by a few compares; and it is asked about a
//! sender who lies, so lengths that a receiver may ignore (that of UDP) are ignored here too.
//!
//! Left out: what is inside another tunnel (IP in IP, GRE, ESP), which reaches the interface of that tunnel and not ours;
//! and routing protocols, whose daemons ask for them and authenticate them.

use crate::ip::{Chain, ICMP, ICMPV6, Opaque, Packet, TCP, UDP, Version};

/// Protocol number of IGMP, what MLD is for IPv6.
const IGMP: u8 = 2;
/// UDP ports of DHCP (RFC 2131).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// UDP ports of DHCPv6 (RFC 8415).
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// Whether a packet configures hosts. Later fragments do not: without their first one nobody puts them together.
///
/// # Errors
/// [`Opaque`] when the chain of headers cannot be followed to its end. A receiver that follows it further may find such a
/// message behind [`Opaque::ChainTooLong`] and [`Opaque::ShortFirstFragment`], and nothing behind the others.
#[inline]
pub fn configures_hosts(packet: &Packet<'_>) -> Result<bool, Opaque> {
    // Of IPv6 too: no extension header stands in front of it then.
    if packet.protocol() == TCP {
        return Ok(false);
    }
    if let Some(ports) = plain_udp_ports(packet) {
        return Ok(is_dhcp(packet.version(), ports));
    }
    let chain = Chain::follow(packet)?;
    if chain.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Ok(false);
    }
    let upper = &packet.bytes()[chain.offset..];
    let answer = match (packet.version(), chain.protocol) {
        (Version::V4, IGMP) => Some(true),
        (Version::V4, ICMP) => upper.first().map(|kind| icmp_configures(*kind)),
        (Version::V6, ICMPV6) => upper.first().map(|kind| icmpv6_configures(*kind)),
        (version, UDP) => upper.first_chunk().map(|ports| is_dhcp(version, *ports)),
        _ => Some(false),
    };
    match answer {
        Some(configures) => Ok(configures),
        None if chain.fragment.is_some() => Err(Opaque::ShortFirstFragment),
        // Nothing is there that could.
        None => Ok(false),
    }
}

/// The ports of the usual datagram: whole, without options or extension headers. Most that is not TCP is one, and following
/// its chain of headers costs more than all else that is asked here.
#[inline]
fn plain_udp_ports(packet: &Packet<'_>) -> Option<[u8; 4]> {
    let bytes = packet.bytes();
    let offset = match packet.version() {
        Version::V4 if bytes[0] & 0x0f == 5 && u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff == 0 => 20,
        Version::V4 => return None,
        Version::V6 => 40,
    };
    if packet.protocol() != UDP {
        return None;
    }
    bytes.get(offset..)?.first_chunk().copied()
}

fn icmp_configures(kind: u8) -> bool {
    // Redirect, router advertisement and solicitation (RFC 1256), information (RFC 792), address mask (RFC 950).
    matches!(kind, 5 | 9 | 10 | 15..=18)
}

fn icmpv6_configures(kind: u8) -> bool {
    match kind {
        // MLD, version 1 and 2.
        130..=132 | 143 => true,
        // Solicitations and advertisements of routers and neighbours, redirect (RFC 4861); router renumbering (RFC 2894).
        133..=138 => true,
        // Inverse neighbour discovery (RFC 3122); home agents and prefixes of mobile hosts (RFC 6275).
        141 | 142 | 144..=147 => true,
        // Certification paths of SEND (RFC 3971), multicast router discovery (RFC 4286), fast handovers (RFC 5568).
        148 | 149 | 151..=154 => true,
        // Duplicate addresses (RFC 6775).
        157 | 158 => true,
        _ => false,
    }
}

/// What goes to a client comes from any port, since clients do not look at it. Between servers and relays, which are
/// routed like everything else, both ports are the server's.
fn is_dhcp(version: Version, [s1, s2, d1, d2]: [u8; 4]) -> bool {
    let (source, destination) = (u16::from_be_bytes([s1, s2]), u16::from_be_bytes([d1, d2]));
    let (client, server) = match version {
        Version::V4 => (DHCP_CLIENT, DHCP_SERVER),
        Version::V6 => (DHCPV6_CLIENT, DHCPV6_SERVER),
    };
    destination == client || (source == client && destination == server)
}

#[cfg(test)]
mod tests;
