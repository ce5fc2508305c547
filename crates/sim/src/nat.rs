//! A NAT or firewall in the words of RFC 4787: what it does with a datagram on the way out, and on the way in.
//!
//! Its life: the first datagram of an inside socket makes a *mapping*, an outside address for that socket. Which later
//! datagrams share the mapping is the [`Behaviour`]'s `mapping`. Each destination becomes a *contact* of the mapping, and
//! `filtering` says which sources may answer: any, the address of a contact, or only a contact itself. Mappings and
//! contacts end when they were idle for too long, or a mapping ends at a fixed age whatever the traffic.
//!
//! `takes_strangers` is Linux with plain `masquerade` and an open INPUT chain. There a datagram that belongs to no
//! mapping is taken for one to the router itself, and conntrack keeps that flow as its *own flow*. A mapping that would
//! have the same outside address and the same remote address gets a different port.
//!
//! The NAT is pure: callers pass the time and the random source. Left out: TCP, ICMP errors, fragments, and ports that
//! keep their parity.

mod behaviour;
mod kind;
mod table;
#[cfg(test)]
mod tests;
mod traversable;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use overlay_core::Instant;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore as _;

pub use behaviour::{Behaviour, Dependence, Lifetime, Pooling, Ports, Translation};
pub use kind::Kind;
pub use table::{Ground, Place, Row, TABLE, observe};
pub use traversable::{chains_traversable, traversable};

/// How many mappings a NAT keeps. As with conntrack, a datagram that needs one more is dropped.
pub const MAX_MAPPINGS: usize = 4_096;
/// How many contacts a mapping keeps. A new one replaces the one that was idle for longest. This is more than a birthday
/// search sends.
pub const MAX_CONTACTS: usize = 4_096;
/// How many flows a router takes for its own.
pub const MAX_OWN_FLOWS: usize = 4_096;
/// How many ports are tried for one mapping, as in Linux.
const MAX_ATTEMPTS: usize = 128;
/// The first port that a NAT gives out by itself.
const FIRST_PORT: u16 = 1_024;

/// Why a router drops a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// From outside, to an address and port without a mapping.
    NoMapping,
    /// From outside, to a mapping that the source may not use.
    Filtered,
    /// From outside, and taken for a datagram to the router itself.
    TakenForOwn,
    /// From inside, and there are [`MAX_MAPPINGS`] already.
    TableFull,
    /// From inside, and no free port was found.
    NoPort,
    /// From inside, by a host that this NAT has no address for.
    NoAddress,
    /// From inside, to an outside address of this NAT, which does not hairpin.
    NoHairpin,
    /// The TTL ended here.
    TtlExceeded,
}

/// A NAT or firewall.
#[derive(Debug)]
pub(crate) struct Nat {
    behaviour: Behaviour,
    external: Vec<IpAddr>,
    /// The hosts behind it, in the order in which they came.
    hosts: Vec<IpAddr>,
    mappings: Vec<Mapping>,
    own_flows: Vec<OwnFlow>,
    next_port: u16,
    next_address: usize,
    refusals: BTreeMap<Refusal, u64>,
}

/// What an inside socket is called outside.
#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    scope: Scope,
    external: SocketAddr,
    made: Instant,
    last: Use,
    contacts: Vec<Contact>,
}

/// A destination of a mapping.
#[derive(Debug)]
struct Contact {
    remote: SocketAddr,
    last: Use,
}

/// A flow that the router takes for its own.
#[derive(Debug)]
struct OwnFlow {
    remote: SocketAddr,
    external: SocketAddr,
    used: Instant,
}

/// When something was used, and whether an answer ever came.
#[derive(Clone, Copy, Debug)]
struct Use {
    at: Instant,
    is_answered: bool,
}

/// The destinations for which a mapping is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

impl Nat {
    pub(crate) fn new(behaviour: Behaviour, external: Vec<IpAddr>) -> Self {
        Self {
            behaviour,
            external,
            hosts: Vec::new(),
            mappings: Vec::new(),
            own_flows: Vec::new(),
            next_port: FIRST_PORT,
            next_address: 0,
            refusals: BTreeMap::new(),
        }
    }

    /// A host has come to live behind this NAT.
    pub(crate) fn on_host(&mut self, address: IpAddr) {
        if !self.hosts.contains(&address) {
            self.hosts.push(address);
        }
    }

    /// A host has moved away. Where addresses are translated, nobody else gets its outside address.
    pub(crate) fn on_departure(&mut self, address: IpAddr) {
        if self.behaviour.translation == Translation::Nothing {
            self.hosts.retain(|host| *host != address);
        }
    }

    /// All mappings are lost, as after a restart.
    pub(crate) fn on_restart(&mut self) {
        self.mappings.clear();
        self.own_flows.clear();
    }

    /// The outside addresses are different ones now. The mappings to the former ones are lost.
    pub(crate) fn on_addresses(&mut self, external: Vec<IpAddr>) {
        self.external = external;
        self.on_restart();
    }

    /// The outside addresses. Empty if addresses are not translated.
    pub(crate) fn external(&self) -> &[IpAddr] {
        &self.external
    }

    /// Whether datagrams that are sent to this address from outside come here.
    pub(crate) fn answers_for(&self, address: IpAddr) -> bool {
        match self.behaviour.translation {
            Translation::Nothing => self.hosts.contains(&address),
            Translation::Address | Translation::AddressAndPort => self.external.contains(&address),
        }
    }

    /// Notes a drop.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }

    /// What was dropped so far.
    pub(crate) fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }

    /// Translates the source of a datagram on the way out.
    pub(crate) fn outbound(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<SocketAddr, Refusal> {
        self.expire(now);
        if self.answers_for(destination.ip()) && !self.behaviour.hairpins {
            return Err(Refusal::NoHairpin);
        }
        let scope = self.behaviour.mapping.scope(destination);
        let known = self.mappings.iter().position(|mapping| mapping.inside == source && mapping.scope == scope);
        let index = match known {
            Some(index) => index,
            None => self.map(source, scope, destination, now, rng)?,
        };
        let mapping = &mut self.mappings[index];
        mapping.last.at = now;
        mapping.contact(destination, now);
        Ok(mapping.external)
    }

    /// A datagram on the way out ends here because of its TTL. A router looks for its flow first, so what is known of it is
    /// renewed. Nothing new is made.
    pub(crate) fn on_expiring(&mut self, source: SocketAddr, destination: SocketAddr, now: Instant) {
        self.expire(now);
        let scope = self.behaviour.mapping.scope(destination);
        let known = self.mappings.iter_mut().find(|mapping| mapping.inside == source && mapping.scope == scope);
        let Some(mapping) = known else { return };
        if let Some(contact) = mapping.contacts.iter_mut().find(|contact| contact.remote == destination) {
            (mapping.last.at, contact.last.at) = (now, now);
        }
    }

    /// Translates the destination of a datagram on the way in.
    pub(crate) fn inbound(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        now: Instant,
    ) -> Result<SocketAddr, Refusal> {
        self.expire(now);
        let (filtering, lifetime) = (self.behaviour.filtering, self.behaviour.lifetime);
        let mut to_it = self.mappings.iter_mut().filter(|mapping| mapping.external == destination).peekable();
        let is_mapped = to_it.peek().is_some();
        if let Some(mapping) = to_it.find(|mapping| mapping.admits(source, filtering)) {
            mapping.on_answer(source, &lifetime, now);
            return Ok(mapping.inside);
        }
        if filtering.is_none()
            && let Some(inside) = self.fixed_inside(destination)
        {
            return Ok(inside);
        }
        if self.behaviour.takes_strangers {
            self.take_for_own(source, destination, now);
            return Err(Refusal::TakenForOwn);
        }
        Err(if is_mapped { Refusal::Filtered } else { Refusal::NoMapping })
    }

    /// The inside socket that has this outside address now, regardless of filters.
    pub(crate) fn inside_of(&self, external: SocketAddr) -> Option<SocketAddr> {
        let mapping = self.mappings.iter().find(|mapping| mapping.external == external);
        mapping.map(|mapping| mapping.inside).or_else(|| self.fixed_inside(external))
    }

    /// Ends what is too old.
    fn expire(&mut self, now: Instant) {
        let lifetime = self.behaviour.lifetime;
        self.mappings.retain_mut(|mapping| {
            mapping.contacts.retain(|contact| contact.last.lasts(&lifetime, now));
            mapping.last.lasts(&lifetime, now) && lifetime.age.is_none_or(|age| now.since(mapping.made) < age)
        });
        self.own_flows.retain(|flow| now.since(flow.used) < lifetime.unanswered);
    }

    /// Makes a mapping, and returns its index.
    fn map(
        &mut self,
        inside: SocketAddr,
        scope: Scope,
        destination: SocketAddr,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<usize, Refusal> {
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(Refusal::TableFull);
        }
        let external = match self.behaviour.translation {
            Translation::Nothing => inside,
            Translation::Address => SocketAddr::new(self.fixed_external(inside.ip())?, inside.port()),
            Translation::AddressAndPort => self.allocate(inside, scope, destination, rng)?,
        };
        let last = Use { at: now, is_answered: false };
        self.mappings.push(Mapping { inside, scope, external, made: now, last, contacts: Vec::new() });
        Ok(self.mappings.len() - 1)
    }

    /// Finds a free outside address and port.
    fn allocate(
        &mut self,
        inside: SocketAddr,
        scope: Scope,
        destination: SocketAddr,
        rng: &mut ChaCha8Rng,
    ) -> Result<SocketAddr, Refusal> {
        let address = match self.behaviour.pooling {
            Pooling::Paired => self.paired_address(inside.ip())?,
            Pooling::Arbitrary => {
                self.next_address += 1;
                *self.external.get(self.next_address % self.external.len().max(1)).ok_or(Refusal::NoAddress)?
            }
        };
        for attempt in 0..MAX_ATTEMPTS {
            let port = match self.behaviour.ports {
                Ports::Preserving if attempt == 0 => inside.port(),
                Ports::Preserving | Ports::Random => random_port(rng),
                Ports::Sequential => {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                    self.next_port
                }
            };
            let external = SocketAddr::new(address, port);
            if self.is_free(external, scope, destination) {
                return Ok(external);
            }
        }
        Err(Refusal::NoPort)
    }

    /// Whether a mapping may have this outside address. As in conntrack, several mappings may share it if they have
    /// different scopes, and an own flow only takes it for its own remote address.
    fn is_free(&self, external: SocketAddr, scope: Scope, destination: SocketAddr) -> bool {
        let takes = |mapping: &Mapping| mapping.external == external && mapping.scope == scope;
        let is_own = |flow: &OwnFlow| flow.external == external && flow.remote == destination;
        !self.mappings.iter().any(takes) && !self.own_flows.iter().any(is_own)
    }

    /// The outside address that all mappings of a host share.
    fn paired_address(&self, inside: IpAddr) -> Result<IpAddr, Refusal> {
        let host = self.hosts.iter().position(|host| *host == inside).ok_or(Refusal::NoAddress)?;
        self.external.get(host % self.external.len().max(1)).copied().ok_or(Refusal::NoAddress)
    }

    /// The outside address that belongs to one host alone.
    fn fixed_external(&self, inside: IpAddr) -> Result<IpAddr, Refusal> {
        let host = self.hosts.iter().position(|host| *host == inside);
        host.and_then(|host| self.external.get(host)).copied().ok_or(Refusal::NoAddress)
    }

    /// The inside socket at this outside address, where it does not depend on mappings.
    fn fixed_inside(&self, external: SocketAddr) -> Option<SocketAddr> {
        let address = match self.behaviour.translation {
            Translation::Nothing => Some(external.ip()),
            Translation::Address => {
                let host = self.external.iter().position(|address| *address == external.ip())?;
                self.hosts.get(host).copied()
            }
            Translation::AddressAndPort => None,
        };
        address.map(|address| SocketAddr::new(address, external.port()))
    }

    fn take_for_own(&mut self, remote: SocketAddr, external: SocketAddr, now: Instant) {
        let known = self.own_flows.iter_mut().find(|flow| flow.remote == remote && flow.external == external);
        if let Some(flow) = known {
            flow.used = now;
        } else if self.own_flows.len() < MAX_OWN_FLOWS {
            self.own_flows.push(OwnFlow { remote, external, used: now });
        }
    }
}

impl Mapping {
    /// The inside wrote to `remote`.
    fn contact(&mut self, remote: SocketAddr, now: Instant) {
        if let Some(contact) = self.contacts.iter_mut().find(|contact| contact.remote == remote) {
            contact.last.at = now;
            return;
        }
        if self.contacts.len() >= MAX_CONTACTS {
            let idle = (0..self.contacts.len()).min_by_key(|index| self.contacts[*index].last.at);
            self.contacts.swap_remove(idle.expect("the list is full"));
        }
        self.contacts.push(Contact { remote, last: Use { at: now, is_answered: false } });
    }

    /// Whether `source` may write to the inside.
    fn admits(&self, source: SocketAddr, filtering: Option<Dependence>) -> bool {
        match filtering {
            None | Some(Dependence::EndpointIndependent) => true,
            Some(Dependence::AddressDependent) => {
                self.contacts.iter().any(|contact| contact.remote.ip() == source.ip())
            }
            Some(Dependence::AddressAndPortDependent) => self.contacts.iter().any(|contact| contact.remote == source),
        }
    }

    /// `source` wrote to the inside.
    fn on_answer(&mut self, source: SocketAddr, lifetime: &Lifetime, now: Instant) {
        let contact = self.contacts.iter_mut().find(|contact| contact.remote == source);
        for last in [Some(&mut self.last), contact.map(|contact| &mut contact.last)].into_iter().flatten() {
            last.is_answered = true;
            if lifetime.inbound_refreshes {
                last.at = now;
            }
        }
    }
}

impl Use {
    fn lasts(&self, lifetime: &Lifetime, now: Instant) -> bool {
        now.since(self.at) < if self.is_answered { lifetime.idle } else { lifetime.unanswered }
    }
}

impl Dependence {
    fn scope(self, destination: SocketAddr) -> Scope {
        match self {
            Self::EndpointIndependent => Scope::All,
            Self::AddressDependent => Scope::Address(destination.ip()),
            Self::AddressAndPortDependent => Scope::Endpoint(destination),
        }
    }
}

fn random_port(rng: &mut ChaCha8Rng) -> u16 {
    let span = u32::from(u16::MAX - FIRST_PORT) + 1;
    FIRST_PORT + u16::try_from(rng.next_u32() % span).expect("it is below 64,512")
}
