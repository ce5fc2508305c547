//! The slots: what one agent keeps for one other agent. A slot is replaced, never queued.

use std::collections::BTreeMap;

use overlay_wire::signed::PublicKey;

use super::OVERHEAD;
use crate::protocol::Slot;

/// The most slots that are kept for one recipient.
pub(crate) const MAX_SLOTS: usize = 4_096;

/// The agent that keeps a slot, and which one it is.
pub(crate) type SlotKey = (PublicKey, Slot);

/// What becomes of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It may be written. This one is dropped for it.
    Room {
        /// The oldest slot of an agent that the recipient does not watch.
        dropped: Option<SlotKey>,
    },
    /// It holds these bytes already.
    Same,
    /// There is no room for it.
    Full,
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(super) to: BTreeMap<PublicKey, BTreeMap<SlotKey, Kept>>,
    /// What all of them cost.
    pub(super) len: usize,
    max_len: usize,
}

#[derive(Debug)]
pub(super) struct Kept {
    /// The sealed bytes. `None`: room is reserved, and the first bytes are on their way to the disk.
    sealed: Option<Vec<u8>>,
    /// When it was put, in milliseconds since 1970.
    put: u64,
}

impl Slots {
    /// Slots that cost at most `max_len` together.
    pub(crate) fn new(max_len: usize) -> Self {
        Self { to: BTreeMap::new(), len: 0, max_len }
    }

    /// Decides about a slot, and reserves room for it. `is_watched` says whether the recipient watches an agent: only such
    /// an agent finds room once all slots are taken, at the cost of one that is not watched.
    pub(crate) fn place(
        &mut self,
        to: PublicKey,
        key: SlotKey,
        (sealed, put): (&[u8], u64),
        is_watched: impl Fn(&PublicKey) -> bool,
    ) -> Placement {
        let slots = self.to.entry(to).or_default();
        let former = slots.get(&key).map(|kept| kept.sealed.as_deref());
        if former == Some(Some(sealed)) {
            return Placement::Same;
        }
        let mut dropped = None;
        if former.is_none() && slots.len() >= MAX_SLOTS {
            if !is_watched(&key.0) {
                return Placement::Full;
            }
            let strangers = slots.iter().filter(|((from, _), _)| !is_watched(from));
            let Some(oldest) = strangers.min_by_key(|(_, kept)| kept.put).map(|(key, _)| *key) else {
                return Placement::Full;
            };
            dropped = Some(oldest);
        }
        let freed = dropped.and_then(|dropped| slots.get(&dropped)).map_or(0, Kept::cost);
        let cost = if former.is_some() { 0 } else { OVERHEAD };
        // The bytes that are replaced make room for the new ones.
        let replaced = former.flatten().map_or(0, <[u8]>::len);
        if self.len - freed - replaced + cost + sealed.len() > self.max_len {
            if slots.is_empty() {
                self.to.remove(&to);
            }
            return Placement::Full;
        }
        if let Some(dropped) = dropped {
            slots.remove(&dropped);
            self.len -= freed;
        }
        self.len += cost;
        slots.entry(key).or_insert(Kept { sealed: None, put });
        Placement::Room { dropped }
    }

    /// The bytes of a slot are on disk. Returns whether there is such a slot: it may have been dropped meanwhile, and
    /// then an operation that deletes it follows.
    pub(crate) fn on_kept(&mut self, to: &PublicKey, key: &SlotKey, sealed: Vec<u8>, put: u64) -> bool {
        let Some(kept) = self.to.get_mut(to).and_then(|slots| slots.get_mut(key)) else { return false };
        self.len += sealed.len();
        let former = std::mem::replace(kept, Kept { sealed: Some(sealed), put });
        self.len -= former.sealed.map_or(0, |former| former.len());
        true
    }

    /// Puts back what the store holds.
    pub(crate) fn restore(&mut self, to: PublicKey, key: SlotKey, sealed: Vec<u8>, put: u64) {
        self.len += OVERHEAD + sealed.len();
        if let Some(former) = self.to.entry(to).or_default().insert(key, Kept { sealed: Some(sealed), put }) {
            self.len -= former.cost();
        }
    }

    /// What `from` keeps for `to`.
    pub(crate) fn of(&self, to: &PublicKey, from: &PublicKey) -> Vec<(Slot, Vec<u8>)> {
        let Some(slots) = self.to.get(to) else { return Vec::new() };
        let kept = |slot| Some((slot, slots.get(&(*from, slot))?.sealed.clone()?));
        Slot::ALL.into_iter().filter_map(kept).collect()
    }

    /// Whether this slot of a recipient is filled.
    pub(crate) fn holds(&self, to: &PublicKey, key: &SlotKey) -> bool {
        self.to.get(to).and_then(|slots| slots.get(key)).is_some_and(|slot| slot.sealed.is_some())
    }

    /// Removes a slot.
    pub(crate) fn remove(&mut self, to: &PublicKey, key: &SlotKey) {
        let Some(slots) = self.to.get_mut(to) else { return };
        self.len -= slots.remove(key).map_or(0, |removed| removed.cost());
        if slots.is_empty() {
            self.to.remove(to);
        }
    }

    /// Gives back room that was reserved for a slot whose bytes did not reach the disk.
    pub(crate) fn on_lost(&mut self, to: &PublicKey, key: &SlotKey) {
        if self.to.get(to).and_then(|slots| slots.get(key)).is_some_and(|kept| kept.sealed.is_none()) {
            self.remove(to, key);
        }
    }

    /// Up to `limit` slots of a recipient, in no particular order.
    pub(crate) fn some_of(&self, to: &PublicKey, limit: usize) -> Vec<SlotKey> {
        self.to.get(to).into_iter().flatten().map(|(key, _)| *key).take(limit).collect()
    }
}

impl Kept {
    fn cost(&self) -> usize {
        OVERHEAD + self.sealed.as_ref().map_or(0, Vec::len)
    }
}
