//! What agents say of themselves, for the names of this host.

use overlay_wire::signed::{PublicKey, Record, Service};

use super::Agent;

/// What a record says of an agent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claims<'a> {
    pub(crate) tags: &'a [String],
    pub(crate) services: &'a [Service],
}

impl Agent {
    /// This agent's name, and that of its network as soon as it is known.
    pub(crate) fn names(&self) -> Option<(&str, &str)> {
        let network = self.network.as_ref().map(|network| network.name.as_str());
        Some((&self.record.name, network.or(self.config.network.as_deref())?))
    }

    /// What this agent says of itself.
    pub(crate) fn own_claims(&self) -> Claims<'_> {
        claims(&self.record)
    }

    /// What a peer with a tunnel says of itself. It is worth as much as its record is fresh.
    pub(crate) fn claims(&self, peer: &PublicKey) -> Claims<'_> {
        let record = self.book.relation(peer).and_then(|relation| relation.record.as_ref());
        let fresh = record.filter(|record| self.moment().latest < record.fresh_until);
        fresh.map_or_else(Claims::default, |record| claims(record))
    }
}

fn claims(record: &Record) -> Claims<'_> {
    Claims { tags: &record.tags, services: &record.services }
}
