//! Reading the agent's own ledgers, one after the other, and what they say of this state.

use overlay_rendezvous::protocol::{Label, MAX_ENTRIES};
use overlay_wire::signed::PublicKey;
use tokio::time::Instant;

use super::super::explain::CONFIRM as FIX;
use super::super::time::now;
use super::super::trust::{Effect, Word};
use super::super::{Agent, At, Changed, NOTHING};
use super::{AGAIN, PATIENCE, Stage};

impl Agent {
    /// Reads one ledger after the other.
    pub(super) fn read_ledger(&mut self, at: &At) {
        if !self.past.keepers.contains(at) {
            // The release before this one keeps no ledgers.
            self.past.read.insert(*at);
            if !self.past.is_held {
                self.meetings.let_write(at, now());
            }
            if self.past.reading.is_none() && !self.past.is_settled() {
                self.past.due = Some(Instant::now());
            }
            return;
        }
        // None holds the others up for ever.
        let due = self.past.due.get_or_insert(Instant::now() + PATIENCE);
        if self.past.reading.is_some_and(|other| other != *at) {
            self.past.to_read.insert(*at);
            return;
        }
        *due = Instant::now() + PATIENCE;
        self.past.reading = Some(*at);
        if !self.past.is_settled() {
            self.past.stage = Stage::Reading;
        }
        self.past.forget_found();
        // One question at a time: a rendezvous that does not answer is not asked more.
        self.past.is_from_start = !self.meetings.is_reading(at);
        if self.past.is_from_start {
            self.meetings.read_entries(at, None, now());
        }
    }

    /// This ledger was read, or cannot be. Begins with the next one, if there is one.
    pub(super) fn read_next(&mut self) -> bool {
        self.past.reading = None;
        let Some(next) = self.past.to_read.pop_first() else { return false };
        self.read_ledger(&next);
        true
    }

    /// The connection to a rendezvous is gone.
    pub(in crate::agent) fn on_ledger_lost(&mut self, at: &At) -> Changed {
        self.past.to_read.remove(at);
        if self.past.reading != Some(*at) || self.read_next() {
            return NOTHING;
        }
        // It is read with the next connection, and nothing is written there before.
        self.give_up_ledgers()
    }

    /// A page of the ledger.
    pub(in crate::agent) fn on_entries(
        &mut self,
        at: &At,
        entries: Vec<(Label, Vec<u8>)>,
        next: Option<Label>,
    ) -> Changed {
        if self.past.reading != Some(*at) || matches!(self.past.stage, Stage::Unheard | Stage::Incomplete) {
            return NOTHING;
        }
        if !self.past.is_from_start {
            // The answer to an earlier question: the pages before it are gone.
            self.past.is_from_start = true;
            self.meetings.read_entries(at, None, now());
            return NOTHING;
        }
        for (label, sealed) in entries {
            match self.past.keys.open(&label, &sealed) {
                Ok(word) => _ = self.past.found.insert(label, (word, sealed)),
                Err(_) => {
                    self.past.unreadable += 1;
                    self.refusals.count("sealed");
                }
            }
        }
        let count = self.past.found.len() + self.past.unreadable;
        match next {
            Some(next) if count < MAX_ENTRIES => {
                if self.past.is_held {
                    // It takes as long as it takes. A state that is not held goes on after a while.
                    self.past.due = Some(Instant::now() + PATIENCE);
                }
                self.meetings.read_entries(at, Some(next), now());
                NOTHING
            }
            // Nobody keeps more than this.
            Some(_) => self.on_no_ledger(at),
            None => self.on_ledger(at),
        }
    }

    /// Everything that the ledger has was read.
    fn on_ledger(&mut self, at: &At) -> Changed {
        let words: Vec<_> = self.past.found.values().map(|(word, _)| word.clone()).collect();
        let mut changed = NOTHING;
        let mut is_on_disk = true;
        for word in words {
            for effect in self.book.learn(word) {
                changed = changed.and(self.learned(effect));
                is_on_disk &= self.unsaved.take().is_none();
            }
        }
        if self.past.is_settled() {
            // It came late.
            self.past.forget_found();
            self.past.read.insert(*at);
            self.meetings.let_write(at, now());
            self.read_next();
            return changed;
        }
        let is_complete = self.past.unreadable == 0 && self.is_in_ledger();
        if !is_on_disk || self.past.is_held && !is_complete {
            return changed.and(self.on_no_ledger(at));
        }
        self.past.read.insert(*at);
        if self.past.is_held && !self.is_vouched_for() {
            // The ledger of a different rendezvous must be read, too.
            self.past.forget_found();
            if !self.read_next() {
                changed = changed.and(self.on_no_ledger(at));
            }
            return changed;
        }
        if self.past.is_held {
            // It was granted by the state that is an old one, and nothing says whether it was taken back.
            let granted: Vec<_> = self.beforehand.entries(0).map(|(peer, _)| *peer).collect();
            granted.iter().for_each(|peer| self.forget_beforehand(peer));
        }
        changed.and(self.release())
    }

    /// Writes a word that was learned, and notes who had decided it.
    fn learned(&mut self, effect: Effect) -> Changed {
        let Effect::Changed(peer) = effect else { return NOTHING };
        let changed = self.carry_out(vec![Effect::Changed(peer)]);
        self.log_learned(&peer);
        changed
    }

    /// Whether each grant of this state is in the ledger. One that is missing was withheld or lost, and with it perhaps the
    /// revoke that came later. What the config grants was granted at this start.
    fn is_in_ledger(&self) -> bool {
        let is_pinned = |peer: &PublicKey| self.config.trust.iter().any(|trust| trust.key == *peer);
        self.book.relations().filter(|relation| relation.is_paired()).all(|relation| {
            let Some(Word::Grant(grant)) = &relation.mine else { return true };
            let found = self.past.found.get(&self.past.keys.label(&relation.identity));
            found.is_some_and(|(word, _)| word.sequence() >= grant.sequence) || is_pinned(&relation.identity)
        })
    }

    /// Whether all ledgers were read that may know what this state does not: those of the rendezvous that have shown a newer
    /// record. After a restart nobody knows which ones those were, so all must be read.
    fn is_vouched_for(&self) -> bool {
        if self.past.was_held || self.past.accusers.is_empty() {
            self.meetings.keys().all(|at| self.past.read.contains(at))
        } else {
            self.past.accusers.is_subset(&self.past.read)
        }
    }

    /// The ledger cannot be had, or lacks something.
    pub(in crate::agent) fn on_no_ledger(&mut self, at: &At) -> Changed {
        if self.past.reading.is_some_and(|reading| reading != *at) {
            return NOTHING;
        }
        if !self.past.is_held {
            // It has had its time. A state that is not held goes on.
            self.meetings.let_write(at, now());
        }
        if self.read_next() { NOTHING } else { self.give_up_ledgers() }
    }

    /// No ledger is left to be read.
    pub(super) fn give_up_ledgers(&mut self) -> Changed {
        if self.past.is_settled() {
            return NOTHING;
        }
        if !self.past.is_held {
            return self.release();
        }
        if self.past.stage != Stage::Incomplete {
            tracing::warn!("what was taken back since this state was saved is not known: {FIX}");
        }
        self.past.stage = Stage::Incomplete;
        self.past.due = Some(Instant::now() + AGAIN);
        NOTHING
    }
}
