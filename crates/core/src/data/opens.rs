//! What we may open at a peer: the peer's grant, applied before the packet leaves.
//!
//! The peer enforces its grant in any case. This check only makes a forbidden connection fail at once, with an ICMP error,
//! rather than after a timeout. It keeps no state: a packet passes if it opens nothing, if the grant lists it, or if it may
//! be an answer to what the peer may open here.

use overlay_wire::ip::{Header, Packet, Upper, Version};

use crate::data::allowlist::admits;
use crate::rights::Rights;

/// The TCP flags that tell the first packet of a connection from all others.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// Whether the packet may go to the peer.
pub(crate) fn may_send(rights: &Rights, packet: &Packet<'_>) -> bool {
    let Some(opens) = &rights.opens else { return true };
    // What cannot be read is left to the peer.
    let Ok(Upper { protocol, header, .. }) = packet.upper() else { return true };
    let version = packet.version();
    let may_open = |port| admits(opens, version, protocol, port);
    let may_answer = |port| rights.allowlist.as_ref().is_none_or(|allowlist| allowlist.lists(version, protocol, port));
    match header {
        Header::Tcp { destination, flags, .. } => flags & (SYN | ACK) != SYN || may_open(Some(destination)),
        Header::Udp { source, destination } | Header::Ports { source, destination } => {
            may_open(Some(destination)) || may_answer(Some(source))
        }
        Header::Icmp { kind, .. } => !is_echo_request(version, kind) || may_open(None),
        Header::LaterFragment => true,
        Header::Other => may_open(None) || may_answer(None),
    }
}

fn is_echo_request(version: Version, kind: u8) -> bool {
    match version {
        Version::V4 => kind == ECHO_REQUEST_V4,
        Version::V6 => kind == ECHO_REQUEST_V6,
    }
}
