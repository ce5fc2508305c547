//! Acts for a peer when its deadline comes: sends initiations, keepalives and responses, and makes new engines for its
//! session.

use std::time::Duration;

use overlay_wire::wireguard::{INITIATION_LEN, RESPONSE_LEN};

use crate::context::Context;
use crate::origin::Origin;
use crate::outbox::Draft;
use crate::peer::Peer;
use crate::session::generation::Keys;
use crate::session::local_key::LocalKey;
use crate::session::outcome::Due;
use crate::session::preshared::Order;
use crate::session::seam::Session;
use crate::session::timers::{REKEY_AFTER_TIME, REKEY_TIMEOUT};
use crate::session::tunnel::jitter;
use crate::{DropReason, Event, Instant, PeerKey};

/// The traffic class of initiations and responses, as in the kernel: AF41, and not ECN-capable.
pub(crate) const HANDSHAKE_CLASS: u8 = 0x88;
/// The traffic class of a message that carries no packet.
const KEEPALIVE_CLASS: u8 = 0;

/// The length of the longest message that a deadline can cause.
const DUE_LEN: usize = INITIATION_LEN;

impl Context {
    /// Moves the peer's time to `now` and sends what is due. Called before each train, at the peer's deadline, and after a
    /// change to the peer.
    pub(crate) fn advance(&mut self, peer: &mut Peer, now: Instant) {
        if peer.tunnel.session.as_ref().is_some_and(|session| session.is_outdated(self.local.wall.era(), now)) {
            self.renew_engine(peer, now);
        }
        if self.local.keys.has_former() {
            self.try_next_key(peer, now);
        }
        self.look_after(peer, now);
        if peer.tunnel.preshared.are_two()
            && peer.tunnel.session.as_ref().is_some_and(|session| session.is_call_due(now))
        {
            self.choose_key(peer, now);
        }
        let (pause, jitter) = (peer.tunnel.pause(now), jitter(&mut self.rng));
        if let Some(session) = &mut peer.tunnel.session {
            match session.advance(now, pause, jitter, self.outbox.room(DUE_LEN)) {
                Due::Nothing => {}
                Due::Initiation { len } => {
                    // The local address that the last initiation left from may be gone.
                    peer.paths.forget_source();
                    let initiation = self.outbox.draft(len);
                    self.transmit_initiation(peer, initiation, now);
                }
                Due::Keepalive(len) => {
                    let keepalive = self.outbox.draft(len);
                    self.transmit_keepalive(peer, keepalive, now);
                }
                Due::Expired { unanswered } => self.on_expired(peer, unanswered, now),
            }
        }
        if peer.next_attempt(now).is_some_and(|at| at <= now) {
            self.initiate(peer, now);
        }
        self.call_others(peer, now);
        self.ask_if_due(peer, now);
        // Asked before every train. Whether there is a session is the dearer question.
        if peer.tunnel.keepalive_at().is_some_and(|at| at <= now) && peer.is_alive(now) {
            self.send_keepalive(peer, now);
        }
        if peer.paths.agent.as_ref().is_some_and(|agent| agent.deadline().is_some_and(|at| at <= now))
            && peer.is_alive(now)
        {
            self.find_paths(peer, now);
        }
        if peer.discovery_is_due(now) {
            self.discover(peer, now);
        }
        if peer.news.deadline().is_some_and(|at| at <= now) {
            while let Some(event) = peer.news.poll(peer.tag, now) {
                self.outbox.event(event);
            }
        }
    }

    /// Sends an empty packet through a session that is alive.
    pub(crate) fn send_keepalive(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(session) = &mut peer.tunnel.session {
            let len = session.seal(&[], now, self.outbox.room(DUE_LEN));
            let keepalive = self.outbox.draft(len);
            self.transmit_keepalive(peer, keepalive, now);
        }
    }

    /// Begins the next handshake if we began the session in use and it is older than `age`. Called after something was sent
    /// or received.
    pub(crate) fn renew(&mut self, peer: &mut Peer, age: Duration, now: Instant) {
        let is_due = peer.tunnel.session.as_ref().is_some_and(|session| session.wants_renewal(age, now));
        if is_due && peer.tunnel.initiated.is_none_or(|at| now.since(at) >= REKEY_TIMEOUT) {
            self.initiate(peer, now);
        }
    }

    /// Sends an initiation to a peer that has called us, now or as soon as our last initiation is old enough.
    pub(crate) fn call_back(&mut self, peer: &mut Peer, now: Instant) {
        match &mut peer.tunnel.session {
            Some(session) if peer.tunnel.initiated.is_some_and(|at| now.since(at) < REKEY_TIMEOUT) => {
                session.initiate_soon(now);
            }
            _ => self.initiate(peer, now),
        }
    }

    /// Makes a new engine, under its own index, for the peer's next handshake, because a key changed or the wall clock was
    /// set. Existing sessions continue.
    pub(crate) fn renew_engine(&mut self, peer: &mut Peer, now: Instant) {
        let (tunnel, local) = (&mut peer.tunnel, &self.local);
        let Some(own) = local.keys.find_or_present(tunnel.own_key) else { return };
        tunnel.own_key = Some(own.public());
        let Some(session) = &mut tunnel.session else { return };
        self.indices.renew(peer.tag, &mut tunnel.receivers, |index| session.uses(index, now), &mut self.rng);
        let keys = Keys { local: own, peer: tunnel.key, preshared: tunnel.preshared.in_turn() };
        session.renew_engine(keys, tunnel.receivers.present, local.wall.origin(now), now);
    }

    /// Makes a session for a peer that does not have one yet, and gives it the remembered replay state. It speaks as the
    /// key `own` of ours, or as the present key if `own` is `None`. Returns `None` if we have no key.
    fn new_session(&self, peer: &mut Peer, own: Option<PeerKey>, now: Instant) -> Option<Box<Session>> {
        let tunnel = &mut peer.tunnel;
        let own = self.local.keys.find_or_present(own)?;
        let keys = Keys { local: own, peer: tunnel.key, preshared: tunnel.preshared.in_turn() };
        let mut session = Box::new(Session::new(keys, tunnel.receivers.present, self.local.wall.origin(now), now));
        tunnel.own_key = Some(own.public());
        tunnel.remind(&mut session, now);
        Some(session)
    }

    /// Answers an initiation that was made for the key `own` of ours, if it is authentic. A stranger can name any peer.
    pub(crate) fn answer(
        &mut self,
        peer: &mut Peer,
        own: PeerKey,
        initiation: &[u8],
        now: Instant,
    ) -> Result<Draft, DropReason> {
        if peer.tunnel.session.is_some() && peer.tunnel.own_key != Some(own) {
            self.speak_as(peer, own, initiation, now)?;
        }
        if peer.tunnel.preshared.before_answer(self.order(peer), now) {
            self.renew_engine(peer, now);
        }
        let had_session = peer.tunnel.session.is_some();
        let session = peer.tunnel.session.take().or_else(|| self.new_session(peer, Some(own), now));
        let mut session = session.ok_or(DropReason::HandshakeNoKey)?;
        let answered = session.handle_initiation(initiation, now, self.outbox.room(RESPONSE_LEN));
        // A session that holds replay state is kept too, because remembering is costly. Such a peer had a session before, with
        // this node or with the one that handed over.
        if answered.is_ok() || had_session || session.remembers() {
            peer.tunnel.session = Some(session);
        }
        let response = self.outbox.draft(answered?);
        peer.tunnel.preshared.on_answered(now);
        Ok(response)
    }

    /// Chooses the preshared key for a call that follows, if there are two. It stays while our own keys take turns.
    fn choose_key(&mut self, peer: &mut Peer, now: Instant) {
        let is_former =
            peer.tunnel.own_key.is_some() && peer.tunnel.own_key != self.local.keys.present().map(LocalKey::public);
        if peer.tunnel.preshared.on_call(self.order(peer), is_former, now) {
            self.renew_engine(peer, now);
        }
    }

    /// Which public key is ours, of the two that a handshake with this peer uses.
    fn order(&self, peer: &Peer) -> Order {
        let ours = self.local.keys.find_or_present(peer.tunnel.own_key).map(LocalKey::public);
        if ours < Some(peer.tunnel.key) { Order::Lower } else { Order::Higher }
    }

    /// Handles a call for a different key of ours than the one that the peer's session speaks as. If the call is authentic,
    /// the session makes its next handshakes with that key.
    fn speak_as(&mut self, peer: &mut Peer, own: PeerKey, initiation: &[u8], now: Instant) -> Result<(), DropReason> {
        let local = self.local.keys.find(own).ok_or(DropReason::HandshakeNoKey)?;
        let tunnel = &mut peer.tunnel;
        let keys = Keys { local, peer: tunnel.key, preshared: tunnel.preshared.in_turn() };
        let mut trial = Box::new(Session::new(keys, tunnel.receivers.present, self.local.wall.origin(now), now));
        tunnel.tell_replays(&mut trial, now);
        trial.handle_initiation(initiation, now, self.outbox.room(RESPONSE_LEN))?;
        tunnel.set_replays_aside();
        tunnel.own_key = Some(own);
        self.renew_engine(peer, now);
        peer.tunnel.remind_session(now);
        Ok(())
    }

    /// Before an initiation that was not answered is repeated: the next handshake is made with the next of our keys. A peer
    /// that has not learned of our present key does not know it, and one that has does not know the former one any more.
    fn try_next_key(&mut self, peer: &mut Peer, now: Instant) {
        if !peer.tunnel.session.as_ref().is_some_and(|session| session.is_to_repeat(now)) {
            return;
        }
        peer.tunnel.set_replays_aside();
        peer.tunnel.own_key = self.local.keys.after(peer.tunnel.own_key).map(LocalKey::public);
        self.renew_engine(peer, now);
        peer.tunnel.remind_session(now);
    }

    /// Notes which of our keys the peer knows, after a handshake message of the peer was authenticated.
    pub(crate) fn on_own_key_proven(&mut self, peer: &mut Peer) {
        let keys = &self.local.keys;
        let is_present = peer.tunnel.own_key.is_some() && peer.tunnel.own_key == keys.present().map(LocalKey::public);
        if is_present && keys.has_former() && !std::mem::replace(&mut peer.tunnel.knows_present_key, true) {
            self.outbox.event(Event::KnowsPresentKey(peer.tag));
        }
    }

    /// Records that a session with the peer was made, with the preshared key of this number. `is_initiator`: we began it.
    pub(crate) fn on_handshake_completed(
        &mut self,
        peer: &mut Peer,
        key_number: Option<u32>,
        is_initiator: bool,
        origin: Origin,
        now: Instant,
    ) {
        peer.on_connected();
        let proof = peer.tunnel.preshared.on_session(key_number);
        if proof.is_other_turn {
            self.renew_engine(peer, now);
        }
        if proof.is_news {
            self.outbox.event(Event::PresharedKeyProven(peer.tag));
        }
        peer.stats.handshakes.add(1);
        self.stats.handshakes_completed.add(1);
        if let Some(event) = peer.news.on_handshake(peer.tag, now) {
            self.outbox.event(event);
        }
        self.on_session_over(peer, origin, is_initiator, now);
        // The openers of the end that began are out before the other one learns of the session, and sends its own.
        self.find_paths(peer, now);
        self.on_session(peer, is_initiator, now);
    }

    /// Sends a response, which proves to the peer that we hold our keys.
    pub(crate) fn transmit_response(&mut self, peer: &mut Peer, response: Draft, origin: Origin, now: Instant) {
        if peer.paths.agent.is_some() {
            self.transmit_back(peer, origin, response, HANDSHAKE_CLASS);
        } else {
            self.transmit(peer, response, HANDSHAKE_CLASS, false);
        }
        peer.on_data_sent(now);
    }

    fn transmit_keepalive(&mut self, peer: &mut Peer, keepalive: Draft, now: Instant) {
        if keepalive.len() == 0 {
            return;
        }
        peer.tunnel.on_sealed(self.outbox.read(&keepalive));
        self.transmit(peer, keepalive, KEEPALIVE_CLASS, peer.way(&self.local).is_proven);
        peer.tunnel.on_sent(now);
        self.renew(peer, REKEY_AFTER_TIME, now);
    }

    /// Sends an initiation to the peer.
    fn initiate(&mut self, peer: &mut Peer, now: Instant) {
        if peer.tunnel.is_unanswered() {
            peer.paths.forget_source();
        }
        let retry_after = peer.tunnel.pause(now) + jitter(&mut self.rng);
        self.choose_key(peer, now);
        if peer.tunnel.session.is_none() {
            let own = peer.tunnel.own_key;
            peer.tunnel.session = self.new_session(peer, own, now);
        }
        let Some(session) = &mut peer.tunnel.session else { return };
        if let Some(len) = session.initiate(now, retry_after, self.outbox.room(DUE_LEN)) {
            let initiation = self.outbox.draft(len);
            self.transmit_initiation(peer, initiation, now);
        }
    }

    fn transmit_initiation(&mut self, peer: &mut Peer, initiation: Draft, now: Instant) {
        self.call(peer, initiation, now);
        peer.on_initiated(now);
    }

    fn on_expired(&mut self, peer: &mut Peer, unanswered: bool, now: Instant) {
        // Packets that arrived while the peer was already being called have not waited long. The attempts continue for
        // them.
        if !peer.tunnel.is_wanted_by_traffic(now) {
            let dropped = peer.staged.clear();
            self.stats.count_drops(DropReason::StagedExpired, dropped);
            peer.stats.drops.add(dropped);
        }
        if unanswered {
            self.outbox.event(Event::HandshakeFailed(peer.tag));
        }
    }
}
