//! What the book means for the data plane: one peer for each open relation.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use overlay_core::{PeerKey, Protocol, Rule};
use overlay_wire::signed::{self, Pool, PublicKey, Scope, ScopeList};

use super::trust::Open;
use crate::config::Peer;

/// Seconds without traffic after which a peer is sent an empty packet, so that both know that the path works.
const KEEPALIVE: u16 = 25;

/// The peer of an open relation. Its endpoint is not part of it: see `places`.
pub(super) fn peer_of(open: &Open<'_>, pool: Option<&Pool>, own: Option<[u8; 4]>) -> Option<Peer> {
    let record = open.record;
    let key = record.tunnel_keys.first()?;
    let ipv4 = open.ipv4.filter(|address| Some(*address) != own).map(Ipv4Addr::from);
    let ipv4 = ipv4.filter(|address| pool.is_some_and(|pool| pool.has_host(*address)));
    let addresses = [Some(IpAddr::V6(record.ipv6())), ipv4.map(IpAddr::V4)];
    Some(Peer {
        name: Some(record.name.clone()),
        preshared_key: Some(open.preshared_key.0.clone()),
        allowed_ips: addresses.into_iter().flatten().map(IpNet::from).collect(),
        persistent_keepalive: Some(KEEPALIVE),
        allow: rules(open.allow),
        opens: rules(open.opens),
        mtu_discovery: true,
        ..Peer::of(PeerKey(key.0))
    })
}

/// The rules of a list of scopes. `None`: everything.
fn rules(scopes: &ScopeList) -> Option<Vec<Rule>> {
    scopes.scopes().map(rule).collect()
}

fn rule(scope: Scope) -> Option<Rule> {
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
