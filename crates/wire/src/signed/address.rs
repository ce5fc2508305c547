//! The virtual addresses of agents, which follow from their keys.
//!
//! ```text
//! IPv6 = fd || T || H      T = first 3 bytes of SHA-256( "overlay net v1\0" || network )
//!                          H = first 12 bytes of SHA-256( "overlay ip6 v1\0" || 32 || network || identity )
//! IPv4 = host 1 + (N mod (hosts of the pool)), candidate i
//!                          N = first 8 bytes of SHA-256( "overlay ip4" || identity || i as 4 bytes ), big-endian
//! ```
//!
//! `network` and `identity` are the 32 bytes of the keys. Nobody needs to believe an IPv6 address. An IPv4 address is
//! one of few candidates, and the registry gives out the first free one.

use std::net::{Ipv4Addr, Ipv6Addr};

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::key::PublicKey;
use super::refused::Refused;

/// The first bytes of a network's addresses: its /32 of IPv6.
pub fn network_prefix(network: &PublicKey) -> Ipv6Addr {
    let hash = Sha256::new().chain_update(b"overlay net v1\0").chain_update(network.0).finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..4].copy_from_slice(&hash[..3]);
    octets.into()
}

/// The IPv6 address of an agent.
pub fn ipv6_address(network: &PublicKey, identity: &PublicKey) -> Ipv6Addr {
    let hash = Sha256::new()
        .chain_update(b"overlay ip6 v1\0")
        .chain_update([32])
        .chain_update(network.0)
        .chain_update(identity.0)
        .finalize();
    let mut octets = network_prefix(network).octets();
    octets[4..].copy_from_slice(&hash[..12]);
    octets.into()
}

/// The IPv4 addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pool {
    #[cbor(n(0), with = "minicbor::bytes")]
    octets: [u8; 4],
    #[n(1)]
    prefix_len: u8,
}

impl Pool {
    /// The shortest and the longest prefix of a pool.
    pub const PREFIX_LENGTHS: std::ops::RangeInclusive<u8> = 8..=24;

    /// Makes a pool. `None` if the address has bits behind the prefix, or the prefix is shorter or longer than a pool's.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        let pool = Self { octets: address.octets(), prefix_len };
        pool.check().is_ok().then_some(pool)
    }

    /// The first address, which no agent has.
    pub fn address(&self) -> Ipv4Addr {
        self.octets.into()
    }

    /// The length of the prefix in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether an agent may have this address: all but the first and the last.
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() ^ self.address().to_bits();
        (1..=self.hosts()).contains(&host)
    }

    /// The number of addresses that agents may have.
    fn hosts(&self) -> u32 {
        (u32::MAX >> self.prefix_len) - 1
    }

    pub(super) fn check(&self) -> Result<(), Refused> {
        let is_good = Self::PREFIX_LENGTHS.contains(&self.prefix_len)
            && self.address().to_bits() & (u32::MAX >> self.prefix_len) == 0
            && !self.address().is_loopback()
            && !self.address().is_multicast()
            && self.octets[0] != 0;
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}

/// How many candidates an agent has for its IPv4 address.
pub const IPV4_CANDIDATES: u32 = 64;

/// Whether an IPv4 address is one of an agent's candidates, and so follows from its key.
pub fn is_ipv4_candidate(pool: &Pool, identity: &PublicKey, address: Ipv4Addr) -> bool {
    (0..IPV4_CANDIDATES).any(|i| ipv4_candidate(pool, identity, i) == address)
}

/// Candidate `i` for the IPv4 address of an agent, of [`IPV4_CANDIDATES`].
pub fn ipv4_candidate(pool: &Pool, identity: &PublicKey, i: u32) -> Ipv4Addr {
    let hash =
        Sha256::new().chain_update(b"overlay ip4").chain_update(identity.0).chain_update(i.to_be_bytes()).finalize();
    let number = hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    let host = 1 + (number % u64::from(pool.hosts())) as u32;
    Ipv4Addr::from_bits(pool.address().to_bits() | host)
}
