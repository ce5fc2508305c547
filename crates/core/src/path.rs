//! The path plane: where a peer's datagrams go outside.

pub(crate) mod endpoint;
pub(crate) mod path_mtu;
