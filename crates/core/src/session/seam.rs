//! The sessions with one peer, and the handshake that makes the next one: combines the engine and the paper's timers.

use std::time::Duration;

use overlay_wire::control::Frame;
use overlay_wire::wireguard::INITIATION_LEN;

use super::engine::Engine;
use super::generation::{Generation, Keys};
use super::outcome::{Content, Due, Opened};
use super::timers::{Expired, REKEY_TIMEOUT, Timers};
use crate::instant::earlier;
use crate::wall_clock::Origin;
use crate::{DropReason, Instant};

/// The sessions with one peer.
pub(crate) struct Session {
    engine: Engine,
    timers: Timers,
}

impl Session {
    /// `index`: 24 random bits that no other session of this node uses.
    pub(crate) fn new(keys: Keys<'_>, index: u32, origin: Origin, now: Instant) -> Self {
        let mut timers = Timers::new(origin.at);
        let mut engine = Engine::new(Generation::new(keys, index, origin), origin, now);
        engine.catch_up(&mut timers, now);
        Self { engine, timers }
    }

    /// Makes all handshakes from now on with these keys and from this origin. `index` is as in [`Session::new`]. Existing
    /// sessions continue until they end. An initiation that is out belongs to the former engine, so only the next one
    /// counts.
    pub(crate) fn renew_engine(&mut self, keys: Keys<'_>, index: u32, origin: Origin, now: Instant) {
        self.engine.renew(Generation::new(keys, index, origin), origin, &mut self.timers, now);
    }

    /// Restores replay state from the newest initiation of forgotten sessions: that one and older ones are replays. Returns
    /// false if it was made for a different key of ours.
    pub(crate) fn remember(&mut self, initiation: &[u8; INITIATION_LEN], now: Instant) -> bool {
        self.engine.remember(initiation, &mut self.timers, now)
    }

    /// The newest valid initiation.
    pub(crate) fn newest_initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        self.engine.newest_initiation()
    }

    /// Whether replay state exists: an initiation before which all others are replays.
    pub(crate) fn remembers(&self) -> bool {
        self.engine.newest_initiation().is_some()
    }

    /// Takes what [`Session::remember`] needs from a session that is over. Taken in place, because moving the session would
    /// leave a copy of its keys behind.
    pub(crate) fn take_newest_initiation(&mut self) -> Option<Box<[u8; INITIATION_LEN]>> {
        self.engine.take_newest_initiation()
    }

    /// Whether the wall clock was set since the engine was made and a new engine can take over. It cannot while an
    /// initiation is out that may still be answered.
    pub(crate) fn is_outdated(&self, era: u32, now: Instant) -> bool {
        self.engine.era() != era && self.timers.retry_at().is_none_or(|retry_at| now >= retry_at)
    }

    /// Whether packets can be sealed now.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        self.engine.sending(now).is_some()
    }

    /// Whether the session may still be used without a new handshake.
    pub(crate) fn is_in_use(&self, now: Instant) -> bool {
        self.timers.is_initiating() || self.engine.is_held(now)
    }

    /// Whether messages may still be opened whose receiver index has these upper 24 bits.
    pub(crate) fn uses(&self, index: u32, now: Instant) -> bool {
        self.engine.uses(index, now)
    }

    /// Whether [`Session::advance`] sends an initiation now, unless it has something else to do first.
    pub(crate) fn is_call_due(&self, now: Instant) -> bool {
        self.timers.is_call_due(now)
    }

    /// The number of the preshared key that handshakes are made with at present.
    pub(crate) fn key_number(&self) -> Option<u32> {
        self.engine.key_number()
    }

    /// Whether an initiation is out and may still be answered.
    pub(crate) fn is_initiating(&self) -> bool {
        self.timers.is_initiating()
    }

    /// Whether a response with this receiver index would answer our last initiation.
    pub(crate) fn awaits(&self, receiver_index: u32) -> bool {
        self.timers.is_initiating() && self.engine.awaits(receiver_index)
    }

    /// The initiation that is out and may still be answered.
    pub(crate) fn initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        self.engine.initiation().filter(|_| self.timers.is_initiating())
    }

    /// The last initiation, if an answer to it would still make a session. A call of the peer ends ours, but not that.
    pub(crate) fn answerable_initiation(&self, now: Instant) -> Option<&[u8; INITIATION_LEN]> {
        let is_young = now.since(self.timers.initiated()) < REKEY_TIMEOUT;
        self.engine.initiation().filter(|_| is_young || self.timers.is_initiating())
    }

    /// Whether an initiation went unanswered and is to be repeated now.
    pub(crate) fn is_to_repeat(&self, now: Instant) -> bool {
        self.timers.retry_at().is_some_and(|retry_at| now >= retry_at)
    }

    /// Whether we sent data that the peer has to answer.
    pub(crate) fn is_owed_answer(&self) -> bool {
        self.timers.is_owed_answer()
    }

    /// Whether the session begins a handshake by itself by `at`, because data goes unanswered.
    pub(crate) fn will_call_by(&self, at: Instant) -> bool {
        self.timers.will_call_by(at)
    }

    /// Whether we began the session in use and it is older than `age`, so that it must be renewed. The paper checks this
    /// whenever something was sent ([`super::timers::REKEY_AFTER_TIME`]) or received ([`super::timers::REKEY_ON_RECEIVE`]),
    /// never by a timer.
    pub(crate) fn wants_renewal(&self, age: Duration, now: Instant) -> bool {
        !self.timers.is_initiating()
            && self.engine.sending(now).is_some_and(|held| held.is_initiator && now.since(held.made) >= age)
    }

    /// Does what is due by `now`, and writes at most one message to `out`. Call it before every train and at
    /// [`Session::deadline`]. An initiation sent here is repeated after `pause` plus `jitter`.
    pub(crate) fn advance(&mut self, now: Instant, pause: Duration, jitter: Duration, out: &mut [u8]) -> Due {
        self.engine.discard_ended(now);
        match self.timers.poll(self.is_alive(now), jitter, now) {
            Expired::Nothing => Due::Nothing,
            Expired::Keepalive => Due::Keepalive(self.seal(&[], now, out)),
            Expired::Initiation => {
                let len = self.initiate(now, pause + jitter, out);
                len.map_or(Due::Nothing, |len| Due::Initiation { len })
            }
            Expired::Handshake => {
                self.engine.catch_up(&mut self.timers, now);
                Due::Expired { unanswered: true }
            }
            Expired::Keys => {
                self.engine.zero(&mut self.timers, now);
                Due::Expired { unanswered: false }
            }
        }
    }

    /// When [`Session::advance`] next has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        earlier(self.timers.deadline(), self.engine.next_end())
    }

    /// Begins a handshake, or repeats one. `retry_after`: how long until it is repeated if no answer comes.
    pub(crate) fn initiate(&mut self, now: Instant, retry_after: Duration, out: &mut [u8]) -> Option<usize> {
        let len = self.engine.initiate(&mut self.timers, now, out)?;
        self.timers.on_initiated(self.engine.lent(), retry_after, now);
        Some(len)
    }

    /// Begins a handshake as soon as the last initiation is 5 s old.
    pub(crate) fn initiate_soon(&mut self, now: Instant) {
        self.timers.initiate_soon(now);
        // The index must be spent now.
        self.engine.spend_threatening_index(&mut self.timers, now);
    }

    /// Repeats an initiation that had backed off `retry_after` after it was sent, because something now waits for the peer.
    pub(crate) fn hasten(&mut self, retry_after: Duration) {
        self.timers.hasten(retry_after);
    }

    /// Seals one padded plaintext. `out` must be at least 32 bytes longer. Returns 0 unless [`Session::is_alive`].
    pub(crate) fn seal(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let len = self.engine.seal(plaintext, now, out);
        if len > 0 {
            self.timers.on_sealed(!plaintext.is_empty(), now);
        }
        len
    }

    /// Seals a question as [`Session::seal`] does. A question does not show the peer that we hear it, so a keepalive that we
    /// owe is still sent. A live peer may leave it unanswered.
    pub(crate) fn seal_question(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        self.engine.seal(plaintext, now, out)
    }

    /// Seals an answer as [`Session::seal`] does. A live peer may leave it unanswered.
    pub(crate) fn seal_answer(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let len = self.engine.seal(plaintext, now, out);
        if len > 0 {
            self.timers.on_sealed(false, now);
        }
        len
    }

    /// Whether a message with this receiver index came in the session that packets are sealed in, and not in a former one.
    pub(crate) fn sends_in(&self, receiver_index: u32, now: Instant) -> bool {
        self.engine.sends_in(receiver_index, now)
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
        let opened = self.engine.open(receiver_index, counter, message, now, out)?;
        let is_owed_keepalive = match opened.content {
            Content::Packet(_) => true,
            // A question is answered at once. An answer is owed nothing.
            Content::Frame(len) => {
                out.get(..len).is_some_and(|frame| matches!(Frame::parse(frame), Ok(Frame::Fragment { .. })))
            }
            Content::Keepalive | Content::Malformed => false,
        };
        self.timers.on_received(is_owed_keepalive, now);
        Ok(opened)
    }

    /// Answers an initiation. The response is the first `len` bytes of `out`.
    pub(crate) fn handle_initiation(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let len = self.engine.answer(message, &mut self.timers, now, out)?;
        self.timers.on_received(false, now);
        self.timers.on_answered();
        Ok(len)
    }

    /// Whether we must send an initiation to a peer that was just answered.
    pub(crate) fn must_initiate(&self, now: Instant) -> bool {
        self.engine.must_initiate(now)
    }

    /// Completes a handshake that we began. A keepalive is written to `out`, which the caller does not send: it has data to
    /// send, or seals a keepalive of its own.
    pub(crate) fn handle_response(
        &mut self,
        receiver_index: u32,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        self.engine.complete(receiver_index, message, &mut self.timers, now, out)?;
        self.timers.on_received(false, now);
        Ok(())
    }

    /// Keeps a cookie for the next initiation.
    pub(crate) fn handle_cookie(&mut self, message: &[u8], now: Instant, out: &mut [u8]) -> Result<(), DropReason> {
        self.engine.keep_cookie(message, now, out)
    }
}
