//! What peers write: requests, approvals, grants and their end. Each is checked before anything changes.

use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::preshared::{Half, preshared_key};
use overlay_wire::signed::{Approval, Grant, Object, PublicKey, Record, Request, Revoke, Signed};

use super::exchange::{answer, complete};
use super::relation::{Pending, Relation, Word};
use super::{Automatic, Book, Chance, Effect, MAX_AHEAD, MAX_STRANGERS, Moment, Refusal, is_current};

impl Book {
    /// Handles a letter that was sealed by `from`, as the registry says. `automatic` says what is granted without a
    /// person's decision, if anything.
    pub(crate) fn on_letter(
        &mut self,
        from: &PublicKey,
        letter: &Letter,
        own_record: &Signed<Record>,
        automatic: Option<Automatic>,
        now: impl Into<Moment>,
        chance: Chance,
    ) -> Result<Vec<Effect>, Refusal> {
        let now = now.into();
        if *from == self.me() {
            return Err(Refusal::Ourselves);
        }
        if let Some(word) = self.returned(from, letter) {
            return self.on_returned(word, own_record, now, chance);
        }
        match letter {
            Letter::Request { request, record } => {
                let request =
                    self.opened::<Request>(request, now, |request| (request.from, request.to, request.issued), from)?;
                let record = self.record(record, from, now)?;
                self.on_request(request, record, own_record, automatic, now, chance)
            }
            Letter::Approval { approval, record } => {
                let approval =
                    self.opened::<Approval>(approval, now, |approval| (approval.from, approval.to, 0), from)?;
                let known = self.relations.get(from).and_then(|relation| relation.record.as_ref());
                let record = match (self.record(record, from, now), known) {
                    // The record that is pinned goes on. Whether this is an answer to our request is seen below.
                    (Err(Refusal::Future), Some(known)) => known.clone(),
                    (record, _) => record?,
                };
                self.on_approval(&approval, record)
            }
            Letter::Grant { grant } => {
                let grant =
                    self.opened::<Grant>(grant, now, |grant| (grant.issuer, grant.subject, grant.issued), from)?;
                self.on_word(*from, Word::Grant(grant))
            }
            Letter::Revoke { revoke } => {
                let revoke =
                    self.opened::<Revoke>(revoke, now, |revoke| (revoke.issuer, revoke.subject, revoke.issued), from)?;
                self.on_word(*from, Word::Revoke(revoke))
            }
            // Endpoints say nothing about trust.
            Letter::Endpoints { .. } => Err(Refusal::NotOurs),
        }
    }

    /// Opens an envelope that must be from `from`, for us, and of this network. `ends`: who, to whom, and when.
    fn opened<T: Object + OfNetwork>(
        &self,
        bytes: &[u8],
        now: Moment,
        ends: impl Fn(&T) -> (PublicKey, PublicKey, u64),
        from: &PublicKey,
    ) -> Result<Signed<T>, Refusal> {
        let object = Signed::<T>::open(bytes).map_err(|_| Refusal::Malformed)?;
        let (sender, recipient, issued) = ends(&object);
        if sender != *from || recipient != self.me() || *object.network() != self.network {
            return Err(Refusal::NotOurs);
        }
        if self.is_ahead(&sender, issued, now) { Err(Refusal::Future) } else { Ok(object) }
    }

    /// Opens the record of a peer. Its tunnel key must not be ours, and not that of a different peer.
    pub(super) fn record(&self, bytes: &[u8], from: &PublicKey, now: Moment) -> Result<Signed<Record>, Refusal> {
        let record = Signed::<Record>::open(bytes).map_err(|_| Refusal::Malformed)?;
        if record.identity != *from || record.network != self.network {
            return Err(Refusal::NotOurs);
        }
        // The pinned record goes on, so nothing is lost by waiting until both clocks agree. After a restore there may be none of
        // a peer that we had trusted.
        let is_missed = |relation: &Relation| relation.is_behind && relation.record.is_none();
        let is_needed = self.relations.get(from).is_some_and(is_missed);
        if record.issued > now.wall + MAX_AHEAD && !is_needed {
            return Err(Refusal::Future);
        }
        self.check_address(&record)?;
        if self.is_taken(&record) { Err(Refusal::KeyTaken) } else { Ok(record) }
    }

    /// Whether a word was signed in the future. The words of a trusted peer count although its clock is wrong, or ours.
    fn is_ahead(&self, from: &PublicKey, issued: u64, now: Moment) -> bool {
        issued > now.wall + MAX_AHEAD && !self.relations.get(from).is_some_and(Relation::is_paired)
    }

    fn on_request(
        &mut self,
        request: Signed<Request>,
        record: Signed<Record>,
        own_record: &Signed<Record>,
        automatic: Option<Automatic>,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<Effect>, Refusal> {
        let peer = request.from;
        if request.expires <= now.wall {
            return Err(Refusal::Expired);
        }
        let grant = request.grant().map_err(|_| Refusal::Malformed)?;
        let pinned = self.relations.get(&peer).and_then(|relation| relation.record.as_ref());
        if pinned.is_some_and(|pinned| self.is_taken(pinned)) {
            return Err(Refusal::KeyTaken);
        }
        let strangers = self.relations.values().filter(|relation| relation.is_stranger()).count();
        if !self.relations.contains_key(&peer) && strangers >= MAX_STRANGERS {
            return Err(Refusal::Full);
        }
        let relation = self.relations.entry(peer).or_insert_with(|| Relation::new(peer));
        if grant.sequence <= relation.highest_of_theirs() {
            let (id, letter) = relation.stored_answer(&request, own_record).ok_or(Refusal::Replayed)?;
            return Ok(vec![Effect::Send { to: peer, id, letter }]);
        }
        let waiting = relation.pending(now).map(|pending| &pending.request);
        let is_repeated = waiting.is_some_and(|waiting| waiting.bytes() == request.bytes());
        let is_older = |waiting: &Request| waiting.grant().is_ok_and(|waiting| grant.sequence <= waiting.sequence);
        if !is_repeated && waiting.is_some_and(|waiting| is_older(waiting)) {
            return Err(Refusal::Replayed);
        }
        let pending = Pending { request, record };
        let mine = relation.mine.as_ref().and_then(Word::grant).filter(|grant| is_current(grant, now));
        if relation.asked(now).is_some() && mine.is_some() {
            complete(relation, &self.key.public(), &pending);
            return Ok(vec![Effect::Changed(peer)]);
        }
        if let Some(terms) = relation.automatic(automatic, &pending.request.want, mine) {
            return answer(relation, &self.key, own_record, &pending, terms, now, chance)
                .map_err(|_| Refusal::Malformed);
        }
        if is_repeated {
            return Ok(Vec::new());
        }
        relation.pending = Some(pending);
        Ok(vec![Effect::Changed(peer), Effect::Asked(peer)])
    }

    fn on_approval(&mut self, approval: &Signed<Approval>, record: Signed<Record>) -> Result<Vec<Effect>, Refusal> {
        let me = self.me();
        let peer = approval.from;
        let known = self.relations.get(&peer).ok_or(Refusal::Unasked)?;
        if self.is_taken(known.newer(&record)) {
            return Err(Refusal::KeyTaken);
        }
        let grant = approval.grant().map_err(|_| Refusal::Malformed)?;
        let relation = self.relations.get_mut(&peer).ok_or(Refusal::Unasked)?;
        // Whatever the clocks say, the peer has answered this very request, so its answer is no replay. If its clock is slower or its state was lost, an
        // earlier grant of the peer is the highest word, and goes on to count.
        let is_low = grant.sequence <= relation.highest_of_theirs();
        let is_answer = relation.asked.as_ref().is_some_and(|asked| asked.request.id == approval.request);
        if is_low && !(is_answer && matches!(relation.theirs, Some(Word::Grant(_)))) {
            return Err(Refusal::Replayed);
        }
        let Some(asked) = relation.asked.take_if(|asked| asked.request.id == approval.request) else {
            return Err(Refusal::Unasked);
        };
        let ours = Half { identity: &me, share: &asked.request.psk_share, envelope: asked.request.bytes() };
        let theirs = Half { identity: &peer, share: &approval.psk_share, envelope: approval.bytes() };
        relation.replace_key(preshared_key(ours, theirs));
        if !is_low {
            relation.theirs = Some(Word::Grant(grant));
        }
        relation.pin(&record);
        Ok(vec![Effect::Changed(peer)])
    }

    fn on_word(&mut self, peer: PublicKey, word: Word) -> Result<Vec<Effect>, Refusal> {
        let relation = self.relations.get_mut(&peer).ok_or(Refusal::Unasked)?;
        if word.sequence() <= relation.highest_of_theirs() {
            return Err(Refusal::Replayed);
        }
        if matches!(word, Word::Revoke(_)) {
            relation.asked = None;
            relation.pending = None;
        }
        relation.theirs = Some(word);
        Ok(vec![Effect::Changed(peer)])
    }

    /// Replaces what is known of a peer's record, if the peer is known and the record is newer.
    pub(crate) fn on_record(&mut self, record: Signed<Record>, now: impl Into<Moment>) -> Result<Vec<Effect>, Refusal> {
        let now = now.into();
        let record = self.record(record.bytes(), &record.identity, now)?;
        let peer = record.identity;
        let Some(relation) = self.relations.get_mut(&peer) else { return Ok(Vec::new()) };
        if !relation.is_news(&record, now.wall)? {
            return Ok(Vec::new());
        }
        relation.pin(&record);
        Ok(vec![Effect::Changed(peer)])
    }
}

/// Objects that name their network.
trait OfNetwork {
    fn network(&self) -> &PublicKey;
}

macro_rules! of_network {
    ($($kind:ty),*) => {
        $(impl OfNetwork for $kind {
            fn network(&self) -> &PublicKey {
                &self.network
            }
        })*
    };
}

of_network!(Request, Approval, Grant, Revoke);
