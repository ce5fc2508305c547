//! The agents that are connected, and those that want to know.
//!
//! An agent is present while it has a lease. A connection begins one, and every call renews it for [`LEASE`]. Renewing
//! touches one number in memory. A lease ends when it was not renewed: the connection has ended and no new one came, or
//! it is silent. A silent connection is closed.
//!
//! A change is pushed to those who watch the agent. The index from an agent to its watchers makes that cost what they
//! cost, however many others are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_wire::signed::PublicKey;

use super::{ConnectionId, Outcome, Registry};
use crate::now::Now;
use crate::protocol::{Code, MAX_WATCHED, MAX_WATCHED_AT_ONCE, Push, Reply};

/// How long an agent is present after its last call.
pub const LEASE: Duration = Duration::from_secs(120);

/// The leases of all agents.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<PublicKey, Lease>,
    /// When to look at each lease. It may have been renewed since.
    ends: BTreeSet<(Duration, PublicKey)>,
}

#[derive(Debug)]
struct Lease {
    until: Duration,
    connection: Option<ConnectionId>,
    /// Whether other processes have been told of the connection.
    is_shown: bool,
    /// The entry of `ends`.
    looked_at: Duration,
}

impl Leases {
    /// Begins or renews the lease of a new connection.
    pub(super) fn begin(&mut self, identity: PublicKey, connection: ConnectionId, now: Duration) {
        let until = now + LEASE;
        if let Some(lease) = self.leases.get_mut(&identity) {
            (lease.until, lease.connection, lease.is_shown) = (until, Some(connection), false);
            return;
        }
        let lease = Lease { until, connection: Some(connection), is_shown: false, looked_at: until };
        self.leases.insert(identity, lease);
        self.ends.insert((until, identity));
    }

    /// Other processes have been told of the connection.
    pub(super) fn on_shown(&mut self, identity: &PublicKey) {
        if let Some(lease) = self.leases.get_mut(identity) {
            lease.is_shown = true;
        }
    }

    pub(super) fn is_shown(&self, identity: &PublicKey) -> bool {
        self.leases.get(identity).is_some_and(|lease| lease.is_shown)
    }

    pub(super) fn renew(&mut self, identity: &PublicKey, now: Duration) {
        if let Some(lease) = self.leases.get_mut(identity) {
            lease.until = now + LEASE;
        }
    }

    /// The connection has ended. The lease goes on.
    pub(super) fn on_disconnected(&mut self, identity: &PublicKey, connection: ConnectionId, now: Duration) {
        if let Some(lease) = self.leases.get_mut(identity).filter(|lease| lease.connection == Some(connection)) {
            (lease.until, lease.connection) = (now + LEASE, None);
        }
    }

    /// Ends a lease at once.
    pub(super) fn end(&mut self, identity: &PublicKey) {
        if let Some(lease) = self.leases.remove(identity) {
            self.ends.remove(&(lease.looked_at, *identity));
        }
    }

    /// The leases that have ended, with the connections that were silent.
    pub(super) fn pop_ended(&mut self, now: Duration) -> Vec<(PublicKey, Option<ConnectionId>)> {
        let mut ended = Vec::new();
        while let Some((at, identity)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(at, identity));
            let Some(lease) = self.leases.get_mut(&identity) else { continue };
            if lease.until > now {
                lease.looked_at = lease.until;
                self.ends.insert((lease.until, identity));
            } else {
                ended.push((identity, lease.connection));
                self.leases.remove(&identity);
            }
        }
        ended
    }

    /// When to look at the leases again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ends.first().map(|(at, _)| *at)
    }

    pub(super) fn is_present(&self, identity: &PublicKey) -> bool {
        self.leases.contains_key(identity)
    }

    /// The live connection of an agent.
    pub(super) fn connection(&self, identity: &PublicKey) -> Option<ConnectionId> {
        self.leases.get(identity)?.connection
    }
}

/// The agents that watch each other, in both directions.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watchers: BTreeMap<PublicKey, BTreeSet<ConnectionId>>,
    watched: BTreeMap<ConnectionId, BTreeSet<PublicKey>>,
    /// How many pairs there are.
    count: usize,
}

impl Watches {
    /// How many a connection would watch with these in addition, and how many all would.
    fn count_with(&self, connection: ConnectionId, identities: &[PublicKey]) -> (usize, usize) {
        let watched = self.watched.get(&connection);
        let new: BTreeSet<_> =
            identities.iter().filter(|identity| watched.is_none_or(|watched| !watched.contains(identity))).collect();
        (watched.map_or(0, BTreeSet::len) + new.len(), self.count + new.len())
    }

    fn add(&mut self, connection: ConnectionId, identity: PublicKey) {
        self.watchers.entry(identity).or_default().insert(connection);
        self.count += usize::from(self.watched.entry(connection).or_default().insert(identity));
    }

    fn remove(&mut self, connection: ConnectionId, identity: &PublicKey) {
        if let Some(watched) = self.watched.get_mut(&connection) {
            self.count -= usize::from(watched.remove(identity));
        }
        if let Some(watchers) = self.watchers.get_mut(identity) {
            watchers.remove(&connection);
            if watchers.is_empty() {
                self.watchers.remove(identity);
            }
        }
    }

    pub(super) fn forget(&mut self, connection: ConnectionId) {
        let watched = self.watched.remove(&connection).unwrap_or_default();
        self.count -= watched.len();
        for identity in &watched {
            self.remove(connection, identity);
        }
    }

    /// The connections that watch an agent.
    pub(super) fn watchers(&self, identity: &PublicKey) -> Vec<ConnectionId> {
        self.watchers.get(identity).into_iter().flatten().copied().collect()
    }

    pub(super) fn is_watched_by(&self, connection: ConnectionId, identity: &PublicKey) -> bool {
        self.watched.get(&connection).is_some_and(|watched| watched.contains(identity))
    }
}

impl Registry {
    /// Adds to what a connection watches, and pushes what is known before the answer.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        caller: PublicKey,
        identities: &[PublicKey],
        now: Now,
    ) -> Outcome {
        if !self.agents.is_registered(&caller) {
            return Err(Code::Unregistered.into());
        }
        let (own, all) = self.watches.count_with(connection, identities);
        if identities.len() > MAX_WATCHED_AT_ONCE || own > MAX_WATCHED {
            return Err(Code::TooLong.into());
        }
        if all > self.limits.watches {
            return Err(Code::Full.into());
        }
        for identity in identities {
            self.watches.add(connection, *identity);
            if let Some(record) = self.agents.record(identity).filter(|record| record.is_fresh(now.unix)) {
                let record = record.bytes().to_vec().into();
                self.push(connection, Push::Record { record });
            }
            let is_present = self.is_present(identity);
            self.push(connection, Push::Presence { identity: *identity, is_present });
            for (slot, sealed) in self.slots.of(&caller, identity) {
                self.push(connection, Push::Slot { from: *identity, slot, sealed: sealed.into() });
            }
        }
        Ok(Some(Reply::Done))
    }

    /// Removes from what a connection watches.
    pub(super) fn unwatch(&mut self, connection: ConnectionId, identities: &[PublicKey]) -> Outcome {
        if identities.len() > MAX_WATCHED_AT_ONCE {
            return Err(Code::TooLong.into());
        }
        for identity in identities {
            self.watches.remove(connection, identity);
        }
        Ok(Some(Reply::Done))
    }

    /// An agent is connected to this process no longer: tells those who watch it, unless it is connected to a different one.
    pub(super) fn push_absence(&mut self, identity: &PublicKey) {
        self.show_presence(identity, false);
        if !self.is_present(identity) {
            self.push_presence(identity, false);
        }
    }

    /// Tells those who watch an agent whether it is connected.
    pub(super) fn push_presence(&mut self, identity: &PublicKey, is_present: bool) {
        for connection in self.watches.watchers(identity) {
            self.push(connection, Push::Presence { identity: *identity, is_present });
        }
    }
}
