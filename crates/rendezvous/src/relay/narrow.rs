//! Legs that are narrower than what was sent to them.
//!
//! A relay cannot know how large a datagram may be on the way to an agent. The agents find that out, and what they send while
//! they search is sometimes too long for the relay's own interface. The kernel refuses a whole train then, and again each of
//! its datagrams. So a refusal is remembered, for [`LIFETIME`]: routes change, and a try costs one call.
//!
//! Left out: legs that are narrow beyond the next router. Only the agents notice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a leg is held to be narrow.
pub(super) const LIFETIME: Duration = Duration::from_secs(1);
/// The most legs. One that is not remembered costs a refusal for each train.
pub(super) const MAX_NARROW: usize = 1_024;

/// The legs that are narrow. Usually it is empty.
#[derive(Debug, Default)]
pub(super) struct NarrowLegs {
    known: BTreeMap<IpAddr, Narrow>,
}

#[derive(Clone, Copy, Debug)]
struct Narrow {
    /// The length of the shortest datagram that did not fit.
    too_long: usize,
    until: Duration,
}

impl NarrowLegs {
    /// A datagram of this length did not fit.
    pub(super) fn on_too_long(&mut self, to: IpAddr, len: usize, now: Duration) {
        if self.known.len() >= MAX_NARROW && !self.known.contains_key(&to) {
            self.known.retain(|_, narrow| narrow.until > now);
            if self.known.len() >= MAX_NARROW {
                return;
            }
        }
        let too_long = self.longest(to, now).map_or(len, |longest| len.min(longest + 1));
        self.known.insert(to, Narrow { too_long, until: now + LIFETIME });
    }

    /// The length of the longest datagram that may fit. `None`: nothing is known.
    #[inline]
    pub(super) fn longest(&self, to: IpAddr, now: Duration) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&to).filter(|narrow| narrow.until > now).map(|narrow| narrow.too_long.saturating_sub(1))
    }

    /// The part of a train that may fit, and how many datagrams do not. The last datagram of a train may be shorter than the
    /// others.
    #[inline]
    pub(super) fn fitting<'a>(&self, train: &'a [u8], stride: usize, to: IpAddr, now: Duration) -> (&'a [u8], u64) {
        let stride = stride.clamp(1, train.len().max(1));
        let Some(longest) = self.longest(to, now).filter(|longest| *longest < stride) else { return (train, 0) };
        let (full, last) = train.split_at(train.len() - train.len() % stride);
        let too_long = (full.len() / stride) as u64;
        if last.len() <= longest { (last, too_long) } else { (&[], too_long + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_did_not_fit_is_dropped_for_a_second_and_then_tried_again() {
        let mut narrow = NarrowLegs::default();
        let train = [[7; 4_000].as_slice(), &[8; 300]].concat();
        assert_eq!(narrow.fitting(&train, 1_000, leg(1), ms(0)), (&train[..], 0));
        narrow.on_too_long(leg(1), 1_000, ms(0));
        assert_eq!(narrow.fitting(&train, 1_000, leg(1), ms(999)), (&train[4_000..], 4));
        assert_eq!(narrow.fitting(&train[..4_000], 1_000, leg(1), ms(999)), (&[][..], 4));
        assert_eq!(narrow.fitting(&train[..3_996], 999, leg(1), ms(999)), (&train[..3_996], 0));
        assert_eq!(narrow.fitting(&train, 1_000, leg(2), ms(999)), (&train[..], 0), "a different leg");
        assert_eq!(narrow.fitting(&train, 1_000, leg(1), ms(1_000)), (&train[..], 0));
    }

    #[test]
    fn the_shortest_that_did_not_fit_counts() {
        let mut narrow = NarrowLegs::default();
        for (len, at) in [(1_000, 0), (1_200, 100), (900, 200), (1_100, 300)] {
            narrow.on_too_long(leg(1), len, ms(at));
        }
        assert_eq!(narrow.longest(leg(1), ms(1_299)), Some(899));
        narrow.on_too_long(leg(1), 1_200, ms(1_300));
        assert_eq!(narrow.longest(leg(1), ms(1_300)), Some(1_199), "what is over is forgotten");
        // A last datagram that is as long as the others do not fit either.
        assert_eq!(narrow.fitting(&[7; 2_800], 1_500, leg(1), ms(1_300)), (&[][..], 2));
    }

    #[test]
    fn the_table_is_bounded_and_has_room_again_when_time_has_passed() {
        let mut narrow = NarrowLegs::default();
        for n in 0..=MAX_NARROW as u32 {
            narrow.on_too_long(leg(n), 1_000, ms(0));
        }
        assert_eq!((narrow.known.len(), narrow.longest(leg(MAX_NARROW as u32), ms(0))), (MAX_NARROW, None));
        narrow.on_too_long(leg(7), 900, ms(0));
        assert_eq!(narrow.longest(leg(7), ms(0)), Some(899), "one that is known");
        narrow.on_too_long(leg(9_999), 1_000, ms(1_000));
        assert_eq!((narrow.known.len(), narrow.longest(leg(9_999), ms(1_000))), (1, Some(999)));
    }
}
