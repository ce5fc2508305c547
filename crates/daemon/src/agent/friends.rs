//! Trusted peers as a rendezvous: whom this agent asks where a peer is, and what it carries for others. See
//! `overlay_rendezvous::courier`.
//!
//! A peer that is called in vain is asked for at the friends that have a session with us, and a few others are called for it. They
//! hand our endpoints on, and the peer's come back. While no rendezvous serves us, some friends are also told when our address
//! changes, so that others can ask them.

mod circle;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use overlay_core::PeerKey;
use overlay_rendezvous::courier::{Parcel, Sealed};
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::Slot;
use overlay_wire::signed::PublicKey;

pub(crate) use self::circle::FriendCounts;
pub(super) use self::circle::Friends;
use self::circle::PATIENCE;
use super::time::now;
use super::trust::Refusal;
use super::{Agent, Changed, NOTHING, places};

impl Agent {
    /// What has passed between this agent and its friends, for the metrics.
    pub(crate) fn friend_counts(&self) -> Arc<FriendCounts> {
        Arc::clone(&self.friends.counts)
    }

    /// A peer has a session, or none any more.
    pub(super) fn on_friend(&mut self, peer: PublicKey, is_up: bool) {
        let now = now().monotonic;
        if !is_up {
            self.friends.sessions.remove(&peer);
        } else if self.friends.on_session(peer, now) {
            self.friends.told.remove(&peer);
            self.tell_friend(peer);
            let searches = self.friends.searches.iter_mut();
            let sought: Vec<_> =
                searches.filter_map(|(sought, search)| search.asked.insert(peer).then_some(*sought)).collect();
            for sought in sought {
                self.ask_friends(&sought, &[peer]);
            }
        }
    }

    /// The datagrams of a peer come from there, or by a relay.
    pub(super) fn on_friend_moved(&mut self, peer: PublicKey, at: Option<SocketAddr>) {
        match at {
            Some(at) => {
                self.friends.places.insert(peer, at);
                self.friends.say_where(&peer, now().monotonic);
            }
            None => _ = self.friends.places.remove(&peer),
        }
    }

    /// Looks for a peer at our friends. It is not where it was.
    pub(super) fn seek(&mut self, peer: PublicKey) {
        if self.open_peers().any(|open| open.record.identity == peer) {
            self.friends.sessions.remove(&peer);
            self.friends.seek(peer, now().monotonic);
            self.tend_friends();
        }
    }

    /// Does what is due between us and our friends.
    pub(super) fn tend_friends(&mut self) {
        let now = now().monotonic;
        let open: BTreeSet<_> = self.open_peers().map(|open| open.record.identity).collect();
        let Friends { sessions, told, searches, keeper, places, asking, seen, .. } = &mut self.friends;
        places.retain(|peer, _| open.contains(peer));
        seen.retain(|peer, _| open.contains(peer));
        asking.retain(|peer, _| open.contains(peer));
        sessions.retain(|peer, _| open.contains(peer));
        told.retain(|peer| open.contains(peer));
        searches.retain(|peer, _| open.contains(peer));
        keeper.retain(|peer| open.contains(peer));
        self.lan.retain(|peer| open.contains(peer));
        self.told_places.retain(|peer, _| open.contains(peer));
        for (sought, tries) in self.friends.take_due(now) {
            let others: Vec<_> = open.iter().copied().filter(|peer| *peer != sought).collect();
            let (near, far) = self.friends.choose(&others, tries, now);
            if let Some(search) = self.friends.searches.get_mut(&sought) {
                search.asked.extend(&near);
            }
            self.ask_friends(&sought, &near);
            self.announce(&[sought]);
            far.into_iter().for_each(|friend| self.friends.call(friend, now));
        }
        for (sought, asked) in self.friends.take_news() {
            self.ask_friends(&sought, &asked);
        }
        self.friends.hand_on(now);
        self.tell_friends(&open, now);
    }

    /// Tells friends with a session where we are. While no rendezvous does, some others are called for it.
    fn tell_friends(&mut self, open: &BTreeSet<PublicKey>, now: Duration) {
        if !self.relays.can_tell() {
            return;
        }
        let near = open.iter().filter(|peer| self.friends.has_session(peer, now) && !self.friends.told.contains(peer));
        near.copied().collect::<Vec<_>>().into_iter().for_each(|peer| self.tell_friend(peer));
        if self.friends.moved.is_some_and(|at| now >= at + PATIENCE) {
            self.friends.moved = None;
            if !self.meetings.is_any_online() {
                let friends: Vec<_> = open.iter().copied().collect();
                self.announce(&friends);
                let (_, far) = self.friends.choose(&friends, 0, now);
                far.into_iter().for_each(|friend| self.friends.call(friend, now));
            }
        }
    }

    /// Tells a friend with a session where we are, once that is known. While no rendezvous serves us, it is to say where it sees us.
    fn tell_friend(&mut self, peer: PublicKey) {
        if !self.relays.can_tell() {
            return;
        }
        self.friends.told.insert(peer);
        let Some(mut sealed) = self.seal_place(&peer) else { return };
        // A friend that knows more than nothing is not told less.
        if self.told_places.get(&peer).is_none_or(|told| told.places.is_empty() && told.relays.is_none()) {
            sealed.clear();
        }
        let asks = !self.meetings.is_any_online();
        if asks || !sealed.is_empty() {
            self.friends.parcels.push((peer, Parcel::To { to: peer, sealed: sealed.into(), asks }));
        }
    }

    /// Asks friends where a peer is, and tells it by them where we are.
    fn ask_friends(&mut self, sought: &PublicKey, friends: &[PublicKey]) {
        if friends.is_empty() {
            return;
        }
        let Some(sealed) = self.seal_place(sought) else { return };
        tracing::debug!(%sought, ?friends, "asks friends where a peer is");
        for friend in friends {
            self.friends.counts.asked.fetch_add(1, Relaxed);
            let parcel = Parcel::To { to: *sought, sealed: sealed.clone().into(), asks: true };
            self.friends.parcels.push((*friend, parcel));
        }
    }

    /// Handles what a friend has handed to us.
    pub(super) fn on_parcel(&mut self, friend: PublicKey, bytes: &[u8]) -> Changed {
        let changed = match Parcel::read(bytes) {
            Ok(Parcel::To { to, sealed, asks }) => {
                if asks {
                    self.friends.on_asking(friend, now().monotonic);
                }
                if to != self.book.me() {
                    self.carry(friend, to, Sealed { bytes: sealed.into(), asks });
                    NOTHING
                } else if sealed.is_empty() {
                    NOTHING
                } else {
                    self.open_place(friend, &sealed).map_or(NOTHING, |endpoints| self.on_endpoints(friend, &endpoints))
                }
            }
            Ok(Parcel::From { from, sealed, asks }) => self.on_carried(friend, from, &sealed, asks),
            Ok(Parcel::Seen { at }) => {
                let inner = self.pools();
                let usable = Parcel::seen_at(&at).filter(|at| places::is_usable(at, &inner));
                if !usable.is_some_and(|at| self.friends.on_seen(friend, at, now().monotonic)) {
                    self.refuse(Refusal::Unasked, "parcel");
                }
                NOTHING
            }
            Err(_) => {
                self.refuse(Refusal::Malformed, "parcel");
                NOTHING
            }
        };
        self.settle(changed)
    }

    /// Keeps endpoints until they can be handed on to an agent that we trust, too.
    fn carry(&mut self, from: PublicKey, to: PublicKey, sealed: Sealed) {
        let now = now().monotonic;
        let is_common = self.open_peers().any(|open| open.record.identity == to);
        if !is_common || !self.friends.keeper.keep(from, to, sealed, now) {
            self.friends.counts.refused.fetch_add(1, Relaxed);
            return;
        }
        if !self.friends.has_session(&to, now) && self.friends.may_cause_call(from, now) {
            self.friends.call(to, now);
        }
    }

    /// Opens endpoints that were sealed by this peer for us. Nothing else may come in a parcel.
    fn open_place(&mut self, from: PublicKey, sealed: &[u8]) -> Option<Vec<u8>> {
        match self.post.open_slot(&from, Slot::Endpoints, sealed) {
            Ok(Letter::Endpoints { endpoints }) => Some(endpoints.to_vec()),
            Ok(_) => {
                self.refuse(Refusal::Malformed, "parcel");
                None
            }
            Err(_) => {
                self.refusals.count("sealed");
                None
            }
        }
    }

    /// Handles endpoints of a peer that a friend has carried, and sends ours back if they are wanted.
    fn on_carried(&mut self, friend: PublicKey, from: PublicKey, sealed: &[u8], asks: bool) -> Changed {
        let Some(endpoints) = self.open_place(from, sealed) else { return NOTHING };
        let changed = self.on_endpoints(from, &endpoints);
        // A friend that shows older ones again gets nothing for it.
        let is_current = self.is_newest_place(&from, &endpoints);
        let now = now().monotonic;
        let is_open = self.open_peers().any(|open| open.record.identity == from);
        if asks && is_current && is_open && self.friends.may_answer(from, friend, now) {
            if let Some(sealed) = self.seal_place(&from) {
                self.friends.counts.answered.fetch_add(1, Relaxed);
                self.friends.parcels.push((friend, Parcel::To { to: from, sealed: sealed.into(), asks: false }));
            }
            // Both call, in case a firewall lets in only what it has seen go out.
            self.friends.call(from, now);
        }
        changed
    }

    /// What is to be handed to peers, and which peers are to be called.
    pub(crate) fn take_parcels(&mut self) -> (Vec<(PeerKey, Vec<u8>)>, Vec<PeerKey>) {
        let parcels = std::mem::take(&mut self.friends.parcels);
        let calls = std::mem::take(&mut self.friends.calls);
        if parcels.is_empty() && calls.is_empty() {
            return Default::default();
        }
        let keys: BTreeMap<_, _> = self
            .open_peers()
            .filter_map(|open| Some((open.record.identity, PeerKey(open.record.tunnel_keys.first()?.0))))
            .collect();
        let parcels = parcels.into_iter().filter_map(|(to, parcel)| Some((*keys.get(&to)?, parcel.write())));
        (parcels.collect(), calls.iter().filter_map(|peer| keys.get(peer).copied()).collect())
    }
}
