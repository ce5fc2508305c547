//! Where a peer is reached: the outer address it was last authenticated from, else the configured one.
//!
//! Only authenticated messages move it, whatever their kind; a cookie reply is none. The local address that the peer
//! wrote to is kept with it, so that answers leave from there (sticky source).

use std::net::SocketAddr;

use crate::Via;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) via: Via,
}

impl Endpoint {
    /// An address from the configuration: the kernel chooses the source.
    pub(crate) fn configured(address: SocketAddr) -> Self {
        Self { address, via: Via::ANY }
    }
}
