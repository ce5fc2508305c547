//! All agents: their records, to whom names and addresses belong, and the indices by which records are found.
//!
//! A name or an address belongs to the first agent that claims it. When its owner gives it up, only that owner may
//! take it again for [`QUARANTINE`], so nobody can wait for a name and then pass for its former owner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;

use overlay_wire::signed::{
    IPV4_CANDIDATES, Pool, PublicKey, Record, Signed, Visibility, ipv4_candidate, is_ipv4_candidate,
};

use crate::store::{Expected, Revision};

/// How long a name or an address that was given up is kept for its former owner, in milliseconds: 30 days.
pub(super) const QUARANTINE: u64 = 30 * DAY;
/// How long after its record's end an agent keeps its name, in milliseconds: 180 days.
pub(super) const ABANDONED: u64 = 180 * DAY;
/// The most names that are kept for an agent which gave them up.
pub(super) const MAX_RELEASED: usize = 4;
const DAY: u64 = 24 * 3_600 * 1_000;

/// An agent that is registered, or was.
#[derive(Debug)]
pub(super) struct Agent {
    /// The operation that wrote it.
    pub(super) revision: Revision,
    /// Its record. `None`: it has left.
    pub(super) record: Option<Signed<Record>>,
    /// The sequence of its last word.
    pub(super) floor: u64,
    pub(super) membership: Membership,
    /// When it left, in milliseconds since 1970.
    pub(super) left: u64,
}

/// What a token, if any, has made of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// Whether it has shown a token once. Its key is enough from then on.
    pub(super) is_member: bool,
    /// Whether it vanishes when it is gone.
    pub(super) is_ephemeral: bool,
    /// That token. `None`: none, or the release before this one did not note it.
    pub(super) token: Option<PublicKey>,
}

/// To whom a name or an address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The operation that wrote it.
    pub(super) revision: Revision,
    /// The agent.
    pub(super) owner: PublicKey,
    /// When the agent gave it up, in milliseconds since 1970.
    pub(super) released: Option<u64>,
}

impl Claim {
    /// Whether an agent may take it.
    fn is_free_for(&self, identity: &PublicKey, now: u64) -> bool {
        self.owner == *identity || self.released.is_some_and(|at| now >= at.saturating_add(QUARANTINE))
    }
}

/// The claims of one kind.
#[derive(Debug)]
pub(super) struct Claims<K>(BTreeMap<K, Claim>);

impl<K: Ord> Claims<K> {
    /// What a write that claims it must expect. `None`: it belongs to a different agent.
    pub(super) fn claimable(&self, key: &K, identity: &PublicKey, now: u64) -> Option<Expected> {
        match self.0.get(key) {
            None => Some(Expected::Absent),
            Some(claim) => claim.is_free_for(identity, now).then_some(Expected::At(claim.revision)),
        }
    }

    /// The agent to which it belongs now.
    pub(super) fn owner(&self, key: &K) -> Option<&PublicKey> {
        self.0.get(key).filter(|claim| claim.released.is_none()).map(|claim| &claim.owner)
    }

    pub(super) fn find(&self, key: &K) -> Option<&Claim> {
        self.0.get(key)
    }

    pub(super) fn set(&mut self, key: K, claim: Claim) {
        self.0.insert(key, claim);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }
}

/// All agents.
#[derive(Debug)]
pub(super) struct Agents {
    pool: Pool,
    agents: BTreeMap<PublicKey, Agent>,
    pub(super) names: Claims<String>,
    pub(super) addresses: Claims<[u8; 4]>,
    /// The address of each agent that has one, or gave it up, also while its record does not show it.
    address_of: BTreeMap<PublicKey, [u8; 4]>,
    /// The names that each agent gave up.
    released: BTreeMap<PublicKey, BTreeSet<String>>,
    ipv6: BTreeMap<[u8; 16], PublicKey>,
    /// The agents that are not hidden.
    listed: BTreeSet<PublicKey>,
    /// The agents that are not hidden, by claimed tag.
    tags: BTreeMap<String, BTreeSet<PublicKey>>,
}

impl Agents {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            agents: BTreeMap::new(),
            names: Claims(BTreeMap::new()),
            addresses: Claims(BTreeMap::new()),
            address_of: BTreeMap::new(),
            released: BTreeMap::new(),
            ipv6: BTreeMap::new(),
            listed: BTreeSet::new(),
            tags: BTreeMap::new(),
        }
    }

    pub(super) fn find(&self, identity: &PublicKey) -> Option<&Agent> {
        self.agents.get(identity)
    }

    /// The record of an agent, fresh or not.
    pub(super) fn record(&self, identity: &PublicKey) -> Option<&Signed<Record>> {
        self.agents.get(identity)?.record.as_ref()
    }

    /// Whether the agent has a record, fresh or not.
    pub(super) fn is_registered(&self, identity: &PublicKey) -> bool {
        self.record(identity).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    /// The agents above this one, in the order of their identities.
    pub(super) fn after(&self, after: Option<PublicKey>) -> impl Iterator<Item = (&PublicKey, &Agent)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.agents.range((start, Bound::Unbounded))
    }

    /// Replaces what is known of an agent.
    pub(super) fn set(&mut self, identity: PublicKey, agent: Agent) {
        self.unlist(&identity);
        if let Some(record) = &agent.record {
            self.ipv6.insert(record.ipv6().octets(), identity);
            if record.visibility != Visibility::Hidden {
                self.listed.insert(identity);
                for tag in &record.tags {
                    self.tags.entry(tag.clone()).or_default().insert(identity);
                }
            }
        }
        self.agents.insert(identity, agent);
    }

    /// Forgets an agent that has left.
    pub(super) fn remove(&mut self, identity: &PublicKey) {
        self.unlist(identity);
        self.agents.remove(identity);
    }

    fn unlist(&mut self, identity: &PublicKey) {
        let Some(record) = self.agents.get(identity).and_then(|agent| agent.record.as_ref()) else { return };
        self.ipv6.remove(&record.ipv6().octets());
        self.listed.remove(identity);
        for tag in &record.tags {
            if let Some(tagged) = self.tags.get_mut(tag) {
                tagged.remove(identity);
                if tagged.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
    }

    /// Notes to whom a name belongs.
    pub(super) fn set_name(&mut self, name: String, claim: Claim) {
        if let Some(former) = self.names.find(&name).copied() {
            self.forget_released(&former.owner, &name);
        }
        if claim.released.is_some() {
            self.released.entry(claim.owner).or_default().insert(name.clone());
        }
        self.names.set(name, claim);
    }

    /// Forgets a name that was given up long ago.
    pub(super) fn remove_name(&mut self, name: &String) {
        if let Some(former) = self.names.find(name).copied() {
            self.forget_released(&former.owner, name);
        }
        self.names.remove(name);
    }

    fn forget_released(&mut self, owner: &PublicKey, name: &str) {
        if let Some(names) = self.released.get_mut(owner) {
            names.remove(name);
            if names.is_empty() {
                self.released.remove(owner);
            }
        }
    }

    /// Notes to whom an address belongs.
    pub(super) fn set_address(&mut self, address: [u8; 4], claim: Claim) {
        self.remove_address(address);
        self.address_of.insert(claim.owner, address);
        self.addresses.set(address, claim);
    }

    /// Forgets an address that was given up.
    pub(super) fn remove_address(&mut self, address: [u8; 4]) {
        if let Some(former) = self.addresses.find(&address)
            && self.address_of.get(&former.owner) == Some(&address)
        {
            self.address_of.remove(&former.owner);
        }
        self.addresses.remove(&address);
    }

    /// The address that an agent has, or gave up and may take again.
    pub(super) fn address_of(&self, identity: &PublicKey) -> Option<[u8; 4]> {
        self.address_of.get(identity).copied()
    }

    /// The oldest moment at which the agent gave up a name, if it has given up as many as it may.
    pub(super) fn oldest_release_in_the_way(&self, identity: &PublicKey) -> Option<u64> {
        let names = self.released.get(identity).filter(|names| names.len() >= MAX_RELEASED)?;
        names.iter().filter_map(|name| self.names.find(name)?.released).min()
    }

    /// The address that the agent has or had, or else the first free candidate. `is_locked` says that an address is being claimed.
    pub(super) fn free_address(
        &self,
        identity: &PublicKey,
        now: u64,
        is_locked: impl Fn([u8; 4]) -> bool,
    ) -> Option<[u8; 4]> {
        if let Some(own) = self.address_of(identity) {
            return Some(own);
        }
        let mut candidates = (0..IPV4_CANDIDATES).map(|i| ipv4_candidate(&self.pool, identity, i).octets());
        candidates.find(|octets| !is_locked(*octets) && self.addresses.claimable(octets, identity, now).is_some())
    }

    /// Whether an address is one of an agent's candidates.
    pub(super) fn is_candidate(&self, identity: &PublicKey, address: [u8; 4]) -> bool {
        is_ipv4_candidate(&self.pool, identity, Ipv4Addr::from(address))
    }

    /// The agent with this IPv6 address.
    pub(super) fn by_ipv6(&self, address: &[u8; 16]) -> Option<&PublicKey> {
        self.ipv6.get(address)
    }

    /// The agents that are not hidden, from `start` on.
    pub(super) fn listed(&self, start: Bound<PublicKey>) -> impl Iterator<Item = &PublicKey> {
        self.listed.range((start, Bound::Unbounded))
    }

    /// The agents that are not hidden and claim this tag, from `start` on.
    pub(super) fn tagged(&self, tag: &str, start: Bound<PublicKey>) -> impl Iterator<Item = &PublicKey> {
        self.tags.get(tag).into_iter().flat_map(move |tagged| tagged.range((start, Bound::Unbounded)))
    }
}
