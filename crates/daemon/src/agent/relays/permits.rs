//! The permits by which peers send this agent datagrams through relays: those that it signs, and those that it takes back.
//!
//! A permit goes to each open peer for each relay, with the endpoints that the peer is told. It is as long as the grant, and
//! [`MAX_RELAY_PERMIT`] at most, and is renewed when half of its time is over.
//!
//! Taking back needs no list on disk. A permit's sequence is the time at which it was signed. So for a peer without a tunnel
//! every permit counts as taken back that was signed before one of both revoked, as the book of trust says. A bind names
//! [`MAX_LOWEST`] such peers. Those that were revoked earlier than these share one bound, which also ends the permits that
//! other peers got before: they get new ones.

use std::collections::BTreeMap;

use overlay_wire::signed::{Lowest, MAX_LOWEST, MAX_RELAY_PERMIT, PublicKey, Refused, RelayPermit, SecretKey, Signed};

/// What is no longer valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Withdrawn {
    /// Permits below this sequence.
    pub(super) lowest: u64,
    /// Permits of these peers below a higher one.
    pub(super) of: Vec<Lowest>,
}

impl Withdrawn {
    /// The lowest sequence that is valid for a peer.
    fn lowest_for(&self, peer: &PublicKey) -> u64 {
        self.of.iter().find(|lowest| lowest.subject == *peer).map_or(self.lowest, |lowest| lowest.sequence)
    }
}

/// What this agent has permitted since its start.
#[derive(Debug, Default)]
pub(super) struct Permits {
    withdrawn: Withdrawn,
    /// The highest sequence of each peer's permits, and when they are renewed, in milliseconds since 1970.
    given: BTreeMap<PublicKey, (u64, u64)>,
}

impl Permits {
    /// Signs a permit for a peer whose grant ends at `grant_ends`. All times are milliseconds since 1970. `now` is the wall
    /// clock's.
    pub(super) fn sign(
        &mut self,
        (network, relay, key): (PublicKey, PublicKey, &SecretKey),
        subject: PublicKey,
        grant_ends: Option<u64>,
        now: u64,
    ) -> Result<Signed<RelayPermit>, Refused> {
        let expires = grant_ends.unwrap_or(u64::MAX).min(now.saturating_add(MAX_RELAY_PERMIT));
        let sequence = now.max(self.withdrawn.lowest_for(&subject));
        let permit = RelayPermit { network, relay, issuer: key.public(), subject, sequence, issued: now, expires };
        let signed = Signed::sign(permit, key)?;
        let highest = self.given.get(&subject).map_or(0, |(highest, _)| *highest);
        self.given.insert(subject, (highest.max(sequence), now + (expires - now) / 2));
        Ok(signed)
    }

    /// The peers whose permits are to be renewed now. They get new ones, or are not asked about again.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<PublicKey> {
        let due: Vec<_> = self.given.iter().filter(|(_, (_, renew))| *renew <= now).map(|(peer, _)| *peer).collect();
        for peer in &due {
            if let Some((_, renew)) = self.given.get_mut(peer) {
                *renew = u64::MAX;
            }
        }
        due
    }

    /// Takes back what was permitted. `revoked`: each peer without a tunnel whose trust was taken back, and when. Returns
    /// what binds have to say from now on, if that is news, and the peers whose permits have ended with those of others.
    pub(super) fn withdraw(
        &mut self,
        revoked: impl IntoIterator<Item = (PublicKey, u64)>,
        now: u64,
    ) -> Option<(Withdrawn, Vec<PublicKey>)> {
        let still_counts = |(_, at): &(PublicKey, u64)| at.saturating_add(MAX_RELAY_PERMIT) > now;
        let mut ends: Vec<_> = revoked
            .into_iter()
            .map(|(peer, at)| {
                // A clock that was set back signs below what it has signed before.
                let given = self.given.remove(&peer).map_or(0, |(highest, _)| highest);
                (peer, at.min(now).max(given))
            })
            .filter(still_counts)
            .map(|(subject, at)| {
                let known = self.withdrawn.of.iter().find(|known| known.subject == subject);
                Lowest { subject, sequence: known.map_or(0, |known| known.sequence).max(at + 1) }
            })
            .collect();
        ends.sort_by_key(|lowest| (std::cmp::Reverse(lowest.sequence), lowest.subject));
        let shared = ends.split_off(ends.len().min(MAX_LOWEST)).first().map_or(0, |lowest| lowest.sequence);
        let lowest = shared.max(self.withdrawn.lowest);
        ends.retain(|end| end.sequence > lowest);
        for known in &self.withdrawn.of {
            // What was taken back stays so, also if it was given again since: then there are newer permits.
            let is_named = ends.iter().any(|end| end.subject == known.subject);
            if !is_named
                && known.sequence > lowest
                && ends.len() < MAX_LOWEST
                && still_counts(&(known.subject, known.sequence))
            {
                ends.push(*known);
            }
        }
        ends.sort_by_key(|end| end.subject);
        let withdrawn = Withdrawn { lowest, of: ends };
        if withdrawn == self.withdrawn {
            return None;
        }
        self.withdrawn = withdrawn;
        let is_over = |(peer, (highest, _)): (&PublicKey, &(u64, u64))| {
            (*highest < self.withdrawn.lowest_for(peer)).then_some(*peer)
        };
        Some((self.withdrawn.clone(), self.given.iter().filter_map(is_over).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const DAY: u64 = 24 * 3_600 * 1_000;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32])
    }

    fn peer(byte: u8) -> PublicKey {
        key(byte).public()
    }

    fn permit(permits: &mut Permits, to: u8, ends: Option<u64>, now: u64) -> Signed<RelayPermit> {
        permits.sign((peer(200), peer(201), &key(202)), peer(to), ends, now).expect("a good permit")
    }

    fn named(withdrawn: &Withdrawn) -> Vec<(PublicKey, u64)> {
        withdrawn.of.iter().map(|lowest| (lowest.subject, lowest.sequence)).collect()
    }

    #[test]
    fn a_permit_is_as_long_as_the_grant_and_renewed_at_half_time() {
        let mut permits = Permits::default();
        assert_eq!(permit(&mut permits, 1, Some(NOW + DAY), NOW).expires, NOW + DAY);
        assert_eq!(permit(&mut permits, 2, Some(NOW + 90 * DAY), NOW).expires, NOW + MAX_RELAY_PERMIT);
        assert_eq!(permit(&mut permits, 3, None, NOW).expires, NOW + MAX_RELAY_PERMIT);
        assert!(permits.take_due(NOW + DAY / 2 - 1).is_empty());
        assert_eq!(permits.take_due(NOW + DAY / 2), [peer(1)]);
        assert_eq!(
            permits.take_due(NOW + 15 * DAY),
            [peer(2), peer(3)].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        assert!(permits.sign((peer(200), peer(201), &key(202)), peer(1), Some(NOW), NOW).is_err(), "the grant is over");
    }

    #[test]
    fn what_was_taken_back_is_below_the_bound_and_a_new_permit_above() {
        let mut permits = Permits::default();
        let first = permit(&mut permits, 1, None, NOW);
        let (withdrawn, others) = permits.withdraw([(peer(1), NOW + 5)], NOW + 5).expect("news");
        assert_eq!((withdrawn.lowest, named(&withdrawn), others), (0, vec![(peer(1), NOW + 6)], vec![]));
        assert!(first.sequence < NOW + 6);
        assert_eq!(permits.withdraw([(peer(1), NOW + 5)], NOW + 9), None, "it is known");
        // Trust is given again within the same millisecond.
        assert_eq!(permit(&mut permits, 1, None, NOW + 5).sequence, NOW + 6);
        assert_eq!(permits.withdraw([], NOW + 9), None, "the permit before stays taken back");
        let (withdrawn, _) = permits.withdraw([], NOW + 6 + MAX_RELAY_PERMIT).expect("news");
        assert_eq!(withdrawn, Withdrawn::default(), "no permit from before is valid any more");
    }

    #[test]
    fn a_clock_that_is_set_back_takes_back_all_the_same() {
        let mut permits = Permits::default();
        let ahead = permit(&mut permits, 1, None, NOW + DAY);
        let (withdrawn, _) = permits.withdraw([(peer(1), NOW)], NOW).expect("news");
        assert_eq!(named(&withdrawn), [(peer(1), ahead.sequence + 1)]);
        assert_eq!(permits.withdraw([(peer(1), NOW)], NOW + 1), None);
    }

    #[test]
    fn more_peers_than_a_bind_names_share_a_bound_and_others_get_new_permits() {
        let mut permits = Permits::default();
        permit(&mut permits, 100, None, NOW);
        let count = MAX_LOWEST as u8 + 3;
        let revoked: Vec<_> = (1..=count).map(|byte| (peer(byte), NOW + u64::from(byte))).collect();
        let (withdrawn, others) = permits.withdraw(revoked, NOW + DAY).expect("news");
        assert_eq!((withdrawn.lowest, withdrawn.of.len()), (NOW + 4, MAX_LOWEST));
        assert!((1..=count).all(|byte| withdrawn.lowest_for(&peer(byte)) > NOW + u64::from(byte)));
        assert_eq!(others, [peer(100)]);
        assert!(permit(&mut permits, 100, None, NOW).sequence >= NOW + 4);
    }
}
