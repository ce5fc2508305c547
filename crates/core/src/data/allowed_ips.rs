//! Cryptokey routing: which peer an inner address belongs to.
//!
//! There is one table for all peers. Outbound packets look up their destination, inbound packets their source. A prefix
//! has exactly one owner, and the most specific prefix wins in both directions. Most entries are single addresses (/32
//! and /128). They live in a hash table in front of the trie for shorter prefixes, because a single address is always
//! the most specific match.
//!
//! The address families do not mix: an IPv4-mapped IPv6 address inside the tunnel is an ordinary IPv6 address.
//!
//! The configuration bounds the table: only `insert` grows it, and only commands call `insert`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};

/// Prefixes and their owners. The longest prefix that contains an address decides.
pub(crate) struct AllowedIps<P> {
    v4: Family<Ipv4Net, Ipv4Addr, P>,
    v6: Family<Ipv6Net, Ipv6Addr, P>,
}

impl<P: Copy + Eq> AllowedIps<P> {
    /// Creates an empty table, which owns no memory.
    pub(crate) fn new() -> Self {
        Self { v4: Family::new(), v6: Family::new() }
    }

    /// Gives `prefix` to `owner` and returns the previous owner of exactly this prefix. As in WireGuard, ownership
    /// moves. Bits behind the prefix length are ignored.
    pub(crate) fn insert(&mut self, prefix: IpNet, owner: P) -> Option<P> {
        match prefix {
            IpNet::V4(net) if net.prefix_len() == 32 => self.v4.hosts.insert(net.addr(), owner),
            IpNet::V4(net) => self.v4.prefixes.insert(net.trunc(), owner),
            IpNet::V6(net) if net.prefix_len() == 128 => self.v6.hosts.insert(net.addr(), owner),
            IpNet::V6(net) => self.v6.prefixes.insert(net.trunc(), owner),
        }
    }

    /// Takes `prefix` away from `owner`. Returns false and changes nothing if `owner` does not own it.
    pub(crate) fn remove(&mut self, prefix: &IpNet, owner: P) -> bool {
        match prefix {
            IpNet::V4(net) if net.prefix_len() == 32 => self.v4.remove_host(&net.addr(), owner),
            IpNet::V4(net) => self.v4.remove_prefix(&net.trunc(), owner),
            IpNet::V6(net) if net.prefix_len() == 128 => self.v6.remove_host(&net.addr(), owner),
            IpNet::V6(net) => self.v6.remove_prefix(&net.trunc(), owner),
        }
    }

    /// Returns the owner of `address`, or `None` if no prefix contains it. Allocates nothing.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<P> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address, || Ipv4Net::from(address)),
            IpAddr::V6(address) => self.v6.lookup(address, || Ipv6Net::from(address)),
        }
    }

    /// Like [`AllowedIps::lookup`], but the matching prefix must be at least `bits` long.
    pub(crate) fn lookup_at_least(&self, address: IpAddr, bits: u8) -> Option<P> {
        match address {
            IpAddr::V4(address) => self.v4.lookup_at_least(address, || Ipv4Net::from(address), bits),
            IpAddr::V6(address) => self.v6.lookup_at_least(address, || Ipv6Net::from(address), bits),
        }
    }

    /// Returns the owner of the longest prefix that contains all of `prefix`.
    pub(crate) fn covering(&self, prefix: &IpNet) -> Option<P> {
        match prefix {
            IpNet::V4(net) if net.prefix_len() == 32 => self.v4.lookup(net.addr(), || *net),
            IpNet::V4(net) => self.v4.prefixes.get_lpm(&net.trunc()).map(|(_, owner)| *owner),
            IpNet::V6(net) if net.prefix_len() == 128 => self.v6.lookup(net.addr(), || *net),
            IpNet::V6(net) => self.v6.prefixes.get_lpm(&net.trunc()).map(|(_, owner)| *owner),
        }
    }

    /// Iterates over all entries in no particular order.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (IpNet, P)> + '_ {
        let v4_hosts = self.v4.hosts.iter().map(|(&address, &owner)| (IpNet::V4(address.into()), owner));
        let v4 = self.v4.prefixes.iter().map(|(net, &owner)| (IpNet::V4(net), owner));
        let v6_hosts = self.v6.hosts.iter().map(|(&address, &owner)| (IpNet::V6(address.into()), owner));
        let v6 = self.v6.prefixes.iter().map(|(net, &owner)| (IpNet::V6(net), owner));
        v4_hosts.chain(v4).chain(v6_hosts).chain(v6)
    }
}

/// The entries of one address family. `N` is its prefix type, `A` its address type.
struct Family<N, A, P> {
    hosts: HashMap<A, P, BuildHasherDefault<AddressHasher>>,
    prefixes: PrefixMap<N, P>,
}

impl<N: Prefix, A: Copy + Eq + Hash, P: Copy + Eq> Family<N, A, P> {
    fn new() -> Self {
        Self { hosts: HashMap::default(), prefixes: PrefixMap::new() }
    }

    fn lookup(&self, address: A, as_prefix: impl FnOnce() -> N) -> Option<P> {
        self.lookup_at_least(address, as_prefix, 0)
    }

    fn lookup_at_least(&self, address: A, as_prefix: impl FnOnce() -> N, bits: u8) -> Option<P> {
        if let Some(&owner) = self.hosts.get(&address) {
            return Some(owner);
        }
        let (prefix, &owner) = self.prefixes.get_lpm(&as_prefix())?;
        (prefix.prefix_len() >= bits).then_some(owner)
    }

    fn remove_host(&mut self, address: &A, owner: P) -> bool {
        self.hosts.get(address) == Some(&owner) && self.hosts.remove(address).is_some()
    }

    fn remove_prefix(&mut self, net: &N, owner: P) -> bool {
        self.prefixes.get(net) == Some(&owner) && self.prefixes.remove(net).is_some()
    }
}

/// A hash of one multiplication and one fold for each word, which costs a few cycles for an address.
///
/// It needs no secret key. Every key in the table comes from the configuration, so an outsider cannot fill it with
/// collisions. The address of a packet is only looked up, and the length of the probe depends on the stored keys.
#[derive(Default)]
struct AddressHasher(u64);

impl AddressHasher {
    /// 2^64 divided by the golden ratio: odd, and its bits have no pattern.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    fn mix(&mut self, word: u64) {
        // Both halves of the product are kept: the table takes its bucket from the low bits and its tag from the high
        // bits.
        let product = u128::from(self.0.rotate_left(32) ^ word ^ Self::MULTIPLIER) * u128::from(Self::MULTIPLIER);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
