//! How many ICMP errors go back into TUN: 100 a second, 50 at once, of each kind and to each party. The kernel's own limits
//! are of this order.
//!
//! "Too big" has to arrive, or a connection stalls: nobody who knocks at addresses without a peer, or sends packets that are
//! too big, may use up what is there for the others. Parties are told apart by their inner source, eight groups of them.

use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::data::shares;

const COST: Duration = Duration::from_millis(10);
const BURST: u32 = 50;
const KINDS: usize = 2;
const PARTIES: usize = 8;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// There is no way to the destination.
    Unreachable,
    /// The way carries less.
    TooBig,
}

/// A token bucket for each kind and party.
pub(crate) struct IcmpLimit {
    buckets: [[Bucket; PARTIES]; KINDS],
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: Duration,
    last: Instant,
}

impl IcmpLimit {
    /// Whether one more error of the kind may go back to this inner source.
    pub(crate) fn allows(&mut self, kind: Refusal, source: IpAddr, now: Instant) -> bool {
        let bucket = &mut self.buckets[kind as usize][usize::from(shares::group_of(source)) % PARTIES];
        bucket.tokens = (bucket.tokens + now.since(bucket.last)).min(COST * BURST);
        bucket.last = now;
        let allowed = bucket.tokens >= COST;
        if allowed {
            bucket.tokens -= COST;
        }
        allowed
    }
}

impl Default for IcmpLimit {
    fn default() -> Self {
        let full = Bucket { tokens: COST * BURST, last: Instant::default() };
        Self { buckets: [[full; PARTIES]; KINDS] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, last])
    }

    #[test]
    fn icmp_errors_are_limited_to_a_burst_of_50_and_100_a_second() {
        let mut limit = IcmpLimit::default();
        let mut allows = |millis| limit.allows(Refusal::TooBig, host(1), at(millis));
        assert_eq!((0..1_000).filter(|_| allows(5_000)).count(), 50);
        assert_eq!((1..=1_000).filter(|ms| allows(5_000 + ms)).count(), 100);
    }

    #[test]
    fn neither_another_kind_nor_another_party_uses_up_too_big() {
        let mut limit = IcmpLimit::default();
        let group = |host| usize::from(shares::group_of(host)) % PARTIES;
        let other = (2..).map(host).find(|other| group(*other) != group(host(1))).expect("not all are alike");
        for _ in 0..1_000 {
            limit.allows(Refusal::Unreachable, host(1), at(0));
            limit.allows(Refusal::TooBig, other, at(0));
        }
        assert!(limit.allows(Refusal::TooBig, host(1), at(0)));
        assert!(!limit.allows(Refusal::Unreachable, host(1), at(0)) && !limit.allows(Refusal::TooBig, other, at(0)));
    }

    #[test]
    fn all_parties_together_get_a_bounded_number() {
        let mut limit = IcmpLimit::default();
        let passed =
            (0..=255).flat_map(|last| [host(last); 100]).filter(|host| limit.allows(Refusal::TooBig, *host, at(0)));
        assert_eq!(passed.count(), PARTIES * BURST as usize);
    }
}
