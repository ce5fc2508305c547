//! What the agent means for the data plane: our addresses, the peers with a tunnel, and where they may be called.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{PeerKey, Remote};

use super::trust::Open;
use super::{ADDRESSES, Agent, Changed, NOTHING, own, tunnels};
use crate::config::AgentPart;

impl Agent {
    /// What agent mode adds to the config at this time.
    pub(crate) fn part(&self) -> AgentPart {
        let pool = self.network.as_ref().map(|network| &network.pool);
        // Two peers with one key would leave the daemon without a start. The book lets none in.
        let mut keys = BTreeSet::new();
        let own_keys = self.own_keys();
        let peers = self.open_peers().filter_map(|open| {
            let peer = tunnels::peer_of(&open, pool, self.record.ipv4)?;
            self.called_by_known_key(peer, &own_keys)
        });
        let peers = peers.filter(|peer| keys.insert(peer.public_key));
        AgentPart {
            private_key: self.keys.tunnel.clone(),
            former_key: self.keys.former_tunnel.as_ref().map(|former| former.key.clone()),
            addresses: self.addresses(),
            peers: peers.collect(),
        }
    }

    /// The peers with a tunnel.
    pub(super) fn open_peers(&self) -> impl Iterator<Item = Open<'_>> {
        self.book.open(self.moment()).filter(|_| !self.twin.is_found() && !self.past.is_held())
    }

    pub(super) fn addresses(&self) -> Vec<IpNet> {
        let network = self.network.as_deref();
        own::addresses(&self.config.network_key, &self.book.me(), network, self.record.ipv4)
    }

    /// The prefixes in which only agents have addresses.
    pub(crate) fn pools(&self) -> Vec<IpNet> {
        tunnels::pools(&self.config.network_key, self.network.as_ref().map(|network| &network.pool))
    }

    /// Where open peers may be reached: all of them, or those of which that has changed since the last call.
    pub(crate) fn remotes(&mut self, all: bool) -> Vec<(PeerKey, Remote)> {
        let moved = std::mem::take(&mut self.moved);
        let remotes = self.open_peers().filter_map(|open| {
            let peer = open.record.identity;
            let key = open.record.tunnel_keys.first()?;
            let remote = self.remote(&peer);
            let is_told = moved.contains(&peer) || all && remote != Remote::default();
            is_told.then_some((PeerKey(key.0), remote))
        });
        remotes.collect()
    }

    /// Notes what the name of a rendezvous resolves to. A program that gives fake addresses may give one that is an agent's.
    pub(super) fn on_resolved(&mut self, host: &str, addresses: &[SocketAddr]) -> Changed {
        let pools = self.pools();
        let inside = addresses.iter().map(SocketAddr::ip).filter(|ip| pools.iter().any(|pool| pool.contains(ip)));
        let of_others = self.fake_answers.iter().filter(|(known, _)| known != host).cloned();
        let answers: Vec<_> = of_others.chain(inside.map(|ip| (host.to_owned(), ip))).collect();
        if self.fake_answers == answers {
            return NOTHING;
        }
        self.fake_answers = answers;
        ADDRESSES
    }

    /// Names that resolve to addresses which only agents have.
    pub(crate) fn fake_answers(&self) -> &[(String, IpAddr)] {
        &self.fake_answers
    }
}
