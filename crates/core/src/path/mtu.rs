//! The largest inner packet that one path carries, found by probing (RFC 8899) and never by believing.
//!
//! Its life: a probe of [`BASE`] goes first. Once that is answered the ceiling is tried, then sizes in between: those that
//! links really have, the middle one first, then halves, until the answered size and the smallest failed one lie
//! [`GAP`] apart. A size has failed for the search after three losses. That is quick, and on a lossy path sometimes wrong,
//! so before the search ends the smallest failed size is tried until it was lost eight times; should it be answered
//! after all, the search goes on upwards. Then there is silence, but while large packets are being sent one probe of the
//! current size a second keeps watch, and 600 s later the search is made again from the current size up; sooner when a
//! longer probe of the peer's own arrives. Who has moved to another uplink need not notice: the peer does, and searches.
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
//! On another path all begins anew, once a second at most. Whether a peer that is silent is still sent what only the proven
//! size is good for ([`Search::is_silent`]) is the caller's to say.
//!
//! Left out: the size of a path that carries less than BASE (the caller then keeps its start value and sets no DF),
//! probing with data, and telling anybody: the caller compares [`Search::mtu`] before and after.

mod loss;
mod plateau;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::Instant;
use loss::Loss;

/// Proven first, in bytes; below it nothing is searched (RFC 8899 section 5.1.2, BASE_PLPMTU).
pub(crate) const BASE: usize = 1200;
/// Any path carries this, and any probe fits in it.
const SMALL: usize = 128;
/// The search ends when the proven size and the smallest failed one are this close, in bytes.
const GAP: usize = 8;
/// Losses after which the search goes on with another size (RFC 8899 section 5.1.2, MAX_PROBES).
const QUICK: u8 = 3;
/// Losses that the smallest failed size must have before the search ends.
const CERTAIN: u8 = 8;
/// Sizes that routers may choose in one search.
const WORDS: u8 = 8;

/// How long an answer is waited for before a round trip was measured.
const FIRST_TIMER: Duration = Duration::from_millis(500);
const SHORTEST_TIMER: Duration = Duration::from_millis(150);
const LONGEST_TIMER: Duration = Duration::from_secs(1);
/// One probe of the current size so often while large packets are being sent.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 8899 section 5.1.1, PMTU_RAISE_TIMER.
const RAISE_INTERVAL: Duration = Duration::from_secs(600);

/// BASE is tried so often before the back-off begins: 1 s, 2 s, 4 s and so on.
const PROMPT: u8 = 3;
/// The longest wait for a peer that never answered: it may know no probes at all.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(60);
/// And for one that did: what is sent meanwhile may vanish in a path that came back smaller.
const LONGEST_KNOWN: Duration = Duration::from_secs(2);
/// A search on another path begins so often at most. Whoever makes us believe that it moves all the time, with sources that
/// it forges, would else have one large probe sent to a stranger for each of its small datagrams.
const BEGIN_INTERVAL: Duration = Duration::from_secs(1);
/// After so many unanswered BASE probes only large packets being sent bring the next one.
const QUIET: u8 = 10;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Random; the answer names it.
    pub(crate) id: u32,
    /// Bytes of the inner packet, to be sent with DF and no padding beyond it.
    pub(crate) size: usize,
}

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
    /// When the first probe of the last search on a new path was sent, whichever path that was.
    began: Option<Instant>,
    /// Nothing was sent on this path yet.
    is_new: bool,
    proven: Option<usize>,
    /// None: searching. Otherwise found, and worth another search at this time.
    raise_at: Option<Instant>,
    /// The smallest size that failed.
    failed: Option<Failed>,
    /// The size that the search is at.
    trial: Option<Trial>,
    /// What a router said last, and how many such words this search still follows.
    word: Option<usize>,
    words_left: u8,
    /// The longest probe of the peer's own that was a reason to search again, since the size last fell.
    heard: usize,
    /// What the truth most likely is: a router's word, or what it was at the last search. Once it is proven, a failure
    /// a little above it ends the search.
    likely: Option<usize>,

    under_way: Option<Sent>,
    expired: Option<Sent>,
    round_trip: Option<Duration>,
    loss: Loss,

    /// BASE probes that were lost in a row.
    silent: u8,
    /// Something was lost, and nothing answered since.
    is_unsure: bool,
    /// The next one is of SMALL, and how many of those were answered more than lost, while BASE was not.
    is_small_next: bool,
    small_answered: u8,
    /// What watching saw since the current size was last answered.
    doubt: Doubt,
    /// Large packets went out after the last watch probe.
    is_large_sent: bool,
    watch_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    probe: Probe,
    at: Instant,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    size: usize,
    losses: u8,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    size: usize,
    losses: u8,
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// Probes of the current size that were lost in a row.
    missed: u8,
    /// BASE probes in between.
    base_lost: u8,
    base_answered: u8,
}

impl Search {
    /// A path of which nothing is known. `ceiling`, the largest inner size worth trying, is what the interface carries.
    pub(crate) const fn new(ceiling: usize, now: Instant) -> Self {
        Self {
            ceiling,
            began: None,
            is_new: true,
            proven: None,
            raise_at: None,
            failed: None,
            trial: None,
            word: None,
            words_left: WORDS,
            heard: 0,
            likely: None,
            under_way: None,
            expired: None,
            round_trip: None,
            loss: Loss::new(),
            silent: 0,
            is_unsure: false,
            is_small_next: false,
            small_answered: 0,
            doubt: Doubt { missed: 0, base_lost: 0, base_answered: 0 },
            is_large_sent: false,
            watch_at: now,
        }
    }

    /// The largest size that was answered, in bytes; None until BASE was, and when BASE no longer is though less is.
    pub(crate) const fn mtu(&self) -> Option<usize> {
        self.proven
    }

    /// The largest size worth trying, in bytes.
    pub(crate) const fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// How far it is.
    pub(crate) fn state(&self) -> State {
        let phase = match self.proven {
            None => Phase::Unanswered,
            Some(_) if self.raise_at.is_none() => Phase::Searching,
            Some(_) if self.doubt.missed > 0 || self.is_silent() => Phase::Doubted,
            Some(_) => Phase::Found,
        };
        let limit = match self.failed {
            Some(Failed { size, is_refused: true, .. }) => Limit::Refused(size),
            None if self.proven.is_none() => Limit::Unanswered(BASE),
            Some(Failed { size, .. }) => Limit::Unanswered(size),
            None => Limit::Ceiling(self.ceiling),
        };
        State { phase, limit }
    }

    /// When [`poll`](Self::poll) has something to do next, at once if that is past; None while there is nothing. Every
    /// `on_` and `poll` itself may change it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.under_way {
            Some(sent) => Some(sent.until),
            None => self.due(),
        }
    }

    /// The probe to send now, if one is due. The one under way is lost when its time is over.
    pub(crate) fn poll(&mut self, now: Instant, rng: &mut ChaCha8Rng) -> Option<Probe> {
        if let Some(sent) = self.under_way {
            if now < sent.until {
                return None;
            }
            self.under_way = None;
            self.expired = Some(sent);
            self.on_lost(sent.probe.size);
        }
        if self.due()? > now {
            return None;
        }
        if std::mem::take(&mut self.is_new) {
            self.began = Some(now);
        }
        let size = self.next_size(now);
        let probe = Probe { id: rng.next_u32(), size };
        self.under_way = Some(Sent { probe, at: now, until: now + self.patience(size) });
        self.is_small_next = false;
        if self.proven == Some(size) {
            self.watch_at = now + WATCH_INTERVAL;
            self.is_large_sent = false;
        } else if self.is_quiet() {
            self.is_large_sent = false;
        }
        Some(probe)
    }

    /// A probe was answered. False, and nothing happened: it is neither the one under way nor the last that expired.
    pub(crate) fn on_reply(&mut self, id: u32, size: usize, now: Instant) -> bool {
        let answered = |sent: &mut Sent| sent.probe == Probe { id, size };
        let Some(sent) = self.under_way.take_if(answered).or_else(|| self.expired.take_if(answered)) else {
            return false;
        };
        // A later one of the same size has no more to tell.
        if let Some(again) = self.under_way.take_if(|later| later.probe.size == size) {
            self.expired = Some(again);
        }
        let round_trip = now.since(sent.at);
        self.round_trip = Some(self.round_trip.map_or(round_trip, |smoothed| (smoothed * 7 + round_trip) / 8));
        // It may be from before the ceiling was lowered.
        self.on_answered(size.min(self.ceiling), now);
        true
    }

    /// A probe was answered by somebody who does not say how long it was. False: as with [`Search::on_reply`].
    pub(crate) fn on_echo(&mut self, id: u32, now: Instant) -> bool {
        let known = [self.under_way, self.expired].into_iter().flatten().find(|sent| sent.probe.id == id);
        known.is_some_and(|sent| self.on_reply(id, sent.probe.size, now))
    }

    /// Our own kernel refused a datagram with `size` bytes inside (EMSGSIZE).
    pub(crate) fn on_refused(&mut self, size: usize, now: Instant) {
        if size > self.ceiling || self.failed.is_some_and(|failed| failed.is_refused && failed.size <= size) {
            return;
        }
        if self.failed.is_none_or(|failed| failed.size >= size) {
            self.failed = Some(Failed { size, losses: 0, is_refused: true });
        }
        self.trial.take_if(|trial| trial.size >= size);
        // A refused BASE waits for its timer all the same, or it would be sent and refused without end.
        let is_refused = |sent: &mut Sent| sent.probe.size >= size && sent.probe.size > BASE;
        self.under_way.take_if(is_refused);
        self.expired.take_if(is_refused);
        if size <= BASE && self.proven.is_some() {
            self.hold(None);
        } else if self.proven.is_some_and(|proven| proven >= size) {
            self.hold(Some(BASE));
        }
        self.settle(now);
    }

    /// A router said that no more than `mtu` bytes inside get through, or somebody forged that.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        if mtu >= BASE && mtu <= self.ceiling {
            self.word = Some(mtu);
        }
        if self.proven.is_some_and(|proven| mtu < proven) {
            self.is_large_sent = true;
        }
    }

    /// Large data goes out: what a path that was proven may not carry any more.
    pub(crate) fn on_large_sent(&mut self, now: Instant) {
        self.is_large_sent = true;
        if self.raise_at.is_some_and(|at| now >= at) {
            self.search_again(now);
        }
    }

    /// A probe of the peer's own arrived, `size` bytes long: the way here carries that much, so the way there may. Each
    /// longer one is worth one search, or two ways that differ would be searched for ever.
    pub(crate) fn on_arrived(&mut self, size: usize, now: Instant) {
        let size = size.min(self.ceiling);
        let is_longer = self.proven.is_some_and(|proven| size > proven + GAP) && size > self.heard;
        if is_longer && self.raise_at.is_some() {
            self.heard = size;
            self.search_again(now);
        }
    }

    /// The peer is there, it said so in another way: where BASE was tried in vain it is worth another try.
    pub(crate) fn on_heard(&mut self) {
        if self.is_quiet() {
            self.silent = 0;
        }
    }

    /// The largest size worth trying is another one. What was proven stays so, as far as it is worth trying still.
    pub(crate) fn on_ceiling(&mut self, ceiling: usize, now: Instant) {
        if ceiling == self.ceiling {
            return;
        }
        if ceiling < BASE || self.ceiling < BASE {
            return self.on_path_change(ceiling, now);
        }
        self.ceiling = ceiling;
        self.trial.take_if(|trial| trial.size > ceiling);
        self.failed.take_if(|failed| failed.size > ceiling);
        if self.proven.is_some_and(|proven| proven > ceiling) {
            self.proven = Some(ceiling);
            self.doubt = Doubt::default();
        }
        if self.raise_at.is_some() && self.failed.is_none() {
            self.search_again(now);
            // It was the ceiling that kept it from being more, not the path.
            self.likely = None;
        }
        self.settle(now);
    }

    /// Another endpoint, uplink or way to ask: what was proven is no longer proven.
    pub(crate) fn on_path_change(&mut self, ceiling: usize, now: Instant) {
        *self = Self { began: self.began, ..Self::new(ceiling, now) };
    }

    /// From the current size up.
    fn search_again(&mut self, now: Instant) {
        self.raise_at = None;
        self.failed = None;
        self.likely = self.proven;
        self.words_left = WORDS;
        self.settle(now);
    }

    /// When the next probe is due if none is under way; the clock's start means at once.
    fn due(&self) -> Option<Instant> {
        let at_once = Some(Instant::default());
        if self.ceiling < BASE {
            None
        } else if self.is_new {
            self.began.map_or(at_once, |began| Some(began + BEGIN_INTERVAL))
        } else if self.proven.is_none() || self.is_unsure {
            if self.is_quiet() && !self.is_large_sent { None } else { at_once }
        } else if self.doubt.missed > 0 || self.raise_at.is_none() {
            at_once
        } else {
            self.is_large_sent.then_some(self.watch_at)
        }
    }

    /// Whether BASE was tried in vain so often that only large packets being sent bring the next probe.
    pub(crate) fn is_quiet(&self) -> bool {
        self.silent >= QUIET
    }

    /// Whether the peer answers nothing any more, as far as can be said after a second or two.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent >= PROMPT
    }

    fn next_size(&mut self, now: Instant) -> usize {
        match self.proven {
            None => BASE,
            Some(_) if self.is_small_next => SMALL,
            Some(_) if self.is_unsure => BASE,
            Some(proven) if self.doubt.missed > 0 => proven,
            // A silent fall is noticed during a search as well.
            Some(proven) if self.is_large_sent && now >= self.watch_at => proven,
            Some(proven) => self.size_to_try(proven),
        }
    }

    /// The next size of the search, above `proven`.
    fn size_to_try(&mut self, proven: usize) -> usize {
        let top = self.failed.map_or(self.ceiling + 1, |failed| failed.size);
        if let Some(word) = self.word.take_if(|word| *word >= proven)
            && word < top
            && self.words_left > 0
            && self.likely != Some(word)
        {
            self.words_left -= 1;
            self.likely = Some(word);
            self.trial = (word > proven).then_some(Trial { size: word, losses: 0 });
        }
        if let Some(trial) = self.trial {
            return trial.size;
        }
        let size = match self.failed {
            Some(failed) if top - proven <= GAP => return failed.size,
            _ if self.likely == Some(proven) => (proven + GAP).min(top - 1),
            None => self.ceiling,
            Some(_) => match plateau::between(proven, top) {
                Some(plateau) => plateau,
                None if plateau::is_one(proven) => proven + GAP,
                None => usize::midpoint(proven, top),
            },
        };
        self.trial = Some(Trial { size, losses: 0 });
        size
    }

    /// How long an answer to a probe of `size` is waited for.
    fn patience(&self, size: usize) -> Duration {
        if size == BASE && self.silent >= PROMPT && self.small_answered == 0 {
            let longest = if self.proven.is_some() { LONGEST_KNOWN } else { LONGEST_UNKNOWN };
            let doublings = u32::from(self.silent - PROMPT).min(6);
            return (Duration::from_secs(1) * (1 << doublings)).min(longest);
        }
        self.round_trip.map_or(FIRST_TIMER, |rtt| (rtt * 3).clamp(SHORTEST_TIMER, LONGEST_TIMER))
    }

    fn on_lost(&mut self, size: usize) {
        if size == BASE {
            self.silent = self.silent.saturating_add(1);
            self.doubt.base_lost = self.doubt.base_lost.saturating_add(1);
            self.is_unsure = self.proven.is_some();
            self.is_small_next = self.is_unsure && self.silent >= PROMPT;
        } else if size == SMALL {
            self.small_answered = self.small_answered.saturating_sub(1);
        } else if self.proven == Some(size) {
            self.doubt.missed = self.doubt.missed.saturating_add(1);
            self.is_unsure = true;
        } else if let Some(failed) = self.failed.as_mut().filter(|failed| failed.size == size) {
            failed.losses = failed.losses.saturating_add(1);
            self.is_unsure = true;
        } else if let Some(trial) = self.trial.as_mut().filter(|trial| trial.size == size) {
            trial.losses += 1;
            if trial.losses >= QUICK {
                self.failed = Some(Failed { size, losses: trial.losses, is_refused: false });
                self.trial = None;
            }
        }
    }

    fn on_answered(&mut self, size: usize, now: Instant) {
        if size == SMALL {
            return self.on_small_answered();
        }
        (self.is_unsure, self.is_small_next, self.small_answered) = (false, false, 0);
        let silent = std::mem::take(&mut self.silent);
        if size == BASE {
            // A dead path is not a lossy one.
            self.loss.on_answered(silent.min(PROMPT));
            self.doubt.base_answered = self.doubt.base_answered.saturating_add(1);
            self.doubt.base_lost = self.doubt.base_lost.saturating_sub(silent.saturating_sub(PROMPT));
        }
        if self.proven.is_none_or(|proven| size > proven) {
            self.on_larger(size, now);
        } else if self.proven == Some(size) && size > BASE {
            self.loss.on_answered(self.doubt.missed);
            self.doubt = Doubt::default();
            // It was wrong, or it is over.
            self.word.take_if(|word| *word <= size);
        }
        self.settle(now);
    }

    /// A probe smaller than BASE was answered, after one of BASE was not.
    fn on_small_answered(&mut self) {
        self.small_answered = self.small_answered.saturating_add(1);
        if self.proven.is_some() && self.small_answered >= self.loss.too_many(0, 0) {
            self.failed = Some(Failed { size: BASE, losses: self.silent, is_refused: false });
            self.hold(None);
            self.silent = PROMPT;
        }
    }

    /// A size above the current one was answered.
    fn on_larger(&mut self, size: usize, now: Instant) {
        let trial = self.trial.take_if(|trial| trial.size <= size);
        let failed = self.failed.take_if(|failed| failed.size <= size);
        let losses = match (trial, failed) {
            (Some(Trial { size: of, losses }), _) | (_, Some(Failed { size: of, losses, .. })) if of == size => losses,
            _ => 0,
        };
        if size > BASE {
            self.loss.on_answered(losses);
        }
        if failed.is_some() {
            self.raise_at = None;
        }
        self.proven = Some(size);
        self.doubt = Doubt::default();
        self.watch_at = now + WATCH_INTERVAL;
    }

    /// Draws the conclusions from what is known now. Losses count only once something smaller was answered after them.
    fn settle(&mut self, now: Instant) {
        let Some(proven) = self.proven else { return };
        if self.is_unsure {
            return;
        }
        let Doubt { missed, base_lost, base_answered } = self.doubt;
        if missed >= self.loss.too_many(base_lost, base_answered) {
            self.failed = Some(Failed { size: proven, losses: missed, is_refused: false });
            self.hold(Some(BASE));
        } else if self.raise_at.is_none() {
            let is_narrow = |failed: Failed| {
                failed.size.saturating_sub(proven) <= GAP && (failed.is_refused || failed.losses >= CERTAIN)
            };
            if proven >= self.ceiling || self.failed.is_some_and(is_narrow) {
                self.raise_at = Some(now + RAISE_INTERVAL);
                self.trial = None;
            }
        }
    }

    /// Falls to a size that is sure, and searches upwards from it.
    fn hold(&mut self, proven: Option<usize>) {
        self.proven = proven;
        self.raise_at = None;
        self.trial = None;
        self.likely = None;
        self.heard = 0;
        self.words_left = WORDS;
        (self.is_unsure, self.is_small_next, self.small_answered) = (false, false, 0);
        self.doubt = Doubt::default();
    }
}
