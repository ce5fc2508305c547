//! State that is older than what this agent has said since: a restored backup, or a virtual machine that was rolled back.
//!
//! ```text
//! unheard --welcome--> reading --the whole ledger--> settled --a newer record--> reading
//!                      reading --not enough--> incomplete --30 s--> reading
//! ```
//!
//! Until a rendezvous is heard, the state on disk counts. If one shows a record that this agent has signed, and that is newer
//! than the last one that this state knows to be there, the state is an old one. From then on everything that was granted is
//! *held*: no tunnel, nothing given, nothing taken, also over restarts. It ends when the agent's own ledgers at those that
//! have shown such a record were read and hold every grant of this state, or when a person confirms the state.
//!
//! Each ledger is read at each start, held or not: a word of ours that is newer than this state counts in any case. Nothing is
//! written to a rendezvous until its ledger was read, so that an old word never replaces a newer one there.
//!
//! Our record is on disk before it is registered, so a crash makes no state an old one. A new one is signed when a word replaces
//! a different one, so that every state from before is known as an old one.

mod held;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_rendezvous::client::Event;
use overlay_rendezvous::ledger::{LedgerKeys, OwnWord};
use overlay_rendezvous::protocol::Label;
use overlay_wire::signed::{PublicKey, Record, Signed};
use tokio::time::Instant;

use super::letters::chance;
use super::time::now;
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
    /// The sequence of our record on disk at the start, and of the last one that was given to each rendezvous.
    on_disk: Option<u64>,
    registered: BTreeMap<At, u64>,
    stage: Stage,
    is_held: bool,
    /// Whether it was held before this start.
    was_held: bool,
    /// The rendezvous that were heard since the start, those that keep ledgers, and those that have shown a newer record.
    heard: BTreeSet<At>,
    keepers: BTreeSet<At>,
    accusers: BTreeSet<At>,
    /// Whose ledger is being read, and whose is read afterwards.
    reading: Option<At>,
    to_read: BTreeSet<At>,
    /// Whose ledger was read to its end.
    read: BTreeSet<At>,
    /// When the present reading is given up, or the next one begins.
    due: Option<Instant>,
    /// Our words as the ledger has them.
    found: BTreeMap<Label, (OwnWord, Vec<u8>)>,
    /// Whether `found` has every page so far.
    is_from_start: bool,
    /// How many entries could not be opened.
    unreadable: usize,
    messages: Vec<(PublicKey, [u8; 16], Vec<u8>)>,
    /// Whether a new record is signed at the next welcome.
    is_to_sign: bool,
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
    pub(super) fn new(
        keys: LedgerKeys,
        (on_disk, registered): (Option<u64>, BTreeMap<At, u64>),
        is_held: bool,
    ) -> Self {
        Self {
            keys,
            on_disk,
            registered,
            stage: Stage::Unheard,
            is_held,
            was_held: is_held,
            heard: BTreeSet::new(),
            keepers: BTreeSet::new(),
            accusers: BTreeSet::new(),
            reading: None,
            to_read: BTreeSet::new(),
            read: BTreeSet::new(),
            due: None,
            found: BTreeMap::new(),
            is_from_start: false,
            unreadable: 0,
            messages: Vec::new(),
            is_to_sign: false,
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

    /// Whether a record that this rendezvous shows is newer than the last one that this state knows to be there.
    fn is_newer(&self, at: &At, record: &Record) -> bool {
        let known = self.registered.get(at).copied().or(self.on_disk);
        known.is_some_and(|known| record.sequence > known)
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
            if !self.past.is_settled() || !self.past.read.contains(at) {
                self.read_ledger(at);
            }
            return NOTHING;
        }
        let mut changed = NOTHING;
        if registered.is_some_and(|record| self.past.is_newer(at, record)) {
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
        changed = changed.and(match std::mem::take(&mut self.past.is_to_sign) {
            true => self.sign_record(self.record.ipv4),
            false => self.register_first(registered),
        });
        self.read_ledger(at);
        changed
    }

    /// Notes which rendezvous is given which record, and what the others had at this start: each shows by itself whether this
    /// state is an old one, also after the next start.
    pub(super) fn note_offered(&mut self) {
        let before = self.past.registered.clone();
        if let Some(on_disk) = self.past.on_disk {
            for at in self.meetings.keys() {
                self.past.registered.entry(*at).or_insert(on_disk);
            }
        }
        self.past.registered.extend(self.meetings.heard().map(|at| (at, self.record.sequence)));
        if self.past.registered != before
            && let Err(failure) = self.state.set_registered(&self.past.registered)
        {
            tracing::error!("{failure}");
        }
    }

    /// This process was copied while it ran, and perhaps rolled back. Each rendezvous is heard anew before a new record says
    /// that this copy goes on.
    pub(super) fn hear_anew(&mut self) {
        self.past.heard.clear();
        self.past.read.clear();
        self.past.is_to_sign = true;
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
        self.past.read.remove(at);
        self.meetings.hold_writes(at);
        if self.past.is_heard() {
            self.past.stage = Stage::Reading;
        }
        Ok(PEERS)
    }

    /// A newer record of ours was shown after all, when we registered for the first time.
    /// An error: that could not be written, so the record must not be replaced.
    pub(super) fn on_newer_record(&mut self, at: &At, record: &Record) -> Result<Changed, Changed> {
        if self.meetings.has_registered(at) || !self.past.is_newer(at, record) {
            return Ok(NOTHING);
        }
        let changed = self.hold(at)?;
        self.read_ledger(at);
        Ok(changed)
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
        self.past.was_held = false;
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
        // Not before: what waits for them may be older than what was just learned.
        let read: Vec<_> = self.past.read.iter().copied().collect();
        read.iter().for_each(|at| self.meetings.let_write(at, now()));
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

    /// Keeps our latest word to each peer. A rendezvous that has these bytes already is not told again.
    pub(super) fn keep_own_words(&mut self) {
        let peers: Vec<_> = self.book.relations().map(|relation| relation.identity).collect();
        for peer in peers {
            self.keep_own_word(&peer, None);
        }
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
                // Each rendezvous delivers it.
                let is_known = self.past.messages.iter().any(|known| (known.0, known.1) == (from, id));
                if !is_known && self.past.messages.len() < MAX_MESSAGES {
                    self.past.messages.push((from, id, sealed));
                }
                None
            }
            event => Some(event),
        }
    }
}
