//! The path plane: where a peer's datagrams go outside, and how large they may be.

pub(crate) mod endpoint;
#[allow(dead_code, reason = "the node does not ask it yet")]
pub(crate) mod mtu;
pub(crate) mod path_mtu;
