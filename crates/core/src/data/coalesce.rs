//! Writes inbound packets to TUN in as few writes as possible: consecutive packets of a flow are joined into the
//! super-packet that they were cut from.
//!
//! Only neighbours are joined, within a train and across trains that are written together. With UDP_GRO, a train is
//! what the sender cut from one super-packet. Without it, every datagram is a train of its own. Looking back further
//! than one packet would cost more than it gains.

use overlay_wire::offload::{Join, Joins, VirtioHeader};

use crate::outbox::{Draft, Outbox, PacketId};

/// The last packet, which the next one may join.
#[derive(Default)]
pub(crate) struct Coalescer {
    open: Option<(PacketId, Join)>,
}

impl Coalescer {
    /// Delivers a packet.
    pub(crate) fn deliver(&mut self, outbox: &mut Outbox, mut packet: Draft, joins: Joins) {
        if let Some((id, open)) = &mut self.open {
            if let Some((first, next)) = outbox.packet_and_draft(*id, &packet)
                && let Some(skip) = open.append(first, next)
            {
                match outbox.extend(*id, skip, packet) {
                    Ok(()) => return,
                    Err(refused) => packet = refused,
                }
            }
            self.finish(outbox);
        }
        let began = Join::begin(outbox.read(&packet), joins);
        let id = outbox.packet(VirtioHeader::NONE, packet);
        self.open = began.map(|join| (id, join));
    }

    /// Ends the current super-packet and writes its headers.
    pub(crate) fn finish(&mut self, outbox: &mut Outbox) {
        if let Some((id, join)) = self.open.take()
            && join.segments() > 1
        {
            outbox.complete(id, |first| join.finish(first));
        }
    }
}
