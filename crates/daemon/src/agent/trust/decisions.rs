//! What people decide: to ask, to approve, to change, and to take back.

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{Grant, MAX_REQUEST_LIFETIME, PublicKey, Record, Request, Revoke, ScopeList, Share, Signed};

use super::exchange::{answer, complete};
use super::relation::{Asked, Relation, Word};
use super::{Automatic, Book, Chance, Effect, Impossible, Moment, Terms};

impl Book {
    /// Asks a peer for trust, and grants it `terms` at once. If the same peer was asked before, the same letter is sent
    /// again, unless what is granted or wanted differs.
    pub(crate) fn ask(
        &mut self,
        peer: &Signed<Record>,
        own_record: &Signed<Record>,
        (reason, want, terms): (String, ScopeList, Terms),
        now: impl Into<Moment>,
        chance: Chance,
    ) -> Result<Vec<Effect>, Impossible> {
        let (identity, now) = (peer.identity, now.into());
        if identity == self.me() {
            return Err(Impossible::Ourselves);
        }
        let known = self.relations.get(&identity);
        if self.is_taken(known.map_or(peer, |relation| relation.newer(peer))) {
            return Err(Impossible::KeyTaken);
        }
        let relation = self.relations.entry(identity).or_insert_with(|| Relation::new(identity));
        relation.pin(peer);
        let allow = terms.allow.unwrap_or_default();
        let again = relation.asked.as_ref().filter(|asked| {
            let grant = relation.mine.as_ref().and_then(Word::grant);
            asked.request.expires > now.wall
                && asked.request.want == want
                && grant.is_some_and(|grant| grant.allow == allow && grant.expires == terms.expires)
        });
        if let Some(asked) = again {
            let letter = asked.letter(own_record);
            return Ok(vec![Effect::Send { to: identity, id: asked.request.id, letter }]);
        }
        let grant = Grant {
            network: self.network,
            issuer: self.key.public(),
            subject: identity,
            sequence: relation.next_sequence(now.wall),
            issued: now.wall,
            expires: terms.expires,
            allow,
            request: None,
        };
        let grant = Signed::sign(grant, &self.key).map_err(|_| Impossible::BadValue)?;
        let request = Request {
            network: self.network,
            from: self.key.public(),
            to: identity,
            id: chance.id,
            issued: now.wall,
            expires: now.wall + MAX_REQUEST_LIFETIME,
            reason,
            want,
            grant: grant.bytes().to_vec(),
            psk_share: Share(chance.share),
        };
        let request = Signed::sign(request, &self.key).map_err(|_| Impossible::BadValue)?;
        relation.mine = Some(Word::Grant(grant));
        (relation.is_barred, relation.is_withdrawn, relation.is_behind) = (false, false, false);
        let asked = Asked { request };
        let letter = asked.letter(own_record);
        relation.asked = Some(asked);
        let mut effects = vec![Effect::Changed(identity)];
        if let Some(pending) = relation.pending.take_if(|pending| pending.request.expires > now.wall) {
            // The requests cross: each side has granted something.
            complete(relation, &self.key.public(), &pending);
        }
        effects.push(Effect::Send { to: identity, id: chance.id, letter });
        Ok(effects)
    }

    /// Approves a peer's request, or changes what a trusted peer may open.
    pub(crate) fn approve(
        &mut self,
        peer: &PublicKey,
        own_record: &Signed<Record>,
        terms: Terms,
        now: impl Into<Moment>,
        chance: Chance,
    ) -> Result<Vec<Effect>, Impossible> {
        let now = now.into();
        let relation = self.relations.get(peer).ok_or(Impossible::NothingAsked)?;
        let Some(pending) = relation.pending(now).cloned() else {
            let is_late = relation.pending.is_some();
            return self.change(*peer, terms, now).map_err(|error| match error {
                Impossible::NothingAsked if is_late => Impossible::Expired,
                error => error,
            });
        };
        if self.is_taken(relation.newer(&pending.record)) {
            return Err(Impossible::KeyTaken);
        }
        let relation = self.relations.get_mut(peer).ok_or(Impossible::NothingAsked)?;
        let allow = terms.allow.unwrap_or_else(|| pending.request.want.clone());
        let terms = Terms { allow: Some(allow), expires: terms.expires };
        answer(relation, &self.key, own_record, &pending, terms, now, chance)
    }

    /// Approves a peer's request without a person, as far as `most` covers what it wants. A peer that a person has refused
    /// waits for a person.
    pub(crate) fn approve_within(
        &mut self,
        peer: &PublicKey,
        own_record: &Signed<Record>,
        most: ScopeList,
        now: impl Into<Moment>,
        chance: Chance,
    ) -> Result<Vec<Effect>, Impossible> {
        let now = now.into();
        let relation = self.relations.get(peer).filter(|relation| !relation.is_barred);
        let pending = relation.and_then(|relation| relation.pending(now)).ok_or(Impossible::NothingAsked)?;
        let terms = Automatic::Within(most).terms(&pending.request.want);
        self.approve(peer, own_record, terms, now, chance)
    }

    /// Changes what a trusted peer may open. The preshared key stays.
    pub(super) fn change(&mut self, peer: PublicKey, terms: Terms, now: Moment) -> Result<Vec<Effect>, Impossible> {
        let relation = self.relations.get_mut(&peer).ok_or(Impossible::NothingAsked)?;
        let Some(Word::Grant(grant)) = &relation.mine else { return Err(Impossible::NothingAsked) };
        if relation.preshared_key.is_none() {
            return Err(Impossible::NothingAsked);
        }
        let grant = Grant {
            sequence: relation.next_sequence(now.wall),
            issued: now.wall,
            allow: terms.allow.unwrap_or_else(|| grant.allow.clone()),
            expires: terms.expires,
            ..Grant::clone(grant)
        };
        let grant = Signed::sign(grant, &self.key).map_err(|_| Impossible::BadValue)?;
        let letter = Letter::Grant { grant: grant.bytes().to_vec().into() };
        relation.mine = Some(Word::Grant(grant));
        Ok(vec![Effect::Changed(peer), Effect::Keep { to: peer, letter }])
    }

    /// Changes what a trusted peer may open to what the config says, if that differs. A person who took trust back wins.
    pub(crate) fn pin(
        &mut self,
        peer: &PublicKey,
        terms: Terms,
        now: impl Into<Moment>,
    ) -> Result<Vec<Effect>, Impossible> {
        let Some(relation) = self.relations.get(peer).filter(|relation| relation.is_paired()) else {
            return Ok(Vec::new());
        };
        let Some(grant) = relation.mine.as_ref().and_then(Word::grant) else { return Ok(Vec::new()) };
        if terms.allow.as_ref() == Some(&grant.allow) && terms.expires == grant.expires {
            return Ok(Vec::new());
        }
        self.change(*peer, terms, now.into())
    }

    /// Refuses the request of a peer. What a trusted peer has stays.
    pub(crate) fn reject(&mut self, peer: &PublicKey, now: impl Into<Moment>) -> Result<Vec<Effect>, Impossible> {
        let relation = self.relations.get_mut(peer).ok_or(Impossible::NothingAsked)?;
        if relation.pending.is_none() {
            return Err(Impossible::NothingAsked);
        }
        if !matches!(relation.mine, Some(Word::Grant(_))) {
            return self.untrust(peer, now);
        }
        if let Some(pending) = relation.pending.take() {
            // What the peer grants is its own word. It refused nothing.
            relation.note_theirs(&pending);
        }
        Ok(vec![Effect::Changed(*peer)])
    }

    /// Takes back what was granted to a peer, or refuses its request. It stays so until a person decides otherwise.
    pub(crate) fn untrust(&mut self, peer: &PublicKey, now: impl Into<Moment>) -> Result<Vec<Effect>, Impossible> {
        let relation = self.relations.get(peer).ok_or(Impossible::NotTrusted)?;
        let had_something = relation.pending.is_some() || matches!(relation.mine, Some(Word::Grant(_)));
        if had_something { self.revoke(peer, now.into()) } else { Err(Impossible::NotTrusted) }
    }

    /// Signs a revoke above everything that was said to a peer, and closes.
    pub(super) fn revoke(&mut self, peer: &PublicKey, now: Moment) -> Result<Vec<Effect>, Impossible> {
        let relation = self.relations.get_mut(peer).ok_or(Impossible::NotTrusted)?;
        let revoke = Revoke {
            network: self.network,
            issuer: self.key.public(),
            subject: *peer,
            sequence: relation.next_sequence(now.wall),
            issued: now.wall,
        };
        let revoke = Signed::sign(revoke, &self.key).map_err(|_| Impossible::BadValue)?;
        if let Some(pending) = relation.pending.take() {
            relation.note_theirs(&pending);
            // It says where the peer's mailbox is.
            relation.pin(&pending.record);
        }
        let letter = Letter::Revoke { revoke: revoke.bytes().to_vec().into() };
        relation.mine = Some(Word::Revoke(revoke));
        relation.close();
        relation.is_barred = true;
        Ok(vec![Effect::Changed(*peer), Effect::Keep { to: *peer, letter }])
    }
}
