//! What all peers together may use of a resource of the node.
//!
//! One half of a budget is divided among the parties, so that each of them always has something. The other half belongs
//! to all: a party may use as much of it as is still free. So a single party gets one half of that half at most, and two get
//! one third each (the dynamic thresholds of Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). The rule
//! takes nothing from anyone. It need not know where a party has what, and its cost is constant.
//!
//! Senders of which only the inner source is known share what one party gets, and the same rule holds among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::data::shares::Party;

/// A limit that all peers share. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Account>);

/// A budget, and the party that pays for what a peer opens.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    pub(crate) party: Party,
    pub(crate) budget: Budget,
}

/// A part of a budget. It is given back when this is dropped.
pub(crate) struct Charge {
    budget: Budget,
    party: Party,
    amount: usize,
}

/// One thread counts, so an addition is a load and a store.
#[derive(Debug)]
struct Account {
    /// What each party always has. A group of other senders has an equal part of this.
    own: usize,
    /// What belongs to all.
    common: usize,
    used: [AtomicUsize; Party::COUNT],
    /// What all parties use of `common`.
    taken: AtomicUsize,
    /// What all groups of other senders use of `common`.
    taken_by_others: AtomicUsize,
}

impl Budget {
    /// Creates a budget that nobody has used.
    pub(crate) fn new(limit: usize) -> Self {
        let zero = || AtomicUsize::new(0);
        Self(Arc::new(Account {
            own: limit / 2 / Party::DISTINCT,
            common: limit - limit / 2,
            used: std::array::from_fn(|_| zero()),
            taken: zero(),
            taken_by_others: zero(),
        }))
    }

    /// Takes this much if the party may have it, and returns whether it may.
    pub(crate) fn take(&self, party: Party, amount: usize) -> bool {
        let Account { common, used, taken, taken_by_others, .. } = &*self.0;
        let after = used[party.index()].load(Relaxed).saturating_add(amount);
        let mut free = common.saturating_sub(taken.load(Relaxed));
        if party.is_other() {
            free = free.saturating_sub(taken_by_others.load(Relaxed));
        }
        let beyond = self.beyond(party, after);
        let may = beyond == 0 || beyond <= free;
        if may {
            self.set(party, after);
        }
        may
    }

    /// Like [`Budget::take`]. Returns what is to be dropped when the party no longer uses it.
    pub(crate) fn charge(&self, party: Party, amount: usize) -> Option<Charge> {
        self.take(party, amount).then(|| Charge { budget: self.clone(), party, amount })
    }

    /// Gives back what the party took.
    pub(crate) fn give_back(&self, party: Party, amount: usize) {
        self.set(party, self.0.used[party.index()].load(Relaxed).saturating_sub(amount));
    }

    fn set(&self, party: Party, after: usize) {
        let Account { used, taken, taken_by_others, .. } = &*self.0;
        let before = used[party.index()].load(Relaxed);
        used[party.index()].store(after, Relaxed);
        let change = |sum: &AtomicUsize| {
            let rest = sum.load(Relaxed).saturating_sub(self.beyond(party, before));
            sum.store(rest + self.beyond(party, after), Relaxed);
        };
        change(taken);
        if party.is_other() {
            change(taken_by_others);
        }
    }

    /// How much of this amount is more than the party's own.
    fn beyond(&self, party: Party, amount: usize) -> usize {
        let own = if party.is_other() { self.0.own / Party::OTHER_GROUPS } else { self.0.own };
        amount.saturating_sub(own)
    }

    /// How much is used.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.0.used.iter().map(|used| used.load(Relaxed)).sum()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.party, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::PeerTag;

    /// 1,000 for each party, and 25,000 for all.
    const LIMIT: usize = 50_000;

    fn peers() -> impl Iterator<Item = Party> {
        (0..1_000).map(|place| Party::peer(PeerTag(place), 7))
    }

    fn others() -> impl Iterator<Item = Party> {
        (0..=255).map(|last| Party::other(IpAddr::from([192, 168, 7, last]), 7))
    }

    /// Takes one at a time for as long as the party may. Returns how much it got.
    fn fill(budget: &Budget, party: Party) -> usize {
        std::iter::repeat_with(|| budget.take(party, 1)).take_while(|taken| *taken).count()
    }

    #[test]
    fn a_party_gets_half_of_what_is_free() {
        let budget = Budget::new(LIMIT);
        let peer = Party::peer(PeerTag(1), 7);
        assert_eq!((fill(&budget, Party::OWN), fill(&budget, peer)), (1_000 + 12_500, 1_000 + 6_250));
        assert!(!budget.take(Party::OWN, usize::MAX));
        budget.give_back(Party::OWN, 13_500);
        budget.give_back(peer, 7_250);
        assert_eq!((budget.used(), fill(&budget, Party::OWN)), (0, 1_000 + 12_500));
        drop(budget.charge(peer, 7_250).expect("room"));
        assert_eq!(budget.used(), 13_500);
    }

    #[test]
    fn any_number_of_other_senders_gets_what_one_party_gets() {
        let budget = Budget::new(LIMIT);
        let got: Vec<_> = others().map(|party| fill(&budget, party)).filter(|got| *got > 0).collect();
        assert_eq!((got.len(), got[0]), (Party::OTHER_GROUPS, 125 + 8_334), "{got:?}");
        assert!(budget.used() <= 13_500, "{}", budget.used());
        assert!(fill(&budget, Party::OWN) >= 1_000 + 6_250);
    }

    #[test]
    fn all_peers_and_others_together_leave_us_our_own() {
        let budget = Budget::new(LIMIT);
        peers().chain(others()).for_each(|party| _ = fill(&budget, party));
        assert!(fill(&budget, Party::OWN) >= 1_000);
        assert!((LIMIT * 9 / 10..=LIMIT).contains(&budget.used()), "{}", budget.used());
    }
}
