//! What this agent knows of one peer: its record, the latest word of each side, and what is being asked.

use std::fmt;

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{
    Approval, Endpoints, Grant, MAX_REQUEST_LIFETIME, PublicKey, Record, Request, Revoke, ScopeList, Signed,
};
use zeroize::Zeroizing;

use super::{Automatic, Effect, Moment, Terms, is_current};

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

    fn issued(&self) -> u64 {
        match self {
            Self::Grant(grant) => grant.issued,
            Self::Revoke(revoke) => revoke.issued,
        }
    }

    /// When it was said, if it takes back what was granted, in milliseconds since 1970.
    pub(crate) fn revoked_at(&self) -> Option<u64> {
        if let Self::Revoke(revoke) = self { Some(revoke.issued) } else { None }
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

/// The preshared key of a tunnel. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PresharedKey(pub(crate) Zeroizing<[u8; 32]>);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

/// A peer with a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Open<'a> {
    pub(crate) record: &'a Signed<Record>,
    /// What the peer may open here.
    pub(crate) allow: &'a ScopeList,
    /// What may be opened there.
    pub(crate) opens: &'a ScopeList,
    pub(crate) preshared_key: &'a PresharedKey,
    /// See [`Relation::former_preshared_key`].
    pub(crate) former_preshared_key: Option<&'a PresharedKey>,
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
    pub(crate) preshared_key: Option<PresharedKey>,
    /// The last preshared key that the peer has proven, until it proves the present one.
    pub(crate) former_preshared_key: Option<PresharedKey>,
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
    /// The highest sequence of ours that the peer has shown, if that is a word which does not count any more.
    pub(crate) floor: u64,
    /// Our word is newer than this state, so that what both sides have made since is missing here.
    pub(crate) is_behind: bool,
    /// Our revoke is newer than this state. The config may be as old as the state, so it does not count for the peer until a
    /// person reads it again or decides.
    pub(crate) is_withdrawn: bool,
}

impl Relation {
    pub(crate) fn new(identity: PublicKey) -> Self {
        Self {
            identity,
            record: None,
            mine: None,
            theirs: None,
            preshared_key: None,
            former_preshared_key: None,
            asked: None,
            pending: None,
            answered: None,
            ipv4: None,
            endpoints: None,
            is_barred: false,
            floor: 0,
            is_behind: false,
            is_withdrawn: false,
        }
    }

    /// The record by which people know the peer: the pinned one if there is a tunnel or was one, else the one of the
    /// request that waits.
    pub(crate) fn shown_record(&self) -> Option<&Signed<Record>> {
        let asking = self.pending.as_ref().map(|pending| &pending.record);
        if self.is_paired() { self.record.as_ref().or(asking) } else { asking.or(self.record.as_ref()) }
    }

    /// The newest record, whose mailbox is the one to write to.
    pub(crate) fn newest_record(&self) -> Option<&Signed<Record>> {
        match &self.pending {
            Some(pending) => Some(self.newer(&pending.record)),
            None => self.record.as_ref(),
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.shown_record().map(|record| record.name.as_str())
    }

    /// Whether this agent never said anything to the peer.
    pub(crate) fn is_stranger(&self) -> bool {
        self.mine.is_none()
    }

    /// Whether both sides made a preshared key, which nothing has ended since.
    pub(crate) fn is_paired(&self) -> bool {
        self.preshared_key.is_some()
    }

    /// Whether it is of use where the peer can be reached: it has a tunnel, or had one before our state was restored.
    pub(crate) fn expects_endpoints(&self) -> bool {
        self.is_paired() || self.is_behind || self.asked.is_some()
    }

    /// Whether one side has taken back what it had granted.
    pub(crate) fn is_revoked(&self) -> bool {
        [&self.mine, &self.theirs].into_iter().any(|word| matches!(word, Some(Word::Revoke(_))))
    }

    /// The peer's tunnel, if both sides grant one at this time.
    pub(crate) fn open(&self, now: impl Into<Moment>) -> Option<Open<'_>> {
        let now = now.into();
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
            former_preshared_key: self.former_preshared_key.as_ref(),
            ipv4: self.ipv4,
        })
    }

    /// Whether the peer has a tunnel at this time.
    pub(crate) fn is_open(&self, now: impl Into<Moment>) -> bool {
        self.open(now).is_some()
    }

    /// The request that waits for a decision.
    pub(crate) fn pending(&self, now: impl Into<Moment>) -> Option<&Pending> {
        let now = now.into().wall;
        self.pending.as_ref().filter(|pending| pending.request.expires > now)
    }

    /// What is granted to a request that wants `want` without a person's decision. The config's own terms come first. A
    /// peer that lost its state is answered again if it wants no more than it has. A peer that a person has refused needs a
    /// person's approval, unless the config pins it.
    pub(super) fn automatic(
        &self,
        automatic: Option<Automatic>,
        want: &ScopeList,
        mine: Option<&Signed<Grant>>,
    ) -> Option<Terms> {
        let automatic = automatic.filter(|_| !self.is_withdrawn);
        let has_enough = mine.filter(|grant| self.is_paired() && grant.allow.covers(want));
        let healed = has_enough.map(|grant| Terms { allow: Some(grant.allow.clone()), expires: grant.expires });
        match automatic {
            Some(Automatic::Terms(terms)) => Some(terms),
            Some(within) => healed.or_else(|| (!self.is_barred).then(|| within.terms(want))),
            None => healed,
        }
        .map(|terms| Terms { allow: Some(terms.allow.unwrap_or_default()), ..terms })
    }

    /// Our request that waits for the peer's decision.
    pub(crate) fn asked(&self, now: impl Into<Moment>) -> Option<&Asked> {
        let now = now.into().wall;
        self.asked.as_ref().filter(|asked| asked.request.expires > now)
    }

    /// When a grant of either side ends next.
    pub(super) fn next_expiry(&self, now: Moment) -> Option<u64> {
        let ends = |word: &Option<Word>| word.as_ref().and_then(Word::grant).and_then(|grant| grant.expires);
        [ends(&self.mine), ends(&self.theirs)].into_iter().flatten().filter(|at| *at > now.latest).min()
    }

    /// The sequence of our next word: above the last one, and the time where that is higher.
    pub(super) fn next_sequence(&self, now: u64) -> u64 {
        self.mine.as_ref().map_or(0, Word::sequence).max(self.floor).saturating_add(1).max(now)
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

    /// The newer of two records: the pinned one, or this.
    pub(super) fn newer<'a>(&'a self, record: &'a Signed<Record>) -> &'a Signed<Record> {
        self.record.as_ref().filter(|known| known.sequence >= record.sequence).unwrap_or(record)
    }

    /// Sets a new preshared key. The peer may get it later, or never.
    pub(super) fn replace_key(&mut self, key: Zeroizing<[u8; 32]>) {
        let before = self.preshared_key.replace(PresharedKey(key));
        // A key that was never proven is not one that the peer is known to have.
        self.former_preshared_key = self.former_preshared_key.take().or(before);
    }

    /// Keeps the newer of two records.
    pub(super) fn pin(&mut self, record: &Signed<Record>) {
        self.record = Some(self.newer(record).clone());
    }

    /// Whether nothing more is expected of a stranger: it has no request that waits, and its latest word is so old that
    /// every request with a lower sequence has expired.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        let issued = self.theirs.as_ref().map_or(0, Word::issued);
        self.is_stranger() && self.pending(now).is_none() && issued.saturating_add(MAX_REQUEST_LIFETIME) < now.wall
    }

    /// Whether a record has a tunnel key that is pinned for this peer.
    pub(super) fn has_key_of(&self, record: &Record) -> bool {
        let keys = self.record.iter().flat_map(|known| &known.tunnel_keys);
        self.preshared_key.is_some() && keys.into_iter().any(|key| record.tunnel_keys.contains(key))
    }

    /// What the peer may not have got: the request that is not answered, our answer, and our latest word.
    pub(crate) fn repeat(&self, own_record: &Signed<Record>, now: Moment) -> Vec<Effect> {
        let to = self.identity;
        let asked = self.asked(now);
        let asked = asked.map(|asked| Effect::Send { to, id: asked.request.id, letter: asked.letter(own_record) });
        // A peer that has the answer refuses the second one.
        let answered = self.answered.as_ref().zip(self.answer_letter(own_record));
        let answered = answered.map(|(approval, letter)| Effect::Send { to, id: approval.request, letter });
        let word = match &self.mine {
            Some(Word::Revoke(revoke)) => Some(Letter::Revoke { revoke: revoke.bytes().to_vec().into() }),
            Some(Word::Grant(grant)) if self.is_paired() => {
                Some(Letter::Grant { grant: grant.bytes().to_vec().into() })
            }
            _ => None,
        };
        let word = word.map(|letter| Effect::Keep { to, letter });
        asked.into_iter().chain(answered).chain(word).collect()
    }

    /// Ends everything but the latest words.
    pub(super) fn close(&mut self) {
        self.preshared_key = None;
        self.former_preshared_key = None;
        self.ipv4 = None;
        self.asked = None;
        self.pending = None;
        self.answered = None;
        self.is_behind = false;
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
