//! Which rule of which side decides what one agent may open at a different one, and why.
//!
//! The judgement is the data plane's: a relation is open or not as the book of trust says, and a scope lists a packet as
//! the node's rule of that scope does. What is explained is the first packet of a flow. Answers in a flow follow from it.

mod opening;
#[cfg(test)]
mod tests;

use overlay_wire::signed::ScopeList;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::opening::Opening;
use super::trust::{Moment, Relation, Word};
use crate::dates::rfc3339;

/// What people do about a state that was restored and is held.
pub(super) const CONFIRM: &str = "if this state is the newest one: sudo overlay trust confirm";

/// The query of `GET /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The agent that opens.
    pub from: String,
    /// The agent at which it opens. One of both is this agent.
    pub to: String,
    /// What it opens: `icmp`, `tcp/22`, `udp/53` or the number of an IP protocol.
    pub what: String,
}

/// Whether something may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may be opened.
    Allowed,
    /// It is refused.
    Refused,
    /// This side sends it, and the peer decides. Its rules are not known here.
    PeerDecides,
}

/// One of the two ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// This agent.
    Here,
    /// The peer.
    There,
}

/// Why something is allowed or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The grant lists it.
    Listed,
    /// The grant does not list it.
    NotListed,
    /// The peer has no list of its own, so that it may open everything (static mode).
    NoList,
    /// The rules of the peer are not known here (static mode).
    NotKnown,
    /// The deciding side has granted nothing.
    NoGrant,
    /// The peer has asked, and waits for a decision here.
    Pending,
    /// This agent has asked, and waits for the peer's decision.
    Asked,
    /// Trust was given beforehand, and the peer has not asked yet.
    Beforehand,
    /// The grant of the deciding side has ended.
    Expired,
    /// The deciding side took its grant back.
    Revoked,
    /// Both sides have granted, but they have not agreed on a preshared key.
    NoTunnel,
    /// The state of this agent was restored, and it is not known what was taken back since.
    Held,
    /// This side knows no such peer.
    Unknown,
}

/// One of the two agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// Its name, or what was asked for if there is no such agent.
    pub name: String,
    /// Its key. Left out if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether it is this agent.
    pub is_self: bool,
}

/// What decides, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// The agent that opens.
    pub from: Party,
    /// The agent at which it opens.
    pub to: Party,
    /// What it opens, as a scope.
    pub what: String,
    /// Whether it may be opened.
    pub verdict: Verdict,
    /// The side that decides.
    pub side: Side,
    /// The name of the agent that decides.
    pub decider: String,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub why: String,
    /// The entry that allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// All entries of the list that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// When the grant was given, taken back or ended, or when the request was made, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When the deciding grant ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// What to do in order to change it: a command, and where to type it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The state of the tunnel, as `overlay status` shows it. Left out if the data plane does not have the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
}

/// What is judged: what this agent and one peer have said.
pub(super) struct Case<'a> {
    /// What people call both.
    pub(super) me: &'a str,
    pub(super) peer: &'a str,
    pub(super) opening: Opening,
    /// The side at which something is opened.
    pub(super) at: Side,
    pub(super) relation: Option<&'a Relation>,
    /// What was granted to the peer before it asks.
    pub(super) beforehand: Option<&'a ScopeList>,
    /// Whether a `[[trust]]` of the config names the peer.
    pub(super) is_pinned: bool,
    /// Whether what this side has granted is held: see `restored`.
    pub(super) is_held: bool,
    /// Milliseconds since 1970.
    pub(super) now: Moment,
}

/// The outcome, without words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) side: Side,
    pub(super) reason: Reason,
    pub(super) rule: Option<String>,
    allow: Option<Vec<String>>,
    /// Milliseconds since 1970.
    pub(super) since: Option<u64>,
    expires: Option<u64>,
}

impl Judgement {
    fn of(side: Side, reason: Reason, since: Option<u64>) -> Self {
        Self { side, reason, rule: None, allow: None, since, expires: None }
    }

    pub(super) fn verdict(&self) -> Verdict {
        if self.reason == Reason::Listed { Verdict::Allowed } else { Verdict::Refused }
    }
}

impl Case<'_> {
    /// Judges as the data plane does: first whether there is a tunnel, then the grant of the side at which it is opened.
    pub(super) fn judge(&self) -> Judgement {
        let bar = bar(self.relation, self.beforehand.is_some(), self.is_held, self.now);
        let (Some(relation), None) = (self.relation, &bar) else {
            return bar.unwrap_or(Judgement::of(Side::Here, Reason::Unknown, None));
        };
        let word = match self.at {
            Side::Here => &relation.mine,
            Side::There => &relation.theirs,
        };
        let Some(grant) = word.as_ref().and_then(Word::grant) else {
            return Judgement::of(self.at, Reason::NoGrant, None);
        };
        let rule = grant.allow.0.iter().find(|scope| self.opening.is_listed_by(scope)).cloned();
        Judgement {
            side: self.at,
            reason: if rule.is_some() { Reason::Listed } else { Reason::NotListed },
            rule,
            allow: Some(grant.allow.0.clone()),
            since: Some(grant.issued),
            expires: grant.expires,
        }
    }

    /// The whole answer.
    pub(super) fn explain(&self, from: Party, to: Party) -> Explained {
        let judgement = self.judge();
        let decider = match judgement.side {
            Side::Here => self.me,
            Side::There => self.peer,
        };
        Explained {
            from,
            to,
            what: self.opening.to_string(),
            verdict: judgement.verdict(),
            side: judgement.side,
            decider: decider.to_owned(),
            reason: judgement.reason,
            why: self.why(&judgement),
            hint: self.hint(&judgement),
            rule: judgement.rule,
            allow: judgement.allow,
            since: judgement.since.map(|at| at / 1_000),
            expires: judgement.expires.map(|at| at / 1_000),
            tunnel: None,
        }
    }

    fn why(&self, judgement: &Judgement) -> String {
        let (decider, other) = match judgement.side {
            Side::Here => (self.me, self.peer),
            Side::There => (self.peer, self.me),
        };
        let (what, peer) = (self.opening, self.peer);
        let at = judgement.since.map(rfc3339).unwrap_or_default();
        match judgement.reason {
            Reason::Listed => {
                let rule = judgement.rule.as_deref().unwrap_or_default();
                format!("the grant of {decider} for {other} lists {rule}")
            }
            Reason::NotListed => {
                let listed = judgement.allow.as_deref().unwrap_or_default().join(", ");
                let listed = if listed.is_empty() { "nothing" } else { &listed };
                format!("the grant of {decider} for {other} does not list {what}: it lists {listed}")
            }
            Reason::NoGrant => format!("{decider} has granted nothing to {other}"),
            Reason::Pending => format!("{peer} has asked, and nobody has decided here yet"),
            Reason::Asked => format!("{peer} was asked, and has not answered yet"),
            Reason::Beforehand => format!("{peer} is trusted beforehand, and has not asked yet"),
            Reason::Expired => format!("the grant of {decider} for {other} ended at {at}"),
            Reason::Revoked => format!("{decider} took its trust in {other} back at {at}"),
            Reason::NoTunnel => "both sides have granted, but they share no preshared key".to_owned(),
            Reason::Held => {
                "the state of this agent was restored: it is not known what was taken back since".to_owned()
            }
            Reason::Unknown => format!("{} does not know {peer}", self.me),
            // These are said in static mode alone.
            Reason::NoList | Reason::NotKnown => String::new(),
        }
    }

    /// What changes the outcome.
    fn hint(&self, judgement: &Judgement) -> Option<String> {
        let (me, peer, what) = (self.me, self.peer, self.opening);
        let longer = || {
            let listed = judgement.allow.iter().flatten().map(|scope| format!(" --allow {scope}"));
            listed.chain([format!(" --allow {what}")]).collect::<String>()
        };
        let ask = match self.at {
            Side::Here => format!("sudo overlay handshake {peer} --allow {what}"),
            Side::There => format!("sudo overlay handshake {peer} --want {what}"),
        };
        Some(match (judgement.reason, judgement.side) {
            (Reason::Listed | Reason::NoList | Reason::NotKnown, _) => return None,
            (Reason::NotListed, Side::Here) if self.is_pinned => {
                format!("write \"{what}\" into its [[trust]] in the config, then: sudo overlay reload")
            }
            (Reason::NotListed, Side::Here) => format!("sudo overlay approve {peer}{}", longer()),
            (Reason::NotListed, Side::There) => format!("on {peer}: sudo overlay approve {me}{}", longer()),
            (Reason::Pending, _) => match self.pending_wants_it() {
                true => format!("sudo overlay approve {peer}"),
                false => format!("sudo overlay approve {peer} --allow {what}"),
            },
            (Reason::Asked, _) => format!("on {peer}: sudo overlay approve {me}"),
            (Reason::Beforehand, _) => format!("on {peer}: sudo overlay handshake {me}"),
            (Reason::Expired, Side::Here) => format!("sudo overlay approve {peer} --for 24h"),
            (Reason::Expired, Side::There) => format!("on {peer}: sudo overlay approve {me} --for 24h"),
            (Reason::Held, _) => CONFIRM.to_owned(),
            (Reason::NoGrant | Reason::Revoked | Reason::NoTunnel | Reason::Unknown, _) => ask,
        })
    }

    /// Whether a plain `approve` is enough.
    fn pending_wants_it(&self) -> bool {
        let pending = self.relation.and_then(|relation| relation.pending(self.now));
        let wants = pending.is_some_and(|it| it.request.want.0.iter().any(|scope| self.opening.is_listed_by(scope)));
        // What the peer gives is not changed by our approval.
        self.at == Side::There || wants
    }
}

/// Why there is no tunnel. `None`: there is one. `is_beforehand`: the peer was granted something before it asks.
/// `is_held`: what was granted is held.
pub(super) fn bar(relation: Option<&Relation>, is_beforehand: bool, is_held: bool, now: Moment) -> Option<Judgement> {
    let of = |side, reason, since| Some(Judgement::of(side, reason, since));
    let Some(relation) = relation else {
        return match is_beforehand {
            true => of(Side::There, Reason::Beforehand, None),
            false => of(Side::Here, Reason::Unknown, None),
        };
    };
    if relation.is_open(now) {
        return if is_held { of(Side::Here, Reason::Held, None) } else { None };
    }
    if let Some(pending) = relation.pending(now) {
        return of(Side::Here, Reason::Pending, Some(pending.request.issued));
    }
    if is_beforehand {
        return of(Side::There, Reason::Beforehand, None);
    }
    match said(relation.mine.as_ref(), now) {
        Some((reason, since)) => return of(Side::Here, reason, Some(since)),
        None if relation.mine.is_none() => return of(Side::Here, Reason::NoGrant, None),
        None => {}
    }
    if let Some(asked) = relation.asked(now) {
        return of(Side::There, Reason::Asked, Some(asked.request.issued));
    }
    match said(relation.theirs.as_ref(), now) {
        Some((reason, since)) => of(Side::There, reason, Some(since)),
        None if relation.theirs.is_none() => of(Side::There, Reason::NoGrant, None),
        None => of(Side::Here, Reason::NoTunnel, None),
    }
}

/// Why a word opens nothing, and since when. `None`: there is no word, or a grant that holds.
fn said(word: Option<&Word>, now: Moment) -> Option<(Reason, u64)> {
    match word? {
        Word::Revoke(revoke) => Some((Reason::Revoked, revoke.issued)),
        Word::Grant(grant) => grant.expires.filter(|at| *at <= now.latest).map(|at| (Reason::Expired, at)),
    }
}
