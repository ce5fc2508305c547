//! The seam around boringtun: the engine, with a mirror of what it holds. Only this file, [`super::generation`] and
//! [`super::local_key`] know boringtun's name.
//!
//! boringtun's `Tunn` is a session engine, not a WireGuard device. What the seam adds, and why:
//!
//! * **The caller lends the time**: `Tunn` reads a thread-local clock, which is set before every call that looks at it.
//! * **`Tunn`'s own timers are switched off.** Its current time moves only in `update_timers`, and its rules compare stored
//!   times with it. We move it for handshakes alone ([`Engine::catch_up`]). So sessions get the right time, and data gets
//!   the time of its session, where no rule finds anything overdue. (A handshake message that fails moves it too. The seam
//!   notices what `Tunn` does then.) Its timers would start handshakes too early, because they count 15 s of silence from
//!   the last packet heard, not from the first one that waits for an answer. They would renew sessions although nothing was
//!   sent, and they know neither jitter nor back-off. [`Timers`] has the paper's rules instead.
//! * **Which session sends**, and whether its keys are proven and young enough: a mirror of what `Tunn` holds
//!   ([`super::ring`]). After seven sessions that the peer did not confirm, the next index would overwrite the session in
//!   use. That index goes to an initiation of our own ([`Engine::must_initiate`]).
//! * **A new preshared key, a new key of either side, or a wall clock that was set** requires a new `Tunn`. The sessions of
//!   the earlier one continue beside it ([`Generation`]).
//! * **Counters at the end of their range** are refused before `Tunn` sees them, because it would overflow.
//!
//! The engine leaves out padding (the caller pads the plaintext), allowed IPs, staging, persistent keepalive, and the
//! decision to begin a new handshake after one was given up. The caller does all of these.

use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use overlay_wire::control;
use overlay_wire::wireguard::INITIATION_LEN;

use super::clock::set_clock;
use super::generation::Generation;
use super::outcome::{Content, Opened};
use super::ring::Held;
use super::timers::{REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, Timers, has_passed};
use crate::wall_clock::Origin;
use crate::{DropReason, Instant};

/// The first byte of a handshake initiation, and of a data message.
const INITIATION: u8 = 1;
const DATA: u8 = 4;
/// The size of a buffer that holds any handshake message, in bytes.
const SCRATCH_LEN: usize = 256;
/// The most former engines that keep their sessions.
const MAX_RETIRED: usize = 3;
/// Counters from here on are refused (paper, section 6.5: REJECT_AFTER_MESSAGES).
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The sessions with one peer, as `Tunn` holds them.
pub(super) struct Engine {
    /// Makes all handshakes, with the present keys.
    newest: Box<Generation>,
    /// Former engines, oldest first. They still open messages of their sessions that are in flight, and they seal packets
    /// until there is a newer session. Boxed, because moving them would leave copies of their keys behind.
    retired: Vec<Box<Generation>>,
    /// The time that `Tunn` believes it is: that of the last handshake message.
    current: Instant,
    /// The time that `Tunn` was last lent, and the era of the wall clock in which it was made.
    lent: Instant,
    era: u32,
    /// Since when `Tunn` believes that a handshake of ours is under way, even after we have given it up.
    begun: Option<Instant>,
    /// The sender index of our last initiation, while an answer to it would make a session.
    last_initiation: Option<u32>,
    /// That initiation, so that it can go to other addresses too. `None` for a peer that was never called.
    initiation: Option<Box<[u8; INITIATION_LEN]>>,
    /// When the newest session that both sides are known to have was made.
    completed: Option<Instant>,
    /// The index of the last response that we sent.
    last_answer: Option<u32>,
    /// The newest valid initiation. Older ones are replays.
    newest_initiation: Option<Box<[u8; INITIATION_LEN]>>,
}

impl Engine {
    pub(super) fn new(generation: Box<Generation>, origin: Origin, now: Instant) -> Self {
        Self {
            newest: generation,
            retired: Vec::new(),
            current: now,
            lent: origin.at,
            era: origin.era,
            begun: None,
            last_initiation: None,
            initiation: None,
            completed: None,
            last_answer: None,
            newest_initiation: None,
        }
    }

    /// Makes all handshakes from now on with this `Tunn`. The present one retires with its sessions. An initiation that
    /// is out belongs to the former engine, so only the next one counts.
    pub(super) fn renew(&mut self, newest: Box<Generation>, origin: Origin, timers: &mut Timers, now: Instant) {
        self.retired.push(std::mem::replace(&mut self.newest, newest));
        self.discard_ended(now);
        if self.retired.len() > MAX_RETIRED {
            // Drops the oldest, but not the one that carries all packets while no handshake succeeds.
            let sending = self.retired.iter().rposition(|retired| retired.ring.sending(now).is_some());
            self.retired.remove(usize::from(sending == Some(0)));
        }
        self.lent = origin.at;
        self.era = origin.era;
        self.begun = None;
        self.last_initiation = None;
        self.last_answer = None;
        self.catch_up(timers, now);
        if let Some(initiation) = self.newest_initiation.take() {
            self.remember(&initiation, timers, now);
        }
    }

    /// Restores replay state from the newest initiation of forgotten sessions: that one and older ones are replays. Returns
    /// false if it was made for a different key of ours, which mac1 shows at once.
    pub(super) fn remember(&mut self, initiation: &[u8; INITIATION_LEN], timers: &mut Timers, now: Instant) -> bool {
        // `Tunn` keeps the timestamp of a valid initiation and has no other way to set it. The response is not sent.
        self.catch_up(timers, now);
        let mut out = [0; SCRATCH_LEN];
        let is_good = matches!(self.newest.tunn.decapsulate(None, initiation, &mut out), TunnResult::WriteToNetwork(_));
        if is_good {
            // That made a session that nobody uses. Its keys must be zeroed later.
            timers.on_established(self.current);
            self.newest_initiation = Some(Box::new(*initiation));
        }
        is_good
    }

    /// The newest valid initiation.
    pub(super) fn newest_initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        self.newest_initiation.as_deref()
    }

    /// See [`super::seam::Session::take_newest_initiation`].
    pub(super) fn take_newest_initiation(&mut self) -> Option<Box<[u8; INITIATION_LEN]>> {
        self.newest_initiation.take()
    }

    /// The era of the wall clock in which the engine was made.
    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// The session that packets are sealed in: that of the newest engine that has one.
    pub(super) fn sending(&self, now: Instant) -> Option<Held> {
        self.generations().find_map(|generation| generation.ring.sending(now))
    }

    /// Whether any session has not ended yet.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.generations().any(|generation| generation.ring.is_held(now))
    }

    /// Whether messages may still be opened whose receiver index has these upper 24 bits.
    pub(super) fn uses(&self, index: u32, now: Instant) -> bool {
        self.generations().any(|generation| generation.ring.uses(index, now))
    }

    /// When the first retired engine runs out of sessions.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.retired.iter().filter_map(|retired| retired.ring.ends()).min()
    }

    /// Drops retired engines that have no session left.
    pub(super) fn discard_ended(&mut self, now: Instant) {
        self.retired.retain(|retired| retired.ring.is_held(now));
    }

    /// All engines, from the newest to the oldest.
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&*self.newest).chain(self.retired.iter().rev().map(|retired| &**retired))
    }

    fn generations_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        std::iter::once(&mut *self.newest).chain(self.retired.iter_mut().rev().map(|retired| &mut **retired))
    }

    /// Our last initiation. `None` if the engine that made it has retired.
    pub(super) fn initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        self.initiation.as_deref().filter(|initiation| self.awaits(index_at(*initiation, 4)))
    }

    /// Whether a response with this receiver index would answer our last initiation.
    pub(super) fn awaits(&self, receiver_index: u32) -> bool {
        self.last_initiation == Some(receiver_index)
    }

    /// Writes an initiation to `out`, which begins a handshake or repeats one.
    pub(super) fn initiate(&mut self, timers: &mut Timers, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.catch_up(timers, now);
        self.lend(now);
        let TunnResult::WriteToNetwork(message) = self.newest.tunn.format_handshake_initiation(out, true) else {
            return None;
        };
        let mut len = message.len();
        // The next index may be that of the session in use. A response must never get that one.
        if self.newest.ring.is_threatened_after(index_at(out, 4), now)
            && let TunnResult::WriteToNetwork(message) = self.newest.tunn.format_handshake_initiation(out, true)
        {
            len = message.len();
        }
        self.begun.get_or_insert(self.current);
        self.last_initiation = Some(index_at(out, 4));
        let kept = self.initiation.get_or_insert_with(|| Box::new([0; INITIATION_LEN]));
        kept.copy_from_slice(&out[..INITIATION_LEN]);
        Some(len)
    }

    /// Spends the next index on an initiation that is never sent, if a response with that index would overwrite the session
    /// in use.
    pub(super) fn spend_threatening_index(&mut self, timers: &mut Timers, now: Instant) {
        if self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now)) {
            self.lend(now);
            let mut out = [0; SCRATCH_LEN];
            if let TunnResult::WriteToNetwork(_) = self.newest.tunn.format_handshake_initiation(&mut out, true) {
                self.on_initiation_wasted(&out, timers);
            }
        }
    }

    /// The time that `Tunn` was last lent.
    pub(super) fn lent(&self) -> Instant {
        self.lent
    }

    /// Seals one padded plaintext. `out` must be at least 32 bytes longer. Returns 0 if no session can seal.
    pub(super) fn seal(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let Some(generation) = self.generations_mut().find(|generation| generation.ring.sending(now).is_some()) else {
            // `Tunn` would queue it, or seal it in a session that the peer never confirmed.
            return 0;
        };
        match generation.tunn.encapsulate(plaintext, out) {
            TunnResult::WriteToNetwork(message) if message[0] == DATA => message.len(),
            _ => 0,
        }
    }

    /// Whether packets are sealed in this session.
    pub(super) fn sends_in(&self, receiver_index: u32, now: Instant) -> bool {
        self.sending(now).is_some_and(|held| held.index == receiver_index)
    }

    /// Opens a data message into `out`, which is at least as long as the message.
    pub(super) fn open(
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
            TunnResult::WriteToTunnelV6(packet, _) if control::is_control(packet) => Content::Frame(packet.len()),
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
        let key_number = generation.key_number;
        drop(generations);
        Ok(Opened { content, confirms: self.confirms(confirmed), key_number })
    }

    /// Whether the confirmation of a session that was made at `made` is news.
    fn confirms(&mut self, made: Option<Instant>) -> bool {
        let Some(made) = made else { return false };
        // If both sides began at once, each handshake makes a session. The second one is not news.
        let is_news = self.completed.is_none_or(|at| made > at);
        self.completed = self.completed.max(Some(made));
        is_news
    }

    /// Answers an initiation. The response is the first `len` bytes of `out`.
    pub(super) fn answer(
        &mut self,
        initiation: &[u8],
        timers: &mut Timers,
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        self.catch_up(timers, now);
        match self.newest.tunn.decapsulate(None, initiation, out) {
            TunnResult::WriteToNetwork(response) => {
                let (len, index) = (response.len(), index_at(response, 4));
                self.newest.ring.on_made(index, false, self.current);
                self.newest_initiation = initiation.try_into().ok().map(Box::new);
                self.last_answer = Some(index);
                // `Tunn` sets its own initiation aside when it answers one: a response to ours still counts. The next answer
                // takes the place of what was set aside.
                if self.begun.take().is_none() {
                    self.last_initiation = None;
                }
                timers.on_handshake_over();
                timers.on_established(self.current);
                Ok(len)
            }
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => Err(DropReason::HandshakeReplay),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Whether we must send an initiation to a peer that was just answered. There are two reasons. The peer calls
    /// repeatedly without confirming, and the next response would overwrite the session in use: our own initiation takes
    /// that index. Or `Tunn`'s time stood still for a handshake of ours, so the session made just now seems too old.
    pub(super) fn must_initiate(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now))
            || now.since(self.current) > REKEY_TIMEOUT
    }

    /// Completes a handshake that we began. `Tunn` writes a keepalive to `out`, which the caller does not send: it has data
    /// to send, or seals a keepalive of its own.
    pub(super) fn complete(
        &mut self,
        receiver_index: u32,
        response: &[u8],
        timers: &mut Timers,
        now: Instant,
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        self.catch_up(timers, now);
        match self.newest.tunn.decapsulate(None, response, out) {
            TunnResult::WriteToNetwork(_) => {
                if self.awaits(receiver_index) {
                    self.begun = None;
                    self.last_initiation = None;
                    timers.on_handshake_over();
                }
                self.completed = Some(self.current);
                self.newest.ring.on_made(receiver_index, true, self.current);
                timers.on_established(self.current);
                Ok(())
            }
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// The number of the preshared key that the next handshake is made with.
    pub(super) fn key_number(&self) -> Option<u32> {
        self.newest.key_number
    }

    /// Keeps a cookie for the next initiation.
    pub(super) fn keep_cookie(&mut self, reply: &[u8], now: Instant, out: &mut [u8]) -> Result<(), DropReason> {
        self.lend(now);
        match self.newest.tunn.decapsulate(None, reply, out) {
            TunnResult::Done => Ok(()),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Brings `Tunn`'s own time up to `now`, so that the next session gets this time.
    pub(super) fn catch_up(&mut self, timers: &mut Timers, now: Instant) {
        self.lend(now);
        let is_given_up = has_passed(self.begun, REKEY_ATTEMPT_TIME, now);
        if is_given_up && self.newest.ring.sending(now).is_some() {
            // `Tunn` would drop the session in use together with the handshake that failed. A session made meanwhile seems
            // older than it is: its initiator renews it early, or we do at once ([`Engine::must_initiate`]).
            return;
        }
        if self.begun.is_some() && !is_given_up {
            // Stops just before `Tunn` would repeat the initiation by itself. The timers decide that.
            let limit = timers.initiated() + (REKEY_TIMEOUT - Duration::from_nanos(1));
            self.lent = self.lent.min(limit).max(self.current);
            set_clock(self.lent);
        }
        self.current = self.lent;
        let mut out = [0; SCRATCH_LEN];
        match self.newest.tunn.update_timers(&mut out) {
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.on_keys_forgotten(timers, now),
            TunnResult::WriteToNetwork(message) if message[0] == INITIATION => {
                // A handshake message that failed has moved the time since the session was made, so `Tunn` finds unanswered
                // data.
                self.on_initiation_wasted(&out, timers);
            }
            _ => {}
        }
    }

    /// Records an initiation that is never sent. `Tunn` counts 90 s from it all the same.
    fn on_initiation_wasted(&mut self, message: &[u8], timers: &mut Timers) {
        self.begun.get_or_insert(self.current);
        self.last_initiation = Some(index_at(message, 4));
        timers.on_initiation_wasted(self.lent);
    }

    /// Makes `Tunn` forget all keys, once they are 540 s old.
    pub(super) fn zero(&mut self, timers: &mut Timers, now: Instant) {
        self.lend(now);
        self.current = self.lent;
        let _ = self.newest.tunn.update_timers(&mut [0; SCRATCH_LEN]);
        self.on_keys_forgotten(timers, now);
    }

    fn on_keys_forgotten(&mut self, timers: &mut Timers, now: Instant) {
        self.newest.ring.clear();
        self.begun = None;
        self.last_initiation = None;
        timers.on_keys_forgotten(self.sending(now).is_some(), now);
    }

    /// Sets `Tunn`'s clock. It never runs backwards.
    fn lend(&mut self, now: Instant) {
        self.lent = now.max(self.lent);
        set_clock(self.lent);
    }
}

fn index_at(message: &[u8], offset: usize) -> u32 {
    let bytes = message[offset..offset + 4].try_into().expect("a handshake message is longer");
    u32::from_le_bytes(bytes)
}
