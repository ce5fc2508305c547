//! Calling a peer: where an initiation goes, what happens when a peer is silent, and questions to a peer that has no
//! reason to send.

use std::net::SocketAddr;

use overlay_wire::control::Frame;
use overlay_wire::wireguard::INITIATION_LEN;
use rand_core::RngCore;

use crate::context::Context;
use crate::outbox::{Draft, Heading};
use crate::path::candidates::Candidates;
use crate::path::endpoint::Endpoint;
use crate::path::exchange::echo_ends;
use crate::path::reach::Question;
use crate::peer::Peer;
use crate::session::calls::HANDSHAKE_CLASS;
use crate::session::timers::{MAX_JITTER, REKEY_AFTER_TIME};
use crate::session::tunnel::jitter;
use crate::{Event, Instant};

/// The inner length of a question in bytes. It has room for a probe frame and for an echo of either family, and is a
/// multiple of 16 like every WireGuard packet.
const QUESTION_LEN: usize = 64;

impl Context {
    /// Sets the addresses that the peer's name resolves to.
    pub(crate) fn set_candidates(&mut self, peer: &mut Peer, addresses: &[SocketAddr], now: Instant) {
        let endpoint = peer.paths.address();
        let candidates = peer.candidates.get_or_insert_with(Box::<Candidates>::default);
        let knew_all = addresses.iter().all(|address| candidates.contains(*address));
        candidates.set(addresses, endpoint);
        if let Some(address) = candidates.stand_in(endpoint) {
            self.move_to(peer, address, now);
            self.outbox.event(Event::EndpointChanged(peer.tag, address, false));
        }
        if is_trusted(peer, now) {
            return;
        }
        if peer.tunnel.is_initiating() {
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
        self.outbox.event(Event::Answering(peer.tag, false));
        if !peer.is_alive(now) {
            return self.widen(peer, now);
        }
        self.stats.peers_suspected.add(1);
        if peer.tunnel.is_initiating() {
            self.widen(peer, now);
        } else if peer.tunnel.session.as_ref().is_some_and(|session| !session.will_call_by(now + MAX_JITTER)) {
            self.call_back(peer, now);
        }
    }

    /// Sends the current initiation to all known addresses as well.
    fn widen(&mut self, peer: &mut Peer, now: Instant) {
        if let (Some(candidates), Some(endpoint)) = (&mut peer.candidates, peer.paths.address()) {
            candidates.widen(endpoint, peer.tunnel.initiated, now);
        }
        self.call_others(peer, now);
    }

    /// Sends an initiation to the first address of a new attempt.
    pub(crate) fn call(&mut self, peer: &mut Peer, initiation: Draft, now: Instant) {
        if let Some(agent) = &mut peer.paths.agent {
            agent.begin_call(now);
            return self.call_agent(peer, now);
        }
        let Some(endpoint) = peer.paths.address() else { return };
        let is_trusted = is_trusted(peer, now);
        let address = match &mut peer.candidates {
            Some(candidates) if is_trusted => {
                candidates.rest();
                endpoint
            }
            Some(candidates) => candidates.begin(endpoint, now),
            None => endpoint,
        };
        self.call_at(peer, address, initiation);
    }

    /// Sends the current initiation to the addresses whose turn has come.
    pub(crate) fn call_others(&mut self, peer: &mut Peer, now: Instant) {
        if peer.paths.agent.is_some() {
            self.call_agent(peer, now);
            let is_alive = peer.is_alive(now);
            if peer.paths.agent.as_mut().is_some_and(|agent| agent.take_unreachable(is_alive, now)) {
                self.outbox.event(Event::Unreachable(peer.tag));
                if is_alive {
                    self.call_lost(peer, now);
                }
            }
        }
        while let Some(address) = peer.candidates.as_mut().and_then(|candidates| candidates.poll(now)) {
            // A peer that calls us may not hear us. Then our own call goes on, because it may reach the peer elsewhere.
            let session = peer.tunnel.session.as_ref();
            let Some(initiation) = session.and_then(|session| session.answerable_initiation(now)) else {
                if let Some(candidates) = &mut peer.candidates {
                    candidates.rest();
                }
                return;
            };
            let initiation = self.outbox.copy(initiation);
            self.call_at(peer, address, initiation);
        }
    }

    /// Calls a peer that no path of its session leads to any more. Probes go where a path was proven, and rounds need a relay. A call
    /// needs neither.
    pub(crate) fn call_lost(&mut self, peer: &mut Peer, now: Instant) {
        // It need not wait for a call that was answered over a path that is gone.
        peer.tunnel.initiated = None;
        self.call_back(peer, now);
    }

    fn call_at(&mut self, peer: &Peer, destination: SocketAddr, initiation: Draft) {
        let endpoint = peer.paths.endpoint().filter(|endpoint| endpoint.address == destination);
        self.call_over(peer, endpoint.unwrap_or(Endpoint::configured(destination)), initiation);
    }

    /// Sends an initiation there.
    pub(crate) fn call_over(&mut self, peer: &Peer, to: Endpoint, initiation: Draft) {
        let Endpoint { address: destination, via } = to;
        let len = initiation.len() + via.lead();
        let heading = Heading { destination, via, traffic_class: HANDSHAKE_CLASS, whole_for: None, ttl: None };
        self.outbox.call(initiation, heading, peer.tag);
        self.stats.initiations_sent.add(1);
        self.stats.count_sent(&peer.stats, via, len);
    }

    /// Begins a handshake over this pair alone.
    pub(crate) fn rekey_over(&mut self, peer: &mut Peer, to: Endpoint, now: Instant) {
        let retry_after = peer.tunnel.pause(now) + jitter(&mut self.rng);
        let Some(session) = &mut peer.tunnel.session else { return };
        if let Some(len) = session.initiate(now, retry_after, self.outbox.room(INITIATION_LEN)) {
            let initiation = self.outbox.draft(len);
            self.call_over(peer, to, initiation);
            peer.on_initiated(now);
        }
    }

    /// Sends what the present initiation's turn has come for.
    pub(crate) fn call_agent(&mut self, peer: &mut Peer, now: Instant) {
        while let Some(call) = peer.paths.agent.as_mut().and_then(|agent| agent.poll_call(now)) {
            let Some(initiation) = peer.tunnel.session.as_ref().and_then(|session| session.initiation()) else {
                if let Some(agent) = &mut peer.paths.agent {
                    agent.end_call();
                }
                return;
            };
            let initiation = self.outbox.copy(initiation);
            if (!call.is_repeated || self.may_repeat(now)) && self.may_probe(peer, call.to, now) {
                self.call_over(peer, call.to, initiation);
            }
        }
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
        let is_due = |peer: &Peer| peer.ask_at().is_some_and(|at| at <= now) && peer.is_alive(now);
        if !is_due(peer) {
            return;
        }
        let is_overlay = peer.greeting.peer().is_overlay();
        // A peer whose path MTU we do not search gets only what WireGuard itself sends.
        let ends = if peer.discovers && !is_overlay { echo_ends(&peer.rights.allowed_ips, &self.local) } else { None };
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
            Some((ends, id)) => self.send_echo(peer, ends, id, QUESTION_LEN, is_whole, now),
            None if is_overlay => {
                self.say(peer, Frame::Probe { id: fresh, size: QUESTION_LEN as u16 }, is_whole, now);
            }
            None => return self.call_back(peer, now),
        }
        // The question stands for a keepalive.
        self.renew(peer, REKEY_AFTER_TIME, now);
    }
}

/// Whether the peer answers at its endpoint, so that there is no reason to look for it elsewhere.
fn is_trusted(peer: &Peer, now: Instant) -> bool {
    peer.is_alive(now) && !peer.reach.is_silent() && !is_moving(peer)
}

fn is_moving(peer: &Peer) -> bool {
    peer.candidates.as_ref().is_some_and(|candidates| candidates.is_moving())
}
