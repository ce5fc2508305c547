//! What is said to a peer about the path, and what it answers: hellos, probes, fragments.
//!
//! All of it travels inside the session. Frames are taken from every peer and answered, whatever we want to know of it
//! ourselves; an answer is never longer than what it answers, but for two bytes where a probe has no padding.

use overlay_wire::control::{self, Abilities, Frame, Refused};
use overlay_wire::icmp;
use overlay_wire::ip::Packet;
use overlay_wire::offload::VirtioHeader;
use overlay_wire::wireguard::DATA_OVERHEAD;

use crate::context::{Context, Local};
use crate::data::session::Content;
use crate::path::discovery::{Discovery, Due, EchoEnds};
use crate::peer::Peer;
use crate::{DropReason, Instant, ProbedBy};

/// Prefixes of a peer that are looked at for an address to send echoes to.
const ECHO_PREFIXES: usize = 64;
/// Frames and echoes bear no mark.
const CLASS: u8 = 0;

impl Context {
    /// A session was made: time to get acquainted.
    pub(crate) fn on_session(&mut self, peer: &mut Peer, is_initiator: bool, now: Instant) {
        if peer.discovers {
            let max_mtu = self.local.max_mtu;
            let discovery = peer.discovery.get_or_insert_with(|| Box::new(Discovery::new(max_mtu, now)));
            discovery.on_session(is_initiator, now, &mut self.rng);
        }
    }

    /// The peer is somewhere else: what was known of the way there is of no use.
    pub(crate) fn on_path_change(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(discovery) = &mut peer.discovery {
            discovery.on_path_change(self.local.max_mtu, now);
            self.settle(peer, now);
        }
    }

    /// Our interface takes another length of packets: overlay nodes are told, in the session that there is.
    pub(crate) fn on_other_mtu(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(discovery) = &mut peer.discovery {
            discovery.on_other_mtu(self.local.max_mtu, now, &mut self.rng);
        }
    }

    /// The peer's configuration, or what is ours of it, changed.
    pub(crate) fn on_change(&mut self, peer: &mut Peer, now: Instant) {
        let Some(discovery) = &mut peer.discovery else { return };
        if peer.discovers {
            discovery.on_change();
            self.discover(peer, now);
        } else {
            discovery.on_end();
            self.settle(peer, now);
            peer.discovery = None;
        }
    }

    /// Says what is due to be said to a peer whose session is alive.
    pub(crate) fn discover(&mut self, peer: &mut Peer, now: Instant) {
        if !peer.is_alive(now) {
            return;
        }
        let Some(mut discovery) = peer.discovery.take() else { return };
        loop {
            let ends = || echo_ends(peer, &self.local);
            let Some(due) = discovery.poll(now, self.local.max_mtu, ends, &mut self.rng) else { break };
            match due {
                Due::Hello { nonce } => {
                    let (understands, mtu) = self.ourselves();
                    self.say(peer, Frame::Hello { nonce, understands, mtu }, false, now);
                }
                Due::Probe(probe) => {
                    let size = u16::try_from(probe.size).unwrap_or(u16::MAX);
                    self.say(peer, Frame::Probe { id: probe.id, size }, true, now);
                    self.stats.mtu_probes_sent.add(1);
                }
                Due::Echo(EchoEnds { ours, theirs }, probe) => {
                    let (id, sequence) = ((probe.id >> 16) as u16, probe.id as u16);
                    let mut echo = std::mem::take(&mut self.frame);
                    echo.resize(probe.size, 0);
                    icmp::write_echo_request(ours, theirs, id, sequence, probe.size, &mut echo);
                    self.frame = echo;
                    self.send_frame(peer, true, now);
                    self.stats.mtu_probes_sent.add(1);
                }
            }
        }
        peer.discovery = Some(discovery);
        self.settle(peer, now);
    }

    /// Tells everyone concerned when something changed in what is known of the path: control, and where packets are too
    /// long from now on, those who sent such.
    pub(crate) fn settle(&mut self, peer: &mut Peer, now: Instant) {
        let Some(discovery) = &mut peer.discovery else { return };
        let Some((report, is_less)) = discovery.report(self.local.mtu, self.local.max_mtu, now) else { return };
        self.tell_path_mtu(peer, report, now);
        if !is_less {
            return;
        }
        if report.probed_by != ProbedBy::Nothing {
            self.stats.mtu_falls.add(1);
        }
        let Some(discovery) = &mut peer.discovery else { return };
        let mut error = Vec::new();
        for (packet, mtu) in discovery.take_recent(report.mtu.into()) {
            // Of what may be fragmented the next ones are, and nobody has to send less.
            if packet.dont_fragment() && icmp::too_big(&packet, u16::try_from(mtu).unwrap_or(u16::MAX), &mut error) {
                self.outbox.room(error.len()).copy_from_slice(&error);
                self.outbox.packet(VirtioHeader::NONE, error.len());
            }
        }
    }

    /// Takes the control frame of `len` bytes in the outbox's room. What it brought: nothing, or a packet, now in the room.
    pub(crate) fn on_frame(&mut self, peer: &mut Peer, len: usize, now: Instant) -> Result<Content, DropReason> {
        let frame = Frame::parse(self.outbox.room(len)).map_err(|refused| match refused {
            Refused::Malformed => DropReason::ControlMalformed,
            Refused::UnknownCritical => DropReason::ControlUnknown,
        })?;
        let max_mtu = self.local.max_mtu;
        let answer = match frame {
            Frame::Hello { nonce, understands, mtu } => {
                if let Some(discovery) = &mut peer.discovery {
                    discovery.on_hello(understands, mtu, max_mtu, now);
                }
                let (understands, mtu) = self.ourselves();
                Some(Frame::HelloReply { nonce, understands, mtu })
            }
            Frame::HelloReply { nonce, understands, mtu } => {
                if let Some(discovery) = &mut peer.discovery {
                    discovery.on_hello_reply(nonce, understands, mtu, max_mtu, now);
                }
                None
            }
            Frame::Probe { id, size } => {
                if let Some(discovery) = &mut peer.discovery {
                    discovery.on_probe(size.into(), now);
                }
                Some(Frame::ProbeReply { id, size })
            }
            Frame::ProbeReply { id, size } => {
                if let Some(discovery) = &mut peer.discovery {
                    discovery.on_probe_reply(id, size.into(), now);
                }
                None
            }
            Frame::Fragment { id, offset, total, bytes } => {
                let reassembly = peer.reassembly.get_or_insert_default();
                let (taken, lost) = reassembly.take(id, offset.into(), total.into(), bytes, now);
                self.stats.count_drops(DropReason::FragmentFrameLost, lost);
                peer.stats.drops.add(lost);
                let Some(packet) = taken? else { return Ok(Content::Keepalive) };
                if control::is_control(packet) {
                    // Nobody cuts a frame, and it is no packet for TUN.
                    return Err(DropReason::ControlMalformed);
                }
                self.stats.packets_joined.add(1);
                self.outbox.room(packet.len()).copy_from_slice(packet);
                return Ok(Content::Packet(packet.len()));
            }
        };
        if let Some(answer) = answer {
            self.say(peer, answer, peer.way(&self.local).is_proven, now);
        }
        self.settle(peer, now);
        Ok(Content::Keepalive)
    }

    /// Whether the packet of `len` bytes in the outbox's room answers an echo of ours: it is nobody else's then.
    pub(crate) fn on_echo_reply(&mut self, peer: &mut Peer, len: usize, now: Instant) -> bool {
        let discovery = peer.discovery.as_mut().filter(|discovery| discovery.sends_echoes());
        if discovery.is_none() && !peer.reach.has_sent_echoes() {
            return false;
        }
        let bytes = &self.outbox.room(len)[..];
        if !icmp::may_be_echo_reply(bytes) {
            return false;
        }
        let Ok(packet) = Packet::parse(bytes) else { return false };
        let Some(reply) = icmp::echo_reply(&packet) else { return false };
        let id = u32::from(reply.id) << 16 | u32::from(reply.sequence);
        if peer.reach.is_our_echo(id) {
            return true;
        }
        let is_ours = discovery.is_some_and(|discovery| discovery.on_echo_reply(reply.source, id, now));
        if is_ours {
            self.settle(peer, now);
        }
        is_ours
    }

    /// A datagram to the peer was refused that had a packet of `size` bytes inside.
    pub(crate) fn on_refused(&mut self, peer: &mut Peer, size: usize, now: Instant) {
        if let Some(discovery) = &mut peer.discovery {
            discovery.on_refused(size, now);
            self.settle(peer, now);
        }
    }

    /// What a hello says of us.
    fn ourselves(&self) -> (Abilities, u16) {
        (Abilities::FRAGMENTS, u16::try_from(self.local.max_mtu).unwrap_or(u16::MAX))
    }

    pub(crate) fn say(&mut self, peer: &mut Peer, frame: Frame<'_>, is_whole: bool, now: Instant) {
        let len = frame.len();
        self.frame.resize(len, 0);
        frame.write(&mut self.frame);
        self.send_frame(peer, is_whole, now);
    }

    /// Seals what lies in `frame` as it is, without padding.
    pub(crate) fn send_frame(&mut self, peer: &mut Peer, is_whole: bool, now: Instant) {
        let Some(session) = &mut peer.session else { return };
        let len = session.seal_aside(&self.frame, now, self.outbox.room(self.frame.len() + DATA_OVERHEAD));
        if len > 0 {
            peer.on_sealed(self.outbox.room(len));
            self.transmit(peer, len, CLASS, is_whole);
            peer.on_sent(now);
        }
    }
}

/// The first address that is the peer's alone, and one of ours of the same family.
pub(crate) fn echo_ends(peer: &Peer, local: &Local) -> Option<EchoEnds> {
    let hosts = peer.allowed_ips.iter().take(ECHO_PREFIXES).filter(|net| net.prefix_len() == net.max_prefix_len());
    hosts.map(|net| net.addr()).find_map(|theirs| {
        let ours = local.addresses.iter().copied().find(|ours| ours.is_ipv4() == theirs.is_ipv4())?;
        Some(EchoEnds { ours, theirs })
    })
}
