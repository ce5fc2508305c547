//! What everything that acts for one peer needs beside the peer, and what is done for a peer when its time comes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_wire::wireguard::INITIATION_LEN;
use rand_chacha::ChaCha8Rng;

use crate::data::allowlist::HostPorts;
use crate::data::coalesce::Coalescer;
use crate::data::session::{Due, LocalKey, REKEY_AFTER_TIME, REKEY_TIMEOUT, Session};
use crate::indices::Indices;
use crate::output::Outbox;
use crate::path::endpoint::Endpoint;
use crate::path::endpoints::Endpoints;
use crate::peer::{Peer, jitter};
use crate::wall_clock::WallClock;
use crate::{DropReason, Event, Instant, Joins, NodeStats, PeerTag, Via};

pub(crate) struct Context {
    pub(crate) local: Local,
    pub(crate) indices: Indices,
    pub(crate) outbox: Outbox,
    pub(crate) coalescer: Coalescer,
    pub(crate) stats: Arc<NodeStats>,
    pub(crate) rng: ChaCha8Rng,
    /// The control frame or echo that is sent next.
    pub(crate) frame: Vec<u8>,
    /// Where all peers are.
    pub(crate) endpoints: Endpoints,
}

/// This host's side of every session.
pub(crate) struct Local {
    /// `None`: there is nobody to speak as.
    pub(crate) key: Option<LocalKey>,
    /// Whether the interface is up.
    pub(crate) is_up: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) forward: bool,
    /// Of inner packets to a peer of whose path nothing is known, in bytes.
    pub(crate) mtu: usize,
    /// The most that a path is searched for.
    pub(crate) max_mtu: usize,
    /// What TUN takes as super-packets.
    pub(crate) joins: Joins,
    /// What handshakes are stamped with.
    pub(crate) wall: WallClock,
    /// The UDP ports that were in use on this host when control last looked.
    pub(crate) ports: Option<HostPorts>,
}

impl Local {
    /// Whether there can be handshakes at all.
    pub(crate) fn can_speak(&self) -> bool {
        self.is_up && self.key.is_some()
    }

    /// Whether an inner address is ours. Without addresses of its own the node cannot tell, as in WireGuard.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether packets with this inner source may go out.
    pub(crate) fn may_send_from(&self, source: IpAddr) -> bool {
        self.addresses.is_empty() || self.forward || self.owns(source)
    }

    /// Whether packets to this inner destination may come in.
    pub(crate) fn may_deliver_to(&self, destination: IpAddr) -> bool {
        self.addresses.is_empty() || self.forward || self.owns(destination)
    }
}

/// The traffic class of initiations and responses, as the kernel has it: AF41, and not ECN-capable.
pub(crate) const HANDSHAKE_CLASS: u8 = 0x88;
/// That of what holds no packet.
const KEEPALIVE_CLASS: u8 = 0;

/// The longest message that is due by itself.
const DUE_LEN: usize = INITIATION_LEN;

impl Context {
    /// Moves the peer's time to `now` and sends what is due: before each train, at its deadline, and when it was changed.
    pub(crate) fn advance(&mut self, peer: &mut Peer, now: Instant) {
        if peer.session.as_ref().is_some_and(|session| session.is_outdated(self.local.wall.era(), now)) {
            self.renew_engine(peer, now);
        }
        self.look_after(peer, now);
        let (pause, jitter) = (peer.pause(now), jitter(&mut self.rng));
        if let Some(session) = &mut peer.session {
            match session.advance(now, pause, jitter, self.outbox.room(DUE_LEN)) {
                Due::Nothing => {}
                Due::Initiation { len, is_repeated } => {
                    if is_repeated {
                        peer.on_silence();
                    }
                    self.transmit_initiation(peer, len, now);
                }
                Due::Keepalive(len) => self.transmit_keepalive(peer, len, now),
                Due::Expired { unanswered } => self.on_expired(peer, unanswered, now),
            }
        }
        if peer.next_attempt(now).is_some_and(|at| at <= now) {
            self.initiate(peer, now);
        }
        self.call_others(peer, now);
        self.ask_if_due(peer, now);
        if peer.keepalive_due(now).is_some_and(|at| at <= now) {
            self.send_keepalive(peer, now);
        }
        if peer.discovery.as_ref().and_then(|known| known.deadline()).is_some_and(|at| at <= now) {
            self.discover(peer, now);
        }
        if peer.news.deadline().is_some_and(|at| at <= now) {
            self.tell_news(peer, now);
        }
    }

    /// Sends an empty packet through a session that is alive.
    pub(crate) fn send_keepalive(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(session) = &mut peer.session {
            let len = session.seal(&[], now, self.outbox.room(DUE_LEN));
            self.transmit_keepalive(peer, len, now);
        }
    }

    /// Begins the next session when the one in use is ours and older than `age`: after something was sent or received.
    pub(crate) fn renew(&mut self, peer: &mut Peer, age: Duration, now: Instant) {
        let is_due = peer.session.as_ref().is_some_and(|session| session.wants_renewal(age, now));
        if is_due && peer.initiated.is_none_or(|at| now.since(at) >= REKEY_TIMEOUT) {
            self.initiate(peer, now);
        }
    }

    /// Calls a peer that has called us, now or as soon as our last initiation is old enough.
    pub(crate) fn call_back(&mut self, peer: &mut Peer, now: Instant) {
        match &mut peer.session {
            Some(session) if peer.initiated.is_some_and(|at| now.since(at) < REKEY_TIMEOUT) => {
                session.initiate_soon(now);
            }
            _ => self.initiate(peer, now),
        }
    }

    /// Makes a new engine for the peer's next handshake, under an index of its own, because the preshared key changed or the
    /// wall clock was set. Sessions go on.
    pub(crate) fn renew_engine(&mut self, peer: &mut Peer, now: Instant) {
        self.indices.renew(peer, now, &mut self.rng);
        let origin = self.local.wall.origin(now);
        if let (Some(session), Some(key)) = (&mut peer.session, &self.local.key) {
            session.renew_engine(key, peer.key, peer.preshared_key.as_deref(), peer.index, origin, now);
        }
    }

    /// A session for a peer that has none yet, with what is remembered of replays. `None`: without a key of our own.
    pub(crate) fn new_session(&self, peer: &mut Peer, now: Instant) -> Option<Box<Session>> {
        let preshared_key = peer.preshared_key.as_deref();
        let origin = self.local.wall.origin(now);
        let key = self.local.key.as_ref()?;
        let mut session = Box::new(Session::new(key, peer.key, preshared_key, peer.index, origin, now));
        peer.remind(&mut session, now);
        Some(session)
    }

    /// A message of the peer opened that it sends because it has heard from us: it is there, and this is where.
    pub(crate) fn on_authenticated(&mut self, peer: &mut Peer, source: SocketAddr, via: Via, now: Instant) {
        if peer.on_authenticated(now) {
            self.outbox.event(Event::Answering(peer.key, true));
        }
        self.locate(peer, source, via, now);
    }

    /// An initiation of the peer is authentic: this is where it is. Whether it hears us is open.
    pub(crate) fn on_called(&mut self, peer: &mut Peer, source: SocketAddr, via: Via, now: Instant) {
        peer.on_called(now);
        self.locate(peer, source, via, now);
    }

    fn locate(&mut self, peer: &mut Peer, source: SocketAddr, via: Via, now: Instant) {
        let endpoint = Endpoint { address: source, via };
        if peer.endpoint == Some(endpoint) {
            return;
        }
        if peer.endpoint.is_none_or(|old| old.address != source) {
            self.tell_endpoint(peer, source, now);
        }
        let is_elsewhere = peer.endpoint.is_none_or(|old| old.address.ip() != source.ip());
        self.endpoints.on_moved(peer.endpoint.map(|old| old.address), Some(source));
        peer.endpoint = Some(endpoint);
        if is_elsewhere {
            self.on_path_change(peer, now);
        }
    }

    /// The peer is to be reached at another address, says control.
    pub(crate) fn move_to(&mut self, peer: &mut Peer, address: SocketAddr, now: Instant) {
        let is_elsewhere = peer.endpoint.is_none_or(|old| old.address.ip() != address.ip());
        self.endpoints.on_moved(peer.endpoint.map(|old| old.address), Some(address));
        peer.set_endpoint(address, &mut self.rng);
        peer.news.forget_endpoint();
        if is_elsewhere {
            self.on_path_change(peer, now);
        }
    }

    /// A session with the peer was made. `is_initiator`: we began it.
    pub(crate) fn on_handshake_completed(&mut self, peer: &mut Peer, is_initiator: bool, now: Instant) {
        peer.on_connected();
        peer.stats.handshakes.add(1);
        self.stats.handshakes_completed.add(1);
        self.tell_handshake(peer, now);
        self.on_session(peer, is_initiator, now);
    }

    /// Sends the first `len` bytes of the outbox's room: a response, which proves us to the peer.
    pub(crate) fn transmit_response(&mut self, peer: &mut Peer, len: usize, now: Instant) {
        self.transmit(peer, len, HANDSHAKE_CLASS, false);
        peer.on_data_sent(now);
    }

    fn transmit_keepalive(&mut self, peer: &mut Peer, len: usize, now: Instant) {
        if len == 0 {
            return;
        }
        peer.on_sealed(self.outbox.room(len));
        self.transmit(peer, len, KEEPALIVE_CLASS, peer.way(&self.local).is_proven);
        peer.on_sent(now);
        self.renew(peer, REKEY_AFTER_TIME, now);
    }

    /// Calls the peer.
    fn initiate(&mut self, peer: &mut Peer, now: Instant) {
        if peer.is_silent() {
            peer.on_silence();
        }
        let retry_after = peer.pause(now) + jitter(&mut self.rng);
        let Some(mut session) = peer.session.take().or_else(|| self.new_session(peer, now)) else { return };
        let initiation = session.initiate(now, retry_after, self.outbox.room(DUE_LEN));
        peer.session = Some(session);
        if let Some(len) = initiation {
            self.transmit_initiation(peer, len, now);
        }
    }

    fn transmit_initiation(&mut self, peer: &mut Peer, len: usize, now: Instant) {
        self.call(peer, len, now);
        peer.on_initiated(now);
    }

    /// Sends the first `len` bytes of the outbox's room. `is_whole`: nobody may fragment them.
    pub(crate) fn transmit(&mut self, peer: &Peer, len: usize, traffic_class: u8, is_whole: bool) {
        if let Some(endpoint) = peer.endpoint {
            self.outbox.transmit(
                endpoint.address,
                endpoint.via,
                len,
                len,
                traffic_class,
                is_whole.then_some(PeerTag(peer.id)),
            );
            peer.stats.sent_wire_bytes.add(len as u64);
        }
    }

    fn on_expired(&mut self, peer: &mut Peer, unanswered: bool, now: Instant) {
        // Packets that came while the peer was called already have not waited for long; attempts go on for them.
        if !peer.is_wanted_by_traffic(now) {
            let dropped = peer.staged.clear();
            self.stats.count_drops(DropReason::StagedExpired, dropped);
            peer.stats.drops.add(dropped);
        }
        if unanswered {
            self.outbox.event(Event::HandshakeFailed(peer.key));
        }
    }
}
