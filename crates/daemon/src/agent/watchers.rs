//! The streams of events for programs that decide, and what makes an event.
//!
//! An event follows from a difference: what was seen of a relation last, and what it is now. So every cause leads to the
//! same events: a verb, the config, a letter, the clock. They are passed on once the data plane follows, so a program
//! that is told `trusted` can connect at once.
//!
//! A stream never makes the agent wait. Its queue is bounded, and a reader that leaves it full loses the stream.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use overlay_wire::signed::{PublicKey, ScopeList};

use super::explain::Side;
use super::request::{AgentEvent, EventSender, Happened};
use super::shown::pending_request;
use super::trust::{Moment, Relation, Word};

/// How many streams there are at most.
pub(crate) const MAX_STREAMS: usize = 16;
/// How many events wait for the data plane.
const MAX_HELD: usize = 4_096;

/// What was seen of a relation last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    is_open: bool,
    mine: Said,
    theirs: Said,
    asked: bool,
    pending: Option<[u8; 16]>,
    /// The sequence of our last word, which tells whether this side has decided.
    sequence: u64,
}

/// The last word of one side, without its sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Granted(ScopeList, Option<u64>),
    Revoked,
}

impl Said {
    fn of(word: Option<&Word>) -> Self {
        match word {
            None => Self::Nothing,
            Some(Word::Grant(grant)) => Self::Granted(grant.allow.clone(), grant.expires),
            Some(Word::Revoke(_)) => Self::Revoked,
        }
    }
}

impl Seen {
    fn of(relation: &Relation, now: Moment) -> Self {
        Self {
            is_open: relation.is_open(now),
            mine: Said::of(relation.mine.as_ref()),
            theirs: Said::of(relation.theirs.as_ref()),
            asked: relation.asked.is_some(),
            pending: relation.pending(now).map(|pending| pending.request.id),
            sequence: relation.mine.as_ref().map_or(0, Word::sequence),
        }
    }

    /// The event that leads from `before` to this, and the side that caused it.
    fn since(&self, before: &Self) -> Option<(Happened, Option<Side>)> {
        let took_back = |before: &Said, after: &Said| *after == Said::Revoked && before != after;
        if self.pending.is_some() && self.pending != before.pending {
            return Some((Happened::Request, None));
        }
        if self.is_open && !before.is_open {
            return Some((Happened::Trusted, None));
        }
        if took_back(&before.mine, &self.mine) {
            // Where nothing was granted, a request was refused.
            let had_something = before.is_open || matches!(before.mine, Said::Granted(..));
            let what = if had_something { Happened::Untrusted } else { Happened::Rejected };
            return Some((what, Some(Side::Here)));
        }
        if self.mine == Said::Revoked && before.pending.is_some() && self.pending.is_none() && !self.is_open {
            return Some((Happened::Rejected, Some(Side::Here)));
        }
        if self.theirs == Said::Revoked && before.asked && !self.asked {
            return Some((Happened::Rejected, Some(Side::There)));
        }
        if took_back(&before.theirs, &self.theirs) {
            return Some((Happened::Untrusted, Some(Side::There)));
        }
        if before.is_open && !self.is_open {
            return Some((Happened::Expired, None));
        }
        let changed = if before.mine == self.mine { Side::There } else { Side::Here };
        let is_same = before.mine == self.mine && before.theirs == self.theirs;
        (self.is_open && !is_same).then_some((Happened::Changed, Some(changed)))
    }
}

/// The streams, and what was seen last.
#[derive(Default)]
pub(super) struct Watchers {
    streams: Vec<EventSender>,
    seen: BTreeMap<PublicKey, Seen>,
    up: BTreeSet<PublicKey>,
    /// The peers to which our last word is a different one, and nobody has said who decided that.
    decided: BTreeSet<PublicKey>,
    /// The last thing that happened.
    latest: Option<(PublicKey, Happened)>,
    /// What waits until the data plane follows.
    held: Vec<AgentEvent>,
}

impl Watchers {
    /// Takes what is known at the start. It is no event.
    pub(super) fn new<'a>(relations: impl Iterator<Item = &'a Relation>, now: Moment) -> Self {
        let mut watchers = Self::default();
        for relation in relations {
            watchers.seen.insert(relation.identity, Seen::of(relation, now));
        }
        watchers
    }

    /// Adds a stream. Returns false if there are too many.
    pub(super) fn add(&mut self, stream: EventSender) -> bool {
        self.streams.retain(|stream| !stream.is_closed());
        let has_room = self.streams.len() < MAX_STREAMS;
        if has_room {
            self.streams.push(stream);
        }
        has_room
    }

    /// Looks at a relation that may have changed.
    pub(super) fn note(&mut self, relation: &Relation, now: Moment) {
        let peer = relation.identity;
        let after = Seen::of(relation, now);
        let before = self.seen.get(&peer).cloned().unwrap_or_default();
        if let Some((what, side)) = after.since(&before) {
            self.latest = Some((peer, what));
            self.hold(event_of(relation, what, side, now));
        }
        if after.sequence != before.sequence {
            self.decided.insert(peer);
        }
        if !after.is_open {
            self.up.remove(&peer);
        }
        self.seen.insert(peer, after);
    }

    /// Forgets a peer of which nothing is known any more.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.seen.remove(peer);
        self.up.remove(peer);
        self.decided.remove(peer);
    }

    /// Takes the peers about which this side has decided, and nobody has said who.
    pub(super) fn take_decided(&mut self) -> BTreeSet<PublicKey> {
        std::mem::take(&mut self.decided)
    }

    /// A user has decided about this peer. Returns the last thing that happened, if it concerns the peer.
    pub(super) fn on_person(&mut self, peer: &PublicKey) -> Option<Happened> {
        self.decided.remove(peer);
        self.latest.filter(|(latest, _)| latest == peer).map(|(_, what)| what)
    }

    /// The peers whose tunnel was open when they were last looked at.
    pub(super) fn open(&self) -> Vec<PublicKey> {
        self.seen.iter().filter(|(_, seen)| seen.is_open).map(|(peer, _)| *peer).collect()
    }

    /// Notes whether a peer answers. Returns whether that is news.
    pub(super) fn on_reached(&mut self, peer: PublicKey, is_up: bool) -> bool {
        if is_up { self.up.insert(peer) } else { self.up.remove(&peer) }
    }

    /// Holds an event until the data plane follows.
    pub(super) fn hold(&mut self, event: AgentEvent) {
        if !self.streams.is_empty() && self.held.len() < MAX_HELD {
            self.held.push(event);
        }
    }

    /// Passes on what was held. A stream that has no room is dropped.
    pub(super) fn publish(&mut self) {
        for event in std::mem::take(&mut self.held) {
            self.streams.retain(|stream| stream.send(&event));
        }
    }
}

/// An event about a relation.
pub(super) fn event_of(relation: &Relation, what: Happened, by: Option<Side>, now: Moment) -> AgentEvent {
    let mine = relation.mine.as_ref().and_then(Word::grant);
    let theirs = relation.theirs.as_ref().and_then(Word::grant);
    let ends = [mine, theirs].into_iter().flatten().filter_map(|grant| grant.expires).min();
    AgentEvent {
        name: Some(relation.name().unwrap_or_default().to_owned()),
        identity: Some(relation.identity.to_string()),
        by,
        allow: mine.map(|grant| grant.allow.0.clone()),
        opens: theirs.map(|grant| grant.allow.0.clone()),
        expires: ends.map(|at| at / 1_000),
        request: relation.pending(now).filter(|_| what == Happened::Request).map(pending_request),
        ..AgentEvent::of(what, now.wall)
    }
}
