//! What is kept for agents that are not connected, or were handed something a moment ago.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_wire::signed::PublicKey;

/// The most that is kept in all.
pub const MAX_KEPT: usize = 64;
/// How long something is kept.
const KEPT: Duration = Duration::from_secs(60);
/// The shortest time between two things from one agent for the same other one.
const APART: Duration = Duration::from_secs(1);

/// Endpoints that one agent has sealed for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// As in a slot of a rendezvous.
    pub bytes: Vec<u8>,
    /// Whether those of the other agent are wanted in return.
    pub asks: bool,
}

/// The latest endpoints of some agents for others, sealed. There is room for [`MAX_KEPT`], and the agent that has the most of it gives way.
#[derive(Debug, Default)]
pub struct Keeper {
    /// By sender and recipient.
    kept: BTreeMap<(PublicKey, PublicKey), Kept>,
}

#[derive(Debug)]
struct Kept {
    since: Duration,
    /// `None`: it was handed on.
    sealed: Option<Sealed>,
    handed: Option<Duration>,
}

impl Keeper {
    /// Keeps something. It replaces what was kept before from the same agent for the same one. Returns false if there is no room.
    pub fn keep(&mut self, from: PublicKey, to: PublicKey, sealed: Sealed, now: Duration) -> bool {
        self.kept.retain(|_, kept| now < kept.since + KEPT);
        let handed = self.kept.get(&(from, to)).and_then(|kept| kept.handed);
        if !self.kept.contains_key(&(from, to)) && self.kept.len() >= MAX_KEPT && !self.make_room(&from) {
            return false;
        }
        self.kept.insert((from, to), Kept { since: now, sealed: Some(sealed), handed });
        true
    }

    /// Takes what may be handed to an agent now: who has sealed it, and what.
    pub fn take(&mut self, to: &PublicKey, now: Duration) -> Vec<(PublicKey, Sealed)> {
        let theirs = self.kept.iter_mut().filter(|((_, recipient), _)| recipient == to);
        let due = theirs.filter(|(_, kept)| now < kept.since + KEPT && kept.is_due(now));
        let taken = due.filter_map(|((from, _), kept)| {
            kept.handed = Some(now);
            Some((*from, kept.sealed.take()?))
        });
        taken.collect()
    }

    /// When more may be handed to one of these agents.
    pub fn due(&self, is_connected: impl Fn(&PublicKey) -> bool, now: Duration) -> Option<Duration> {
        let fresh = self.kept.iter().filter(|(_, kept)| kept.sealed.is_some() && now < kept.since + KEPT);
        let waiting = fresh.filter(|((_, to), _)| is_connected(to));
        waiting.map(|(_, kept)| kept.handed.map_or(Duration::ZERO, |at| at + APART)).min()
    }

    /// Forgets what is from or for agents that are not trusted any more.
    pub fn retain(&mut self, is_trusted: impl Fn(&PublicKey) -> bool) {
        self.kept.retain(|(from, to), _| is_trusted(from) && is_trusted(to));
    }

    /// How much is kept and was not handed on.
    pub fn len(&self) -> usize {
        self.kept.values().filter(|kept| kept.sealed.is_some()).count()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the oldest thing of the agent that has the most, if that is more than `from` would have. What was handed on goes
    /// first.
    fn make_room(&mut self, from: &PublicKey) -> bool {
        let mut counts: BTreeMap<PublicKey, usize> = BTreeMap::new();
        for (sender, _) in self.kept.keys() {
            *counts.entry(*sender).or_default() += 1;
        }
        let own = counts.get(from).copied().unwrap_or_default();
        let Some((most, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return true };
        if count <= own + 1 && most != *from {
            return false;
        }
        let theirs = self.kept.iter().filter(|((sender, _), _)| *sender == most);
        let oldest = theirs.min_by_key(|(_, kept)| (kept.sealed.is_some(), kept.since)).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.kept.remove(&key).is_some())
    }
}

impl Kept {
    fn is_due(&self, now: Duration) -> bool {
        self.sealed.is_some() && self.handed.is_none_or(|at| now >= at + APART)
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).public()
    }

    fn sealed(byte: u8) -> Sealed {
        Sealed { bytes: vec![byte], asks: byte.is_multiple_of(2) }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_newest_is_handed_on_once_and_the_next_one_a_second_later() {
        let (mut keeper, [alice, bob]) = (Keeper::default(), [1, 2].map(key));
        assert!(keeper.keep(alice, bob, sealed(1), at(0)) && keeper.keep(alice, bob, sealed(2), at(10)));
        assert_eq!(keeper.due(|_| false, at(10)), None);
        assert_eq!(keeper.due(|to| *to == bob, at(10)), Some(at(0)));
        assert_eq!(keeper.take(&bob, at(20)), [(alice, sealed(2))]);
        assert_eq!((keeper.take(&bob, at(2_000)), keeper.due(|_| true, at(2_000))), (Vec::new(), None));
        assert!(keeper.keep(alice, bob, sealed(3), at(500)));
        assert_eq!((keeper.take(&bob, at(1_019)), keeper.due(|_| true, at(1_019))), (Vec::new(), Some(at(1_020))));
        assert_eq!(keeper.take(&bob, at(1_020)), [(alice, sealed(3))]);
    }

    #[test]
    fn what_nobody_fetches_is_forgotten_and_so_is_what_trust_no_longer_covers() {
        let (mut keeper, [alice, bob, carol]) = (Keeper::default(), [1, 2, 3].map(key));
        assert!(keeper.keep(alice, bob, sealed(1), at(0)) && keeper.keep(bob, alice, sealed(2), at(59_999)));
        assert_eq!(keeper.take(&bob, at(60_000)), [], "although nothing has come since");
        assert!(keeper.keep(carol, alice, sealed(3), at(60_000)));
        assert_eq!(keeper.len(), 2);
        keeper.retain(|agent| *agent != bob);
        assert_eq!(keeper.take(&alice, at(60_000)), [(carol, sealed(3))]);
        assert!(keeper.is_empty());
    }

    #[test]
    fn whoever_has_the_most_gives_way_and_nobody_else_does() {
        let (mut keeper, [greedy, modest]) = (Keeper::default(), [1, 2].map(key));
        assert!((10..110).all(|to| keeper.keep(greedy, key(to), sealed(to), at(to.into()))), "its own give way");
        assert_eq!(keeper.len(), MAX_KEPT);
        assert!((10..42).all(|to| keeper.keep(modest, key(to), sealed(to), at(200))));
        let of = |keeper: &Keeper, agent| keeper.kept.keys().filter(|(from, _)| *from == agent).count();
        assert_eq!((of(&keeper, greedy), of(&keeper, modest)), (32, 32));
        for to in 50..90 {
            keeper.keep(greedy, key(to), sealed(to), at(300));
        }
        assert_eq!((of(&keeper, greedy), of(&keeper, modest)), (32, 32));
    }
}
