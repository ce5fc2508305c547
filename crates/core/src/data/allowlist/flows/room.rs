//! Room for flows in all tables together.
//!
//! Each half of each table always has room for a few flows. Every further flow is charged to the party that opened it, from
//! a budget that the tables of all peers share. A party that has used up its part of the budget gives up a flow of its own
//! in the same table, but no established connection. If it has none there, the flow is not recorded. So a party that calls
//! thousands of peers costs others nothing.
//!
//! Dead flows would use up the budget too. A table that holds more than the few flows therefore removes its dead flows
//! every two minutes, and gives their memory back.

use std::time::Duration;

use super::ranks::Ranks;
use super::{FlowId, Flows, Half, NONE, Opener, Slot};
use crate::Instant;
use crate::data::allowlist::flow::UDP_TIMEOUT;
use crate::data::shares::Party;

/// How many flows all tables together hold beside the first few of each: what 128 full tables hold, or 52 flows with each of
/// 10,000 peers. They take about 64 MiB.
pub(crate) const MAX_FLOWS: usize = 524_288;
/// How many flows each half of each table holds without a charge. They take 7 KiB of a peer.
pub(in crate::data::allowlist) const FIRST_FLOWS: usize = 32;
/// The time between two searches for dead flows. Most flows die within it.
pub(in crate::data::allowlist) const TIDY_INTERVAL: Duration = UDP_TIMEOUT;

const _: () = assert!(MAX_FLOWS * size_of::<Slot>() <= 64 << 20 && FIRST_FLOWS * 2 * size_of::<Slot>() <= 8 << 10);

impl Flows {
    /// Finds room for a flow of this party. Returns whether the flow is charged to it, or `None` if there is no room.
    pub(super) fn find_room(&mut self, opener: Opener, party: Party) -> Option<bool> {
        if self.halves[opener as usize].len < FIRST_FLOWS {
            return Some(false);
        }
        if self.budget.take(party, 1) {
            return Some(true);
        }
        match opener {
            // The new flow takes over the charge.
            Opener::Us => self.ranks.least_of(party, &mut self.slots).map(|id| self.detach(FlowId(id))),
            Opener::Peer => None,
        }
    }

    /// When to call [`Flows::tidy`], if ever.
    pub(in crate::data::allowlist) fn tidy_at(&self) -> Option<Instant> {
        self.tidy_at
    }

    /// Removes dead flows if that is due.
    pub(in crate::data::allowlist) fn tidy(&mut self, now: Instant) {
        if self.tidy_at.is_none_or(|at| now < at) {
            return;
        }
        while let Some(dead) = self.first_dead(Opener::Us, now).or_else(|| self.first_dead(Opener::Peer, now)) {
            self.remove(dead);
        }
        let live: usize = self.halves.iter().map(|half| half.len).sum();
        // Copying the rest costs no more than a fixed multiple of opening what was removed.
        if live * 4 <= self.slots.len() * 3 {
            self.shrink();
        }
        self.tidy_at = None;
        self.plan_to_tidy(now);
    }

    pub(super) fn plan_to_tidy(&mut self, now: Instant) {
        if self.tidy_at.is_none() && self.halves.iter().any(|half| half.len > FIRST_FLOWS) {
            self.tidy_at = Some(now + TIDY_INTERVAL);
        }
    }

    /// Moves the flows into a table without free slots.
    fn shrink(&mut self) {
        let mut kept = Vec::new();
        for ages in self.halves.iter().flat_map(|half| half.ages) {
            let mut at = ages.oldest;
            while at != NONE {
                kept.push(self.slots[at as usize]);
                at = self.slots[at as usize].newer;
            }
        }
        // Each list of the new table is ordered by the last renewal.
        kept.sort_by_key(|slot| slot.flow.last());
        (self.slots, self.buckets) = (Vec::with_capacity(kept.len()), Vec::new());
        (self.free, self.halves, self.ranks) = (NONE, [Half::EMPTY; 2], Ranks::default());
        for Slot { key, flow, rank, .. } in kept {
            self.link(key, flow, rank);
        }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        for ages in self.halves.iter().flat_map(|half| half.ages) {
            let mut at = ages.oldest;
            while at != NONE {
                let slot = &self.slots[at as usize];
                if slot.rank.is_charged {
                    self.budget.give_back(slot.rank.party, 1);
                }
                at = slot.newer;
            }
        }
    }
}
