//! An outer address, and how it is reached: what both the paths of a peer and the agent that chooses among them name.

use std::net::SocketAddr;

use crate::Via;
use crate::origin::{Far, Origin};

/// The outer address of a peer, and the local address to reach it from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) via: Via,
}

impl Endpoint {
    /// An endpoint from the configuration: the kernel chooses the source.
    pub(crate) fn configured(address: SocketAddr) -> Self {
        Self { address, via: Via::ANY }
    }

    pub(crate) fn far(self) -> Far {
        (self.address, self.via.channel)
    }

    /// Whether datagrams go the same way. Over two uplinks they do not, wherever they end.
    pub(crate) fn is_along(self, other: Self) -> bool {
        let over_two = self.via.is_pinned && other.via.is_pinned && self.via.local != other.via.local;
        self.far() == other.far() && !over_two
    }
}

impl Origin {
    /// The pair that a datagram came over, as our side names it.
    pub(crate) fn endpoint(self) -> Endpoint {
        Endpoint { address: self.source, via: self.via }
    }
}
