//! The seam around boringtun: the only place that knows its name.
//!
//! boringtun's `Tunn` is a session engine, not a WireGuard device. What the seam adds, and why:
//!
//! * **Time is lent**: `Tunn` reads a thread-local clock that is set before every call that looks at it.
//! * **`Tunn`'s own timers are switched off.** Its idea of the current time moves only in `update_timers`, and its rules
//!   compare what was stamped with that time. It is moved for handshakes alone ([`Session::catch_up`]), so that sessions are
//!   stamped right and data is stamped like the session it went through, where no rule finds anything overdue. (A handshake
//!   message that fails moves it too; what `Tunn` does then is taken note of.) Its timers would start handshakes too early
//!   (it counts 15 s of silence from the last packet heard, not from the first that waits for an answer), renew without
//!   anything sent, and know neither jitter nor back-off.
//! * **The paper's timers** (section 6) stand here instead: renewal after 120 s by sending and 165 s by receiving,
//!   keepalives included; an answer to data within 10 s; a handshake after 15 s without one, repeated with jitter and given
//!   up after 90 s; keys zeroed after 540 s; and a next deadline for all of it.
//! * **Which session sends**, and whether its keys are proven and young enough: a mirror of what `Tunn` holds ([`Ring`]).
//!   The one index whose session would overwrite the one in use, after seven that the peer did not confirm, goes to an
//!   initiation of our own ([`Session::must_initiate`]).
//! * **Another preshared key, or a wall clock that was set,** takes another `Tunn`: the sessions of the one before go on
//!   beside it ([`Generation`]).
//! * **Counters at the end of their range** are refused before `Tunn` sees them: it would overflow.
//!
//! What it leaves out: padding (the caller's plaintext is padded), allowed IPs, staging, persistent keepalive, and
//! who wants a handshake after one was given up. All of these are the caller's.

mod clock;
mod generation;
mod initiation;
mod local_key;
mod outcome;
mod ring;

use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use overlay_wire::wireguard::INITIATION_LEN;

use self::clock::set_clock;
use self::generation::Generation;
pub(crate) use self::local_key::{Gate, LocalKey};
pub(crate) use self::outcome::{Content, Due, Opened};
use self::ring::Held;
use crate::wall_clock::Origin;
use crate::{DropReason, Instant, PeerKey};

/// An initiation is repeated after this long without a response (WireGuard paper, section 6.1).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries are spread over this much more (paper, section 6.1: up to a third of a second).
pub(crate) const MAX_JITTER: Duration = Duration::from_millis(333);
/// Attempts end after this long without an answer (paper, section 6.1).
pub(crate) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Whoever began a session older than this begins the next one when it sends (paper, section 6.2).
pub(crate) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// The same when it receives: early enough that a handshake is done before the session ends (paper, section 6.2).
pub(crate) const REKEY_ON_RECEIVE: Duration = Duration::from_secs(180 - 10 - 5);
/// A session older than this carries nothing (paper, section 6.2).
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// All keys are zeroed this long after the last session was made (paper, section 6.3).
const ZEROED_AFTER: Duration = Duration::from_secs(3 * 180);
/// First byte of a handshake initiation, and of a data message.
const INITIATION: u8 = 1;
const DATA: u8 = 4;
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for every handshake message.
const SCRATCH_LEN: usize = 256;
/// Of this many preshared keys of before, at most, sessions go on.
const MAX_RETIRED: usize = 3;
/// Counters from here on are refused (paper, section 6.5: REJECT_AFTER_MESSAGES).
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The sessions with one peer, and the handshake that makes the next one.
pub(crate) struct Session {
    /// Those under the preshared key of now, where all handshakes are made.
    newest: Box<Generation>,
    /// Those under keys of before, oldest first: what is on its way in them is opened still, and packets are sealed in
    /// them until there is a newer one. Boxed: moved, they would leave copies of their keys behind.
    retired: Vec<Box<Generation>>,
    /// What `Tunn` believes the time to be: that of the last handshake message.
    current: Instant,
    /// The clock it was last lent, and the era of the wall clock that it was made in.
    lent: Instant,
    era: u32,
    in_flight: Option<InFlight>,
    /// Since when `Tunn` believes a handshake of ours to be under way, also after we have given it up.
    begun: Option<Instant>,
    /// When our last initiation was sent, and its sender index.
    sent: Instant,
    last_initiation: Option<u32>,
    /// That initiation, so that it can go to other addresses too. A peer that is never called has none.
    initiation: Option<Box<[u8; INITIATION_LEN]>>,
    /// When the newest session was made, confirmed or not.
    established: Option<Instant>,
    /// When the newest session was made of those that both sides are known to have.
    completed: Option<Instant>,
    /// The index of the last response that we sent.
    last_answer: Option<u32>,
    /// The newest initiation that was good: older ones are replays.
    newest_initiation: Option<Box<[u8; INITIATION_LEN]>>,
    /// The first data sent since we last heard, and the first data heard since we last sent.
    unanswered_since: Option<Instant>,
    owes_answer_since: Option<Instant>,
    /// How much longer than 15 s to wait for an answer: drawn anew each time.
    jitter: Duration,
}

/// An initiation that is out.
struct InFlight {
    /// When the first one of this handshake was sent.
    began: Instant,
    retry_at: Instant,
}

impl Session {
    /// `index`: 24 bits, random, not used by another session of this node.
    pub(crate) fn new(
        local: &LocalKey,
        peer: PeerKey,
        preshared_key: Option<&[u8; 32]>,
        index: u32,
        origin: Origin,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            newest: Generation::new(local, peer, preshared_key, index, origin),
            retired: Vec::new(),
            current: now,
            lent: origin.at,
            era: origin.era,
            in_flight: None,
            begun: None,
            sent: origin.at,
            last_initiation: None,
            initiation: None,
            established: None,
            completed: None,
            last_answer: None,
            newest_initiation: None,
            unanswered_since: None,
            owes_answer_since: None,
            jitter: Duration::ZERO,
        };
        session.catch_up(now);
        session
    }

    /// Makes all handshakes from now on with this preshared key and from this origin; the others are as in
    /// [`Session::new`]. What sessions there are go on until they end. An initiation that is out was the other engine's:
    /// the next one counts.
    pub(crate) fn renew_engine(
        &mut self,
        local: &LocalKey,
        peer: PeerKey,
        preshared_key: Option<&[u8; 32]>,
        index: u32,
        origin: Origin,
        now: Instant,
    ) {
        let newest = Generation::new(local, peer, preshared_key, index, origin);
        self.retired.push(std::mem::replace(&mut self.newest, newest));
        self.retired.retain(|retired| retired.ring.is_held(now));
        if self.retired.len() > MAX_RETIRED {
            // The oldest, but not the one that carries everything because no handshake succeeds.
            let sending = self.retired.iter().rposition(|retired| retired.ring.sending(now).is_some());
            self.retired.remove(usize::from(sending == Some(0)));
        }
        self.lent = origin.at;
        self.era = origin.era;
        self.begun = None;
        self.last_initiation = None;
        self.last_answer = None;
        self.catch_up(now);
        if let Some(initiation) = self.newest_initiation.take() {
            self.remember(&initiation, now);
        }
    }

    /// Takes in the newest initiation of sessions that were forgotten: it, and older ones, are replays. False: it was made
    /// for another key of ours, which mac1 tells at once.
    pub(crate) fn remember(&mut self, initiation: &[u8; INITIATION_LEN], now: Instant) -> bool {
        // `Tunn` keeps the timestamp of a good initiation and gives no other way to set it. Nobody gets the answer.
        self.catch_up(now);
        let mut out = [0; SCRATCH_LEN];
        let is_good = matches!(self.newest.tunn.decapsulate(None, initiation, &mut out), TunnResult::WriteToNetwork(_));
        if is_good {
            // That made a session which nobody knows and whose keys are to be zeroed one day.
            self.established = Some(self.current);
            self.newest_initiation = Some(Box::new(*initiation));
        }
        is_good
    }

    /// Whether there is an initiation older than which all are replays.
    pub(crate) fn remembers(&self) -> bool {
        self.newest_initiation.is_some()
    }

    /// What [`Session::remember`] needs of this one, which is over. Taken out of it where it lies: moved, it would leave a
    /// copy of its keys behind.
    pub(crate) fn take_newest_initiation(&mut self) -> Option<Box<[u8; INITIATION_LEN]>> {
        self.newest_initiation.take()
    }

    /// Whether the wall clock was set since the engine was made and another one can take over: not while an initiation is
    /// out that may still be answered.
    pub(crate) fn is_outdated(&self, era: u32, now: Instant) -> bool {
        self.era != era && self.in_flight.as_ref().is_none_or(|in_flight| now >= in_flight.retry_at)
    }

    /// Whether packets can be sealed now.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        self.sending(now).is_some()
    }

    /// Whether something may still come of it without another handshake being begun.
    pub(crate) fn is_in_use(&self, now: Instant) -> bool {
        self.in_flight.is_some() || self.generations().any(|generation| generation.ring.is_held(now))
    }

    /// Whether messages may still be opened whose receiver index has these upper 24 bits.
    pub(crate) fn uses(&self, index: u32, now: Instant) -> bool {
        self.generations().any(|generation| generation.ring.uses(index, now))
    }

    /// The session that packets are sealed in: of the newest key that there is one of.
    fn sending(&self, now: Instant) -> Option<Held> {
        self.generations().find_map(|generation| generation.ring.sending(now))
    }

    /// From the newest to the oldest.
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&*self.newest).chain(self.retired.iter().rev().map(|retired| &**retired))
    }

    fn generations_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        std::iter::once(&mut *self.newest).chain(self.retired.iter_mut().rev().map(|retired| &mut **retired))
    }

    /// The initiation that is out and may still be answered.
    pub(crate) fn initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        let initiation = self.initiation.as_deref()?;
        let is_out = self.in_flight.is_some() && self.last_initiation == Some(index_at(initiation, 4));
        is_out.then_some(initiation)
    }

    /// Whether data was sent that is owed an answer.
    pub(crate) fn is_owed_answer(&self) -> bool {
        self.unanswered_since.is_some()
    }

    /// Whether it begins a handshake by itself until then, because data goes unanswered.
    pub(crate) fn will_call_by(&self, at: Instant) -> bool {
        self.in_flight.is_none() && self.silence_ends().is_some_and(|ends| ends <= at)
    }

    /// Whether we began the session in use and it is older than `age`: time for the next one. The paper asks this
    /// whenever something was sent ([`REKEY_AFTER_TIME`]) and received ([`REKEY_ON_RECEIVE`]), never by a timer.
    pub(crate) fn wants_renewal(&self, age: Duration, now: Instant) -> bool {
        self.in_flight.is_none()
            && self.sending(now).is_some_and(|held| held.is_initiator && now.since(held.made) >= age)
    }

    /// Does what is due by `now`: at most one message, written to `out`. Call before every train and at
    /// [`Session::deadline`]. `pause` and `jitter` together follow an initiation sent here.
    pub(crate) fn advance(&mut self, now: Instant, pause: Duration, jitter: Duration, out: &mut [u8]) -> Due {
        self.retired.retain(|retired| retired.ring.is_held(now));
        if self.unanswered_since.is_none() {
            self.jitter = jitter;
        }
        if has_passed(self.owes_answer_since, KEEPALIVE_TIMEOUT, now) {
            self.owes_answer_since = None;
            if self.is_alive(now) {
                return Due::Keepalive(self.seal(&[], now, out));
            }
        }
        if has_passed(self.established, ZEROED_AFTER, now) {
            self.zero(now);
            return Due::Expired { unanswered: false };
        }
        match &self.in_flight {
            Some(in_flight) if now.since(in_flight.began) >= REKEY_ATTEMPT_TIME => {
                self.in_flight = None;
                self.catch_up(now);
                Due::Expired { unanswered: true }
            }
            Some(in_flight) if now >= in_flight.retry_at => self.repeat(now, pause + jitter, out),
            Some(_) => Due::Nothing,
            None if self.silence_ends().is_some_and(|at| now >= at) => {
                self.unanswered_since = None;
                self.repeat(now, pause + jitter, out)
            }
            None => Due::Nothing,
        }
    }

    /// When [`Session::advance`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let owed = self.owes_answer_since.map(|at| at + KEEPALIVE_TIMEOUT);
        let zeroed = self.established.map(|at| at + ZEROED_AFTER);
        let retired = self.retired.iter().filter_map(|retired| retired.ring.ends()).min();
        let handshake = match &self.in_flight {
            Some(in_flight) => Some(in_flight.retry_at),
            None => self.silence_ends(),
        };
        [owed, zeroed, retired, handshake].into_iter().flatten().min()
    }

    /// When data has waited too long for an answer and a handshake is due: 15 s and jitter, but 5 s after the last
    /// initiation.
    fn silence_ends(&self) -> Option<Instant> {
        let unanswered = self.unanswered_since? + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self.jitter;
        Some(unanswered.max(self.sent + REKEY_TIMEOUT))
    }

    /// Begins a handshake, or repeats one. `retry_after`: when it is repeated without an answer.
    pub(crate) fn initiate(&mut self, now: Instant, retry_after: Duration, out: &mut [u8]) -> Option<usize> {
        self.catch_up(now);
        self.lend(now);
        let TunnResult::WriteToNetwork(message) = self.newest.tunn.format_handshake_initiation(out, true) else {
            return None;
        };
        let len = message.len();
        Some(self.on_initiation_made(len, now, retry_after, out))
    }

    /// Begins a handshake as soon as the last initiation is 5 s old.
    pub(crate) fn initiate_soon(&mut self, now: Instant) {
        let retry_at = now.max(self.sent + REKEY_TIMEOUT);
        self.in_flight.get_or_insert(InFlight { began: now, retry_at });
        if self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now)) {
            // The index cannot wait: an initiation takes it that nobody gets.
            self.lend(now);
            let mut out = [0; SCRATCH_LEN];
            if let TunnResult::WriteToNetwork(_) = self.newest.tunn.format_handshake_initiation(&mut out, true) {
                self.on_initiation_wasted(&out);
            }
        }
    }

    fn repeat(&mut self, now: Instant, retry_after: Duration, out: &mut [u8]) -> Due {
        let len = self.initiate(now, retry_after, out);
        len.map_or(Due::Nothing, |len| Due::Initiation { len, is_repeated: true })
    }

    /// Somebody waits: an initiation that backed off is repeated `retry_after` after it was sent.
    pub(crate) fn hasten(&mut self, retry_after: Duration) {
        if let Some(in_flight) = &mut self.in_flight
            && in_flight.retry_at > self.sent + REKEY_TIMEOUT + MAX_JITTER
        {
            in_flight.retry_at = self.sent + retry_after;
        }
    }

    /// Seals one padded plaintext; `out` holds at least 32 bytes more. Only while [`Session::is_alive`]: answers 0
    /// otherwise.
    pub(crate) fn seal(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let len = self.seal_aside(plaintext, now, out);
        if len > 0 && !plaintext.is_empty() {
            self.unanswered_since.get_or_insert(now);
        }
        len
    }

    /// As [`Session::seal`], for what says nothing about the peer when it is not answered.
    pub(crate) fn seal_aside(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let Some(generation) = self.generations_mut().find(|generation| generation.ring.sending(now).is_some()) else {
            // `Tunn` would queue it, or send it in a session that was never confirmed.
            return 0;
        };
        match generation.tunn.encapsulate(plaintext, out) {
            TunnResult::WriteToNetwork(message) if message[0] == DATA => {
                let len = message.len();
                self.owes_answer_since = None;
                len
            }
            _ => 0,
        }
    }

    /// Opens a data message into `out`, which is at least as long as the message.
    pub(crate) fn open(
        &mut self,
        receiver_index: u32,
        counter: u64,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<Opened, DropReason> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterExhausted);
        }
        let mut generations = self.generations_mut();
        let Some(generation) = generations.find(|generation| generation.ring.accepts(receiver_index, now)) else {
            return Err(DropReason::UnknownReceiver);
        };
        let content = match generation.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToTunnelV4(packet, _) => Content::Packet(packet.len()),
            TunnResult::WriteToTunnelV6(packet, _) => Content::Packet(packet.len()),
            TunnResult::Done => Content::Keepalive,
            TunnResult::Err(WireGuardError::InvalidPacket) => Content::Malformed,
            TunnResult::Err(WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter) => {
                return Err(DropReason::Replay);
            }
            TunnResult::Err(WireGuardError::WrongIndex | WireGuardError::NoCurrentSession) => {
                return Err(DropReason::UnknownReceiver);
            }
            _ => return Err(DropReason::Forged),
        };
        let confirmed = generation.ring.on_opened(receiver_index);
        drop(generations);
        self.on_received(now, matches!(content, Content::Packet(_)));
        Ok(Opened { content, confirms: self.confirms(confirmed) })
    }

    /// Whether a session that was confirmed is news, `made` then.
    fn confirms(&mut self, made: Option<Instant>) -> bool {
        let Some(made) = made else { return false };
        // Where both sides began at once each handshake makes a session; the second one is no news.
        let is_news = self.completed.is_none_or(|at| made > at);
        self.completed = self.completed.max(Some(made));
        is_news
    }

    /// Answers an initiation: the response, `len` bytes of `out`.
    pub(crate) fn handle_initiation(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        self.catch_up(now);
        match self.newest.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToNetwork(response) => {
                let (len, index) = (response.len(), index_at(response, 4));
                self.newest.ring.on_made(index, false, self.current);
                self.newest_initiation = message.try_into().ok().map(Box::new);
                self.last_answer = Some(index);
                // `Tunn` forgets an initiation of its own when it answers one: its response still counts.
                self.in_flight = None;
                self.begun = None;
                self.established = Some(self.current);
                self.on_received(now, false);
                self.owes_answer_since = None;
                Ok(len)
            }
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => Err(DropReason::HandshakeReplay),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Whether it is time to call a peer that has just been answered: the next response would overwrite the session in
    /// use, because the peer calls and calls and does not confirm, and our own initiation takes that index; or `Tunn`'s
    /// time stood still for a handshake of ours, and the session made just now seems too old.
    pub(crate) fn must_initiate(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now))
            || now.since(self.current) > REKEY_TIMEOUT
    }

    /// Completes a handshake that we began. `Tunn` writes a keepalive to `out`; the caller has something better, or seals
    /// its own.
    pub(crate) fn handle_response(
        &mut self,
        receiver_index: u32,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        self.catch_up(now);
        match self.newest.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToNetwork(_) => {
                if self.last_initiation == Some(receiver_index) {
                    self.in_flight = None;
                    self.begun = None;
                }
                self.completed = Some(self.current);
                self.newest.ring.on_made(receiver_index, true, self.current);
                self.established = Some(self.current);
                self.on_received(now, false);
                Ok(())
            }
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Keeps a cookie for the next initiation.
    pub(crate) fn handle_cookie(&mut self, message: &[u8], now: Instant, out: &mut [u8]) -> Result<(), DropReason> {
        self.lend(now);
        match self.newest.tunn.decapsulate(None, message, out) {
            TunnResult::Done => Ok(()),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Brings `Tunn`'s own time up to `now`, so that the session made next is stamped with it.
    fn catch_up(&mut self, now: Instant) {
        self.lend(now);
        let is_given_up = has_passed(self.begun, REKEY_ATTEMPT_TIME, now);
        if is_given_up && self.newest.ring.sending(now).is_some() {
            // `Tunn` would drop the session in use with the handshake that failed. What is made meanwhile seems older
            // than it is: renewed early by whoever began it, or by us at once ([`Session::must_initiate`]).
            return;
        }
        if self.begun.is_some() && !is_given_up {
            // Just before `Tunn` would repeat the initiation on its own: that is not its to decide.
            let limit = self.sent + (REKEY_TIMEOUT - Duration::from_nanos(1));
            self.lent = self.lent.min(limit).max(self.current);
            set_clock(self.lent);
        }
        self.current = self.lent;
        let mut out = [0; SCRATCH_LEN];
        match self.newest.tunn.update_timers(&mut out) {
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.forget(now),
            TunnResult::WriteToNetwork(message) if message[0] == INITIATION => {
                // A handshake message that failed has moved the time since the session was made, and `Tunn` finds data
                // unanswered.
                self.on_initiation_wasted(&out);
            }
            _ => {}
        }
    }

    /// Nobody gets this initiation, but `Tunn` counts 90 s from it.
    fn on_initiation_wasted(&mut self, message: &[u8]) {
        self.begun.get_or_insert(self.current);
        self.sent = self.lent;
        self.last_initiation = Some(index_at(message, 4));
    }

    /// Makes `Tunn` forget all keys, which are 540 s old.
    fn zero(&mut self, now: Instant) {
        self.lend(now);
        self.current = self.lent;
        let _ = self.newest.tunn.update_timers(&mut [0; SCRATCH_LEN]);
        self.forget(now);
    }

    /// `Tunn` has forgotten all keys, and the handshake that was under way. One that is wanted still begins again.
    fn forget(&mut self, now: Instant) {
        self.newest.ring.clear();
        self.begun = None;
        self.established = None;
        if !self.is_alive(now) {
            self.unanswered_since = None;
            self.owes_answer_since = None;
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.retry_at = now.max(self.sent + REKEY_TIMEOUT);
        }
    }

    /// Sets `Tunn`'s clock, which never runs backwards.
    fn lend(&mut self, now: Instant) {
        self.lent = now.max(self.lent);
        set_clock(self.lent);
    }

    /// Takes note of the initiation of `len` bytes in `out`, which becomes another one if the index after it would be
    /// that of the session in use: a response is never given that one.
    fn on_initiation_made(&mut self, len: usize, now: Instant, retry_after: Duration, out: &mut [u8]) -> usize {
        let mut len = len;
        if self.newest.ring.is_threatened_after(index_at(out, 4), now)
            && let TunnResult::WriteToNetwork(message) = self.newest.tunn.format_handshake_initiation(out, true)
        {
            len = message.len();
        }
        let began = self.in_flight.as_ref().map_or(now, |in_flight| in_flight.began);
        self.in_flight = Some(InFlight { began, retry_at: now + retry_after });
        self.begun.get_or_insert(self.current);
        self.sent = self.lent;
        self.last_initiation = Some(index_at(out, 4));
        let kept = self.initiation.get_or_insert_with(|| Box::new([0; INITIATION_LEN]));
        kept.copy_from_slice(&out[..INITIATION_LEN]);
        len
    }

    fn on_received(&mut self, now: Instant, is_data: bool) {
        self.unanswered_since = None;
        if is_data {
            self.owes_answer_since.get_or_insert(now);
        }
    }
}

fn has_passed(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|at| now.since(at) >= limit)
}

fn index_at(message: &[u8], offset: usize) -> u32 {
    let bytes = message[offset..offset + 4].try_into().expect("a handshake message is longer");
    u32::from_le_bytes(bytes)
}
