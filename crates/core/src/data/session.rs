//! The seam around boringtun: the only file that knows its name.
//!
//! boringtun's `Tunn` is a session engine, not a WireGuard device. What the seam adds, and why:
//!
//! * **Time is lent.** `Tunn` reads a thread-local clock that is set before every call; its own notion of the current
//!   time moves only in `update_timers`, which therefore runs before every train.
//! * **Retries get jitter and back-off** by lending a clock that stands just before `REKEY_TIMEOUT` until the retry may
//!   go out. For one peer the lent clock never runs backwards, and it is never ahead.
//! * **Timers as in the kernel.** `Tunn` measures "nothing heard for 15 s" from the last packet heard and "nothing sent
//!   for 10 s" from the last packet sent, so the first packet after an idle quarter of a minute would start a handshake
//!   at once. Both are kept here, from the first packet that waits for an answer; `Tunn`'s own are held off
//!   ([`Session::must_hold`]) or dropped.
//! * **A next deadline**, computed from the same facts that `Tunn` keeps.
//! * **Counters at the end of their range** are refused before `Tunn` sees them: it would overflow.
//!
//! What it leaves out: padding (the caller's plaintext is padded), allowed IPs, staging, persistent keepalive, and
//! handshakes after `Tunn` has given up. All of these are the caller's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use mock_instant::MockClock;

use crate::{DropReason, Instant, PeerKey};

/// An initiation is repeated after this long without a response (WireGuard paper, section 6.1).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries are spread over this much more (paper, section 6.1: up to a third of a second).
pub(crate) const MAX_JITTER: Duration = Duration::from_millis(333);
/// First byte of a handshake initiation.
const INITIATION: u8 = 1;
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Counters from here on are refused (paper, section 6.5: REJECT_AFTER_MESSAGES).
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Our tunnel key, and what is derived from it once for all peers.
pub(crate) struct LocalKey {
    private: StaticSecret,
    public: PublicKey,
    /// Checks mac1 of every handshake message, and mac2 when there are many.
    gate: RateLimiter,
    /// What each `Tunn` is given: never limits, since `gate` has counted already.
    never_limits: Arc<RateLimiter>,
}

/// What the gate says of a handshake message.
pub(crate) enum Gate {
    /// mac1 is right, and mac2 where it was asked for.
    Pass,
    /// Under load and without a valid mac2: this many bytes of cookie reply were written.
    Cookie(usize),
    /// mac1 was not made for our key.
    Refuse,
}

impl LocalKey {
    /// `limit`: handshake messages a second above which senders must prove their address.
    pub(crate) fn new(private: &[u8; 32], limit: u64, now: Instant) -> Self {
        set_clock(now);
        let private = StaticSecret::from(*private);
        let public = PublicKey::from(&private);
        Self {
            gate: RateLimiter::new(&public, limit),
            never_limits: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
        }
    }

    pub(crate) fn public(&self) -> PeerKey {
        PeerKey(self.public.to_bytes())
    }

    /// Whether every secret shared with this key is zero.
    pub(crate) fn is_low_order(&self, key: PeerKey) -> bool {
        !self.private.diffie_hellman(&PublicKey::from(key.0)).was_contributory()
    }

    /// Starts a new second of counting.
    pub(crate) fn reset_count(&self, now: Instant) {
        set_clock(now);
        self.gate.reset_count();
    }

    /// Checks the MACs of a handshake message that came from `source`.
    pub(crate) fn verify(&self, source: IpAddr, message: &[u8], cookie: &mut [u8], now: Instant) -> Gate {
        set_clock(now);
        match self.gate.verify_packet(Some(source), message, cookie) {
            Ok(_) => Gate::Pass,
            Err(TunnResult::WriteToNetwork(reply)) => Gate::Cookie(reply.len()),
            Err(_) => Gate::Refuse,
        }
    }

    /// The static key inside an initiation. One Diffie-Hellman: ask only after [`LocalKey::verify`]. Anyone can name
    /// anyone here; only [`Session::handle_initiation`] authenticates.
    pub(crate) fn initiator(&self, message: &[u8]) -> Option<PeerKey> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(message) else {
            return None;
        };
        let half = parse_handshake_anon(&self.private, &self.public, &initiation).ok()?;
        Some(PeerKey(half.peer_static_public))
    }
}

/// The sessions with one peer, and the handshake that makes the next one.
pub(crate) struct Session {
    tunn: Tunn,
    /// What `Tunn` believes the time to be: every time below is in it, as every time inside `Tunn`.
    current: Instant,
    /// The clock it was last lent.
    lent: Instant,
    /// The initiation that is out: when it was sent, its sender index, when it may be repeated.
    in_flight: Option<InFlight>,
    /// The newest session, confirmed or not.
    established: Option<Instant>,
    is_initiator: bool,
    last_received: Instant,
    last_data_sent: Option<Instant>,
    last_data_received: Option<Instant>,
    /// Real time of the first data sent since we last heard, and of the first data heard since we last sent.
    unanswered_since: Option<Instant>,
    owes_answer_since: Option<Instant>,
    /// The receiver index of a session that we responded to and that carried nothing yet.
    unconfirmed: Option<u32>,
    /// Whether `Tunn` has given up, and the caller knows.
    has_given_up: bool,
}

struct InFlight {
    sent: Instant,
    sender_index: u32,
    retry_at: Instant,
}

/// What [`Session::advance`] wants sent, `len` bytes of the buffer it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Initiation(usize),
    Keepalive(usize),
    /// The handshake was given up after 90 s, or no session was made for 540 s. All keys are gone.
    Expired {
        /// Whether initiations went unanswered.
        unanswered: bool,
    },
}

/// What a data message held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An IP packet of this many bytes at the start of the output.
    Packet(usize),
    Keepalive,
    /// Authenticated, but no whole IP packet.
    Malformed,
}

impl Session {
    /// `index`: 24 bits, random, not used by another session of this node. `anchor`: see `NodeConfig::wall_anchor`.
    pub(crate) fn new(
        local: &LocalKey,
        peer: PeerKey,
        preshared_key: Option<&[u8; 32]>,
        index: u32,
        anchor: Instant,
        now: Instant,
    ) -> Self {
        // `Tunn` counts its handshake timestamps from the wall clock at this moment plus the clock it is lent.
        set_clock(anchor);
        let tunn = Tunn::new(
            local.private.clone(),
            PublicKey::from(peer.0),
            preshared_key.copied(),
            None,
            index,
            Some(Arc::clone(&local.never_limits)),
        );
        let mut session = Self {
            tunn,
            current: now,
            lent: anchor,
            in_flight: None,
            established: None,
            is_initiator: false,
            last_received: now,
            last_data_sent: None,
            last_data_received: None,
            unanswered_since: None,
            owes_answer_since: None,
            unconfirmed: None,
            // In a simulation `Tunn` is born long after its clock began and gives up at once: nobody need know.
            has_given_up: true,
        };
        session.advance(now, REKEY_TIMEOUT, &mut [0; 256]);
        session
    }

    /// Whether packets can be sealed now.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        // `Tunn` subtracts from the clock, which may stand earlier after another peer's call.
        set_clock(now.max(self.lent));
        self.tunn.time_since_last_handshake().is_some()
            && self.established.is_some_and(|at| now.since(at) < REJECT_AFTER_TIME)
    }

    /// Whether an initiation is out and may still be answered.
    pub(crate) fn is_initiating(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Moves the session's time to `now` and does what is due: at most one message, written to `out`. Call before every
    /// train and at [`Session::deadline`]. `retry_after` is the pause after an initiation sent here.
    pub(crate) fn advance(&mut self, now: Instant, retry_after: Duration, out: &mut [u8]) -> Due {
        if !self.must_hold(now) {
            self.current = self.lend(now);
            match self.tunn.update_timers(out) {
                TunnResult::WriteToNetwork(message) if message[0] == INITIATION => {
                    let len = message.len();
                    self.on_initiation_sent(now, retry_after, &out[..len]);
                    return Due::Initiation(len);
                }
                // A keepalive by `Tunn`'s own rule: ours follows below when it is time. A counter is skipped.
                TunnResult::WriteToNetwork(_) => {}
                TunnResult::Err(WireGuardError::ConnectionExpired) if !self.has_given_up => {
                    return self.give_up();
                }
                _ => {}
            }
        }
        if has_passed(self.unanswered_since, KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, now) {
            self.unanswered_since = None;
            if self.in_flight.is_none() {
                return self.initiate(now, retry_after, out).map_or(Due::Nothing, Due::Initiation);
            }
        }
        if has_passed(self.owes_answer_since, KEEPALIVE_TIMEOUT, now) {
            self.owes_answer_since = None;
            if self.is_alive(now) {
                return Due::Keepalive(self.seal(&[], now, out));
            }
        }
        Due::Nothing
    }

    /// When [`Session::advance`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if let Some(in_flight) = &self.in_flight {
            return Some(in_flight.retry_at);
        }
        let established = self.established?;
        let sent_since = self.last_data_sent.is_some_and(|at| at > established);
        let received_since = self.last_data_received.is_some_and(|at| at > established);
        let lifetime = match (self.is_initiator, sent_since, received_since) {
            (true, true, _) => REKEY_AFTER_TIME,
            (true, false, true) => REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT,
            _ => REJECT_AFTER_TIME * 3,
        };
        let unanswered = self.unanswered_since.map(|at| at + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        let owed = self.owes_answer_since.map(|at| at + KEEPALIVE_TIMEOUT);
        [Some(established + lifetime), unanswered, owed].into_iter().flatten().min()
    }

    /// Begins a handshake, also after `Tunn` has given up. `retry_after`: when it is repeated without an answer.
    pub(crate) fn initiate(&mut self, now: Instant, retry_after: Duration, out: &mut [u8]) -> Option<usize> {
        self.lend(now);
        let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(out, true) else {
            return None;
        };
        let len = message.len();
        self.has_given_up = false;
        self.on_initiation_sent(now, retry_after, &out[..len]);
        Some(len)
    }

    /// Seals one padded plaintext; `out` holds at least 32 bytes more. Only while [`Session::is_alive`].
    pub(crate) fn seal(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(plaintext, out) else {
            return 0;
        };
        let len = message.len();
        self.on_sent(now, !plaintext.is_empty());
        len
    }

    /// Opens a data message into `out`, which is at least as long as the message.
    pub(crate) fn open(
        &mut self,
        counter: u64,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<Opened, DropReason> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterExhausted);
        }
        self.lend(now);
        let opened = match self.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToTunnelV4(packet, _) => Opened::Packet(packet.len()),
            TunnResult::WriteToTunnelV6(packet, _) => Opened::Packet(packet.len()),
            TunnResult::Done => Opened::Keepalive,
            TunnResult::Err(WireGuardError::InvalidPacket) => Opened::Malformed,
            TunnResult::Err(WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter) => {
                return Err(DropReason::Replay);
            }
            TunnResult::Err(WireGuardError::WrongIndex | WireGuardError::NoCurrentSession) => {
                return Err(DropReason::UnknownReceiver);
            }
            _ => return Err(DropReason::Forged),
        };
        self.on_received(now, matches!(opened, Opened::Packet(_)));
        Ok(opened)
    }

    /// Whether data through this receiver index is the first of a session that we responded to: it proves that the
    /// initiator holds the keys.
    pub(crate) fn confirms(&mut self, receiver_index: u32) -> bool {
        self.unconfirmed.take_if(|index| *index == receiver_index).is_some()
    }

    /// Answers an initiation: the response, `len` bytes of `out`.
    pub(crate) fn handle_initiation(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        self.lend(now);
        match self.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToNetwork(response) => {
                let (len, index) = (response.len(), index_at(response, 4));
                self.has_given_up = false;
                self.unconfirmed = Some(index);
                // `Tunn` forgets an initiation of its own when it answers one: its response still counts.
                self.in_flight = None;
                self.is_initiator = false;
                self.established = Some(self.current);
                self.on_received(now, false);
                self.on_sent(now, false);
                Ok(len)
            }
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => Err(DropReason::HandshakeReplay),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Completes a handshake that we began: the keepalive that confirms it, `len` bytes of `out`.
    pub(crate) fn handle_response(
        &mut self,
        receiver_index: u32,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        self.lend(now);
        match self.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToNetwork(keepalive) => {
                let len = keepalive.len();
                self.in_flight.take_if(|in_flight| in_flight.sender_index == receiver_index);
                self.is_initiator = true;
                self.established = Some(self.current);
                self.unconfirmed = None;
                self.on_received(now, false);
                Ok(len)
            }
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Keeps a cookie for the next initiation.
    pub(crate) fn handle_cookie(&mut self, message: &[u8], now: Instant, out: &mut [u8]) -> Result<(), DropReason> {
        self.lend(now);
        match self.tunn.decapsulate(None, message, out) {
            TunnResult::Done => {
                self.last_received = self.current;
                Ok(())
            }
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Whether `update_timers` would start a handshake too early: nothing was heard for 15 s, but the first packet that
    /// asks for an answer is younger. Its clock stands still meanwhile, for at most those 15 s, and never over the
    /// moment at which the session is renewed or rejected.
    fn must_hold(&self, now: Instant) -> bool {
        let limit = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT;
        let lifetime = if self.is_initiator { REKEY_AFTER_TIME } else { REJECT_AFTER_TIME };
        self.in_flight.is_none()
            && self.unanswered_since.is_some_and(|at| now.since(at) < limit)
            && now.since(self.last_received) >= limit
            && self.established.is_some_and(|at| now.since(at) < lifetime)
    }

    /// Sets `Tunn`'s clock to `now`, or to just before its retry while that has to wait.
    fn lend(&mut self, now: Instant) -> Instant {
        let lent = match &self.in_flight {
            Some(in_flight) if now < in_flight.retry_at => {
                now.min(in_flight.sent + (REKEY_TIMEOUT - Duration::from_nanos(1)))
            }
            _ => now,
        };
        self.lent = lent.max(self.lent);
        set_clock(self.lent);
        self.lent
    }

    fn on_initiation_sent(&mut self, now: Instant, retry_after: Duration, message: &[u8]) {
        let sender_index = index_at(message, 4);
        self.in_flight = Some(InFlight { sent: self.lent, sender_index, retry_at: now + retry_after });
    }

    fn on_sent(&mut self, now: Instant, is_data: bool) {
        self.owes_answer_since = None;
        if is_data {
            self.last_data_sent = Some(self.current);
            self.unanswered_since.get_or_insert(now);
        }
    }

    fn on_received(&mut self, now: Instant, is_data: bool) {
        self.last_received = self.current;
        self.unanswered_since = None;
        if is_data {
            self.last_data_received = Some(self.current);
            self.owes_answer_since.get_or_insert(now);
        }
    }

    fn give_up(&mut self) -> Due {
        self.has_given_up = true;
        let unanswered = self.in_flight.take().is_some();
        self.established = None;
        self.unanswered_since = None;
        self.owes_answer_since = None;
        Due::Expired { unanswered }
    }
}

fn has_passed(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|at| now.since(at) >= limit)
}

fn index_at(message: &[u8], offset: usize) -> u32 {
    let bytes = message[offset..offset + 4].try_into().expect("a handshake message is longer");
    u32::from_le_bytes(bytes)
}

fn set_clock(now: Instant) {
    MockClock::set_time(now.since_start());
}
