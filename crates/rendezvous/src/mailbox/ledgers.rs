//! The ledgers: what each agent keeps for itself. An entry is replaced, never queued, and none makes room for a new one.
//!
//! Once half of the room of all is taken, a ledger grows to [`SMALL_LEDGER_LEN`] only, so that a few that are full keep nobody
//! else out. Bytes count once they are on disk. What is on its way there is bounded by the registry.

use std::collections::BTreeMap;
use std::ops::Bound;

use overlay_wire::signed::PublicKey;

use super::OVERHEAD;
use crate::protocol::{Entry, Label, MAX_ENTRIES};

/// The most sealed bytes in one ledger.
pub(crate) const MAX_LEDGER_LEN: usize = 2 << 20;
/// The most sealed bytes in one ledger while all together take more than half of their room: 90 words or more.
pub(crate) const SMALL_LEDGER_LEN: usize = 64 << 10;
/// The most sealed bytes in one page. With the labels it fits a message.
const PAGE_LEN: usize = 7_168;
/// What an entry takes in a page beside its sealed bytes.
const ENTRY_HEAD: usize = 24;

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entering {
    /// It may be written.
    Room,
    /// It holds these bytes already.
    Same,
    /// There is no room for it.
    Full,
}

/// All ledgers.
#[derive(Debug)]
pub(crate) struct Ledgers {
    of: BTreeMap<PublicKey, Ledger>,
    /// What all of them cost.
    len: usize,
    max_len: usize,
}

/// One agent's entries. `None`: room is reserved, and the first bytes are on their way to the disk.
#[derive(Debug, Default)]
struct Ledger {
    entries: BTreeMap<Label, Option<Vec<u8>>>,
    /// The sealed bytes of all of them.
    len: usize,
}

impl Ledgers {
    /// Ledgers that cost at most `max_len` together.
    pub(crate) fn new(max_len: usize) -> Self {
        Self { of: BTreeMap::new(), len: 0, max_len }
    }

    /// Decides about an entry, and reserves room for it.
    pub(crate) fn place(&mut self, owner: PublicKey, label: Label, sealed: &[u8]) -> Entering {
        let ledger = self.of.get(&owner);
        let former = ledger.and_then(|ledger| ledger.entries.get(&label)).map(Option::as_deref);
        if former == Some(Some(sealed)) {
            return Entering::Same;
        }
        let (count, len) = ledger.map_or((0, 0), |ledger| (ledger.entries.len(), ledger.len));
        let replaced = former.flatten().map_or(0, <[u8]>::len);
        let cost = if former.is_some() { 0 } else { OVERHEAD };
        let (len, all) = (len - replaced + sealed.len(), self.len - replaced + cost + sealed.len());
        // What does not grow is always taken.
        let is_growing = former.is_none() || sealed.len() > replaced;
        let share = if is_growing && all > self.max_len / 2 { SMALL_LEDGER_LEN } else { MAX_LEDGER_LEN };
        if former.is_none() && count >= MAX_ENTRIES || len > share || all > self.max_len {
            return Entering::Full;
        }
        self.len += cost;
        self.of.entry(owner).or_default().entries.entry(label).or_default();
        Entering::Room
    }

    /// The bytes of an entry are on disk.
    pub(crate) fn on_kept(&mut self, owner: &PublicKey, label: &Label, sealed: Vec<u8>) {
        let Some(ledger) = self.of.get_mut(owner) else { return };
        let Some(kept) = ledger.entries.get_mut(label) else { return };
        let added = sealed.len();
        let replaced = kept.replace(sealed).map_or(0, |former| former.len());
        ledger.len = ledger.len + added - replaced;
        self.len = self.len + added - replaced;
    }

    /// Gives back room that was reserved for an entry whose bytes did not reach the disk.
    pub(crate) fn on_lost(&mut self, owner: &PublicKey, label: &Label) {
        let kept = self.of.get(owner).and_then(|ledger| ledger.entries.get(label));
        if kept.is_some_and(Option::is_none) {
            self.remove(owner, label);
        }
    }

    /// Puts back what the store holds.
    pub(crate) fn restore(&mut self, owner: PublicKey, label: Label, sealed: Vec<u8>) {
        let entries = &mut self.of.entry(owner).or_default().entries;
        let count = entries.len();
        entries.entry(label).or_default();
        self.len += OVERHEAD * (entries.len() - count);
        self.on_kept(&owner, &label, sealed);
    }

    /// The entries of an agent that are on disk, from the one above `after` on, and the label to go on with.
    pub(crate) fn page(&self, owner: &PublicKey, after: Option<Label>) -> (Vec<Entry>, Option<Label>) {
        let Some(ledger) = self.of.get(owner) else { return (Vec::new(), None) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries: Vec<Entry> = Vec::new();
        let mut len = 0;
        for (label, kept) in ledger.entries.range((start, Bound::Unbounded)) {
            let Some(sealed) = kept else { continue };
            len += ENTRY_HEAD + sealed.len();
            if len > PAGE_LEN {
                let next = entries.last().map(|entry| entry.label);
                return (entries, next);
            }
            entries.push(Entry { label: *label, sealed: sealed.clone().into() });
        }
        (entries, None)
    }

    /// Up to `limit` entries of an agent, in no particular order.
    pub(crate) fn some_of(&self, owner: &PublicKey, limit: usize) -> Vec<Label> {
        self.of.get(owner).into_iter().flat_map(|ledger| ledger.entries.keys()).copied().take(limit).collect()
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, owner: &PublicKey, label: &Label) {
        let Some(ledger) = self.of.get_mut(owner) else { return };
        if let Some(kept) = ledger.entries.remove(label) {
            let len = kept.map_or(0, |sealed| sealed.len());
            ledger.len -= len;
            self.len -= OVERHEAD + len;
        }
        if ledger.entries.is_empty() {
            self.of.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::MAX_ENTRY_LEN;

    const ALICE: PublicKey = PublicKey([1; 32]);
    const BOB: PublicKey = PublicKey([2; 32]);

    fn label(n: usize) -> Label {
        (n as u128).to_be_bytes()
    }

    fn put(ledgers: &mut Ledgers, owner: PublicKey, n: usize, sealed: &[u8]) -> Entering {
        let placed = ledgers.place(owner, label(n), sealed);
        if placed == Entering::Room {
            ledgers.on_kept(&owner, &label(n), sealed.to_vec());
        }
        placed
    }

    fn all(ledgers: &Ledgers, owner: &PublicKey) -> Vec<Entry> {
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = ledgers.page(owner, after);
            let len: usize = page.iter().map(|entry| ENTRY_HEAD + entry.sealed.len()).sum();
            assert!(len <= PAGE_LEN, "{len}");
            entries.extend(page);
            let Some(next) = next else { return entries };
            assert!(after < Some(next), "pages go on");
            after = Some(next);
        }
    }

    #[test]
    fn a_full_ledger_takes_no_new_entry_and_loses_none() {
        let mut ledgers = Ledgers::new(1 << 30);
        for n in 0..MAX_ENTRIES {
            assert_eq!(put(&mut ledgers, ALICE, n, b"word"), Entering::Room);
        }
        assert_eq!(put(&mut ledgers, ALICE, MAX_ENTRIES, b"word"), Entering::Full);
        assert_eq!(put(&mut ledgers, ALICE, 7, b"newer"), Entering::Room, "an entry is replaced");
        assert_eq!(put(&mut ledgers, ALICE, 7, b"newer"), Entering::Same);
        assert_eq!(put(&mut ledgers, BOB, 0, b"word"), Entering::Room, "one agent's entries are not those of others");
        let entries = all(&ledgers, &ALICE);
        assert_eq!(entries.len(), MAX_ENTRIES);
        assert_eq!(entries[7].sealed[..], *b"newer");
        assert!(entries.is_sorted_by_key(|entry| entry.label));
    }

    #[test]
    fn the_bytes_of_one_ledger_and_of_all_have_a_bound() {
        let longest = vec![7; MAX_ENTRY_LEN];
        let mut ledgers = Ledgers::new(1 << 30);
        let fitting = MAX_LEDGER_LEN / MAX_ENTRY_LEN;
        for n in 0..fitting {
            assert_eq!(put(&mut ledgers, ALICE, n, &longest), Entering::Room);
        }
        assert_eq!(put(&mut ledgers, ALICE, fitting, &longest), Entering::Full);
        assert_eq!(put(&mut ledgers, ALICE, 0, b"short"), Entering::Room);
        assert_eq!(all(&ledgers, &ALICE).len(), fitting);

        let mut ledgers = Ledgers::new(2 * (OVERHEAD + 4));
        assert_eq!(put(&mut ledgers, ALICE, 0, b"word"), Entering::Room);
        assert_eq!(put(&mut ledgers, BOB, 0, b"word"), Entering::Room);
        assert_eq!(put(&mut ledgers, BOB, 1, b"word"), Entering::Full);
        ledgers.remove(&ALICE, &label(0));
        assert_eq!(put(&mut ledgers, BOB, 1, b"word"), Entering::Room);
        for n in 0..2 {
            ledgers.remove(&BOB, &label(n));
        }
        assert!(ledgers.len == 0 && ledgers.of.is_empty(), "{ledgers:?}");
    }

    #[test]
    fn a_few_full_ledgers_keep_nobody_else_out() {
        let longest = vec![7; MAX_ENTRY_LEN];
        let room = 8 * MAX_LEDGER_LEN;
        let mut ledgers = Ledgers::new(room);
        let filled = |ledgers: &mut Ledgers, owner| {
            (0..MAX_ENTRIES).take_while(|n| put(ledgers, owner, *n, &longest) == Entering::Room).count()
        };
        let counts: Vec<_> = (0..=255).map(|n| filled(&mut ledgers, PublicKey([n; 32]))).collect();
        let (most, small) = (MAX_LEDGER_LEN / MAX_ENTRY_LEN, SMALL_LEDGER_LEN / MAX_ENTRY_LEN);
        assert_eq!((counts[0], counts[2], counts[50], counts[100]), (most, most, small, small));
        let full = counts.iter().filter(|count| **count > small).count();
        assert!(full <= 4, "{counts:?}");
        // One whose ledger is larger than that goes on replacing its words.
        assert_eq!(put(&mut ledgers, PublicKey([0; 32]), 0, &vec![8; MAX_ENTRY_LEN]), Entering::Room);
        assert_eq!(put(&mut ledgers, PublicKey([0; 32]), most, b"word"), Entering::Full);
    }

    #[test]
    fn what_is_not_on_disk_is_shown_to_nobody_and_gives_its_room_back() {
        let mut ledgers = Ledgers::new(1 << 20);
        assert_eq!(ledgers.place(ALICE, label(1), b"word"), Entering::Room);
        assert_eq!(all(&ledgers, &ALICE), []);
        ledgers.on_lost(&ALICE, &label(1));
        assert!(ledgers.len == 0 && ledgers.of.is_empty(), "{ledgers:?}");
        // What was there before stays.
        put(&mut ledgers, ALICE, 1, b"word");
        assert_eq!(ledgers.place(ALICE, label(1), b"newer"), Entering::Room);
        ledgers.on_lost(&ALICE, &label(1));
        assert_eq!(all(&ledgers, &ALICE)[0].sealed[..], *b"word");
        ledgers.restore(ALICE, label(1), b"kept".to_vec());
        assert_eq!(ledgers.len, OVERHEAD + 4);
    }
}
