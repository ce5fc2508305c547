//! What the agent wants of the rendezvous, and what of it is still to be done.
//!
//! A task names a piece of work, and its contents lie beside it. So a task that is done twice does no harm, and what
//! was replaced while it waited is sent in its newest form. After a lost connection everything that is wanted is
//! to be done again.

use std::collections::{BTreeMap, BTreeSet};

use overlay_wire::signed::{PublicKey, Record, Signed};

use super::event::{Query, TooMuch};
use crate::protocol::{Find, Label, MAX_ENTRIES, MAX_WATCHED, MAX_WATCHED_AT_ONCE, Slot, Verb};

/// The most messages, acknowledgements, slots and queries that wait.
const MAX_SENDS: usize = 256;
const MAX_ACKNOWLEDGEMENTS: usize = 1_024;
const MAX_SLOTS: usize = 8_192;
const MAX_FINDS: usize = 64;

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Register the record with this sequence.
    Register(u64),
    /// Give up the name.
    Release,
    /// Acknowledge a message: its sender and its id.
    Acknowledge(PublicKey, [u8; 16]),
    /// Watch an agent.
    Watch(PublicKey),
    /// Watch an agent no longer.
    Unwatch(PublicKey),
    /// Send a message: its recipient and its id.
    Send(PublicKey, [u8; 16]),
    /// Replace a slot.
    PutSlot(PublicKey, Slot),
    /// Answer a query.
    Find(Query),
    /// Replace an entry that the agent keeps for itself.
    PutEntry(Label),
    /// Read these entries.
    Entries,
    /// Ask for proof of membership.
    Membership,
}

/// Tasks that a rendezvous counts separately, or that wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Write,
    Watch,
    LookUp,
    Slot,
}

impl Class {
    pub(super) const COUNT: usize = 4;
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Write, Self::Watch, Self::LookUp, Self::Slot];
}

impl Task {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Register(_) | Self::Release | Self::Send(..) => Class::Write,
            Self::Watch(_) => Class::Watch,
            Self::PutSlot(..) | Self::PutEntry(_) => Class::Slot,
            Self::Acknowledge(..) | Self::Unwatch(_) | Self::Find(_) | Self::Entries | Self::Membership => {
                Class::LookUp
            }
        }
    }

    /// Whether the rendezvous does this for registered agents alone.
    fn needs_record(&self) -> bool {
        matches!(self, Self::Watch(_) | Self::Send(..) | Self::PutSlot(..) | Self::PutEntry(_) | Self::Membership)
    }

    /// Whether it replaces what was said before.
    fn writes(&self) -> bool {
        matches!(self, Self::Send(..) | Self::PutSlot(..) | Self::PutEntry(_))
    }

    /// Whether the rendezvous must keep what an agent keeps for itself.
    fn needs_entries(&self) -> bool {
        matches!(self, Self::PutEntry(_) | Self::Entries)
    }
}

/// What can be done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Can {
    /// The rendezvous has our record.
    pub(super) is_registered: bool,
    /// What is said to others may be written.
    pub(super) may_write: bool,
    /// It keeps what an agent keeps for itself.
    pub(super) keeps_entries: bool,
    /// It vouches for its members.
    pub(super) vouches: bool,
    /// It looks for records by more than one property.
    pub(super) filters: bool,
}

impl Can {
    fn does(self, task: &Task) -> bool {
        (self.is_registered || !task.needs_record())
            && (self.may_write || !task.writes())
            && (self.keeps_entries || !task.needs_entries())
            && (self.vouches || *task != Task::Membership)
    }
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The sealed bytes.
    pub sealed: Vec<u8>,
    /// An envelope of kind `permit`, if there is one.
    pub permit: Option<Vec<u8>>,
}

/// All that is wanted.
#[derive(Debug, Default)]
pub(super) struct Work {
    record: Option<Signed<Record>>,
    release: Option<Vec<u8>>,
    watched: BTreeSet<PublicKey>,
    acknowledgements: BTreeSet<(PublicKey, [u8; 16])>,
    sends: BTreeMap<(PublicKey, [u8; 16]), Outgoing>,
    slots: BTreeMap<(PublicKey, Slot), Vec<u8>>,
    finds: BTreeMap<Query, (Find, Option<PublicKey>)>,
    entries: BTreeMap<Label, Vec<u8>>,
    /// Above which label entries are read, if they are.
    reading: Option<Option<Label>>,
    /// Which rendezvous is asked for proof of membership, while it is.
    voucher: Option<PublicKey>,
    last_query: u64,
    /// What this rendezvous refused on this connection and is still wanted. It is tried again after everything else.
    refused: BTreeSet<Task>,
    /// What is to be done, by class.
    todo: [BTreeSet<Task>; Class::COUNT],
}

impl Work {
    pub(super) fn set_record(&mut self, record: Signed<Record>) {
        self.on_registered();
        self.add(Task::Register(record.sequence));
        self.record = Some(record);
    }

    pub(super) fn record(&self) -> Option<&Signed<Record>> {
        self.record.as_ref()
    }

    /// The record need not be registered now: it is, or there is a newer one.
    pub(super) fn on_registered(&mut self) {
        if let Some(task) = self.register() {
            self.drop_task(&task);
        }
    }

    /// The record is to be registered again.
    pub(super) fn register_again(&mut self) {
        if let Some(task) = self.register() {
            self.add(task);
        }
    }

    fn register(&self) -> Option<Task> {
        self.record.as_ref().map(|record| Task::Register(record.sequence))
    }

    pub(super) fn set_release(&mut self, release: Vec<u8>) {
        self.on_registered();
        self.record = None;
        self.release = Some(release);
        self.add(Task::Release);
    }

    pub(super) fn add_find(&mut self, by: Find, after: Option<PublicKey>) -> Result<Query, TooMuch> {
        if self.finds.len() >= MAX_FINDS {
            return Err(TooMuch);
        }
        self.last_query += 1;
        let query = Query(self.last_query);
        self.finds.insert(query, (by, after));
        self.add(Task::Find(query));
        Ok(query)
    }

    /// By what a query looks for records, and above which identity.
    pub(super) fn find_of(&self, query: Query) -> Option<&(Find, Option<PublicKey>)> {
        self.finds.get(&query)
    }

    pub(super) fn add_send(&mut self, to: PublicKey, id: [u8; 16], outgoing: Outgoing) -> Result<(), TooMuch> {
        if self.sends.len() >= MAX_SENDS && !self.sends.contains_key(&(to, id)) {
            return Err(TooMuch);
        }
        self.sends.insert((to, id), outgoing);
        self.add(Task::Send(to, id));
        Ok(())
    }

    pub(super) fn put_slot(&mut self, to: PublicKey, slot: Slot, sealed: Vec<u8>) -> Result<(), TooMuch> {
        if self.slots.len() >= MAX_SLOTS && !self.slots.contains_key(&(to, slot)) {
            return Err(TooMuch);
        }
        self.slots.insert((to, slot), sealed);
        self.add(Task::PutSlot(to, slot));
        Ok(())
    }

    pub(super) fn forget_slots(&mut self, to: &PublicKey) {
        for slot in Slot::ALL {
            self.slots.remove(&(*to, slot));
            self.drop_task(&Task::PutSlot(*to, slot));
            self.refused.remove(&Task::PutSlot(*to, slot));
        }
    }

    /// Returns whether there was a different entry under this label.
    pub(super) fn put_entry(&mut self, label: Label, sealed: Vec<u8>, is_kept: bool) -> Result<bool, TooMuch> {
        match self.entries.get(&label) {
            Some(known) if *known == sealed => return Ok(false),
            None if self.entries.len() >= MAX_ENTRIES => return Err(TooMuch),
            _ => {}
        }
        let former = self.entries.insert(label, sealed);
        if is_kept {
            self.drop_task(&Task::PutEntry(label));
        } else {
            self.add(Task::PutEntry(label));
        }
        Ok(former.is_some())
    }

    pub(super) fn read_entries(&mut self, after: Option<Label>) {
        self.reading = Some(after);
        self.add(Task::Entries);
    }

    /// Above which label entries are read.
    pub(super) fn reading(&self) -> Option<Option<Label>> {
        self.reading
    }

    pub(super) fn ask_membership(&mut self, rendezvous: PublicKey) {
        self.voucher = Some(rendezvous);
        self.add(Task::Membership);
    }

    /// The rendezvous that is asked for proof of membership.
    pub(super) fn voucher(&self) -> Option<PublicKey> {
        self.voucher
    }

    pub(super) fn watch(&mut self, identities: &[PublicKey]) -> Result<(), TooMuch> {
        let new: BTreeSet<_> = identities.iter().filter(|identity| !self.watched.contains(identity)).copied().collect();
        if self.watched.len() + new.len() > MAX_WATCHED {
            return Err(TooMuch);
        }
        for identity in new {
            self.watched.insert(identity);
            self.drop_task(&Task::Unwatch(identity));
            self.add(Task::Watch(identity));
        }
        Ok(())
    }

    pub(super) fn unwatch(&mut self, identities: &[PublicKey]) {
        for identity in identities {
            if self.watched.remove(identity) {
                self.drop_task(&Task::Watch(*identity));
                self.refused.remove(&Task::Watch(*identity));
                self.add(Task::Unwatch(*identity));
            }
        }
    }

    pub(super) fn watches(&self, identity: &PublicKey) -> bool {
        self.watched.contains(identity)
    }

    pub(super) fn acknowledge(&mut self, from: PublicKey, id: [u8; 16]) -> Result<(), TooMuch> {
        if self.acknowledgements.len() >= MAX_ACKNOWLEDGEMENTS {
            return Err(TooMuch);
        }
        self.acknowledgements.insert((from, id));
        self.add(Task::Acknowledge(from, id));
        Ok(())
    }

    /// Puts a task back that was refused for now, unless it is not wanted any more.
    pub(super) fn put_back(&mut self, task: Task) {
        let is_wanted = match &task {
            Task::Register(_) => self.register().as_ref() == Some(&task),
            Task::Release => self.release.is_some(),
            Task::Acknowledge(from, id) => self.acknowledgements.contains(&(*from, *id)),
            Task::Watch(identity) => self.watched.contains(identity),
            Task::Unwatch(identity) => !self.watched.contains(identity),
            Task::Send(to, id) => self.sends.contains_key(&(*to, *id)),
            Task::PutSlot(to, slot) => self.slots.contains_key(&(*to, *slot)),
            Task::Find(query) => self.finds.contains_key(query),
            Task::PutEntry(label) => self.entries.contains_key(label),
            Task::Entries => self.reading.is_some(),
            Task::Membership => self.voucher.is_some(),
        };
        if is_wanted {
            self.add(task);
        }
    }

    /// The rendezvous refused a watch, a slot or an entry. Until it takes it, it comes after the others, so that it holds up none.
    pub(super) fn on_refused(&mut self, task: &Task) {
        let is_wanted = match task {
            Task::Watch(identity) => self.watched.contains(identity),
            Task::PutSlot(to, slot) => self.slots.contains_key(&(*to, *slot)),
            Task::PutEntry(label) => self.entries.contains_key(label),
            _ => false,
        };
        if is_wanted {
            self.refused.insert(task.clone());
        }
    }

    /// Whether the rendezvous has refused to tell of an agent that is watched.
    pub(super) fn is_watch_refused(&self) -> bool {
        self.refused.iter().any(|task| matches!(task, Task::Watch(_)))
    }

    /// The rendezvous has done a task.
    pub(super) fn on_done(&mut self, task: &Task) {
        self.refused.remove(task);
        self.on_settled(task);
    }

    /// A task was done, or refused for good. What is wanted after each connection stays.
    pub(super) fn on_settled(&mut self, task: &Task) {
        match task {
            Task::Release => self.release = None,
            Task::Acknowledge(from, id) => drop(self.acknowledgements.remove(&(*from, *id))),
            Task::Send(to, id) => drop(self.sends.remove(&(*to, *id))),
            Task::Find(query) => drop(self.finds.remove(query)),
            Task::Entries => self.reading = None,
            Task::Membership => self.voucher = None,
            Task::Register(_) | Task::Watch(_) | Task::Unwatch(_) | Task::PutSlot(..) | Task::PutEntry(_) => {}
        }
    }

    /// Everything is to be done again.
    pub(super) fn on_connection_lost(&mut self) {
        self.todo = Default::default();
        self.refused.clear();
        let register = self.register().into_iter();
        let release = self.release.iter().map(|_| Task::Release);
        let acknowledge = self.acknowledgements.iter().map(|(from, id)| Task::Acknowledge(*from, *id));
        let watch = self.watched.iter().copied().map(Task::Watch);
        let send = self.sends.keys().map(|(to, id)| Task::Send(*to, *id));
        let put = self.slots.keys().map(|(to, slot)| Task::PutSlot(*to, *slot));
        let find = self.finds.keys().copied().map(Task::Find);
        let entries = self.entries.keys().copied().map(Task::PutEntry).chain(self.reading.map(|_| Task::Entries));
        let membership = self.voucher.map(|_| Task::Membership);
        let all = register.chain(release).chain(acknowledge).chain(watch).chain(send).chain(put).chain(find);
        let all: Vec<_> = all.chain(entries).chain(membership).collect();
        all.into_iter().for_each(|task| self.add(task));
    }

    /// Whether anything of a class is to be done.
    pub(super) fn wants(&self, class: Class) -> bool {
        !self.todo[class as usize].is_empty()
    }

    /// The first task of a class that can be done. What was refused comes last.
    pub(super) fn first(&self, class: Class, can: Can) -> Option<&Task> {
        let todo = || self.todo[class as usize].iter().filter(|task| can.does(task));
        todo().find(|task| !self.refused.contains(task)).or_else(|| todo().next())
    }

    /// Takes the first tasks of a class that can be done, as one call.
    pub(super) fn take(&mut self, class: Class, can: Can) -> Option<(Vec<Task>, Verb)> {
        loop {
            let first = self.first(class, can)?.clone();
            self.drop_task(&first);
            let mut tasks = vec![first];
            if let Some(verb) = self.verb(&mut tasks, can) {
                return Some((tasks, verb));
            }
        }
    }

    /// The call for the one task in `tasks`. Agents to watch are joined to a chunk. `None` if it has no contents.
    fn verb(&mut self, tasks: &mut Vec<Task>, can: Can) -> Option<Verb> {
        Some(match tasks[0].clone() {
            Task::Register(_) => Verb::Register { record: self.record.as_ref()?.bytes().to_vec().into() },
            Task::Release => Verb::Release { release: self.release.clone()?.into() },
            Task::Acknowledge(from, message) => Verb::Acknowledge { from, message },
            Task::Watch(_) => Verb::Watch { identities: self.chunk(tasks) },
            Task::Unwatch(_) => Verb::Unwatch { identities: self.chunk(tasks) },
            Task::Send(to, message) => {
                let outgoing = self.sends.get(&(to, message))?.clone();
                let permit = outgoing.permit.map(Into::into);
                Verb::Send { to, message, sealed: outgoing.sealed.into(), permit }
            }
            Task::PutSlot(to, slot) => Verb::PutSlot { to, slot, sealed: self.slots.get(&(to, slot))?.clone().into() },
            Task::Find(query) => {
                let (by, after) = self.finds.get(&query)?.clone();
                Verb::Find { by: if can.filters { by } else { by.without_filter() }, after }
            }
            Task::PutEntry(label) => Verb::PutEntry { label, sealed: self.entries.get(&label)?.clone().into() },
            Task::Entries => Verb::Entries { after: self.reading? },
            Task::Membership => self.voucher.map(|_| Verb::Membership)?,
        })
    }

    /// Takes more tasks of the same kind, and returns the identities of all.
    fn chunk(&mut self, tasks: &mut Vec<Task>) -> Vec<PublicKey> {
        let is_watch = matches!(tasks[0], Task::Watch(_));
        let todo = &mut self.todo[tasks[0].class() as usize];
        let same = todo.iter().filter(|task| matches!(task, Task::Watch(_) | Task::Unwatch(_)));
        let same = same.filter(|task| matches!(task, Task::Watch(_)) == is_watch);
        tasks.extend(same.take(MAX_WATCHED_AT_ONCE - 1).cloned().collect::<Vec<_>>());
        for task in tasks.iter() {
            todo.remove(task);
        }
        let identity = |task: &Task| match task {
            Task::Watch(identity) | Task::Unwatch(identity) => Some(*identity),
            _ => None,
        };
        tasks.iter().filter_map(identity).collect()
    }

    fn add(&mut self, task: Task) {
        self.todo[task.class() as usize].insert(task);
    }

    fn drop_task(&mut self, task: &Task) {
        self.todo[task.class() as usize].remove(task);
    }
}
