//! The meaning of bytes: IP packets, WireGuard messages, STUN, control frames between overlay nodes, the virtio header with
//! which Linux hands over packets that have not been segmented yet, and the signed objects of agents.
//!
//! All code here reads bytes that others wrote. A view is checked when it is made (`parse`) and trusted from then on.
//! Bytes that cannot be parsed are [`Malformed`], which carries no detail because callers must not act on the
//! difference. There is no I/O, no time and no state. Nothing on a packet's way allocates unless the caller lends a
//! `Vec`.
//!
//! Left out on purpose: what a packet or an agent may do, and everything that needs a session's keys. Both belong to the
//! node.

pub mod checksum;
pub mod control;
pub mod host_configuration;
pub mod icmp;
pub mod ip;
pub mod offload;
pub mod relay;
pub mod signed;
pub mod stun;
pub mod tcp;
pub mod wireguard;
pub mod x25519;

#[cfg(test)]
mod vectors;

/// The error for bytes that do not have the expected format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed")
    }
}

impl std::error::Error for Malformed {}
