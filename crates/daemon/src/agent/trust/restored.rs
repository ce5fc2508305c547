//! Words of this agent that its own state does not know: a restored backup is older than what the agent has said since.
//!
//! They come from its ledger at the rendezvous, and from peers that refuse a lower sequence and return the highest one. Each
//! is signed by this agent's own key. A revoke always counts. A grant that a peer returns may narrow what is granted and
//! never widens it, because that peer may have kept a later revoke to itself.

use overlay_rendezvous::ledger::OwnWord;
use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{Approval, Grant, PublicKey, Record, Request, Revoke, ScopeList, Signed};

use super::relation::{Relation, Word};
use super::{Book, Chance, Effect, Moment, Refusal, Terms, is_current};

/// What a peer's people read if it has to be asked again.
const REASON: &str = "the state of this agent was restored";

impl Book {
    /// The latest word to a peer, if it is to be kept for the time after a restore. A grant counts once the peer has agreed.
    pub(crate) fn own_word(&self, peer: &PublicKey) -> Option<OwnWord> {
        self.relation(peer).and_then(Relation::own_word)
    }

    /// Takes a word of this agent that is above the latest one it knows. What both sides had made since is missing then, so
    /// the peer is asked again.
    pub(crate) fn learn(&mut self, word: OwnWord) -> Vec<Effect> {
        let peer = *word.subject();
        let known = self.relations.get(&peer).and_then(|relation| relation.mine.as_ref());
        if peer == self.me() || known.is_some_and(|known| known.sequence() >= word.sequence()) {
            return Vec::new();
        }
        let relation = self.relations.entry(peer).or_insert_with(|| Relation::new(peer));
        if let Some(pending) = relation.pending.take() {
            // It was decided since. What the peer granted with it is its own word.
            relation.note_theirs(&pending);
            relation.pin(&pending.record);
        }
        match word {
            OwnWord::Grant(grant) => {
                relation.mine = Some(Word::Grant(grant));
                relation.asked = None;
                relation.answered = None;
                relation.is_behind = true;
            }
            OwnWord::Revoke(revoke) => {
                relation.mine = Some(Word::Revoke(revoke));
                relation.close();
                relation.is_barred = true;
                relation.is_withdrawn = true;
            }
        }
        vec![Effect::Changed(peer)]
    }

    /// Asks a peer again with which something was made that is missing here. It answers by itself, because nothing more is
    /// wanted than it has granted already.
    pub(crate) fn ask_again(
        &mut self,
        peer: &PublicKey,
        own_record: &Signed<Record>,
        now: Moment,
        chance: Chance,
    ) -> Vec<Effect> {
        let relation = self.relations.get(peer).filter(|relation| relation.is_behind);
        let grant = relation.and_then(|relation| relation.mine.as_ref()).and_then(Word::grant);
        let Some((relation, grant)) = relation.zip(grant.filter(|grant| is_current(grant, now))) else {
            return Vec::new();
        };
        let has_ended = matches!(relation.theirs, Some(Word::Revoke(_)));
        let Some(record) = relation.newest_record().filter(|_| !has_ended).cloned() else { return Vec::new() };
        let terms = Terms { allow: Some(grant.allow.clone()), expires: grant.expires };
        let what = (REASON.to_owned(), ScopeList::default(), terms);
        self.ask(&record, own_record, what, now, chance).unwrap_or_default()
    }

    /// The peers that have to be asked again.
    pub(crate) fn behind(&self) -> Vec<PublicKey> {
        self.relations().filter(|relation| relation.is_behind).map(|relation| relation.identity).collect()
    }

    /// A person has decided about this peer since the start. Such a decision is newer than anything that a peer returns.
    pub(crate) fn note_decided(&mut self, peer: PublicKey) {
        self.decided.insert(peer);
    }

    /// A person has said that the config counts: also for peers from which trust was found to be taken back.
    pub(crate) fn lift_withdrawal(&mut self, peer: &PublicKey) -> Vec<Effect> {
        let relation = self.relations.get_mut(peer);
        let was_withdrawn = relation.is_some_and(|relation| std::mem::take(&mut relation.is_withdrawn));
        if was_withdrawn { vec![Effect::Changed(*peer)] } else { Vec::new() }
    }

    /// The latest word of a peer, to be returned to it because it has said a lower one. `None`: the letter has no word of that
    /// peer, or not a lower one.
    pub(crate) fn to_return(&self, from: &PublicKey, letter: &Letter) -> Option<Letter> {
        let said = said_in(letter).filter(|(by, _)| by == from)?.1;
        let highest = self.relation(from)?.theirs.as_ref().filter(|theirs| said < theirs.sequence())?;
        Some(match highest {
            Word::Grant(grant) => Letter::Grant { grant: grant.bytes().to_vec().into() },
            Word::Revoke(revoke) => Letter::Revoke { revoke: revoke.bytes().to_vec().into() },
        })
    }

    /// The word of this agent to this peer that a letter returns.
    pub(super) fn returned(&self, from: &PublicKey, letter: &Letter) -> Option<OwnWord> {
        OwnWord::read(letter, &self.network, &self.me()).ok().filter(|word| word.subject() == from)
    }

    /// A peer has refused a word of this agent, because it has this higher one. Either that one counts, or the present one is
    /// signed anew above it.
    pub(super) fn on_returned(
        &mut self,
        word: OwnWord,
        own_record: &Signed<Record>,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<Effect>, Refusal> {
        let peer = *word.subject();
        let is_decided = self.decided.contains(&peer);
        let relation = self.relations.get_mut(&peer).ok_or(Refusal::Unasked)?;
        let mine = relation.mine.clone().ok_or(Refusal::Unasked)?;
        if word.sequence() <= mine.sequence().max(relation.floor) {
            return Err(Refusal::Unasked);
        }
        let counts = match (&mine, &word) {
            (Word::Revoke(_), _) => false,
            (Word::Grant(_), OwnWord::Revoke(_)) => !is_decided,
            (Word::Grant(present), OwnWord::Grant(other)) => {
                let ends = |at: Option<u64>| at.unwrap_or(u64::MAX);
                let is_narrower = present.allow.covers(&other.allow) && ends(other.expires) <= ends(present.expires);
                !is_decided && is_narrower
            }
        };
        if counts {
            let mut effects = self.learn(word);
            effects.extend(self.ask_again(&peer, own_record, now, chance));
            return Ok(effects);
        }
        relation.floor = word.sequence();
        let Word::Grant(grant) = mine else { return self.revoke(&peer, now).map_err(|_| Refusal::Malformed) };
        let terms = Terms { allow: Some(grant.allow.clone()), expires: grant.expires };
        let asked = relation.asked.take().zip(relation.newest_record().cloned());
        let effects = match asked {
            Some((asked, record)) => {
                let what = (asked.request.reason.clone(), asked.request.want.clone(), terms);
                self.ask(&record, own_record, what, now, chance)
            }
            None => self.change(peer, terms, now),
        };
        effects.map_err(|_| Refusal::Unasked)
    }
}

/// The issuer and the sequence of the word that a letter carries.
fn said_in(letter: &Letter) -> Option<(PublicKey, u64)> {
    let grant = match letter {
        Letter::Request { request, .. } => Signed::<Request>::open(request).ok()?.grant().ok()?,
        Letter::Approval { approval, .. } => Signed::<Approval>::open(approval).ok()?.grant().ok()?,
        Letter::Grant { grant } => Signed::<Grant>::open(grant).ok()?,
        Letter::Revoke { revoke } => {
            let revoke = Signed::<Revoke>::open(revoke).ok()?;
            return Some((revoke.issuer, revoke.sequence));
        }
        Letter::Endpoints { .. } => return None,
    };
    Some((grant.issuer, grant.sequence))
}

impl Relation {
    fn own_word(&self) -> Option<OwnWord> {
        match self.mine.as_ref()? {
            Word::Grant(grant) => self.is_paired().then(|| OwnWord::Grant(grant.clone())),
            Word::Revoke(revoke) => Some(OwnWord::Revoke(revoke.clone())),
        }
    }
}
