//! Which party holds the most of a small table. That party makes room when the table is full, so that nobody evicts
//! what belongs to others.
//!
//! Parties are hashed into 64 groups. The parties in a group share its limits.

use std::net::IpAddr;

/// How many groups of parties are told apart.
pub(crate) const GROUPS: usize = 64;

/// Returns the group of an inner source.
pub(crate) fn group_of(source: IpAddr) -> u8 {
    match source {
        IpAddr::V4(address) => group(u64::from(address.to_bits())),
        IpAddr::V6(address) => group((address.to_bits() >> 64) as u64 ^ (address.to_bits() as u64).rotate_left(23)),
    }
}

/// Returns the group of any number that identifies a party.
pub(crate) fn group(name: u64) -> u8 {
    (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as u8
}

/// Returns the group with the largest sum of shares, or `None` if all are zero.
pub(crate) fn heaviest(shares: impl Iterator<Item = (u8, usize)>) -> Option<u8> {
    let mut sums = [0; GROUPS];
    shares.for_each(|(group, share)| sums[usize::from(group) % GROUPS] += share);
    (0..GROUPS as u8).max_by_key(|group| sums[usize::from(*group)]).filter(|group| sums[usize::from(*group)] > 0)
}
