//! The path plane: where a peer's datagrams go outside the tunnel, and how large they may be.

pub(crate) mod agent;
mod calling;
pub(crate) mod candidate;
pub(crate) mod candidates;
pub(crate) mod discovery;
pub(crate) mod endpoint;
pub(crate) mod endpoints;
mod exchange;
pub(crate) mod finding;
pub(crate) mod greeting;
pub(crate) mod method;
pub(crate) mod mtu;
pub(crate) mod path_mtu;
pub(crate) mod paths;
pub(crate) mod probing;
pub(crate) mod reach;
pub(crate) mod reassembly;
pub(crate) mod recent;
pub(crate) mod report;
mod roaming;
pub(crate) mod words;
