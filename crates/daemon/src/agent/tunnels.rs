//! What the book means for the data plane: one peer for each open relation.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use overlay_core::{PeerKey, Protocol, Rule};
use overlay_wire::signed::{self, Pool, PublicKey, Scope, ScopeList};

use super::Agent;
use super::trust::{Open, Relation};
use crate::config::{AgentPeer, Peer};

/// Seconds without traffic after which a peer is sent an empty packet, so that both know that the path works.
const KEEPALIVE: u16 = 25;

/// The peer of an open relation. Its endpoint is not part of it: see `places`.
pub(super) fn peer_of(open: &Open<'_>, pool: Option<&Pool>, own: Option<[u8; 4]>) -> Option<Peer> {
    let record = open.record;
    let (key, former) = (record.tunnel_keys.first()?, record.tunnel_keys.get(1));
    let ipv4 = open.ipv4.filter(|address| Some(*address) != own).map(Ipv4Addr::from);
    let ipv4 = ipv4.filter(|address| pool.is_some_and(|pool| pool.has_host(*address)));
    let addresses = [Some(IpAddr::V6(record.ipv6())), ipv4.map(IpAddr::V4)];
    Some(Peer {
        name: Some(record.name.clone()),
        preshared_key: Some(open.preshared_key.0.clone()),
        former_preshared_key: open.former_preshared_key.map(|key| key.0.clone()),
        allowed_ips: addresses.into_iter().flatten().map(IpNet::from).collect(),
        persistent_keepalive: Some(KEEPALIVE),
        allow: rules(open.allow),
        opens: rules(open.opens),
        mtu_discovery: true,
        agent: Some(Box::new(AgentPeer {
            identity: record.identity,
            former_key: former.map(|key| PeerKey(key.0)),
            own_key: None,
        })),
        ..Peer::of(PeerKey(key.0))
    })
}

impl Agent {
    /// Handles that a peer with this tunnel key holds the present preshared key: the former one is erased.
    pub(crate) fn on_key_proven(&mut self, key: PeerKey) {
        let is_it = |relation: &&Relation| {
            relation.record.as_ref().is_some_and(|record| record.tunnel_keys.first().is_some_and(|it| it.0 == key.0))
        };
        let Some(peer) = self.book.relations().find(is_it).map(|relation| relation.identity) else { return };
        if !self.book.on_key_proven(&peer) {
            return;
        }
        // The tunnel needs the file no more than before, so it stays if the file does not follow.
        if let Some(relation) = self.book.relation(&peer)
            && let Err(failure) = self.state.set_relation(relation)
        {
            tracing::error!("{failure}");
        }
    }
}

/// The rules of a list of scopes. `None`: everything.
fn rules(scopes: &ScopeList) -> Option<Vec<Rule>> {
    scopes.scopes().map(rule).collect()
}

/// The rule of a scope. `None`: everything.
pub(super) fn rule(scope: Scope) -> Option<Rule> {
    let Scope::Only(protocol, ports) = scope else { return None };
    let protocol = match protocol {
        signed::Protocol::Icmp => Protocol::Icmp,
        signed::Protocol::Tcp => Protocol::Tcp,
        signed::Protocol::Udp => Protocol::Udp,
        signed::Protocol::Number(number) => Protocol::Number(number),
    };
    Some(Rule { protocol, ports: ports.map(|ports| ports.first..=ports.last) })
}

/// The prefixes in which only agents of the network have addresses.
pub(super) fn pools(network: &PublicKey, pool: Option<&Pool>) -> Vec<IpNet> {
    let v6 = IpNet::new(signed::network_prefix(network).into(), 32).ok();
    let v4 = pool.and_then(|pool| IpNet::new(pool.address().into(), pool.prefix_len()).ok());
    v6.into_iter().chain(v4).collect()
}
