//! What people and programs ask, and what they are answered.
//!
//! A decision is answered once it is on disk and the data plane follows it. A question about an agent that is not known
//! here is passed on to the rendezvous: see `questions`.

use std::net::IpAddr;

use overlay_rendezvous::protocol::Find as By;
use overlay_wire::signed::{PublicKey, Record, ScopeList, Signed};

use super::letters::chance;
use super::named::impossible;
use super::questions::Goal;
use super::request::{AgentCall, AgentReply, AgentRequest, AgentStatus, Approve, Decided, Found, Handshake, Reply};
use super::shown::{Progress, pending_request, shown_peer};
use super::trust::{Effect, Impossible, Relation, Terms, Word};
use super::{Agent, Changed, NOTHING, directory};
use crate::failure::{ExitKind, Failure};

/// An answer that is given once the data plane follows.
pub(super) struct Answer {
    reply: Reply,
    result: Result<AgentReply, Failure>,
}

impl Agent {
    /// Handles a call. [`Agent::give_answers`] answers it after what has changed was applied.
    pub(crate) fn on_call(&mut self, call: AgentCall, reply: Reply) -> Changed {
        // An earlier failure is in the log, and does not concern this caller.
        self.unsaved = None;
        let expired = self.end_expired();
        let refused = self.refuse_for_twin(&call.request).and_then(|()| self.refuse_while_held(&call.request));
        if let Err(failure) = refused {
            self.answer(reply, Err(failure));
            return self.settle(expired);
        }
        let changed = self.handle(call, reply);
        self.settle(changed.and(expired))
    }

    /// Gives the answers that the data plane had to follow first.
    pub(crate) fn give_answers(&mut self) {
        for answer in self.answers.drain(..) {
            // Somebody who has gone needs no answer.
            let _ = answer.reply.send(answer.result);
        }
    }

    pub(super) fn answer(&mut self, reply: Reply, result: Result<AgentReply, Failure>) {
        self.answers.push(Answer { reply, result });
    }

    fn handle(&mut self, call: AgentCall, reply: Reply) -> Changed {
        let (uid, now) = (call.uid, self.moment());
        match call.request {
            AgentRequest::Handshake(handshake) => match self.find_known(&handshake.peer) {
                Ok(Some(record)) => return self.shake(&record, &handshake, uid, reply),
                Ok(None) => return self.look_up(&handshake.peer.clone(), Goal::Handshake(handshake, uid), reply),
                Err(failure) => self.answer(reply, Err(failure)),
            },
            AgentRequest::Approve(approve) => match self.choose(&approve.peer) {
                Ok(peer) => {
                    let asks = self.book.relation(&peer.identity).and_then(|relation| relation.pending(now));
                    if asks.is_none() || peer.is_certain {
                        return self.approve(peer.identity, &approve, uid, reply);
                    }
                    let (about, by) = (approve.peer.clone(), By::Key(peer.identity));
                    return self.ask_rendezvous(about, (by, None), Goal::Approve(approve, uid, peer.identity), reply);
                }
                Err(failure) => self.answer(reply, Err(failure)),
            },
            AgentRequest::Reject(named) => match self.choose(&named.peer) {
                Ok(peer) => {
                    let effects = self.book.reject(&peer.identity, now);
                    let effects = effects.map_err(|error| impossible(&named.peer, error));
                    return self.conclude(peer.identity, "rejected", uid, reply, effects);
                }
                Err(failure) => self.answer(reply, Err(failure)),
            },
            AgentRequest::Untrust(named) => match self.untrust_beforehand(&named.peer, uid) {
                Some(result) => self.answer(reply, result),
                None => match self.choose(&named.peer) {
                    Ok(peer) => return self.untrust(peer.identity, &named.peer, uid, reply),
                    Err(failure) => self.answer(reply, Err(failure)),
                },
            },
            AgentRequest::Trust(trust) => return self.trust(&trust, uid, reply),
            AgentRequest::Ask(question) => {
                let told = self.tell(question);
                self.answer(reply, told);
            }
            AgentRequest::Pending => {
                let pending = self.book.pending(now).map(pending_request).collect();
                self.answer(reply, Ok(AgentReply::Pending(pending)));
            }
            AgentRequest::Peers => {
                let status = self.status();
                self.answer(reply, Ok(AgentReply::Peers(Box::new(status))));
            }
            AgentRequest::Find(find) => {
                return match directory::wanted(find) {
                    Ok((by, after)) => self.ask_rendezvous("them".to_owned(), (by, None), Goal::Show(after), reply),
                    Err(failure) => {
                        self.answer(reply, Err(failure));
                        NOTHING
                    }
                };
            }
            AgentRequest::Whois(who) => return self.whois(&who, reply),
            AgentRequest::RotateKey(rotate) => {
                let (changed, rotated) = self.rotate_key(&rotate, uid);
                self.answer(reply, rotated.map(AgentReply::Rotated));
                return changed;
            }
            AgentRequest::Confirm => {
                let (changed, confirmed) = self.confirm(uid);
                self.answer(reply, confirmed);
                return changed;
            }
            AgentRequest::Join(join) => {
                let joined = self.join(&join, uid);
                self.answer(reply, joined.map(AgentReply::Joined));
            }
        }
        NOTHING
    }

    pub(super) fn shake(&mut self, record: &Signed<Record>, handshake: &Handshake, uid: u32, reply: Reply) -> Changed {
        let pinned = self.config.trust.iter().find(|trust| trust.key == record.identity);
        let is_more = handshake.allow.is_some() || handshake.seconds.is_some();
        if let Some(failure) = self.refuse_pinned(&record.identity, &handshake.peer).filter(|_| is_more) {
            self.answer(reply, Err(failure));
            return NOTHING;
        }
        let terms = match pinned {
            Some(pinned) => Terms { allow: Some(pinned.allow.clone()), expires: pinned.expires },
            None => Terms {
                allow: Some(handshake.allow.clone().map_or_else(|| self.config.allow.clone(), ScopeList)),
                expires: self.end_of(handshake.seconds),
            },
        };
        let what = (handshake.reason.clone(), ScopeList(handshake.want.clone()), terms);
        let effects = self.book.ask(record, &self.record, what, self.moment(), chance());
        let effects = effects.map_err(|error| impossible(&handshake.peer, error));
        self.conclude(record.identity, "asked", uid, reply, effects)
    }

    pub(super) fn approve(&mut self, peer: PublicKey, approve: &Approve, uid: u32, reply: Reply) -> Changed {
        if let Some(failure) = self.refuse_pinned(&peer, &approve.peer) {
            self.answer(reply, Err(failure));
            return NOTHING;
        }
        let now = self.moment();
        let was_pending = self.book.relation(&peer).is_some_and(|relation| relation.pending(now).is_some());
        let terms = Terms { allow: approve.allow.clone().map(ScopeList), expires: self.end_of(approve.seconds) };
        let effects = self.book.approve(&peer, &self.record, terms, now, chance());
        let effects = effects.map_err(|error| impossible(&approve.peer, error));
        self.conclude(peer, if was_pending { "approved" } else { "changed" }, uid, reply, effects)
    }

    /// Why a verb cannot change what a peer has, if the config says what that is.
    fn refuse_pinned(&self, peer: &PublicKey, text: &str) -> Option<Failure> {
        self.config.trust.iter().find(|trust| trust.key == *peer)?;
        Some(
            Failure::new(ExitKind::Refused, format!("the config trusts `{text}`"))
                .with_cause("what the config says is not changed by verbs")
                .with_hint("change or remove its [[trust]] in the config, then: sudo overlay reload"),
        )
    }

    fn untrust(&mut self, peer: PublicKey, text: &str, uid: u32, reply: Reply) -> Changed {
        if let Some(failure) = self.refuse_pinned(&peer, text) {
            self.answer(reply, Err(failure));
            return NOTHING;
        }
        let effects = match self.book.untrust(&peer, self.moment()) {
            // It was taken back already, but that is not on disk yet.
            Err(Impossible::NotTrusted) if self.unwritten.contains(&peer) => Ok(self.repeat_unwritten(&peer)),
            effects => effects.map_err(|error| impossible(text, error)),
        };
        self.conclude(peer, "untrusted", uid, reply, effects)
    }

    /// Carries out a decision, and answers it.
    fn conclude(
        &mut self,
        identity: PublicKey,
        state: &str,
        uid: u32,
        reply: Reply,
        effects: Result<Vec<Effect>, Failure>,
    ) -> Changed {
        let effects = match effects {
            Ok(effects) => effects,
            Err(failure) => {
                self.answer(reply, Err(failure));
                return NOTHING;
            }
        };
        let changed = self.carry_out(effects);
        if let Some(failure) = self.unsaved.take() {
            self.answer(reply, Err(failure));
            return changed;
        }
        self.book.note_decided(identity);
        let relation = self.book.relation(&identity);
        let grant = relation.and_then(|relation| relation.mine.as_ref()).and_then(Word::grant);
        let is_open = relation.is_some_and(|relation| relation.is_open(self.moment()));
        let shown = if is_open && matches!(state, "asked" | "approved") { "trusted" } else { state };
        let decided = Decided {
            name: relation.and_then(Relation::name).unwrap_or_default().to_owned(),
            identity: identity.to_string(),
            state: shown.to_owned(),
            allow: grant.map(|grant| grant.allow.0.clone()).unwrap_or_default(),
            expires: grant.and_then(|grant| grant.expires).map(|at| at / 1_000),
        };
        self.log_person(&identity, &decided, state, uid);
        self.answer(reply, Ok(AgentReply::Decided(decided)));
        changed
    }

    fn whois(&mut self, who: &str, reply: Reply) -> Changed {
        let address = who.parse::<IpAddr>().ok();
        let known = match address {
            Some(address) => Ok(self.with_address(address).cloned()),
            None => self.find_known(who),
        };
        let by = address.map(|address| match address {
            IpAddr::V4(address) => By::Address(address.octets().to_vec().into()),
            IpAddr::V6(address) => By::Address(address.octets().to_vec().into()),
        });
        match (known, by) {
            (Ok(Some(record)), _) => {
                let found = Found { agents: vec![self.shown(&record, None)], next: None };
                self.answer(reply, Ok(AgentReply::Found(found)));
                NOTHING
            }
            (Ok(None), Some(by)) => self.ask_rendezvous(who.to_owned(), (by, None), Goal::Show(None), reply),
            (Ok(None), None) => self.look_up(who, Goal::Show(None), reply),
            (Err(failure), _) => {
                self.answer(reply, Err(failure));
                NOTHING
            }
        }
    }

    fn status(&self) -> AgentStatus {
        let now = self.moment();
        let shown = |relation| shown_peer(relation, self.state_of(relation), self.progress_of(relation), now);
        let peers = self.book.relations().map(shown);
        AgentStatus {
            name: self.config.name.clone(),
            identity: self.book.me().to_string(),
            network: self
                .network
                .as_ref()
                .map_or_else(|| self.config.network.clone().unwrap_or_default(), |network| network.name.clone()),
            addresses: self.addresses().iter().map(|prefix| prefix.addr()).collect(),
            attested_tags: self.record.attested_tags(),
            rendezvous: self.meetings.standing(),
            meetings: self.meetings.shown(),
            held: self.held(),
            rotation: self.rotation(),
            peers: peers.chain(self.shown_beforehand(now)).collect(),
        }
    }

    pub(super) fn progress_of(&self, relation: &Relation) -> Option<Progress> {
        let (id, progress) = self.progress.get(&relation.identity)?;
        relation.asked.as_ref().filter(|asked| asked.request.id == *id).map(|_| *progress)
    }

    /// When a grant ends that holds for so many seconds.
    pub(super) fn end_of(&self, seconds: Option<u64>) -> Option<u64> {
        seconds.map(|seconds| self.moment().latest.saturating_add(seconds.saturating_mul(1_000)))
    }
}
