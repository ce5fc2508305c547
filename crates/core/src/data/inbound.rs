//! Network to TUN: receiver, session, endpoint, inner source, destination, allowlist, TUN.
//!
//! A train shares only its outer source. The peer chose every inner packet, so all of this is asked of every datagram;
//! only one whose addresses, protocol and ports equal those of the one before it reuses its verdict.

use overlay_wire::ip::Packet;
use overlay_wire::offload::VirtioHeader;
use overlay_wire::tcp;
use overlay_wire::wireguard::{Kind, Message, kind};

use crate::context::Local;
use crate::data::allowed_ips::AllowedIps;
use crate::data::session::Opened;
use crate::data::{ecn, outbound};
use crate::node::Node;
use crate::peer::Peer;
use crate::peers::PeerId;
use crate::{DropReason, Instant, UdpTrain};

/// What holds from one datagram of a train to the next.
#[derive(Default)]
struct Course {
    /// The peer that was last brought up to the train's time.
    attended: Option<PeerId>,
    /// The flow that was last admitted.
    admitted: Option<(PeerId, FlowBytes)>,
}

impl Node {
    pub(crate) fn inbound(&mut self, train: &UdpTrain<'_>, now: Instant) {
        let mut course = Course::default();
        for datagram in train.contents.chunks(train.stride.max(1)) {
            if let Err(reason) = self.datagram(datagram, train, &mut course, now) {
                self.context.stats.count_drop(reason);
            }
        }
        self.arm_attended(&course, now);
    }

    /// Arms what the datagrams so far made due for the peer they came from.
    fn arm_attended(&mut self, course: &Course, now: Instant) {
        if let Some(peer) = course.attended.and_then(|id| self.peers.peer(id)) {
            self.deadlines.arm_next(peer, now);
        }
    }

    fn datagram(
        &mut self,
        datagram: &[u8],
        train: &UdpTrain<'_>,
        course: &mut Course,
        now: Instant,
    ) -> Result<(), DropReason> {
        if kind(datagram) != Kind::WireGuard {
            return Err(DropReason::InboundUnknown);
        }
        match Message::parse(datagram).map_err(|_| DropReason::InboundLength)? {
            Message::Data { receiver, counter, .. } => self.data(receiver, counter, datagram, train, course, now),
            handshake => self.handshake(handshake, datagram, train, now),
        }
    }

    fn data(
        &mut self,
        receiver: u32,
        counter: u64,
        message: &[u8],
        train: &UdpTrain<'_>,
        course: &mut Course,
        now: Instant,
    ) -> Result<(), DropReason> {
        let id = self.peers.find_receiver(receiver).ok_or(DropReason::UnknownReceiver)?;
        let is_new = course.attended != Some(id);
        if is_new {
            self.arm_attended(course, now);
            course.attended = Some(id);
        }
        let (peer, allowed_ips) = self.peers.peer_and_allowed_ips(id).ok_or(DropReason::UnknownReceiver)?;
        if is_new {
            self.context.advance(peer, now);
        }
        let session = peer.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        let room = self.context.outbox.room(message.len());
        let opened = session.open(counter, message, now, room)?;

        // From here on the message is authentic.
        let is_confirmed = session.confirms(receiver);
        let delivered = match opened {
            Opened::Keepalive => Ok(0),
            Opened::Malformed => Err(DropReason::InboundMalformed),
            Opened::Packet(len) => {
                let packet = &mut room[..len];
                ecn::carry_in(train.ecn, packet);
                admit(packet, peer, allowed_ips, &self.context.local, &mut course.admitted, now).inspect(|_| {
                    tcp::clamp_mss(packet, self.context.local.mtu);
                })
            }
        };
        if let Ok(len @ 1..) = delivered {
            self.context.outbox.packet(VirtioHeader::NONE, len);
            peer.stats.received_packets.add(1);
            peer.stats.received_bytes.add(len as u64);
        }
        peer.stats.received_wire_bytes.add(message.len() as u64);
        self.context.on_authenticated(peer, train.source, train.via, now);
        if is_confirmed {
            self.context.on_handshake_completed(peer, now);
        }
        if !peer.staged.is_empty() {
            outbound::flush(peer, &mut self.scratch, &mut self.context, now);
        }
        delivered.map(drop).inspect_err(|_| peer.stats.drops.add(1))
    }
}

/// Whether a packet that `peer` sent may enter: its length if so.
fn admit(
    bytes: &[u8],
    peer: &mut Peer,
    allowed_ips: &AllowedIps<PeerId>,
    local: &Local,
    admitted: &mut Option<(PeerId, FlowBytes)>,
    now: Instant,
) -> Result<usize, DropReason> {
    let packet = Packet::parse(bytes).map_err(|_| DropReason::InboundMalformed)?;
    let flow = FlowBytes::of(&packet).map(|flow| (peer.id, flow));
    if flow.is_some() && *admitted == flow {
        return Ok(packet.len());
    }
    *admitted = None;
    let (source, destination) = (packet.source(), packet.destination());
    if source.is_loopback() || source.is_multicast() || source.is_unspecified() || local.owns(source) {
        return Err(DropReason::MartianSource);
    }
    if allowed_ips.lookup(source) != Some(peer.id) {
        return Err(DropReason::SpoofedSource);
    }
    if !local.may_deliver_to(destination) {
        return Err(DropReason::InboundDestination);
    }
    if let Some(allowlist) = &mut peer.allowlist {
        allowlist.admit(&packet, now)?;
    }
    *admitted = flow;
    Ok(packet.len())
}

/// Addresses, protocol and ports of an unfragmented TCP or UDP packet without extension headers: two packets with equal
/// ones get equal verdicts. TCP segments that begin or end a flow have none, because the allowlist wants to see them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FlowBytes {
    addresses: [u8; 32],
    ports: [u8; 4],
    protocol: u8,
}

impl FlowBytes {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    /// FIN, SYN, RST.
    const TCP_EDGES: u8 = 0b111;

    fn of(packet: &Packet<'_>) -> Option<Self> {
        let bytes = packet.bytes();
        let protocol = packet.protocol();
        let mut addresses = [0; 32];
        let upper = if bytes[0] >> 4 == 4 {
            let is_fragment = (bytes[6] & 0x3f) | bytes[7] != 0;
            if bytes[0] != 0x45 || is_fragment {
                return None;
            }
            addresses[..8].copy_from_slice(&bytes[12..20]);
            &bytes[20..]
        } else {
            addresses.copy_from_slice(&bytes[8..40]);
            &bytes[40..]
        };
        let needed = match protocol {
            Self::TCP => 20,
            Self::UDP => 8,
            _ => return None,
        };
        let header = upper.get(..needed)?;
        if protocol == Self::TCP && header[13] & Self::TCP_EDGES != 0 {
            return None;
        }
        Some(Self { addresses, ports: [header[0], header[1], header[2], header[3]], protocol })
    }
}
