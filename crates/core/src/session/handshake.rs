//! Handshake messages, cheapest check first: mac1, load and cookie, source limit ([`super::gate`]); only then Diffie-Hellman.
//!
//! A message is not believed before its session engine has authenticated it. A message that fails a check gets no answer.
//! The one exception is a cookie reply, which is shorter than the message that it answers.

use std::time::Duration;

use overlay_wire::wireguard::{COOKIE_REPLY_LEN, Message, RESPONSE_LEN};

use crate::data::outbound;
use crate::node::Node;
use crate::origin::Origin;
use crate::peer::Peer;
use crate::session::calls::HANDSHAKE_CLASS;
use crate::session::gate::Passed;
use crate::{DropReason, Instant, PeerKey, PeerTag};

/// The shortest time between two initiations of one peer (the kernel's INITIATIONS_PER_SECOND is 50).
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

impl Node {
    /// Takes a handshake message or a cookie reply.
    pub(crate) fn handshake(
        &mut self,
        message: Message<'_>,
        bytes: &[u8],
        origin: Origin,
        now: Instant,
    ) -> Result<(), DropReason> {
        match message {
            Message::Initiation(_) => {
                let own = self.pass_gate(None, bytes, origin, now)?;
                self.initiation(own, bytes, origin, now)
            }
            Message::Response { receiver, .. } => {
                self.pass_gate(Some(receiver), bytes, origin, now)?;
                self.response(receiver, bytes, origin, now)
            }
            Message::CookieReply { receiver, .. } => self.cookie_reply(receiver, bytes, now),
            Message::Data { .. } => Err(DropReason::InboundUnknown),
        }
    }

    /// Sends a message through the gate. `response`: the receiver index, if the message is a response. Returns which of our
    /// keys the message was made for.
    fn pass_gate(
        &mut self,
        response: Option<u32>,
        bytes: &[u8],
        origin: Origin,
        now: Instant,
    ) -> Result<PeerKey, DropReason> {
        match self.gate.check(bytes, origin, &mut self.context, now)? {
            Passed::Free(key) => Ok(key),
            // Strangers may share the address. They have different ports.
            Passed::OverLimit(key)
                if self.context.endpoints.allows(origin.far(), now) || self.is_awaited(response, now) =>
            {
                Ok(key)
            }
            Passed::OverLimit(_) => Err(DropReason::HandshakeRate),
        }
    }

    /// Whether a response answers an initiation that we have just sent. A stranger cannot know its index.
    fn is_awaited(&mut self, response: Option<u32>, now: Instant) -> bool {
        let Some(receiver) = response else { return false };
        let peer = self.context.indices.find(receiver).and_then(|tag| self.peers.peer(tag));
        let is_awaited =
            |peer: &&mut Peer| peer.tunnel.session.as_ref().is_some_and(|session| session.awaits(receiver));
        peer.filter(is_awaited).is_some_and(|peer| peer.tunnel.responses.take(now))
    }

    /// Takes an initiation that was made for the key `own` of ours.
    fn initiation(&mut self, own: PeerKey, bytes: &[u8], origin: Origin, now: Instant) -> Result<(), DropReason> {
        if let Some((tag, response)) = self.answered.again(bytes, now) {
            return self.answer_again(tag, &response, origin);
        }
        let context = &mut self.context;
        let own = context.local.keys.find(own).ok_or(DropReason::HandshakeNoKey)?;
        let key = own.initiator(bytes).ok_or(DropReason::HandshakeForged)?;
        let own = own.public();
        let tag = self.peers.find(key).ok_or(DropReason::HandshakeUnknownPeer)?;
        let peer = self.peers.peer(tag).ok_or(DropReason::HandshakeUnknownPeer)?;
        if peer.tunnel.is_mute {
            return Err(DropReason::HandshakeLowOrder);
        }
        if peer.tunnel.initiation_received.is_some_and(|at| now.since(at) < INITIATION_INTERVAL) {
            return Err(DropReason::HandshakeFlood);
        }
        context.advance(peer, now);
        let answered = context.answer(peer, own, bytes, now);
        peer.arm(&mut self.deadlines, now);
        let response = answered?;

        // From here on the message is authentic.
        peer.tunnel.initiation_received = Some(now);
        context.stats.initiations_received.add(1);
        context.on_own_key_proven(peer);
        context.stats.count_received(&peer.stats, origin.via, (origin.via.lead() + bytes.len()) as u64);
        // A peer that keeps initiating may do so because it does not hear us.
        context.on_authenticated(peer, origin, now);
        if peer.paths.agent.is_some() {
            self.answered.keep(tag, bytes, context.outbox.read(&response), now);
        }
        context.transmit_response(peer, response, origin, now);
        if peer.tunnel.session.as_ref().is_some_and(|session| session.must_initiate(now)) {
            context.call_back(peer, now);
        }
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    /// Answers a copy of an initiation over the path that it came by.
    fn answer_again(&mut self, tag: PeerTag, response: &[u8], origin: Origin) -> Result<(), DropReason> {
        let peer = self.peers.peer(tag).ok_or(DropReason::HandshakeUnknownPeer)?;
        let response = self.context.outbox.copy(response);
        self.context.transmit_back(peer, origin, response, HANDSHAKE_CLASS);
        Ok(())
    }

    fn response(&mut self, receiver: u32, bytes: &[u8], origin: Origin, now: Instant) -> Result<(), DropReason> {
        let context = &mut self.context;
        let tag = context.indices.find(receiver).ok_or(DropReason::UnknownReceiver)?;
        let (peer, allowed_ips) = self.peers.peer_and_allowed_ips(tag).ok_or(DropReason::UnknownReceiver)?;
        let session = peer.tunnel.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        let key_number = session.key_number();
        let completed = session.handle_response(receiver, bytes, now, context.outbox.room(RESPONSE_LEN));
        peer.arm(&mut self.deadlines, now);
        completed?;

        // From here on the message is authentic.
        context.stats.count_received(&peer.stats, origin.via, (origin.via.lead() + bytes.len()) as u64);
        context.on_own_key_proven(peer);
        context.on_heard(peer, now);
        context.on_authenticated(peer, origin, now);
        context.on_handshake_completed(peer, key_number, true, origin, now);
        if !outbound::flush(peer, allowed_ips, &mut self.scratch, context, now) {
            // The responder learns from nothing else that we hold the keys.
            context.send_keepalive(peer, now);
        }
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    fn cookie_reply(&mut self, receiver: u32, bytes: &[u8], now: Instant) -> Result<(), DropReason> {
        let tag = self.context.indices.find(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.peer(tag).ok_or(DropReason::UnknownReceiver)?;
        let session = peer.tunnel.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        // A cookie proves no address, so it moves neither the endpoint nor the timers.
        session.handle_cookie(bytes, now, self.context.outbox.room(COOKIE_REPLY_LEN))?;
        if let Some(agent) = &mut peer.paths.agent {
            agent.on_cookie();
        }
        Ok(())
    }
}
