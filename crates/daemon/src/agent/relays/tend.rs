//! What the agent tells its relays, and what the data plane is told of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay_core::Remote;
use overlay_wire::signed::{PublicKey, RelayPlace};

use super::super::letters::chance;
use super::super::trust::Word;
use super::super::{Agent, Changed, ENDPOINTS, NOTHING, places};
use crate::agent::time::now;
use crate::config::Candidates;
use crate::engine::Datagram;

impl Agent {
    /// Handles a datagram that came from a relay.
    pub(crate) fn on_foreign(&mut self, datagram: &Datagram) -> Changed {
        self.relays.handle_datagram(datagram, now());
        self.tend_relays(NOTHING)
    }

    /// An interface, an address or a route of this host has changed.
    pub(crate) fn on_surroundings(&mut self) {
        self.look_at = tokio::time::Instant::now();
        self.relays.on_moved(now());
        self.friends.on_surroundings();
    }

    /// What is to be said to relays.
    pub(crate) fn take_datagrams(&mut self) -> Vec<Datagram> {
        self.relays.take_outgoing()
    }

    /// The addresses of relays that the node is to know, if they have changed.
    pub(crate) fn take_relays(&mut self, all: bool) -> Option<Vec<SocketAddr>> {
        let relays = self.relays.addresses();
        let is_new = all || relays != self.told_relays;
        self.told_relays.clone_from(&relays);
        is_new.then_some(relays)
    }

    /// Brings the relays up to date. `changed`: what has changed otherwise.
    pub(in crate::agent) fn tend_relays(&mut self, changed: Changed) -> Changed {
        let (now, inner) = (now(), self.pools());
        if changed.is_any() || !self.is_tended {
            self.is_tended = true;
            self.tell_relays_peers();
        }
        for (rendezvous, relay, addresses) in self.meetings.relays() {
            let usable = |address: &SocketAddr| places::is_usable(address, &inner);
            self.relays.on_relay(relay, rendezvous, addresses.into_iter().filter(usable).collect(), now);
        }
        for membership in self.meetings.memberships() {
            self.relays.on_membership(membership.rendezvous, membership.bytes(), now);
        }
        self.relays.handle_timeout(|| chance().share, now);
        for peer in self.relays.take_renewed(now.unix) {
            self.tell_again(&peer);
        }
        let news = self.relays.take_news();
        if news.places {
            self.tell_all_again();
        }
        self.settle_places();
        let is_any = !news.peers.is_empty() || news.relays || self.has_news_for_node();
        self.moved.extend(news.peers);
        if is_any { ENDPOINTS } else { NOTHING }
    }

    /// Tells the relays which peers are open and where they are, and whose trust was taken back.
    fn tell_relays_peers(&mut self) {
        let now = now();
        let inner = self.pools();
        let open: Vec<_> = self.open_peers().map(|open| open.record.identity).collect();
        let named = |peer: PublicKey| {
            let told = self.endpoints.get(&peer).and_then(|endpoints| endpoints.relays.clone());
            let is_outside =
                |place: &RelayPlace| place.addresses().iter().all(|address| places::is_usable(address, &inner));
            (peer, told.unwrap_or_default().into_iter().filter(is_outside).collect())
        };
        let peers: BTreeMap<_, _> = open.iter().copied().map(named).collect();
        let revoked = self.book.relations().filter(|relation| !peers.contains_key(&relation.identity));
        let revoked = revoked.filter_map(|relation| {
            let taken_back =
                [&relation.mine, &relation.theirs].into_iter().flatten().filter_map(Word::revoked_at).max();
            Some((relation.identity, taken_back?))
        });
        let revoked: Vec<_> = revoked.collect();
        for peer in self.relays.withdraw(revoked, now) {
            self.tell_again(&peer);
        }
        self.relays.set_peers(peers, now);
    }

    /// Where a peer may be reached.
    pub(in crate::agent) fn remote(&self, peer: &PublicKey) -> Remote {
        let endpoints = self.endpoints.get(peer);
        let endpoints = endpoints.filter(|_| self.config.candidates != Candidates::Relay);
        let told = endpoints.map(|endpoints| places::of_peer(endpoints, &self.pools())).unwrap_or_default();
        // Where it was heard a moment ago comes first.
        let mut candidates = self.lan.places(peer, now().monotonic);
        candidates.extend(told.into_iter().filter(|place| !candidates.contains(place)).collect::<Vec<_>>());
        let relayed = self.relays.relayed(peer);
        // What the peer has said lately, or what is on disk.
        let is_relayed = self.endpoints.get(peer).is_some_and(|endpoints| endpoints.relays.is_some());
        let awaits_relay = is_relayed && relayed.is_empty() && !self.relays.are_silent(peer);
        Remote { candidates, awaits_relay, relayed }
    }
}
