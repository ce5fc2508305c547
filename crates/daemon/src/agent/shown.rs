//! How agents, requests and peers are shown.

use std::net::IpAddr;

use overlay_wire::signed::{Record, Service, Transport};

use super::Agent;
use super::request::{AgentPeer, PendingRequest};
use super::trust::{Moment, Pending, Relation, Word};

pub(super) fn addresses(record: &Record) -> Vec<IpAddr> {
    let v4 = record.ipv4().map(IpAddr::V4);
    v4.into_iter().chain([record.ipv6().into()]).collect()
}

pub(super) fn shown_service(service: &Service) -> String {
    let transport = match service.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    format!("{transport}/{}={}", service.port, service.name)
}

pub(super) fn pending_request(pending: &Pending) -> PendingRequest {
    let request = &pending.request;
    PendingRequest {
        name: pending.record.name.clone(),
        identity: request.from.to_string(),
        addresses: addresses(&pending.record),
        attested_tags: pending.record.attested_tags(),
        reason: request.reason.clone(),
        want: request.want.0.clone(),
        gives: request.grant().map(|grant| grant.allow.0.clone()).unwrap_or_default(),
        issued: request.issued / 1_000,
        expires: request.expires / 1_000,
    }
}

pub(super) fn shown_peer(relation: &Relation, state: &str, progress: Option<Progress>, now: Moment) -> AgentPeer {
    let mine = relation.mine.as_ref().and_then(Word::grant);
    let theirs = relation.theirs.as_ref().and_then(Word::grant);
    let ends = [mine, theirs].into_iter().flatten().filter_map(|grant| grant.expires).min();
    AgentPeer {
        name: relation.name().unwrap_or_default().to_owned(),
        identity: relation.identity.to_string(),
        addresses: relation.newest_record().map(|record| addresses(record)).unwrap_or_default(),
        attested_tags: relation.newest_record().map(|record| record.attested_tags()).unwrap_or_default(),
        state: state.to_owned(),
        request: shown_request(relation, progress, now).map(str::to_owned),
        allow: mine.map(|grant| grant.allow.0.clone()),
        opens: theirs.map(|grant| grant.allow.0.clone()),
        expires: ends.map(|at| at / 1_000),
    }
}

/// How far our request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Sent,
    Delivered,
}

pub(super) fn shown_request(relation: &Relation, progress: Option<Progress>, now: Moment) -> Option<&'static str> {
    relation.asked.as_ref()?;
    Some(match progress {
        _ if relation.asked(now).is_none() => "expired",
        Some(Progress::Delivered) => "delivered",
        Some(Progress::Sent) => "sent",
        None => "waiting",
    })
}

impl Agent {
    /// How this agent stands to a peer.
    pub(super) fn state_of(&self, relation: &Relation) -> &'static str {
        match state_of(relation, self.moment()) {
            "trusted" if self.past.is_held() => "held",
            state => state,
        }
    }
}

fn state_of(relation: &Relation, now: Moment) -> &'static str {
    let has_grants =
        [&relation.mine, &relation.theirs].iter().all(|word| word.as_ref().is_some_and(|w| w.grant().is_some()));
    if relation.is_open(now) {
        "trusted"
    } else if relation.pending(now).is_some() {
        "pending"
    } else if has_grants && relation.preshared_key.is_some() {
        "expired"
    } else if relation.asked(now).is_some() {
        "asked"
    } else {
        "untrusted"
    }
}
