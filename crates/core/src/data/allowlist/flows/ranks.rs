//! Which of the flows that we opened is evicted when there is no room for a new one.
//!
//! All local users, and all hosts and peers that we forward for, share the flows towards one peer. None of them may
//! evict what the others need. Flows are therefore divided into classes: unanswered, half-open and closing flows, then
//! answered flows without a visible end such as UDP, and then established TCP. Each class has room of its own, and the
//! first class that takes more than its room loses a flow. So no number of flows in one class leaves a different class
//! without room: answered flows keep nobody from opening a connection, and attempts end no connection that has room.
//! Within the class, the party with the most flows loses one: the first of its flows that has been silent for a whole
//! round of the list. All local users are a single [`Party`] and are protected from each other by the classes alone.
//!
//! Nothing here runs for each packet. A flow moves only when its class changes. A flag records that a flow was active,
//! and the search for a victim clears it (the CLOCK algorithm).

use super::{MAX_FLOWS_PER_HALF, NONE, Slot};
use crate::data::allowlist::flow::Class;
use crate::data::shares::Party;

/// How many flows a search may spare because they were active. The next one is evicted in any case.
pub(in crate::data::allowlist) const MAX_CHANCES: usize = 16;

/// How many flows of each class always have room. A quarter of the half is enough for the attempts of one round trip, and
/// for as many look-ups. Half of it is left to connections, because a connection that loses its flow is cut.
pub(in crate::data::allowlist) const ROOM: [usize; Class::COUNT] = [512, 512, 1_024];
const _: () = assert!(ROOM[0] + ROOM[1] + ROOM[2] == MAX_FLOWS_PER_HALF);

/// The position of a slot among the flows of its class and party.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    next: u32,
    previous: u32,
    pub(super) party: Party,
    /// Whether the flow is charged to its party.
    pub(super) is_charged: bool,
    /// Whether a packet has passed since the slot was linked or last examined.
    pub(super) has_spoken: bool,
}

impl Link {
    pub(super) fn new(party: Party, is_charged: bool) -> Self {
        Self { next: NONE, previous: NONE, party, is_charged, has_spoken: false }
    }
}

/// One list for each class and party. Allocated with the first flow.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    lists: Vec<List>,
    /// How many flows each class has.
    lens: [usize; Class::COUNT],
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl Ranks {
    /// Returns the least valuable flow of a full half, which makes room for a flow of the class `newcomer`. Returns
    /// `None` if the half is not full.
    pub(super) fn least(&mut self, newcomer: Class, slots: &mut [Slot]) -> Option<u32> {
        let is_over = |class: &usize| self.lens[*class] + usize::from(*class == newcomer as usize) > ROOM[*class];
        let class = (0..Class::COUNT).find(is_over)?;
        let at = |party: Party| class * Party::COUNT + party.index();
        let party = Party::heaviest(|party| self.lists[at(party)].len as usize)?;
        Some(self.silent(at(party), slots))
    }

    /// Returns the least valuable flow of this party. Connections are spared. `None` if it has nothing else.
    pub(super) fn least_of(&mut self, party: Party, slots: &mut [Slot]) -> Option<u32> {
        let at = |class: Class| class as usize * Party::COUNT + party.index();
        let has_flows = |at: &usize| self.lists.get(*at).is_some_and(|list| list.len > 0);
        let at = [Class::Unproven, Class::Answered].map(at).into_iter().find(has_flows)?;
        Some(self.silent(at, slots))
    }

    /// Returns the first flow of a list that has been silent for a round. The list must not be empty.
    fn silent(&mut self, at: usize, slots: &mut [Slot]) -> u32 {
        for _ in 0..MAX_CHANCES {
            let first = self.lists[at].first;
            if !slots[first as usize].rank.has_spoken {
                break;
            }
            self.unlink(slots, first);
            self.link(slots, first);
        }
        self.lists[at].first
    }

    /// Appends a slot to the list of its class and party, with `has_spoken` cleared.
    pub(super) fn link(&mut self, slots: &mut [Slot], id: u32) {
        if self.lists.is_empty() {
            self.lists = vec![List { first: NONE, last: NONE, len: 0 }; Class::COUNT * Party::COUNT];
        }
        let place = place(&slots[id as usize]);
        self.lens[place / Party::COUNT] += 1;
        let list = &mut self.lists[place];
        let previous = std::mem::replace(&mut list.last, id);
        list.len += 1;
        match previous {
            NONE => list.first = id,
            _ => slots[previous as usize].rank.next = id,
        }
        let rank = &mut slots[id as usize].rank;
        *rank = Link { previous, ..Link::new(rank.party, rank.is_charged) };
    }

    /// Removes a slot from its list. The flow must still have the class that it was linked with.
    pub(super) fn unlink(&mut self, slots: &mut [Slot], id: u32) {
        let Link { next, previous, .. } = slots[id as usize].rank;
        let place = place(&slots[id as usize]);
        self.lens[place / Party::COUNT] -= 1;
        let list = &mut self.lists[place];
        list.len -= 1;
        match previous {
            NONE => list.first = next,
            _ => slots[previous as usize].rank.next = next,
        }
        match next {
            NONE => list.last = previous,
            _ => slots[next as usize].rank.previous = previous,
        }
    }
}

fn place(slot: &Slot) -> usize {
    slot.flow.class() as usize * Party::COUNT + slot.rank.party.index()
}
