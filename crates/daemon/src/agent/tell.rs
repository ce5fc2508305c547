//! Questions that the agent answers at once from what it knows: why, since when, and who decided.

use std::net::IpAddr;

use overlay_wire::signed::{PublicKey, verification_code};

use super::Agent;
use super::decisions_log::MAX_LISTED;
use super::explain::{Case, Explain, Explained, Opening, Party, Side};
use super::named::Named;
use super::request::{About, AgentReply, Decisions, Granted, Happened, Logged, PeerRules, Question, Verified};
use super::shown::addresses;
use super::trust::{Moment, Relation, Word};
use super::tunnels::tunnel_key;
use super::watchers::event_of;
use crate::failure::{ExitKind, Failure};

/// The agent that a text means.
enum Meant {
    /// This one.
    Me,
    /// One with this key, whether or not it is known.
    Peer(PublicKey),
    /// One that is not known here.
    Stranger(String),
}

impl Agent {
    /// Answers a question.
    pub(super) fn tell(&mut self, question: Question) -> Result<AgentReply, Failure> {
        match question {
            Question::Explain(explain) => Ok(AgentReply::Explained(Box::new(self.explain(&explain)?))),
            Question::Rules(peer) => Ok(AgentReply::Rules(Box::new(self.rules(&peer)?))),
            Question::Decisions(decisions) => Ok(AgentReply::Decisions(self.decisions(&decisions)?)),
            Question::Verify(peer) => Ok(AgentReply::Verified(Box::new(self.verify(&peer)?))),
            Question::Health => Ok(AgentReply::Health(Box::new(self.health()))),
            Question::Watch(stream) => {
                let now = self.moment();
                let waiting = self.book.relations().filter(|relation| relation.pending(now).is_some());
                let waiting = waiting.map(|relation| event_of(relation, Happened::Request, None, now)).collect();
                if self.watchers.add(stream) {
                    Ok(AgentReply::Watching(waiting))
                } else {
                    Err(Failure::new(ExitKind::Conflict, "too many programs read the events of this agent")
                        .with_hint("end one of them: each stream is a process that holds a connection"))
                }
            }
        }
    }

    fn explain(&self, explain: &Explain) -> Result<About<Explained>, Failure> {
        let opening = Opening::parse(&explain.what)?;
        let (at, meant) = match (self.meant(&explain.from)?, self.meant(&explain.to)?) {
            (Meant::Me, Meant::Me) => return Err(one_of_both(&self.config.name, "both are this agent")),
            (Meant::Me, peer) => (Side::There, peer),
            (peer, Meant::Me) => (Side::Here, peer),
            _ => {
                return Err(one_of_both(
                    &self.config.name,
                    "neither is this agent, and only both ends know their rules",
                ));
            }
        };
        let now = self.moment();
        let (name, key) = match meant {
            Meant::Peer(key) => (self.called(&key), Some(key)),
            Meant::Stranger(text) => (text, None),
            Meant::Me => return Err(one_of_both(&self.config.name, "both are this agent")),
        };
        let relation = key.and_then(|key| self.book.relation(&key));
        let case = Case {
            me: &self.config.name,
            peer: &name,
            opening,
            at,
            relation,
            beforehand: key.and_then(|key| self.beforehand.entry(&key, now.latest)).map(|entry| &entry.allow),
            is_pinned: self.config.trust.iter().any(|trust| Some(trust.key) == key),
            is_held: self.past.is_held(),
            now,
        };
        let me = Party { name: self.config.name.clone(), identity: Some(self.book.me().to_string()), is_self: true };
        let peer = Party { name: name.clone(), identity: key.map(|key| key.to_string()), is_self: false };
        let (from, to) = match at {
            Side::Here => (peer, me),
            Side::There => (me, peer),
        };
        Ok(About { answer: case.explain(from, to), tunnel_key: relation.and_then(tunnel_key) })
    }

    fn rules(&self, text: &str) -> Result<About<PeerRules>, Failure> {
        let Meant::Peer(key) = self.meant(text)? else { return Err(not_known(text)) };
        let now = self.moment();
        let (relation, beforehand) = (self.book.relation(&key), self.beforehand.entry(&key, now.latest));
        if relation.is_none() && beforehand.is_none() {
            return Err(not_known(text));
        }
        let mut here = granted(relation.and_then(|relation| relation.mine.as_ref()), now);
        if let Some(entry) = beforehand.filter(|_| here.state != "granted") {
            here = Granted {
                state: "beforehand".to_owned(),
                allow: Some(entry.allow.0.clone()),
                expires: entry.expires.map(|at| at / 1_000),
                ..Granted::default()
            };
        }
        here.by = self.log.last(&key).map(|decision| decision.by());
        let record = relation.and_then(Relation::shown_record);
        let answer = PeerRules {
            name: relation.and_then(Relation::name).unwrap_or_default().to_owned(),
            identity: key.to_string(),
            addresses: record.map(|record| addresses(record)).into_iter().flatten().map(|it| it.to_string()).collect(),
            state: relation.map_or("granted", |relation| self.state_of(relation)).to_owned(),
            here,
            there: granted(relation.and_then(|relation| relation.theirs.as_ref()), now),
            tunnel: None,
            packets: None,
        };
        Ok(About { answer, tunnel_key: relation.and_then(tunnel_key) })
    }

    fn decisions(&self, asked: &Decisions) -> Result<Logged, Failure> {
        let peer = match asked.peer.as_deref() {
            None => None,
            Some(text) => match self.meant(text)? {
                Meant::Peer(key) => Some(key),
                Meant::Me | Meant::Stranger(_) => return Err(not_known(text)),
            },
        };
        let limit = asked.last.unwrap_or(100).min(MAX_LISTED);
        Ok(Logged { decisions: self.log.newest(peer.as_ref(), limit), unwritten: self.log.unwritten() })
    }

    fn verify(&self, text: &str) -> Result<Verified, Failure> {
        let Meant::Peer(key) = self.meant(text)? else { return Err(not_known(text)) };
        let me = self.book.me();
        Ok(Verified {
            name: self.book.relation(&key).and_then(Relation::name).unwrap_or_default().to_owned(),
            identity: key.to_string(),
            own_name: self.config.name.clone(),
            own_identity: me.to_string(),
            network: self.config.network_key.to_string(),
            code: verification_code(&self.config.network_key, &me, &key),
        })
    }

    /// Finds the agent that a text means: by name, key or address.
    fn meant(&self, text: &str) -> Result<Meant, Failure> {
        if matches!(text, "self" | "me") {
            return Ok(Meant::Me);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(match self.with_address(address) {
                Some(record) if record.identity == self.book.me() => Meant::Me,
                Some(record) => Meant::Peer(record.identity),
                None => Meant::Stranger(text.to_owned()),
            });
        }
        if Named::parse(text)?.matches(&self.book.me(), &self.config.name) {
            return Ok(Meant::Me);
        }
        match self.choose(text) {
            Ok(peer) => Ok(Meant::Peer(peer.identity)),
            Err(failure) if failure.code == ExitKind::NotFound => {
                Ok(text.parse().map_or_else(|_| Meant::Stranger(text.to_owned()), Meant::Peer))
            }
            Err(failure) => Err(failure),
        }
    }

    /// What people call a peer: its name, or its key where no name is known.
    fn called(&self, key: &PublicKey) -> String {
        let name = self.book.relation(key).and_then(Relation::name).filter(|name| !name.is_empty());
        name.map_or_else(|| key.to_string(), str::to_owned)
    }
}

fn granted(word: Option<&Word>, now: Moment) -> Granted {
    let of = |state: &str, since: Option<u64>| Granted {
        state: state.to_owned(),
        since: since.map(|at| at / 1_000),
        ..Granted::default()
    };
    match word {
        None => of("nothing", None),
        Some(Word::Revoke(revoke)) => of("revoked", Some(revoke.issued)),
        Some(Word::Grant(grant)) => Granted {
            allow: Some(grant.allow.0.clone()),
            expires: grant.expires.map(|at| at / 1_000),
            ..of(
                if grant.expires.is_some_and(|at| at <= now.latest) { "expired" } else { "granted" },
                Some(grant.issued),
            )
        },
    }
}

fn one_of_both(me: &str, cause: &str) -> Failure {
    Failure::new(ExitKind::Usage, "one of both must be this agent, and the other a peer")
        .with_cause(cause)
        .with_hint(format!("overlay explain {me} PEER tcp/22, or overlay explain PEER {me} tcp/22"))
}

fn not_known(text: &str) -> Failure {
    Failure::new(ExitKind::NotFound, format!("this agent knows no peer `{}`", text.escape_debug()))
        .with_hint("overlay agents lists the known ones; a whole key means an agent that is not known yet")
}
