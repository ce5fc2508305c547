//! How many handshakes one source may start while the node is under load, as the kernel's `ratelimiter.c`.
//!
//! A token bucket for each IPv4 address or IPv6 /64. It is asked only for messages whose mac2 proved the source, so an
//! attacker cannot fill the table with addresses that are not its own. A full table refuses new sources until entries
//! fall out of it after a second of silence.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;

/// Handshakes a second from one source.
const PACKETS_PER_SECOND: u32 = 20;
/// Handshakes at once from one source.
const BURST: u32 = 5;
/// Sources remembered at once.
pub(crate) const MAX_SOURCES: usize = 8_192;
/// A source that was silent this long is forgotten.
const EXPIRY: Duration = Duration::from_secs(1);
const COST: Duration = Duration::from_millis(1_000 / PACKETS_PER_SECOND as u64);

#[derive(Default)]
pub(crate) struct SourceLimit {
    sources: BTreeMap<u64, Bucket>,
    swept: Instant,
}

struct Bucket {
    tokens: Duration,
    last: Instant,
}

impl SourceLimit {
    /// Whether one more handshake from `source` is within its limit.
    pub(crate) fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        self.sweep(now);
        let is_full = self.sources.len() >= MAX_SOURCES;
        match self.sources.entry(key(source)) {
            Entry::Occupied(mut entry) => {
                let bucket = entry.get_mut();
                bucket.tokens = (bucket.tokens + now.since(bucket.last)).min(COST * BURST);
                bucket.last = now;
                let allowed = bucket.tokens >= COST;
                if allowed {
                    bucket.tokens -= COST;
                }
                allowed
            }
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(entry) => {
                entry.insert(Bucket { tokens: COST * (BURST - 1), last: now });
                true
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept) >= EXPIRY {
            self.swept = now;
            self.sources.retain(|_, bucket| now.since(bucket.last) < EXPIRY);
        }
    }
}

/// IPv4 addresses lie where no global IPv6 prefix does.
fn key(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64 | 1 << 63,
    }
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
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        for n in 0..MAX_SOURCES as u32 {
            assert!(limit.allows(address(n), at(0)));
        }
        assert!(!limit.allows(address(u32::MAX), at(1)));
        assert_eq!(limit.sources.len(), MAX_SOURCES);
        assert!(limit.allows(address(u32::MAX), at(1_001)));
        assert_eq!(limit.sources.len(), 1);
    }
}
