//! The parties that share a resource of the node, and the one that gives way when it runs out.
//!
//! A party is this host, a peer whose packets we forward, or a different sender, of which only its inner source is known.
//! This host is a party of its own. Peers are hashed into 23 groups, and other senders into 8. The parties in a group
//! share its limits. All hashes have a secret key, because a host behind a peer may choose its address.
//!
//! Anyone beside us can use any number of addresses. The other senders therefore count as one party where parties are
//! compared, and only then among themselves.

use std::net::IpAddr;

use crate::PeerTag;

/// How many groups of peers are told apart.
const PEER_GROUPS: usize = 23;
/// The number of the first group of other senders.
const FIRST_OTHER: usize = 1 + PEER_GROUPS;

/// A party, or all parties of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party(u8);

impl Party {
    /// How many parties are told apart.
    pub(crate) const COUNT: usize = FIRST_OTHER + Self::OTHER_GROUPS;
    /// How many groups of other senders are told apart.
    pub(crate) const OTHER_GROUPS: usize = 8;
    /// How many parties there are if all other senders are one.
    pub(crate) const DISTINCT: usize = FIRST_OTHER + 1;
    /// This host.
    pub(crate) const OWN: Self = Self(0);

    /// Returns the party of a peer.
    pub(crate) fn peer(tag: PeerTag, secret: u64) -> Self {
        Self::among(hash(u64::from(tag.to_bits()), secret), 1, PEER_GROUPS)
    }

    /// Returns the party of a sender of which only the inner source is known.
    pub(crate) fn other(source: IpAddr, secret: u64) -> Self {
        Self::among(hash_source(source, secret), FIRST_OTHER, Self::OTHER_GROUPS)
    }

    fn among(hash: u64, first: usize, groups: usize) -> Self {
        Self((first + (hash >> 32) as usize % groups) as u8)
    }

    /// The party as an index below [`Party::COUNT`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whether it is known by its inner source only.
    pub(crate) fn is_other(self) -> bool {
        self.index() >= FIRST_OTHER
    }

    /// Returns the party that has most and gives way first. `None` if nobody has anything.
    pub(crate) fn heaviest(share: impl Fn(Self) -> usize) -> Option<Self> {
        let all = || (0..Self::COUNT as u8).map(Self);
        let others: usize = all().filter(|party| party.is_other()).map(&share).sum();
        let known = all().filter(|party| !party.is_other()).max_by_key(|party| share(*party))?;
        let heaviest = if others > share(known) {
            all().filter(|party| party.is_other()).max_by_key(|party| share(*party))?
        } else {
            known
        };
        (share(heaviest) > 0).then_some(heaviest)
    }
}

/// How many groups of senders, or of flows, are told apart within a party.
const GROUPS: usize = 64;

/// Returns the group of an inner source.
pub(crate) fn group_of(source: IpAddr, secret: u64) -> u8 {
    (hash_source(source, secret) >> 58) as u8
}

/// Returns the group of any number that identifies a sender or a flow.
pub(crate) fn group(name: u64, secret: u64) -> u8 {
    (hash(name, secret) >> 58) as u8
}

/// Returns the group with the largest sum of shares, or `None` if all are zero.
pub(crate) fn heaviest(shares: impl Iterator<Item = (u8, usize)>) -> Option<u8> {
    let mut sums = [0; GROUPS];
    shares.for_each(|(group, share)| sums[usize::from(group) % GROUPS] += share);
    (0..GROUPS as u8).max_by_key(|group| sums[usize::from(*group)]).filter(|group| sums[usize::from(*group)] > 0)
}

fn hash_source(source: IpAddr, secret: u64) -> u64 {
    match source {
        IpAddr::V4(address) => hash(u64::from(address.to_bits()), secret),
        IpAddr::V6(address) => hash(hash((address.to_bits() >> 64) as u64, secret) ^ address.to_bits() as u64, secret),
    }
}

/// Hashes a word with two multiplications. Nobody who does not know `secret` can choose words with equal hashes.
fn hash(word: u64, secret: u64) -> u64 {
    // The multiplier differs from the key that is added, and is odd.
    let multiplier = secret.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ 0xd6e8_feb8_6659_fd93 | 1;
    [word ^ secret, secret.rotate_left(32)].into_iter().fold(0, |hash, word| {
        let product = u128::from(hash ^ word) * u128::from(multiplier);
        product as u64 ^ (product >> 64) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_other_senders_together_are_one_party() {
        let (one, two) = (Party(FIRST_OTHER as u8), Party(FIRST_OTHER as u8 + 1));
        let shares = |own, peer, first, second| {
            move |party| match party {
                Party::OWN => own,
                Party(1) => peer,
                party if party == one => first,
                party if party == two => second,
                _ => 0,
            }
        };
        assert_eq!(Party::heaviest(shares(0, 0, 0, 0)), None);
        assert_eq!(Party::heaviest(shares(3, 2, 1, 1)), Some(Party::OWN));
        assert_eq!(Party::heaviest(shares(2, 3, 1, 1)), Some(Party(1)));
        assert_eq!(Party::heaviest(shares(2, 2, 1, 2)), Some(two), "together they have most");
    }

    #[test]
    fn groups_depend_on_the_secret_and_spread() {
        let source = |n: u32| IpAddr::from((0x0a4d_0000 + n).to_be_bytes());
        for make in [
            |n: u32, secret| Party::peer(PeerTag(n), secret),
            |n: u32, secret| Party::other(IpAddr::from((0x0a4d_0000 + n).to_be_bytes()), secret),
        ] {
            assert!((0..1_000).any(|n| make(n, 1) != make(n, 2)));
            let mut sums = [0; Party::COUNT];
            (0..10_000).for_each(|n| sums[make(n, 7).index()] += 1);
            let used: Vec<_> = sums.iter().filter(|sum| **sum > 0).collect();
            let even = 10_000 / used.len();
            assert!(used.len() == PEER_GROUPS || used.len() == Party::OTHER_GROUPS, "{sums:?}");
            assert!(used.iter().all(|sum| (even / 2..even * 2).contains(*sum)), "{sums:?}");
        }
        assert!((0..1_000).any(|n| group_of(source(n), 1) != group_of(source(n), 2)));
        assert!(Party::peer(PeerTag(1), 7) != Party::OWN && Party::other(source(1), 7) != Party::OWN);
    }
}
