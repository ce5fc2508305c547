//! The seam around boringtun: the engine, with a mirror of what it holds. Only this file, [`super::generation`] and
//! [`super::local_key`] know boringtun's name.
//!
//! boringtun's `Tunn` is a session engine, not a WireGuard device. What the seam adds, and why:
//!
//! * **Time is lent**: `Tunn` reads a thread-local clock that is set before every call that looks at it.
//! * **`Tunn`'s own timers are switched off.** Its idea of the current time moves only in `update_timers`, and its rules
//!   compare what was stamped with that time. It is moved for handshakes alone ([`Engine::catch_up`]), so that sessions are
//!   stamped right and data is stamped like the session it went through, where no rule finds anything overdue. (A handshake
//!   message that fails moves it too; what `Tunn` does then is taken note of.) Its timers would start handshakes too early
//!   (it counts 15 s of silence from the last packet heard, not from the first that waits for an answer), renew without
//!   anything sent, and know neither jitter nor back-off. [`Timers`] has the paper's rules instead.
//! * **Which session sends**, and whether its keys are proven and young enough: a mirror of what `Tunn` holds
//!   ([`super::ring`]). The one index whose session would overwrite the one in use, after seven that the peer did not confirm,
//!   goes to an initiation of our own ([`Engine::must_initiate`]).
//! * **A new preshared key, a new key of either side, or a wall clock that was set,** takes a new `Tunn`. The sessions of the
//!   earlier one go on beside it ([`Generation`]).
//! * **Counters at the end of their range** are refused before `Tunn` sees them: it would overflow.
//!
//! What it leaves out: padding (the caller's plaintext is padded), allowed IPs, staging, persistent keepalive, and
//! who wants a handshake after one was given up. All of these are the caller's.

use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use overlay_wire::wireguard::INITIATION_LEN;

use super::clock::set_clock;
use super::generation::Generation;
use super::outcome::{Content, Opened};
use super::ring::Held;
use super::timers::{REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, Timers, has_passed};
use crate::wall_clock::Origin;
use crate::{DropReason, Instant};

/// First byte of a handshake initiation, and of a data message.
const INITIATION: u8 = 1;
const DATA: u8 = 4;
/// Room for every handshake message.
const SCRATCH_LEN: usize = 256;
/// How many former engines keep their sessions.
const MAX_RETIRED: usize = 3;
/// Counters from here on are refused (paper, section 6.5: REJECT_AFTER_MESSAGES).
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The sessions with one peer, as `Tunn` has them.
pub(super) struct Engine {
    /// Makes all handshakes, with the present keys.
    newest: Box<Generation>,
    /// Former engines, oldest first: what is on its way in their sessions is still opened, and packets are sealed in
    /// them until there is a newer one. Boxed: moved, they would leave copies of their keys behind.
    retired: Vec<Box<Generation>>,
    /// What `Tunn` believes the time to be: that of the last handshake message.
    current: Instant,
    /// The clock it was last lent, and the era of the wall clock that it was made in.
    lent: Instant,
    era: u32,
    /// Since when `Tunn` believes a handshake of ours to be under way, also after we have given it up.
    begun: Option<Instant>,
    /// The sender index of our last initiation.
    last_initiation: Option<u32>,
    /// That initiation, so that it can go to other addresses too. A peer that is never called has none.
    initiation: Option<Box<[u8; INITIATION_LEN]>>,
    /// When the newest session was made of those that both sides are known to have.
    completed: Option<Instant>,
    /// The index of the last response that we sent.
    last_answer: Option<u32>,
    /// The newest initiation that was good: older ones are replays.
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

    /// Makes all handshakes from now on with this `Tunn`. The present one retires with its sessions. An initiation that is out
    /// was its own: the next one counts.
    pub(super) fn renew(&mut self, newest: Box<Generation>, origin: Origin, timers: &mut Timers, now: Instant) {
        self.retired.push(std::mem::replace(&mut self.newest, newest));
        self.discard_ended(now);
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
        self.catch_up(timers, now);
        if let Some(initiation) = self.newest_initiation.take() {
            self.remember(&initiation, timers, now);
        }
    }

    /// Takes in the newest initiation of sessions that were forgotten: it, and older ones, are replays. False: it was made
    /// for a different key of ours, which mac1 tells at once.
    pub(super) fn remember(&mut self, initiation: &[u8; INITIATION_LEN], timers: &mut Timers, now: Instant) -> bool {
        // `Tunn` keeps the timestamp of a good initiation and gives no other way to set it. Nobody gets the answer.
        self.catch_up(timers, now);
        let mut out = [0; SCRATCH_LEN];
        let is_good = matches!(self.newest.tunn.decapsulate(None, initiation, &mut out), TunnResult::WriteToNetwork(_));
        if is_good {
            // That made a session which nobody knows and whose keys are to be zeroed one day.
            timers.on_established(self.current);
            self.newest_initiation = Some(Box::new(*initiation));
        }
        is_good
    }

    /// Whether there is an initiation older than which all are replays.
    pub(super) fn remembers(&self) -> bool {
        self.newest_initiation.is_some()
    }

    /// See [`super::seam::Session::take_newest_initiation`].
    pub(super) fn take_newest_initiation(&mut self) -> Option<Box<[u8; INITIATION_LEN]>> {
        self.newest_initiation.take()
    }

    /// The era of the wall clock that it was made in.
    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// The session that packets are sealed in: the newest engine's that has one.
    pub(super) fn sending(&self, now: Instant) -> Option<Held> {
        self.generations().find_map(|generation| generation.ring.sending(now))
    }

    /// Whether any session has not ended.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.generations().any(|generation| generation.ring.is_held(now))
    }

    /// Whether messages may still be opened whose receiver index has these upper 24 bits.
    pub(super) fn uses(&self, index: u32, now: Instant) -> bool {
        self.generations().any(|generation| generation.ring.uses(index, now))
    }

    /// When the first of the retired engines has no session any more.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.retired.iter().filter_map(|retired| retired.ring.ends()).min()
    }

    /// Drops retired engines that have no session any more.
    pub(super) fn discard_ended(&mut self, now: Instant) {
        self.retired.retain(|retired| retired.ring.is_held(now));
    }

    /// From the newest to the oldest.
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&*self.newest).chain(self.retired.iter().rev().map(|retired| &**retired))
    }

    fn generations_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        std::iter::once(&mut *self.newest).chain(self.retired.iter_mut().rev().map(|retired| &mut **retired))
    }

    /// Our last initiation, unless the engine that made it has retired.
    pub(super) fn initiation(&self) -> Option<&[u8; INITIATION_LEN]> {
        self.initiation.as_deref().filter(|initiation| self.awaits(index_at(*initiation, 4)))
    }

    /// Whether a response that bears this receiver index would answer our last initiation.
    pub(super) fn awaits(&self, receiver_index: u32) -> bool {
        self.last_initiation == Some(receiver_index)
    }

    /// Writes an initiation to `out`: begins a handshake, or repeats one.
    pub(super) fn initiate(&mut self, timers: &mut Timers, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.catch_up(timers, now);
        self.lend(now);
        let TunnResult::WriteToNetwork(message) = self.newest.tunn.format_handshake_initiation(out, true) else {
            return None;
        };
        let mut len = message.len();
        // The index after it may be that of the session in use: a response is never given that one.
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

    /// Spends the next index where a response would overwrite the session in use with it: on an initiation that nobody gets.
    pub(super) fn spend_threatening_index(&mut self, timers: &mut Timers, now: Instant) {
        if self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now)) {
            self.lend(now);
            let mut out = [0; SCRATCH_LEN];
            if let TunnResult::WriteToNetwork(_) = self.newest.tunn.format_handshake_initiation(&mut out, true) {
                self.on_initiation_wasted(&out, timers);
            }
        }
    }

    /// The clock that `Tunn` was last lent.
    pub(super) fn lent(&self) -> Instant {
        self.lent
    }

    /// Seals one padded plaintext; `out` holds at least 32 bytes more. Returns 0 where no session seals.
    pub(super) fn seal(&mut self, plaintext: &[u8], now: Instant, out: &mut [u8]) -> usize {
        let Some(generation) = self.generations_mut().find(|generation| generation.ring.sending(now).is_some()) else {
            // `Tunn` would queue it, or send it in a session that was never confirmed.
            return 0;
        };
        match generation.tunn.encapsulate(plaintext, out) {
            TunnResult::WriteToNetwork(message) if message[0] == DATA => message.len(),
            _ => 0,
        }
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
                // `Tunn` forgets an initiation of its own when it answers one: its response still counts.
                self.begun = None;
                timers.on_handshake_over();
                timers.on_established(self.current);
                Ok(len)
            }
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => Err(DropReason::HandshakeReplay),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Whether it is time to call a peer that has just been answered: the next response would overwrite the session in
    /// use, because the peer calls and calls and does not confirm, and our own initiation takes that index; or `Tunn`'s
    /// time stood still for a handshake of ours, and the session made just now seems too old.
    pub(super) fn must_initiate(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|index| self.newest.ring.is_threatened_after(index, now))
            || now.since(self.current) > REKEY_TIMEOUT
    }

    /// Completes a handshake that we began. `Tunn` writes a keepalive to `out`; the caller has something better, or seals
    /// its own.
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

    /// Keeps a cookie for the next initiation.
    pub(super) fn keep_cookie(&mut self, reply: &[u8], now: Instant, out: &mut [u8]) -> Result<(), DropReason> {
        self.lend(now);
        match self.newest.tunn.decapsulate(None, reply, out) {
            TunnResult::Done => Ok(()),
            _ => Err(DropReason::HandshakeForged),
        }
    }

    /// Brings `Tunn`'s own time up to `now`, so that the session made next is stamped with it.
    pub(super) fn catch_up(&mut self, timers: &mut Timers, now: Instant) {
        self.lend(now);
        let is_given_up = has_passed(self.begun, REKEY_ATTEMPT_TIME, now);
        if is_given_up && self.newest.ring.sending(now).is_some() {
            // `Tunn` would drop the session in use with the handshake that failed. What is made meanwhile seems older
            // than it is: renewed early by whoever began it, or by us at once ([`Engine::must_initiate`]).
            return;
        }
        if self.begun.is_some() && !is_given_up {
            // Just before `Tunn` would repeat the initiation on its own: that is not its to decide.
            let limit = timers.initiated() + (REKEY_TIMEOUT - Duration::from_nanos(1));
            self.lent = self.lent.min(limit).max(self.current);
            set_clock(self.lent);
        }
        self.current = self.lent;
        let mut out = [0; SCRATCH_LEN];
        match self.newest.tunn.update_timers(&mut out) {
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.on_keys_forgotten(timers, now),
            TunnResult::WriteToNetwork(message) if message[0] == INITIATION => {
                // A handshake message that failed has moved the time since the session was made, and `Tunn` finds data
                // unanswered.
                self.on_initiation_wasted(&out, timers);
            }
            _ => {}
        }
    }

    /// Nobody gets this initiation, but `Tunn` counts 90 s from it.
    fn on_initiation_wasted(&mut self, message: &[u8], timers: &mut Timers) {
        self.begun.get_or_insert(self.current);
        self.last_initiation = Some(index_at(message, 4));
        timers.on_initiation_wasted(self.lent);
    }

    /// Makes `Tunn` forget all keys, which are 540 s old.
    pub(super) fn zero(&mut self, timers: &mut Timers, now: Instant) {
        self.lend(now);
        self.current = self.lent;
        let _ = self.newest.tunn.update_timers(&mut [0; SCRATCH_LEN]);
        self.on_keys_forgotten(timers, now);
    }

    fn on_keys_forgotten(&mut self, timers: &mut Timers, now: Instant) {
        self.newest.ring.clear();
        self.begun = None;
        timers.on_keys_forgotten(self.sending(now).is_some(), now);
    }

    /// Sets `Tunn`'s clock, which never runs backwards.
    fn lend(&mut self, now: Instant) {
        self.lent = now.max(self.lent);
        set_clock(self.lent);
    }
}

fn index_at(message: &[u8], offset: usize) -> u32 {
    let bytes = message[offset..offset + 4].try_into().expect("a handshake message is longer");
    u32::from_le_bytes(bytes)
}
