//! What the client of the rendezvous tells: the network, our record, and what others say.

use overlay_rendezvous::client::{Event, Subject};
use overlay_rendezvous::protocol::Code;
use overlay_wire::signed::{Network, PublicKey, Record, Signed, is_ipv4_candidate};

use super::shown::Progress;
use super::time::{now, unix_now};
use super::trust::Refusal;
use super::{ADDRESSES, Agent, At, Changed, NOTHING, own};

impl Agent {
    pub(super) fn on_event(&mut self, at: &At, event: Event) -> Changed {
        if self.twin.is_found() {
            return NOTHING;
        }
        if self.shows_twin(at, &event) {
            return self.stop_for_twin();
        }
        let Some(event) = self.let_wait(event) else { return NOTHING };
        match event {
            Event::Online { network, record, keeps_entries, .. } => {
                let changed = self.on_network(*network);
                return changed.and(self.on_welcome(at, record.as_deref(), keeps_entries));
            }
            Event::Offline => return self.ask_elsewhere(at).and(self.on_ledger_lost(at)),
            Event::Registered { .. } => {
                self.pass_on_held();
                if let Err(failure) = self.state.set_record(&self.record) {
                    tracing::error!("{failure}");
                }
                self.renew_membership(at);
            }
            Event::Clock { .. } => self.renew_membership(at),
            Event::Membership(membership) => self.on_membership(*membership),
            Event::NeedsIpv4 { address } => {
                if address.is_some_and(|address| !self.follows_from_our_key(address)) {
                    self.refuse(Refusal::Address, "address for us");
                    return NOTHING;
                }
                if self.record.ipv4.is_some() && !self.meetings.decides(at) {
                    let cause = "a different agent has the IPv4 address of this agent there".to_owned();
                    self.refuse_record(at, Code::Ipv4.word(), cause);
                    return NOTHING;
                }
                let is_free = |address: &[u8; 4]| self.book.relations().all(|it| it.ipv4 != Some(*address));
                return self.sign_record(address.filter(is_free));
            }
            Event::TooOld { record: Some(record) } if record.sequence >= self.record.sequence => {
                // Our own signature: this agent, or its backup, was further than this state.
                let held = match self.on_newer_record(at, &record) {
                    Ok(held) => held,
                    Err(held) => return held,
                };
                self.record = *record;
                return self.sign_record(self.record.ipv4).and(held);
            }
            // The rendezvous has removed this agent. It keeps the sequence, so that nobody brings the old record back.
            Event::TooOld { record: None } => return self.sign_record(self.record.ipv4),
            Event::Entries { entries, next } => return self.on_entries(at, entries, next),
            Event::Refused { subject: Subject::Entries, .. } => return self.on_no_ledger(at),
            Event::Refused { subject, code } => self.on_refused(at, &subject, code),
            Event::Sent { to, id } => self.on_progress(to, id, Progress::Sent),
            Event::Delivered { to, id } => {
                self.on_progress(to, id, Progress::Delivered);
                return self.on_answer_delivered(to, id);
            }
            Event::Presence { identity, is_present: true } => self.relays.on_present(&identity, now()),
            Event::Synced | Event::Presence { .. } | Event::TooOld { .. } => {}
            Event::Record(record) => {
                self.note_other_keys([&*record]);
                let asked = self.ask_pinned(&record);
                let peer = record.identity;
                let mailbox = self.mailbox_of(&peer);
                let effects = self.book.on_record(*record, self.moment());
                let changed = asked.and(self.follow(effects, "record")).and(self.ask_again(&peer));
                if mailbox.is_some() && mailbox != self.mailbox_of(&peer) {
                    self.on_new_mailbox(&peer);
                }
                return changed;
            }
            Event::Message { from, id, sealed } => return self.on_message(from, id, &sealed),
            Event::Slot { from, slot, sealed } => return self.on_slot(from, slot, &sealed),
            Event::Found { query, records, next } => return self.on_found((*at, query), records, next),
        }
        NOTHING
    }

    fn follows_from_our_key(&self, address: [u8; 4]) -> bool {
        let pool = self.network.as_ref().map(|network| &network.pool);
        pool.is_some_and(|pool| is_ipv4_candidate(pool, &self.book.me(), address.into()))
    }

    fn on_network(&mut self, network: Signed<Network>) -> Changed {
        let is_newer = self.network.as_ref().is_none_or(|known| network.sequence > known.sequence);
        if !is_newer {
            self.note_former_network(&network);
            return NOTHING;
        }
        if let Err(failure) = self.state.set_network(&network) {
            tracing::error!("{failure}");
        }
        self.book.set_pool(Some(network.pool));
        match self.meetings.on_network(&network) {
            // The new one has to be told everything. The others take it as what they have.
            Ok(true) => {
                self.watch_peers();
                self.told.clear();
                if self.past.is_settled() {
                    self.keep_own_words();
                    self.repeat_letters();
                }
            }
            Ok(false) => {}
            Err(failure) => tracing::error!("{failure}"),
        }
        self.network = Some(network);
        ADDRESSES
    }

    /// Registers our record for the first time since the start. `registered` is the one that the rendezvous has.
    ///
    /// If none was on disk, or if the registered one is newer, that one says which IPv4 address is ours. A record without an
    /// address would give it up.
    pub(super) fn register_first(&mut self, registered: Option<&Signed<Record>>) -> Changed {
        let is_old = self.is_record_lost || self.past.is_held();
        let Some(registered) = registered.filter(|_| is_old) else {
            self.offer_record();
            return NOTHING;
        };
        // A rendezvous that has none says nothing about it.
        self.is_record_lost = false;
        let ipv4 = registered.ipv4.filter(|address| self.follows_from_our_key(*address)).or(self.record.ipv4);
        if registered.sequence >= self.record.sequence {
            self.record = registered.clone();
        }
        self.sign_record(ipv4)
    }

    /// Gives our record to every rendezvous that was heard, on disk first: a newer one there is the sign of an old state.
    pub(super) fn offer_record(&mut self) {
        self.note_offered();
        if let Err(failure) = self.state.set_record(&self.record) {
            tracing::error!("{failure}");
        }
        self.meetings.set_record(&self.record, now());
    }

    /// Signs the record anew and registers it.
    pub(super) fn sign_record(&mut self, ipv4: Option<[u8; 4]>) -> Changed {
        match own::record(&self.config, &self.keys, self.attestation.as_ref(), Some(&self.record), ipv4, unix_now()) {
            Ok(record) => {
                self.record = record;
                self.offer_record();
                ADDRESSES
            }
            Err(refused) => {
                tracing::error!("this agent's record is refused: {refused}");
                NOTHING
            }
        }
    }

    /// Notes how far our request came. Other letters need no note.
    fn on_progress(&mut self, to: PublicKey, id: [u8; 16], progress: Progress) {
        let asked = self.book.relation(&to).and_then(|relation| relation.asked.as_ref());
        let is_told = self.progress.get(&to) == Some(&(id, Progress::Delivered));
        if asked.is_some_and(|asked| asked.request.id == id) && !is_told {
            self.progress.insert(to, (id, progress));
        }
    }

    /// A rendezvous does not take our record.
    fn refuse_record(&mut self, at: &At, reason: &'static str, cause: String) {
        // It is registered again from time to time, and refused again.
        if self.meetings.on_refused(at, reason, format!("it refuses this agent's record: {cause}")) {
            tracing::error!(name = self.config.name, "the rendezvous refuses this agent's record: {cause}");
        }
        if self.meetings.failure().is_some() {
            self.refuse_held(&cause);
        }
    }

    fn on_refused(&mut self, at: &At, subject: &Subject, code: Code) {
        match subject {
            Subject::Register(_) => {
                self.refuse_record(at, code.word(), refused_record(code, self.attestation.is_some()));
            }
            Subject::Find(query) => {
                if let Some(asked) = self.on_no_answer(&(*at, *query)) {
                    asked.refuse(code.word());
                }
            }
            _ => tracing::warn!(?subject, "the rendezvous refuses a call: {}", code.word()),
        }
    }
}

/// Why this agent cannot be registered, and what to do about it where that is not plain.
fn refused_record(code: Code, has_token: bool) -> String {
    let what = match code {
        Code::NotAMember if has_token => {
            "the join token of this agent does not count: it is used up, revoked, expired or for a different name"
        }
        Code::NotAMember => "the network is closed, and this agent has no join token",
        Code::Clock => {
            return format!(
                "{}: the clock of this host and that of the rendezvous differ; see: overlay doctor",
                code.word()
            );
        }
        code => return code.word().to_owned(),
    };
    format!("{}: {what}; ask the operator of the network for a token, then: sudo overlay join FILE", code.word())
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn a_refused_record_says_what_is_missing() {
        assert_eq!(refused_record(Code::NameTaken, true), "name_taken");
        golden("a clock that differs", refused_record(Code::Clock, false));
        golden("no token", refused_record(Code::NotAMember, false));
        golden("a token that does not count", refused_record(Code::NotAMember, true));
    }
}
