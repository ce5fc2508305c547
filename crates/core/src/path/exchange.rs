//! Messages to a peer about the path, and its answers: hellos, probes, fragments. Words for its control go the same way.
//!
//! All of them travel inside the session. Frames of every peer are taken and answered, even if we do not probe that peer
//! ourselves. An answer is never longer than the message it answers, except for two bytes if a probe has no padding.

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_wire::control::{self, Abilities, Frame, MAX_PARCEL_LEN, MAX_WORD_LEN, Refused};
use overlay_wire::icmp;
use overlay_wire::ip::Packet;
use overlay_wire::offload::VirtioHeader;
use overlay_wire::wireguard::DATA_OVERHEAD;

use crate::context::Context;
use crate::local::Local;
use crate::origin::Arrival;
use crate::outbox::Draft;
use crate::path::discovery::{Ceiling, Discovery, Due, EchoEnds};
use crate::path::endpoint::Endpoint;
use crate::path::greeting::Acquaintance;
use crate::path::paths::Path;
use crate::peer::Peer;
use crate::{DropReason, Event, Instant, PathTag, ProbedBy};

/// How many prefixes of a peer are searched for an address to send echoes to.
const ECHO_PREFIXES: usize = 64;
/// The traffic class of frames and echoes: unmarked.
const CLASS: u8 = 0;

impl Context {
    /// Handles a new session: sends a hello if one is due, and the word that waits.
    pub(crate) fn on_session(&mut self, peer: &mut Peer, is_initiator: bool, now: Instant) {
        self.greet(peer, is_initiator, now);
        self.say_waiting_word(peer, now);
    }

    fn greet(&mut self, peer: &mut Peer, is_initiator: bool, now: Instant) {
        let Some(path) = peer.paths.primary_mut().filter(|_| peer.discovers) else { return };
        let max_mtu = self.local.max_mtu;
        let discovery = path.discovery.get_or_insert_with(|| Box::new(Discovery::new(max_mtu, now)));
        if discovery.is_unanswered() {
            peer.greeting.on_silence();
        }
        peer.greeting.on_session(is_initiator, now, &mut self.rng);
    }

    /// Begins the search for the MTU of a path that was never used before.
    pub(crate) fn on_path_taken(&mut self, peer: &mut Peer, now: Instant) {
        let (ceiling, is_known) = (self.ceiling(peer), peer.greeting.peer().is_overlay());
        let max_mtu = self.local.max_mtu;
        if let Some(path) = peer.paths.primary_mut().filter(|_| peer.discovers) {
            let discovery = path.discovery.get_or_insert_with(|| Box::new(Discovery::new(max_mtu, now)));
            if is_known {
                discovery.on_acquainted(ceiling, now);
            }
            self.settle(peer, now);
        }
    }

    /// Handles a move of the peer. What was known of the earlier path no longer helps.
    pub(crate) fn on_path_change(&mut self, peer: &mut Peer, now: Instant) {
        let ceiling = self.ceiling(peer);
        if let Some(discovery) = peer.discovery() {
            discovery.on_path_change(ceiling, now);
            self.settle(peer, now);
        }
    }

    /// Handles a change of the MTU of our own interface. Overlay nodes are told in the existing session.
    pub(crate) fn on_local_mtu(&mut self, peer: &mut Peer, now: Instant) {
        let ceiling = self.ceiling(peer);
        if let Some(discovery) = peer.discovery() {
            discovery.on_local_mtu(ceiling, now);
            peer.greeting.on_news(now, &mut self.rng);
        }
    }

    /// Handles a change of the peer's configuration, or of ours that affects it. The peer may now answer what it did not
    /// answer before.
    pub(crate) fn on_change(&mut self, peer: &mut Peer, now: Instant) {
        let discovers = peer.discovers;
        let Some(discovery) = peer.discovery() else { return };
        if discovers {
            peer.greeting.on_change();
            self.discover(peer, now);
        } else {
            discovery.on_end();
            self.settle(peer, now);
            peer.forget_path_mtu();
        }
    }

    /// Sends the hellos and probes that are due to a peer whose session is alive.
    pub(crate) fn discover(&mut self, peer: &mut Peer, now: Instant) {
        if !peer.is_alive(now) || peer.discovery().is_none() {
            return;
        }
        while let Some(nonce) = peer.greeting.poll(now) {
            let (understands, mtu) = self.ourselves();
            self.say(peer, Frame::Hello { nonce, understands, mtu }, false, now);
        }
        let ceiling = self.ceiling(peer);
        loop {
            let (allowed_ips, local) = (&peer.rights.allowed_ips, &self.local);
            let Some(discovery) = peer.paths.primary_mut().and_then(|path| path.discovery.as_mut()) else { break };
            let Some(due) = discovery.poll(ceiling, || echo_ends(allowed_ips, local), now, &mut self.rng) else {
                break;
            };
            match due {
                Due::Probe(probe) => {
                    let size = u16::try_from(probe.size).unwrap_or(u16::MAX);
                    self.say(peer, Frame::Probe { id: probe.id, size }, true, now);
                }
                Due::Echo(ends, probe) => self.send_echo(peer, ends, probe.id, probe.size, true, now),
            }
            self.stats.mtu_probes_sent.add(1);
        }
        self.settle(peer, now);
    }

    /// Reports a change in what is known of the path: to control, and to the senders whose packets are too long from now
    /// on.
    pub(crate) fn settle(&mut self, peer: &mut Peer, now: Instant) {
        let Some(path) = peer.paths.primary_mut() else { return };
        let tag = path.tag(peer.tag);
        let Some(discovery) = &mut path.discovery else { return };
        let Some((report, is_less)) = discovery.report(self.local.mtu, self.local.max_mtu, now) else { return };
        if let Some(event) = peer.news.on_path_mtu(tag, report, now) {
            self.outbox.event(event);
        }
        if !is_less {
            return;
        }
        if report.probed_by != ProbedBy::Nothing {
            self.stats.mtu_falls.add(1);
        }
        let mut error = Vec::new();
        for (packet, mtu) in discovery.take_recent(report.mtu.into()) {
            // A packet that may be fragmented is fragmented from now on, so its sender need not send less.
            if packet.dont_fragment() && icmp::too_big(&packet, u16::try_from(mtu).unwrap_or(u16::MAX), &mut error) {
                let error = self.outbox.copy(&error);
                self.outbox.packet(VirtioHeader::NONE, error);
            }
        }
    }

    /// Takes a control frame. Returns a packet if the frame completes it.
    pub(crate) fn on_frame(
        &mut self,
        peer: &mut Peer,
        frame: Draft,
        arrival: Arrival,
        now: Instant,
    ) -> Result<Option<Draft>, DropReason> {
        let frame = Frame::parse(self.outbox.read(&frame)).map_err(|refused| match refused {
            Refused::Malformed => DropReason::ControlMalformed,
            Refused::UnknownCritical => DropReason::ControlUnknown,
        })?;
        let answer = match frame {
            Frame::Hello { nonce, understands, mtu } => {
                if peer.discovery().is_some() {
                    peer.greeting.on_hello(understands, mtu);
                    self.on_acquainted(peer, now);
                }
                let (understands, mtu) = self.ourselves();
                Some(Frame::HelloReply { nonce, understands, mtu })
            }
            Frame::HelloReply { nonce, understands, mtu } => {
                if peer.discovery().is_some() && peer.greeting.on_reply(nonce, understands, mtu) {
                    self.on_acquainted(peer, now);
                }
                None
            }
            Frame::Probe { id, size } => {
                if let Some(discovery) = peer.discovery() {
                    discovery.on_probe(size.into(), now);
                }
                Some(Frame::ProbeReply { id, size })
            }
            Frame::ProbeReply { id, size } => {
                if let Some(discovery) = peer.discovery() {
                    discovery.on_probe_reply(id, size.into(), now);
                }
                None
            }
            Frame::Fragment { id, offset, total, bytes } => {
                let reassembly = peer.reassembly.get_or_insert_default();
                let (taken, lost) = reassembly.take(id, offset.into(), total.into(), bytes, now);
                self.stats.count_drops(DropReason::FragmentFrameLost, lost);
                peer.stats.drops.add(lost);
                let Some(packet) = taken? else { return Ok(None) };
                if control::is_control(packet) {
                    // A frame never arrives in pieces, and it is not a packet for TUN.
                    return Err(DropReason::ControlMalformed);
                }
                self.stats.packets_joined.add(1);
                return Ok(Some(self.outbox.copy(packet)));
            }
            Frame::PathProbe { id, sent, .. } => {
                self.on_path_probe(peer, (id, sent), arrival, now)?;
                None
            }
            Frame::PathReply { id, received, .. } => {
                self.on_path_reply(peer, (id, received), arrival, now)?;
                None
            }
            Frame::Candidates { revision, seen, list } => {
                let told: Vec<_> = list.iter().collect();
                self.on_candidates(peer, (revision, seen), &told, now)?;
                None
            }
            Frame::Word { .. } if !peer.words.take(now) => return Err(DropReason::ControlFlood),
            Frame::Word { bytes } => {
                let word = Event::Word(peer.tag, bytes.into());
                self.outbox.event(word);
                None
            }
            Frame::Parcel { .. } if !peer.words.take_parcel(now) => return Err(DropReason::ControlFlood),
            Frame::Parcel { bytes } => {
                let parcel = Event::Parcel(peer.tag, bytes.into());
                self.outbox.event(parcel);
                None
            }
        };
        if let Some(answer) = answer {
            self.say(peer, answer, peer.way(&self.local).is_proven, now);
        }
        self.settle(peer, now);
        Ok(None)
    }

    /// Says a word to a peer that hands words on, or lets it wait for a session.
    pub(crate) fn say_word(&mut self, peer: &mut Peer, bytes: &[u8], now: Instant) {
        if (1..=MAX_WORD_LEN).contains(&bytes.len()) {
            peer.words.wait(bytes, now);
            self.say_waiting_word(peer, now);
        }
    }

    /// Calls a peer for a word that waits. One that has yet to hear of a new preshared key would be called in vain.
    pub(crate) fn call_for_word(&mut self, peer: &mut Peer, now: Instant) {
        if peer.words.is_waiting() && !peer.tunnel.preshared.are_two() && !peer.is_alive(now) {
            peer.tunnel.on_wanted(now, &mut self.rng);
        }
    }

    /// Hands something to a peer with a session that takes parcels. One that has not said yet what it takes drops it if need be.
    pub(crate) fn send_parcel(&mut self, peer: &mut Peer, bytes: &[u8], now: Instant) {
        let acquaintance = peer.greeting.peer();
        let may_understand = acquaintance == Acquaintance::Unknown || acquaintance.understands(Abilities::PARCELS);
        if (1..=MAX_PARCEL_LEN).contains(&bytes.len()) && may_understand && peer.is_alive(now) {
            self.say_everywhere(peer, Frame::Parcel { bytes }, now);
        }
    }

    /// Says the word that waits, if there is a session and the peer is known.
    fn say_waiting_word(&mut self, peer: &mut Peer, now: Instant) {
        let acquaintance = peer.greeting.peer();
        if !peer.is_alive(now) || acquaintance == Acquaintance::Unknown {
            return;
        }
        let Some(bytes) = peer.words.take_waiting(now) else { return };
        if !acquaintance.understands(Abilities::WORDS) {
            return;
        }
        self.say_everywhere(peer, Frame::Word { bytes: &bytes }, now);
    }

    /// Says something over all paths: it is said once, and a relay may have died without our knowledge.
    fn say_everywhere(&mut self, peer: &mut Peer, frame: Frame<'_>, now: Instant) {
        let mut plain = std::mem::take(&mut self.frame);
        plain.resize(frame.len(), 0);
        frame.write(&mut plain);
        let message = self.seal_bare(peer, &plain, false, now);
        self.frame = plain;
        let Some(message) = message else { return };
        let copy = self.outbox.read(&message).to_vec();
        self.transmit(peer, message, CLASS, false);
        self.repeat_elsewhere(peer, &copy, now);
        peer.tunnel.on_sent(now);
    }

    /// Records that the peer is an overlay node.
    fn on_acquainted(&mut self, peer: &mut Peer, now: Instant) {
        let ceiling = self.ceiling(peer);
        if let Some(discovery) = peer.discovery() {
            discovery.on_acquainted(ceiling, now);
        }
        self.say_waiting_word(peer, now);
    }

    /// Whether a packet from the peer answers one of our echoes. If so, no program on the host waits for it.
    pub(crate) fn on_echo_reply(&mut self, peer: &mut Peer, packet: &Draft, now: Instant) -> bool {
        let sends_echoes = peer.discovery().is_some_and(|discovery| discovery.sends_echoes());
        if !sends_echoes && !peer.reach.has_sent_echoes() {
            return false;
        }
        let bytes = self.outbox.read(packet);
        if !icmp::may_be_echo_reply(bytes) {
            return false;
        }
        let Ok(packet) = Packet::parse(bytes) else { return false };
        let Some(reply) = icmp::echo_reply(&packet) else { return false };
        let id = u32::from(reply.id) << 16 | u32::from(reply.sequence);
        if peer.reach.is_our_echo(id) {
            return true;
        }
        let is_ours = peer.discovery().is_some_and(|discovery| discovery.on_echo_reply(reply.source, id, now));
        if is_ours {
            self.settle(peer, now);
        }
        is_ours
    }

    /// Records that a datagram on this path of the peer was refused, with a packet of `size` bytes inside.
    pub(crate) fn on_refused(&mut self, peer: &mut Peer, path: PathTag, len: usize, now: Instant) {
        if let Some(Path { discovery: Some(discovery), endpoint, .. }) = peer.paths.named(path) {
            discovery.on_refused(len.saturating_sub(DATA_OVERHEAD + endpoint.via.lead()), now);
            self.settle(peer, now);
        }
    }

    /// What a hello says about us.
    fn ourselves(&self) -> (Abilities, u16) {
        let understands = Abilities::FRAGMENTS.and(Abilities::WORDS).and(Abilities::PARCELS);
        (understands, u16::try_from(self.local.max_mtu).unwrap_or(u16::MAX))
    }

    /// What limits the search on a path to this peer.
    fn ceiling(&self, peer: &Peer) -> Ceiling {
        Ceiling { ours: self.local.max_mtu, acquaintance: peer.greeting.peer() }
    }

    /// Says something over the path in use.
    pub(crate) fn say(&mut self, peer: &mut Peer, frame: Frame<'_>, is_whole: bool, now: Instant) {
        self.say_over(peer, frame, None, is_whole, now);
    }

    /// Says something over this pair.
    pub(crate) fn say_over(
        &mut self,
        peer: &mut Peer,
        frame: Frame<'_>,
        over: Option<Endpoint>,
        is_whole: bool,
        now: Instant,
    ) {
        let mut bytes = std::mem::take(&mut self.frame);
        bytes.resize(frame.len(), 0);
        frame.write(&mut bytes);
        self.send_bare(peer, &bytes, over, frame.is_question(), is_whole, now);
        self.frame = bytes;
    }

    /// Sends an ICMP echo request of `size` bytes.
    pub(crate) fn send_echo(
        &mut self,
        peer: &mut Peer,
        ends: EchoEnds,
        id: u32,
        size: usize,
        is_whole: bool,
        now: Instant,
    ) {
        let mut echo = std::mem::take(&mut self.frame);
        echo.resize(size, 0);
        icmp::write_echo_request(ends.ours, ends.theirs, (id >> 16) as u16, id as u16, size, &mut echo);
        self.send_bare(peer, &echo, None, true, is_whole, now);
        self.frame = echo;
    }

    /// Sends a frame or an echo without padding.
    fn send_bare(
        &mut self,
        peer: &mut Peer,
        bytes: &[u8],
        over: Option<Endpoint>,
        is_question: bool,
        is_whole: bool,
        now: Instant,
    ) {
        let Some(message) = self.seal_bare(peer, bytes, is_question, now) else { return };
        match over {
            Some(endpoint) => self.transmit_over(peer, endpoint, message, CLASS),
            None => self.transmit(peer, message, CLASS, is_whole),
        }
        peer.tunnel.on_sent(now);
    }

    /// Seals a frame or an echo without padding.
    fn seal_bare(&mut self, peer: &mut Peer, bytes: &[u8], is_question: bool, now: Instant) -> Option<Draft> {
        let session = peer.tunnel.session.as_mut()?;
        let room = self.outbox.room(bytes.len() + DATA_OVERHEAD);
        let len =
            if is_question { session.seal_question(bytes, now, room) } else { session.seal_answer(bytes, now, room) };
        if len == 0 {
            return None;
        }
        let message = self.outbox.draft(len);
        peer.tunnel.on_sealed(self.outbox.read(&message));
        Some(message)
    }
}

/// The first address that belongs to the peer alone, and one of ours of the same family.
pub(crate) fn echo_ends(allowed_ips: &BTreeSet<IpNet>, local: &Local) -> Option<EchoEnds> {
    let hosts = allowed_ips.iter().take(ECHO_PREFIXES).filter(|net| net.prefix_len() == net.max_prefix_len());
    hosts.map(|net| net.addr()).find_map(|theirs| {
        let ours = local.addresses.iter().copied().find(|ours| ours.is_ipv4() == theirs.is_ipv4())?;
        Some(EchoEnds { ours, theirs })
    })
}
