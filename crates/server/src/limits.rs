//! How much agents may use of a rendezvous.

use std::time::Duration;

/// How much agents may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections from one IPv4 address or IPv6 /64 at once. Whole offices share one.
    pub connections_per_address: usize,
    /// How long TLS, WebSocket and handshake may take together.
    pub handshake: Duration,
    /// How long a connection may be silent. Agents ping every 15 s.
    pub idle: Duration,
    /// Bytes that may wait to be sent to one agent.
    pub out_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_address: 32,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            out_queue: 1 << 20,
        }
    }
}
