//! The data plane: everything that touches each packet, in the order packets meet it.

pub(crate) mod allowed_ips;
pub(crate) mod allowlist;
pub(crate) mod budget;
pub(crate) mod coalesce;
pub(crate) mod drop_reason;
pub(crate) mod ecn;
pub(crate) mod host_configuration;
pub(crate) mod icmp_limit;
pub(crate) mod inbound;
pub(crate) mod opens;
pub(crate) mod outbound;
pub(crate) mod scratch;
pub(crate) mod shares;
pub(crate) mod staged;
