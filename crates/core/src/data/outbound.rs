//! TUN to network, step by step: source, peer, the filter for traffic that configures hosts, allowlist, MSS, MTU, session,
//! one datagram train.
//!
//! A super-packet is one flow, so every step before sealing runs once for all of it.

use overlay_wire::control::{self, FRAGMENT_OVERHEAD, Frame};
use overlay_wire::ip::{self, Header, IPV6_MINIMUM_MTU, Packet, Upper, least_mtu};
use overlay_wire::offload::{self, Segmentation, SuperPacket, VirtioHeader};
use overlay_wire::relay::DATA_HEAD_LEN;
use overlay_wire::tcp;
use overlay_wire::wireguard::{DATA_OVERHEAD, padded_len};
use rand_core::RngCore;

use crate::context::Context;
use crate::data::allowed_ips::AllowedIps;
use crate::data::icmp_limit::Refusal;
use crate::data::scratch::Scratch;
use crate::data::shares::Party;
use crate::data::{ecn, host_configuration, opens};
use crate::local::Local;
use crate::node::Node;
use crate::outbox::Heading;
use crate::path::discovery::Way;
use crate::path::endpoint::Endpoint;
use crate::path::finding::heading_over;
use crate::peer::Peer;
use crate::session::seam::Session;
use crate::session::timers::REKEY_AFTER_TIME;
use crate::{DropReason, Instant, PeerTag};

const UDP_HEADER_LEN: usize = 8;

impl Node {
    pub(crate) fn outbound(&mut self, header: &VirtioHeader, packet: &mut [u8], now: Instant) {
        if let Err(reason) = self.route(header, packet, now) {
            self.context.stats.count_drop(reason);
        }
    }

    /// Sends a packet to the peer whose allowed IPs hold the destination.
    fn route(&mut self, header: &VirtioHeader, bytes: &mut [u8], now: Instant) -> Result<(), DropReason> {
        if !self.context.local.is_up {
            return Err(DropReason::InterfaceDown);
        }
        let packet = Packet::parse(bytes).map_err(|_| DropReason::OutboundMalformed)?;
        // Only the node sends control frames. A program that could send them through TUN would speak for the node.
        if !self.context.local.may_send_from(packet.source()) || control::is_control(packet.bytes()) {
            return Err(DropReason::OutboundSource);
        }
        let Some(tag) = self.peers.allowed_ips.lookup(packet.destination()) else {
            let (allowed_ips, destination) = (&self.peers.allowed_ips, packet.destination());
            let is_of_pool = self.context.local.pools.iter().any(|pool| pool.contains(&destination));
            let refusal = if is_of_pool { Refusal::Prohibited } else { Refusal::Unreachable };
            self.scratch.answer(&packet, refusal, allowed_ips, &mut self.context, now);
            return Err(DropReason::OutboundNoPeer);
        };
        let (peer, allowed_ips) = self.peers.peer_and_allowed_ips(tag).ok_or(DropReason::OutboundNoPeer)?;
        may_leave_for(peer, &packet, &self.context.local).inspect_err(|_| peer.stats.drops.add(1))?;
        if !opens::may_send(&peer.rights, &packet) {
            self.scratch.answer(&packet, Refusal::Prohibited, allowed_ips, &mut self.context, now);
            peer.stats.drops.add(1);
            return Err(DropReason::NotAllowed);
        }
        let is_mute = peer.tunnel.is_mute;
        if is_mute || !peer.is_callable() {
            self.scratch.answer(&packet, Refusal::Unreachable, allowed_ips, &mut self.context, now);
            peer.stats.drops.add(1);
            return Err(if is_mute { DropReason::OutboundNoKey } else { DropReason::OutboundNoEndpoint });
        }
        if is_our_own(&packet, peer) {
            return Err(DropReason::OutboundLoop);
        }
        if let Some(allowlist) = &mut peer.rights.allowlist {
            allowlist.on_outbound(&packet, |source| self.context.local.party(source, allowed_ips), now);
        }
        let (len, source) = (packet.len(), packet.source());
        let bytes = &mut bytes[..len];

        self.context.advance(peer, now);
        let sent = if peer.is_alive(now) {
            let sent = send(peer, header, bytes, allowed_ips, &mut self.scratch, &mut self.context, now);
            self.context.renew(peer, REKEY_AFTER_TIME, now);
            sent
        } else {
            let party = self.context.local.party(source, allowed_ips);
            stage(peer, header, bytes, party, &mut self.context, now)
        };
        if sent.is_err() {
            peer.stats.drops.add(1);
        }
        peer.arm(&mut self.deadlines, now);
        sent
    }
}

/// Checks that the packet is not meant for our own link alone.
fn may_leave_for(peer: &Peer, packet: &Packet<'_>, local: &Local) -> Result<(), DropReason> {
    let source = packet.source();
    if peer.rights.is_declared && host_configuration::link_local_bits(source).is_some() && !local.owns(source) {
        // Forwarded packets come from a different link (RFC 3927 section 2.7, RFC 4291 section 2.5.6).
        return Err(DropReason::HostConfiguration);
    }
    host_configuration::pass(packet)
}

/// Whether the packet is a datagram that we sent to this very peer. Its endpoint then lies inside the tunnel, and each
/// round would make the packet longer. Other packets may go to the endpoint too, but only ours carry our receiver index or
/// the one that the peer gave us.
fn is_our_own(packet: &Packet<'_>, peer: &Peer) -> bool {
    if !peer.may_be_at(packet.destination(), None) {
        return false;
    }
    let Ok(Upper { offset, header: Header::Udp { destination, .. }, .. }) = packet.upper() else { return false };
    peer.may_be_at(packet.destination(), Some(destination))
        && match packet.bytes().get(offset + UDP_HEADER_LEN..).and_then(<[u8]>::first_chunk::<8>) {
            Some([1 | 2, 0, 0, 0, index @ ..]) => u32::from_le_bytes(*index) >> 8 == peer.tunnel.receivers.present,
            Some([4, 0, 0, 0, index @ ..]) => Some(u32::from_le_bytes(*index)) == peer.tunnel.peer_index,
            _ => false,
        }
}

/// Sends all packets that waited for a session. Returns false if nothing left.
pub(crate) fn flush(
    peer: &mut Peer,
    allowed_ips: &AllowedIps<PeerTag>,
    scratch: &mut Scratch,
    context: &mut Context,
    now: Instant,
) -> bool {
    let mut has_sent = false;
    while peer.is_alive(now)
        && let Some((header, mut packet)) = peer.staged.pop()
    {
        match send(peer, &header, &mut packet, allowed_ips, scratch, context, now) {
            Ok(()) => has_sent = true,
            Err(reason) => {
                context.stats.count_drop(reason);
                peer.stats.drops.add(1);
            }
        }
    }
    has_sent
}

/// Keeps the packet until there is a session, and starts a handshake if needed.
fn stage(
    peer: &mut Peer,
    header: &VirtioHeader,
    bytes: &[u8],
    party: Party,
    context: &mut Context,
    now: Instant,
) -> Result<(), DropReason> {
    let staged = peer.staged.push(*header, bytes, party, context.local.secret, &context.staging);
    let dropped = staged.unwrap_or_default();
    context.stats.count_drops(DropReason::StagedOverflow, dropped);
    peer.stats.drops.add(dropped);
    peer.tunnel.on_wanted(now, &mut context.rng);
    if let Some(agent) = &mut peer.paths.agent {
        agent.seek(now);
    }
    context.advance(peer, now);
    staged.map(|_| ())
}

/// Clamps, fits and seals a packet or super-packet for a peer whose session is alive.
fn send(
    peer: &mut Peer,
    header: &VirtioHeader,
    bytes: &mut [u8],
    allowed_ips: &AllowedIps<PeerTag>,
    scratch: &mut Scratch,
    context: &mut Context,
    now: Instant,
) -> Result<(), DropReason> {
    let way = peer.way(&context.local);
    let mtu = way.mtu;
    if header.segmentation != Segmentation::None {
        let mut train = SuperPacket::parse(header, bytes).map_err(|_| DropReason::OutboundMalformed)?;
        let asked = train.segment_len(0);
        if train.limit_segment(mtu) && asked > least_mtu(bytes, mtu) {
            // The packet is sent all the same, in smaller segments. The sender learns the MTU for the next ones.
            scratch.answer_too_big(bytes, mtu, allowed_ips, context, now);
        }
        let len = train.segment_len(0);
        if len > least_mtu(bytes, mtu) {
            // These are datagrams of an application, and only the application may split them.
            scratch.answer_too_big(bytes, mtu, allowed_ips, context, now);
            return Err(DropReason::OutboundTooBig);
        }
        peer.on_large(bytes, len, now);
        if len > mtu {
            let mut segment = [0; IPV6_MINIMUM_MTU];
            return (0..train.segments()).try_for_each(|index| {
                let len = train.write_segment(index, &mut segment);
                send_long(peer, &segment[..len], way, scratch, context, now)
            });
        }
        let write = |index, plaintext: &mut [u8]| train.write_segment(index, plaintext);
        let train = Train { count: train.segments(), full: len, ecn: ecn::of(bytes), write };
        return seal_train(peer, way, train, scratch, context, now);
    }

    offload::complete_checksum(header, bytes).map_err(|_| DropReason::OutboundMalformed)?;
    tcp::clamp_mss(bytes, mtu);
    peer.on_large(bytes, bytes.len(), now);
    if bytes.len() <= mtu {
        return seal_one(peer, way, bytes, scratch, context, now);
    }
    if bytes.len() <= least_mtu(bytes, mtu) {
        return send_long(peer, bytes, way, scratch, context, now);
    }
    let packet = Packet::parse(bytes).map_err(|_| DropReason::OutboundMalformed)?;
    if packet.dont_fragment() {
        scratch.answer_too_big(bytes, mtu, allowed_ips, context, now);
        return Err(DropReason::OutboundTooBig);
    }
    let mut sealed = Ok(());
    ip::fragment_v4(&packet, mtu, &mut |fragment| {
        sealed = sealed.and(seal_one(peer, way, fragment, scratch, context, now));
    })
    .map_err(|_| DropReason::OutboundMalformed)?;
    sealed
}

/// Sends a packet that is longer than the path carries but within the minimum MTU of IPv6. It goes in pieces. A peer that
/// does not support pieces gets it whole, in a datagram that may be fragmented.
fn send_long(
    peer: &mut Peer,
    packet: &[u8],
    way: Way,
    scratch: &mut Scratch,
    context: &mut Context,
    now: Instant,
) -> Result<(), DropReason> {
    if !way.may_cut || packet.len() <= way.mtu {
        return seal_one(peer, way, packet, scratch, context, now);
    }
    context.stats.packets_cut.add(1);
    let mut frame = [0; IPV6_MINIMUM_MTU];
    let (id, total) = (context.rng.next_u32(), packet.len() as u16);
    let room = way.mtu.saturating_sub(FRAGMENT_OVERHEAD).max(1);
    for (index, bytes) in packet.chunks(room).enumerate() {
        let offset = (index * room) as u16;
        let len = Frame::Fragment { id, offset, total, bytes }.write(&mut frame);
        seal_one(peer, way, &frame[..len], scratch, context, now)?;
    }
    Ok(())
}

fn seal_one(
    peer: &mut Peer,
    way: Way,
    packet: &[u8],
    scratch: &mut Scratch,
    context: &mut Context,
    now: Instant,
) -> Result<(), DropReason> {
    let plain = |_, plaintext: &mut [u8]| {
        plaintext[..packet.len()].copy_from_slice(packet);
        packet.len()
    };
    let train = Train { count: 1, full: packet.len(), ecn: ecn::of(packet), write: plain };
    seal_train(peer, way, train, scratch, context, now)
}

/// Packets that become one datagram train.
struct Train<W> {
    count: usize,
    /// The length in bytes of all packets but the last, which may be shorter.
    full: usize,
    /// The ECN bits of the outer headers.
    ecn: u8,
    /// Writes the packet with this number, and returns its length.
    write: W,
}

fn seal_train(
    peer: &mut Peer,
    way: Way,
    train: Train<impl Fn(usize, &mut [u8]) -> usize>,
    scratch: &mut Scratch,
    context: &mut Context,
    now: Instant,
) -> Result<(), DropReason> {
    let Train { count, full, ecn, write } = train;
    let mtu = way.mtu;
    let mirror = peer.paths.agent.as_mut().and_then(|agent| {
        agent.on_sending(count, count * full, now);
        agent.mirror(now)
    });
    let (Some(session), Some(path)) = (&mut peer.tunnel.session, peer.paths.primary()) else {
        return Err(DropReason::OutboundNoEndpoint);
    };
    // A packet that is longer than the path carries may be fragmented.
    let whole_for = (way.is_proven && full <= mtu).then_some(path.tag(peer.tag));
    let Endpoint { address: destination, via } = path.endpoint;
    let stride = via.lead() + padded_len(full, mtu) + DATA_OVERHEAD;
    let room = context.outbox.room(count * stride);
    let (mut used, mut inner) = (0, 0);
    for index in 0..count {
        if let Some(channel) = via.channel {
            room[used..used + DATA_HEAD_LEN].copy_from_slice(&channel.head());
            used += DATA_HEAD_LEN;
        }
        let len = write(index, &mut scratch.plaintext);
        used += seal(session, len, mtu, &mut scratch.plaintext, now, &mut room[used..]);
        inner += len;
    }
    let messages = context.outbox.draft(used);
    peer.tunnel.on_sealed(&context.outbox.read(&messages)[via.lead()..]);
    if let Some(mirror) = mirror {
        context.outbox.mirror(&messages, (stride, via.lead()), heading_over(mirror, ecn));
        context.stats.mirrored_bytes.add(used as u64);
        if mirror.via.channel.is_some() {
            context.stats.relayed_sent_bytes.add((used + count * (mirror.via.lead() - via.lead())) as u64);
        }
    }
    context.outbox.transmit(messages, stride, Heading { destination, via, traffic_class: ecn, whole_for, ttl: None });
    if let Some(agent) = &mut peer.paths.agent {
        agent.on_sent(count as u32, mirror.is_some());
    }
    peer.stats.sent_packets.add(count as u64);
    peer.stats.sent_bytes.add(inner as u64);
    context.stats.count_sent(&peer.stats, via, used);
    peer.on_data_sent(now);
    Ok(())
}

/// Seals the first `len` bytes of `plaintext`, padded with zeros.
fn seal(session: &mut Session, len: usize, mtu: usize, plaintext: &mut [u8], now: Instant, out: &mut [u8]) -> usize {
    let padded = padded_len(len, mtu);
    plaintext[len..padded].fill(0);
    session.seal(&plaintext[..padded], now, out)
}
