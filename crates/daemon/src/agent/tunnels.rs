//! What the book means for the data plane: one peer for each open relation.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use overlay_core::{Event, PeerKey, Protocol, Rule};
use overlay_wire::signed::{self, Pool, PublicKey, Scope, ScopeList};

use super::trust::{Open, Relation};
use super::{Agent, Changed, NOTHING};
use crate::config::{AgentPeer, Peer};
use crate::path_kind::PathKind;

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

/// The key by which the data plane knows a peer.
pub(super) fn tunnel_key(relation: &Relation) -> Option<PeerKey> {
    relation.record.as_ref()?.tunnel_keys.first().map(|key| PeerKey(key.0))
}

impl Agent {
    /// Handles what the node tells of a peer. `agent`: the agent that the peer is, or `None` for a peer of the file.
    pub(crate) fn on_tunnel_event(&mut self, peer: PeerKey, agent: Option<PublicKey>, event: &Event) -> Changed {
        match (event, agent) {
            (Event::KnowsPresentKey(_), agent) => self.on_key_used(peer, agent),
            (Event::Word(_, word), Some(agent)) => {
                let expired = self.end_expired();
                return self.on_word(agent, word).and(expired);
            }
            (Event::Parcel(_, parcel), Some(agent)) => {
                let expired = self.end_expired();
                return self.on_parcel(agent, parcel).and(expired);
            }
            (Event::Unreachable(_), Some(agent)) => self.seek(agent),
            (Event::PresharedKeyProven(_), Some(agent)) => self.on_preshared_key_proven(&agent),
            (Event::HandshakeCompleted(..) | Event::Answering(_, true), Some(agent)) => self.on_reached(agent, true),
            (Event::HandshakeFailed(_) | Event::Answering(_, false), Some(agent)) => self.on_reached(agent, false),
            (Event::EndpointChanged(_, remote, is_relayed), Some(agent)) => {
                self.on_path(&agent, *remote, PathKind::of(*is_relayed));
                self.on_friend_moved(agent, (!is_relayed).then_some(*remote));
            }
            (Event::PathMtu(..), _) | (_, None) => {}
        }
        NOTHING
    }

    /// A peer holds the present preshared key, so the former one is erased.
    fn on_preshared_key_proven(&mut self, peer: &PublicKey) {
        if !self.book.on_key_proven(peer) {
            return;
        }
        // The tunnel needs the file no more than before, so it stays if the file does not follow.
        if let Some(relation) = self.book.relation(peer)
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
