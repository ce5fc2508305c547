//! The timers of the WireGuard paper (section 6) for the sessions with one peer.
//!
//! Callers tell them facts ([`Timers::on_sealed`], [`Timers::on_received`] and so on) and they say what is due. A keepalive
//! is due 10 s after data that nothing else answered. A handshake is due when data got no answer for 15 s; it is repeated
//! with jitter and given up after 90 s. All keys end 540 s after the newest session was made. Renewal by age is not a
//! timer: it is checked whenever something was sent or received ([`super::seam::Session::wants_renewal`]).
//!
//! Left out: persistent keepalive, and whether to call again after a handshake was given up. The peer decides both.

use std::time::Duration;

use crate::Instant;
use crate::instant::earlier;

/// An initiation is repeated after this long without a response (WireGuard paper, section 6.1).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// The random delay added to a retry is at most this (paper, section 6.1: up to a third of a second).
pub(crate) const MAX_JITTER: Duration = Duration::from_millis(333);
/// Attempts end after this long without an answer (paper, section 6.1).
pub(crate) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// The side that began a session older than this begins the next one when it sends (paper, section 6.2).
pub(crate) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// The same limit when that side receives: early enough to finish a handshake before the session ends (paper, section 6.2).
pub(crate) const REKEY_ON_RECEIVE: Duration = Duration::from_secs(180 - 10 - 5);
/// A session older than this carries nothing (paper, section 6.2).
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// All keys are zeroed this long after the last session was made (paper, section 6.3).
const ZEROED_AFTER: Duration = Duration::from_secs(3 * 180);
/// Data that was received is answered with an empty packet after this long (paper, section 6.5).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// When data was last exchanged with one peer, as far as a timer depends on it.
pub(super) struct Timers {
    handshake: Option<Handshake>,
    /// When our last initiation was sent.
    initiated: Instant,
    /// When the newest session was made, confirmed or not.
    established: Option<Instant>,
    /// When the first data was sent since we last heard, and when the first data was heard since we last sent.
    unanswered_since: Option<Instant>,
    owes_answer_since: Option<Instant>,
    /// How much longer than 15 s to wait for an answer. Drawn anew each time.
    jitter: Duration,
}

/// A handshake of ours that is under way.
struct Handshake {
    /// When its first initiation was sent.
    began: Instant,
    retry_at: Instant,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Nothing,
    /// Data was received, and we owe the peer an answer.
    Keepalive,
    /// A handshake must begin, or its initiation must be repeated.
    Initiation,
    /// The handshake got no answer for 90 s. It is over.
    Handshake,
    /// No session was made for 540 s.
    Keys,
}

impl Timers {
    /// `initiated`: a moment at which no initiation had been sent yet.
    pub(super) fn new(initiated: Instant) -> Self {
        Self {
            handshake: None,
            initiated,
            established: None,
            unanswered_since: None,
            owes_answer_since: None,
            jitter: Duration::ZERO,
        }
    }

    /// Returns what is due by `now`, one thing at a time. `is_alive`: packets can be sealed. `jitter` applies to the next
    /// data sent.
    pub(super) fn poll(&mut self, is_alive: bool, jitter: Duration, now: Instant) -> Expired {
        if self.unanswered_since.is_none() {
            self.jitter = jitter;
        }
        if has_passed(self.owes_answer_since, KEEPALIVE_TIMEOUT, now) {
            self.owes_answer_since = None;
            if is_alive {
                return Expired::Keepalive;
            }
        }
        if has_passed(self.established, ZEROED_AFTER, now) {
            return Expired::Keys;
        }
        match &self.handshake {
            Some(handshake) if now.since(handshake.began) >= REKEY_ATTEMPT_TIME => {
                self.handshake = None;
                Expired::Handshake
            }
            Some(handshake) if now >= handshake.retry_at => Expired::Initiation,
            Some(_) => Expired::Nothing,
            None if self.silence_ends().is_some_and(|at| now >= at) => {
                self.unanswered_since = None;
                Expired::Initiation
            }
            None => Expired::Nothing,
        }
    }

    /// When [`Timers::poll`] next has something to return.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let owed = self.owes_answer_since.map(|at| at + KEEPALIVE_TIMEOUT);
        let zeroed = self.established.map(|at| at + ZEROED_AFTER);
        let handshake = match &self.handshake {
            Some(handshake) => Some(handshake.retry_at),
            None => self.silence_ends(),
        };
        earlier(earlier(owed, zeroed), handshake)
    }

    /// Whether a handshake is to be begun or repeated.
    pub(super) fn is_call_due(&self, now: Instant) -> bool {
        let at = self.handshake.as_ref().map_or_else(|| self.silence_ends(), |handshake| Some(handshake.retry_at));
        at.is_some_and(|at| now >= at)
    }

    /// When data has waited too long for an answer and a handshake is due: after 15 s plus jitter, but no earlier than 5 s
    /// after the last initiation.
    fn silence_ends(&self) -> Option<Instant> {
        let unanswered = self.unanswered_since? + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self.jitter;
        Some(unanswered.max(self.initiated + REKEY_TIMEOUT))
    }

    /// When our last initiation was sent.
    pub(super) fn initiated(&self) -> Instant {
        self.initiated
    }

    /// Whether a handshake of ours is under way.
    pub(super) fn is_initiating(&self) -> bool {
        self.handshake.is_some()
    }

    /// When the initiation that is out is repeated.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.handshake.as_ref().map(|handshake| handshake.retry_at)
    }

    /// Whether we sent data that the peer has to answer.
    pub(super) fn is_owed_answer(&self) -> bool {
        self.unanswered_since.is_some()
    }

    /// Whether a handshake begins by itself by `at`, because data goes unanswered.
    pub(super) fn will_call_by(&self, at: Instant) -> bool {
        self.handshake.is_none() && self.silence_ends().is_some_and(|ends| ends <= at)
    }

    /// Requests an initiation as soon as the last one is 5 s old.
    pub(super) fn initiate_soon(&mut self, now: Instant) {
        let retry_at = now.max(self.initiated + REKEY_TIMEOUT);
        self.handshake.get_or_insert(Handshake { began: now, retry_at });
    }

    /// Repeats an initiation that had backed off `retry_after` after it was sent, because something now waits for the peer.
    pub(super) fn hasten(&mut self, retry_after: Duration) {
        if let Some(handshake) = &mut self.handshake
            && handshake.retry_at > self.initiated + REKEY_TIMEOUT + MAX_JITTER
        {
            handshake.retry_at = self.initiated + retry_after;
        }
    }

    /// Records an initiation that was made at `now`, or `lent` on the engine's clock. It is repeated after `retry_after`.
    pub(super) fn on_initiated(&mut self, lent: Instant, retry_after: Duration, now: Instant) {
        let began = self.handshake.as_ref().map_or(now, |handshake| handshake.began);
        self.handshake = Some(Handshake { began, retry_at: now + retry_after });
        self.initiated = lent;
    }

    /// Records an initiation of the engine that is never sent.
    pub(super) fn on_initiation_wasted(&mut self, lent: Instant) {
        self.initiated = lent;
    }

    /// Records that our handshake was answered, or that the peer's replaced it.
    pub(super) fn on_handshake_over(&mut self) {
        self.handshake = None;
    }

    /// Records that a session was made, confirmed or not.
    pub(super) fn on_established(&mut self, made: Instant) {
        self.established = Some(made);
    }

    /// Records that a message was sealed, which answers what was received. `is_owed_answer`: it was data, which the peer
    /// has to answer.
    pub(super) fn on_sealed(&mut self, is_owed_answer: bool, now: Instant) {
        self.owes_answer_since = None;
        if is_owed_answer {
            self.unanswered_since.get_or_insert(now);
        }
    }

    /// Records that a response was sent, which answers what was received.
    pub(super) fn on_answered(&mut self) {
        self.owes_answer_since = None;
    }

    /// Records that something authentic was received.
    pub(super) fn on_received(&mut self, is_data: bool, now: Instant) {
        self.unanswered_since = None;
        if is_data {
            self.owes_answer_since.get_or_insert(now);
        }
    }

    /// Records that the engine forgot all keys and the handshake under way. A handshake that is still wanted begins again.
    /// `is_alive`: an earlier engine can still seal.
    pub(super) fn on_keys_forgotten(&mut self, is_alive: bool, now: Instant) {
        self.established = None;
        if !is_alive {
            self.unanswered_since = None;
            self.owes_answer_since = None;
        }
        if let Some(handshake) = &mut self.handshake {
            handshake.retry_at = now.max(self.initiated + REKEY_TIMEOUT);
        }
    }
}

/// Whether at least `limit` has passed since `since`.
pub(super) fn has_passed(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|at| now.since(at) >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(1_000 + seconds))
    }

    fn timers() -> Timers {
        Timers::new(at(0))
    }

    /// Collects everything that expires until `end`, with the second at which it does. An initiation is repeated every five
    /// seconds.
    fn expired(timers: &mut Timers, is_alive: bool, end: u64) -> Vec<(u64, Expired)> {
        let mut seen = Vec::new();
        for second in 0..=end {
            while timers.deadline().is_some_and(|due| due <= at(second)) {
                match timers.poll(is_alive, Duration::ZERO, at(second)) {
                    Expired::Nothing => break,
                    Expired::Initiation => {
                        timers.on_initiated(at(second), REKEY_TIMEOUT, at(second));
                        seen.push((second, Expired::Initiation));
                    }
                    Expired::Keys => {
                        timers.on_keys_forgotten(false, at(second));
                        seen.push((second, Expired::Keys));
                    }
                    other => seen.push((second, other)),
                }
            }
        }
        seen
    }

    #[test]
    fn each_fact_makes_its_own_thing_due() {
        type Fact = fn(&mut Timers);
        type Row = (&'static str, Fact, bool, Option<(u64, Expired)>);
        let table: [Row; 7] = [
            ("nothing happened", |_| {}, true, None),
            ("data came", |t| t.on_received(true, at(0)), true, Some((10, Expired::Keepalive))),
            ("data came, no session", |t| t.on_received(true, at(0)), false, None),
            ("an empty packet came", |t| t.on_received(false, at(0)), true, None),
            ("data went", |t| t.on_sealed(true, at(0)), true, Some((15, Expired::Initiation))),
            ("a keepalive went", |t| t.on_sealed(false, at(0)), true, None),
            ("a session was made", |t| t.on_established(at(0)), true, Some((540, Expired::Keys))),
        ];
        for (case, fact, is_alive, first) in table {
            let mut timers = timers();
            fact(&mut timers);
            assert_eq!(expired(&mut timers, is_alive, 600).first().copied(), first, "{case}");
        }
    }

    #[test]
    fn a_handshake_is_repeated_every_5_seconds_and_given_up_after_90() {
        let mut timers = timers();
        timers.initiate_soon(at(7));
        let seen = expired(&mut timers, false, 200);
        let initiations = seen.iter().filter(|(_, what)| *what == Expired::Initiation).count();
        assert_eq!((initiations, seen.last().copied()), (18, Some((97, Expired::Handshake))));
        assert!(!timers.is_initiating());
    }

    #[test]
    fn an_answer_of_either_kind_ends_what_was_due() {
        let mut timers = timers();
        timers.on_sealed(true, at(0));
        timers.on_received(true, at(1));
        timers.on_sealed(false, at(2));
        assert_eq!(timers.deadline(), None);
        timers.initiate_soon(at(7));
        timers.on_handshake_over();
        assert_eq!(timers.deadline(), None);
    }

    #[test]
    fn a_handshake_waits_until_the_last_initiation_is_5_seconds_old() {
        let mut timers = timers();
        timers.on_initiation_wasted(at(14));
        timers.on_sealed(true, at(0));
        assert_eq!(timers.deadline(), Some(at(19)));
        timers.initiate_soon(at(15));
        assert_eq!(timers.retry_at(), Some(at(19)));
    }

    #[test]
    fn a_handshake_that_backed_off_is_hastened_and_one_that_did_not_is_left_alone() {
        for (retry_after, retry_at) in [(25, 5), (5, 5)] {
            let mut timers = timers();
            timers.on_initiated(at(0), Duration::from_secs(retry_after), at(0));
            timers.hasten(REKEY_TIMEOUT);
            assert_eq!(timers.retry_at(), Some(at(retry_at)));
        }
    }

    #[test]
    fn keys_that_are_forgotten_take_the_debts_with_them_unless_an_earlier_engine_seals() {
        for (is_alive, owed) in [(false, false), (true, true)] {
            let mut timers = timers();
            timers.on_established(at(0));
            timers.on_sealed(true, at(539));
            timers.on_keys_forgotten(is_alive, at(540));
            assert_eq!((timers.is_owed_answer(), timers.established), (owed, None));
        }
    }
}
