//! What is due by the wall clock: the ends of messages, of names that were given up, and of agents.
//!
//! An entry says when to look. Whether something is to be done is decided then, from what is true then. There is one
//! entry for each thing, so the agenda is as long as what there is, however often it changes.

use std::collections::{BTreeMap, BTreeSet};

use overlay_wire::signed::PublicKey;

use super::agents::{Claim, QUARANTINE};
use super::stored::{address_key, agent_key, entry_key, mail_key, name_key, slot_key};
use super::{Effect, Registry};
use crate::mailbox::{MessageKey, SlotKey};
use crate::now::Now;
use crate::protocol::Label;
use crate::store::{Expected, Operation};

/// How long a message waits in a mailbox, in milliseconds: seven days.
pub(super) const MESSAGE_LIFETIME: u64 = 7 * 24 * 3_600 * 1_000;
/// The most entries that are handled at once, so that calls do not wait.
const MAX_AT_ONCE: usize = 64;
/// How many messages, slots and entries of an agent are forgotten with one operation.
const MAX_FORGOTTEN: usize = 60;
/// When an entry is looked at again whose turn came at a bad time, in milliseconds.
const SOON: u64 = 1_000;

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A message has waited long enough.
    Message(PublicKey, MessageKey),
    /// A name was given up long ago.
    Name(String),
    /// An address was given up long ago.
    Address([u8; 4]),
    /// An agent left long ago.
    Agent(PublicKey),
    /// An agent's record ended long ago.
    Abandoned(PublicKey),
    /// An ephemeral agent has been away for a while.
    Ephemeral(PublicKey),
}

/// The entries, in milliseconds since 1970. There is one for each thing.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_time: BTreeSet<(u64, Due)>,
    times: BTreeMap<Due, u64>,
}

impl Agenda {
    /// Notes when to look at something, in place of an earlier note.
    pub(super) fn add(&mut self, at: u64, due: Due) {
        self.remove(&due);
        self.times.insert(due.clone(), at);
        self.by_time.insert((at, due));
    }

    /// Takes off what is not there any more.
    pub(super) fn remove(&mut self, due: &Due) {
        if let Some((due, at)) = self.times.remove_entry(due) {
            self.by_time.remove(&(at, due));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: u64) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let (_, due) = self.by_time.pop_first()?;
        self.times.remove(&due);
        Some(due)
    }
}

impl Registry {
    /// Handles what is due.
    pub(super) fn handle_agenda(&mut self, now: Now) {
        for _ in 0..MAX_AT_ONCE {
            let Some(due) = self.agenda.pop(now.unix) else { return };
            if self.handle_due(&due, now).is_none() {
                self.agenda.add(now.unix + SOON, due);
            }
        }
    }

    /// Handles one entry. `None` if something it needs is under way.
    fn handle_due(&mut self, due: &Due, now: Now) -> Option<()> {
        let is_long_ago = |at: u64| now.unix >= at.saturating_add(QUARANTINE);
        let is_over = |claim: &&Claim| claim.released.is_some_and(is_long_ago);
        let mut operation = Operation::default();
        let mut forgotten = Forgotten { due: due.clone(), mail: Vec::new(), slots: Vec::new(), entries: Vec::new() };
        let lock = match due {
            Due::Abandoned(identity) => return self.on_abandoned(identity, now),
            Due::Ephemeral(identity) => return self.on_ephemeral_gone(identity, now),
            Due::Message(to, key) => {
                let Some(message) = self.mail.find(to, key) else { return Some(()) };
                if now.unix < message.arrived.saturating_add(MESSAGE_LIFETIME) {
                    return Some(());
                }
                operation.push(mail_key(to, key), Expected::Any, None);
                mail_key(to, key)
            }
            Due::Name(name) => {
                let Some(claim) = self.agents.names.find(name).filter(is_over) else { return Some(()) };
                operation.push(name_key(name), Expected::At(claim.revision), None);
                name_key(name)
            }
            Due::Address(address) => {
                let Some(claim) = self.agents.addresses.find(address).filter(is_over) else { return Some(()) };
                operation.push(address_key(*address), Expected::At(claim.revision), None);
                address_key(*address)
            }
            Due::Agent(identity) => {
                let left = self.agents.find(identity).filter(|agent| agent.record.is_none() && is_long_ago(agent.left));
                let Some(revision) = left.map(|agent| agent.revision) else { return Some(()) };
                forgotten.mail = self.mail.some_of(identity, MAX_FORGOTTEN);
                forgotten.slots = self.slots.some_of(identity, MAX_FORGOTTEN);
                forgotten.entries = self.ledgers.some_of(identity, MAX_FORGOTTEN);
                let mail = forgotten.mail.iter().map(|key| mail_key(identity, key));
                let slots = forgotten.slots.iter().map(|key| slot_key(identity, key));
                let entries = forgotten.entries.iter().map(|label| entry_key(identity, label));
                for key in mail.chain(slots).chain(entries) {
                    operation.push(key, Expected::Any, None);
                }
                // While there is more, the agent itself is kept.
                if !forgotten.is_full() {
                    operation.push(agent_key(identity), Expected::At(revision), None);
                }
                agent_key(identity)
            }
        };
        let locks = vec![lock];
        self.check_free(&locks).ok()?;
        self.commit(None, operation, locks, Effect::Forgotten(forgotten));
        Some(())
    }

    /// What was due is deleted from the store.
    pub(super) fn on_forgotten(&mut self, forgotten: Forgotten, now: Now) {
        let is_full = forgotten.is_full();
        match forgotten.due {
            Due::Message(to, key) => {
                if self.mail.remove(&to, &key).is_some() {
                    self.stats.expired_messages += 1;
                }
            }
            Due::Name(name) => self.agents.remove_name(&name),
            Due::Address(address) => self.agents.remove_address(address),
            Due::Agent(identity) => {
                for key in &forgotten.mail {
                    self.remove_letter(&identity, key);
                }
                for key in &forgotten.slots {
                    self.slots.remove(&identity, key);
                }
                for label in &forgotten.entries {
                    self.ledgers.remove(&identity, label);
                }
                if is_full {
                    self.agenda.add(now.unix, Due::Agent(identity));
                } else {
                    self.agents.remove(&identity);
                    self.epochs.remove(&identity);
                }
            }
            Due::Abandoned(_) | Due::Ephemeral(_) => {}
        }
    }
}

/// What an operation deletes.
#[derive(Debug)]
pub(super) struct Forgotten {
    due: Due,
    /// Messages to an agent that left.
    mail: Vec<MessageKey>,
    /// Slots for an agent that left.
    slots: Vec<SlotKey>,
    /// What it kept for itself.
    entries: Vec<Label>,
}

impl Forgotten {
    /// Whether there may be more of one of them.
    fn is_full(&self) -> bool {
        [self.mail.len(), self.slots.len(), self.entries.len()].contains(&MAX_FORGOTTEN)
    }
}
