//! `[agent]` and the `[[trust]]` tables.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use overlay_wire::signed::{MAX_SCOPES, MAX_SERVICES, MAX_TAGS, PublicKey, ScopeList, Visibility};

use super::Reader;
use crate::config::document::{Field, Item, Section};
use crate::config::draft::Placed;
use crate::config::problem::{Problem, quoted};
use crate::config::{Agent, Approved, Candidates, RendezvousUrl, Trust, value};

/// The most rendezvous of one network.
const MAX_RENDEZVOUS: usize = 8;
/// The most agents and tags that are approved without asking.
const MAX_AUTO_APPROVE: usize = 10_000;

/// The readable part of a `[[trust]]`.
pub(super) struct TrustDraft {
    key: Option<PublicKey>,
    allow: Option<ScopeList>,
    expires: Option<u64>,
}

impl Reader<'_> {
    /// Reads `[agent]`. Returns `None` if a required part could not be read, which was reported then.
    pub(super) fn agent(&mut self, section: &Section<'_>, trust: Vec<TrustDraft>) -> Option<Agent> {
        let name = self.agent_name(section);
        let network = section.field("network").and_then(|field| self.label(&field, "a network"));
        let rendezvous = self.rendezvous(section);
        let tags = self.list(section, "tags", "gpu", MAX_TAGS, value::parse_tag);
        let each = tags.iter().map(|(tag, span)| (tag.as_str(), span));
        self.none_twice(each, "duplicate_tag", |tag| format!("the tag {} is listed twice", quoted(tag)));
        let services = self.list(section, "services", "tcp/443=https", MAX_SERVICES, value::parse_service);
        let each = services.iter().map(|(it, span)| ((it.transport as u8, it.port, it.name.as_str()), span));
        self.none_twice(each, "duplicate_service", |(_, port, name)| {
            format!("the service {} on port {port} is listed twice", quoted(name))
        });
        let visibilities =
            [("hidden", Visibility::Hidden), ("members", Visibility::Members), ("public", Visibility::Public)];
        let visibility = self.word(section, "visibility", &visibilities);
        let allow = self.scopes(section).unwrap_or_default();
        let auto_approve = self.list(section, "auto_approve", "tag:ops", MAX_AUTO_APPROVE, value::parse_approved);
        let each = auto_approve.iter().map(|(approved, span)| (approved, span));
        self.none_twice(each, "duplicate_key", |approved| match approved {
            Approved::Agent(_) => "this agent is listed twice in `auto_approve`".to_owned(),
            Approved::Tag(tag) => format!("the tag {} is listed twice in `auto_approve`", quoted(tag)),
        });
        let candidates = self.candidates(section);
        let lan = self.lan(section, candidates);
        let trust = trust.into_iter().filter_map(|draft| {
            let allow = draft.allow.unwrap_or_else(|| allow.clone());
            Some(Trust { key: draft.key?, allow, expires: draft.expires })
        });
        Some(Agent {
            name: name?,
            network,
            network_key: rendezvous.first()?.network,
            trust: trust.collect(),
            rendezvous,
            tags: without_places(tags),
            services: without_places(services),
            visibility,
            allow,
            auto_approve: without_places(auto_approve),
            candidates,
            lan,
        })
    }

    fn agent_name(&mut self, section: &Section<'_>) -> Option<String> {
        let Some(field) = section.field("name") else {
            section.missing("name", "write this agent's name, as name = \"alice\"", self.report);
            return None;
        };
        self.label(&field, "an agent")
    }

    fn label(&mut self, field: &Field<'_>, whose: &str) -> Option<String> {
        let name = field.string(self.report)?;
        self.accept(value::check_agent_name(name, whose), &field.span)?;
        Some(name.to_owned())
    }

    fn rendezvous(&mut self, section: &Section<'_>) -> Vec<RendezvousUrl> {
        let hint = "write rendezvous = [\"https://HOST:PORT#RVKEY.NETKEY\"], as `overlay rendezvous serve` printed it";
        let Some(field) = section.field("rendezvous") else {
            section.missing("rendezvous", hint, self.report);
            return Vec::new();
        };
        let example = "https://HOST:PORT#RVKEY.NETKEY";
        let Some(items) = field.strings(example, self.report) else { return Vec::new() };
        if items.is_empty() {
            self.report.error(Problem::new("missing_value", "`rendezvous` is empty").at(&field.span).hint(hint));
        }
        let found = self.items(&field, &items, MAX_RENDEZVOUS, value::parse_rendezvous);
        let urls = found.iter().map(|(rendezvous, span)| (rendezvous.url.as_str(), span));
        self.none_twice(urls, "duplicate_rendezvous", |url| format!("the rendezvous {url} is listed twice"));
        if let Some((first, first_span)) = found.first() {
            for (_, span) in found.iter().filter(|(other, _)| other.network != first.network) {
                self.report.error(
                    Problem::new("two_networks", "this rendezvous has the key of a different network")
                        .at(span)
                        .related(first_span, "the first network")
                        .hint("an agent belongs to one network; a second network needs a config of its own"),
                );
            }
        }
        without_places(found)
    }

    fn candidates(&mut self, section: &Section<'_>) -> Candidates {
        let Some(field) = section.field("candidates") else { return Candidates::Auto };
        let words = [("auto", Candidates::Auto), ("all", Candidates::All), ("relay", Candidates::Relay)];
        field.word(&words, self.report).unwrap_or_default()
    }

    fn lan(&mut self, section: &Section<'_>, candidates: Candidates) -> bool {
        let is_on = match section.field("lan") {
            Some(field) => field.word(&[("auto", true), ("off", false)], self.report).unwrap_or(true),
            None => true,
        };
        // An agent that tells no address announces none.
        is_on && candidates != Candidates::Relay
    }

    /// Reads `allow`, or returns `None` if it is left out or not a list.
    fn scopes(&mut self, section: &Section<'_>) -> Option<ScopeList> {
        let field = section.field("allow")?;
        let items = field.strings("tcp/22", self.report)?;
        Some(ScopeList(without_places(self.items(&field, &items, MAX_SCOPES, value::parse_scope))))
    }

    pub(super) fn trust(&mut self, sections: &[Section<'_>]) -> Vec<TrustDraft> {
        let mut keys = Vec::new();
        let drafts = sections
            .iter()
            .map(|section| {
                let key = self.trusted_key(section);
                keys.extend(key.clone());
                TrustDraft {
                    key: key.map(|(key, _)| key),
                    allow: self.scopes(section),
                    expires: section.field("expires").and_then(|field| {
                        let moment = field.moment(self.report)?;
                        self.accept(value::parse_moment(moment), &field.span)
                    }),
                }
            })
            .collect();
        self.none_twice(keys.iter().map(|(key, span)| (*key, span)), "duplicate_key", |_| {
            "two [[trust]] have the same key".to_owned()
        });
        drafts
    }

    fn trusted_key(&mut self, section: &Section<'_>) -> Option<Placed<PublicKey>> {
        let Some(field) = section.field("key") else {
            let hint = "write the agent's identity, as `overlay init` printed it there: key = \"...\"";
            section.missing("key", hint, self.report);
            return None;
        };
        let text = field.string(self.report)?;
        let key = self.accept(value::parse_identity(text), &field.span)?;
        Some((key, field.span))
    }

    /// Reads a list of at most `most` values, each with its place. A key that is left out is an empty list.
    fn list<T>(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        example: &str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<Placed<T>> {
        let Some(field) = section.field(key) else { return Vec::new() };
        let Some(items) = field.strings(example, self.report) else { return Vec::new() };
        self.items(&field, &items, most, parse)
    }

    fn items<T>(
        &mut self,
        field: &Field<'_>,
        items: &[Item<'_>],
        most: usize,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<Placed<T>> {
        if items.len() > most {
            let message = format!("`{}` has {} entries; at most {most} fit", field.key, items.len());
            self.report.error(Problem::new("too_many", message).at(&field.span).hint("remove some of them"));
        }
        let parsed = items.iter().filter_map(|item| {
            let value = self.accept(parse(item.text), &item.span)?;
            Some((value, item.span.clone()))
        });
        parsed.collect()
    }

    /// Reports every value that stands a second time.
    fn none_twice<'a, T: Eq + Hash + Copy>(
        &mut self,
        values: impl Iterator<Item = (T, &'a Range<usize>)>,
        kind: &'static str,
        message: impl Fn(T) -> String,
    ) {
        let mut seen: HashMap<T, &Range<usize>> = HashMap::new();
        for (value, span) in values {
            if let Some(first) = seen.insert(value, span) {
                self.report
                    .error(Problem::new(kind, message(value)).at(span).related(first, "first here").hint("remove one"));
            }
        }
    }
}

fn without_places<T>(placed: Vec<Placed<T>>) -> Vec<T> {
    placed.into_iter().map(|(value, _)| value).collect()
}
