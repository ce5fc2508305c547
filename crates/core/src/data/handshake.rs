//! Handshake messages, cheapest check first: mac1, load and cookie, source limit; only then Diffie-Hellman.
//!
//! Nothing that a message says is believed before its session engine has authenticated it. Silence is the answer to
//! everything that fails; the one exception is a cookie reply, which is shorter than what it answers.

use std::time::Duration;

use overlay_wire::wireguard::{COOKIE_REPLY_LEN, Message, RESPONSE_LEN};

use crate::data::outbound;
use crate::data::session::Gate;
use crate::data::source_limit::SourceLimit;
use crate::node::Node;
use crate::peer::Peer;
use crate::{DropReason, Instant, UdpTrain};

/// Handshake messages a second above which senders must prove their address.
pub(crate) const LOAD_LIMIT: u64 = 256;
/// The count starts anew after this long.
const LOAD_PERIOD: Duration = Duration::from_secs(1);
/// A peer's initiations are at least this far apart (the kernel's INITIATIONS_PER_SECOND is 50).
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// How many handshake messages came lately, and from whom.
pub(crate) struct HandshakeGate {
    count: u64,
    counting_since: Instant,
    sources: SourceLimit,
}

impl HandshakeGate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { count: 0, counting_since: now, sources: SourceLimit::default() }
    }
}

impl Node {
    /// Takes a handshake message or a cookie reply.
    pub(crate) fn handshake(
        &mut self,
        message: Message<'_>,
        bytes: &[u8],
        train: &UdpTrain<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match message {
            Message::Initiation(_) => {
                self.pass_gate(None, bytes, train, now)?;
                self.initiation(bytes, train, now)
            }
            Message::Response { receiver, .. } => {
                self.pass_gate(Some(receiver), bytes, train, now)?;
                self.response(receiver, bytes, train, now)
            }
            Message::CookieReply { receiver, .. } => self.cookie_reply(receiver, bytes, now),
            Message::Data { .. } => Err(DropReason::InboundUnknown),
        }
    }

    /// The checks before any Diffie-Hellman. `response`: the receiver index of a response.
    ///
    /// What one stranger can cause to the others is load: for as long as he sends more than [`LOAD_LIMIT`] messages a second
    /// with a good mac1, everybody's first message is answered with a cookie, and the second one, five seconds later, passes.
    /// Sessions that there are do not notice.
    fn pass_gate(
        &mut self,
        response: Option<u32>,
        bytes: &[u8],
        train: &UdpTrain<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (gate, context) = (&mut self.gate, &mut self.context);
        let key = context.local.key.as_ref().ok_or(DropReason::HandshakeNoKey)?;
        if now.since(gate.counting_since) >= LOAD_PERIOD {
            gate.counting_since = now;
            gate.count = 0;
            key.reset_count(now);
        }
        let room = context.outbox.room(COOKIE_REPLY_LEN);
        match key.verify(train.source.ip(), bytes, room, now) {
            Gate::Refuse => Err(DropReason::HandshakeMac),
            Gate::Cookie(len) => {
                gate.count += 1;
                context.outbox.transmit(train.source, train.via.at_once(), len, len, 0, None);
                context.stats.cookies_sent.add(1);
                Err(DropReason::HandshakeCookie)
            }
            Gate::Pass => {
                gate.count += 1;
                let is_under_load = gate.count > LOAD_LIMIT;
                if !is_under_load || gate.sources.allows(train.source.ip(), now) {
                    return Ok(());
                }
                // Strangers may be behind the same address; they have other ports.
                if context.endpoints.allows(train.source, now) || self.is_awaited(response, now) {
                    return Ok(());
                }
                Err(DropReason::HandshakeRate)
            }
        }
    }

    /// Whether a response answers an initiation that we have just sent. A stranger cannot know its index.
    fn is_awaited(&mut self, response: Option<u32>, now: Instant) -> bool {
        let Some(receiver) = response else { return false };
        let peer = self.context.indices.find(receiver).and_then(|id| self.peers.peer(id));
        let is_awaited = |peer: &&mut Peer| peer.session.as_ref().is_some_and(|session| session.awaits(receiver));
        peer.filter(is_awaited).is_some_and(|peer| peer.responses.take(now))
    }

    fn initiation(&mut self, bytes: &[u8], train: &UdpTrain<'_>, now: Instant) -> Result<(), DropReason> {
        let context = &mut self.context;
        let own = context.local.key.as_ref().ok_or(DropReason::HandshakeNoKey)?;
        let key = own.initiator(bytes).ok_or(DropReason::HandshakeForged)?;
        let id = self.peers.find(key).ok_or(DropReason::HandshakeUnknownPeer)?;
        let peer = self.peers.peer(id).ok_or(DropReason::HandshakeUnknownPeer)?;
        if peer.is_mute {
            return Err(DropReason::HandshakeLowOrder);
        }
        if peer.initiation_received.is_some_and(|at| now.since(at) < INITIATION_INTERVAL) {
            return Err(DropReason::HandshakeFlood);
        }
        context.advance(peer, now);
        let had_session = peer.session.is_some();
        // A session made for it is kept only if it is authentic: a stranger can name any peer.
        let session = peer.session.take().or_else(|| context.new_session(peer, now));
        let mut session = session.ok_or(DropReason::HandshakeNoKey)?;
        let answered = session.handle_initiation(bytes, now, context.outbox.room(RESPONSE_LEN));
        // It is kept too where it remembers replays, which is costly to do: such a peer had one before.
        if answered.is_ok() || had_session || session.remembers() {
            peer.session = Some(session);
        }
        self.deadlines.arm_next(peer, now);
        let len = answered?;

        // From here on the message is authentic.
        peer.initiation_received = Some(now);
        context.stats.initiations_received.add(1);
        peer.stats.received_wire_bytes.add(bytes.len() as u64);
        context.on_called(peer, train.source, train.via, now);
        context.transmit_response(peer, len, now);
        if peer.session.as_ref().is_some_and(|session| session.must_initiate(now)) {
            context.call_back(peer, now);
        }
        self.deadlines.arm_next(peer, now);
        Ok(())
    }

    fn response(&mut self, receiver: u32, bytes: &[u8], train: &UdpTrain<'_>, now: Instant) -> Result<(), DropReason> {
        let context = &mut self.context;
        let id = context.indices.find(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.peer(id).ok_or(DropReason::UnknownReceiver)?;
        let session = peer.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        let completed = session.handle_response(receiver, bytes, now, context.outbox.room(RESPONSE_LEN));
        self.deadlines.arm_next(peer, now);
        completed?;

        // From here on the message is authentic.
        peer.stats.received_wire_bytes.add(bytes.len() as u64);
        context.on_authenticated(peer, train.source, train.via, now);
        context.on_handshake_completed(peer, true, now);
        if !outbound::flush(peer, &mut self.scratch, context, now) {
            // Nothing else tells the responder that we hold the keys.
            context.send_keepalive(peer, now);
        }
        self.deadlines.arm_next(peer, now);
        Ok(())
    }

    fn cookie_reply(&mut self, receiver: u32, bytes: &[u8], now: Instant) -> Result<(), DropReason> {
        let id = self.context.indices.find(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.peer(id).ok_or(DropReason::UnknownReceiver)?;
        let session = peer.session.as_mut().ok_or(DropReason::UnknownReceiver)?;
        // It proves no address: neither endpoint nor timers move on it.
        session.handle_cookie(bytes, now, self.context.outbox.room(COOKIE_REPLY_LEN))
    }
}
