//! Where agents come from: how many are bound from one network, and how often it may try.
//!
//! A network is here only if its cookie was right, so nobody fills this table with addresses that are not his.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::bucket::{Bucket, Rate};

/// The most networks.
pub(super) const MAX_PREFIXES: usize = 65_536;
/// How often binds of one network are looked at. Each costs two or three signatures.
pub(super) const BINDS: Rate = Rate::times(64, 512);

/// All networks from which agents are bound, or tried to be.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    known: BTreeMap<IpAddr, Prefix>,
}

#[derive(Debug, Default)]
struct Prefix {
    bindings: usize,
    binds: Bucket,
}

/// Whether a bind may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Yes,
    TooOften,
    /// There is no room for a network that is not known yet.
    Full,
}

impl Prefixes {
    /// Counts a bind from this address.
    pub(super) fn admit(&mut self, address: IpAddr, now: Duration) -> Admission {
        let prefix = prefix_of(address);
        if !self.known.contains_key(&prefix) && self.known.len() >= MAX_PREFIXES {
            return Admission::Full;
        }
        if self.known.entry(prefix).or_default().binds.take(BINDS, now) { Admission::Yes } else { Admission::TooOften }
    }

    /// How many agents are bound from the network of this address.
    pub(super) fn bindings(&self, address: IpAddr) -> usize {
        self.known.get(&prefix_of(address)).map_or(0, |prefix| prefix.bindings)
    }

    pub(super) fn on_bound(&mut self, address: IpAddr) {
        self.known.entry(prefix_of(address)).or_default().bindings += 1;
    }

    pub(super) fn on_unbound(&mut self, address: IpAddr) {
        if let Some(prefix) = self.known.get_mut(&prefix_of(address)) {
            prefix.bindings = prefix.bindings.saturating_sub(1);
        }
    }

    /// Forgets networks of which nothing is left to know.
    pub(super) fn forget(&mut self, now: Duration) {
        self.known.retain(|_, prefix| prefix.bindings > 0 || !prefix.binds.is_full(now));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// An IPv4 address, or the /56 of an IPv6 address, which one customer has.
fn prefix_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 72 << 72).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_ipv4_address_or_a_56() {
        let mut prefixes = Prefixes::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8:0:ff::2", "2001:db8:0:100::1"] {
            prefixes.on_bound(address(text));
        }
        assert_eq!(prefixes.bindings(address("192.0.2.1")), 2);
        assert_eq!(prefixes.bindings(address("192.0.2.2")), 0);
        assert_eq!(prefixes.bindings(address("2001:db8::7")), 2);
        assert_eq!(prefixes.bindings(address("2001:db8:0:1ff::7")), 1);
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let mut prefixes = Prefixes::default();
        let v4 = |n: u32| IpAddr::V4(n.into());
        for n in 0..MAX_PREFIXES as u32 {
            assert_eq!(prefixes.admit(v4(n), Duration::ZERO), Admission::Yes);
        }
        assert_eq!(prefixes.admit(v4(u32::MAX), Duration::ZERO), Admission::Full);
        assert_eq!(prefixes.admit(v4(7), Duration::ZERO), Admission::Yes, "one that is known");
        prefixes.on_bound(v4(7));
        prefixes.forget(Duration::from_secs(1));
        assert_eq!(prefixes.known.len(), 1);
        prefixes.on_unbound(v4(7));
        prefixes.forget(Duration::from_secs(1));
        assert!(prefixes.is_empty());
    }

    #[test]
    fn a_network_has_a_rate() {
        let (mut prefixes, address) = (Prefixes::default(), IpAddr::V4([192, 0, 2, 1].into()));
        for _ in 0..512 {
            assert_eq!(prefixes.admit(address, Duration::ZERO), Admission::Yes);
        }
        assert_eq!(prefixes.admit(address, Duration::ZERO), Admission::TooOften);
        assert_eq!(prefixes.admit(address, Duration::from_secs(1)), Admission::Yes);
    }
}
