//! What is noted of decisions: in the log, in the events, and in what is granted beforehand.
//!
//! A look at a relation that changed ([`Agent::note`]) notices whether our word changed. A verb then logs it as the
//! decision of its user. What is left when a turn of the agent ends was decided by the config, or by the clock.

use std::net::SocketAddr;

use overlay_wire::signed::{PublicKey, ScopeList};

use super::beforehand::Entry;
use super::decisions_log::Decision;
use super::explain::Side;
use super::named::impossible;
use super::request::{AgentEvent, AgentPeer, AgentReply, Approve, Decided, Happened, Reply};
use super::trust::{Impossible, Moment, Relation, Terms, Word};
use super::watchers::event_of;
use super::{Agent, Changed, NOTHING};
use crate::failure::{ExitKind, Failure};
use crate::path_kind::PathKind;

impl Agent {
    /// Looks at a relation that may have changed.
    pub(super) fn note(&mut self, peer: &PublicKey) {
        let now = self.moment();
        if let Some(relation) = self.book.relation(peer) {
            self.watchers.note(relation, now);
        }
    }

    /// Looks for tunnels that ended by the clock, and logs those that ended because our own grant did.
    pub(super) fn note_expired(&mut self) {
        let now = self.moment();
        for peer in self.watchers.open() {
            let Some(relation) = self.book.relation(&peer).filter(|relation| !relation.is_open(now)) else { continue };
            self.watchers.note(relation, now);
            let ours = relation.mine.as_ref().and_then(Word::grant).and_then(|grant| grant.expires);
            if ours.is_some_and(|at| at <= now.latest) {
                let rule = Some("expiry".to_owned());
                let decision = Decision { rule, allow: None, ..decision(relation, "expired") };
                self.log.note(decision, now.wall);
            }
        }
    }

    /// Logs what a user has decided, before that is answered. The newest decision replaces what was granted beforehand.
    pub(super) fn log_person(&mut self, peer: &PublicKey, decided: &Decided, what: &str, uid: u32) {
        let now = self.moment();
        tracing::info!(uid, peer = decided.identity, allow = ?decided.allow, "{}: {}", decided.name, decided.state);
        let is_refusal = self.watchers.on_person(peer) == Some(Happened::Rejected);
        self.forget_beforehand(peer);
        let Some(relation) = self.book.relation(peer) else { return };
        let what = if is_refusal && what == "untrusted" { "rejected" } else { what };
        self.log.note(Decision { uid: Some(uid), ..decision(relation, what) }, now.wall);
    }

    /// Logs what the config has decided since the last time.
    pub(super) fn log_automatic(&mut self) {
        let now = self.moment();
        for peer in self.watchers.take_decided() {
            let Some(relation) = self.book.relation(&peer) else { continue };
            let mine = relation.mine.as_ref().and_then(Word::grant).map(|grant| &grant.allow);
            let entry = self.beforehand.entry(&peer, now.latest).filter(|entry| Some(&entry.allow) == mine);
            let attested = relation.newest_record().map(|record| record.attested_tags()).unwrap_or_default();
            let rule = if self.config.trust.iter().any(|trust| trust.key == peer) {
                "[[trust]]"
            } else if entry.is_some() {
                "trust"
            } else if self.config.auto_approves(&peer, &attested) {
                "auto_approve"
            } else {
                "again"
            };
            let what = if relation.asked.is_some() { "asked" } else { "approved" };
            tracing::info!(%peer, rule, "{}: {what}", relation.name().unwrap_or_default());
            let decision = Decision { rule: Some(rule.to_owned()), ..decision(relation, what) };
            self.log.note_automatic(peer, decision, now.wall);
            self.forget_beforehand(&peer);
        }
    }

    /// Logs a word of ours that was found after a restore. Somebody had decided it before.
    pub(super) fn log_learned(&mut self, peer: &PublicKey) {
        let now = self.moment();
        self.watchers.on_person(peer);
        self.forget_beforehand(peer);
        let Some(relation) = self.book.relation(peer) else { return };
        let what = if relation.is_barred { "untrusted" } else { "approved" };
        tracing::warn!(%peer, "{}: {what} after the state that was restored", relation.name().unwrap_or_default());
        self.log.note(Decision { rule: Some("restored".to_owned()), ..decision(relation, what) }, now.wall);
    }

    /// Logs that a user trusts a peer again as a restored state does.
    pub(super) fn log_confirmed(&mut self, peer: &PublicKey, uid: u32) {
        let now = self.moment();
        let Some(relation) = self.book.relation(peer) else { return };
        self.log.note(Decision { uid: Some(uid), ..decision(relation, "confirmed") }, now.wall);
    }

    /// Grants something to an agent that has not asked. If it has, or is trusted already, that is decided at once.
    pub(super) fn trust(&mut self, trust: &Approve, uid: u32, reply: Reply) -> Changed {
        match self.trust_key(trust, uid) {
            Ok((_, Some(decided))) => self.answer(reply, Ok(AgentReply::Decided(decided))),
            Ok((peer, None)) => {
                let allow = trust.allow.clone().unwrap_or_else(|| self.config.allow.0.clone());
                let approve = Approve { allow: Some(allow), ..trust.clone() };
                return self.approve(peer, &approve, uid, reply);
            }
            Err(failure) => self.answer(reply, Err(failure)),
        }
        NOTHING
    }

    /// Returns `None` if the peer waits for a decision, or is trusted.
    fn trust_key(&mut self, trust: &Approve, uid: u32) -> Result<(PublicKey, Option<Decided>), Failure> {
        let peer: PublicKey = trust.peer.parse().map_err(|_| {
            Failure::new(ExitKind::Usage, format!("`{}` is not a whole key", trust.peer.escape_debug()))
                .with_cause("trust is given beforehand to a key: a name could be registered by anybody until then")
                .with_hint("overlay agents on the other host shows its key, of 52 characters")
        })?;
        if peer == self.book.me() {
            return Err(impossible(&trust.peer, Impossible::Ourselves));
        }
        if self.config.trust.iter().any(|trust| trust.key == peer) {
            return Err(Failure::new(ExitKind::Refused, "the config trusts this agent already")
                .with_cause("what the config says is not changed by verbs")
                .with_hint("change its [[trust]] in the config, then: sudo overlay reload"));
        }
        let now = self.moment();
        let is_known = |relation: &Relation| relation.pending(now).is_some() || relation.is_open(now);
        if self.book.relation(&peer).is_some_and(is_known) {
            return Ok((peer, None));
        }
        let is_asked = |relation: &Relation| relation.asked(now).is_some();
        if self.book.relation(&peer).is_some_and(is_asked) {
            return Err(Failure::new(ExitKind::Conflict, "this agent has asked that peer already")
                .with_cause("what it gives stands in its request")
                .with_hint("overlay handshake KEY --allow SCOPE asks again with what you want to give"));
        }
        let allow = trust.allow.clone().map_or_else(|| self.config.allow.clone(), ScopeList);
        let expires = self.end_of(trust.seconds);
        let entry = Entry { allow: allow.clone(), expires };
        self.beforehand.set(peer, entry, now.latest)?;
        let effects = self.book.lift_bar(&peer);
        let _ = self.carry_out(effects);
        if let Some(failure) = self.unsaved.take() {
            return Err(failure);
        }
        let name = self.book.relation(&peer).and_then(Relation::name).unwrap_or_default().to_owned();
        let decided = Decided {
            name,
            identity: peer.to_string(),
            state: "granted".to_owned(),
            allow: allow.0,
            expires: expires.map(|at| at / 1_000),
        };
        tracing::info!(uid, peer = decided.identity, allow = ?decided.allow, "trusted beforehand");
        let decision = Decision {
            decision: "granted".to_owned(),
            uid: Some(uid),
            name: decided.name.clone(),
            identity: decided.identity.clone(),
            allow: Some(decided.allow.clone()),
            expires: decided.expires,
            ..Decision::default()
        };
        self.log.note(decision, now.wall);
        Ok((peer, Some(decided)))
    }

    /// Takes back what was granted beforehand to an agent of which nothing else is known. `None`: there is no such grant.
    pub(super) fn untrust_beforehand(&mut self, text: &str, uid: u32) -> Option<Result<AgentReply, Failure>> {
        let known = self.find_known(text).ok()?.map(|record| record.identity);
        let peer: PublicKey = known.or_else(|| text.parse().ok())?;
        let now = self.moment();
        self.beforehand.entry(&peer, now.latest)?;
        let has_more =
            |it: &Relation| it.pending.is_some() || it.mine.as_ref().is_some_and(|word| word.grant().is_some());
        if self.book.relation(&peer).is_some_and(has_more) {
            return None;
        }
        if let Err(failure) = self.beforehand.remove(&peer) {
            return Some(Err(failure));
        }
        let name = self.book.relation(&peer).and_then(Relation::name).unwrap_or_default().to_owned();
        let (identity, state) = (peer.to_string(), "untrusted".to_owned());
        let decision = Decision {
            decision: state.clone(),
            uid: Some(uid),
            name: name.clone(),
            identity: identity.clone(),
            ..Decision::default()
        };
        self.log.note(decision, now.wall);
        Some(Ok(AgentReply::Decided(Decided { name, identity, state, allow: Vec::new(), expires: None })))
    }

    /// The agents that are trusted beforehand, and of which nothing else is known.
    pub(super) fn shown_beforehand(&self, now: Moment) -> impl Iterator<Item = AgentPeer> {
        let unknown = self.beforehand.entries(now.latest).filter(|(peer, _)| self.book.relation(peer).is_none());
        unknown.map(|(peer, entry)| AgentPeer {
            name: String::new(),
            identity: peer.to_string(),
            addresses: Vec::new(),
            attested_tags: Vec::new(),
            state: "granted".to_owned(),
            allow: Some(entry.allow.0.clone()),
            request: None,
            opens: None,
            expires: entry.expires.map(|at| at / 1_000),
        })
    }

    /// What a peer gets when it asks. A peer that has a tunnel by now has a later grant.
    pub(super) fn granted_beforehand(&self, peer: &PublicKey) -> Option<Terms> {
        let now = self.moment();
        let is_open = self.book.relation(peer).is_some_and(|relation| relation.is_open(now));
        self.beforehand.entry(peer, now.latest).filter(|_| !is_open).map(Entry::terms)
    }

    pub(super) fn forget_beforehand(&mut self, peer: &PublicKey) {
        if let Err(failure) = self.beforehand.remove(peer) {
            tracing::error!("{failure}");
        }
    }

    /// Notes whether a peer answers.
    pub(super) fn on_reached(&mut self, peer: PublicKey, is_up: bool) {
        self.on_friend(peer, is_up);
        if self.watchers.on_reached(peer, is_up)
            && let Some(relation) = self.book.relation(&peer)
        {
            let what = if is_up { Happened::PeerUp } else { Happened::PeerDown };
            self.watchers.hold(event_of(relation, what, None::<Side>, self.moment()));
        }
    }

    /// Tells that packets to a peer take a different path.
    pub(super) fn on_path(&mut self, peer: &PublicKey, remote: SocketAddr, path: PathKind) {
        if let Some(relation) = self.book.relation(peer) {
            let event = event_of(relation, Happened::PathChanged, None, self.moment());
            self.watchers.hold(AgentEvent { path: Some(path), remote: Some(remote), ..event });
        }
    }

    /// Passes on the events that happened, now that the data plane follows.
    pub(crate) fn publish(&mut self) {
        self.watchers.publish();
    }

    /// Why the last decision is not in the log.
    pub(crate) fn log_failure(&self) -> Option<&str> {
        self.log.failure()
    }
}

/// A decision about a peer, with what the peer has now.
fn decision(relation: &Relation, what: &str) -> Decision {
    let grant = relation.mine.as_ref().and_then(Word::grant);
    Decision {
        decision: what.to_owned(),
        name: relation.name().unwrap_or_default().to_owned(),
        identity: relation.identity.to_string(),
        allow: grant.map(|grant| grant.allow.0.clone()),
        expires: grant.and_then(|grant| grant.expires).map(|at| at / 1_000),
        ..Decision::default()
    }
}
