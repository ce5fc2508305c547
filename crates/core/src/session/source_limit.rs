//! How many handshakes one source may start while the node is under load, like the kernel's `ratelimiter.c`.
//!
//! There is a token bucket for each IPv4 address or IPv6 /64. It is consulted only for messages whose mac2 proved the
//! source, so an attacker cannot fill the table with addresses of others. But some attackers own many addresses. Within
//! one IPv4 /16, 256 sources get their own bucket. Within one IPv6 /48, and within one /32, 64 parts do. The rest of
//! the prefix shares one bucket, so the holder of a single prefix cannot fill the table. A full table refuses new
//! sources until existing entries expire after a second of silence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::bucket::Bucket;

/// How many sources are remembered at once.
pub(crate) const MAX_SOURCES: usize = 8_192;
/// How long a source may be silent before it is forgotten.
const EXPIRY: Duration = Duration::from_secs(1);

/// Prefix lengths, longest first, with the number of entries directly within such a prefix that get their own bucket.
/// Beyond that number, new sources share the bucket of the prefix.
const V4_LEVELS: [(u8, u16); 1] = [(16, 256)];
const V6_LEVELS: [(u8, u16); 2] = [(48, 64), (32, 64)];

#[derive(Default)]
pub(crate) struct SourceLimit {
    sources: BTreeMap<Prefix, Bucket>,
    /// How many entries are directly within a prefix.
    within: BTreeMap<Prefix, u16>,
    swept: Instant,
}

/// Whether the address is IPv6, the prefix length, and the first 64 bits.
type Prefix = (bool, u8, u64);

impl SourceLimit {
    /// Whether one more handshake from `source` is within its limit.
    pub(crate) fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        self.sweep(now);
        let mut key = leaf(source);
        if !self.sources.contains_key(&key) {
            for (len, most) in levels(key) {
                let parent = shortened(key, len);
                let within = self.within.get(&parent).copied().unwrap_or(0);
                if within >= most {
                    key = parent;
                }
                if within > 0 {
                    break;
                }
            }
        }
        if let Some(bucket) = self.sources.get_mut(&key) {
            return bucket.take(now);
        }
        if self.sources.len() >= MAX_SOURCES {
            return false;
        }
        self.sources.insert(key, Bucket::full(now));
        self.count(key);
        self.sources.get_mut(&key).is_some_and(|bucket| bucket.take(now))
    }

    /// Counts a new entry in the prefix around it. If that prefix had no entries, it is counted in the next shorter one
    /// in turn.
    fn count(&mut self, mut key: Prefix) {
        for (len, _) in levels(key) {
            let parent = shortened(key, len);
            if parent == key {
                return;
            }
            let within = self.within.entry(parent).or_default();
            *within = within.saturating_add(1);
            if *within > 1 {
                break;
            }
            key = parent;
        }
    }

    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept) < EXPIRY {
            return;
        }
        self.swept = now;
        self.sources.retain(|_, bucket| now.since(bucket.last()) < EXPIRY);
        self.within.clear();
        let keys: Vec<_> = self.sources.keys().copied().collect();
        keys.into_iter().for_each(|key| self.count(key));
    }
}

/// Returns the prefix that identifies a source.
fn leaf(source: IpAddr) -> Prefix {
    match source {
        IpAddr::V4(address) => (false, 32, u64::from(u32::from(address)) << 32),
        IpAddr::V6(address) => (true, 64, (u128::from(address) >> 64) as u64),
    }
}

fn levels((is_v6, ..): Prefix) -> impl Iterator<Item = (u8, u16)> {
    let levels: &[_] = if is_v6 { &V6_LEVELS } else { &V4_LEVELS };
    levels.iter().copied()
}

fn shortened((is_v6, before, bits): Prefix, len: u8) -> Prefix {
    if len >= before { (is_v6, before, bits) } else { (is_v6, len, bits & !(u64::MAX >> len)) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_source_gets_five_at_once_and_then_twenty_a_second() {
        let (mut limit, source) = (SourceLimit::default(), IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)));
        let passed = (0..10).filter(|_| limit.allows(source, at(0))).count();
        assert_eq!(passed, 5);
        assert!(!limit.allows(source, at(49)));
        assert!(limit.allows(source, at(50)));
        let passed = (51..=1_050).filter(|ms| limit.allows(source, at(*ms))).count();
        assert_eq!(passed, 20);
    }

    #[test]
    fn addresses_of_one_ipv6_64_share_a_bucket() {
        let mut limit = SourceLimit::default();
        let address = |host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        assert_eq!((0..10).filter(|host| limit.allows(address(*host), at(0))).count(), 5);
    }

    #[test]
    fn a_full_table_refuses_new_sources_until_old_ones_are_forgotten() {
        let mut limit = SourceLimit::default();
        // 256 sources from each /16.
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(n >> 8 << 16 | n & 0xff));
        for n in 0..MAX_SOURCES as u32 {
            assert!(limit.allows(address(n), at(0)));
        }
        assert!(!limit.allows(address(0xff_ffff), at(1)));
        assert_eq!(limit.sources.len(), MAX_SOURCES);
        assert!(limit.allows(address(0xff_ffff), at(1_001)));
        assert_eq!(limit.sources.len(), 1);
    }

    #[test]
    fn no_holder_of_one_prefix_fills_the_table() {
        let mut limit = SourceLimit::default();
        // A whole IPv6 /32, and an IPv4 /16.
        for n in 0..200_000u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let subnet = u16::from_be_bytes([b, c]).wrapping_mul(40_503);
            limit.allows(
                Ipv6Addr::new(0x2001, 0xdb8, u16::from(a) << 8 | subnet >> 8, subnet, 0, 0, 0, 1).into(),
                at(0),
            );
            limit.allows(Ipv4Addr::new(198, 51, b, c).into(), at(0));
        }
        assert!(limit.sources.len() < MAX_SOURCES * 3 / 4, "{}", limit.sources.len());
        // The number of buckets is bounded, and with it what the holder may ask in total.
        assert!(limit.within.len() <= 64 + 2, "{}", limit.within.len());
        assert!(limit.allows(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1).into(), at(1)));
        assert!(limit.allows(Ipv4Addr::new(192, 0, 2, 1).into(), at(1)));
    }

    #[test]
    fn what_shares_a_prefix_that_is_busy_shares_its_bucket() {
        let mut limit = SourceLimit::default();
        let address = |n: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1));
        let passed = (0..1_000).filter(|n| limit.allows(address(*n), at(0))).count();
        assert_eq!(passed, 64 + 5, "64 of the /48, and five of its rest");
        assert!(limit.allows(address(0), at(0)), "those that were first keep their own");
    }
}
