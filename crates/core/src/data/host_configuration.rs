//! Packets that configure hosts never pass the tunnel, in either direction. This covers the messages themselves, and
//! packets from link-local addresses that do not explicitly belong to the sender.
//!
//! The kernel at either end trusts a router advertisement from its TUN as it trusts one from a cable. Cryptokey routing
//! does not help, because a peer with `::/0` may send from any router's address. No allowlist entry admits such a
//! message. It is also dropped for peers that were made over the UAPI.
//!
//! A link-local source belongs to the peer only if one of its prefixes lies within the link-local range. A shorter
//! prefix, such as a /0, says nothing about links. Peers made over the UAPI keep WireGuard's rule, in which any prefix
//! suffices: routing daemons send from such addresses.

use std::net::IpAddr;

use overlay_wire::host_configuration::configures_hosts;
use overlay_wire::ip::{Opaque, Packet};

use crate::data::allowed_ips::AllowedIps;
use crate::peer::Peer;
use crate::{DropReason, PeerTag};

/// The prefix lengths of fe80::/10 and 169.254.0.0/16.
const LINK_LOCAL_V6: u8 = 10;
const LINK_LOCAL_V4: u8 = 16;

/// Checks whether the content of a packet may pass the tunnel.
///
/// # Errors
/// Returns `HostConfiguration`, or `ExtensionHeaders` or `FragmentEvasion` if the header chain hides what follows it.
pub(crate) fn pass(packet: &Packet<'_>) -> Result<(), DropReason> {
    match configures_hosts(packet) {
        Ok(false) => Ok(()),
        Ok(true) => Err(DropReason::HostConfiguration),
        Err(Opaque::ChainTooLong) => Err(DropReason::ExtensionHeaders),
        Err(Opaque::ShortFirstFragment) => Err(DropReason::FragmentEvasion),
        // The receiver cannot parse these packets either.
        Err(Opaque::UnknownExtension | Opaque::Truncated | Opaque::TcpAtOffsetOne) => Ok(()),
    }
}

/// Whether the peer may send from this source, which one of its prefixes contains.
pub(crate) fn may_come_from(source: IpAddr, peer: &Peer, allowed_ips: &AllowedIps<PeerTag>) -> bool {
    match link_local_bits(source) {
        Some(bits) if peer.rights.is_declared => allowed_ips.lookup_at_least(source, bits) == Some(peer.tag),
        _ => true,
    }
}

/// The length of the link-local prefix that contains the address, or `None` for any other address.
pub(crate) fn link_local_bits(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(address) => address.is_link_local().then_some(LINK_LOCAL_V4),
        IpAddr::V6(address) => address.is_unicast_link_local().then_some(LINK_LOCAL_V6),
    }
}
