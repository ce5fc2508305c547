//! Packets that configure the hosts that receive them: neighbour discovery and its relatives, redirects, group
//! membership, DHCP.
//!
//! Such a packet is meant for one link. Its sender decides the routes, addresses and name servers of the hosts that
//! receive it. Every packet is checked, so a few comparisons must do for TCP and UDP. The sender may be hostile, so a
//! length that a receiver may ignore (the one in the UDP header) is ignored here too.
//!
//! Left out: packets inside an inner tunnel (IP in IP, GRE, ESP), which reach the interface of that tunnel and not
//! ours; and routing protocols, whose daemons ask for such messages and authenticate them.

use crate::ip::{Chain, ICMP, ICMPV6, Opaque, Packet, TCP, UDP, Version};

/// Protocol number of IGMP, the IPv4 counterpart of MLD.
const IGMP: u8 = 2;
/// UDP ports of DHCP (RFC 2131).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// UDP ports of DHCPv6 (RFC 8415).
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// Whether a packet configures hosts. A later fragment does not: without the first one it cannot be reassembled.
///
/// # Errors
/// Returns [`Opaque`] if the chain of headers cannot be followed to its end. For [`Opaque::ChainTooLong`] and
/// [`Opaque::ShortFirstFragment`], a receiver that follows the chain further may still find such a message. For the
/// other reasons it cannot.
#[inline]
pub fn configures_hosts(packet: &Packet<'_>) -> Result<bool, Opaque> {
    // This holds for IPv6 too: the first next header is TCP only if there are no extension headers.
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
        // There are no bytes that could configure a host.
        None => Ok(false),
    }
}

/// The ports of a plain datagram: whole, without options or extension headers. Most packets that are not TCP are like
/// that, and following the chain of headers would cost more than all the other checks here.
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
        // MLD, versions 1 and 2.
        130..=132 | 143 => true,
        // Router and neighbour solicitations and advertisements, redirect (RFC 4861); router renumbering (RFC 2894).
        133..=138 => true,
        // Inverse neighbour discovery (RFC 3122); home agent discovery and mobile prefixes (RFC 6275).
        141 | 142 | 144..=147 => true,
        // SEND certification paths (RFC 3971), multicast router discovery (RFC 4286), fast handovers (RFC 5568).
        148 | 149 | 151..=154 => true,
        // Duplicate address messages (RFC 6775).
        157 | 158 => true,
        _ => false,
    }
}

/// A message to a client may come from any port, since clients do not check it. Messages between servers and relays,
/// which are routed like all other traffic, have the server's port on both sides and are not counted.
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
