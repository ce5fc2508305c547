//! What bytes mean: IP packets, WireGuard messages, control frames between overlay nodes, and the header with which Linux
//! hands us packets not yet cut.
//!
//! Everything here looks at bytes that somebody else wrote. A view is checked when it is made (`parse`) and trusted
//! from then on; what cannot be parsed is [`Malformed`], a unit, because nobody downstream may act on the difference.
//! There is no I/O, no time and no state, and nothing allocates except where a caller lends a `Vec`.
//!
//! Left out on purpose: everything that needs a key, and what a packet is allowed to do. Both belong to the node.

pub mod checksum;
pub mod control;
pub mod host_configuration;
pub mod icmp;
pub mod ip;
pub mod offload;
pub mod tcp;
pub mod wireguard;

#[cfg(test)]
mod vectors;

/// Bytes that are not what they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed")
    }
}

impl std::error::Error for Malformed {}
