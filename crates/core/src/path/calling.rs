//! Calling a peer: where an initiation goes, what happens when a peer is silent, and questions to a peer that has no
//! reason to send.

use std::net::SocketAddr;

use overlay_wire::control::Frame;
use overlay_wire::icmp;
use rand_core::RngCore;

use crate::context::{Context, HANDSHAKE_CLASS};
use crate::data::session::MAX_JITTER;
use crate::path::candidates::Candidates;
use crate::path::discovery::EchoEnds;
use crate::path::exchange::echo_ends;
use crate::path::reach::Question;
use crate::peer::{Peer, jitter};
use crate::{Event, Instant, PeerTag, Via};

/// The inner length of a question in bytes. It has room for a probe frame and for an echo of either family, and is a
/// multiple of 16 like every WireGuard packet.
const QUESTION_LEN: usize = 64;

impl Context {
    /// Sets the addresses that the peer's name resolves to.
    pub(crate) fn set_candidates(&mut self, peer: &mut Peer, addresses: &[SocketAddr], now: Instant) {
        let endpoint = peer.endpoint.map(|endpoint| endpoint.address);
        let candidates = peer.candidates.get_or_insert_with(Box::<Candidates>::default);
        let knew_all = addresses.iter().all(|address| candidates.contains(*address));
        candidates.set(addresses, endpoint);
        if let Some(address) = candidates.stand_in(endpoint) {
            self.move_to(peer, address, now);
            self.outbox.event(Event::EndpointChanged(peer.key, address));
        }
        if is_trusted(peer, now) {
            return;
        }
        if is_initiating(peer) {
            self.widen(peer, now);
        } else if peer.is_alive(now) && (is_moving(peer) || !knew_all) {
            self.call_back(peer, now);
        }
    }

    /// Handles the peer's silence if it is due. Called before the session is advanced.
    pub(crate) fn look_after(&mut self, peer: &mut Peer, now: Instant) {
        if peer.falls_silent(now) {
            self.on_silent(peer, now);
        }
    }

    /// Handles a peer that has not answered what it owes us.
    fn on_silent(&mut self, peer: &mut Peer, now: Instant) {
        peer.reach.on_silent();
        self.outbox.event(Event::Answering(peer.key, false));
        if !peer.is_alive(now) {
            return self.widen(peer, now);
        }
        self.stats.peers_suspected.add(1);
        if is_initiating(peer) {
            self.widen(peer, now);
        } else if peer.session.as_ref().is_some_and(|session| !session.will_call_by(now + MAX_JITTER)) {
            self.call_back(peer, now);
        }
    }

    /// Sends the current initiation to all known addresses as well.
    fn widen(&mut self, peer: &mut Peer, now: Instant) {
        if let (Some(candidates), Some(endpoint)) = (&mut peer.candidates, peer.endpoint) {
            candidates.widen(endpoint.address, peer.initiated, now);
        }
        self.call_others(peer, now);
    }

    /// Sends the first `len` bytes of the outbox's room, an initiation, to the first address of a new attempt.
    pub(crate) fn call(&mut self, peer: &mut Peer, len: usize, now: Instant) {
        let Some(endpoint) = peer.endpoint else { return };
        let is_trusted = is_trusted(peer, now);
        let address = match &mut peer.candidates {
            Some(candidates) if is_trusted => {
                candidates.rest();
                endpoint.address
            }
            Some(candidates) => candidates.begin(endpoint.address, now),
            None => endpoint.address,
        };
        self.call_at(peer, address, len);
    }

    /// Sends the current initiation to the addresses whose turn has come.
    pub(crate) fn call_others(&mut self, peer: &mut Peer, now: Instant) {
        while let Some(address) = peer.candidates.as_mut().and_then(|candidates| candidates.poll(now)) {
            let Some(initiation) = peer.session.as_ref().and_then(|session| session.initiation()) else {
                // It was answered, or an answer would no longer help.
                if let Some(candidates) = &mut peer.candidates {
                    candidates.rest();
                }
                return;
            };
            let len = initiation.len();
            self.outbox.room(len).copy_from_slice(initiation);
            self.call_at(peer, address, len);
        }
    }

    fn call_at(&mut self, peer: &Peer, address: SocketAddr, len: usize) {
        let via =
            peer.endpoint.filter(|endpoint| endpoint.address == address).map_or(Via::ANY, |endpoint| endpoint.via);
        self.outbox.call(address, via, len, HANDSHAKE_CLASS, PeerTag(peer.id));
        self.stats.initiations_sent.add(1);
        peer.stats.sent_wire_bytes.add(len as u64);
    }

    /// Records that this host could not send an initiation to `address`.
    pub(crate) fn on_unsent(&mut self, peer: &mut Peer, address: SocketAddr, now: Instant) {
        if let Some(candidates) = &mut peer.candidates {
            candidates.on_unsent(address, now);
        }
        self.call_others(peer, now);
    }

    /// Asks the peer whether it is still there, if a question is due.
    pub(crate) fn ask_if_due(&mut self, peer: &mut Peer, now: Instant) {
        let is_due = |peer: &Peer| peer.ask_at(now).is_some_and(|at| at <= now);
        if !is_due(peer) {
            return;
        }
        let is_overlay = peer.discovery.as_ref().is_some_and(|discovery| discovery.is_overlay());
        // A peer whose path MTU we do not search gets only what WireGuard itself sends.
        let ends = if peer.discovers && !is_overlay { echo_ends(peer, &self.local) } else { None };
        let is_packet = is_overlay || ends.is_some();
        peer.reach.ask_by(if is_packet { Question::Packet } else { Question::Call });
        if !is_due(peer) {
            return;
        }
        let (fresh, later) = (self.rng.next_u32(), jitter(&mut self.rng));
        let echo_id = ends.map(|ends| (ends, peer.reach.echo_id(fresh)));
        peer.reach.on_asked(now, later);
        self.stats.questions_sent.add(1);
        let is_whole = peer.way(&self.local).is_proven;
        match echo_id {
            Some((EchoEnds { ours, theirs }, id)) => {
                let mut echo = std::mem::take(&mut self.frame);
                echo.resize(QUESTION_LEN, 0);
                icmp::write_echo_request(ours, theirs, (id >> 16) as u16, id as u16, QUESTION_LEN, &mut echo);
                self.frame = echo;
                self.send_frame(peer, is_whole, now);
            }
            None if is_overlay => {
                self.say(peer, Frame::Probe { id: fresh, size: QUESTION_LEN as u16 }, is_whole, now);
            }
            None => self.call_back(peer, now),
        }
    }
}

/// Whether the peer answers at its endpoint, so that there is no reason to look for it elsewhere.
fn is_trusted(peer: &Peer, now: Instant) -> bool {
    peer.is_alive(now) && !peer.reach.is_silent() && !is_moving(peer)
}

fn is_initiating(peer: &Peer) -> bool {
    peer.session.as_ref().is_some_and(|session| session.is_initiating())
}

fn is_moving(peer: &Peer) -> bool {
    peer.candidates.as_ref().is_some_and(|candidates| candidates.is_moving())
}
