//! What we may open at a peer: the peer's grant, applied before the packet leaves.
//!
//! The peer enforces its grant in any case. This check only makes a forbidden connection fail at once, with an ICMP error,
//! rather than after a timeout. It keeps no state: a packet passes if it opens nothing, if the grant lists it, or if it may
//! be an answer to what the peer may open here.

use overlay_wire::ip::{Header, Packet, Upper};

use crate::Rule;
use crate::data::allowlist::{Role, admits, destination_port};
use crate::rights::Rights;

/// Whether the packet may go to the peer. Most peers give no list, so that is asked without a call.
#[inline]
pub(crate) fn may_send(rights: &Rights, packet: &Packet<'_>) -> bool {
    rights.opens.as_deref().is_none_or(|opens| lists(opens, rights, packet))
}

/// Whether a peer's grant lets the packet through. It is a call, so that [`may_send`] is short enough to be none.
#[inline(never)]
fn lists(opens: &[Rule], rights: &Rights, packet: &Packet<'_>) -> bool {
    // What cannot be read is left to the peer.
    let Ok(Upper { protocol, header, .. }) = packet.upper() else { return true };
    let version = packet.version();
    let may_open = || admits(opens, version, protocol, destination_port(header));
    match (Role::of(version, header), header) {
        (Role::Opens, _) => may_open(),
        (Role::Answers, _) | (Role::Continues, Header::Tcp { .. }) => true,
        (Role::Continues, _) => {
            let source = match header {
                Header::Udp { source, .. } | Header::Ports { source, .. } => Some(source),
                _ => None,
            };
            let may_answer = || rights.allowlist.as_ref().is_none_or(|own| own.lists(version, protocol, source));
            may_open() || may_answer()
        }
    }
}
