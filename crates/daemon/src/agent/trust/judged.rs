//! Whether what a rendezvous shows is news: a record that may replace the pinned one, or a word that is not known.

use std::cmp::Ordering;

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{Pool, PublicKey, Record, Signed, is_ipv4_candidate};

use super::relation::{Relation, Word};
use super::{Book, Moment, Refusal};

impl Book {
    /// Sets the IPv4 addresses of the network. Until they are known, no IPv4 address of a record is judged.
    pub(crate) fn set_pool(&mut self, pool: Option<Pool>) {
        self.pool = pool;
    }

    /// Refuses a record with an IPv4 address that does not follow from its identity: an agent could take the address of
    /// one that is not met yet.
    pub(super) fn check_address(&self, record: &Record) -> Result<(), Refusal> {
        let (Some(pool), Some(address)) = (&self.pool, record.ipv4()) else { return Ok(()) };
        if is_ipv4_candidate(pool, &record.identity, address) { Ok(()) } else { Err(Refusal::Address) }
    }

    /// Judges a record that a rendezvous has found for a query, as the record of an agent that is known is judged. Whatever
    /// may be pinned because of it would be refused later.
    pub(crate) fn check_found(&self, record: &Signed<Record>, now: Moment) -> Result<(), Refusal> {
        let record = self.record(record.bytes(), &record.identity, now)?;
        if record.is_fresh(now.wall) { Ok(()) } else { Err(Refusal::Expired) }
    }

    /// Whether a letter is the latest word of its sender, which we have.
    pub(crate) fn has_said(&self, from: &PublicKey, letter: &Letter) -> bool {
        let word = self.relation(from).and_then(|relation| relation.theirs.as_ref());
        match (word, letter) {
            (Some(Word::Grant(known)), Letter::Grant { grant }) => *known.bytes() == grant[..],
            (Some(Word::Revoke(known)), Letter::Revoke { revoke }) => *known.bytes() == revoke[..],
            _ => false,
        }
    }

    /// The pinned records of the agents that are trusted, now or until their grants expired.
    pub(crate) fn trusted(&self) -> impl Iterator<Item = &Signed<Record>> {
        let trusted = self.relations.values().filter(|relation| relation.preshared_key.is_some());
        trusted.filter_map(|relation| relation.record.as_ref())
    }
}

impl Relation {
    /// Whether a record that a rendezvous shows is newer than the pinned one, and fresh. A registry serves nothing after
    /// `fresh_until`. A pinned record never dies of age.
    pub(super) fn is_news(&self, record: &Signed<Record>, now: u64) -> Result<bool, Refusal> {
        if let Some(known) = &self.record {
            match record.sequence.cmp(&known.sequence) {
                Ordering::Less => return Err(Refusal::RolledBack),
                Ordering::Equal if record.bytes() == known.bytes() => return Ok(false),
                Ordering::Equal => return Err(Refusal::Forked),
                Ordering::Greater => {}
            }
        }
        if record.is_fresh(now) { Ok(true) } else { Err(Refusal::Expired) }
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::{SecretKey, ipv4_candidate};

    use super::*;
    use crate::agent::trust::sample;

    const NOW: u64 = 1_800_000_000_000;

    fn record(sequence: u64, fresh_until: u64, ipv4: Option<[u8; 4]>) -> Signed<Record> {
        let network = SecretKey::from_bytes(&[8; 32]).public();
        sample::record(network, &SecretKey::from_bytes(&[7; 32]), NOW - 1_000, |record| {
            (record.sequence, record.fresh_until, record.ipv4) = (sequence, fresh_until, ipv4);
        })
    }

    #[test]
    fn only_a_higher_sequence_is_news_and_only_while_it_is_fresh() {
        let known = record(5, NOW + 10, None);
        let mut relation = Relation::new(known.identity);
        let judged = |relation: &Relation, record| relation.is_news(&record, NOW);
        assert_eq!(judged(&relation, record(5, NOW, None)), Ok(true), "nothing is pinned");
        assert_eq!(judged(&relation, record(5, NOW - 1, None)), Err(Refusal::Expired));
        relation.pin(&known);
        assert_eq!(judged(&relation, known), Ok(false));
        assert_eq!(judged(&relation, record(5, NOW + 11, None)), Err(Refusal::Forked));
        assert_eq!(judged(&relation, record(4, NOW + 11, None)), Err(Refusal::RolledBack));
        assert_eq!(judged(&relation, record(6, NOW - 1, None)), Err(Refusal::Expired));
        assert_eq!(judged(&relation, record(6, NOW + 1, None)), Ok(true));
    }

    #[test]
    fn an_ipv4_address_follows_from_the_identity() {
        let me = SecretKey::from_bytes(&[1; 32]);
        let pool = Pool::new([10, 64, 0, 0].into(), 16).expect("a pool");
        let bob = record(1, NOW, None).identity;
        let mut book = Book::new(SecretKey::from_bytes(&[8; 32]).public(), me, Vec::new(), []);
        let check = |book: &Book, ipv4| book.check_address(&record(1, NOW, ipv4));
        let strange = Some([10, 64, 255, 254]);
        assert_eq!(check(&book, strange), Ok(()), "the pool is not known");
        book.set_pool(Some(pool));
        assert_eq!(check(&book, strange), Err(Refusal::Address));
        assert_eq!(check(&book, None), Ok(()));
        for i in [0, 1, 63] {
            assert_eq!(check(&book, Some(ipv4_candidate(&pool, &bob, i).octets())), Ok(()), "{i}");
        }
        assert_eq!(check(&book, Some(ipv4_candidate(&pool, &bob, 64).octets())), Err(Refusal::Address));
    }
}
