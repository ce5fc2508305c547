//! What this agent knows of one peer: its record, the latest word of each side, and what is being asked.

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{Approval, Endpoints, Grant, PublicKey, Record, Request, Revoke, ScopeList, Signed};
use zeroize::Zeroizing;

use super::is_current;

/// What one side last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It grants.
    Grant(Signed<Grant>),
    /// It took back what it had granted.
    Revoke(Signed<Revoke>),
}

impl Word {
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::Grant(grant) => grant.sequence,
            Self::Revoke(revoke) => revoke.sequence,
        }
    }

    pub(crate) fn grant(&self) -> Option<&Signed<Grant>> {
        match self {
            Self::Grant(grant) => Some(grant),
            Self::Revoke(_) => None,
        }
    }
}

/// Our request that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) request: Signed<Request>,
}

impl Asked {
    pub(super) fn letter(&self, own_record: &Signed<Record>) -> Letter {
        Letter::Request { request: self.request.bytes().to_vec().into(), record: own_record.bytes().to_vec().into() }
    }
}

/// A request of the peer that waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) request: Signed<Request>,
    pub(crate) record: Signed<Record>,
}

/// A peer with a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Open<'a> {
    pub(crate) record: &'a Signed<Record>,
    /// What the peer may open here.
    pub(crate) allow: &'a ScopeList,
    /// What may be opened there.
    pub(crate) opens: &'a ScopeList,
    pub(crate) preshared_key: &'a Zeroizing<[u8; 32]>,
    /// The address that is the peer's here.
    pub(crate) ipv4: Option<[u8; 4]>,
}

/// What this agent knows of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) identity: PublicKey,
    /// The newest record that was seen.
    pub(crate) record: Option<Signed<Record>>,
    /// The latest word of ours, and of the peer.
    pub(crate) mine: Option<Word>,
    pub(crate) theirs: Option<Word>,
    /// Made from both shares when both sides have granted.
    pub(crate) preshared_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) asked: Option<Asked>,
    pub(crate) pending: Option<Pending>,
    /// Our answer to the peer's last request, for the case that the peer asks the same again.
    pub(crate) answered: Option<Signed<Approval>>,
    /// The IPv4 address that is the peer's here: the one of its record, unless an earlier peer has it.
    pub(crate) ipv4: Option<[u8; 4]>,
    /// Where the peer can be reached, as it has said last.
    pub(crate) endpoints: Option<Signed<Endpoints>>,
    /// A person has taken trust back, so nothing but a person gives it again.
    pub(crate) is_barred: bool,
}

impl Relation {
    pub(crate) fn new(identity: PublicKey) -> Self {
        Self {
            identity,
            record: None,
            mine: None,
            theirs: None,
            preshared_key: None,
            asked: None,
            pending: None,
            answered: None,
            ipv4: None,
            endpoints: None,
            is_barred: false,
        }
    }

    /// The newest record, pinned or waiting.
    pub(crate) fn newest_record(&self) -> Option<&Signed<Record>> {
        self.record.as_ref().or_else(|| self.pending.as_ref().map(|pending| &pending.record))
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.newest_record().map(|record| record.name.as_str())
    }

    /// The peer's tunnel, if both sides grant one at this time.
    pub(crate) fn open(&self, now: u64) -> Option<Open<'_>> {
        let current =
            |word: &Option<Word>| word.as_ref().and_then(Word::grant).is_some_and(|grant| is_current(grant, now));
        if !current(&self.mine) || !current(&self.theirs) {
            return None;
        }
        Some(Open {
            record: self.record.as_ref()?,
            allow: &self.mine.as_ref()?.grant()?.allow,
            opens: &self.theirs.as_ref()?.grant()?.allow,
            preshared_key: self.preshared_key.as_ref()?,
            ipv4: self.ipv4,
        })
    }

    /// Whether the peer has a tunnel at this time.
    pub(crate) fn is_open(&self, now: u64) -> bool {
        self.open(now).is_some()
    }

    /// The request that waits for a decision.
    pub(crate) fn pending(&self, now: u64) -> Option<&Pending> {
        self.pending.as_ref().filter(|pending| pending.request.expires > now)
    }

    /// When a grant of either side ends next.
    pub(super) fn next_expiry(&self, now: u64) -> Option<u64> {
        let ends = |word: &Option<Word>| word.as_ref().and_then(Word::grant).and_then(|grant| grant.expires);
        [ends(&self.mine), ends(&self.theirs)].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// The sequence of our next word: above the last one, and the time where that is higher.
    pub(super) fn next_sequence(&self, now: u64) -> u64 {
        self.mine.as_ref().map_or(0, Word::sequence).saturating_add(1).max(now)
    }

    /// The sequence of the peer's latest word.
    pub(super) fn highest_of_theirs(&self) -> u64 {
        self.theirs.as_ref().map_or(0, Word::sequence)
    }

    /// Takes the grant of a request as the peer's latest word.
    pub(super) fn note_theirs(&mut self, pending: &Pending) {
        if let Ok(grant) = pending.request.grant()
            && grant.sequence > self.highest_of_theirs()
        {
            self.theirs = Some(Word::Grant(grant));
        }
    }

    /// Keeps the newer of two records.
    pub(super) fn pin(&mut self, record: Signed<Record>) {
        if self.record.as_ref().is_none_or(|known| known.sequence < record.sequence) {
            self.record = Some(record);
        }
    }

    /// Whether a record has a tunnel key that is pinned for this peer.
    pub(super) fn has_key_of(&self, record: &Record) -> bool {
        let keys = self.record.iter().flat_map(|known| &known.tunnel_keys);
        self.preshared_key.is_some() && keys.into_iter().any(|key| record.tunnel_keys.contains(key))
    }

    /// Ends everything but the latest words.
    pub(super) fn close(&mut self) {
        self.preshared_key = None;
        self.ipv4 = None;
        self.asked = None;
        self.pending = None;
        self.answered = None;
    }

    /// Our answer to this very request, if it was answered before.
    pub(super) fn stored_answer(&self, request: &Request, own_record: &Signed<Record>) -> Option<([u8; 16], Letter)> {
        self.answered.as_ref().filter(|approval| approval.request == request.id)?;
        Some((request.id, self.answer_letter(own_record)?))
    }

    pub(super) fn answer_letter(&self, own_record: &Signed<Record>) -> Option<Letter> {
        let approval = self.answered.as_ref()?;
        Some(Letter::Approval {
            approval: approval.bytes().to_vec().into(),
            record: own_record.bytes().to_vec().into(),
        })
    }
}
