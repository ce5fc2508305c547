//! Which flow that we opened goes when there is no room for a new one.
//!
//! All users of this host, and all hosts and peers that we forward for, share the flows towards one peer. None of them may
//! push out what the others need. So flows have classes: those that nobody answered, that are half open or closing go first;
//! then those that were answered and have no visible end, as UDP; established TCP goes last. Within a class the party loses
//! that holds most of it, and of its flows the first one that was silent for a whole round of the list.
//!
//! A party is the peer that a forwarded packet came from, or else its inner source. Parties fall into 32 groups, by a hash that
//! nobody outside knows; those of one group are treated as one. All local users are one party: there the classes protect.
//!
//! Nothing here is done for each packet: a flow moves when its class changes. Whether it has spoken is a mark, which
//! the search for a victim takes away (the CLOCK algorithm).

use super::{NONE, Slot};

/// Parties that are told apart.
const GROUPS: usize = 32;
/// Flows that may show in a search that they have spoken; the one after them goes in any case.
pub(in crate::data::allowlist) const MAX_CHANCES: usize = 16;

/// What a flow is worth; the first class goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data::allowlist) enum Class {
    /// Anyone could have made it by himself: unanswered, half open, or over.
    Unproven,
    /// Both sides have spoken, in a protocol without connections.
    Answered,
    /// A TCP connection.
    Established,
}

impl Class {
    const COUNT: usize = 3;
}

/// A slot's place among the flows of its class and group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    next: u32,
    previous: u32,
    group: u8,
    /// Whether a packet passed since it was linked or looked at.
    pub(super) has_spoken: bool,
}

impl Link {
    pub(super) fn new(group: u8) -> Self {
        Self { next: NONE, previous: NONE, group, has_spoken: false }
    }
}

/// A list for each class and group; made with the first flow.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    lists: Vec<List>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl Ranks {
    /// The group that a party belongs to. Both words are secret.
    pub(super) fn group(&self, party: u64, multiplier: u64) -> u8 {
        let product = u128::from(party) * u128::from(multiplier);
        ((product as u64 ^ (product >> 64) as u64) >> 32) as u8 % GROUPS as u8
    }

    /// The flow that goes first of all. The answer is `None` without flows.
    pub(super) fn least(&mut self, slots: &mut [Slot]) -> Option<u32> {
        let class = self.lists.chunks(GROUPS).position(|groups| groups.iter().any(|list| list.len > 0))?;
        let groups = class * GROUPS..(class + 1) * GROUPS;
        let at = groups.max_by_key(|&at| self.lists[at].len)?;
        for _ in 0..MAX_CHANCES {
            let first = self.lists[at].first;
            if !slots[first as usize].rank.has_spoken {
                break;
            }
            self.unlink(slots, first);
            self.link(slots, first);
        }
        Some(self.lists[at].first)
    }

    /// Puts a slot at the end of the list that its class and group name, as one that has not spoken.
    pub(super) fn link(&mut self, slots: &mut [Slot], id: u32) {
        if self.lists.is_empty() {
            self.lists = vec![List { first: NONE, last: NONE, len: 0 }; Class::COUNT * GROUPS];
        }
        let list = &mut self.lists[place(&slots[id as usize])];
        let previous = std::mem::replace(&mut list.last, id);
        list.len += 1;
        match previous {
            NONE => list.first = id,
            _ => slots[previous as usize].rank.next = id,
        }
        let rank = &mut slots[id as usize].rank;
        *rank = Link { previous, ..Link::new(rank.group) };
    }

    /// Takes a slot out of its list. Its class is still that of the list.
    pub(super) fn unlink(&mut self, slots: &mut [Slot], id: u32) {
        let Link { next, previous, .. } = slots[id as usize].rank;
        let list = &mut self.lists[place(&slots[id as usize])];
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
    slot.flow.class() as usize * GROUPS + usize::from(slot.rank.group)
}
