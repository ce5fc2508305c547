//! What other processes write to the same store.
//!
//! A store that several processes share tells each of them every change, in the order of revisions, its own changes among
//! them. [`Registry::follow`] takes them in, and shows those that are connected here what concerns them, as if this process
//! had written it.
//!
//! * A change that this process has written itself is in memory already. So is one that this process has replaced since.
//! * While an operation of this process writes an entry, changes of that entry wait for its outcome. It may be one of them.
//! * Two processes that claim the same thing write with a condition, so one of them fails. Its caller is told to ask again,
//!   and finds what the other one has written.
//!
//! An agent is connected to one process. Each process writes to the store who is connected to it, in entries that end with the
//! process. The newest of them counts, and the process with an older connection of the same agent closes that.

use std::collections::BTreeMap;

use overlay_wire::signed::PublicKey;

use super::stored::{
    ADDRESSES, AGENTS, BANS, ENTRIES, MAIL, NAMES, PRESENCE, SLOTS, TOKENS, parse_entry_key, parse_mail_key,
    parse_presence_key, parse_slot_key,
};
use super::{NotCommitted, Output, REPLACED_WAIT, Registry, Ticket};
use crate::now::Now;
use crate::protocol::Push;
use crate::store::{Change, Entry, Operation, Revision};

const PREFIXES: [&[u8]; 8] = [AGENTS, NAMES, ADDRESSES, TOKENS, BANS, MAIL, SLOTS, ENTRIES];

/// What this process knows of the others.
#[derive(Debug)]
pub(super) struct Shared {
    /// Names this process among those that share the store.
    process: u64,
    /// The keys that each operation under way writes.
    under_way: BTreeMap<Ticket, Vec<Vec<u8>>>,
    keys: BTreeMap<Vec<u8>, Held>,
    /// What this process has written and was not told yet.
    own: BTreeMap<Revision, Vec<Vec<u8>>>,
    /// The agents that are connected to other processes, and to which.
    elsewhere: BTreeMap<PublicKey, u64>,
}

/// An entry that this process writes, or has written.
#[derive(Debug, Default)]
struct Held {
    /// How many operations under way write it.
    under_way: usize,
    /// The latest that have succeeded. 0: none.
    latest: Revision,
    /// What others have written meanwhile.
    waiting: Vec<Change>,
}

impl Shared {
    pub(super) fn new(process: u64) -> Self {
        Self {
            process,
            under_way: BTreeMap::new(),
            keys: BTreeMap::new(),
            own: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// An operation is on its way.
    pub(super) fn on_commit(&mut self, ticket: Ticket, operation: &Operation) {
        let keys: Vec<_> = operation.writes.iter().map(|write| write.key.clone()).collect();
        for key in &keys {
            self.keys.entry(key.clone()).or_default().under_way += 1;
        }
        self.under_way.insert(ticket, keys);
    }

    /// Its outcome is known. Returns the changes that have waited for it and count.
    fn on_outcome(&mut self, ticket: Ticket, outcome: Result<Revision, NotCommitted>) -> Vec<Change> {
        let keys = self.under_way.remove(&ticket).unwrap_or_default();
        let mut later = Vec::new();
        for key in &keys {
            let Some(held) = self.keys.get_mut(key) else { continue };
            held.under_way -= 1;
            if let Ok(revision) = outcome {
                held.latest = held.latest.max(revision);
            }
            if held.under_way == 0 {
                let latest = held.latest;
                later.extend(std::mem::take(&mut held.waiting).into_iter().filter(|change| change.revision > latest));
                if latest == Revision(0) {
                    self.keys.remove(key);
                }
            }
        }
        if let Ok(revision) = outcome {
            self.own.entry(revision).or_default().extend(keys);
        }
        later.sort_by_key(|change| change.revision);
        later
    }

    /// Takes a change. `None`: it is in memory already, or has to wait.
    fn admit(&mut self, change: Change) -> Option<Change> {
        let later = self.own.split_off(&change.revision);
        for (revision, key) in std::mem::replace(&mut self.own, later)
            .into_iter()
            .flat_map(|(revision, keys)| keys.into_iter().map(move |key| (revision, key)))
        {
            if self.keys.get(&key).is_some_and(|held| held.latest == revision && held.under_way == 0) {
                self.keys.remove(&key);
            }
        }
        match self.keys.get_mut(&change.key) {
            Some(held) if held.under_way > 0 => {
                held.waiting.push(change);
                None
            }
            Some(held) if held.latest >= change.revision => None,
            _ => Some(change),
        }
    }

    /// Whether no more is kept of what was written than the latest.
    #[cfg(test)]
    pub(super) fn is_small(&self) -> bool {
        self.under_way.is_empty() && self.own.len() <= 1 && self.keys.len() <= self.own.values().map(Vec::len).sum()
    }

    /// Whether an agent is connected to a different process.
    pub(super) fn has_elsewhere(&self, identity: &PublicKey) -> bool {
        self.elsewhere.contains_key(identity)
    }
}

impl Registry {
    /// The store is shared: from now on [`Registry::follow`] tells of every change since it was opened. `process` names this
    /// process among the others.
    pub fn share(&mut self, process: u64) {
        self.shared = Some(Shared::new(process));
    }

    /// An entry of a shared store has changed.
    pub fn follow(&mut self, change: Change, now: Now) {
        self.revision = self.revision.max(change.revision);
        let Some(shared) = &mut self.shared else { return };
        if let Some(key) = change.key.strip_prefix(PRESENCE) {
            if let Some(identity) = parse_presence_key(key) {
                self.follow_presence(identity, change.value.as_deref());
            }
        } else if let Some(change) = shared.admit(change) {
            self.take_in(change, now);
        }
    }

    /// An operation of this process has an outcome: takes in what others have written meanwhile.
    pub(super) fn follow_late(&mut self, ticket: Ticket, outcome: Result<Revision, NotCommitted>, now: Now) {
        let late = self.shared.as_mut().map(|shared| shared.on_outcome(ticket, outcome)).unwrap_or_default();
        for change in late {
            self.take_in(change, now);
        }
    }

    fn take_in(&mut self, change: Change, now: Now) {
        self.stats.followed += 1;
        let Change { key, revision, value } = change;
        let Some(prefix) = PREFIXES.into_iter().find(|prefix| key.starts_with(prefix)) else { return };
        let key = &key[prefix.len()..];
        let Some(value) = value else {
            self.forget(prefix, key);
            return;
        };
        let before = self.before(prefix, key);
        let entry = Entry { revision, value };
        if self.load(prefix, key, &entry, now).is_none() {
            self.stats.damaged_entries += 1;
            self.stand_in(prefix, key, &entry, now);
        }
        self.show(prefix, key, before);
    }

    /// Whether a message was known before: whether it was waiting.
    fn before(&self, prefix: &[u8], key: &[u8]) -> Option<bool> {
        let (to, key) = parse_mail_key(key).filter(|_| prefix == MAIL)?;
        Some(self.mail.find(&to, &key)?.sealed.is_some())
    }

    /// Shows a change to those that are connected here.
    fn show(&mut self, prefix: &[u8], key: &[u8], before: Option<bool>) {
        match prefix {
            AGENTS => {
                let Ok(identity) = key.try_into().map(PublicKey) else { return };
                let record = self.agents.record(&identity).map(|record| record.bytes().to_vec());
                // An agent whose record is gone is connected here no longer: somebody has removed it.
                let Some(record) = record else { return self.end_presence(&identity) };
                for connection in self.watches.watchers(&identity) {
                    self.push(connection, Push::Record { record: record.clone().into() });
                }
            }
            BANS => {
                if let Ok(identity) = key.try_into().map(PublicKey) {
                    self.end_presence(&identity);
                }
            }
            MAIL => {
                let Some((to, key)) = parse_mail_key(key) else { return };
                let Some(message) = self.mail.find(&to, &key) else { return };
                match (message.sealed.clone(), before) {
                    (Some(_), Some(_)) | (None, Some(false)) => {}
                    (Some(sealed), None) => {
                        let recipient = self.leases.connection(&to).filter(|to| self.is_greeted(*to));
                        if let Some(recipient) = recipient {
                            self.push(recipient, Push::Message { from: key.0, message: key.1, sealed: sealed.into() });
                        }
                    }
                    (None, _) => {
                        let sender = self.leases.connection(&key.0).filter(|sender| self.is_greeted(*sender));
                        if let Some(sender) = sender {
                            self.mail.on_told(&to, &key);
                            self.push(sender, Push::Delivered { to, message: key.1 });
                        }
                    }
                }
            }
            SLOTS => {
                let Some((to, (from, slot))) = parse_slot_key(key) else { return };
                let recipient = self.leases.connection(&to).filter(|it| self.watches.is_watched_by(*it, &from));
                let sealed = self.slots.of(&to, &from).into_iter().find(|(kept, _)| *kept == slot);
                if let (Some(recipient), Some((_, sealed))) = (recipient, sealed) {
                    self.push(recipient, Push::Slot { from, slot, sealed: sealed.into() });
                }
            }
            _ => {}
        }
    }

    /// An entry was deleted.
    fn forget(&mut self, prefix: &[u8], key: &[u8]) -> Option<()> {
        match prefix {
            AGENTS => {
                let identity = PublicKey(key.try_into().ok()?);
                self.agents.remove(&identity);
                self.epochs.remove(&identity);
            }
            NAMES => self.agents.remove_name(&String::from_utf8(key.to_vec()).ok()?),
            ADDRESSES => self.agents.remove_address(key.try_into().ok()?),
            TOKENS => drop(self.tokens.remove(&PublicKey(key.try_into().ok()?))),
            BANS => drop(self.bans.remove(&PublicKey(key.try_into().ok()?))),
            MAIL => {
                let (to, key) = parse_mail_key(key)?;
                self.remove_letter(&to, &key);
            }
            SLOTS => {
                let (to, key) = parse_slot_key(key)?;
                self.slots.remove(&to, &key);
            }
            ENTRIES => {
                let (owner, label) = parse_entry_key(key)?;
                self.ledgers.remove(&owner, &label);
            }
            _ => {}
        }
        Some(())
    }

    /// An agent has connected to a process, or is connected to that one no longer. `process`: which one, as it wrote.
    fn follow_presence(&mut self, identity: PublicKey, process: Option<&[u8]>) {
        let was_present = self.is_present(&identity);
        let process = process.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let Some(shared) = &mut self.shared else { return };
        match process {
            Some(process) if process == shared.process => {
                shared.elsewhere.remove(&identity);
                self.leases.on_shown(&identity);
            }
            Some(process) => {
                shared.elsewhere.insert(identity, process);
                // A connection that others have yet to be told of is the newer one.
                if self.leases.is_shown(&identity) {
                    let connection = self.leases.connection(&identity);
                    self.leases.end(&identity);
                    if let Some(connection) = connection {
                        self.stats.replaced_connections += 1;
                        if self.is_greeted(connection) {
                            self.push(connection, Push::Reconnect { wait: REPLACED_WAIT });
                        }
                        self.close(connection);
                    }
                }
            }
            None => drop(shared.elsewhere.remove(&identity)),
        }
        let is_present = self.is_present(&identity);
        if is_present != was_present {
            self.push_presence(&identity, is_present);
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether an agent is connected to this process or a different one, or was a moment ago.
    pub(super) fn is_present(&self, identity: &PublicKey) -> bool {
        self.leases.is_present(identity) || self.shared.as_ref().is_some_and(|shared| shared.has_elsewhere(identity))
    }

    /// Tells the other processes that an agent is connected to this one, or no longer.
    pub(super) fn show_presence(&mut self, identity: &PublicKey, is_present: bool) {
        if self.is_shared() {
            self.outputs.push_back(Output::Present { identity: *identity, is_present });
        }
    }
}
