//! Questions about agents that are not known here: they are passed on to the rendezvous, and answered when it answers.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_rendezvous::client::Query;
use overlay_rendezvous::protocol::{Code, Find as By};
use overlay_wire::signed::{PublicKey, Record, Signed};
use tokio::time::Instant;

use super::named::{Named, ambiguous, unknown};
use super::request::{AgentReply, Approve, Found, Handshake, Reply};
use super::time::now;
use super::{Agent, At, Changed, NOTHING};
use crate::failure::{ExitKind, Failure};

/// How many questions wait for the rendezvous.
const MAX_ASKED: usize = 64;
/// How long a question waits for the rendezvous.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long after its start an agent looks again for one that is not found: both may have started together.
const JUST_STARTED: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(300);
/// How long the directory waits for the other rendezvous once one has answered.
const OTHERS: Duration = Duration::from_secs(1);

/// A question that waits for the rendezvous.
pub(super) struct Asked {
    /// What people call the agent.
    about: String,
    by: By,
    /// What is looked for if nothing is found.
    otherwise: Option<By>,
    goal: Goal,
    /// When it is answered with what is known by then, and when it is at the latest, however often it is passed on.
    until: Instant,
    deadline: Instant,
    reply: Reply,
    /// Whether a rendezvous knows of no such agent.
    is_denied: bool,
    /// Pages of the directory, of those that have answered.
    pages: Vec<Page>,
}

/// What the answer is for.
pub(super) enum Goal {
    /// A handshake that this user asks for.
    Handshake(Handshake, u32),
    /// An approval by this user. The agent that asks has named itself, and the rendezvous says whose the name is.
    Approve(Approve, u32, PublicKey),
    /// To show the agents after this one.
    Show(Option<PublicKey>),
    /// An approval by a tag of this agent, whose request waits.
    Attested(PublicKey),
}

impl Asked {
    pub(super) fn refuse(self, cause: &str) {
        let failure = Failure::new(ExitKind::Other, format!("the rendezvous refuses to look for {}", self.about))
            .with_cause(cause);
        let _ = self.reply.send(Err(failure));
    }

    fn give_up(self) {
        let failure = Failure::new(ExitKind::Timeout, format!("the rendezvous did not say who {} is", self.about))
            .with_hint(hint_without_rendezvous(&self.goal));
        let _ = self.reply.send(Err(failure));
    }
}

/// What was found.
#[derive(Default)]
struct Page {
    /// The records, and which rendezvous has shown each.
    records: Vec<(Signed<Record>, Option<String>)>,
    /// After whom there may be more.
    next: Option<PublicKey>,
}

impl Page {
    /// The pages of all rendezvous as one, in the order of the identities. It ends where the first of them ends, and of each agent
    /// the newest record counts.
    fn merged(mut pages: Vec<Self>) -> Self {
        if pages.iter().any(|page| !page.records.is_empty()) {
            // One that finds nothing for now must not hold the others up.
            pages.retain(|page| !page.records.is_empty());
        }
        let next = pages.iter().filter_map(|page| page.next).min();
        let mut records: Vec<_> = pages.into_iter().flat_map(|page| page.records).collect();
        records.retain(|(record, _)| next.is_none_or(|next| record.identity <= next));
        records.sort_by_key(|(record, _)| (record.identity, std::cmp::Reverse(record.sequence)));
        records.dedup_by_key(|(record, _)| record.identity);
        Self { records, next }
    }
}

/// A question that is not passed on yet.
pub(super) struct Held {
    asked: Asked,
    /// When it may be passed on.
    from: Instant,
}

impl Agent {
    pub(super) fn look_up(&mut self, text: &str, goal: Goal, reply: Reply) -> Changed {
        match Named::parse(text) {
            Ok(named) => self.ask_rendezvous(text.to_owned(), named.by(), goal, reply),
            Err(failure) => {
                let _ = reply.send(Err(failure));
                NOTHING
            }
        }
    }

    pub(super) fn ask_rendezvous(
        &mut self,
        about: String,
        (by, otherwise): (By, Option<By>),
        goal: Goal,
        reply: Reply,
    ) -> Changed {
        if let Some(cause) = self.meetings.failure() {
            if let (Goal::Show(after), Some(found)) = (&goal, self.known_here(&by)) {
                // The first page has them all.
                let found = if after.is_none() { found } else { Found::default() };
                let _ = reply.send(Ok(AgentReply::Found(found)));
                return NOTHING;
            }
            let failure = Failure::new(ExitKind::Timeout, "the rendezvous is not connected")
                .with_cause(cause)
                .with_hint(hint_without_rendezvous(&goal));
            let _ = reply.send(Err(failure));
            return NOTHING;
        }
        let deadline = Instant::now() + PATIENCE;
        let (until, is_denied, pages) = (deadline, false, Vec::new());
        let asked = Asked { about, by, otherwise, goal, until, deadline, reply, is_denied, pages };
        if self.asked.len() + self.held.len() >= MAX_ASKED {
            asked.refuse(Code::Later.word());
        } else if self.meetings.is_registered() {
            self.pass_on(asked);
        } else {
            // A rendezvous shows members to members alone.
            self.held.push(Held { asked, from: Instant::now() });
        }
        self.drain()
    }

    /// Asks every rendezvous.
    fn pass_on(&mut self, mut asked: Asked) {
        asked.is_denied = false;
        asked.until = asked.deadline;
        let after = match asked.goal {
            Goal::Show(after) => after,
            _ => None,
        };
        match self.meetings.find(&asked.by, after, now()) {
            Ok(queries) if queries.is_empty() => self.held.push(Held { asked, from: Instant::now() }),
            Ok(queries) => {
                let number = self.asked.last_key_value().map_or(0, |(last, _)| last + 1);
                self.queries.extend(queries.into_iter().map(|query| (query, number)));
                self.asked.insert(number, asked);
            }
            Err(_) => asked.refuse(Code::Later.word()),
        }
    }

    /// Ends one look-up without an answer. Returns its question if that was the last one, and no rendezvous has denied it.
    pub(super) fn on_no_answer(&mut self, query: &(At, Query)) -> Option<Asked> {
        let number = self.queries.remove(query)?;
        if self.queries.values().any(|other| *other == number) {
            return None;
        }
        let asked = self.asked.remove(&number)?;
        if asked.is_denied || !asked.pages.is_empty() {
            // The answer of the others counts as soon as its time is over.
            self.asked.insert(number, Asked { until: Instant::now(), ..asked });
            return None;
        }
        Some(asked)
    }

    /// This rendezvous is gone. What only it was asked is asked again.
    pub(super) fn ask_elsewhere(&mut self, at: &At) -> Changed {
        let lost: Vec<_> = self.queries.keys().filter(|(asked_at, _)| asked_at == at).copied().collect();
        for query in lost {
            if let Some(asked) = self.on_no_answer(&query) {
                self.pass_on(asked);
            }
        }
        NOTHING
    }

    /// Passes on the questions whose time has come.
    pub(super) fn pass_on_held(&mut self) {
        if !self.meetings.is_registered() {
            return;
        }
        let now = Instant::now();
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|held| held.from <= now);
        self.held = held;
        let due: Vec<Held> = due;
        due.into_iter().for_each(|held| self.pass_on(held.asked));
    }

    /// When a question is due next: to be passed on, or to be given up.
    pub(super) fn question_due(&self) -> Option<Instant> {
        let held =
            self.held.iter().map(|held| if self.meetings.is_registered() { held.from } else { held.asked.until });
        self.asked.values().map(|asked| asked.until).chain(held).min()
    }

    /// Answers those whose question was not answered in time.
    pub(super) fn give_up_questions(&mut self) -> Changed {
        let now = Instant::now();
        let late: Vec<_> = self.asked.extract_if(.., |_, asked| asked.until <= now).collect();
        let mut changed = NOTHING;
        for (number, asked) in late {
            self.queries.retain(|_, other| *other != number);
            match asked.is_denied || !asked.pages.is_empty() {
                true => changed = changed.and(self.answer_with_pages(asked)),
                false => self.give_up_question(asked),
            }
        }
        let held: Vec<_> = self.held.extract_if(.., |held| held.asked.until <= now).collect();
        held.into_iter().for_each(|held| self.give_up_question(held.asked));
        changed
    }

    /// Nobody has answered. What is known here is better than nothing.
    fn give_up_question(&self, asked: Asked) {
        match (&asked.goal, self.known_here(&asked.by)) {
            (Goal::Show(None), Some(found)) => drop(asked.reply.send(Ok(AgentReply::Found(found)))),
            _ => asked.give_up(),
        }
    }

    /// This agent cannot be registered, so what waits for that is not answered.
    pub(super) fn refuse_held(&mut self, cause: &str) {
        self.held.drain(..).for_each(|held| held.asked.refuse(cause));
    }

    /// The agents about whose tags the rendezvous is being asked.
    pub(super) fn confirming(&self) -> BTreeSet<PublicKey> {
        let asked = self.asked.values().chain(self.held.iter().map(|held| &held.asked));
        let about = |asked: &Asked| match asked.goal {
            Goal::Attested(peer) => Some(peer),
            _ => None,
        };
        asked.filter_map(about).collect()
    }

    /// Handles the records that a rendezvous has found.
    pub(super) fn on_found(
        &mut self,
        query: (At, Query),
        records: Vec<Signed<Record>>,
        next: Option<PublicKey>,
    ) -> Changed {
        let Some(number) = self.queries.remove(&query) else { return NOTHING };
        let records = self.judge_found(records);
        if let Some(asked) = self.asked.get_mut(&number)
            && matches!(asked.goal, Goal::Show(_))
        {
            let from = self.meetings.url(&query.0);
            let records = records.into_iter().map(|record| (record, from.clone())).collect();
            asked.pages.push(Page { records, next });
            if self.queries.values().any(|other| *other == number) {
                asked.until = asked.until.min(Instant::now() + OTHERS);
                return NOTHING;
            }
            let Some(asked) = self.asked.remove(&number) else { return NOTHING };
            return self.answer_with_pages(asked);
        }
        if records.is_empty() && next.is_none() && self.queries.values().any(|other| *other == number) {
            // A different one may know.
            if let Some(asked) = self.asked.get_mut(&number) {
                asked.is_denied = true;
            }
            return NOTHING;
        }
        self.queries.retain(|_, other| *other != number);
        let Some(asked) = self.asked.remove(&number) else { return NOTHING };
        let records = records.into_iter().map(|record| (record, None)).collect();
        self.answer_question(asked, Page { records, next })
    }

    /// Answers a question about the directory by what every rendezvous has shown.
    fn answer_with_pages(&mut self, mut asked: Asked) -> Changed {
        let page = Page::merged(std::mem::take(&mut asked.pages));
        if let (Goal::Show(after), true, Some(next)) = (&mut asked.goal, page.records.is_empty(), page.next) {
            // A rendezvous looks at a bounded number of agents for each answer.
            *after = Some(next);
            self.pass_on(asked);
            return NOTHING;
        }
        self.answer_question(asked, page)
    }

    /// Answers a question by what was found.
    fn answer_question(&mut self, mut asked: Asked, page: Page) -> Changed {
        let Page { records, next } = page;
        if records.is_empty()
            && let Some(by) = asked.otherwise.take()
        {
            asked.by = by;
            self.pass_on(asked);
            return NOTHING;
        }
        match asked.goal {
            Goal::Show(_) => {
                let agents = records.iter().map(|(record, from)| self.shown(record, from.clone())).collect();
                let found = Found { agents, next: next.map(|next| next.to_string()) };
                let _ = asked.reply.send(Ok(AgentReply::Found(found)));
                NOTHING
            }
            Goal::Attested(peer) => {
                let records: Vec<_> = records.into_iter().map(|(record, _)| record).collect();
                self.on_tags_shown(&peer, &records)
            }
            Goal::Approve(approve, uid, identity) => {
                let claimed = self.book.relation(&identity).and_then(|relation| relation.name());
                let registered = records.iter().map(|(record, _)| record).find(|record| record.identity == identity);
                if registered.map(|record| record.name.as_str()) == claimed {
                    return self.approve(identity, &approve, uid, asked.reply);
                }
                let _ = asked.reply.send(Err(claims_name(&asked.about, &identity, registered)));
                NOTHING
            }
            Goal::Handshake(ref handshake, uid) => {
                // What cannot be read was refused before it was passed on.
                let Ok(named) = Named::parse(&handshake.peer) else { return NOTHING };
                let mut matching = records
                    .iter()
                    .map(|(record, _)| record)
                    .filter(|record| named.matches(&record.identity, &record.name));
                match (matching.next(), matching.next()) {
                    (Some(record), None) => self.shake(record, handshake, uid, asked.reply),
                    (None, _) if Instant::now() < self.started + JUST_STARTED => {
                        (asked.by, asked.otherwise) = named.by();
                        self.held.push(Held { asked, from: Instant::now() + AGAIN });
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
}

/// What to do without the rendezvous.
fn hint_without_rendezvous(goal: &Goal) -> String {
    match goal {
        Goal::Approve(_, _, identity) => {
            format!("compare the key with its owner, then: sudo overlay approve {identity}")
        }
        Goal::Handshake(..) | Goal::Show(_) | Goal::Attested(_) => {
            "overlay agents shows whether the rendezvous is connected".to_owned()
        }
    }
}

fn claims_name(about: &str, identity: &PublicKey, registered: Option<&Signed<Record>>) -> Failure {
    let cause = match registered {
        Some(record) => format!("the agent that asks is registered as `{}`", record.name),
        None => "the agent that asks is not registered".to_owned(),
    };
    Failure::new(ExitKind::Conflict, format!("`{about}` is not the name of the agent that asks"))
        .with_cause(cause)
        .with_hint(format!("approve it by its key if you know it: sudo overlay approve {identity}"))
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;
    use crate::agent::trust::sample;

    #[test]
    fn pages_of_several_rendezvous_are_one_that_ends_where_the_first_of_them_does() {
        let mut keys: Vec<_> = (1..=5).map(|byte| SecretKey::from_bytes(&[byte; 32])).collect();
        keys.sort_by_key(|key| key.public());
        let network = SecretKey::from_bytes(&[9; 32]).public();
        let shown = |at: usize, sequence, from: &str| {
            let record = sample::record(network, &keys[at], 1_800_000_000_000, |record| record.sequence = sequence);
            (record, Some(from.to_owned()))
        };
        let one = Page { records: vec![shown(0, 1, "one"), shown(1, 2, "one")], next: Some(keys[1].public()) };
        let other = Page { records: vec![shown(1, 1, "other"), shown(3, 1, "other")], next: Some(keys[3].public()) };
        let last = Page { records: vec![shown(0, 5, "last"), shown(4, 1, "last")], next: None };
        let empty = Page { records: Vec::new(), next: Some(PublicKey([0; 32])) };
        let merged = Page::merged(vec![one, empty, other, last]);
        let records: Vec<_> =
            merged.records.iter().map(|(record, from)| (record.identity, record.sequence, from.as_deref())).collect();
        let expected = [(keys[0].public(), 5, Some("last")), (keys[1].public(), 2, Some("one"))];
        assert_eq!(
            (records, merged.next),
            (expected.to_vec(), Some(keys[1].public())),
            "the rest comes with later pages"
        );
    }
}
