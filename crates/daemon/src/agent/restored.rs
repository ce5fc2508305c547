//! State that is older than what this agent has said since: a restored backup, or a virtual machine that was rolled back.
//!
//! ```text
//! unheard --welcome--> reading --the whole ledger--> settled
//! ```
//!
//! Until the rendezvous is heard, the state on disk counts. If the rendezvous shows a record that this agent has signed, and
//! that is newer than the one on its disk, the state is an old one. From then on everything that was granted is *held*: no
//! tunnel, nothing given, nothing taken, also over restarts. It ends when the agent's own ledger was read and holds every grant
//! of this state, or when a person confirms the state.
//!
//! The ledger is read at each start, held or not: a word of ours that is newer than this state counts in any case. Letters wait
//! until then, so that an old word never replaces a newer one at the rendezvous.
//!
//! Our record is on disk before it is registered, so a crash makes no state an old one. A new one is signed when a word replaces
//! a different one, so that every state from before is known as an old one.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_rendezvous::client::Event;
use overlay_rendezvous::ledger::{LedgerKeys, OwnWord};
use overlay_rendezvous::protocol::{Label, MAX_ENTRIES};
use overlay_wire::signed::{PublicKey, Record, Signed};
use tokio::time::Instant;

use super::explain::CONFIRM as FIX;
use super::letters::chance;
use super::time::now;
use super::trust::{Effect, Word};
use super::{Agent, At, Changed, NOTHING, PEERS};

/// How long an agent whose state is not held waits for its ledger before it goes on without.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the ledger is read again while it is not complete.
const AGAIN: Duration = Duration::from_secs(30);
/// The most messages that wait until the ledger was read: as many as a mailbox holds.
const MAX_MESSAGES: usize = 64;

/// What is known of the age of the state.
pub(super) struct Past {
    keys: LedgerKeys,
    /// The sequence of our record on disk at the start.
    on_disk: Option<u64>,
    stage: Stage,
    is_held: bool,
    /// The rendezvous that were heard since the start, those that keep ledgers, and those that have shown a newer record.
    heard: BTreeSet<At>,
    keepers: BTreeSet<At>,
    accusers: BTreeSet<At>,
    /// Whose ledger is being read, and whose is read afterwards.
    reading: Option<At>,
    to_read: BTreeSet<At>,
    /// Whose ledger was read to its end.
    read: BTreeSet<At>,
    /// When something is to be done if nothing comes.
    due: Option<Instant>,
    /// Our words as the ledger has them.
    found: BTreeMap<Label, (OwnWord, Vec<u8>)>,
    /// How many entries could not be opened.
    unreadable: usize,
    messages: Vec<(PublicKey, [u8; 16], Vec<u8>)>,
    /// Whether a word was said before the ledger was read.
    has_said: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The rendezvous has not said anything since the start.
    Unheard,
    /// The ledger is being read.
    Reading,
    /// The state is held, and the ledger does not say enough.
    Incomplete,
    /// The state is as new as anything that is known.
    Settled,
}

impl Past {
    pub(super) fn new(keys: LedgerKeys, on_disk: Option<u64>, is_held: bool) -> Self {
        Self {
            keys,
            on_disk,
            stage: Stage::Unheard,
            is_held,
            heard: BTreeSet::new(),
            keepers: BTreeSet::new(),
            accusers: BTreeSet::new(),
            reading: None,
            to_read: BTreeSet::new(),
            read: BTreeSet::new(),
            due: None,
            found: BTreeMap::new(),
            unreadable: 0,
            messages: Vec::new(),
            has_said: false,
        }
    }

    /// Whether what was granted is held.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether the rendezvous has said something since the start.
    pub(super) fn is_heard(&self) -> bool {
        self.stage != Stage::Unheard
    }

    /// Whether letters may be written and read.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }

    /// When [`Agent::tend_past`] is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn keeps_entries(&self) -> bool {
        !self.keepers.is_empty()
    }

    fn is_newer(&self, record: &Record) -> bool {
        self.on_disk.is_some_and(|on_disk| record.sequence > on_disk)
    }

    fn forget_found(&mut self) {
        self.found.clear();
        self.unreadable = 0;
    }
}

impl Agent {
    /// A rendezvous said welcome, and showed this record of ours.
    pub(super) fn on_welcome(&mut self, at: &At, registered: Option<&Signed<Record>>, keeps_entries: bool) -> Changed {
        if keeps_entries {
            self.past.keepers.insert(*at);
        } else {
            self.past.keepers.remove(at);
        }
        if self.past.heard.contains(at) {
            if !self.past.is_settled() {
                self.read_ledger(at);
            }
            return NOTHING;
        }
        let mut changed = NOTHING;
        if registered.is_some_and(|record| self.past.is_newer(record)) {
            match self.hold(at) {
                Ok(held) => changed = held,
                // Its record is the only sign, so nothing is registered there.
                Err(held) => return held,
            }
        }
        self.past.heard.insert(*at);
        if !self.past.is_heard() {
            self.past.stage = Stage::Reading;
        }
        self.meetings.hear(at);
        changed = changed.and(self.register_first(registered));
        self.read_ledger(at);
        changed
    }

    /// This state is an old one. That is on disk before the newer record is replaced at the rendezvous, where it is the only
    /// sign. An error: it could not be written, and the connection is ended.
    fn hold(&mut self, at: &At) -> Result<Changed, Changed> {
        self.past.is_held = true;
        tracing::warn!("this state is older than what this agent has registered since: what it granted is held");
        if let Err(failure) = self.state.set_restored() {
            tracing::error!("{failure}");
            self.meetings.disconnect(at, now());
            return Err(PEERS);
        }
        self.past.accusers.insert(*at);
        if self.past.is_heard() {
            self.past.stage = Stage::Reading;
        }
        Ok(PEERS)
    }

    /// A newer record of ours was shown after all, when we registered for the first time.
    pub(super) fn on_newer_record(&mut self, at: &At, record: &Record) -> Changed {
        if self.past.is_held || self.meetings.has_registered(at) || !self.past.is_newer(record) {
            return NOTHING;
        }
        let (Ok(changed) | Err(changed)) = self.hold(at);
        self.read_ledger(at);
        changed
    }

    /// Reads one ledger after the other.
    fn read_ledger(&mut self, at: &At) {
        if !self.past.keepers.contains(at) {
            // The release before this one keeps no ledgers.
            if self.past.reading.is_none() && !self.past.is_settled() {
                self.past.due = Some(Instant::now());
            }
            return;
        }
        if self.past.reading.is_some_and(|other| other != *at) {
            self.past.to_read.insert(*at);
            return;
        }
        self.past.reading = Some(*at);
        if !self.past.is_settled() {
            self.past.stage = Stage::Reading;
            self.past.due = Some(Instant::now() + PATIENCE);
        }
        // One question at a time: a rendezvous that does not answer is not asked more.
        if !self.meetings.is_reading(at) {
            self.past.forget_found();
            self.meetings.read_entries(at, None, now());
        }
    }

    /// This ledger was read, or cannot be. Begins with the next one, if there is one.
    fn read_next(&mut self) -> bool {
        self.past.reading = None;
        let Some(next) = self.past.to_read.pop_first() else { return false };
        self.read_ledger(&next);
        true
    }

    /// The connection to a rendezvous is gone.
    pub(super) fn on_ledger_lost(&mut self, at: &At) -> Changed {
        self.past.to_read.remove(at);
        if self.past.reading == Some(*at) { self.on_no_ledger(at) } else { NOTHING }
    }

    /// A page of the ledger.
    pub(super) fn on_entries(&mut self, at: &At, entries: Vec<(Label, Vec<u8>)>, next: Option<Label>) -> Changed {
        if self.past.reading != Some(*at) || matches!(self.past.stage, Stage::Unheard | Stage::Incomplete) {
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
            self.read_next();
            return changed;
        }
        let is_complete = self.past.unreadable == 0 && self.is_in_ledger();
        if !is_on_disk || self.past.is_held && !is_complete {
            return changed.and(self.on_no_ledger(at));
        }
        self.past.read.insert(*at);
        if self.past.is_held && !self.is_vouched_for() {
            // What another one knows is still to be read.
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
    /// record. If that was before this start, it is not known which ones these are.
    fn is_vouched_for(&self) -> bool {
        if self.past.accusers.is_empty() {
            self.meetings.keys().all(|at| self.past.read.contains(at))
        } else {
            self.past.accusers.is_subset(&self.past.read)
        }
    }

    /// The ledger cannot be had, or lacks something.
    pub(super) fn on_no_ledger(&mut self, at: &At) -> Changed {
        if self.past.reading.is_some_and(|reading| reading != *at) {
            return NOTHING;
        }
        if self.read_next() { NOTHING } else { self.give_up_ledgers() }
    }

    /// No ledger is left to be read.
    fn give_up_ledgers(&mut self) -> Changed {
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

    /// Does what is due.
    pub(super) fn tend_past(&mut self) -> Changed {
        if self.past.due.take_if(|due| *due <= Instant::now()).is_none() {
            return NOTHING;
        }
        match self.past.stage {
            Stage::Incomplete if self.past.keeps_entries() => {
                let keepers: Vec<_> =
                    self.past.keepers.iter().filter(|at| self.meetings.is_online(at)).copied().collect();
                keepers.iter().for_each(|at| self.read_ledger(at));
                NOTHING
            }
            _ => match self.past.reading {
                Some(at) => self.on_no_ledger(&at),
                None => self.give_up_ledgers(),
            },
        }
    }

    /// The state is as new as anything that is known: it counts, and letters are written and read.
    fn release(&mut self) -> Changed {
        self.past.stage = Stage::Settled;
        self.past.due = None;
        self.past.accusers.clear();
        let read_at = self.past.reading.take();
        let was_held = std::mem::take(&mut self.past.is_held);
        if was_held && let Err(failure) = self.state.forget_restored() {
            // After the next start it is read again.
            tracing::error!("{failure}");
        }
        let found = std::mem::take(&mut self.past.found);
        self.past.forget_found();
        let mut changed = if was_held { PEERS } else { NOTHING };
        if was_held {
            changed = changed.and(self.grant_pinned());
        }
        let peers: Vec<_> = self.book.relations().map(|relation| relation.identity).collect();
        for peer in peers {
            let kept = found.get(&self.past.keys.label(&peer)).map(|(_, sealed)| &sealed[..]);
            self.keep_own_word(&peer, read_at.zip(kept));
        }
        if std::mem::take(&mut self.past.has_said) {
            changed = changed.and(self.sign_record(self.record.ipv4));
        }
        self.watch_peers();
        self.repeat_letters();
        for peer in self.book.behind() {
            changed = changed.and(self.ask_again(&peer));
        }
        for (from, id, sealed) in std::mem::take(&mut self.past.messages) {
            changed = changed.and(self.on_message(from, id, &sealed));
        }
        self.read_next();
        changed
    }

    /// Keeps our latest word to a peer for the time after a restore. `kept`: what a rendezvous has. Returns whether it
    /// replaces a different word.
    fn keep_own_word(&mut self, peer: &PublicKey, kept: Option<(At, &[u8])>) -> bool {
        let sealed = self.book.own_word(peer).and_then(|word| self.past.keys.seal(&word));
        let Some((label, sealed)) = sealed else { return false };
        let kept_at = kept.filter(|(_, kept)| *kept == sealed).map(|(at, _)| at);
        self.meetings.put_entry(label, &sealed, kept_at, now()).unwrap_or_else(|_| {
            tracing::warn!(%peer, "there is no room to keep what was said to this peer: a restored state will not know it");
            false
        })
    }

    /// Our word to a peer may have changed, and is on disk. A word that replaces a different one may take something back, so a
    /// new record shows that every state from before is an old one.
    pub(super) fn keep_in_ledger(&mut self, peer: &PublicKey) {
        if !self.past.is_settled() {
            self.past.has_said = true;
        } else if self.keep_own_word(peer, None) {
            self.sign_record(self.record.ipv4);
        }
    }

    /// Asks a peer again with which something was made that is missing here, once its mailbox is known.
    pub(super) fn ask_again(&mut self, peer: &PublicKey) -> Changed {
        if !self.past.is_settled() {
            return NOTHING;
        }
        let effects = self.book.ask_again(peer, &self.record, self.moment(), chance());
        self.carry_out(effects)
    }

    /// Lets a message wait until the ledger was read. Returns it if nothing is waited for. The rest comes with the next
    /// connection.
    pub(super) fn let_wait(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Message { from, id, sealed } if !self.past.is_settled() => {
                if self.past.messages.len() < MAX_MESSAGES {
                    self.past.messages.push((from, id, sealed));
                }
                None
            }
            event => Some(event),
        }
    }
}
