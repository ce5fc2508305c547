//! Which peers are reached by a host name.

use overlay_core::PeerKey;

use crate::config::{Endpoint, Peer};
use crate::resolve::NamedEndpoint;

/// The peers of a config that are reached by name.
pub(crate) fn named_endpoints(peers: &[Peer]) -> Vec<NamedEndpoint> {
    peers.iter().filter_map(|peer| named(peer.public_key, peer.endpoint.as_ref()?)).collect()
}

/// The name of a peer's endpoint; `None` for an address.
pub(super) fn named(peer: PeerKey, endpoint: &Endpoint) -> Option<NamedEndpoint> {
    match endpoint {
        Endpoint::Name { host, port } => Some(NamedEndpoint { peer, host: host.clone(), port: *port }),
        Endpoint::Address(_) => None,
    }
}
