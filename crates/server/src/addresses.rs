//! How many connections come from one address, and how many new ones.
//!
//! Whole offices share an address, so this only keeps one host from taking all: all connections, or all of our time with
//! handshakes. An IPv6 host has a /64.
//!
//! New connections have a bucket (the generic cell rate algorithm): it holds [`BURST`] times the limit, and is full again
//! after [`REFILL`]. All agents of an office may come back at once, and once more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many times the limit an address may connect at once.
const BURST: u32 = 2;
/// After this time it may do so again.
const REFILL: Duration = Duration::from_secs(10);
/// The most addresses that are remembered. There are fewer connections than that in all.
const MAX_REMEMBERED: usize = 65_536;

/// Counts the connections of each address.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: usize,
    sources: Arc<Mutex<HashMap<IpAddr, Source>>>,
}

/// What is known of an address.
#[derive(Debug, Default)]
struct Source {
    /// Its connections.
    present: usize,
    /// When its bucket of new connections is full again.
    full_at: Duration,
}

/// A counted connection. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Counted {
    source: IpAddr,
    sources: Arc<Mutex<HashMap<IpAddr, Source>>>,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, sources: Arc::default() }
    }

    /// Counts a connection. `None` if it is one too many. `now` is the time on a clock that never goes backwards.
    pub(crate) fn admit(&self, address: IpAddr, now: Duration) -> Option<Counted> {
        let source = source_of(address);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= MAX_REMEMBERED {
            sources.retain(|_, source| source.present > 0);
        }
        let known = sources.entry(source).or_default();
        let interval = REFILL / (BURST * u32::try_from(self.limit).unwrap_or(u32::MAX / BURST)).max(1);
        let full_at = known.full_at.max(now) + interval;
        if known.present >= self.limit || full_at > now + REFILL {
            return None;
        }
        (known.present, known.full_at) = (known.present + 1, full_at);
        Some(Counted { source, sources: Arc::clone(&self.sources) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get_mut(&self.source) {
            source.present -= 1;
        }
    }
}

/// What is counted as one source: an IPv4 address, or an IPv6 /64.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_each_ipv6_64_has_its_share() {
        let addresses = Addresses::new(2);
        let admit = |text: &str| addresses.admit(text.parse().expect("an address"), Duration::ZERO);
        let first = admit("192.0.2.1");
        let second = admit("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some() && admit("192.0.2.1").is_none());
        let others = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(others.iter().all(Option::is_some) && admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(first);
        assert!(admit("192.0.2.1").is_some());
    }

    #[test]
    fn an_address_that_connects_again_and_again_has_to_wait() {
        let addresses = Addresses::new(2);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let now = Duration::from_secs(100);
        for _ in 0..4 {
            assert!(addresses.admit(address(1), now).is_some(), "it hangs up each time");
        }
        assert!(addresses.admit(address(1), now).is_none());
        assert!(addresses.admit(address(2), now).is_some(), "others do not wait for it");
        let later = now + REFILL / 4;
        assert!(addresses.admit(address(1), later).is_some() && addresses.admit(address(1), later).is_none());
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten_when_there_are_too_many() {
        let addresses = Addresses::new(1);
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let here = addresses.admit(address(0), Duration::ZERO);
        assert!(here.is_some());
        for n in 1..2 * MAX_REMEMBERED as u32 {
            assert!(addresses.admit(address(n), Duration::ZERO).is_some());
        }
        assert!(addresses.sources.lock().expect("no panic").len() <= MAX_REMEMBERED);
        assert!(addresses.admit(address(0), Duration::ZERO).is_none(), "one that is connected is remembered");
    }
}
