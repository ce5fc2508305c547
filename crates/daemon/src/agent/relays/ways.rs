//! Through which relays open peers are reached, as they say: each with a permit for us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use overlay_wire::relay::Channel;
use overlay_wire::signed::{PublicKey, RelayPermit, RelayPlace, Signed};

use super::relay::Relay;

/// A relay of a peer.
#[derive(Clone, Debug)]
struct Way {
    relay: PublicKey,
    addresses: Vec<SocketAddr>,
    permit: Signed<RelayPermit>,
    /// Whether the permit was used since we were bound there.
    is_used: bool,
}

/// What all open peers say.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The home relay of the peer first.
    peers: BTreeMap<PublicKey, Vec<Way>>,
    places: BTreeMap<PublicKey, Vec<RelayPlace>>,
}

impl Ways {
    /// Takes what the open peers say. Returns the peers that are not reached through a relay any more.
    pub(super) fn set(&mut self, places: BTreeMap<PublicKey, Vec<RelayPlace>>) -> Vec<PublicKey> {
        let before: BTreeSet<_> = self.peers.keys().copied().collect();
        self.peers.retain(|peer, _| places.contains_key(peer));
        for (peer, named) in &places {
            if self.places.get(peer) != Some(named) || !self.peers.contains_key(peer) {
                self.peers.insert(*peer, named.iter().filter_map(Way::read).collect());
            }
        }
        self.places = places;
        before.into_iter().filter(|peer| !self.peers.contains_key(peer)).collect()
    }

    /// Whether a peer has a tunnel.
    pub(super) fn is_open(&self, peer: &PublicKey) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether no relay of a peer answers.
    pub(super) fn are_silent(&self, peer: &PublicKey, relays: &BTreeMap<PublicKey, Relay>) -> bool {
        let mut ways = self.peers.get(peer).into_iter().flatten().peekable();
        ways.peek().is_some() && ways.all(|way| relays.get(&way.relay).is_some_and(Relay::is_silent))
    }

    /// The peers that are reached through a relay.
    pub(super) fn peers_at(&self, relay: &PublicKey) -> impl Iterator<Item = PublicKey> {
        let peers = self.peers.iter().filter(|(_, ways)| ways.iter().any(|way| way.relay == *relay));
        peers.map(|(peer, _)| *peer)
    }

    /// The relays of peers, without repetitions: the home relays of most of them first.
    pub(super) fn relays(&self) -> impl Iterator<Item = PublicKey> + use<> {
        let mut count = BTreeMap::<PublicKey, (usize, usize)>::new();
        for ways in self.peers.values() {
            for (rank, way) in ways.iter().enumerate() {
                let (homes, spares) = count.entry(way.relay).or_default();
                *(if rank == 0 { homes } else { spares }) += 1;
            }
        }
        let mut relays: Vec<_> = count.into_iter().collect();
        relays.sort_by_key(|(relay, count)| (std::cmp::Reverse(*count), *relay));
        relays.into_iter().map(|(relay, _)| relay)
    }

    /// Those of the wanted relays that are not known yet, with their addresses.
    pub(super) fn unknown(
        &self,
        wanted: &[PublicKey],
        known: &BTreeMap<PublicKey, Relay>,
    ) -> Vec<(PublicKey, Vec<SocketAddr>)> {
        let unknown = wanted.iter().filter(|relay| !known.contains_key(relay));
        let addresses = |relay: &PublicKey| {
            let way = self.peers.values().flatten().find(|way| way.relay == *relay)?;
            Some((*relay, way.addresses.clone()))
        };
        unknown.filter_map(addresses).collect()
    }

    /// The permits for a relay that were not used yet.
    pub(super) fn take_permits(&mut self, relay: &PublicKey) -> Vec<Signed<RelayPermit>> {
        let ways = self.peers.values_mut().flatten().filter(|way| way.relay == *relay && !way.is_used);
        ways.map(|way| {
            way.is_used = true;
            way.permit.clone()
        })
        .collect()
    }

    /// The permits for a relay are used again: we are not bound there any more.
    pub(super) fn on_unbound(&mut self, relay: &PublicKey) {
        let ways = self.peers.values_mut().flatten().filter(|way| way.relay == *relay);
        ways.for_each(|way| way.is_used = false);
    }

    /// The channels to a peer: first those that we have opened where the peer says, then those that it has opened to us.
    pub(super) fn to(
        &self,
        peer: &PublicKey,
        relays: &BTreeMap<PublicKey, Relay>,
        own: impl Iterator<Item = PublicKey>,
    ) -> Vec<(SocketAddr, Channel)> {
        let Some(ways) = self.peers.get(peer) else { return Vec::new() };
        let bound = |relay: &PublicKey| relays.get(relay).filter(|relay| relay.is_bound());
        let at = |relay: &Relay, channel: Option<Channel>| Some((relay.address()?, channel?));
        let ours = ways.iter().filter_map(|way| bound(&way.relay)).filter_map(|relay| at(relay, relay.ends(peer).ours));
        let theirs = own.filter_map(|relay| bound(&relay)).filter_map(|relay| at(relay, relay.ends(peer).theirs));
        ours.chain(theirs).collect()
    }
}

impl Way {
    fn read(place: &RelayPlace) -> Option<Self> {
        let permit = place.permit()?;
        Some(Self { relay: permit.relay, addresses: place.addresses(), permit, is_used: false })
    }
}
