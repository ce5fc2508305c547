//! The rate limit on ICMP errors that go back into TUN: 100 a second, 50 at once, for each kind and party. The kernel's
//! own limits are of the same order.
//!
//! "Too big" errors have to arrive, or connections stall. A party that sends to addresses without a peer, or sends
//! oversized packets, must not use up what others need.

use std::time::Duration;

use crate::Instant;
use crate::data::shares::Party;

const COST: Duration = Duration::from_millis(10);
const BURST: u32 = 50;
/// How long a bucket with a single token takes to fill.
const LAST_TOKEN: Duration = Duration::from_millis(COST.as_millis() as u64 * (BURST as u64 - 1));
const KINDS: usize = 3;

/// Why a packet is answered with an ICMP error. Each kind has a limit of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// There is no route to the destination.
    Unreachable,
    /// The packet is longer than the path carries, which is this many bytes.
    TooBig(u16),
    /// The destination does not belong to a peer, or the peer does not let us open the flow.
    Prohibited,
}

impl Refusal {
    fn kind(self) -> usize {
        match self {
            Self::Unreachable => 0,
            Self::TooBig(_) => 1,
            Self::Prohibited => 2,
        }
    }
}

/// A token bucket for each kind and party.
pub(crate) struct IcmpLimit {
    buckets: [[Bucket; Party::COUNT]; KINDS],
}

/// A token bucket. One moment says how many tokens it lacks, so a refusal costs one comparison and writes nothing.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// When the bucket is full again if no token is taken.
    full_at: Instant,
}

impl IcmpLimit {
    /// Whether an error of this kind may go back to this party. Takes a token if so.
    pub(crate) fn allows(&mut self, refusal: Refusal, party: Party, now: Instant) -> bool {
        let Bucket { full_at } = &mut self.buckets[refusal.kind()][party.index()];
        let allowed = *full_at <= now + LAST_TOKEN;
        if allowed {
            *full_at = now.max(*full_at) + COST;
        }
        allowed
    }
}

impl Default for IcmpLimit {
    fn default() -> Self {
        Self { buckets: [[Bucket::default(); Party::COUNT]; KINDS] }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::PeerTag;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn host(last: u8) -> Party {
        Party::other(IpAddr::from([10, 77, 0, last]), 7)
    }

    #[test]
    fn icmp_errors_are_limited_to_a_burst_of_50_and_100_a_second() {
        let mut limit = IcmpLimit::default();
        let mut allows = |millis| limit.allows(Refusal::TooBig(1_280), host(1), at(millis));
        assert_eq!((0..1_000).filter(|_| allows(5_000)).count(), 50);
        assert_eq!((1..=1_000).filter(|ms| allows(5_000 + ms)).count(), 100);
    }

    #[test]
    fn neither_another_kind_nor_another_party_uses_up_too_big() {
        let mut limit = IcmpLimit::default();
        let other = (2..).map(host).find(|other| *other != host(1)).expect("not all are alike");
        for _ in 0..1_000 {
            limit.allows(Refusal::Unreachable, host(1), at(0));
            limit.allows(Refusal::TooBig(1_280), other, at(0));
        }
        assert!(limit.allows(Refusal::TooBig(1_280), host(1), at(0)));
        assert!(
            !limit.allows(Refusal::Unreachable, host(1), at(0)) && !limit.allows(Refusal::TooBig(1_280), other, at(0))
        );
    }

    #[test]
    fn all_parties_together_get_a_bounded_number_and_leave_us_ours() {
        let mut limit = IcmpLimit::default();
        let peers = (0..1_000).map(|place| Party::peer(PeerTag(place), 7));
        let all = peers.chain((0..=255).map(host)).flat_map(|party| [party; 100]);
        let passed = all.filter(|party| limit.allows(Refusal::TooBig(1_280), *party, at(0))).count();
        assert_eq!(passed, (Party::COUNT - 1) * BURST as usize);
        let ours = (0..100).filter(|_| limit.allows(Refusal::TooBig(1_280), Party::OWN, at(0))).count();
        assert_eq!(ours, BURST as usize);
    }
}
