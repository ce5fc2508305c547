//! The names of a network as DNS: a question goes in, an answer comes out. Pure.
//!
//! A zone is `NETWORK.overlay.internal` with the reverse zones of its addresses. It holds this agent and the agents that both
//! sides trust, and nothing else:
//!
//! | name in the zone | records |
//! |---|---|
//! | `NAME` | A, AAAA; TXT with `tag=` and `service=` |
//! | `_SERVICE._PROTO` | SRV of each trusted agent that offers it |
//! | `_SERVICE._PROTO.NAME` | SRV and TXT of that agent |
//! | `TAG._tag` | SRV of every service of each trusted agent with that tag, TXT with `agent=` |
//! | `_SERVICE._PROTO.TAG._tag` | SRV of that service |
//! | `NAME.short` | CNAME to `NAME`: what a name alone is completed to |
//! | `ns` | A and AAAA of this agent, which answers |
//!
//! Every other name is refused: this server forwards nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use serde::{Deserialize, Serialize};

use super::reverse;

/// How long an answer may be kept, in seconds.
const TTL: u32 = 5;
/// How long it may be kept that there is no answer, in seconds.
const NEGATIVE_TTL: u32 = 2;
/// The label below which a name alone is found.
pub(crate) const SHORT: &str = "short";
const TAG: &str = "_tag";
const NAME_SERVER: &str = "ns";

/// One agent with its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) name: String,
    /// Its virtual IPs.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) tags: Vec<String>,
    pub(crate) services: Vec<Service>,
}

/// What an agent offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    pub(crate) port: u16,
    /// A description, which may be empty.
    pub(crate) text: String,
}

/// What a zone is made of, apart from its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The interface of this daemon, by whose name its part of the hosts file is found.
    pub(crate) interface: String,
    /// `lab.overlay.internal`.
    pub(crate) domain: String,
    /// The prefixes of the network's virtual IPs, whose reverse zones are ours.
    pub(crate) pools: Vec<ipnet::IpNet>,
    /// This agent.
    pub(crate) me: Agent,
}

/// The zone of a network, as this host sees it.
#[derive(Debug)]
pub(crate) struct Zone {
    domain: Name,
    reverse: Vec<Name>,
    me: Agent,
    agents: BTreeMap<String, Agent>,
    by_address: HashMap<IpAddr, String>,
    /// Counts changes.
    serial: u32,
}

/// What a question is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    /// Whether the question is about our zone.
    pub(crate) is_ours: bool,
    pub(crate) answers: Vec<Record>,
    /// The SOA, where there is no answer.
    pub(crate) authority: Option<Record>,
}

impl Answer {
    /// An answer that says nothing but this.
    pub(crate) fn of(code: ResponseCode) -> Self {
        Self { code, is_ours: false, answers: Vec::new(), authority: None }
    }
}

impl Zone {
    /// An empty zone. `None` if the domain is not a domain.
    pub(crate) fn new(origin: Origin) -> Option<Self> {
        let mut domain = Name::from_ascii(&origin.domain).ok()?;
        domain.set_fqdn(true);
        let reverse = origin.pools.iter().flat_map(reverse::zones).collect();
        let by_address = origin.me.addresses.iter().map(|address| (*address, origin.me.name.clone())).collect();
        Some(Self { domain, reverse, me: origin.me, agents: BTreeMap::new(), by_address, serial: 1 })
    }

    /// Whether this is the zone of a domain.
    pub(crate) fn is_of(&self, domain: &str) -> bool {
        Name::from_ascii(domain).is_ok_and(|name| name.eq_ignore_root(&self.domain))
    }

    /// Replaces what does not belong to an agent. The agents stay.
    pub(crate) fn set_origin(&mut self, origin: Origin) {
        if let Some(new) = Self::new(origin) {
            let agents = std::mem::take(&mut self.agents);
            let serial = self.serial.wrapping_add(1);
            *self = Self { serial, ..new };
            agents.into_values().for_each(|agent| self.put(agent));
        }
    }

    /// Adds an agent, or replaces the one with its name.
    pub(crate) fn put(&mut self, agent: Agent) {
        self.remove(&agent.name.clone());
        self.by_address.extend(agent.addresses.iter().map(|address| (*address, agent.name.clone())));
        self.agents.insert(agent.name.clone(), agent);
    }

    /// Removes the agent of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.agents.remove(name).is_some() {
            self.by_address.retain(|_, of| of != name);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// The agent that a question means by its name alone, as `ssh alice` does.
    pub(crate) fn short_name(&self, question: &Query) -> Option<String> {
        let labels = labels_below(question.name(), &self.domain)?;
        match &labels.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [name, SHORT] => self.agent(name).map(|agent| agent.name.clone()),
            _ => None,
        }
    }

    /// Answers a question. `is_shadowed`: the name alone belongs to a different host here, so that only the full name is ours.
    pub(crate) fn answer(&self, question: &Query, is_shadowed: bool) -> Answer {
        if question.query_class() != DNSClass::IN || is_transfer(question.query_type()) {
            return Answer::of(ResponseCode::Refused);
        }
        if let Some(labels) = labels_below(question.name(), &self.domain) {
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            if let ([name, SHORT], false) = (&labels[..], is_shadowed)
                && let Some(agent) = self.agent(name)
            {
                return self.alias(question, agent);
            }
            let data = self.data(&labels);
            return self.found(question, &self.domain, data);
        }
        match self.reverse.iter().find(|zone| zone.zone_of(question.name())) {
            Some(zone) => self.found(question, zone, self.reverse_data(question.name(), zone)),
            None => Answer::of(ResponseCode::Refused),
        }
    }

    /// All that there is at a name below the domain. `None`: the name does not exist. The labels are in the order of the name.
    fn data(&self, labels: &[&str]) -> Option<Vec<RData>> {
        match *labels {
            [] => Some(vec![self.soa(), self.ns()]),
            [NAME_SERVER] => Some(addresses(&self.me).collect()),
            [TAG] => parent(self.agents.values().any(|agent| !agent.tags.is_empty())),
            [tag, TAG] => self.tagged(tag),
            [protocol, tag, TAG] => {
                parent(self.offers().any(|(agent, service)| has_tag(agent, tag) && is_protocol(service, protocol)))
            }
            [name, protocol, tag, TAG] => {
                self.offered(|agent, service| has_tag(agent, tag) && is_service(service, name, protocol))
            }
            [protocol @ ("_tcp" | "_udp")] => parent(self.offers().any(|(_, service)| is_protocol(service, protocol))),
            [name, protocol @ ("_tcp" | "_udp")] => self.offered(|_, service| is_service(service, name, protocol)),
            [SHORT] if self.agent(SHORT).is_none() => Some(Vec::new()),
            [name] => self.agent(name).map(described),
            [protocol, name] => {
                let services = &self.agent(name)?.services;
                parent(services.iter().any(|service| is_protocol(service, protocol)))
            }
            [service, protocol, name] => self.service_of(name, service, protocol),
            _ => None,
        }
    }

    /// The services of the agents with a tag, and who these are.
    fn tagged(&self, tag: &str) -> Option<Vec<RData>> {
        let agents = || self.agents.values().filter(|agent| has_tag(agent, tag));
        let services = agents().flat_map(|agent| agent.services.iter().map(|service| self.srv(agent, service)));
        let names = agents().map(|agent| text([format!("agent={}", agent.name)]));
        let data: Vec<_> = services.chain(names).collect();
        (!data.is_empty()).then_some(data)
    }

    fn service_of(&self, name: &str, service: &str, protocol: &str) -> Option<Vec<RData>> {
        let agent = self.agent(name)?;
        let offered: Vec<_> = agent.services.iter().filter(|offered| is_service(offered, service, protocol)).collect();
        let locations = offered.iter().map(|offered| self.srv(agent, offered));
        let texts = offered.iter().filter(|offered| !offered.text.is_empty());
        let texts = texts.map(|offered| text([offered.text.clone()]));
        (!offered.is_empty()).then(|| locations.chain(texts).collect())
    }

    fn offered(&self, is_meant: impl Fn(&Agent, &Service) -> bool) -> Option<Vec<RData>> {
        let meant = self.offers().filter(|(agent, service)| is_meant(agent, service));
        let data: Vec<_> = meant.map(|(agent, service)| self.srv(agent, service)).collect();
        (!data.is_empty()).then_some(data)
    }

    /// The services of trusted agents.
    fn offers(&self) -> impl Iterator<Item = (&Agent, &Service)> {
        self.agents.values().flat_map(|agent| agent.services.iter().map(move |service| (agent, service)))
    }

    fn agent(&self, name: &str) -> Option<&Agent> {
        if self.me.name == name { Some(&self.me) } else { self.agents.get(name) }
    }

    fn reverse_data(&self, name: &Name, zone: &Name) -> Option<Vec<RData>> {
        if name == zone {
            return Some(vec![self.soa(), self.ns()]);
        }
        let prefix = name.parse_arpa_name().ok()?;
        match self.by_address.get(&prefix.addr()) {
            Some(agent) if prefix.prefix_len() == prefix.max_prefix_len() => {
                Some(vec![RData::PTR(PTR(self.name_of(agent)))])
            }
            _ => parent(self.by_address.keys().any(|address| prefix.contains(address))),
        }
    }

    /// The records of a name that exists, the SOA if it has none of the type, or that the name does not exist.
    fn found(&self, question: &Query, zone: &Name, data: Option<Vec<RData>>) -> Answer {
        let exists = data.is_some();
        let asked = question.query_type();
        let data = data.into_iter().flatten();
        let data = data.filter(|data| asked == RecordType::ANY || data.record_type() == asked);
        let answers: Vec<_> = data.map(|data| record(question.name(), data)).collect();
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let authority = answers.is_empty().then(|| Record::from_rdata(zone.clone(), NEGATIVE_TTL, self.soa()));
        Answer { code, is_ours: true, answers, authority }
    }

    fn alias(&self, question: &Query, agent: &Agent) -> Answer {
        let target = self.name_of(&agent.name);
        let alias = record(question.name(), RData::CNAME(CNAME(target.clone())));
        let asked = question.query_type();
        let data = described(agent).into_iter().filter(|data| data.record_type() == asked);
        let answers: Vec<_> = std::iter::once(alias).chain(data.map(|data| record(&target, data))).collect();
        // An alias alone is a negative answer (RFC 2308 section 2.2).
        let is_empty = answers.len() == 1 && asked != RecordType::CNAME;
        let authority = is_empty.then(|| Record::from_rdata(self.domain.clone(), NEGATIVE_TTL, self.soa()));
        Answer { code: ResponseCode::NoError, is_ours: true, answers, authority }
    }

    fn soa(&self) -> RData {
        let [server, person] = [NAME_SERVER, "hostmaster"].map(|name| self.name_of(name));
        RData::SOA(SOA::new(server, person, self.serial, 60, 60, 60, NEGATIVE_TTL))
    }

    fn ns(&self) -> RData {
        RData::NS(NS(self.name_of(NAME_SERVER)))
    }

    fn srv(&self, agent: &Agent, service: &Service) -> RData {
        RData::SRV(SRV::new(0, 0, service.port, self.name_of(&agent.name)))
    }

    /// The full name of an agent. The names of agents are labels, so this cannot fail for one.
    fn name_of(&self, name: &str) -> Name {
        self.domain.prepend_label(name).unwrap_or_else(|_| self.domain.clone())
    }
}

/// The labels of a name below a domain, in lower case. `None` if it is not below it, or not text.
fn labels_below(name: &Name, domain: &Name) -> Option<Vec<String>> {
    if !domain.zone_of(name) {
        return None;
    }
    let count = usize::from(name.num_labels().checked_sub(domain.num_labels())?);
    // A label that is not text belongs to no name of ours.
    let label = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
    Some(name.iter().take(count).map(label).collect())
}

/// What stands at a name that has no records itself, if there are names below it.
fn parent(has_children: bool) -> Option<Vec<RData>> {
    has_children.then(Vec::new)
}

fn described(agent: &Agent) -> Vec<RData> {
    let tags = agent.tags.iter().map(|tag| format!("tag={tag}"));
    let services = agent.services.iter().map(|service| {
        let Service { name, protocol, port, text } = service;
        let gap = if text.is_empty() { "" } else { " " };
        format!("service={protocol}/{port}={name}{gap}{text}")
    });
    let texts: Vec<_> = tags.chain(services).collect();
    let texts = (!texts.is_empty()).then(|| text(texts));
    addresses(agent).chain(texts).collect()
}

fn addresses(agent: &Agent) -> impl Iterator<Item = RData> {
    agent.addresses.iter().map(|address| match *address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    })
}

fn text(strings: impl IntoIterator<Item = String>) -> RData {
    RData::TXT(TXT::new(strings.into_iter().collect()))
}

fn record(name: &Name, data: RData) -> Record {
    let ttl = if data.record_type() == RecordType::SOA { NEGATIVE_TTL } else { TTL };
    Record::from_rdata(name.clone(), ttl, data)
}

fn has_tag(agent: &Agent, tag: &str) -> bool {
    agent.tags.iter().any(|known| known == tag)
}

fn is_protocol(service: &Service, label: &str) -> bool {
    label.strip_prefix('_') == Some(&service.protocol)
}

fn is_service(service: &Service, name: &str, protocol: &str) -> bool {
    name.strip_prefix('_') == Some(&service.name) && is_protocol(service, protocol)
}

fn is_transfer(asked: RecordType) -> bool {
    matches!(asked, RecordType::AXFR | RecordType::IXFR)
}

#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod tests;
