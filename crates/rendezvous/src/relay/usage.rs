//! How many bytes each identity has sent today. A day ends at midnight UTC.
//!
//! The count outlives a binding, so that nobody gets a second day by binding again.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use overlay_wire::signed::PublicKey;

/// The most identities that have a count of their own. Those beyond share one.
pub(super) const MAX_COUNTED: usize = 65_536;
const DAY: u64 = 24 * 3_600 * 1_000;

/// The counts of today.
#[derive(Debug, Default)]
pub(super) struct Usage {
    day: u64,
    sent: BTreeMap<PublicKey, u64>,
    shared: u64,
}

impl Usage {
    /// Counts bytes, unless there would be more than `daily`. Returns whether it has.
    pub(super) fn spend(&mut self, identity: &PublicKey, bytes: u64, daily: NonZeroU64, unix: u64) -> bool {
        self.turn(unix);
        let has_room = self.sent.len() < MAX_COUNTED || self.sent.contains_key(identity);
        let sent = if has_room { self.sent.entry(*identity).or_default() } else { &mut self.shared };
        let sum = sent.saturating_add(bytes);
        let is_within = sum <= daily.get();
        if is_within {
            *sent = sum;
        }
        is_within
    }

    /// How many bytes an identity has left.
    pub(super) fn left(&mut self, identity: &PublicKey, daily: NonZeroU64, unix: u64) -> u64 {
        self.turn(unix);
        let is_full = self.sent.len() >= MAX_COUNTED;
        let sent = self.sent.get(identity).copied().unwrap_or(if is_full { self.shared } else { 0 });
        daily.get().saturating_sub(sent)
    }

    /// The wall clock may be set back. The day does not begin again then.
    fn turn(&mut self, unix: u64) {
        let day = unix / DAY;
        if day > self.day {
            *self = Self { day, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u32) -> PublicKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    }

    #[test]
    fn a_day_has_its_bytes_and_ends_at_midnight() {
        let (mut usage, daily) = (Usage::default(), NonZeroU64::new(100).expect("not 0"));
        let noon = 20_000 * DAY + DAY / 2;
        assert!(usage.spend(&identity(1), 60, daily, noon));
        assert!(!usage.spend(&identity(1), 41, daily, noon), "the whole train, or nothing");
        assert!(usage.spend(&identity(1), 40, daily, noon));
        assert_eq!([1, 2].map(|n| usage.left(&identity(n), daily, noon)), [0, 100]);
        let before = noon - DAY;
        assert_eq!(usage.left(&identity(1), daily, before), 0, "a clock that is set back gives nothing");
        let midnight = 20_001 * DAY;
        assert_eq!(usage.left(&identity(1), daily, midnight), 100);
        assert!(usage.spend(&identity(1), 100, daily, midnight));
    }

    #[test]
    fn identities_beyond_the_bound_share_one_count() {
        let (mut usage, daily) = (Usage::default(), NonZeroU64::new(100).expect("not 0"));
        for n in 0..MAX_COUNTED as u32 {
            assert!(usage.spend(&identity(n), 1, daily, DAY));
        }
        assert!(usage.spend(&identity(u32::MAX), 100, daily, DAY));
        assert!(!usage.spend(&identity(u32::MAX - 1), 1, daily, DAY));
        assert_eq!(usage.left(&identity(u32::MAX - 2), daily, DAY), 0);
        assert_eq!(usage.left(&identity(7), daily, DAY), 99);
        assert_eq!(usage.sent.len(), MAX_COUNTED);
    }
}
