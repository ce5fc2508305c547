//! The trust between this agent and others: grants, requests and their answers.
//!
//! Trust is two independent grants. A peer is *open* if this agent holds its own unexpired grant for the peer, the
//! peer's unexpired grant for it, and the preshared key that both made. Nothing else opens a tunnel.
//!
//! The book is pure: letters, decisions of people and the time go in, [`Effect`]s come out. The caller writes a changed
//! [`Relation`] to disk before it sends anything that follows from it. Times are milliseconds since 1970.
//!
//! The latest word of each side (a grant or a revoke) is kept for ever, and only a word with a higher sequence replaces
//! it. So no earlier word can be replayed, and nothing comes back after it was revoked.

mod decisions;
mod exchange;
mod judged;
mod letters;
mod lifted;
mod relation;
mod restored;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{Endpoints, Grant, Pool, PublicKey, Record, ScopeList, SecretKey, Signed, TunnelKey};

pub(crate) use self::relation::{Asked, Open, Pending, PresharedKey, Relation, Word};

/// How far in the future an object may have been signed, in milliseconds. Clocks differ.
const MAX_AHEAD: u64 = 10 * 60 * 1_000;
/// How many agents that we never answered are kept, each with at most one request.
pub(crate) const MAX_STRANGERS: usize = 1_000;

/// The time, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// What the wall clock says. What we sign carries it.
    pub(crate) wall: u64,
    /// The latest time that this host has reached. It ends grants, and never goes back.
    pub(crate) latest: u64,
}

#[cfg(test)]
impl From<u64> for Moment {
    fn from(time: u64) -> Self {
        Self { wall: time, latest: time }
    }
}

/// What follows from a letter or a decision.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The relation with this peer changed: write it to disk, and bring the data plane up to date.
    Changed(PublicKey),
    /// Put this letter into the peer's mailbox. The same id is the same letter.
    Send { to: PublicKey, id: [u8; 16], letter: Letter },
    /// Keep this letter for the peer as our latest word.
    Keep { to: PublicKey, letter: Letter },
    /// A request waits for a decision.
    Asked(PublicKey),
}

/// Why a letter is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// It cannot be read, or an envelope in it is refused.
    Malformed,
    /// It is not from its sender, not for us, or not of this network.
    NotOurs,
    /// It is from us.
    Ourselves,
    /// Its sequence is not above the highest one seen: an earlier word, or one that was revoked.
    Replayed,
    /// A record is older than the pinned one.
    RolledBack,
    /// A record has the sequence of the pinned one, and different content.
    Forked,
    /// It answers nothing that we asked.
    Unasked,
    /// It has expired.
    Expired,
    /// It was signed in the future.
    Future,
    /// Its IPv4 address does not follow from its identity.
    Address,
    /// Its tunnel key is ours, or belongs to a different agent that we trust.
    KeyTaken,
    /// Too many agents that we never answered have written already.
    Full,
}

impl Refusal {
    /// The reason as one word, for counters and for programs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotOurs => "not_ours",
            Self::Ourselves => "ourselves",
            Self::Replayed => "replayed",
            Self::RolledBack => "rolled_back",
            Self::Forked => "forked",
            Self::Unasked => "unasked",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::Address => "address",
            Self::KeyTaken => "key_taken",
            Self::Full => "full",
        }
    }
}

/// Why a decision of a person is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impossible {
    /// It concerns this agent itself.
    Ourselves,
    /// The peer has not asked, and is not trusted.
    NothingAsked,
    /// The request has expired.
    Expired,
    /// There is nothing to take back.
    NotTrusted,
    /// The peer's tunnel key is ours, or belongs to a different agent that we trust.
    KeyTaken,
    /// A list has an entry that is not a right, or a text is too long.
    BadValue,
}

/// What the config grants without a person's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Automatic {
    /// These terms, whatever is asked.
    Terms(Terms),
    /// What is asked, as far as this list allows it.
    Within(ScopeList),
}

impl Automatic {
    /// What is granted to a request that wants `want`.
    fn terms(self, want: &ScopeList) -> Terms {
        match self {
            Self::Terms(terms) => terms,
            Self::Within(most) => {
                let mut both = Vec::new();
                for (wanted, given) in want.0.iter().flat_map(|wanted| most.0.iter().map(move |given| (wanted, given)))
                {
                    let (one, other) = ([wanted.clone()], [given.clone()]);
                    let (one, other) = (ScopeList(one.into()), ScopeList(other.into()));
                    // The narrower of the two.
                    let narrower = if other.covers(&one) { Some(wanted) } else { one.covers(&other).then_some(given) };
                    both.extend(narrower.filter(|scope| !both.contains(*scope)).cloned());
                }
                Terms { allow: Some(ScopeList(both)), expires: None }
            }
        }
    }
}

/// What is granted, by a verb or by the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What the peer may open. `None`: what it asked for.
    pub(crate) allow: Option<ScopeList>,
    /// When the grant ends.
    pub(crate) expires: Option<u64>,
}

/// Random bytes for one step. Each is used once.
pub(crate) struct Chance {
    pub(crate) id: [u8; 16],
    pub(crate) share: [u8; 32],
}

/// The trust between this agent and all others.
pub(crate) struct Book {
    network: PublicKey,
    key: SecretKey,
    /// The keys of our own tunnel, which no peer may claim.
    tunnel_keys: Vec<TunnelKey>,
    relations: BTreeMap<PublicKey, Relation>,
    /// The IPv4 addresses of the network, once they are known.
    pool: Option<Pool>,
    /// The peers about which a person has decided since the start.
    decided: BTreeSet<PublicKey>,
}

impl Book {
    pub(crate) fn new(
        network: PublicKey,
        key: SecretKey,
        tunnel_keys: Vec<TunnelKey>,
        relations: impl IntoIterator<Item = Relation>,
    ) -> Self {
        let relations = relations.into_iter().map(|relation| (relation.identity, relation)).collect();
        Self { network, key, tunnel_keys, relations, pool: None, decided: BTreeSet::new() }
    }

    /// Sets the keys of our own tunnel.
    pub(crate) fn set_tunnel_keys(&mut self, keys: Vec<TunnelKey>) {
        self.tunnel_keys = keys;
    }

    /// This agent.
    pub(crate) fn me(&self) -> PublicKey {
        self.key.public()
    }

    pub(crate) fn relation(&self, peer: &PublicKey) -> Option<&Relation> {
        self.relations.get(peer)
    }

    pub(crate) fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }

    /// The peers that have a tunnel at this time.
    pub(crate) fn open(&self, now: impl Into<Moment>) -> impl Iterator<Item = Open<'_>> {
        let now = now.into();
        self.relations.values().filter_map(move |relation| relation.open(now))
    }

    /// The requests that wait for a decision.
    pub(crate) fn pending(&self, now: impl Into<Moment>) -> impl Iterator<Item = &Pending> {
        let now = now.into();
        self.relations.values().filter_map(move |relation| relation.pending(now))
    }

    /// When the next grant ends.
    pub(crate) fn next_expiry(&self, now: impl Into<Moment>) -> Option<u64> {
        let now = now.into();
        self.relations.values().filter_map(|relation| relation.next_expiry(now)).min()
    }

    /// Decides which IPv4 address is the peer's here. Nothing proves that an address belongs to an agent, so the first peer
    /// that has it keeps it, and a later one has IPv6 alone.
    pub(crate) fn settle_ipv4(&mut self, peer: &PublicKey) {
        let Some(relation) = self.relations.get(peer) else { return };
        let wanted =
            relation.record.as_ref().filter(|_| relation.preshared_key.is_some()).and_then(|record| record.ipv4);
        let is_taken = |other: &Relation| other.identity != *peer && other.ipv4 == wanted;
        let ipv4 = wanted.filter(|_| !self.relations.values().any(is_taken));
        if let Some(relation) = self.relations.get_mut(peer) {
            relation.ipv4 = ipv4;
        }
    }

    /// Whether a record has a tunnel key that is ours, or that is pinned for a different peer.
    fn is_taken(&self, record: &Record) -> bool {
        let others = self.relations.values().filter(|relation| relation.identity != record.identity);
        let is_foreign = record.identity != self.me();
        is_foreign && record.tunnel_keys.iter().any(|key| self.tunnel_keys.contains(key))
            || others.into_iter().any(|relation| relation.has_key_of(record))
    }

    /// Puts back what was known of a peer before a change that could not be written.
    pub(crate) fn put_back(&mut self, peer: &PublicKey, before: Option<Relation>) {
        match before {
            Some(relation) => _ = self.relations.insert(*peer, relation),
            None => _ = self.relations.remove(peer),
        }
    }

    /// Forgets the former preshared key of a peer that has proven the present one. Returns whether there was one.
    pub(crate) fn on_key_proven(&mut self, peer: &PublicKey) -> bool {
        self.relations.get_mut(peer).is_some_and(|relation| relation.former_preshared_key.take().is_some())
    }

    /// Ends the tunnel of a peer.
    pub(crate) fn close(&mut self, peer: &PublicKey) {
        if let Some(relation) = self.relations.get_mut(peer) {
            relation.close();
        }
    }

    /// Forgets the strangers of whom nothing more is expected, and returns them.
    pub(crate) fn forget(&mut self, now: impl Into<Moment>) -> Vec<PublicKey> {
        let now = now.into();
        let over = self.relations.extract_if(.., |_, relation| relation.is_over(now));
        let over: Vec<_> = over.map(|(identity, _)| identity).collect();
        over.iter().for_each(|identity| _ = self.decided.remove(identity));
        over
    }

    /// Keeps where a peer can be reached. Returns false for a peer of which that is of no use.
    pub(crate) fn set_endpoints(&mut self, peer: &PublicKey, endpoints: Signed<Endpoints>) -> bool {
        let Some(relation) = self.relations.get_mut(peer) else { return false };
        let is_expected = relation.expects_endpoints();
        if is_expected {
            relation.endpoints = Some(endpoints);
        }
        is_expected
    }

    /// After a start: the requests that are not answered, and the latest word for each peer that has one of ours.
    pub(crate) fn repeat(&self, own_record: &Signed<Record>, now: impl Into<Moment>) -> Vec<Effect> {
        let now = now.into();
        self.relations.values().flat_map(|relation| relation.repeat(own_record, now)).collect()
    }
}

/// Whether a grant has not ended.
fn is_current(grant: &Grant, now: Moment) -> bool {
    grant.expires.is_none_or(|expires| now.latest < expires)
}
