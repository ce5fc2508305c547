//! The flows between us and one peer, and which side opened each of them.
//!
//! Flows opened by us and flows opened by the peer are two halves, each with its own limit, so that neither side can
//! evict the other's flows. Nothing here scans the table. Each half keeps one list for each state, ordered by the last
//! renewal and therefore by expiry, and a full half only looks at the ends of these lists.
//!
//! Flows that we opened are also ranked, see [`Ranks`]: when their half is full, the least valuable flow is evicted
//! first.
//!
//! All tables together share a budget, see [`room`].

mod ranks;
mod room;

use std::net::IpAddr;

use self::ranks::{Link, Ranks};
use super::flow::{Flow, Opener, State};
use crate::Instant;
use crate::data::budget::Budget;
use crate::data::shares::Party;

#[cfg(test)]
pub(super) use self::ranks::{MAX_CHANCES, ROOM};
pub(crate) use self::room::MAX_FLOWS;
#[cfg(test)]
pub(super) use self::room::{FIRST_FLOWS, TIDY_INTERVAL};

/// How many flows each half holds, so 4,096 for each peer in total.
pub(super) const MAX_FLOWS_PER_HALF: usize = 2048;

/// The name of a flow: its protocol and both ends, seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// The upper protocol's number.
    pub(super) protocol: u8,
    /// Our end.
    pub(super) ours: End,
    /// The peer's end: the peer itself or a host behind it.
    pub(super) theirs: End,
}

impl FlowKey {
    /// The flow as the other side sees it.
    pub(super) fn reversed(self) -> Self {
        Self { ours: self.theirs, theirs: self.ours, ..self }
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: IpAddr,
    /// The port, for protocols that have ports. For ICMP echo, the requesting end has the identifier here and the
    /// answering end has `None`. Pings in opposite directions are therefore different flows even if their identifiers
    /// are equal.
    pub(super) port: Option<u16>,
}

/// The position of a flow. Valid until the next flow is opened or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowId(u32);

/// All flows with one peer.
///
/// `slots` grows up to the sum of both limits. Freed slots are reused. Slots are linked by index in three ways: the
/// chain of a hash bucket, the list of a half and state, and the list of free slots (through `chain`).
#[derive(Debug)]
pub(super) struct Flows {
    /// Keeps the bucket assignment secret from the peer, which chooses what is hashed.
    hash_keys: [u64; 2],
    slots: Vec<Slot>,
    /// The first slot of each chain. The length is a power of two, and at least the number of slots.
    buckets: Vec<u32>,
    free: u32,
    halves: [Half; 2],
    /// The order in which flows that we opened are evicted.
    ranks: Ranks,
    /// What all tables together may hold.
    budget: Budget,
    /// When to look for dead flows. `None` while the table holds few.
    tidy_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: FlowKey,
    flow: Flow,
    chain: u32,
    newer: u32,
    older: u32,
    rank: Link,
}

/// The flows that one side opened.
#[derive(Clone, Copy, Debug)]
struct Half {
    len: usize,
    /// One list for each state.
    ages: [Ages; State::COUNT],
}

impl Half {
    const EMPTY: Self = Self { len: 0, ages: [Ages { newest: NONE, oldest: NONE }; State::COUNT] };
}

/// A list ordered by the last renewal, newest first.
#[derive(Clone, Copy, Debug)]
struct Ages {
    newest: u32,
    oldest: u32,
}

/// The index that stands for an empty link.
const NONE: u32 = u32::MAX;

impl Flows {
    /// Creates an empty table, which owns no memory.
    pub(super) fn new(seed: u64, budget: Budget) -> Self {
        // The second key is the multiplier. It differs from the first and is odd.
        let hash_keys = [seed, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ 0xd6e8_feb8_6659_fd93 | 1];
        Self {
            hash_keys,
            slots: Vec::new(),
            buckets: Vec::new(),
            free: NONE,
            halves: [Half::EMPTY; 2],
            ranks: Ranks::default(),
            budget,
            tidy_at: None,
        }
    }

    /// Returns the live flow with this key.
    pub(super) fn find(&self, key: &FlowKey, now: Instant) -> Option<(FlowId, Flow)> {
        let id = self.find_slot(key)?;
        let flow = self.slots[id as usize].flow;
        flow.is_live(now).then_some((FlowId(id), flow))
    }

    /// Records a packet of the flow `id`, see [`Flow::on_packet`].
    pub(super) fn on_packet(&mut self, FlowId(id): FlowId, from: Opener, flags: u8, now: Instant) {
        let slot = &mut self.slots[id as usize];
        slot.rank.has_spoken = true;
        let before = slot.flow;
        let mut flow = before;
        flow.on_packet(from, flags, now);
        if flow == before {
            return;
        }
        let changes_rank = flow.opener == Opener::Us && flow.class() != before.class();
        let changes_age = (flow.state, flow.last()) != (before.state, before.last());
        if changes_rank {
            self.ranks.unlink(&mut self.slots, id);
        }
        if changes_age {
            self.unlink_age(id);
        }
        self.slots[id as usize].flow = flow;
        if changes_age {
            self.link_age(id);
        }
        if changes_rank {
            self.ranks.link(&mut self.slots, id);
        }
    }

    /// Adds a flow and replaces any flow with the same key. `party` is the party that opened it, see [`Ranks`].
    ///
    /// A full half first evicts a dead flow. If it has none, our half evicts its least valuable flow, and the peer's
    /// half refuses the new one and returns false. The budget may also refuse a flow, see [`room`].
    pub(super) fn open(&mut self, key: FlowKey, flow: Flow, party: Party, now: Instant) -> bool {
        if let Some(id) = self.find_slot(&key) {
            self.remove(FlowId(id));
        }
        // Removing one dead flow for each new flow keeps the table from growing while it holds dead flows.
        if let Some(dead) = self.first_dead(flow.opener, now) {
            self.remove(dead);
        }
        if self.halves[flow.opener as usize].len >= MAX_FLOWS_PER_HALF {
            match flow.opener {
                Opener::Us => {
                    if let Some(id) = self.ranks.least(flow.class(), &mut self.slots) {
                        self.remove(FlowId(id));
                    }
                }
                Opener::Peer => return false,
            }
        }
        let Some(is_charged) = self.find_room(flow.opener, party) else { return false };
        self.link(key, flow, Link::new(party, is_charged));
        self.plan_to_tidy(now);
        true
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        if self.detach(id) {
            self.budget.give_back(self.slots[id.0 as usize].rank.party, 1);
        }
    }

    /// Removes a flow, and returns whether its party still pays for it.
    fn detach(&mut self, FlowId(id): FlowId) -> bool {
        self.unlink_age(id);
        let opener = self.slots[id as usize].flow.opener;
        self.halves[opener as usize].len -= 1;
        if opener == Opener::Us {
            self.ranks.unlink(&mut self.slots, id);
        }

        let bucket = self.bucket(&self.slots[id as usize].key);
        let after = self.slots[id as usize].chain;
        let mut at = self.buckets[bucket];
        if at == id {
            self.buckets[bucket] = after;
        } else {
            while self.slots[at as usize].chain != id {
                at = self.slots[at as usize].chain;
            }
            self.slots[at as usize].chain = after;
        }

        self.slots[id as usize].chain = self.free;
        self.free = id;
        self.slots[id as usize].rank.is_charged
    }

    /// Returns a dead flow of this half, found at the end of a list.
    fn first_dead(&self, opener: Opener, now: Instant) -> Option<FlowId> {
        self.oldest(opener).find(|&id| !self.slots[id as usize].flow.is_live(now)).map(FlowId)
    }

    /// Returns the oldest flow in each state.
    fn oldest(&self, opener: Opener) -> impl Iterator<Item = u32> + '_ {
        self.halves[opener as usize].ages.iter().map(|ages| ages.oldest).filter(|&id| id != NONE)
    }

    /// Iterates over all flows, including dead ones.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FlowKey, &Flow)> {
        let link = |&id: &u32| Some(self.slots[id as usize].older).filter(|&id| id != NONE);
        let ages = self.halves.iter().flat_map(|half| &half.ages);
        let ids = ages.flat_map(move |ages| std::iter::successors(Some(ages.newest).filter(|&id| id != NONE), link));
        ids.map(|id| (&self.slots[id as usize].key, &self.slots[id as usize].flow))
    }

    fn find_slot(&self, key: &FlowKey) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.key == *key {
                return Some(at);
            }
            at = slot.chain;
        }
        None
    }

    fn link(&mut self, key: FlowKey, flow: Flow, rank: Link) {
        let slot = Slot { key, flow, chain: NONE, newer: NONE, older: NONE, rank };
        let id = if self.free == NONE {
            self.slots.push(slot);
            self.grow_buckets();
            (self.slots.len() - 1) as u32
        } else {
            let id = self.free;
            self.free = self.slots[id as usize].chain;
            self.slots[id as usize] = slot;
            id
        };
        let bucket = self.bucket(&key);
        self.slots[id as usize].chain = self.buckets[bucket];
        self.buckets[bucket] = id;
        self.link_age(id);
        self.halves[flow.opener as usize].len += 1;
        if flow.opener == Opener::Us {
            self.ranks.link(&mut self.slots, id);
        }
    }

    /// Grows the buckets. Called after a push: the last slot is in no chain yet, and no slot is free.
    fn grow_buckets(&mut self) {
        if self.slots.len() <= self.buckets.len() {
            return;
        }
        let len = self.slots.len().next_power_of_two().max(16);
        self.buckets.clear();
        self.buckets.resize(len, NONE);
        for id in 0..self.slots.len() - 1 {
            let bucket = self.bucket(&self.slots[id].key);
            self.slots[id].chain = self.buckets[bucket];
            self.buckets[bucket] = id as u32;
        }
    }

    /// Puts a slot at the newest end of its list.
    fn link_age(&mut self, id: u32) {
        let Flow { opener, state, .. } = self.slots[id as usize].flow;
        let ages = &mut self.halves[opener as usize].ages[state as usize];
        let older = ages.newest;
        ages.newest = id;
        match older {
            NONE => ages.oldest = id,
            _ => self.slots[older as usize].newer = id,
        }
        self.slots[id as usize].older = older;
        self.slots[id as usize].newer = NONE;
    }

    fn unlink_age(&mut self, id: u32) {
        let Slot { flow: Flow { opener, state, .. }, newer, older, .. } = self.slots[id as usize];
        let ages = &mut self.halves[opener as usize].ages[state as usize];
        match newer {
            NONE => ages.newest = older,
            _ => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => ages.oldest = newer,
            _ => self.slots[older as usize].newer = newer,
        }
    }

    /// Returns the chain of a flow. There must be buckets.
    fn bucket(&self, key: &FlowKey) -> usize {
        let [mut hash, multiplier] = self.hash_keys;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * u128::from(multiplier);
            hash = product as u64 ^ (product >> 64) as u64;
        };
        for address in [key.ours.address, key.theirs.address] {
            match address {
                IpAddr::V4(address) => mix(u64::from(address.to_bits())),
                IpAddr::V6(address) => {
                    mix((address.to_bits() >> 64) as u64);
                    mix(address.to_bits() as u64);
                }
            }
        }
        let port = |end: End| end.port.map_or(0, |port| u64::from(port) | 1 << 16);
        mix(port(key.ours) | port(key.theirs) << 17 | u64::from(key.protocol) << 34);
        hash as usize & (self.buckets.len() - 1)
    }

    /// How many flows this side opened, including dead ones.
    pub(super) fn len(&self, opener: Opener) -> usize {
        self.halves[opener as usize].len
    }

    /// How many slots were ever allocated, whether used or free.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn longest_chain(&self) -> usize {
        let chain = |&head: &u32| {
            let link = |&id: &u32| Some(self.slots[id as usize].chain).filter(|&id| id != NONE);
            std::iter::successors(Some(head).filter(|&id| id != NONE), link).count()
        };
        self.buckets.iter().map(chain).max().unwrap_or(0)
    }
}
