//! Which agents are bound, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_wire::relay::Channel;
use overlay_wire::signed::{PublicKey, RelayBind};

use super::bucket::{Bucket, Rate};
use super::datagrams::Leg;

/// How often one agent's opens are looked at. Each costs a signature.
pub(super) const OPENS: Rate = Rate::times(16, 1_024);
/// The most subjects whose channels one agent closed since it was bound, and which are remembered one by one.
pub(super) const MAX_CLOSED: usize = 64;

/// An agent in a network. The same key may be used in two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Party {
    pub(super) network: PublicKey,
    pub(super) identity: PublicKey,
}

/// An agent that is bound.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) party: Party,
    pub(super) leg: Leg,
    /// That of its newest bind.
    pub(super) epoch: u64,
    pub(super) nonce: [u8; 16],
    pub(super) until: Duration,
    /// What its opens and closes must repeat.
    pub(super) token: [u8; 8],
    /// Its newest bind, which says which permits are still valid.
    pub(super) said: RelayBind,
    /// What it closed, which needs a permit with at least this sequence.
    closed: BTreeMap<PublicKey, u64>,
    /// As [`Self::closed`], for everybody: where there was no room for one more.
    closed_below: u64,
    pub(super) opens: Bucket,
    /// The channels at whose end it is.
    pub(super) channels: BTreeSet<Channel>,
    /// How many of those it opened.
    pub(super) opened: usize,
}

impl Binding {
    /// `said`: its bind, which was verified.
    pub(super) fn new(said: RelayBind, leg: Leg, until: Duration, token: [u8; 8]) -> Self {
        Self {
            party: Party { network: said.network, identity: said.identity },
            leg,
            epoch: said.epoch,
            nonce: said.nonce,
            until,
            token,
            said,
            closed: BTreeMap::new(),
            closed_below: 0,
            opens: Bucket::default(),
            channels: BTreeSet::new(),
            opened: 0,
        }
    }

    /// The lowest sequence of a permit of this agent for `subject` that still counts.
    pub(super) fn lowest_for(&self, subject: &PublicKey) -> u64 {
        let closed = self.closed.get(subject).copied().unwrap_or_default();
        self.said.lowest_for(subject).max(closed).max(self.closed_below)
    }

    /// It has closed a channel of `subject`, which had a permit with this sequence.
    pub(super) fn on_closed(&mut self, subject: PublicKey, sequence: u64) {
        let lowest = sequence.saturating_add(1);
        if self.closed.len() >= MAX_CLOSED && !self.closed.contains_key(&subject) {
            // No room: then all of its permits have to be new. That closes more, and never opens anything.
            self.closed_below = self.closed.values().copied().max().unwrap_or_default().max(self.closed_below);
            self.closed.clear();
        }
        let known = self.closed.entry(subject).or_default();
        *known = lowest.max(*known);
    }
}

/// All agents that are bound. A slot names one as long as it is bound.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    slots: Vec<Option<Binding>>,
    free: Vec<usize>,
    by_party: BTreeMap<Party, usize>,
    by_token: BTreeMap<[u8; 8], usize>,
}

impl Bindings {
    pub(super) fn len(&self) -> usize {
        self.by_party.len()
    }

    pub(super) fn slot(&self, party: &Party) -> Option<usize> {
        self.by_party.get(party).copied()
    }

    /// The agent with this token, if it is the one at this address.
    pub(super) fn with_token(&self, token: &[u8; 8], from: Leg) -> Option<usize> {
        let slot = *self.by_token.get(token)?;
        self.at(slot).is_some_and(|binding| binding.leg.remote == from.remote).then_some(slot)
    }

    pub(super) fn has_token(&self, token: &[u8; 8]) -> bool {
        self.by_token.contains_key(token)
    }

    #[inline]
    pub(super) fn at(&self, slot: usize) -> Option<&Binding> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: usize) -> Option<&mut Binding> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Takes an agent in that has no binding, with a token that nobody has.
    pub(super) fn insert(&mut self, binding: Binding) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_party.insert(binding.party, slot);
        self.by_token.insert(binding.token, slot);
        self.slots[slot] = Some(binding);
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Binding> {
        let binding = self.slots.get_mut(slot)?.take()?;
        self.by_party.remove(&binding.party);
        self.by_token.remove(&binding.token);
        self.free.push(slot);
        Some(binding)
    }

    /// Agents whose time is over.
    pub(super) fn lapsed(&self, now: Duration) -> Vec<usize> {
        let is_over = |slot: &usize| self.at(*slot).is_some_and(|binding| binding.until <= now);
        self.by_party.values().copied().filter(is_over).collect()
    }
}
