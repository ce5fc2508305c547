//! Where a peer is reached: the outer address it was last authenticated from, or the configured one before that.
//!
//! Authenticated messages of any kind move the endpoint, and nothing else does. A cookie reply is not authenticated.
//! The local address that the peer wrote to is stored with it, so that answers leave from that address (sticky source).

use std::net::SocketAddr;

use crate::Via;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) via: Via,
}

impl Endpoint {
    /// Creates an endpoint from a configured address. The kernel chooses the source address.
    pub(crate) fn configured(address: SocketAddr) -> Self {
        Self { address, via: Via::ANY }
    }
}
