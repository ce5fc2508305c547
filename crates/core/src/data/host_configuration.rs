//! What configures hosts never passes the tunnel, in either direction: neither the messages that do so, nor packets from
//! link-local addresses that are not expressly the sender's.
//!
//! The kernel at either end believes a router advertisement that comes out of its TUN as it believes one from a cable, and
//! cryptokey routing does not help: a peer that has `::/0` may send from any router's address. No allowlist entry lets
//! such a message pass, and WireGuard's own way of making peers does not either.
//!
//! A link-local source is the peer's where one of its prefixes lies in the link-local range itself; a shorter one, most of
//! all a /0, says nothing about links. Peers that were made in WireGuard's way keep WireGuard's rule, by which any prefix
//! will do: routing daemons speak from such addresses.

use std::net::IpAddr;

use overlay_wire::host_configuration::configures_hosts;
use overlay_wire::ip::{Opaque, Packet};

use crate::data::allowed_ips::AllowedIps;
use crate::peer::Peer;
use crate::{DropReason, PeerTag};

/// Bits of fe80::/10 and 169.254.0.0/16.
const LINK_LOCAL_V6: u8 = 10;
const LINK_LOCAL_V4: u8 = 16;

/// Whether a packet may pass the tunnel, as far as its content says.
///
/// # Errors
/// `HostConfiguration`; `ExtensionHeaders` and `FragmentEvasion` for a chain of headers that hides what is behind it.
pub(crate) fn pass(packet: &Packet<'_>) -> Result<(), DropReason> {
    match configures_hosts(packet) {
        Ok(false) => Ok(()),
        Ok(true) => Err(DropReason::HostConfiguration),
        Err(Opaque::ChainTooLong) => Err(DropReason::ExtensionHeaders),
        Err(Opaque::ShortFirstFragment) => Err(DropReason::FragmentEvasion),
        // The receiver comes to the same end.
        Err(Opaque::UnknownExtension | Opaque::Truncated | Opaque::TcpAtOffsetOne) => Ok(()),
    }
}

/// Whether packets from this source, which a prefix of the peer holds, may come from it.
pub(crate) fn may_come_from(source: IpAddr, peer: &Peer, allowed_ips: &AllowedIps<PeerTag>) -> bool {
    match link_local_bits(source) {
        Some(bits) if peer.rights.is_declared => allowed_ips.lookup_at_least(source, bits) == Some(peer.tag),
        _ => true,
    }
}

/// How many bits make a link-local address one; `None` for every other address.
pub(crate) fn link_local_bits(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(address) => address.is_link_local().then_some(LINK_LOCAL_V4),
        IpAddr::V6(address) => address.is_unicast_link_local().then_some(LINK_LOCAL_V6),
    }
}
