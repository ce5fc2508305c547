//! The largest inner packet that one path carries, found by probing (RFC 8899) and never by believing.
//!
//! Its life: a probe of [`BASE`] goes first. Once that is answered the ceiling is tried, then sizes in between: those that
//! links really have, the middle one first, then halves, until the answered size and the smallest failed one lie
//! [`GAP`] apart. A size has failed for the search after three losses. That is quick, and on a lossy path sometimes wrong,
//! so before the search ends the smallest failed size is tried until it was lost eight times; should it be answered
//! after all, the search goes on upwards. Then there is silence, but while large packets are being sent one probe of the
//! current size a second keeps watch, and 600 s later the search is made again from the current size up; sooner when a
//! longer probe of the peer's own arrives. A node that has moved to a new uplink need not notice: the peer does, and searches.
//!
//! A lost watch probe puts the size in doubt. From then on a probe of the current size and one of BASE take turns, and
//! the size falls to BASE, to be searched upwards at once, when so many were lost in a row as are no chance at the loss
//! that this path is seen to have (see `loss`), while BASE was answered after each. When BASE is not answered either, the
//! path is dead or the peer gone: that is no verdict about a size, it is kept, and BASE is tried with back-off until it
//! is answered. So every loss is worth something only once a smaller probe was answered after it. For BASE itself that
//! smaller one is a probe of [`SMALL`], which takes turns with it while it is not answered: a path that carries little
//! but not BASE any more is no dead path, and then nothing is proven.
//!
//! Whose word counts: an answer that names the random id and the size of a probe is a proof, also when it comes late (the
//! probe under way and the last one that expired are known; older ones are forgotten). Our own kernel's refusal is a
//! fact. A router's "too big" may be forged: it only chooses which size is tried next, [`WORDS`] times in one search, and
//! makes the next watch probe due.
//!
//! `DEVIATION:` the probe timer is three smoothed round trips, between 150 ms and 1 s. RFC 8899 section 5.1.1 wants at
//! least 1 s, because a transport's probe competes with its own retransmissions; here a probe too early costs one
//! packet, and a second per loss would leave a black hole for many seconds.
//!
//! On a new path all begins anew, once a second at most. Whether a peer that is silent is still sent what only the proven
//! size is good for ([`Search::is_silent`]) is the caller's to say.
//!
//! [`climb`] says which larger size is tried next, [`watch`] whether the path still carries what it did, and [`flight`] which
//! probe an answer belongs to. What follows from all three stands here.
//!
//! Left out: the size of a path that carries less than BASE (the caller then keeps its start value and sets no DF),
//! probing with data, and telling anybody: the caller compares [`Search::mtu`] before and after.

mod climb;
mod flight;
mod loss;
mod plateau;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::Instant;
use climb::{Climb, Failure};
use flight::Flight;
pub(crate) use flight::Probe;
use watch::Watch;

/// Proven first, in bytes; below it nothing is searched (RFC 8899 section 5.1.2, BASE_PLPMTU).
pub(crate) const BASE: usize = 1200;
/// Any path carries this, and any probe fits in it.
const SMALL: usize = 128;
/// The search ends when the proven size and the smallest failed one are this close, in bytes.
const GAP: usize = 8;
/// Losses that the smallest failed size must have before the search ends.
const CERTAIN: u8 = 8;

/// RFC 8899 section 5.1.1, PMTU_RAISE_TIMER.
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// A search on a new path begins this often at most. A peer that makes us believe that it moves all the time, with sources that
/// it forges, would otherwise have one large probe sent to a stranger for each of its small datagrams.
const BEGIN_INTERVAL: Duration = Duration::from_secs(1);

/// How far the search is, for humans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) limit: Limit,
}

/// How sure the present size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// BASE was not answered (yet).
    Unanswered,
    /// There may be a larger one.
    Searching,
    /// There is no larger one.
    Found,
    /// There was none, but probes of the present size, or all of them, were lost; whether that is chance is being found out.
    Doubted,
}

/// What keeps the size from being larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Nothing failed: the interface carries no more, or the ceiling was not tried yet.
    Ceiling(usize),
    /// Our own kernel refused this size.
    Refused(usize),
    /// Probes of this size are not answered.
    Unanswered(usize),
}

/// The search on one path.
#[derive(Debug)]
pub(crate) struct Search {
    ceiling: usize,
    start: Start,
    stage: Stage,
    climb: Climb,
    watch: Watch,
    flight: Flight,
    /// The longest probe of the peer's own that was a reason to search again, since the size last fell.
    heard: usize,
}

/// Whether anything was sent on this path, and when the first probe of the last search on a new path was sent, whichever path
/// that was.
#[derive(Clone, Copy, Debug)]
enum Start {
    Fresh { before: Option<Instant> },
    Begun(Instant),
}

/// What is proven.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing: BASE was not answered, or is no longer though less is.
    Unproven,
    /// This size, and a larger one is searched for.
    Searching(usize),
    /// This size, and another search is worth its while at this time.
    Found(usize, Instant),
}

impl Stage {
    const fn proven(self) -> Option<usize> {
        match self {
            Self::Unproven => None,
            Self::Searching(proven) | Self::Found(proven, _) => Some(proven),
        }
    }

    /// The same with a different size.
    fn with(self, proven: usize) -> Self {
        match self {
            Self::Unproven | Self::Searching(_) => Self::Searching(proven),
            Self::Found(_, raise_at) => Self::Found(proven, raise_at),
        }
    }

    fn is_found(self) -> bool {
        matches!(self, Self::Found(..))
    }
}

impl Search {
    /// A path of which nothing is known. `ceiling`, the largest inner size worth trying, is what the interface carries.
    pub(crate) const fn new(ceiling: usize, now: Instant) -> Self {
        Self {
            ceiling,
            start: Start::Fresh { before: None },
            stage: Stage::Unproven,
            climb: Climb::new(),
            watch: Watch::new(now),
            flight: Flight::new(),
            heard: 0,
        }
    }

    /// The largest size that was answered, in bytes; None until BASE was, and when BASE no longer is though less is.
    pub(crate) const fn mtu(&self) -> Option<usize> {
        self.stage.proven()
    }

    /// The largest size worth trying, in bytes.
    pub(crate) const fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// How far it is.
    pub(crate) fn state(&self) -> State {
        let phase = match self.stage {
            Stage::Unproven => Phase::Unanswered,
            Stage::Searching(_) => Phase::Searching,
            Stage::Found(..) if self.watch.is_doubtful() || self.is_silent() => Phase::Doubted,
            Stage::Found(..) => Phase::Found,
        };
        let limit = match self.climb.failure() {
            Some(Failure::Refused(size)) => Limit::Refused(size),
            None if phase == Phase::Unanswered => Limit::Unanswered(BASE),
            Some(Failure::Lost { size, .. }) => Limit::Unanswered(size),
            None => Limit::Ceiling(self.ceiling),
        };
        State { phase, limit }
    }

    /// When [`poll`](Self::poll) has something to do next, at once if that is past; None while there is nothing. Every
    /// `on_` and `poll` itself may change it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.flight.until().or_else(|| self.due())
    }

    /// The probe to send now, if one is due. The one under way is lost when its time is over.
    pub(crate) fn poll(&mut self, now: Instant, rng: &mut ChaCha8Rng) -> Option<Probe> {
        if self.flight.until().is_some_and(|until| now < until) {
            return None;
        }
        if let Some(lost) = self.flight.expire() {
            self.on_lost(lost.size);
        }
        if self.due()? > now {
            return None;
        }
        if let Start::Fresh { .. } = self.start {
            self.start = Start::Begun(now);
        }
        let size = self.next_size(now);
        let probe = Probe { id: rng.next_u32(), size };
        let patience = self.watch.patience(size, self.mtu().is_some(), &self.flight);
        self.flight.launch(probe, now, patience);
        self.watch.on_probed(self.mtu() == Some(size), now);
        Some(probe)
    }

    /// A probe was answered. False, and nothing happened: it is neither the one under way nor the last that expired.
    pub(crate) fn on_reply(&mut self, id: u32, size: usize, now: Instant) -> bool {
        let is_known = self.flight.on_reply(Probe { id, size }, now);
        if is_known {
            // It may be from before the ceiling was lowered.
            self.on_answered(size.min(self.ceiling), now);
        }
        is_known
    }

    /// A probe was answered by somebody who does not say how long it was. False: as with [`Search::on_reply`].
    pub(crate) fn on_echo(&mut self, id: u32, now: Instant) -> bool {
        let known = self.flight.find(id);
        known.is_some_and(|probe| self.on_reply(id, probe.size, now))
    }

    /// Our own kernel refused a datagram with `size` bytes inside (EMSGSIZE).
    pub(crate) fn on_refused(&mut self, size: usize, now: Instant) {
        if size > self.ceiling || !self.climb.on_refused(size) {
            return;
        }
        // A refused BASE waits for its timer all the same, or it would be sent and refused without end.
        self.flight.forget(|probe| probe.size >= size && probe.size > BASE);
        match self.mtu() {
            Some(_) if size <= BASE => self.hold(Stage::Unproven),
            Some(proven) if proven >= size => self.hold(Stage::Searching(BASE)),
            _ => {}
        }
        self.settle(now);
    }

    /// A router said that no more than `mtu` bytes inside get through, or somebody forged that.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        if mtu >= BASE && mtu <= self.ceiling {
            self.climb.on_word(mtu);
        }
        if self.mtu().is_some_and(|proven| mtu < proven) {
            self.watch.on_large_sent();
        }
    }

    /// Large data goes out: what a path that was proven may not carry any more.
    pub(crate) fn on_large_sent(&mut self, now: Instant) {
        self.watch.on_large_sent();
        if let Stage::Found(_, raise_at) = self.stage
            && now >= raise_at
        {
            self.search_again(now);
        }
    }

    /// A probe of the peer's own arrived, `size` bytes long: the way here carries that much, so the way there may. Each
    /// longer one is worth one search, or two ways that differ would be searched for ever.
    pub(crate) fn on_arrived(&mut self, size: usize, now: Instant) {
        let size = size.min(self.ceiling);
        if let Stage::Found(proven, _) = self.stage
            && size > proven + GAP
            && size > self.heard
        {
            self.heard = size;
            self.search_again(now);
        }
    }

    /// The peer is there, it said so in another way: where BASE was tried in vain it is worth another try.
    pub(crate) fn on_heard(&mut self) {
        self.watch.on_heard();
    }

    /// The largest size worth trying has changed. What was proven stays so, as far as it is still worth trying.
    pub(crate) fn on_ceiling(&mut self, ceiling: usize, now: Instant) {
        if ceiling == self.ceiling {
            return;
        }
        if ceiling < BASE || self.ceiling < BASE {
            return self.on_path_change(ceiling, now);
        }
        self.ceiling = ceiling;
        self.climb.on_ceiling(ceiling);
        if self.mtu().is_some_and(|proven| proven > ceiling) {
            self.stage = self.stage.with(ceiling);
            self.watch.on_size_changed();
        }
        if self.stage.is_found() && self.climb.failure().is_none() {
            self.search_again(now);
            // It was the ceiling that kept it from being more, not the path.
            self.climb.forget_likely();
        }
        self.settle(now);
    }

    /// A new endpoint, uplink or way to ask: what was proven is no longer proven.
    pub(crate) fn on_path_change(&mut self, ceiling: usize, now: Instant) {
        let before = match self.start {
            Start::Fresh { before } => before,
            Start::Begun(at) => Some(at),
        };
        *self = Self { start: Start::Fresh { before }, ..Self::new(ceiling, now) };
    }

    /// Whether BASE was tried in vain so often that only large packets being sent bring the next probe.
    pub(crate) fn is_quiet(&self) -> bool {
        self.watch.is_quiet()
    }

    /// Whether the peer answers nothing any more, as far as can be said after a second or two.
    pub(crate) fn is_silent(&self) -> bool {
        self.watch.is_silent()
    }

    /// When the next probe is due if none is under way; the clock's start means at once.
    fn due(&self) -> Option<Instant> {
        let at_once = Some(Instant::default());
        if self.ceiling < BASE {
            return None;
        }
        if let Start::Fresh { before } = self.start {
            return before.map_or(at_once, |began| Some(began + BEGIN_INTERVAL));
        }
        match self.stage {
            Stage::Unproven => self.watch.may_ask().then_some(Instant::default()),
            _ if self.watch.is_unsure() => self.watch.may_ask().then_some(Instant::default()),
            Stage::Searching(_) => at_once,
            Stage::Found(..) if self.watch.is_doubtful() => at_once,
            Stage::Found(..) => self.watch.next_look(),
        }
    }

    fn next_size(&mut self, now: Instant) -> usize {
        match self.mtu() {
            None => BASE,
            Some(proven) => match self.watch.wants(now) {
                Some(watch::Wanted::Small) => SMALL,
                Some(watch::Wanted::Base) => BASE,
                Some(watch::Wanted::Proven) => proven,
                None => self.climb.next_size(proven, self.ceiling),
            },
        }
    }

    fn on_lost(&mut self, size: usize) {
        match size {
            BASE => self.watch.on_base_lost(self.mtu().is_some()),
            SMALL => self.watch.on_small_lost(),
            _ if self.mtu() == Some(size) => self.watch.on_proven_lost(),
            _ if self.climb.on_lost(size) => self.watch.on_failed_lost(),
            _ => {}
        }
    }

    fn on_answered(&mut self, size: usize, now: Instant) {
        if size == SMALL {
            return self.on_small_answered();
        }
        self.watch.on_answered(size == BASE);
        match self.mtu() {
            Some(proven) if size == proven && size > BASE => {
                self.watch.on_proven_answered();
                self.climb.on_proven_answered(size);
            }
            Some(proven) if size <= proven => {}
            _ => self.on_larger(size, now),
        }
        self.settle(now);
    }

    /// A probe smaller than BASE was answered, after one of BASE was not.
    fn on_small_answered(&mut self) {
        if let Some(losses) = self.watch.on_small_answered()
            && self.mtu().is_some()
        {
            self.climb.fail(BASE, losses);
            self.hold(Stage::Unproven);
            self.watch.on_base_gone();
        }
    }

    /// A size above the present one was answered.
    fn on_larger(&mut self, size: usize, now: Instant) {
        let (losses, had_failed) = self.climb.on_larger(size);
        if had_failed {
            self.stage = Stage::Searching(size);
        }
        self.stage = self.stage.with(size);
        self.watch.on_larger((size > BASE).then_some(losses), now);
    }

    /// From the present size up.
    fn search_again(&mut self, now: Instant) {
        if let Some(proven) = self.mtu() {
            self.stage = Stage::Searching(proven);
        }
        self.climb.restart(self.mtu());
        self.settle(now);
    }

    /// Draws the conclusions from what is known now. Losses count only once something smaller was answered after them.
    fn settle(&mut self, now: Instant) {
        let Some(proven) = self.mtu() else { return };
        if self.watch.is_unsure() {
            return;
        }
        if let Some(losses) = self.watch.verdict() {
            self.climb.fail(proven, losses);
            self.hold(Stage::Searching(BASE));
        } else if !self.stage.is_found() && self.climb.is_over(proven, self.ceiling) {
            self.stage = Stage::Found(proven, now + RAISE_INTERVAL);
            self.climb.rest();
        }
    }

    /// Falls to a size that is sure, and searches upwards from it.
    fn hold(&mut self, stage: Stage) {
        self.stage = stage;
        self.heard = 0;
        self.climb.fall();
        self.watch.on_fall();
    }
}
