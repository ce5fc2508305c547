//! A stock WireGuard peer. It does not know control frames, and its host answers echoes, in fragments if its own MTU
//! requires that.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_core::Instant;
use overlay_sim::initiator::Session;
use overlay_sim::packet::{Echo, Ends};
use overlay_sim::{HostId, Outsider, World, millis};
use overlay_wire::control::{self, Abilities, Frame};
use overlay_wire::ip::{ICMPV6, Packet, fragment_v4};
use overlay_wire::wireguard::Message;

/// How many bytes surround an inner packet: IPv4, UDP, WireGuard.
const AROUND: usize = 60;
const PACE: Duration = millis(5);

/// The peer and its host.
pub(crate) struct Stock {
    pub(crate) outsider: Outsider,
    sessions: Vec<Session>,
    /// The largest outer packet on the path, in both directions, in bytes.
    pub(crate) path: usize,
    /// Whether a router fragments larger packets that do not have DF.
    pub(crate) is_fragmented: bool,
    /// The MTU of the peer's own interface, in bytes.
    pub(crate) own_mtu: usize,
    /// Whether the peer's host answers echoes.
    pub(crate) is_echoing: bool,
    /// Whether it answers control frames, like software that may replace a stock WireGuard.
    pub(crate) is_overlay: bool,
    /// Every packet sent to it, oldest first, including packets for other addresses. Empty for a keepalive.
    pub(crate) heard: Vec<(Instant, Vec<u8>)>,
    /// How many handshakes it has answered.
    pub(crate) answered: usize,
}

impl Stock {
    /// Creates a peer of `host`. The host knows its endpoint.
    pub(crate) fn new(world: &mut World, host: HostId, mtu_discovery: bool) -> Self {
        let address: SocketAddr = "203.0.113.77:51820".parse().expect("an address");
        let mut outsider = world.outsider_with(host, |peer| {
            peer.endpoint = Some(address);
            peer.mtu_discovery = mtu_discovery;
        });
        outsider.address = address;
        Self {
            outsider,
            sessions: Vec::new(),
            path: 1_500,
            is_fragmented: false,
            own_mtu: 1_420,
            is_echoing: true,
            is_overlay: false,
            heard: Vec::new(),
            answered: 0,
        }
    }

    /// The inner addresses from the host to the peer.
    pub(crate) fn ends(&self, world: &World, is_v4: bool) -> Ends {
        let [v4, v6] = self.outsider.inner;
        let host = self.outsider.host;
        if is_v4 { Ends::new(world.v4(host, host).source, v4) } else { Ends::new(world.v6(host, host).source, v6) }
    }

    /// Makes the peer start a handshake.
    pub(crate) fn call(&mut self, world: &mut World) {
        let session = world.connect(&mut self.outsider);
        self.sessions.push(session);
    }

    /// Runs the peer and the world for `span`.
    pub(crate) fn run(&mut self, world: &mut World, span: Duration) {
        let end = world.now() + span;
        while world.now() < end {
            world.run_for(PACE);
            for datagram in world.take_mail(self.outsider.address) {
                self.hear(world, &datagram);
            }
        }
    }

    fn hear(&mut self, world: &mut World, datagram: &[u8]) {
        if datagram.len() + 28 > self.path && !(self.is_fragmented && may_be_fragmented(world, datagram)) {
            return;
        }
        match Message::parse(datagram) {
            Ok(Message::Initiation(_)) => {
                self.outsider.next_index += 1;
                let (response, session, _) =
                    self.outsider.initiator.answer(datagram, self.outsider.next_index).expect("an initiation for it");
                self.sessions.push(session);
                self.answered += 1;
                world.inject(self.outsider.address, self.outsider.host, &response);
            }
            Ok(Message::Data { .. }) => {
                let opened = self.sessions.iter().find_map(|session| session.open(datagram).ok());
                let plaintext = opened.expect("data for one of its sessions").plaintext;
                let packet = Packet::parse(&plaintext).map_or(Vec::new(), |packet| packet.bytes().to_vec());
                self.answer(world, &packet);
                self.heard.push((world.now(), packet));
            }
            _ => {}
        }
    }

    /// Answers a packet as the peer's host does.
    fn answer(&mut self, world: &mut World, packet: &[u8]) {
        if control::is_control(packet) {
            return self.answer_frame(world, packet);
        }
        if !self.is_echoing {
            return;
        }
        let Some(echo) = Echo::of(packet).filter(|echo| echo.is_request) else { return };
        if !self.outsider.inner.contains(&echo.ends.destination) {
            return;
        }
        let reply = reply(&echo);
        for piece in fragments(&reply, self.own_mtu) {
            self.say(world, &piece);
        }
    }

    fn answer_frame(&mut self, world: &mut World, packet: &[u8]) {
        let answer = match Frame::parse(packet) {
            Ok(Frame::Hello { nonce, .. }) => {
                Frame::HelloReply { nonce, understands: Abilities::FRAGMENTS, mtu: 9_000 }
            }
            Ok(Frame::Probe { id, size }) => Frame::ProbeReply { id, size },
            _ => return,
        };
        if self.is_overlay {
            self.say_frame(world, answer);
        }
    }

    /// Sends a control frame.
    pub(crate) fn say_frame(&mut self, world: &mut World, frame: Frame<'_>) {
        let mut packet = vec![0; frame.len()];
        frame.write(&mut packet);
        self.say(world, &packet);
    }

    /// Sends a packet, if the path carries it.
    pub(crate) fn say(&mut self, world: &mut World, packet: &[u8]) {
        let Some(session) = self.sessions.last_mut() else { return };
        let message = session.seal(packet);
        if packet.len() + AROUND <= self.path {
            world.inject(self.outsider.address, self.outsider.host, &message);
        }
    }

    /// How many control frames it has received.
    pub(crate) fn hellos(&self) -> usize {
        self.heard.iter().filter(|(_, packet)| control::is_control(packet)).count()
    }

    /// The lengths of received echo requests that are probes and not sent by a user.
    pub(crate) fn echoes(&self) -> Vec<usize> {
        let is_probe = |packet: &Vec<u8>| {
            Echo::of(packet).is_some_and(|echo| echo.is_request && echo.payload.iter().all(|byte| *byte == 0))
        };
        self.heard.iter().map(|(_, packet)| packet).filter(|packet| is_probe(packet)).map(Vec::len).collect()
    }
}

/// Whether the datagram was sent without DF.
fn may_be_fragmented(world: &World, datagram: &[u8]) -> bool {
    world.sent().iter().rev().find(|sent| sent.bytes == datagram).is_some_and(|sent| !sent.dont_fragment)
}

/// A host's echo reply, built by the protocol's rules and not with the probe code: type and checksum are new.
fn reply(echo: &Echo<'_>) -> Vec<u8> {
    let mut packet = echo.ends.reversed().echo_request(echo.identifier, echo.sequence, echo.payload);
    let is_v4 = echo.ends.source.is_ipv4();
    let at = if is_v4 { 20 } else { 40 };
    let (request, reply) = if is_v4 { (8, 0) } else { (128, 129) };
    packet[at] = reply;
    let sum = u16::from_be_bytes([packet[at + 2], packet[at + 3]]);
    let sum = overlay_wire::checksum::update(sum, u16::from_be_bytes([request, 0]), u16::from_be_bytes([reply, 0]));
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The fragments that a host makes of its own packet if that exceeds the MTU of its interface.
fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    if packet.len() <= mtu {
        return vec![packet.to_vec()];
    }
    let parsed = Packet::parse(packet).expect("a packet");
    match (parsed.source(), parsed.destination()) {
        (IpAddr::V4(_), _) => {
            let mut packet = packet.to_vec();
            packet[6] &= !0x40;
            let mut pieces = Vec::new();
            let parsed = Packet::parse(&packet).expect("a packet");
            fragment_v4(&parsed, mtu, &mut |piece| pieces.push(piece.to_vec())).expect("it may be fragmented");
            pieces
        }
        (IpAddr::V6(source), destination) => {
            const FRAGMENT: u8 = 44;
            let room = (mtu - 48) & !7;
            let message = &packet[40..];
            let pieces = message.chunks(room).enumerate().map(|(index, part)| {
                let (offset, more) = (index * room, index * room + part.len() < message.len());
                let field = (offset as u16) | u16::from(more);
                let [high, low] = field.to_be_bytes();
                let mut bytes = vec![ICMPV6, 0, high, low, 0, 0, 0, 7];
                bytes.extend(part);
                Ends::new(source, destination).ip(FRAGMENT, &bytes)
            });
            pieces.collect()
        }
    }
}
