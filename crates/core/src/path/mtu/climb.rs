//! The climb: chooses the next size to try above the proven one, and knows when there is nothing left to try.

use super::{BASE, CERTAIN, GAP, plateau};

/// The number of losses after which the search moves on to a different size (RFC 8899 section 5.1.2, MAX_PROBES).
const QUICK: u8 = 3;
/// How many sizes routers may choose in one search.
const WORDS: u8 = 8;

#[derive(Debug)]
pub(super) struct Climb {
    /// The smallest size that failed.
    failed: Option<Failure>,
    /// The size that the search tries now.
    trial: Option<Trial>,
    /// What a router last reported, and how many more reports this search follows.
    word: Option<usize>,
    words_left: u8,
    /// The most likely result: a router's report, or the result of the last search. Once it is proven, a failure a little
    /// above it ends the search.
    likely: Option<usize>,
}

/// A size that failed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Our own kernel refused it.
    Refused(usize),
    /// This many probes of it were lost.
    Lost { size: usize, losses: u8 },
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    size: usize,
    losses: u8,
}

impl Failure {
    pub(super) fn size(self) -> usize {
        match self {
            Self::Refused(size) | Self::Lost { size, .. } => size,
        }
    }

    fn is_certain(self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Lost { losses, .. } => losses >= CERTAIN,
        }
    }
}

impl Climb {
    pub(super) const fn new() -> Self {
        Self { failed: None, trial: None, word: None, words_left: WORDS, likely: None }
    }

    /// The smallest size that failed.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failed
    }

    /// The next size to try above `proven`.
    pub(super) fn next_size(&mut self, proven: usize, ceiling: usize) -> usize {
        let top = self.failed.map_or(ceiling + 1, Failure::size);
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
            Some(failed) if top - proven <= GAP => return failed.size(),
            _ if self.likely == Some(proven) => (proven + GAP).min(top - 1),
            None => ceiling,
            Some(_) => match plateau::between(proven, top) {
                Some(plateau) => plateau,
                None if plateau::is_one(proven) => proven + GAP,
                None => usize::midpoint(proven, top),
            },
        };
        self.trial = Some(Trial { size, losses: 0 });
        size
    }

    /// Whether nothing is left to try above `proven`.
    pub(super) fn is_over(&self, proven: usize, ceiling: usize) -> bool {
        let is_narrow = |failed: Failure| failed.size().saturating_sub(proven) <= GAP && failed.is_certain();
        proven >= ceiling || self.failed.is_some_and(is_narrow)
    }

    /// Records a lost probe. Returns whether its size had failed before, in which case the path may be lossy or the peer
    /// gone.
    pub(super) fn on_lost(&mut self, size: usize) -> bool {
        match &mut self.failed {
            Some(Failure::Lost { size: failed, losses }) if *failed == size => {
                *losses = losses.saturating_add(1);
                return true;
            }
            Some(Failure::Refused(refused)) if *refused == size => return true,
            _ => {}
        }
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.size == size) {
            trial.losses += 1;
            if trial.losses >= QUICK {
                self.failed = Some(Failure::Lost { size, losses: trial.losses });
                self.trial = None;
            }
        }
        false
    }

    /// Records that this size failed.
    pub(super) fn fail(&mut self, size: usize, losses: u8) {
        self.failed = Some(Failure::Lost { size, losses });
    }

    /// Records that our own kernel refused this size. Returns whether that is news.
    pub(super) fn on_refused(&mut self, size: usize) -> bool {
        if matches!(self.failed, Some(Failure::Refused(refused)) if refused <= size) {
            return false;
        }
        if self.failed.is_none_or(|failed| failed.size() >= size) {
            self.failed = Some(Failure::Refused(size));
        }
        self.trial.take_if(|trial| trial.size >= size);
        true
    }

    /// Records a router's report that this size gets through and no more.
    pub(super) fn on_word(&mut self, size: usize) {
        self.word = Some(size);
    }

    /// Records an answer to a size above the proven one. Returns how often that size was lost before, and whether it or a
    /// smaller one had failed.
    pub(super) fn on_larger(&mut self, size: usize) -> (u8, bool) {
        let trial = self.trial.take_if(|trial| trial.size <= size);
        let failed = self.failed.take_if(|failed| failed.size() <= size);
        let losses = match (trial, failed) {
            (Some(trial), _) if trial.size == size => trial.losses,
            (_, Some(Failure::Lost { size: of, losses })) if of == size => losses,
            _ => 0,
        };
        (losses, failed.is_some())
    }

    /// Records that the proven size was answered again. A report of a smaller size was wrong, or no longer holds.
    pub(super) fn on_proven_answered(&mut self, proven: usize) {
        self.word.take_if(|word| *word <= proven);
    }

    /// Handles a new ceiling: no size above it is worth trying.
    pub(super) fn on_ceiling(&mut self, ceiling: usize) {
        self.trial.take_if(|trial| trial.size > ceiling);
        self.failed.take_if(|failed| failed.size() > ceiling);
    }

    /// Begins a new search from the result of the last one.
    pub(super) fn restart(&mut self, found: Option<usize>) {
        self.failed = None;
        self.likely = found;
        self.words_left = WORDS;
    }

    /// Forgets everything but the failure, because the proven size fell.
    pub(super) fn fall(&mut self) {
        self.trial = None;
        self.likely = None;
        self.words_left = WORDS;
    }

    /// Forgets the result of the last search, which no longer helps.
    pub(super) fn forget_likely(&mut self) {
        self.likely = None;
    }

    /// Records that the search is over.
    pub(super) fn rest(&mut self) {
        self.trial = None;
    }
}

const _: () = assert!(GAP < BASE);
