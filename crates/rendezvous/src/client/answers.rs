//! What becomes of a call.

use std::time::Duration;

use minicbor::bytes::ByteVec;
use overlay_wire::signed::{Membership, Network, Object, PublicKey, Record, Signed};

use super::asked::Asked;
use super::distrust::Distrust;
use super::event::{Event, Query};
use super::work::{Class, Task};
use super::{Client, LONGEST_WAIT, State};
use crate::now::Now;
use crate::protocol::{Code, Entry, FILTERS_SINCE, Label, MAX_ENTRY_LEN, RelayAt, Reply};

/// How long to wait if the rendezvous does not say how long.
const A_MOMENT: Duration = Duration::from_secs(1);
/// The shortest wait that is believed: a rendezvous cannot make us ask without pause.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// How often a record is registered at once on one connection after the rendezvous forgot or refused it.
const REGISTERED_AT_ONCE: u32 = 4;
/// How long each further registration waits.
const REGISTER_WAIT: Duration = Duration::from_secs(30);
/// The longest time until a record that was refused is registered again.
const LONGEST_REGISTER_WAIT: Duration = Duration::from_secs(300);
/// The shortest wait until a rendezvous that had no room is asked again. Others have to leave first.
const FULL_WAIT: Duration = Duration::from_secs(30);

impl Client {
    pub(super) fn on_answer(&mut self, id: u32, reply: Reply, now: Now) {
        let State::Up(session) = &mut self.state else { return };
        let Some(asked) = session.outstanding.take(id) else { return };
        match (asked, reply) {
            (Asked::Ping, Reply::Revision { time, .. }) => {
                session.heard = now.monotonic;
                self.tell(Event::Clock { time });
            }
            (Asked::Hello, Reply::Welcome { network, record, epoch, seen_from, relay }) => {
                self.on_welcome(&network, record.as_ref(), (epoch, seen_from.into(), relay), now);
            }
            (Asked::Tasks(tasks), Reply::Done) => tasks.iter().for_each(|task| self.on_done(task)),
            (Asked::Tasks(tasks), Reply::Found { records, next }) => match tasks[..] {
                [Task::Find(query)] => self.on_found(query, &records, next),
                _ => self.give_up(now),
            },
            (Asked::Tasks(tasks), Reply::Entries { entries, next }) => match tasks[..] {
                [Task::Entries] => self.on_entries(entries, next),
                _ => self.give_up(now),
            },
            (Asked::Tasks(tasks), Reply::Membership { membership }) => match tasks[..] {
                [Task::Membership] => self.on_membership(&membership),
                _ => self.give_up(now),
            },
            (Asked::Tasks(tasks), Reply::Refused { code: Code::Later, wait, .. }) => {
                self.try_again(tasks, bounded(wait), now);
            }
            // What an agent watches and keeps is wanted until it says otherwise. There may be room later.
            (Asked::Tasks(tasks), Reply::Refused { code: Code::Full, wait, .. })
                if matches!(tasks[..], [Task::Watch(_) | Task::PutSlot(..) | Task::PutEntry(_), ..]) =>
            {
                let wait = wait.map_or(FULL_WAIT, |wait| Duration::from_millis(wait.into()));
                tasks.iter().for_each(|task| self.work.on_refused(task));
                self.try_again(tasks, wait.clamp(FULL_WAIT, LONGEST_WAIT), now);
            }
            (Asked::Tasks(tasks), Reply::Refused { code, ipv4, record, .. }) => {
                for task in tasks {
                    self.on_refused(task, code, (ipv4, record.as_ref()), now);
                }
            }
            // A refusal is an answer, too: the rendezvous is there.
            (Asked::Ping, Reply::Refused { .. }) => session.heard = now.monotonic,
            (Asked::Hello, Reply::Refused { code: Code::Later, wait, .. }) => {
                session.next_hello = Some(now.monotonic + bounded(wait));
            }
            // The rendezvous has nothing for us now, or does not keep to the protocol.
            _ => self.give_up(now),
        }
    }

    /// Puts tasks back, and holds their class for a while.
    fn try_again(&mut self, tasks: Vec<Task>, wait: Duration, now: Now) {
        let State::Up(session) = &mut self.state else { return };
        for task in tasks {
            session.hold(task.class(), now.monotonic + wait);
            self.work.put_back(task);
        }
    }

    fn on_welcome(
        &mut self,
        network: &[u8],
        record: Option<&ByteVec>,
        (epoch, seen_from, relay): (u64, Vec<u8>, Option<RelayAt>),
        now: Now,
    ) {
        let network = match Signed::<Network>::open(network) {
            Ok(network) if *network.signer() == self.network => network,
            opened => {
                self.distrust(opened.err().map_or(Distrust::WrongNetwork, Distrust::Refused));
                return self.give_up(now);
            }
        };
        let record = record.and_then(|bytes| self.open_own(bytes));
        let State::Up(session) = &mut self.state else { return };
        session.is_welcome = true;
        session.is_registered = record.is_some();
        let is_same = |ours: &&Signed<Record>| record.as_ref().is_some_and(|theirs| theirs.bytes() == ours.bytes());
        let registered = self.work.record().filter(is_same).map(|record| record.sequence);
        let network = Box::new(network);
        let keeps_entries = session.keeps_entries();
        self.tell(Event::Online { network, record: record.map(Box::new), epoch, seen_from, keeps_entries, relay });
        if let Some(sequence) = registered {
            self.work.on_registered();
            self.tell(Event::Registered { sequence });
        }
    }

    fn on_done(&mut self, task: &Task) {
        let State::Up(session) = &mut self.state else { return };
        match task {
            Task::Register(sequence) => {
                (session.is_registered, session.next_register, session.refused_records) = (true, None, 0);
                self.tell(Event::Registered { sequence: *sequence });
            }
            Task::Release => session.is_registered = false,
            Task::Send(to, id) => self.tell(Event::Sent { to: *to, id: *id }),
            _ => {}
        }
        self.work.on_done(task);
    }

    fn on_found(&mut self, query: Query, found: &[ByteVec], next: Option<PublicKey>) {
        let Some((by, after)) = self.work.find_of(query).cloned() else { return };
        let mut records: Vec<_> = found.iter().filter_map(|bytes| self.open(bytes)).collect();
        let all = records.len();
        let asked = match &self.state {
            State::Up(session) if session.version < FILTERS_SINCE => by.without_filter(),
            _ => by.clone(),
        };
        records.retain(|record| asked.matches(record));
        for _ in records.len()..all {
            self.distrust(Distrust::NotAsked);
        }
        records.retain(|record| by.matches(record));
        // Pages that go back or stand still would never end.
        let goes_on = |next: &PublicKey| after.is_none_or(|after| after < *next);
        if next.is_some_and(|next| !goes_on(&next)) {
            self.distrust(Distrust::Page);
        }
        let next = next.filter(goes_on);
        self.work.on_settled(&Task::Find(query));
        self.tell(Event::Found { query, records, next });
    }

    /// Entries are in the order of their labels, and a page goes on where the one before it has ended. Anything else is not an
    /// answer: pages that go back would never end.
    fn on_entries(&mut self, entries: Vec<Entry>, next: Option<Label>) {
        let Some(after) = self.work.reading() else { return };
        self.work.on_settled(&Task::Entries);
        let labels = || after.into_iter().chain(entries.iter().map(|entry| entry.label));
        let is_in_order = labels().is_sorted_by(|one, other| one < other);
        let goes_on = next.is_none_or(|next| entries.last().is_some_and(|last| last.label == next));
        let is_too_long = entries.iter().any(|entry| entry.sealed.len() > MAX_ENTRY_LEN);
        if !is_in_order || !goes_on || is_too_long {
            self.distrust(if is_too_long { Distrust::TooLong } else { Distrust::Page });
            return self.tell(Event::Refused { subject: Task::Entries, code: Code::Malformed });
        }
        let entries = entries.into_iter().map(|entry| (entry.label, entry.sealed.into())).collect();
        self.tell(Event::Entries { entries, next });
    }

    /// Proof of membership is of use only if it is ours and signed by the rendezvous that was asked.
    fn on_membership(&mut self, bytes: &[u8]) {
        let Some(rendezvous) = self.work.voucher() else { return };
        self.work.on_settled(&Task::Membership);
        let opened = Signed::<Membership>::open(bytes);
        let distrust = match opened {
            Ok(membership) if membership.network != self.network => Distrust::WrongNetwork,
            Ok(membership) if (membership.rendezvous, membership.identity) != (rendezvous, self.identity) => {
                Distrust::NotOurs
            }
            Ok(membership) => return self.tell(Event::Membership(Box::new(membership))),
            Err(refused) => Distrust::Refused(refused),
        };
        self.distrust(distrust);
        self.tell(Event::Refused { subject: Task::Membership, code: Code::Malformed });
    }

    fn on_refused(&mut self, task: Task, code: Code, (ipv4, record): (Option<[u8; 4]>, Option<&ByteVec>), now: Now) {
        match (&task, code) {
            (Task::Register(_), Code::Ipv4) => {
                self.on_unregistered(now);
                // The agent may keep the address that it has. Some day it is free here, too.
                self.register_later(now);
                self.tell(Event::NeedsIpv4 { address: ipv4 });
            }
            (Task::Register(_), Code::TooOld) => {
                self.on_unregistered(now);
                match record.map(|bytes| self.open_own(bytes)) {
                    // What is shown is not ours, so it says nothing about our sequence.
                    Some(None) => self.register_later(now),
                    told => self.tell(Event::TooOld { record: told.flatten().map(Box::new) }),
                }
            }
            // The rendezvous has lost our record. What waits for it is done once it is registered again.
            (
                Task::Watch(_) | Task::Send(..) | Task::PutSlot(..) | Task::PutEntry(_) | Task::Membership,
                Code::Unregistered,
            ) => {
                if let State::Up(session) = &mut self.state
                    && std::mem::replace(&mut session.is_registered, false)
                {
                    self.on_unregistered(now);
                    self.work.register_again();
                }
                self.work.put_back(task);
            }
            _ => {
                if matches!(task, Task::Register(_)) {
                    self.register_later(now);
                }
                self.work.on_refused(&task);
                self.work.on_settled(&task);
                self.tell(Event::Refused { subject: task, code });
            }
        }
    }

    /// Registers the record again after a while, though it was refused: a ban is lifted, a name becomes free, a clock is set.
    fn register_later(&mut self, now: Now) {
        let State::Up(session) = &mut self.state else { return };
        let wait = REGISTER_WAIT * 2_u32.saturating_pow(session.refused_records.min(8));
        session.refused_records = session.refused_records.saturating_add(1);
        session.next_register = Some(now.monotonic + wait.min(LONGEST_REGISTER_WAIT));
    }

    /// The record is about to be registered once more. That ends somewhere, or else it is not done at once any more.
    fn on_unregistered(&mut self, now: Now) {
        let State::Up(session) = &mut self.state else { return };
        session.unregistered = session.unregistered.saturating_add(1);
        if session.unregistered > REGISTERED_AT_ONCE {
            session.hold(Class::Write, now.monotonic + REGISTER_WAIT);
        }
    }

    /// A record of this network.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Option<Signed<Record>> {
        match Signed::<Record>::open(bytes) {
            Ok(record) if record.network == self.network => return Some(record),
            opened => self.distrust(opened.err().map_or(Distrust::WrongNetwork, Distrust::Refused)),
        }
        None
    }

    /// The agent's own record.
    fn open_own(&mut self, bytes: &[u8]) -> Option<Signed<Record>> {
        let record = self.open(bytes)?;
        let is_own = record.identity == self.identity;
        if !is_own {
            self.distrust(Distrust::NotOurs);
        }
        is_own.then_some(record)
    }
}

/// The wait that a rendezvous asks for, within reason.
fn bounded(wait: Option<u32>) -> Duration {
    wait.map_or(A_MOMENT, |wait| Duration::from_millis(wait.into())).clamp(SHORTEST_WAIT, LONGEST_WAIT)
}
