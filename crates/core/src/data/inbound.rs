//! Network to TUN, check by check: receiver, session, endpoint, inner source, destination, allowlist, the filter for
//! traffic that configures hosts, TUN.
//!
//! A train shares only its outer source. The peer chose every inner packet, so each datagram goes through every check. Only
//! a packet whose addresses, protocol and ports equal those of the one before it reuses its verdict.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use overlay_wire::control::Frame;
use overlay_wire::icmp::{self, Report};
use overlay_wire::ip::{self, Packet};
use overlay_wire::relay::open_data;
use overlay_wire::tcp;
use overlay_wire::wireguard::{Kind, Message, kind};

use crate::context::Context;
use crate::data::allowed_ips::AllowedIps;
use crate::data::allowlist::{FlowKey, flow_key};
use crate::data::{ecn, host_configuration, outbound};
use crate::local::Local;
use crate::node::Node;
use crate::origin::{Arrival, Origin};
use crate::outbox::Draft;
use crate::path::agent::Place;
use crate::peer::Peer;
use crate::session::outcome::Content;
use crate::session::timers::REKEY_ON_RECEIVE;
use crate::{DropReason, Instant, PeerTag, UdpTrain};

/// State that is kept from one datagram of a train to the next.
#[derive(Default)]
struct Course {
    /// Whether it comes from a relay of ours.
    is_of_relay: bool,
    /// How long it has waited already because it was early.
    waited: Option<Duration>,
    /// The receiver index that was last looked up, and the peer that it belongs to.
    receiver: Option<(u32, PeerTag)>,
    /// The peer that the last data came from, and what it sent in this train so far.
    sender: Option<Sender>,
    /// The packet that was last admitted.
    admitted: Option<Admitted>,
}

/// A peer, a path, and their part of a train. Timers and counters are updated once for all of it.
struct Sender {
    tag: PeerTag,
    is_authentic: bool,
    origin: Origin,
    /// Whether its messages may have overtaken others, on a different path.
    may_be_early: bool,
    /// Datagrams that the path agent was not told of yet, frames included, and the place of the latest one.
    datagrams: u32,
    latest: Place,
    /// It sent something that a peer sends only while it hears us.
    is_heard: bool,
    packets: u64,
    bytes: u64,
    wire_bytes: u64,
}

impl Sender {
    fn new(peer: &Peer, origin: Origin) -> Self {
        Self {
            tag: peer.tag,
            is_authentic: false,
            origin,
            may_be_early: peer.paths.agent.as_ref().is_some_and(|agent| agent.may_be_early(origin)),
            datagrams: 0,
            latest: Place::default(),
            is_heard: false,
            packets: 0,
            bytes: 0,
            wire_bytes: 0,
        }
    }

    /// Whether a datagram of this peer from there belongs to it: a relay may send those of several channels as one train.
    fn is_of(&self, tag: PeerTag, origin: Origin) -> bool {
        self.tag == tag && self.origin.via.channel == origin.via.channel
    }

    /// Tells the path agent what has arrived so far.
    fn tell_agent(&mut self, peer: &mut Peer, now: Instant) {
        let count = std::mem::take(&mut self.datagrams);
        if let Some(agent) = &mut peer.paths.agent {
            agent.on_received(self.origin.endpoint(), count, self.latest, self.packets > 0, now);
        }
    }
}

/// What a packet was admitted for. The next packet skips the checks if all of this is equal.
#[derive(Clone, Copy)]
struct Admitted {
    ends: (PeerTag, IpAddr, IpAddr),
    /// `None` if the peer has no allowlist, or if each packet must be judged by itself.
    flow: Option<FlowKey>,
}

/// What a data message held, before anything is done with it. Messages that its receipt causes may be sent first.
enum Received {
    Packet(Draft),
    Frame(Draft),
    Keepalive,
    Malformed,
}

impl Node {
    pub(crate) fn inbound(&mut self, train: &UdpTrain<'_>, now: Instant) {
        if train.contents.is_empty() {
            self.context.stats.count_drop(DropReason::InboundUnknown);
        }
        if !self.context.local.is_up {
            let datagrams = train.contents.len().div_ceil(train.stride.max(1));
            return self.context.stats.count_drops(DropReason::InterfaceDown, datagrams as u64);
        }
        let is_of_relay = self.context.local.relays.contains(&train.source);
        let mut course = Course { is_of_relay, ..Course::default() };
        let origin = Origin { source: train.source, via: train.via, ecn: train.ecn };
        for datagram in train.contents.chunks(train.stride.max(1)) {
            if let Err(reason) = self.datagram(datagram, origin, &mut course, now) {
                self.context.stats.count_drop(reason);
            }
        }
        // The next train may be long enough to leave behind what waits for this one.
        if let Some(tag) = self.dismiss(&mut course, now) {
            self.resume(tag, now);
        }
    }

    /// Takes the messages of a peer that were early, and are not any more.
    pub(crate) fn resume(&mut self, tag: PeerTag, now: Instant) {
        let next = |node: &mut Self| node.peers.peer(tag)?.paths.agent.as_mut()?.poll_early(now);
        while let Some((origin, message, waited)) = next(self) {
            let mut course = Course { waited: Some(waited), ..Course::default() };
            if let Err(reason) = self.message(&message, origin, &mut course, now) {
                self.context.stats.count_drop(reason);
            }
            self.dismiss(&mut course, now);
        }
    }

    /// Settles timers and counters for the peer whose data came last. Called when the train ends or the next data is from a
    /// different peer. Returns the peer if messages of it wait.
    fn dismiss(&mut self, course: &mut Course, now: Instant) -> Option<PeerTag> {
        let mut sender = course.sender.take()?;
        let peer = self.peers.peer(sender.tag)?;
        peer.stats.received_packets.add(sender.packets);
        peer.stats.received_bytes.add(sender.bytes);
        self.context.stats.count_received(&peer.stats, sender.origin.via, sender.wire_bytes);
        sender.tell_agent(peer, now);
        if sender.is_authentic {
            self.context.renew(peer, REKEY_ON_RECEIVE, now);
        }
        peer.arm(&mut self.deadlines, now);
        peer.paths.agent.as_ref().is_some_and(|agent| agent.is_anything_early()).then_some(sender.tag)
    }

    fn datagram(
        &mut self,
        datagram: &[u8],
        origin: Origin,
        course: &mut Course,
        now: Instant,
    ) -> Result<(), DropReason> {
        match kind(datagram) {
            Kind::WireGuard => self.message(datagram, origin, course, now),
            Kind::Relayed if course.is_of_relay => {
                let (channel, inner) = open_data(datagram).ok_or(DropReason::InboundUnknown)?;
                if kind(inner) != Kind::WireGuard {
                    return Err(DropReason::InboundUnknown);
                }
                self.message(inner, origin.through(channel), course, now)
            }
            Kind::Stun | Kind::RelayControl if course.is_of_relay => {
                self.context.outbox.foreign(origin.source, origin.via, datagram);
                self.context.stats.foreign.add(1);
                Ok(())
            }
            Kind::Stun | Kind::Relayed | Kind::RelayControl | Kind::Unknown => Err(DropReason::InboundUnknown),
        }
    }

    /// Takes a message of WireGuard.
    fn message(&mut self, message: &[u8], origin: Origin, course: &mut Course, now: Instant) -> Result<(), DropReason> {
        match Message::parse(message).map_err(|_| DropReason::InboundLength)? {
            Message::Data { receiver, counter, .. } => {
                self.data(Place { receiver, counter }, message, origin, course, now)
            }
            handshake => self.handshake(handshake, message, origin, now),
        }
    }

    fn data(
        &mut self,
        place: Place,
        message: &[u8],
        origin: Origin,
        course: &mut Course,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Place { receiver, counter } = place;
        let tag = match course.receiver {
            Some((known, tag)) if known == receiver => tag,
            _ => self.context.indices.find(receiver).ok_or(DropReason::UnknownReceiver)?,
        };
        course.receiver = Some((receiver, tag));
        let is_new = course.sender.as_ref().is_none_or(|sender| !sender.is_of(tag, origin));
        if is_new {
            self.dismiss(course, now);
        }
        let (peer, allowed_ips) = self.peers.peer_and_allowed_ips(tag).ok_or(DropReason::UnknownReceiver)?;
        if is_new {
            self.context.advance(peer, now);
        }
        let sender = course.sender.get_or_insert_with(|| Sender::new(peer, origin));
        if sender.may_be_early
            && course.waited.is_none()
            && let Some(agent) = &mut peer.paths.agent
            && agent.wait_if_early(place, message, origin, now)
        {
            return Ok(());
        }
        let session = peer.tunnel.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        let room = self.context.outbox.room(message.len());
        let opened = session.open(receiver, counter, message, now, room)?;
        let received = match opened.content {
            Content::Packet(len) => Received::Packet(self.context.outbox.draft(len)),
            Content::Frame(len) => Received::Frame(self.context.outbox.draft(len)),
            Content::Keepalive => Received::Keepalive,
            Content::Malformed => Received::Malformed,
        };

        // From here on the message is authentic.
        if !sender.is_heard && (opened.confirms || !self.context.is_question(&received)) {
            sender.is_heard = true;
            self.context.on_heard(peer, now);
        }
        if !sender.is_authentic {
            sender.is_authentic = true;
            self.context.on_authenticated(peer, origin, now);
        }
        if opened.confirms {
            // Comes before the content is handled, which may be a hello.
            self.context.on_handshake_completed(peer, opened.key_number, false, origin, now);
        }
        let delivered = match received {
            Received::Keepalive => Ok(None),
            Received::Malformed => Err(DropReason::InboundMalformed),
            Received::Frame(frame) => {
                // The answer to a probe says how much has arrived, also before it in this train.
                sender.tell_agent(peer, now);
                let is_former = peer.tunnel.session.as_ref().is_some_and(|session| !session.sends_in(receiver, now));
                let arrival = Arrival { origin, is_former, waited: course.waited.unwrap_or_default() };
                self.context.on_frame(peer, frame, arrival, now)
            }
            Received::Packet(packet) if self.context.on_echo_reply(peer, &packet, now) => Ok(None),
            Received::Packet(packet) => Ok(Some(packet)),
        };
        let delivered = delivered.and_then(|packet| {
            let Some(packet) = packet else { return Ok(()) };
            let mtu = peer.way(&self.context.local).mtu;
            let bytes = self.context.outbox.edit(&packet);
            let len = admit(bytes, peer, allowed_ips, &self.context.local, &mut course.admitted, now)?;
            ecn::carry_in(origin.ecn, bytes);
            tcp::clamp_mss(bytes, mtu);
            let packet = packet.truncated(len);
            self.context.coalescer.deliver(&mut self.context.outbox, packet, self.context.local.joins);
            sender.packets += 1;
            sender.bytes += len as u64;
            Ok(())
        });
        sender.datagrams += 1;
        sender.latest = place;
        sender.wire_bytes += (origin.via.lead() + message.len()) as u64;
        if !peer.staged.is_empty() {
            outbound::flush(peer, allowed_ips, &mut self.scratch, &mut self.context, now);
        }
        delivered.inspect_err(|_| peer.stats.drops.add(1))
    }
}

impl Context {
    /// Whether the message is a question, which the peer sends whether or not it hears us.
    fn is_question(&self, received: &Received) -> bool {
        match received {
            Received::Frame(frame) => Frame::parse(self.outbox.read(frame)).is_ok_and(|frame| frame.is_question()),
            Received::Packet(_) | Received::Keepalive | Received::Malformed => false,
        }
    }
}

/// Decides whether a packet that `peer` sent may enter. Returns its length if so.
fn admit(
    bytes: &[u8],
    peer: &mut Peer,
    allowed_ips: &AllowedIps<PeerTag>,
    local: &Local,
    admitted: &mut Option<Admitted>,
    now: Instant,
) -> Result<usize, DropReason> {
    let packet = Packet::parse(bytes).map_err(|_| DropReason::InboundMalformed)?;
    let (source, destination) = (packet.source(), packet.destination());
    let before = admitted.take().filter(|before| before.ends == (peer.tag, source, destination));
    if before.is_none() {
        admit_ends(source, destination, peer, allowed_ips, local)?;
    }
    let mut flow = None;
    if let Some(allowlist) = &mut peer.rights.allowlist {
        flow = flow_key(&packet);
        if flow.is_none() || before.is_none_or(|before| before.flow != flow) {
            allowlist.admit(&packet, now)?;
            host_configuration::pass(&packet)?;
        }
    } else {
        host_configuration::pass(&packet)?;
    }
    if may_be_icmp(&packet) && !may_report(&packet, peer, allowed_ips) {
        return Err(DropReason::SpoofedSource);
    }
    *admitted = Some(Admitted { ends: (peer.tag, source, destination), flow });
    Ok(packet.len())
}

/// Whether the packet may be an ICMP error. Most are not, and their first header says so.
fn may_be_icmp(packet: &Packet<'_>) -> bool {
    !matches!(packet.protocol(), ip::TCP | ip::UDP)
}

/// Whether the packet is no ICMP error, or one about a packet that may have gone to this peer. The kernel believes errors:
/// one about a path to a different peer would lower its MTU, or end a connection.
fn may_report(packet: &Packet<'_>, peer: &Peer, allowed_ips: &AllowedIps<PeerTag>) -> bool {
    match icmp::report(packet) {
        Report::Nothing => true,
        Report::About { source, destination } => {
            source == packet.destination() && allowed_ips.lookup(destination) == Some(peer.tag)
        }
        Report::Hidden => false,
    }
}

fn admit_ends(
    source: IpAddr,
    destination: IpAddr,
    peer: &Peer,
    allowed_ips: &AllowedIps<PeerTag>,
    local: &Local,
) -> Result<(), DropReason> {
    if is_martian(source) || local.owns(source) {
        return Err(DropReason::MartianSource);
    }
    if allowed_ips.lookup(source) != Some(peer.tag) {
        return Err(DropReason::SpoofedSource);
    }
    if !host_configuration::may_come_from(source, peer, allowed_ips) {
        return Err(DropReason::HostConfiguration);
    }
    if !local.may_deliver_to(destination) {
        return Err(DropReason::InboundDestination);
    }
    Ok(())
}

/// Whether a packet can never have come from this address.
fn is_martian(source: IpAddr) -> bool {
    let is_broadcast = source == IpAddr::V4(Ipv4Addr::BROADCAST);
    source.is_loopback() || source.is_multicast() || source.is_unspecified() || is_broadcast
}
