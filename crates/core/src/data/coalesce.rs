//! What came in goes to TUN in as few writes as possible: packets of a flow that follow each other become the super-packet
//! that they were cut from.
//!
//! Only neighbours are joined, within a train and across trains that are carried away together: with UDP_GRO a train is
//! what the sender cut from one super-packet, and without it every datagram is a train of its own. Looking further than at
//! the packet before would cost more than it finds.

use overlay_wire::offload::{Join, Joins, VirtioHeader};

use crate::outbox::{Draft, Outbox, PacketId};

/// The packet that the next one may join.
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

    /// Nothing joins any more: the headers can be written.
    pub(crate) fn finish(&mut self, outbox: &mut Outbox) {
        if let Some((id, join)) = self.open.take()
            && join.segments() > 1
        {
            outbox.complete(id, |first| join.finish(first));
        }
    }
}
