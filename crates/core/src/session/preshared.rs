//! The preshared keys of one peer: the present one, and the former one for as long as the peer may not have the present one.
//!
//! Both sides learn a new key at different times, or one of them never does. While there are two, handshakes take turns,
//! because boringtun mixes one key into a handshake and has no second one. Every handshake begins with the present key. A
//! turn ends when a call, ours or the peer's, is not followed by a session. It lasts at least [`TURN`], so calls that
//! cross are one turn, and so are those of a peer that calls again at once because it has just got the key. The side with
//! the lower public key changes the key with every turn, and the other side with every second one. So within four turns,
//! each key of one side meets each key of the other side, whichever turn either of them has reached. A side that also has
//! two tunnel keys of its own tries all of them in one turn. Meanwhile data goes on in
//! the earlier session, which is renewed after 120 s and ends after 180 s.
//!
//! *Proof*: a session that was made with the present key, and that both sides are known to have. Then the former key is
//! forgotten. A session that was made with the former key proves nothing, and the next handshake begins with the present
//! key again.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::Instant;

/// The shortest turn. Neither side calls more than once in that time.
const TURN: Duration = Duration::from_secs(4);

type Key = Zeroizing<[u8; 32]>;

/// The preshared keys of one peer.
#[derive(Default)]
pub(crate) struct PresharedKeys {
    present: Option<Key>,
    /// The present key's number: how many there were before it.
    number: u32,
    /// Seldom there, so it is boxed: a peer is small.
    former: Option<Box<Former>>,
}

/// The former key, until the peer has proven the present one, and whose turn it is.
struct Former {
    key: Key,
    turn: Turn,
    /// How many turns are over since a session was made or a key changed, and when the present one began.
    turns: u32,
    began: Option<Instant>,
}

/// The order of both public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Lower,
    Higher,
}

/// Which key the next handshake is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Present,
    Former,
}

/// The key that a handshake is made with.
#[derive(Clone, Copy)]
pub(crate) struct Mixed<'a> {
    /// The key, if there is one.
    pub(crate) key: Option<&'a [u8; 32]>,
    /// The number of the present key if this is the present one.
    pub(crate) number: Option<u32>,
}

/// What a new session means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The peer has proven the present key, so the former one is forgotten.
    pub(crate) is_news: bool,
    /// The next handshake is made with a different key.
    pub(crate) is_other_turn: bool,
}

impl PresharedKeys {
    /// Sets both keys. Returns whether the next handshake is made with a different key than before.
    pub(crate) fn set(&mut self, present: Option<Key>, former: Option<Key>) -> bool {
        let former = former.filter(|_| present.is_some()).filter(|former| Some(former) != present.as_ref());
        if self.present == present && self.former.as_ref().map(|former| &former.key) == former.as_ref() {
            return false;
        }
        let before = self.in_turn().key.copied().map(Zeroizing::new);
        if self.present != present {
            self.number = self.number.wrapping_add(1);
        }
        self.present = present;
        self.former = former.map(|key| Box::new(Former { key, turn: Turn::Present, turns: 0, began: None }));
        before.as_deref() != self.in_turn().key
    }

    /// The key that the next handshake is made with.
    pub(crate) fn in_turn(&self) -> Mixed<'_> {
        match &self.former {
            Some(former) if former.turn == Turn::Former => Mixed { key: Some(&*former.key), number: None },
            _ => Mixed { key: self.present.as_deref(), number: Some(self.number) },
        }
    }

    /// Whether there are two keys.
    pub(crate) fn are_two(&self) -> bool {
        self.former.is_some()
    }

    /// Chooses the key for a call that follows. Returns whether it is a different one. `ours`: which public key is ours.
    /// `goes_on`: the turn does not end before this call, because not all tunnel keys of ours were tried in it.
    pub(crate) fn on_call(&mut self, ours: Order, goes_on: bool, now: Instant) -> bool {
        let Some(former) = &mut self.former else { return false };
        if !goes_on {
            former.end_turn(now);
        }
        former.began.get_or_insert(now);
        former.choose(ours)
    }

    /// Chooses the key for an answer that may follow. Returns whether it is a different one. A forged call ends no turn that the
    /// next one of ours would not end.
    pub(crate) fn before_answer(&mut self, ours: Order, now: Instant) -> bool {
        let Some(former) = &mut self.former else { return false };
        former.end_turn(now);
        former.choose(ours)
    }

    /// Records that an authentic call was answered.
    pub(crate) fn on_answered(&mut self, now: Instant) {
        if let Some(former) = &mut self.former {
            former.began.get_or_insert(now);
        }
    }

    /// Handles a session that both sides are known to have. `number` is that of the key that it was made with.
    pub(crate) fn on_session(&mut self, number: Option<u32>) -> Proof {
        let Some(former) = &mut self.former else { return Proof { is_news: false, is_other_turn: false } };
        let is_other_turn = former.turn == Turn::Former;
        (former.turn, former.turns, former.began) = (Turn::Present, 0, None);
        let is_news = number == Some(self.number);
        if is_news {
            self.former = None;
        }
        Proof { is_news, is_other_turn }
    }
}

impl Former {
    /// Ends the turn if it has lasted long enough. The next one begins with the next call.
    fn end_turn(&mut self, now: Instant) {
        if self.began.take_if(|at| now.since(*at) >= TURN).is_some() {
            self.turns = self.turns.wrapping_add(1);
        }
    }

    /// Returns whether a different key is in turn than before.
    fn choose(&mut self, ours: Order) -> bool {
        let changes = match ours {
            Order::Lower => self.turns,
            Order::Higher => self.turns.div_ceil(2),
        };
        let turn = if changes.is_multiple_of(2) { Turn::Present } else { Turn::Former };
        std::mem::replace(&mut self.turn, turn) != turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Option<Key> {
        (byte != 0).then(|| Zeroizing::new([byte; 32]))
    }

    fn keys(present: u8, former: u8) -> PresharedKeys {
        let mut keys = PresharedKeys::default();
        keys.set(key(present), key(former));
        keys
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    fn turn(keys: &PresharedKeys) -> u8 {
        keys.in_turn().key.map_or(0, |key| key[0])
    }

    /// The key of the call made at this time.
    fn called(keys: &mut PresharedKeys, ours: Order, seconds: u64) -> u8 {
        keys.on_call(ours, false, at(seconds));
        turn(keys)
    }

    /// The key of the answer given at this time.
    fn answered(keys: &mut PresharedKeys, ours: Order, seconds: u64) -> u8 {
        keys.before_answer(ours, at(seconds));
        keys.on_answered(at(seconds));
        turn(keys)
    }

    #[test]
    fn the_lower_side_changes_with_every_turn_and_the_higher_with_every_second() {
        for (ours, expected) in [(Order::Lower, [2, 1, 2, 1, 2, 1]), (Order::Higher, [2, 1, 1, 2, 2, 1])] {
            let mut caller = keys(2, 1);
            assert_eq!([0, 5, 10, 15, 20, 25].map(|seconds| called(&mut caller, ours, seconds)), expected);
            let mut answerer = keys(2, 1);
            assert_eq!([0, 5, 10, 15, 20, 25].map(|seconds| answered(&mut answerer, ours, seconds)), expected);
        }
    }

    #[test]
    fn calls_that_cross_are_one_turn() {
        let mut keys = keys(2, 1);
        let crossing = |keys: &mut PresharedKeys, seconds| {
            [called(keys, Order::Lower, seconds), answered(keys, Order::Lower, seconds)]
        };
        assert_eq!([0, 5, 10].map(|seconds| crossing(&mut keys, seconds)), [[2, 2], [1, 1], [2, 2]]);
    }

    /// Whatever keys the two sides have, and whatever was lost before.
    #[test]
    fn four_turns_are_enough_for_two_sides_that_have_a_common_key() {
        let sets = [(1, 0), (2, 0), (2, 1), (3, 2), (3, 1)];
        for (one, other) in sets.iter().flat_map(|one| sets.iter().map(move |other| (*one, *other))) {
            let common = [one.0, one.1].iter().any(|key| *key != 0 && [other.0, other.1].contains(key));
            for (ours, theirs) in [(Order::Lower, Order::Higher), (Order::Higher, Order::Lower)] {
                for (before, before_them) in (0..8).flat_map(|one| (0..8).map(move |other| (one, other))) {
                    let (mut caller, mut answerer) = (keys(one.0, one.1), keys(other.0, other.1));
                    let _ = (0..before).map(|number| called(&mut caller, ours, 5 * number)).count();
                    let _ = (0..before_them).map(|number| answered(&mut answerer, theirs, 5 * number)).count();
                    let mut turns = (20..24).map(|number| 5 * number);
                    let meets = turns.any(|at| called(&mut caller, ours, at) == answered(&mut answerer, theirs, at));
                    assert_eq!(meets, common, "{one:?} calls {other:?} after {before} and {before_them} turns");
                }
            }
        }
    }

    #[test]
    fn the_former_key_is_forgotten_once_the_present_one_is_proven_and_not_before() {
        let mut both = keys(2, 1);
        assert_eq!([0, 5].map(|seconds| called(&mut both, Order::Lower, seconds)), [2, 1]);
        let with_former = both.in_turn().number;
        assert_eq!(both.on_session(with_former), Proof { is_news: false, is_other_turn: true });
        assert!(both.are_two() && turn(&both) == 2);
        assert_eq!(called(&mut both, Order::Lower, 120), 2);
        let with_present = both.in_turn().number;
        assert_eq!(both.on_session(with_present), Proof { is_news: true, is_other_turn: false });
        assert!(!both.are_two());
        assert_eq!([125, 130].map(|seconds| called(&mut both, Order::Lower, seconds)), [2, 2]);
        assert_eq!(both.on_session(with_present), Proof { is_news: false, is_other_turn: false });
    }

    #[test]
    fn a_session_of_an_earlier_present_key_proves_nothing() {
        let mut keys = keys(2, 1);
        let earlier = keys.in_turn().number;
        assert!(keys.set(key(3), key(1)));
        assert_eq!(keys.on_session(earlier), Proof { is_news: false, is_other_turn: false });
        assert!(keys.are_two());
    }

    #[test]
    fn a_former_key_that_is_the_present_one_or_stands_alone_is_ignored() {
        assert!(!keys(2, 2).are_two() && !keys(0, 1).are_two());
        let mut keys = keys(2, 0);
        assert!(!keys.set(key(2), None) && !keys.set(key(2), key(1)), "the turn is the same");
        assert!(keys.are_two());
    }
}
