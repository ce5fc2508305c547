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
use super::time::unix_now;
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
        let seen = (&self.relays.observed()[..], &self.meetings.seen_from()[..]);
        let candidates = Candidates::of(&self.host, seen, &inner, self.port);
        let uplinks = if self.config.candidates == Choice::Relay { Vec::new() } else { candidates.uplinks() };
        self.relays.set_uplinks(&uplinks, candidates::is_private);
        if candidates != self.candidates {
            self.candidates = candidates;
            self.told.clear();
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

    fn tell_place(&mut self, peer: &PublicKey) {
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
            let Ok(signed) = Signed::sign(endpoints, &self.keys.identity) else { return };
            let letter = Letter::Endpoints { endpoints: signed.bytes().to_vec().into() };
            // Two relays with their permits leave room for ten places at least.
            if self.post.fits_slot(&letter) || places.pop().is_none() {
                self.shared.remove(peer);
                self.shared.extend(is_shared.then_some(*peer));
                return self.keep(*peer, Slot::Endpoints, &letter);
            }
        }
    }

    /// A peer has said where it is. It may share a public address of ours, or no longer.
    pub(super) fn on_place(&mut self, peer: &PublicKey) {
        if self.is_shared(peer) != self.shared.contains(peer) {
            self.told.remove(peer);
        }
    }

    fn is_shared(&self, peer: &PublicKey) -> bool {
        let places = self.endpoints.get(peer).map(|endpoints| endpoints.places.iter().filter_map(Place::address));
        places.is_some_and(|places| self.candidates.is_shared(places))
    }
}
