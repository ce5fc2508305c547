//! The friends: who has a session, who is looked for, and what waits to be handed over. Pure but for the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use overlay_rendezvous::courier::{Keeper, Parcel, Sealed};
use overlay_wire::signed::PublicKey;

/// How long after its handshake a session counts: WireGuard uses none for longer.
const SESSION: Duration = Duration::from_secs(180);
/// How often a peer is looked for. The first pause is a second, and each further one twice as long.
const TRIES: usize = 5;
/// The most friends that are asked in one try, and the most without a session that are called for it.
const MAX_ASKED: usize = 8;
const MAX_CALLED: usize = 4;
/// The shortest time between two calls of one friend, and between two answers for one peer.
const CALLS_APART: Duration = Duration::from_secs(5);
const ANSWERS_APART: Duration = Duration::from_secs(1);
/// How long a peer that has asked is told where we see it.
const ASKING: Duration = Duration::from_secs(10);
/// How long it counts where a friend sees us, and how many such addresses count.
const SEEN: Duration = Duration::from_secs(120);
const MAX_SEEN: usize = 2;
/// How often a friend may say so in [`ASKING`].
const SEEN_AT_ONCE: u8 = 4;
/// The most calls that one friend may cause in a minute.
const CAUSED_A_MINUTE: u32 = 32;
/// How long a rendezvous has to hear of our new endpoints before friends are called for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What passes between this agent and its friends.
#[derive(Debug, Default)]
pub(in crate::agent) struct Friends {
    /// The peers with a session, and when its handshake was completed.
    pub(super) sessions: BTreeMap<PublicKey, Duration>,
    /// The friends that have our endpoints since these have changed.
    pub(super) told: BTreeSet<PublicKey>,
    /// When they have changed, until it is known that a rendezvous serves us or friends were called.
    pub(super) moved: Option<Duration>,
    pub(super) searches: BTreeMap<PublicKey, Search>,
    pub(super) keeper: Keeper,
    pub(super) called: BTreeMap<PublicKey, Duration>,
    /// Which peer was answered over which friend.
    pub(super) answered: BTreeMap<(PublicKey, PublicKey), Duration>,
    /// How many calls each friend has caused, since when.
    pub(super) caused: BTreeMap<PublicKey, (Duration, u32)>,
    /// Where the datagrams of peers with a direct path come from, and which of them have asked a moment ago.
    pub(super) places: BTreeMap<PublicKey, SocketAddr>,
    pub(super) asking: BTreeMap<PublicKey, Duration>,
    /// Where friends that were asked see us.
    pub(super) seen: BTreeMap<PublicKey, Seen>,
    pub(super) parcels: Vec<(PublicKey, Parcel)>,
    pub(super) calls: Vec<PublicKey>,
    pub(super) counts: Arc<FriendCounts>,
}

/// A peer that is looked for.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) tries: usize,
    pub(super) next: Duration,
    /// The friends that were asked in the present try, and whether they have yet to learn that our endpoints have changed since.
    pub(super) asked: BTreeSet<PublicKey>,
    pub(super) news: News,
}

/// Where a friend sees us, since when it has said so, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    at: SocketAddr,
    since: Duration,
    count: u8,
}

/// What friends that were asked have yet to learn in the present try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    Due,
    Told,
}

/// What was done, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct FriendCounts {
    pub(super) asked: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) handed: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl FriendCounts {
    /// Each count with its word.
    pub(crate) fn list(&self) -> [(&'static str, u64); 4] {
        let Self { asked, answered, handed, refused } = self;
        [("asked", asked), ("answered", answered), ("handed", handed), ("refused", refused)]
            .map(|(what, count)| (what, count.load(Relaxed)))
    }
}

impl Friends {
    pub(super) fn has_session(&self, peer: &PublicKey, now: Duration) -> bool {
        self.sessions.get(peer).is_some_and(|at| now < *at + SESSION)
    }

    /// Records a session. Returns whether the peer had none before.
    pub(super) fn on_session(&mut self, peer: PublicKey, now: Duration) -> bool {
        let is_new = !self.has_session(&peer, now);
        self.sessions.insert(peer, now);
        self.searches.remove(&peer);
        is_new
    }

    /// Looks for a peer from now on.
    pub(super) fn seek(&mut self, peer: PublicKey, now: Duration) {
        self.searches.entry(peer).or_insert_with(|| Search {
            tries: 0,
            next: now,
            asked: BTreeSet::new(),
            news: News::Nothing,
        });
    }

    /// Takes the peers that are to be looked for once more, and how often each was before.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<(PublicKey, usize)> {
        self.searches.retain(|_, search| search.tries < TRIES || search.next > now);
        let due = self.searches.iter_mut().filter(|(_, search)| search.next <= now);
        let taken = due.map(|(peer, search)| {
            let tries = search.tries;
            search.next = now + Duration::from_secs(1 << tries);
            search.tries += 1;
            search.asked.clear();
            search.news = News::Nothing;
            (*peer, tries)
        });
        taken.collect()
    }

    /// The friends that are asked in this try, and those that are called. `friends`: all trusted peers but the one that is looked
    /// for. Each try calls others.
    pub(super) fn choose(
        &self,
        friends: &[PublicKey],
        tries: usize,
        now: Duration,
    ) -> (Vec<PublicKey>, Vec<PublicKey>) {
        let (mut near, mut far): (Vec<PublicKey>, Vec<_>) =
            friends.iter().copied().partition(|friend| self.has_session(friend, now));
        let latest = |friend: &PublicKey| std::cmp::Reverse(self.sessions.get(friend).copied());
        near.sort_by_key(latest);
        far.sort_by_key(latest);
        let turns = far.len().div_ceil(MAX_CALLED).max(1);
        let far = far.into_iter().skip(tries % turns * MAX_CALLED).take(MAX_CALLED);
        let may_call = |friend: &PublicKey| self.called.get(friend).is_none_or(|at| now >= *at + CALLS_APART);
        (near.into_iter().take(MAX_ASKED).collect(), far.filter(may_call).collect())
    }

    /// Calls a friend without a session, if it was not called a moment ago.
    pub(super) fn call(&mut self, friend: PublicKey, now: Duration) {
        self.called.retain(|_, at| now < *at + CALLS_APART);
        if !self.has_session(&friend, now) && !self.called.contains_key(&friend) {
            tracing::debug!(%friend, "calls a friend");
            self.called.insert(friend, now);
            self.calls.push(friend);
        }
    }

    /// Tells a peer where we see it, now and whenever that changes in the next moments.
    pub(super) fn on_asking(&mut self, peer: PublicKey, now: Duration) {
        self.asking.insert(peer, now);
        self.say_where(&peer, now);
    }

    fn is_told_where(&self, peer: &PublicKey, now: Duration) -> bool {
        self.asking.get(peer).is_some_and(|at| now < *at + ASKING)
    }

    /// Tells a peer that has asked a moment ago where we see it.
    pub(super) fn say_where(&mut self, peer: &PublicKey, now: Duration) {
        self.asking.retain(|_, at| now < *at + ASKING);
        if let (Some(at), true) = (self.places.get(peer), self.is_told_where(peer, now)) {
            self.parcels.push((*peer, Parcel::seen(*at)));
        }
    }

    /// Takes where a friend sees us, if it has not said so too often. Returns whether it counts.
    pub(super) fn on_seen(&mut self, friend: PublicKey, at: SocketAddr, now: Duration) -> bool {
        let before = self.seen.get(&friend).copied().filter(|seen| now < seen.since + ASKING);
        // A friend may have to correct itself, since it hears us a moment before it knows the way back.
        let seen = before.map_or(Seen { at, since: now, count: 1 }, |seen| Seen { at, count: seen.count + 1, ..seen });
        let counts = seen.count <= SEEN_AT_ONCE;
        if counts {
            self.seen.insert(friend, seen);
        }
        counts
    }

    /// Where friends see us: a few addresses, the latest first.
    pub(in crate::agent) fn observed(&self, now: Duration) -> Vec<SocketAddr> {
        let mut fresh: Vec<_> = self.seen.values().filter(|seen| now < seen.since + SEEN).collect();
        fresh.sort_by_key(|seen| std::cmp::Reverse(seen.since));
        let mut observed: Vec<SocketAddr> = Vec::new();
        for Seen { at, .. } in fresh {
            if !observed.contains(at) && observed.len() < MAX_SEEN {
                observed.push(*at);
            }
        }
        observed
    }

    /// This host may have moved, so where friends have seen it counts no longer.
    pub(in crate::agent) fn on_surroundings(&mut self) {
        self.seen.clear();
    }

    /// Whether our endpoints may be sent to a peer in return once more, over this friend.
    pub(super) fn may_answer(&mut self, peer: PublicKey, friend: PublicKey, now: Duration) -> bool {
        self.answered.retain(|_, at| now < *at + ANSWERS_APART);
        !self.answered.contains_key(&(peer, friend)) && self.answered.insert((peer, friend), now).is_none()
    }

    /// Whether one more call may be made because of this friend.
    pub(super) fn may_cause_call(&mut self, friend: PublicKey, now: Duration) -> bool {
        self.caused.retain(|_, (since, _)| now < *since + Duration::from_secs(60));
        let (_, count) = self.caused.entry(friend).or_insert((now, 0));
        *count += 1;
        *count <= CAUSED_A_MINUTE
    }

    /// The peers that we look for, with the friends that have yet to learn our new endpoints for them.
    pub(super) fn take_news(&mut self) -> Vec<(PublicKey, Vec<PublicKey>)> {
        let due = self.searches.iter_mut().filter(|(_, search)| search.news == News::Due && !search.asked.is_empty());
        let taken = due.map(|(sought, search)| {
            search.news = News::Told;
            (*sought, search.asked.iter().copied().collect())
        });
        taken.collect()
    }

    /// Hands on what is kept for agents with a session.
    pub(super) fn hand_on(&mut self, now: Duration) {
        if self.keeper.is_empty() {
            return;
        }
        let near: Vec<_> = self.sessions.keys().copied().filter(|peer| self.has_session(peer, now)).collect();
        for to in near {
            for (from, Sealed { bytes, asks }) in self.keeper.take(&to, now) {
                tracing::debug!(%from, %to, "hands on where an agent is");
                if asks && !self.is_told_where(&to, now) {
                    // So what it answers is true, even if it has yet to notice that it has moved.
                    self.on_asking(to, now);
                }
                self.counts.handed.fetch_add(1, Relaxed);
                self.parcels.push((to, Parcel::From { from, sealed: bytes.into(), asks }));
            }
        }
    }

    /// When [`Agent::tend_friends`] is wanted. `can_tell`: our endpoints are known.
    pub(in crate::agent) fn due(&self, can_tell: bool, now: Duration) -> Option<Duration> {
        let search = self.searches.values().map(|search| search.next).min();
        let kept = self.keeper.due(|to| self.has_session(to, now), now);
        search.into_iter().chain(kept).chain(self.moved.filter(|_| can_tell).map(|at| at + PATIENCE)).min()
    }

    /// Our endpoints for a friend have changed.
    pub(in crate::agent) fn tell_again(&mut self, friend: &PublicKey) {
        self.told.remove(friend);
    }

    /// Our endpoints have changed. The peers that we look for have to learn them.
    pub(in crate::agent) fn on_moved(&mut self, now: Duration) {
        self.told.clear();
        for search in self.searches.values_mut().filter(|search| search.news == News::Nothing) {
            search.news = News::Due;
        }
        self.moved.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).public()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_is_looked_for_five_times_unless_it_comes() {
        let mut friends = Friends::default();
        friends.seek(key(1), at(100));
        friends.seek(key(1), at(100));
        let tries = |friends: &mut Friends, seconds: std::ops::Range<u64>| {
            let due = seconds.filter(|second| !friends.take_due(at(*second)).is_empty());
            due.collect::<Vec<_>>()
        };
        assert_eq!(tries(&mut friends, 100..400), [100, 101, 103, 107, 115]);
        assert_eq!(friends.due(true, at(400)), None);
        friends.seek(key(1), at(400));
        assert_eq!((tries(&mut friends, 400..402), friends.on_session(key(1), at(402))), (vec![400, 401], true));
        assert!(tries(&mut friends, 402..800).is_empty());
    }

    #[test]
    fn those_with_a_session_are_asked_and_each_try_calls_four_others() {
        let mut friends = Friends::default();
        let all: Vec<_> = (1..=20).map(key).collect();
        for (n, peer) in all.iter().take(10).enumerate() {
            friends.on_session(*peer, at(100 + n as u64));
        }
        let (near, far) = friends.choose(&all, 0, at(200));
        assert_eq!(near, all[2..10].iter().rev().copied().collect::<Vec<_>>(), "the latest come first");
        let mut called = far.clone();
        called.extend(friends.choose(&all, 1, at(200)).1);
        called.extend(friends.choose(&all, 2, at(200)).1);
        let distinct: BTreeSet<_> = called.iter().collect();
        assert_eq!((far.len(), called.len(), distinct.len()), (4, 10, 10), "all of them, in three tries");
        assert_eq!(friends.choose(&all, 3, at(200)).1, far, "and again");
        assert_eq!(friends.choose(&all, 0, at(400)).0, [], "sessions have ended");
        far.iter().for_each(|friend| friends.call(*friend, at(400)));
        assert_eq!(friends.calls, far);
        far.iter().for_each(|friend| friends.call(*friend, at(404)));
        assert_eq!(friends.calls, far, "not so soon");
    }

    #[test]
    fn friends_say_where_they_see_us_and_those_that_were_asked_learn_it_once_in_a_try() {
        let mut friends = Friends::default();
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        friends.seek(key(1), at(100));
        friends.take_due(at(100));
        friends.searches.get_mut(&key(1)).expect("it is sought").asked.extend([2, 3, 4].map(key));
        for port in 1..=6 {
            friends.on_seen(key(2), address(port), at(100));
            friends.on_moved(at(100));
        }
        assert_eq!(friends.observed(at(100)), [address(4)], "it corrects itself a few times");
        friends.on_seen(key(3), address(7), at(101));
        friends.on_seen(key(4), address(8), at(102));
        assert_eq!(friends.observed(at(102)), [address(8), address(7)], "the latest two");
        assert!(friends.observed(at(300)).is_empty());
        assert_eq!(
            friends.take_news(),
            [(key(1), friends.searches[&key(1)].asked.iter().copied().collect::<Vec<_>>())]
        );
        friends.on_moved(at(103));
        assert_eq!((friends.take_news(), friends.moved), (Vec::new(), Some(at(100))));
    }

    #[test]
    fn one_friend_causes_few_calls() {
        let mut friends = Friends::default();
        let calls = (0..600).filter(|tenth| friends.may_cause_call(key(1), Duration::from_millis(tenth * 100))).count();
        assert_eq!(calls, CAUSED_A_MINUTE as usize);
        assert!(friends.may_cause_call(key(2), at(59)) && friends.may_cause_call(key(1), at(60)));
    }

    #[test]
    fn one_peer_gets_one_answer_a_second() {
        let mut friends = Friends::default();
        let answers =
            (0..3_000).filter(|millis| friends.may_answer(key(1), key(2), Duration::from_millis(*millis))).count();
        assert_eq!(answers, 3);
    }

    #[test]
    fn what_is_kept_is_handed_on_once_there_is_a_session() {
        let mut friends = Friends::default();
        let sealed = Sealed { bytes: vec![7], asks: true };
        assert!(friends.keeper.keep(key(1), key(2), sealed, at(10)));
        friends.hand_on(at(10));
        assert!(friends.parcels.is_empty());
        friends.on_session(key(2), at(11));
        assert_eq!(friends.due(true, at(11)), Some(at(0)));
        friends.hand_on(at(11));
        let parcel = Parcel::From { from: key(1), sealed: vec![7].into(), asks: true };
        assert_eq!((&friends.parcels[..], friends.due(true, at(11))), (&[(key(2), parcel)][..], None));
    }

    #[test]
    fn a_peer_that_is_to_answer_learns_first_where_it_is_seen() {
        let mut friends = Friends::default();
        let place = SocketAddr::from(([192, 0, 2, 1], 7));
        friends.places.insert(key(2), place);
        friends.on_session(key(2), at(11));
        for (second, is_told) in [(11, true), (13, false), (22, true)] {
            friends.keeper.keep(key(1), key(2), Sealed { bytes: vec![7], asks: true }, at(second));
            friends.hand_on(at(second));
            let seen = (key(2), Parcel::seen(place));
            let parcel = (key(2), Parcel::From { from: key(1), sealed: vec![7].into(), asks: true });
            let expected = if is_told { vec![seen, parcel] } else { vec![parcel] };
            assert_eq!(std::mem::take(&mut friends.parcels), expected, "{second}");
        }
    }
}
