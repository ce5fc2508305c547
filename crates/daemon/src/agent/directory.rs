//! The directory: the agents that a rendezvous shows, or that are known here while none answers.

use overlay_rendezvous::protocol::{Filter, Find as By};
use overlay_wire::signed::{PublicKey, Record, Signed};

use super::Agent;
use super::request::{AgentRecord, Find, Found};
use super::shown::{addresses, shown_service};
use crate::failure::{ExitKind, Failure};

/// What people look for, and after whom.
pub(super) fn wanted(find: Find) -> Result<(By, Option<PublicKey>), Failure> {
    let Find { name, tag, service, search, after } = find;
    let after = after.map(|text| text.parse()).transpose().map_err(|_| {
        Failure::new(ExitKind::Usage, "`after` is not a key").with_hint("write the `next` of the answer before")
    })?;
    let by = match (name, service, search) {
        (Some(name), None, None) if tag.is_none() => By::Name(name),
        (Some(_), ..) => {
            return Err(Failure::new(ExitKind::Usage, "a name is looked for alone")
                .with_hint("leave out the tag, the service and the text"));
        }
        (None, None, None) => tag.map_or(By::All, By::Tag),
        (None, service, text) => By::Matching(Filter { tag, service, text }),
    };
    Ok((by, after))
}

impl Agent {
    /// What is known here: this agent, and those whose records trust has pinned. `None` if that is nobody.
    pub(super) fn known_here(&self, by: &By) -> Option<Found> {
        let peers = self.book.relations().filter(|relation| relation.is_paired());
        let records = peers.filter_map(|relation| relation.shown_record()).chain([&self.record]);
        let agents: Vec<_> =
            records.filter(|record| by.matches(record)).map(|record| self.shown(record, None)).collect();
        (!agents.is_empty()).then_some(Found { agents, next: None })
    }

    /// A record as people see it. `rendezvous`: the one that has shown it.
    pub(super) fn shown(&self, record: &Signed<Record>, rendezvous: Option<String>) -> AgentRecord {
        let state = if record.identity == self.book.me() {
            "self"
        } else {
            self.book.relation(&record.identity).map_or("unknown", |relation| self.state_of(relation))
        };
        AgentRecord {
            name: record.name.clone(),
            identity: record.identity.to_string(),
            addresses: addresses(record),
            tags: record.tags.clone(),
            attested_tags: record.attested_tags(),
            services: record.services.iter().map(shown_service).collect(),
            state: state.to_owned(),
            rendezvous,
            issued: record.issued / 1_000,
        }
    }
}
