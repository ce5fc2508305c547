//! The watch: notices when the path no longer carries what it did, and when the peer no longer answers.
//!
//! While large packets are being sent, one probe of the proven size a second keeps watch. A loss counts against the size
//! only once something smaller was answered after it.

use std::time::Duration;

use super::BASE;
use super::flight::Flight;
use super::loss::Loss;
use crate::Instant;

/// The interval between watch probes while large packets are being sent.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How many BASE probes are tried before the back-off begins: 1 s, 2 s, 4 s and so on.
const PROMPT: u8 = 3;
/// The longest interval for a peer that never answered, because it may not know probes at all.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(60);
/// The longest interval for a peer that did answer. Packets sent meanwhile may be lost in a path that came back smaller.
const LONGEST_KNOWN: Duration = Duration::from_secs(2);
/// The number of unanswered BASE probes after which BASE is probed only when large packets are sent.
pub(super) const QUIET: u8 = 10;

#[derive(Debug)]
pub(super) struct Watch {
    loss: Loss,
    /// BASE probes that were lost in a row.
    silent: u8,
    trust: Trust,
    /// What the watch saw since the proven size was last answered.
    doubt: Doubt,
    /// Whether large packets were sent after the last watch probe.
    is_large_sent: bool,
    look_at: Instant,
}

/// Whether something was answered after the last loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Sure,
    /// Nothing was answered yet. Holds whether the next probe is of SMALL or of BASE, and how many more probes of SMALL
    /// were answered than lost while BASE was not answered.
    Unsure {
        is_small_next: bool,
        small_answered: u8,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// Probes of the proven size that were lost in a row.
    missed: u8,
    /// BASE probes that were lost in between.
    base_lost: u8,
    base_answered: u8,
}

/// A size that the watch wants probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Small,
    Base,
    Proven,
}

impl Trust {
    fn small_answered(self) -> u8 {
        match self {
            Self::Sure => 0,
            Self::Unsure { small_answered, .. } => small_answered,
        }
    }
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            loss: Loss::new(),
            silent: 0,
            trust: Trust::Sure,
            doubt: Doubt { missed: 0, base_lost: 0, base_answered: 0 },
            is_large_sent: false,
            look_at: now,
        }
    }

    /// Whether BASE was tried in vain so often that it is probed next only when large packets are sent.
    pub(super) fn is_quiet(&self) -> bool {
        self.silent >= QUIET
    }

    /// Whether the peer answers nothing any more, as far as a second or two can show.
    pub(super) fn is_silent(&self) -> bool {
        self.silent >= PROMPT
    }

    /// Whether a probe was lost and none was answered since.
    pub(super) fn is_unsure(&self) -> bool {
        self.trust != Trust::Sure
    }

    /// Whether probes of the proven size were lost.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubt.missed > 0
    }

    /// Whether a peer that answers nothing may be probed now.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_quiet() || self.is_large_sent
    }

    /// When the proven size is probed next, if nothing is in doubt.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.is_large_sent.then_some(self.look_at)
    }

    /// What must be probed before the search continues. A fall that no report announces is noticed during a search as well.
    pub(super) fn wants(&self, now: Instant) -> Option<Wanted> {
        match self.trust {
            Trust::Unsure { is_small_next: true, .. } => Some(Wanted::Small),
            Trust::Unsure { .. } => Some(Wanted::Base),
            Trust::Sure if self.is_doubtful() => Some(Wanted::Proven),
            Trust::Sure if self.is_large_sent && now >= self.look_at => Some(Wanted::Proven),
            Trust::Sure => None,
        }
    }

    /// How long to wait for an answer to a probe of `size`.
    pub(super) fn patience(&self, size: usize, is_proven: bool, flight: &Flight) -> Duration {
        if size == BASE && self.is_silent() && self.trust.small_answered() == 0 {
            let longest = if is_proven { LONGEST_KNOWN } else { LONGEST_UNKNOWN };
            let doublings = u32::from(self.silent - PROMPT).min(6);
            return (Duration::from_secs(1) * (1 << doublings)).min(longest);
        }
        flight.patience()
    }

    /// How many probes of the proven size were lost in a row, if that shows that the path no longer carries it. `None`: too
    /// few.
    pub(super) fn verdict(&self) -> Option<u8> {
        let Doubt { missed, base_lost, base_answered } = self.doubt;
        (missed >= self.loss.too_many(base_lost, base_answered)).then_some(missed)
    }

    /// Records that a probe was sent. `is_proven`: it had the proven size.
    pub(super) fn on_probed(&mut self, is_proven: bool, now: Instant) {
        if let Trust::Unsure { is_small_next, .. } = &mut self.trust {
            *is_small_next = false;
        }
        if is_proven {
            self.look_at = now + WATCH_INTERVAL;
            self.is_large_sent = false;
        } else if self.is_quiet() {
            self.is_large_sent = false;
        }
    }

    /// Records that large data is sent, or that a router reports a change of the path.
    pub(super) fn on_large_sent(&mut self) {
        self.is_large_sent = true;
    }

    /// Records that the peer answered in a different way.
    pub(super) fn on_heard(&mut self) {
        if self.is_quiet() {
            self.silent = 0;
        }
    }

    /// Records that a probe of BASE was lost. `is_proven`: BASE or a larger size was answered before.
    pub(super) fn on_base_lost(&mut self, is_proven: bool) {
        self.silent = self.silent.saturating_add(1);
        self.doubt.base_lost = self.doubt.base_lost.saturating_add(1);
        self.trust = match self.trust {
            _ if !is_proven => Trust::Sure,
            trust => Trust::Unsure { is_small_next: self.is_silent(), small_answered: trust.small_answered() },
        };
    }

    pub(super) fn on_small_lost(&mut self) {
        if let Trust::Unsure { small_answered, .. } = &mut self.trust {
            *small_answered = small_answered.saturating_sub(1);
        }
    }

    pub(super) fn on_proven_lost(&mut self) {
        self.doubt.missed = self.doubt.missed.saturating_add(1);
        self.on_failed_lost();
    }

    /// Records that a probe of a size that had failed before was lost again.
    pub(super) fn on_failed_lost(&mut self) {
        if self.trust == Trust::Sure {
            self.trust = Trust::Unsure { is_small_next: false, small_answered: 0 };
        }
    }

    /// Records that a probe of BASE, or of a larger size, was answered.
    pub(super) fn on_answered(&mut self, is_base: bool) {
        self.trust = Trust::Sure;
        let silent = std::mem::take(&mut self.silent);
        if is_base {
            // Losses on a dead path do not make it a lossy one.
            self.loss.on_answered(silent.min(PROMPT));
            self.doubt.base_answered = self.doubt.base_answered.saturating_add(1);
            self.doubt.base_lost = self.doubt.base_lost.saturating_sub(silent.saturating_sub(PROMPT));
        }
    }

    /// Records that the proven size was answered. Its losses were chance.
    pub(super) fn on_proven_answered(&mut self) {
        self.loss.on_answered(self.doubt.missed);
        self.doubt = Doubt::default();
    }

    /// Records that a probe of SMALL was answered. Returns how many of BASE were lost if that can no longer be chance.
    pub(super) fn on_small_answered(&mut self) -> Option<u8> {
        let Trust::Unsure { small_answered, .. } = &mut self.trust else { return None };
        *small_answered = small_answered.saturating_add(1);
        (*small_answered >= self.loss.too_many(0, 0)).then_some(self.silent)
    }

    /// Records that the path carries less than BASE. Probes of BASE continue with back-off.
    pub(super) fn on_base_gone(&mut self) {
        self.silent = PROMPT;
    }

    /// Records that a size above the proven one was answered. `losses` is `None` if it shows nothing about the path.
    pub(super) fn on_larger(&mut self, losses: Option<u8>, now: Instant) {
        if let Some(losses) = losses {
            self.loss.on_answered(losses);
        }
        self.doubt = Doubt::default();
        self.look_at = now + WATCH_INTERVAL;
    }

    /// Records that the proven size changed without a probe.
    pub(super) fn on_size_changed(&mut self) {
        self.doubt = Doubt::default();
    }

    /// Records that the proven size fell.
    pub(super) fn on_fall(&mut self) {
        self.trust = Trust::Sure;
        self.doubt = Doubt::default();
    }
}
