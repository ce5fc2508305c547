//! The relays of this agent: which ones it is bound at, whom it permits to reach it there, and through which channels it
//! reaches its peers.
//!
//! * The relay beside each rendezvous of ours is asked how far it is. We are bound at the nearest, the home relay, and at a
//!   spare (`choice`). Open peers are told of both, each with a permit of its own (`permits`).
//! * A peer is reached at *its* home relay: there we are bound, too, and open a channel with the permit that the peer gave us.
//!   A channel that an open peer has opened to us leads to it as well (`ways`).
//! * What is said to relays, and what they answer, goes through the node's own sockets, so that they see the address from
//!   which the tunnels are sent. Where there are several uplinks, each asks how it is seen (`uplinks`).
//!
//! Everything here is pure but for `tend`, which joins it with the agent. An idle peer costs nothing but the bindings: at most
//! six datagrams a minute to a relay.

mod choice;
mod permits;
mod relay;
mod tend;
#[cfg(test)]
mod tests;
mod uplinks;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::Node;
use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{Client, Config};
use overlay_wire::signed::{PublicKey, RelayPlace, SecretKey};

use self::choice::{Choice, Measured};
use self::permits::{Permits, Withdrawn};
use self::relay::{Fact, Relay};
use self::uplinks::Uplinks;
use self::ways::Ways;
use crate::engine::Datagram;

/// The most relays of peers at which we are bound, beside our own two.
const MAX_FOREIGN: usize = 6;
/// The most relays that are known. The node is told of one address of each.
const MAX_RELAYS: usize = Node::MAX_RELAYS;
/// How long peers are not told of anything while no relay has bound us yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// All relays.
#[derive(Debug)]
pub(super) struct Relays {
    network: PublicKey,
    identity: Arc<SecretKey>,
    all: BTreeMap<PublicKey, Relay>,
    choice: Choice,
    permits: Permits,
    withdrawn: Withdrawn,
    ways: Ways,
    uplinks: Uplinks,
    /// Envelopes that say that we are a member, by the rendezvous that signed them.
    memberships: BTreeMap<PublicKey, Vec<u8>>,
    outgoing: Vec<Datagram>,
    facts: Vec<Fact>,
    news: News,
    /// Whether what we want of relays has changed.
    has_new_wishes: bool,
    /// When peers are told at the latest.
    patience: Option<Duration>,
}

/// What has changed since it was asked last.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The addresses of relays that the node knows.
    pub(super) relays: bool,
    /// Where peers reach us: our relays, or how they see us.
    pub(super) places: bool,
    /// Peers with new channels, or without.
    pub(super) peers: BTreeSet<PublicKey>,
}

impl Relays {
    pub(super) fn new(network: PublicKey, identity: SecretKey) -> Self {
        Self {
            network,
            identity: Arc::new(identity),
            all: BTreeMap::new(),
            choice: Choice::default(),
            permits: Permits::default(),
            withdrawn: Withdrawn::default(),
            ways: Ways::default(),
            uplinks: Uplinks::default(),
            memberships: BTreeMap::new(),
            outgoing: Vec::new(),
            facts: Vec::new(),
            news: News::default(),
            has_new_wishes: false,
            patience: None,
        }
    }

    /// A rendezvous says that its relay has these addresses.
    pub(super) fn on_relay(&mut self, key: PublicKey, beside: PublicKey, addresses: Vec<SocketAddr>, now: Now) {
        if let Some(relay) = self.all.get_mut(&key) {
            relay.beside = Some(beside);
            self.news.relays |= relay.set_addresses(addresses, now);
        } else if self.all.len() < MAX_RELAYS && !addresses.is_empty() {
            tracing::debug!(relay = %key, ?addresses, "a rendezvous has a relay");
            self.all.insert(key, Relay::new(key, addresses, Some(beside)));
            self.news.relays = true;
            self.patience.get_or_insert(now.monotonic + PATIENCE);
        }
    }

    /// Takes the addresses of uplinks. `is_translated`: whether others see a different one.
    pub(super) fn set_uplinks(&mut self, uplinks: &[(IpAddr, u32)], is_translated: impl Fn(IpAddr) -> bool) {
        self.news.places |= self.uplinks.set(uplinks, is_translated);
    }

    /// A rendezvous has signed that we are a member.
    pub(super) fn on_membership(&mut self, rendezvous: PublicKey, envelope: &[u8], now: Now) {
        if self.memberships.get(&rendezvous).is_some_and(|known| known == envelope) {
            return;
        }
        self.memberships.insert(rendezvous, envelope.to_vec());
        let keys: Vec<_> = self.all.keys().copied().collect();
        for key in keys {
            let Some(membership) = self.membership_for(&key) else { continue };
            if let Some(client) = self.all.get_mut(&key).and_then(Relay::client) {
                client.set_membership(membership, now);
            }
        }
    }

    /// A rendezvous says that a peer is there.
    pub(super) fn on_present(&mut self, peer: &PublicKey, now: Now) {
        self.all.values_mut().filter_map(Relay::client).for_each(|client| client.on_present(peer, now));
        self.settle(now);
    }

    /// Our own address may have changed.
    pub(super) fn on_moved(&mut self, now: Now) {
        self.all.values_mut().for_each(|relay| relay.on_moved(now));
        self.uplinks.hasten(now.monotonic);
    }

    /// Takes what open peers say of the relays at which they are reached, and forgets all other peers.
    pub(super) fn set_peers(&mut self, peers: BTreeMap<PublicKey, Vec<RelayPlace>>, now: Now) {
        let gone = self.ways.set(peers);
        self.has_new_wishes = true;
        for relay in self.all.values_mut() {
            let with_channels: Vec<_> = relay.peers().filter(|peer| !self.ways.is_open(peer)).copied().collect();
            for peer in with_channels {
                let ends = relay.ends(&peer);
                for channel in [ends.ours, ends.theirs].into_iter().flatten() {
                    if let Some(client) = relay.client() {
                        client.close(channel, now);
                    }
                    relay.forget_channel(channel, peer, &mut self.facts);
                }
            }
            if let Some(client) = relay.client() {
                gone.iter().for_each(|peer| client.forget(peer, now));
            }
        }
        self.settle(now);
    }

    /// Takes back what was permitted to peers whose trust was taken back, each with the time. Returns the peers that need
    /// new permits because of that.
    pub(super) fn withdraw(&mut self, revoked: Vec<(PublicKey, u64)>, now: Now) -> Vec<PublicKey> {
        let Some((withdrawn, others)) = self.permits.withdraw(revoked, now.unix) else { return Vec::new() };
        for client in self.all.values_mut().filter_map(Relay::client) {
            say_withdrawn(client, &withdrawn, now);
        }
        self.withdrawn = withdrawn;
        self.settle(now);
        others
    }

    /// Handles a datagram that came from a relay.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, now: Now) {
        if let Some(has_news) = self.uplinks.handle_datagram(datagram, now.monotonic) {
            self.news.places |= has_news;
            return;
        }
        let relay = self.all.values_mut().find(|relay| relay.address() == Some(datagram.remote));
        if let Some(relay) = relay {
            relay.handle_datagram(datagram, now, &mut self.outgoing, &mut self.facts);
            self.settle(now);
        }
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn deadline(&self) -> Duration {
        if self.has_new_wishes {
            return Duration::ZERO;
        }
        let relays = self.all.values().map(Relay::due).min();
        relays.into_iter().chain(self.patience).fold(self.uplinks.due(), Duration::min)
    }

    /// Does what is due. `random`: bytes for the questions to relays.
    pub(super) fn handle_timeout(&mut self, random: impl Fn() -> [u8; 32], now: Now) {
        if self.patience.is_some_and(|until| until <= now.monotonic) {
            self.patience = None;
        }
        let id = || {
            let mut id = [0; 11];
            id.copy_from_slice(&random()[..11]);
            id
        };
        for relay in self.all.values_mut() {
            if relay.due() <= now.monotonic {
                relay.handle_timeout(id(), now, &mut self.outgoing, &mut self.facts);
            }
        }
        let mut asked: Vec<_> = self.bound().filter_map(Relay::address).collect();
        let others: Vec<_> = self.addresses().into_iter().filter(|address| !asked.contains(address)).collect();
        asked.extend(others);
        let known = self.views();
        self.news.places |= self.uplinks.handle_timeout((&asked, &known), id, now.monotonic, &mut self.outgoing);
        self.settle(now);
        if std::mem::take(&mut self.has_new_wishes) {
            self.follow_wishes(&random, now);
        }
    }

    /// Whether peers can be told where we are: we are bound, or it is not to be expected.
    pub(super) fn can_tell(&self) -> bool {
        self.patience.is_none() || self.bound().next().is_some()
    }

    /// The relays at which peers reach us, the home relay first, with all their addresses.
    fn bound(&self) -> impl Iterator<Item = &Relay> {
        self.choice.chosen().filter_map(|key| self.all.get(&key)).filter(|relay| relay.is_bound())
    }

    /// What a peer is told of our relays, with permits of its own. `grant_ends`: when its grant ends, in milliseconds since
    /// 1970.
    pub(super) fn places_for(
        &mut self,
        peer: &PublicKey,
        grant_ends: Option<u64>,
        now: u64,
    ) -> Option<Vec<RelayPlace>> {
        let bound: Vec<_> = self.bound().map(|relay| (relay.key, relay.addresses().to_vec())).collect();
        let places = bound.into_iter().filter_map(|(relay, addresses)| {
            let from = (self.network, relay, &*self.identity);
            RelayPlace::new(&addresses, &self.permits.sign(from, *peer, grant_ends, now).ok()?)
        });
        let places: Vec<_> = places.collect();
        (!places.is_empty()).then_some(places)
    }

    /// The peers whose permits are renewed now.
    pub(super) fn take_renewed(&mut self, now: u64) -> Vec<PublicKey> {
        self.permits.take_due(now)
    }

    /// The addresses of relays that the node has to know.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.values().filter_map(Relay::address).collect()
    }

    /// The channels that lead to a peer, the best one first.
    pub(super) fn relayed(&self, peer: &PublicKey) -> Vec<(SocketAddr, overlay_wire::relay::Channel)> {
        self.ways.to(peer, &self.all, self.choice.chosen())
    }

    /// Whether all relays of a peer have stopped answering, so that no channel to it can be expected. A peer that is called
    /// directly before could not be reached directly any more, if its router takes the call for a flow of its own.
    pub(super) fn are_silent(&self, peer: &PublicKey) -> bool {
        self.ways.are_silent(peer, &self.all)
    }

    /// How relays see us over all uplinks, without repetitions.
    pub(super) fn observed(&self) -> Vec<SocketAddr> {
        let mut observed: Vec<_> =
            self.all.values().filter_map(Relay::observed).chain(self.uplinks.observed()).collect();
        observed.sort();
        observed.dedup();
        observed
    }

    /// How each relay that answers at present sees us.
    pub(super) fn views(&self) -> Vec<SocketAddr> {
        let answers = |relay: &&Relay| relay.round_trip().is_some() || relay.is_bound();
        self.all.values().filter(answers).filter_map(Relay::observed).collect()
    }

    /// What is to be sent.
    pub(super) fn take_outgoing(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.outgoing)
    }

    /// What has changed since the last call.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Does what follows from facts.
    fn settle(&mut self, now: Now) {
        let mut is_measured = false;
        loop {
            for relay in self.all.values_mut() {
                relay.settle_client(now, &mut self.outgoing, &mut self.facts);
            }
            if self.facts.is_empty() {
                break;
            }
            for fact in std::mem::take(&mut self.facts) {
                match fact {
                    Fact::Measured => is_measured = true,
                    Fact::Bound | Fact::Observed => self.news.places = true,
                    Fact::Silent(relay) => self.news.peers.extend(self.ways.peers_at(&relay)),
                    Fact::Channels(peer) => _ = self.news.peers.insert(peer),
                    Fact::OpenedBy(peer, channel) if !self.ways.is_open(&peer) => self.turn_away(&peer, channel, now),
                    Fact::OpenedBy(..) => {}
                }
            }
        }
        if is_measured {
            let own = self.all.values().filter(|relay| relay.beside.is_some());
            let measured: Vec<_> =
                own.map(|relay| Measured { relay: relay.key, round_trip: relay.round_trip() }).collect();
            let is_new = self.choice.choose(&measured, now.monotonic);
            self.has_new_wishes |= is_new;
            self.news.places |= is_new;
        }
    }

    /// Closes a channel of somebody without a tunnel.
    fn turn_away(&mut self, peer: &PublicKey, channel: overlay_wire::relay::Channel, now: Now) {
        tracing::debug!(%peer, "an agent without a tunnel has opened a channel");
        for relay in self.all.values_mut().filter(|relay| relay.ends(peer).theirs == Some(channel)) {
            if let Some(client) = relay.client() {
                client.close(channel, now);
            }
            relay.forget_channel(channel, *peer, &mut self.facts);
        }
    }

    /// Gets bound where that is wanted, ends what is not, and opens the channels that are wanted.
    fn follow_wishes(&mut self, random: &impl Fn() -> [u8; 32], now: Now) {
        let chosen: Vec<_> = self.choice.chosen().collect();
        let mut wanted = chosen.clone();
        wanted.extend(self.ways.relays().filter(|relay| !chosen.contains(relay)).take(MAX_FOREIGN));
        for (key, addresses) in self.ways.unknown(&wanted, &self.all) {
            if self.all.len() < MAX_RELAYS {
                self.all.insert(key, Relay::new(key, addresses, None));
                self.news.relays = true;
            }
        }
        let keys: Vec<_> = self.all.keys().copied().collect();
        for key in keys {
            let is_wanted = wanted.contains(&key);
            let config = || Config {
                network: self.network,
                relay: key,
                identity: Arc::clone(&self.identity),
                membership: self.membership_for(&key),
                seed: random(),
            };
            let client = (is_wanted && self.all.get(&key).is_some_and(|relay| !relay.has_client()))
                .then(|| Client::new(config()));
            let Some(relay) = self.all.get_mut(&key) else { continue };
            if let Some(mut client) = client {
                say_withdrawn(&mut client, &self.withdrawn, now);
                relay.bind(client);
            } else if !is_wanted && relay.has_client() {
                self.news.peers.extend(relay.unbind());
                self.news.places = true;
                self.ways.on_unbound(&key);
            }
            if !is_wanted {
                if relay.beside.is_none() {
                    self.all.remove(&key);
                    self.news.relays = true;
                }
                continue;
            }
            let opened = self.ways.take_permits(&key);
            if let Some(client) = relay.client() {
                for permit in opened {
                    if let Err(error) = client.open(permit, now) {
                        tracing::debug!(relay = %key, ?error, "a channel cannot be asked for");
                    }
                }
            }
        }
        self.settle(now);
    }

    /// The proof of membership for a relay: that of the rendezvous beside it, or else any.
    fn membership_for(&self, relay: &PublicKey) -> Option<Vec<u8>> {
        let beside = self.all.get(relay).and_then(|relay| relay.beside);
        let own = beside.and_then(|beside| self.memberships.get(&beside));
        own.or(self.memberships.values().next()).cloned()
    }
}

fn say_withdrawn(client: &mut Client, withdrawn: &Withdrawn, now: Now) {
    if let Err(refused) = client.set_lowest(withdrawn.lowest, withdrawn.of.clone(), now) {
        tracing::error!(%refused, "what was permitted cannot be taken back at a relay");
    }
}
