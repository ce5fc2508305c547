//! How many connections come from one address.
//!
//! Whole offices share an address, so this limit only keeps one host from taking all. An IPv6 host has a /64.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections of each address.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: usize,
    present: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A counted connection. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Counted {
    source: IpAddr,
    present: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, present: Arc::default() }
    }

    /// Counts a connection. `None` if it is one too many.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Counted> {
        let source = source_of(address);
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let count = present.entry(source).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Counted { source, present: Arc::clone(&self.present) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = present.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.source);
            }
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
        let admit = |text: &str| addresses.admit(text.parse().expect("an address"));
        let first = admit("192.0.2.1");
        let second = admit("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some() && admit("192.0.2.1").is_none());
        let others = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(others.iter().all(Option::is_some) && admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        drop((second, others));
        assert!(addresses.present.lock().expect("no panic").is_empty(), "nothing is kept of what has ended");
    }
}
