//! Where this host can be reached, as its peers are told, and where they can, as they have told us.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;
use overlay_core::{Candidate, CandidateScope, Nat};
use overlay_os::netlink::Netlink;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::Slot;
use overlay_wire::signed::{Endpoints, Place, PublicKey, Signed};

use super::Agent;
use super::candidates::{self, Candidates, Host};
use super::outside::Outside;
use super::time::{now, unix_now};
use crate::config::Candidates as Choice;

/// Where a peer may be called: what it has said, without addresses inside the tunnel.
pub(super) fn of_peer(endpoints: &Endpoints, inner: &[IpNet]) -> Vec<SocketAddr> {
    let usable = |address: &SocketAddr| is_usable(address, inner);
    endpoints.places.iter().filter_map(Place::address).filter(usable).collect()
}

/// Whether datagrams can go to this address without going through the tunnel. `inner`: the prefixes inside.
pub(super) fn is_usable(address: &SocketAddr, inner: &[IpNet]) -> bool {
    candidates::is_reachable(address.ip()) && !inner.iter().any(|prefix| prefix.contains(&address.ip()))
}

impl Agent {
    /// Asks the kernel for the addresses of this host.
    pub(super) async fn look_at_host(&mut self, netlink: &Netlink, port: u16) {
        self.host = Host {
            links: netlink.links().await.unwrap_or_default(),
            addresses: netlink.addresses().await.unwrap_or_default(),
            routes: netlink.routes().await.unwrap_or_default(),
        };
        self.port = port;
    }

    /// Brings up to date where we can be reached. All open peers are told if that has changed.
    pub(super) fn settle_places(&mut self) {
        let mut inner = self.pools();
        inner.extend(self.addresses());
        let own: Vec<_> = self.host.of_uplinks().map(|(ip, _)| ip).collect();
        let is_served = self.meetings.is_any_online() || !self.relays.views().is_empty();
        let (observed, seen_from) = match is_served {
            true => (self.relays.observed(), self.meetings.seen_from()),
            false => (self.outside.seen_with(own.iter().copied()).to_vec(), Vec::new()),
        };
        let mut candidates = Candidates::of(&self.host, (&observed, &seen_from), &inner, self.port);
        if is_served {
            self.learn_outside(Outside::new(own, candidates.reflexive()));
        }
        if !self.meetings.is_any_online() {
            // Friends stand in for rendezvous and their relays.
            candidates.add_seen(&self.friends.observed(now().monotonic));
        }
        let uplinks = if self.config.candidates == Choice::Relay { Vec::new() } else { candidates.uplinks() };
        self.relays.set_uplinks(&uplinks, candidates::is_private);
        if candidates != self.candidates {
            self.candidates = candidates;
            self.tell_all_again();
        }
        self.settle_lan();
    }

    /// Keeps how this host is seen from outside, for a start while nobody says so.
    fn learn_outside(&mut self, outside: Outside) {
        if outside != self.outside {
            if let Err(failure) = self.state.set_outside(&outside) {
                tracing::warn!("how this host is seen from outside is not kept: {failure}");
            }
            self.outside = outside;
        }
    }

    /// The addresses that the node is to know, and what it may do with them, if they have changed.
    pub(crate) fn take_candidates(&mut self, all: bool) -> Option<(Vec<Candidate>, CandidateScope, Nat)> {
        let known = (self.candidates.all().to_vec(), self.nat());
        let is_new = all || known != self.told_to_node;
        self.told_to_node.clone_from(&known);
        let (candidates, nat) = known;
        is_new.then(|| (candidates, candidates::scope(self.config.candidates), nat))
    }

    /// Whether the node has yet to learn where this host can be reached.
    pub(super) fn has_news_for_node(&self) -> bool {
        let (candidates, nat) = &self.told_to_node;
        self.candidates.all() != candidates || self.nat() != *nat
    }

    fn nat(&self) -> Nat {
        self.host.nat(&self.relays.views())
    }

    /// Tells each open peer where this host is, if it was not told yet.
    pub(super) fn tell_places(&mut self) {
        if !self.past.is_settled() || !self.relays.can_tell() {
            return;
        }
        let open: BTreeSet<_> = self.open_peers().map(|open| open.record.identity).collect();
        let told = std::mem::replace(&mut self.told, open.clone());
        for peer in open.difference(&told) {
            self.tell_place(peer);
        }
    }

    /// Where we can be reached has changed.
    pub(super) fn tell_all_again(&mut self) {
        self.told.clear();
        self.friends.on_moved(now().monotonic);
    }

    /// Where a peer can reach us has changed.
    pub(super) fn tell_again(&mut self, peer: &PublicKey) {
        self.told.remove(peer);
        self.friends.tell_again(peer);
    }

    fn tell_place(&mut self, peer: &PublicKey) {
        if let Some(letter) = self.place_for(peer) {
            self.keep(*peer, Slot::Endpoints, &letter);
        }
    }

    /// Where this peer can reach us, sealed for it.
    pub(super) fn seal_place(&mut self, peer: &PublicKey) -> Option<Vec<u8>> {
        let letter = self.place_for(peer)?;
        let record = self.book.relation(peer)?.newest_record()?;
        self.post.seal_slot(record, Slot::Endpoints, &letter).ok()
    }

    /// A friend and every rendezvous get the same signed bytes: otherwise what comes later by one of them would look like a replay.
    fn place_for(&mut self, peer: &PublicKey) -> Option<Letter> {
        let now = unix_now();
        let is_shared = self.is_shared(peer);
        let mut places = self.candidates.told(self.config.candidates, is_shared);
        let grant = self.book.relation(peer).and_then(|relation| relation.mine.as_ref()?.grant());
        let relays = self.relays.places_for(peer, grant.and_then(|grant| grant.expires), now);
        loop {
            let endpoints = Endpoints {
                network: self.config.network_key,
                from: self.book.me(),
                to: *peer,
                sequence: now,
                issued: now,
                places: places.iter().map(|place| (*place).into()).collect(),
                relays: relays.clone(),
            };
            let is_same =
                |known: &&Signed<Endpoints>| (&known.places, &known.relays) == (&endpoints.places, &endpoints.relays);
            let signed = match self.told_places.get(peer).filter(is_same) {
                Some(known) => known.clone(),
                None => Signed::sign(endpoints, &self.keys.identity).ok()?,
            };
            let letter = Letter::Endpoints { endpoints: signed.bytes().to_vec().into() };
            // Two relays with their permits leave room for ten places at least.
            if self.post.fits_slot(&letter) || places.pop().is_none() {
                self.shared.remove(peer);
                self.shared.extend(is_shared.then_some(*peer));
                self.told_places.insert(*peer, signed);
                return Some(letter);
            }
        }
    }

    /// A peer has said where it is. It may share a public address of ours, or no longer.
    pub(super) fn on_place(&mut self, peer: &PublicKey) {
        if self.is_shared(peer) != self.shared.contains(peer) {
            self.tell_again(peer);
        }
    }

    fn is_shared(&self, peer: &PublicKey) -> bool {
        let places = self.endpoints.get(peer).map(|endpoints| endpoints.places.iter().filter_map(Place::address));
        places.is_some_and(|places| self.candidates.is_shared(places))
    }
}
