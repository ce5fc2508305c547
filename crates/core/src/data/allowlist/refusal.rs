//! Packets of ours that say that nobody on our side uses a flow any more.
//!
//! TCP says so with RST and FIN. UDP and most other protocols say nothing when a program closes its socket. The kernel
//! then answers the next packet with an ICMP error, or, in SCTP and DCCP, with a message that ends the association.
//! Errors are limited in rate, so a flow must also end without them.

use overlay_wire::icmp::{self, Quoted};
use overlay_wire::ip::{Header, Packet, Upper};

use super::flows::FlowKey;
use super::{ends, sent};

/// Returns the flow that an outbound packet refuses. Only ICMP, SCTP and DCCP are looked into.
pub(super) fn refused(packet: &Packet<'_>, upper: &Upper) -> Option<FlowKey> {
    match upper.header {
        Header::Icmp { .. } => {
            let Quoted { source, destination, protocol, header } = icmp::refused(packet)?;
            sent(protocol, header, (source, destination)).map(FlowKey::reversed)
        }
        Header::Ports { .. } if packet.ends_association(upper) => sent(upper.protocol, upper.header, ends(packet)),
        _ => None,
    }
}
