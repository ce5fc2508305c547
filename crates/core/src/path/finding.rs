//! What the path agent of a peer decides, carried out: openers, probes, lists of candidates, moves; and what it is told.

use std::net::{IpAddr, SocketAddr};

use overlay_wire::control::{CandidateList, Frame, MAX_CANDIDATES, Observed};

use crate::context::Context;
use crate::local::Local;
use crate::origin::{Arrival, Origin};
use crate::outbox::Heading;
use crate::path::agent::{Agent, KEEPER_TTL, Step};
use crate::path::candidate;
use crate::path::endpoint::Endpoint;
use crate::peer::Peer;
use crate::{Base, Candidate, CandidateKind, CandidateScope, DropReason, Instant, Remote};

/// What an opener holds. It never arrives; what arrives of it is nothing to anybody.
const OPENER: [u8; 1] = [0];

impl Context {
    /// Sets whether the node finds the path to the peer by itself.
    pub(crate) fn set_finds_paths(&mut self, peer: &mut Peer, finds_paths: bool) {
        match (finds_paths, &peer.paths.agent) {
            (true, None) => peer.paths.agent = Some(Box::new(Agent::new(&mut self.rng))),
            (false, Some(_)) => peer.paths.agent = None,
            _ => return,
        }
        // Until it is known where the peer may be reached, nothing is to be kept.
        peer.tunnel.is_relayed = finds_paths;
    }

    /// Sets where a peer may be reached, as control knows. Returns false if the node does not find the path to this peer.
    pub(crate) fn set_remote(&mut self, peer: &mut Peer, remote: &Remote, now: Instant) -> bool {
        let Some(agent) = &mut peer.paths.agent else { return false };
        let remote =
            Remote { candidates: self.local.usable(&remote.candidates), relayed: remote.relayed.clone(), ..*remote };
        agent.set_remote(&remote, &self.local.bases(), now);
        peer.tunnel.is_relayed = agent.has_relay();
        if !peer.is_alive(now) {
            if peer.tunnel.is_initiating() {
                // The initiation that is out goes to the new places, too.
                if let Some(agent) = &mut peer.paths.agent {
                    agent.call_on(now);
                }
                self.call_others(peer, now);
            } else {
                peer.tunnel.hasten(&mut self.rng);
            }
        } else if peer.paths.agent.as_ref().is_some_and(|agent| agent.is_lost()) {
            self.call_lost(peer, now);
        }
        self.follow_agent(peer, now);
        true
    }

    /// Handles a change of what peers are told of us. `has_moved`: our own addresses are different, too.
    pub(crate) fn on_local_candidates(&mut self, peer: &mut Peer, has_moved: bool, now: Instant) {
        let bases = self.local.bases();
        match &mut peer.paths.agent {
            Some(agent) if has_moved => agent.on_network_change(&bases, now),
            Some(agent) => agent.renew(now),
            None => {}
        }
    }

    /// Does what the path agent of a peer wants, whose session is alive.
    pub(crate) fn find_paths(&mut self, peer: &mut Peer, now: Instant) {
        while let Some(step) = peer.paths.agent.as_mut().and_then(|agent| agent.poll(&mut self.rng, now)) {
            match step {
                Step::Open { to, ttl } if !self.may_open(peer, to, ttl, now) => {}
                Step::Probe { to, .. } if !self.may_probe(peer, to, now) => {}
                Step::Open { to, ttl } => self.open_path(to, ttl),
                Step::Probe { to, pair, id, sent } => {
                    self.stats.path_probes_sent.add(1);
                    self.say_over(peer, Frame::PathProbe { id, sent, pair }, Some(to), false, now);
                }
                Step::Tell { number, opened } => self.tell_candidates(peer, number, opened, now),
                Step::Rekey { to } => self.rekey_over(peer, to, now),
            }
        }
        if let Some(searches) = peer.paths.agent.as_mut().and_then(|agent| agent.take_searches()) {
            self.stats.direct_searches.add(searches.begun);
            self.stats.direct_searches_succeeded.add(searches.succeeded);
            self.stats.time_to_direct.add(searches.took.as_millis().try_into().unwrap_or(u64::MAX));
        }
        if let Some(agent) = &mut peer.paths.agent {
            for (method, (made, succeeded)) in agent.take_attempts() {
                let attempts = self.stats.attempts.of(method, self.local.nat);
                attempts.made.add(made);
                attempts.succeeded.add(succeeded);
            }
        }
        self.follow_agent(peer, now);
    }

    /// Whether one more datagram may go to a place that may be a victim's.
    pub(crate) fn may_probe(&mut self, peer: &mut Peer, to: Endpoint, now: Instant) -> bool {
        let victim = to.via.channel.is_none().then_some(to.address.ip());
        let is_allowed = self.may_send(peer, victim, now);
        let pair = peer.paths.agent.as_mut().and_then(|agent| agent.pair_at(to));
        if let Some(pair) = pair.filter(|_| is_allowed && victim.is_some()) {
            pair.charged += 1;
        }
        is_allowed
    }

    /// Whether a call may be sent again. First calls of other peers come before it.
    pub(crate) fn may_repeat(&mut self, now: Instant) -> bool {
        let is_allowed = self.probing.has_room_for_repetition(now);
        if !is_allowed {
            self.stats.path_probes_withheld.add(1);
        }
        is_allowed
    }

    /// Whether one more opener may go out. One that ends at our own router reaches no victim.
    fn may_open(&mut self, peer: &mut Peer, to: Endpoint, ttl: u8, now: Instant) -> bool {
        if ttl == KEEPER_TTL { self.may_send(peer, None, now) } else { self.may_probe(peer, to, now) }
    }

    fn may_send(&mut self, peer: &mut Peer, victim: Option<IpAddr>, now: Instant) -> bool {
        let Some(agent) = &mut peer.paths.agent else { return false };
        let is_allowed = agent.share.allows(victim, now)
            && match victim {
                Some(address) => self.probing.allows(address, now),
                None => self.probing.allows_one_more(now),
            };
        if !is_allowed {
            self.stats.path_probes_withheld.add(1);
        }
        is_allowed
    }

    fn open_path(&mut self, to: Endpoint, ttl: u8) {
        let opener = self.outbox.copy(&OPENER);
        let heading =
            Heading { destination: to.address, via: to.via, traffic_class: 0, ttl: Some(ttl), whole_for: None };
        self.outbox.send(opener, heading);
        self.stats.openers_sent.add(1);
    }

    /// Tells the peer at which addresses we may be reached.
    fn tell_candidates(&mut self, peer: &mut Peer, number: u32, opened: u32, now: Instant) {
        let Some(agent) = &peer.paths.agent else { return };
        let addresses = self.local.told_to(agent);
        let mut room = [0; MAX_CANDIDATES * 19];
        let list = CandidateList::write(&addresses, &mut room);
        self.say(peer, Frame::Candidates { revision: number, seen: opened, list }, false, now);
    }

    /// Takes a probe of a pair, and answers it over the same pair.
    pub(crate) fn on_path_probe(
        &mut self,
        peer: &mut Peer,
        (id, sent): (u32, u32),
        Arrival { origin, is_former, .. }: Arrival,
        now: Instant,
    ) -> Result<(), DropReason> {
        let over = origin.endpoint();
        let agent = peer.paths.agent.as_mut().ok_or(DropReason::ControlUnknown)?;
        let Some(received) = agent.on_probe(over, sent, is_former, now) else {
            self.stats.path_replies_withheld.add(1);
            return Ok(());
        };
        let over = agent.way_back(over);
        let observed = if over.via.channel.is_some() { Observed::Relayed } else { Observed::Direct(over.address) };
        self.say_over(peer, Frame::PathReply { id, received, observed }, Some(over), false, now);
        Ok(())
    }

    /// Takes the reply to a probe.
    pub(crate) fn on_path_reply(
        &mut self,
        peer: &mut Peer,
        (id, received): (u32, u32),
        Arrival { origin, waited, .. }: Arrival,
        now: Instant,
    ) -> Result<(), DropReason> {
        let agent = peer.paths.agent.as_mut().ok_or(DropReason::ControlUnknown)?;
        if let Some((address, charged)) = agent.on_reply((id, received), origin.endpoint(), waited, now) {
            self.stats.path_probes_answered.add(1);
            self.probing.on_answered(address.ip(), charged);
        } else if agent.awaits_reply(id) {
            self.stats.path_replies_astray.add(1);
        }
        Ok(())
    }

    /// Takes the list of the peer's candidates.
    pub(crate) fn on_candidates(
        &mut self,
        peer: &mut Peer,
        (number, seen): (u32, u32),
        told: &[SocketAddr],
        now: Instant,
    ) -> Result<(), DropReason> {
        let agent = peer.paths.agent.as_mut().ok_or(DropReason::ControlUnknown)?;
        agent.on_list(number, seen, &self.local.usable(told), &self.local.bases(), now);
        Ok(())
    }

    /// Sends a copy of a sealed message over every other path that works. The peer takes the first one that arrives, and
    /// drops the others as replays.
    pub(crate) fn repeat_elsewhere(&mut self, peer: &mut Peer, message: &[u8], now: Instant) {
        let others = peer.paths.agent.as_ref().map(|agent| agent.others()).unwrap_or_default();
        for to in others {
            if self.may_probe(peer, to, now) {
                let copy = self.outbox.copy(message);
                self.transmit_over(peer, to, copy, 0);
            }
        }
    }

    /// Records that a session was made whose message came from `origin`.
    pub(crate) fn on_session_over(&mut self, peer: &mut Peer, origin: Origin, is_initiator: bool, now: Instant) {
        if let Some(agent) = &mut peer.paths.agent {
            if let Some(charged) = agent.on_session(origin.endpoint(), is_initiator, now) {
                self.probing.on_answered(origin.source.ip(), charged);
            }
            self.follow_agent(peer, now);
        }
    }

    /// Sends packets to where the agent has decided.
    fn follow_agent(&mut self, peer: &mut Peer, now: Instant) {
        let Some(agent) = &peer.paths.agent else { return };
        let wanted = agent.primary().map(|pair| pair.endpoint);
        let present = peer.paths.endpoint();
        let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != present) else { return };
        self.endpoints.on_moved(present.map(Endpoint::far), Some(wanted.far()));
        if let Some(event) = peer.news.on_endpoint(peer.tag, (wanted.address, wanted.via.channel.is_some()), now) {
            self.outbox.event(event);
        }
        if present.is_some_and(|present| !present.is_along(wanted)) {
            self.stats.path_switches.add(1);
        }
        if peer.paths.take(wanted) {
            self.on_path_taken(peer, now);
        }
    }
}

impl Local {
    /// The addresses that can be sent to, of those that a peer has named.
    fn usable(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        if self.candidate_scope == CandidateScope::Relay {
            return Vec::new();
        }
        let is_inner = |address: &SocketAddr| {
            self.owns(address.ip()) || self.pools.iter().any(|pool| pool.contains(&address.ip()))
        };
        addresses.iter().filter(|address| candidate::is_usable(**address) && !is_inner(address)).copied().collect()
    }

    /// The addresses of ours that datagrams may leave from.
    pub(crate) fn bases(&self) -> Vec<Base> {
        let mut bases: Vec<_> = self.candidates.iter().filter_map(|candidate| candidate.base).collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }

    /// What the peer is told. Private addresses mean nothing to a peer elsewhere, and say more than it has to know.
    pub(crate) fn told_to(&self, agent: &Agent) -> Vec<SocketAddr> {
        let shares = agent.pairs().any(|pair| {
            let ip = pair.endpoint.address.ip();
            !pair.is_relayed() && !candidate::is_private(ip) && self.candidates.iter().any(|own| own.address.ip() == ip)
        });
        let is_told = |own: &&Candidate| match self.candidate_scope {
            CandidateScope::All => true,
            CandidateScope::Relay => false,
            // What others have seen means something to others.
            CandidateScope::Auto => {
                shares || own.kind != CandidateKind::Host || !candidate::is_private(own.address.ip())
            }
        };
        self.candidates.iter().filter(is_told).map(|own| own.address).collect()
    }
}

impl Peer {
    /// Whether an initiation could go anywhere.
    pub(crate) fn is_callable(&self) -> bool {
        self.paths.primary().is_some() || self.paths.agent.is_some()
    }
}

/// How a copy of a train travels.
pub(crate) fn heading_over(endpoint: Endpoint, traffic_class: u8) -> Heading {
    Heading { destination: endpoint.address, via: endpoint.via, traffic_class, ttl: None, whole_for: None }
}
