//! The largest inner packet that one path carries. It is found by probing (RFC 8899), never by trusting a report alone.
//! probe.
//!
//! The life of a search: it first sends a probe of [`BASE`]. Once that is answered it tries the ceiling, then sizes in
//! between. Sizes that links really have come first, the middle one before the others. After those it halves, until the
//! answered size and the smallest failed one lie [`GAP`] apart. The search counts a size as failed after three losses. That
//! is quick, and sometimes wrong on a lossy path. So before the search ends, the smallest failed size is tried until it was
//! lost eight times. If it is answered after all, the search continues upwards. Then there is silence, but while large
//! packets are being sent, one probe of the current size a second keeps watch. After 600 s the search runs again from the
//! current size up, or sooner if a longer probe of the peer's own arrives. So a node that has moved to a new uplink need
//! not notice: the peer notices and searches.
//!
//! A lost watch probe puts the size in doubt. From then on probes of the current size and of BASE alternate. The size falls
//! to BASE when more probes in a row were lost than chance explains, at the loss rate seen on this path (see `loss`), while
//! BASE was answered after each. The search then climbs again at once. If BASE is not answered either, the path is dead or
//! the peer is gone. That says nothing about the size, so the size is kept, and BASE is tried with back-off until it is
//! answered. So a loss counts only once a smaller probe was answered after it. For BASE itself the smaller probe is one of
//! [`SMALL`], which alternates with BASE while BASE is not answered. A path that carries SMALL but no longer BASE is not
//! dead. Nothing is proven for it any more.
//!
//! What counts as evidence: an answer that names the random id and the size of a probe is proof, even if it comes late.
//! (The probe under way and the last one that expired are known; older ones are forgotten.) A refusal by our own kernel is
//! a fact. A router's "too big" may be forged. It only chooses which size is tried next, [`WORDS`] times in one search, and
//! makes the next watch probe due.
//!
//! `DEVIATION:` the probe timer is three smoothed round trips, between 150 ms and 1 s. RFC 8899 section 5.1.1 wants at
//! least 1 s, because a transport's probe competes with its own retransmissions. Here a probe sent too early costs one
//! packet, and a second for each loss would leave a black hole in place for many seconds.
//!
//! On a new path everything starts again, at most once a second. If the peer is silent ([`Search::is_silent`]), the caller
//! decides whether it still gets packets that only fit the proven size.
//!
//! [`climb`] chooses the next larger size, [`watch`] notices when the path no longer carries what it did, and [`flight`]
//! finds the probe that an answer belongs to. This file draws the conclusions from all three.
//!
//! Left out: the size of a path that carries less than BASE (the caller then keeps its start value and sets no DF), probing
//! with data, and reporting a change: the caller compares [`Search::mtu`] before and after.

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

/// The size that is proven first, in bytes. The search never goes below it (RFC 8899 section 5.1.2, BASE_PLPMTU).
pub(crate) const BASE: usize = 1200;
/// A size that any path carries and that holds any probe, in bytes.
const SMALL: usize = 128;
/// How close the proven size and the smallest failed one are when the search ends, in bytes.
const GAP: usize = 8;
/// How many losses the smallest failed size must have before the search ends.
const CERTAIN: u8 = 8;

/// RFC 8899 section 5.1.1, PMTU_RAISE_TIMER.
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// The shortest time between searches on new paths. Without it, a peer that forges sources could make it seem that it moves
/// all the time. Each of its small datagrams would then cause one large probe to a stranger.
const BEGIN_INTERVAL: Duration = Duration::from_secs(1);

/// How far the search is, in a form that people can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) limit: Limit,
}

/// How certain the present size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// BASE was not answered, at least not yet.
    Unanswered,
    /// A larger size may be possible.
    Searching,
    /// A larger size is not possible.
    Found,
    /// The size was found, but then probes of it, or all probes, were lost. The search is finding out whether by chance.
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
    /// The longest of the peer's own probes that caused a new search since the size last fell, in bytes.
    heard: usize,
}

/// Whether anything was sent on this path, and when the last search on a new path, which may be an earlier path, sent its
/// first probe.
#[derive(Clone, Copy, Debug)]
enum Start {
    Fresh { before: Option<Instant> },
    Begun(Instant),
}

/// The proven size, if there is one, and what follows it.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing is proven: BASE was not answered, or is not answered any more while smaller probes are.
    Unproven,
    /// This size is proven, and the search is trying larger ones.
    Searching(usize),
    /// This size is proven. The next search may begin at this time.
    Found(usize, Instant),
}

impl Stage {
    const fn proven(self) -> Option<usize> {
        match self {
            Self::Unproven => None,
            Self::Searching(proven) | Self::Found(proven, _) => Some(proven),
        }
    }

    /// The same stage with a different size.
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
    /// Starts the search on a path of which nothing is known. `ceiling` is the largest inner size worth trying, which the
    /// interface carries.
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

    /// The largest size that was answered, in bytes. `None` until BASE was answered, and when BASE is not answered any more
    /// while smaller probes are.
    pub(crate) const fn mtu(&self) -> Option<usize> {
        self.stage.proven()
    }

    /// The largest size worth trying, in bytes.
    pub(crate) const fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// How far the search is.
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

    /// When [`poll`](Self::poll) next has something to do: at once if that is in the past, never if `None`. Every `on_`
    /// method and `poll` itself may change it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.flight.until().or_else(|| self.due())
    }

    /// Returns the probe to send now, if one is due. The probe under way counts as lost once its time is over.
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

    /// Records an answer to a probe. Returns false, and does nothing, if that probe is neither under way nor the last that
    /// expired.
    pub(crate) fn on_reply(&mut self, id: u32, size: usize, now: Instant) -> bool {
        let is_known = self.flight.on_reply(Probe { id, size }, now);
        if is_known {
            // The probe may have been sent before the ceiling was lowered.
            self.on_answered(size.min(self.ceiling), now);
        }
        is_known
    }

    /// Records an answer that does not say how long the probe was. Returns false in the same case as [`Search::on_reply`].
    pub(crate) fn on_echo(&mut self, id: u32, now: Instant) -> bool {
        let known = self.flight.find(id);
        known.is_some_and(|probe| self.on_reply(id, probe.size, now))
    }

    /// Records that our own kernel refused a datagram with `size` bytes inside (EMSGSIZE).
    pub(crate) fn on_refused(&mut self, size: usize, now: Instant) {
        if size > self.ceiling || !self.climb.on_refused(size) {
            return;
        }
        // A refused BASE still waits for its timer, or it would be sent and refused without end.
        self.flight.forget(|probe| probe.size >= size && probe.size > BASE);
        match self.mtu() {
            Some(_) if size <= BASE => self.hold(Stage::Unproven),
            Some(proven) if proven >= size => self.hold(Stage::Searching(BASE)),
            _ => {}
        }
        self.settle(now);
    }

    /// Records an unverified "too big": a router, or a forger, says that at most `mtu` bytes inside get through.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        if mtu >= BASE && mtu <= self.ceiling {
            self.climb.on_word(mtu);
        }
        if self.mtu().is_some_and(|proven| mtu < proven) {
            self.watch.on_large_sent();
        }
    }

    /// Records that large data is sent, which the path may no longer carry.
    pub(crate) fn on_large_sent(&mut self, now: Instant) {
        self.watch.on_large_sent();
        if let Stage::Found(_, raise_at) = self.stage
            && now >= raise_at
        {
            self.search_again(now);
        }
    }

    /// Records that a probe of the peer's own arrived, `size` bytes long. That direction carries as much, so ours may too.
    /// Only a longer one than before starts a new search. Otherwise two directions that differ would be searched without
    /// end.
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

    /// Records that the peer answered in a different way. If BASE was tried in vain, it is tried again.
    pub(crate) fn on_heard(&mut self) {
        self.watch.on_heard();
    }

    /// Handles a new largest size worth trying. What was proven stays proven up to that size.
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
            // The ceiling was the limit, not the path.
            self.climb.forget_likely();
        }
        self.settle(now);
    }

    /// Handles a new endpoint, uplink or kind of probe. Nothing is proven any more.
    pub(crate) fn on_path_change(&mut self, ceiling: usize, now: Instant) {
        let before = match self.start {
            Start::Fresh { before } => before,
            Start::Begun(at) => Some(at),
        };
        *self = Self { start: Start::Fresh { before }, ..Self::new(ceiling, now) };
    }

    /// Whether BASE was tried in vain so often that it is probed next only when large packets are sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.watch.is_quiet()
    }

    /// Whether the peer answers nothing any more, as far as a second or two can show.
    pub(crate) fn is_silent(&self) -> bool {
        self.watch.is_silent()
    }

    /// When the next probe is due if none is under way. The clock's start means at once.
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

    /// Handles an answer to a probe smaller than BASE, after one of BASE was lost.
    fn on_small_answered(&mut self) {
        if let Some(losses) = self.watch.on_small_answered()
            && self.mtu().is_some()
        {
            self.climb.fail(BASE, losses);
            self.hold(Stage::Unproven);
            self.watch.on_base_gone();
        }
    }

    /// Handles an answer to a size above the present one.
    fn on_larger(&mut self, size: usize, now: Instant) {
        let (losses, had_failed) = self.climb.on_larger(size);
        if had_failed {
            self.stage = Stage::Searching(size);
        }
        self.stage = self.stage.with(size);
        self.watch.on_larger((size > BASE).then_some(losses), now);
    }

    /// Searches again from the present size up.
    fn search_again(&mut self, now: Instant) {
        if let Some(proven) = self.mtu() {
            self.stage = Stage::Searching(proven);
        }
        self.climb.restart(self.mtu());
        self.settle(now);
    }

    /// Decides what follows from the probes so far. Losses count only once something smaller was answered after them.
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

    /// Falls to a size that is certain, and searches upwards from it.
    fn hold(&mut self, stage: Stage) {
        self.stage = stage;
        self.heard = 0;
        self.climb.fall();
        self.watch.on_fall();
    }
}
