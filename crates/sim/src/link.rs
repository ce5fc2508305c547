//! The link from one host to another, and the faults that befall a datagram on it, drawn from the world's seed.

use std::time::Duration;

use overlay_core::Instant;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore as _;

/// The longest extra delay of a reordered datagram.
const MAX_HOLD: Duration = Duration::from_millis(50);
/// Length of the IPv4 and UDP headers in front of a datagram, in bytes.
pub(crate) const OVERHEAD_V4: usize = 28;
/// Length of the IPv6 and UDP headers in front of a datagram, in bytes.
pub(crate) const OVERHEAD_V6: usize = 48;

/// One direction between two hosts. Shares lie between 0.0 (never) and 1.0 (always).
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The minimum delay of a datagram.
    pub latency: Duration,
    /// The maximum extra delay. Datagrams stay in order all the same, as in a queue.
    pub jitter: Duration,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share of datagrams that arrive a second time, up to 50 ms later.
    pub duplicate: f64,
    /// Share of datagrams that are delayed by up to 50 ms, so that later ones overtake them.
    pub reorder: f64,
    /// Share of datagrams in which one bit is flipped.
    pub corrupt: f64,
    /// The largest outer packet in bytes, including the IP header. Larger packets are lost silently.
    pub mtu: usize,
    /// Whether larger packets arrive all the same, in fragments, unless the node set DF.
    pub fragments: bool,
    /// Whether IPv6 datagrams are lost.
    pub is_ipv4_only: bool,
    /// How many routers of the Internet are on it. Each takes one from the TTL.
    pub hops: u8,
}

impl Default for Link {
    /// 10 ms, 1,500 bytes, four routers, and no faults.
    fn default() -> Self {
        let latency = Duration::from_millis(10);
        Self {
            latency,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            mtu: 1_500,
            fragments: false,
            is_ipv4_only: false,
            hops: 4,
        }
    }
}

/// A link and its state.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) is_cut: bool,
    /// The latest arrival of a datagram that was not reordered.
    last: Instant,
}

/// The fate of one datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// When it arrives: never, once or twice.
    pub(crate) arrivals: Vec<Instant>,
    /// The bit that is flipped on the way, if any.
    pub(crate) flipped: Option<usize>,
}

impl Line {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, is_cut: false, last: Instant::default() }
    }

    /// Decides the fate of a datagram of `len` bytes that leaves now. It draws the same number of random values for
    /// every datagram, so that one additional fault does not change the rest of the run.
    pub(crate) fn carry(
        &mut self,
        len: usize,
        is_ipv4: bool,
        dont_fragment: bool,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Fate {
        let [is_lost, is_duplicate, is_held, is_corrupt] =
            [self.link.loss, self.link.duplicate, self.link.reorder, self.link.corrupt].map(|share| chance(share, rng));
        let jitter = within(self.link.jitter, rng);
        let (held, echo) = (within(MAX_HOLD, rng), within(MAX_HOLD, rng));
        let bit = rng.next_u32() as usize % (len * 8);

        let overhead = if is_ipv4 { OVERHEAD_V4 } else { OVERHEAD_V6 };
        let is_too_long = len + overhead > self.link.mtu && (dont_fragment || !self.link.fragments);
        let is_foreign = self.link.is_ipv4_only && !is_ipv4;
        if self.is_cut || is_lost || is_too_long || is_foreign {
            return Fate::default();
        }
        let mut at = now + self.link.latency + jitter;
        if is_held {
            at = at + held;
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        let mut arrivals = vec![at];
        if is_duplicate {
            arrivals.push(at + echo);
        }
        Fate { arrivals, flipped: is_corrupt.then_some(bit) }
    }
}

fn chance(share: f64, rng: &mut ChaCha8Rng) -> bool {
    f64::from(rng.next_u32()) < share * f64::from(u32::MAX) || share >= 1.0
}

fn within(most: Duration, rng: &mut ChaCha8Rng) -> Duration {
    let roll = rng.next_u64();
    most.mul_f64(roll as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng as _;

    use super::*;

    fn line(edit: impl FnOnce(&mut Link)) -> Line {
        let mut link = Link::default();
        edit(&mut link);
        Line::new(link)
    }

    fn fates(mut line: Line, count: u64) -> Vec<Fate> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        (0..count).map(|n| line.carry(100, true, false, at(n), &mut rng)).collect()
    }

    #[test]
    fn a_share_of_the_datagrams_is_lost_doubled_or_damaged() {
        let lost = fates(line(|link| link.loss = 0.2), 10_000).iter().filter(|fate| fate.arrivals.is_empty()).count();
        let doubled = fates(line(|link| link.duplicate = 0.2), 10_000);
        let doubled = doubled.iter().filter(|fate| fate.arrivals.len() == 2).count();
        let damaged = fates(line(|link| link.corrupt = 0.2), 10_000);
        let damaged = damaged.iter().filter(|fate| fate.flipped.is_some_and(|bit| bit < 800)).count();
        for count in [lost, doubled, damaged] {
            assert!((1_800..2_200).contains(&count), "{count} of 10,000 at 20 %");
        }
    }

    #[test]
    fn nothing_passes_at_a_loss_of_one_or_above_the_mtu_or_on_a_cut_line() {
        assert!(fates(line(|link| link.loss = 1.0), 1_000).iter().all(|fate| fate.arrivals.is_empty()));
        assert_eq!(fates(line(|link| link.mtu = 127), 1)[0].arrivals, []);
        assert_eq!(fates(line(|link| link.mtu = 128), 1)[0].arrivals.len(), 1);
        assert!(fates(Line { is_cut: true, ..line(|_| {}) }, 10).iter().all(|fate| fate.arrivals.is_empty()));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let in_order = |fates: Vec<Fate>| fates.is_sorted_by_key(|fate| fate.arrivals[0]);
        assert!(in_order(fates(line(|link| link.jitter = Duration::from_millis(30)), 1_000)));
        assert!(!in_order(fates(line(|link| link.reorder = 0.1), 1_000)));
    }
}
