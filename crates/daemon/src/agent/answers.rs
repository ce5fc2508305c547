//! What people and programs ask, and what they are answered.
//!
//! A decision is answered once it is on disk and the data plane follows it. A question about an agent that is not known
//! here is passed on to the rendezvous, and answered when that answers.

use std::net::IpAddr;
use std::time::Duration;

use overlay_rendezvous::client::{Client, Query};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::protocol::{Code, Find as By};
use overlay_wire::signed::{PublicKey, Record, ScopeList, Signed};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::letters::chance;
use super::request::{AgentCall, AgentRecord, AgentReply, AgentRequest, AgentStatus, Approve, Decided, Handshake};
use super::shown::{addresses, pending_request, shown_peer, shown_service, state_of};
use super::time::{now, unix_now};
use super::trust::{Impossible, Relation, Terms, Word};
use super::{Agent, Changed, NOTHING, Standing};
use crate::failure::{ExitKind, Failure};

/// The shortest part of a key that names an agent.
const MIN_PREFIX: usize = 16;
/// How many questions wait for the rendezvous.
const MAX_ASKED: usize = 64;
/// How long a question waits for the rendezvous.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For how long after its start an agent looks again for one that is not found: both may have started together.
const JUST_STARTED: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(300);

pub(crate) type Reply = oneshot::Sender<Result<AgentReply, Failure>>;

/// A question that waits for the rendezvous.
pub(super) struct Asked {
    about: String,
    goal: Goal,
    pub(super) until: Instant,
    reply: Reply,
}

/// What the answer is for.
enum Goal {
    /// A handshake that this user asks for.
    Handshake(Handshake, u32),
    Show,
}

impl Asked {
    pub(super) fn refuse(self, code: Code) {
        let failure = Failure::new(ExitKind::Other, format!("the rendezvous refuses to look for {}", self.about))
            .with_cause(code.word());
        let _ = self.reply.send(Err(failure));
    }

    pub(super) fn give_up(self) {
        let failure = Failure::new(ExitKind::Timeout, format!("the rendezvous did not say who {} is", self.about))
            .with_hint("overlay agents shows whether the rendezvous is connected");
        let _ = self.reply.send(Err(failure));
    }
}

/// A question that is not passed on yet.
pub(super) struct Held {
    by: By,
    asked: Asked,
    /// When it may be passed on.
    from: Instant,
}

/// An answer that is given once the data plane follows.
pub(crate) struct Answer {
    reply: Reply,
    result: Result<AgentReply, Failure>,
}

impl Answer {
    pub(crate) fn give(self) {
        let _ = self.reply.send(self.result);
    }
}

/// How a person names an agent.
struct Named<'a> {
    name: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Self {
        match text.split_once('@') {
            Some((name, prefix)) => Self { name: Some(name), key: Some(prefix) },
            None if text.len() >= MIN_PREFIX && overlay_wire::signed::check_name(text).is_err() => {
                Self { name: None, key: Some(text) }
            }
            None if text.parse::<PublicKey>().is_ok() => Self { name: None, key: Some(text) },
            None => Self { name: Some(text), key: None },
        }
    }

    fn matches(&self, identity: &PublicKey, name: &str) -> bool {
        self.name.is_none_or(|wanted| wanted == name)
            && self.key.is_none_or(|prefix| !prefix.is_empty() && identity.to_string().starts_with(prefix))
    }

    fn by(&self) -> By {
        match (self.name, self.key) {
            (Some(name), _) => By::Name(name.to_owned()),
            (None, Some(key)) => match key.parse() {
                Ok(key) => By::Key(key),
                Err(_) => By::KeyPrefix(key.to_owned()),
            },
            (None, None) => By::All,
        }
    }
}

impl Agent {
    /// Handles a call. The answer is given after what has changed was applied. `None`: it is given later.
    pub(crate) fn on_call(&mut self, call: AgentCall, reply: Reply) -> (Changed, Option<Answer>) {
        // An earlier failure is in the log, and does not concern this caller.
        self.unsaved = None;
        let (changed, answer) = self.answer(call, reply);
        (changed.and(self.settle()), answer)
    }

    fn answer(&mut self, call: AgentCall, reply: Reply) -> (Changed, Option<Answer>) {
        let uid = call.uid;
        match call.request {
            AgentRequest::Handshake(handshake) => match self.find_known(&handshake.peer) {
                Ok(Some(record)) => self.shake(&record, &handshake, uid, reply),
                Ok(None) => (self.look_up(&handshake.peer.clone(), Goal::Handshake(handshake, uid), reply), None),
                Err(failure) => answered(NOTHING, reply, Err(failure)),
            },
            AgentRequest::Approve(approve) => {
                self.decide(&approve.peer.clone(), uid, reply, |agent, peer| agent.approve(&peer, &approve))
            }
            AgentRequest::Untrust(named) => self.decide(&named.peer, uid, reply, |agent, peer| {
                if agent.config.trust.iter().any(|trust| trust.key == peer) {
                    return Err(Failure::new(ExitKind::Refused, format!("the config trusts `{}`", named.peer))
                        .with_cause("what the config says is not changed by verbs")
                        .with_hint("remove its [[trust]] from the config, then: sudo overlay reload"));
                }
                let effects = agent.book.untrust(&peer, unix_now()).map_err(|error| impossible(&named.peer, error))?;
                Ok((agent.carry_out(effects), "untrusted"))
            }),
            AgentRequest::Pending => {
                let pending = self.book.pending(unix_now()).map(pending_request).collect();
                answered(NOTHING, reply, Ok(AgentReply::Pending(pending)))
            }
            AgentRequest::Peers => answered(NOTHING, reply, Ok(AgentReply::Peers(Box::new(self.status())))),
            AgentRequest::Find(find) => {
                let by = match (find.name, find.tag) {
                    (Some(name), _) => By::Name(name),
                    (None, Some(tag)) => By::Tag(tag),
                    (None, None) => By::All,
                };
                (self.ask_rendezvous("them".to_owned(), by, Goal::Show, reply), None)
            }
            AgentRequest::Whois(who) => self.whois(&who, reply),
        }
    }

    /// Tells those whose question was not answered in time.
    pub(super) fn give_up_questions(&mut self) {
        let late: Vec<Query> =
            self.asked.iter().filter(|(_, asked)| asked.until <= Instant::now()).map(|(query, _)| *query).collect();
        for query in late {
            if let Some(asked) = self.asked.remove(&query) {
                asked.give_up();
            }
        }
        let (late, held) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.asked.until <= Instant::now());
        self.held = held;
        let late: Vec<Held> = late;
        late.into_iter().for_each(|held| held.asked.give_up());
    }

    /// Handles the records that the rendezvous has found.
    pub(super) fn on_found(&mut self, query: Query, records: Vec<Signed<Record>>) -> Changed {
        let Some(asked) = self.asked.remove(&query) else { return NOTHING };
        match asked.goal {
            Goal::Show => {
                let found = records.iter().map(|record| self.shown(record)).collect();
                let _ = asked.reply.send(Ok(AgentReply::Found(found)));
                NOTHING
            }
            Goal::Handshake(handshake, uid) => {
                let named = Named::parse(&handshake.peer);
                let mut matching = records.into_iter().filter(|record| named.matches(&record.identity, &record.name));
                match (matching.next(), matching.next()) {
                    (Some(record), None) => {
                        let (changed, answer) = self.shake(&record, &handshake, uid, asked.reply);
                        if let Some(answer) = answer {
                            answer.give();
                        }
                        changed
                    }
                    (None, _) if Instant::now() < self.started + JUST_STARTED => {
                        let by = named.by();
                        let (about, until, reply) = (asked.about, asked.until, asked.reply);
                        let asked = Asked { about, goal: Goal::Handshake(handshake, uid), until, reply };
                        self.held.push(Held { by, asked, from: Instant::now() + AGAIN });
                        NOTHING
                    }
                    (None, _) => {
                        let _ = asked.reply.send(Err(unknown(&handshake.peer)));
                        NOTHING
                    }
                    (Some(_), Some(_)) => {
                        let _ = asked.reply.send(Err(ambiguous(&handshake.peer)));
                        NOTHING
                    }
                }
            }
        }
    }

    fn shake(
        &mut self,
        record: &Signed<Record>,
        handshake: &Handshake,
        uid: u32,
        reply: Reply,
    ) -> (Changed, Option<Answer>) {
        let terms = Terms {
            allow: Some(handshake.allow.clone().map_or_else(|| self.config.allow.clone(), ScopeList)),
            expires: handshake.seconds.map(|seconds| unix_now().saturating_add(seconds.saturating_mul(1_000))),
        };
        let what = (handshake.reason.clone(), ScopeList(handshake.want.clone()), terms);
        let identity = record.identity;
        let effects = self.book.ask(record, &self.record, what, unix_now(), chance());
        let result = effects.map_err(|error| impossible(&handshake.peer, error));
        self.conclude(identity, uid, reply, result.map(|effects| (effects, "asked")))
    }

    fn approve(&mut self, peer: &PublicKey, approve: &Approve) -> Result<(Changed, &'static str), Failure> {
        let was_pending = self.book.relation(peer).is_some_and(|relation| relation.pending.is_some());
        let terms = Terms {
            allow: approve.allow.clone().map(ScopeList),
            expires: approve.seconds.map(|seconds| unix_now().saturating_add(seconds.saturating_mul(1_000))),
        };
        let effects = self.book.approve(peer, &self.record, terms, unix_now(), chance());
        let effects = effects.map_err(|error| impossible(&approve.peer, error))?;
        Ok((self.carry_out(effects), if was_pending { "approved" } else { "changed" }))
    }

    /// Makes a decision about a peer that is known here.
    fn decide(
        &mut self,
        text: &str,
        uid: u32,
        reply: Reply,
        make: impl FnOnce(&mut Self, PublicKey) -> Result<(Changed, &'static str), Failure>,
    ) -> (Changed, Option<Answer>) {
        let identity = match self.find_relation(text) {
            Ok(identity) => identity,
            Err(failure) => return answered(NOTHING, reply, Err(failure)),
        };
        match make(self, identity) {
            Ok((changed, state)) => self.told(identity, uid, reply, changed, state),
            Err(failure) => answered(NOTHING, reply, Err(failure)),
        }
    }

    fn conclude(
        &mut self,
        identity: PublicKey,
        uid: u32,
        reply: Reply,
        result: Result<(Vec<super::trust::Effect>, &'static str), Failure>,
    ) -> (Changed, Option<Answer>) {
        match result {
            Ok((effects, state)) => {
                let changed = self.carry_out(effects);
                self.told(identity, uid, reply, changed, state)
            }
            Err(failure) => answered(NOTHING, reply, Err(failure)),
        }
    }

    /// The answer to a decision that was made.
    fn told(
        &mut self,
        identity: PublicKey,
        uid: u32,
        reply: Reply,
        changed: Changed,
        state: &str,
    ) -> (Changed, Option<Answer>) {
        if let Some(failure) = self.unsaved.take() {
            return answered(changed, reply, Err(failure));
        }
        let relation = self.book.relation(&identity);
        let grant = relation.and_then(|relation| relation.mine.as_ref()).and_then(Word::grant);
        let is_open = self.book.open(unix_now()).any(|open| open.record.identity == identity);
        let state = if is_open && matches!(state, "asked" | "approved") { "trusted" } else { state };
        let decided = Decided {
            name: relation.and_then(Relation::name).unwrap_or_default().to_owned(),
            identity: identity.to_string(),
            state: state.to_owned(),
            allow: grant.map(|grant| grant.allow.0.clone()).unwrap_or_default(),
            expires: grant.and_then(|grant| grant.expires).map(|at| at / 1_000),
        };
        tracing::info!(uid, peer = decided.identity, allow = ?decided.allow, "{}: {}", decided.name, decided.state);
        answered(changed, reply, Ok(AgentReply::Decided(decided)))
    }

    fn whois(&mut self, who: &str, reply: Reply) -> (Changed, Option<Answer>) {
        let known = match who.parse::<IpAddr>() {
            Ok(address) => self.records().find(|record| addresses(record).contains(&address)).cloned(),
            Err(_) => match self.find_known(who) {
                Ok(known) => known,
                Err(failure) => return answered(NOTHING, reply, Err(failure)),
            },
        };
        if let Some(record) = known {
            let shown = self.shown(&record);
            return answered(NOTHING, reply, Ok(AgentReply::Found(vec![shown])));
        }
        let by = match who.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => By::Address(address.octets().to_vec().into()),
            Ok(IpAddr::V6(address)) => By::Address(address.octets().to_vec().into()),
            Err(_) => Named::parse(who).by(),
        };
        (self.ask_rendezvous(who.to_owned(), by, Goal::Show, reply), None)
    }

    fn look_up(&mut self, text: &str, goal: Goal, reply: Reply) -> Changed {
        self.ask_rendezvous(text.to_owned(), Named::parse(text).by(), goal, reply)
    }

    fn ask_rendezvous(&mut self, about: String, by: By, goal: Goal, reply: Reply) -> Changed {
        let asked = Asked { about, goal, until: Instant::now() + PATIENCE, reply };
        if let Standing::Failed(cause) = &self.standing {
            let failure = Failure::new(ExitKind::Timeout, "the rendezvous is not connected").with_cause(cause.clone());
            let _ = asked.reply.send(Err(failure));
            return NOTHING;
        }
        if self.asked.len() + self.held.len() >= MAX_ASKED {
            asked.refuse(Code::Later);
        } else if self.is_registered {
            self.pass_on(by, asked);
        } else {
            // A rendezvous shows members to members alone.
            self.held.push(Held { by, asked, from: Instant::now() });
        }
        self.drain()
    }

    fn pass_on(&mut self, by: By, asked: Asked) {
        match find(&mut self.client, by, now()) {
            Some(query) => _ = self.asked.insert(query, asked),
            None => asked.refuse(Code::Later),
        }
    }

    /// Passes on the questions whose time has come. A rendezvous shows members to members alone.
    pub(super) fn pass_on_held(&mut self) {
        if !self.is_registered {
            return;
        }
        let now = Instant::now();
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|held| held.from <= now);
        self.held = held;
        let due: Vec<Held> = due;
        due.into_iter().for_each(|held| self.pass_on(held.by, held.asked));
    }

    /// When the next question may be passed on.
    pub(super) fn pass_on_at(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.from).filter(|_| self.is_registered).min()
    }

    /// This agent cannot be registered, so what waits for that is not answered.
    pub(super) fn give_up_held(&mut self) {
        std::mem::take(&mut self.held).into_iter().for_each(|held| held.asked.give_up());
    }

    /// Whether anybody waits for the rendezvous.
    pub(super) fn has_questions(&self) -> bool {
        !self.asked.is_empty() || !self.held.is_empty()
    }

    /// The record of the one agent that a text names, if it is known here.
    fn find_known(&self, text: &str) -> Result<Option<Signed<Record>>, Failure> {
        let named = Named::parse(text);
        let mut matching = self.records().filter(|record| named.matches(&record.identity, &record.name));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(Some(record.clone())),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(ambiguous(text)),
        }
    }

    fn find_relation(&self, text: &str) -> Result<PublicKey, Failure> {
        match self.find_known(text)? {
            Some(record) => Ok(record.identity),
            None => Err(impossible(text, Impossible::NothingAsked)),
        }
    }

    /// All records that are known here.
    fn records(&self) -> impl Iterator<Item = &Signed<Record>> {
        self.book.relations().filter_map(Relation::newest_record).chain([&self.record])
    }

    fn status(&self) -> AgentStatus {
        let now = unix_now();
        AgentStatus {
            name: self.config.name.clone(),
            identity: self.book.me().to_string(),
            network: self
                .network
                .as_ref()
                .map_or_else(|| self.config.network.clone().unwrap_or_default(), |network| network.name.clone()),
            addresses: self.addresses().iter().map(|prefix| prefix.addr()).collect(),
            rendezvous: match &self.standing {
                Standing::Connecting => "connecting".to_owned(),
                Standing::Connected => "connected".to_owned(),
                Standing::Failed(cause) => cause.clone(),
            },
            peers: self.book.relations().map(|relation| shown_peer(relation, now)).collect(),
        }
    }

    fn shown(&self, record: &Record) -> AgentRecord {
        let state = if record.identity == self.book.me() {
            "self"
        } else {
            self.book.relation(&record.identity).map_or("unknown", |relation| state_of(relation, unix_now()))
        };
        AgentRecord {
            name: record.name.clone(),
            identity: record.identity.to_string(),
            addresses: addresses(record),
            tags: record.tags.clone(),
            services: record.services.iter().map(shown_service).collect(),
            state: state.to_owned(),
        }
    }
}

fn find(client: &mut Client, by: By, now: Now) -> Option<Query> {
    client.find(by, None, now).ok()
}

fn answered(changed: Changed, reply: Reply, result: Result<AgentReply, Failure>) -> (Changed, Option<Answer>) {
    (changed, Some(Answer { reply, result }))
}

fn unknown(text: &str) -> Failure {
    Failure::new(ExitKind::NotFound, format!("no agent is called `{text}`"))
        .with_hint("overlay agents lists the known ones, and overlay find those of the rendezvous")
}

fn ambiguous(text: &str) -> Failure {
    Failure::new(ExitKind::Conflict, format!("`{text}` names more than one agent"))
        .with_hint("write the full key, or NAME@KEYPREFIX; overlay agents shows them")
}

fn impossible(text: &str, error: Impossible) -> Failure {
    let (code, cause, hint) = match error {
        Impossible::Ourselves => (ExitKind::Usage, "that is this agent itself", None),
        Impossible::NothingAsked => {
            (ExitKind::NotFound, "it has not asked, and is not trusted", Some(format!("overlay handshake {text}")))
        }
        Impossible::Expired => {
            (ExitKind::Refused, "its request has expired", Some(format!("overlay handshake {text}")))
        }
        Impossible::NotTrusted => (ExitKind::NotFound, "there is nothing to take back", None),
        Impossible::BadValue => (ExitKind::Usage, "a list or the reason is too long, or an entry is not a right", None),
    };
    let failure = Failure::new(code, format!("nothing was decided about `{text}`")).with_cause(cause);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
