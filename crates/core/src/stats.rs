//! Counters that the node writes and anyone may read at any time.
//!
//! One thread writes, so an addition is a load and a store. Readers see each counter whole; two of them may be a packet
//! apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::DropReason;

/// Counters of the whole node.
#[derive(Debug)]
pub struct NodeStats {
    drops: Box<[AtomicU64]>,
    /// Handshake initiations sent.
    pub initiations_sent: Counter,
    /// Handshake initiations received that were authenticated.
    pub initiations_received: Counter,
    /// Handshakes completed, either side having begun them.
    pub handshakes_completed: Counter,
    /// Cookie replies sent.
    pub cookies_sent: Counter,
    /// Times that a peer with a session stopped to answer.
    pub peers_suspected: Counter,
    /// Questions to peers that had nothing to say, whether they are there.
    pub questions_sent: Counter,
    /// Probes for the MTU of a path.
    pub mtu_probes_sent: Counter,
    /// Times that a path turned out to carry less than before.
    pub mtu_falls: Counter,
    /// Packets that went to a peer in pieces, each in a datagram of its own.
    pub packets_cut: Counter,
    /// Packets of peers that came in pieces and are whole.
    pub packets_joined: Counter,
}

impl Default for NodeStats {
    fn default() -> Self {
        Self {
            drops: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            initiations_sent: Counter::default(),
            initiations_received: Counter::default(),
            handshakes_completed: Counter::default(),
            cookies_sent: Counter::default(),
            peers_suspected: Counter::default(),
            questions_sent: Counter::default(),
            mtu_probes_sent: Counter::default(),
            mtu_falls: Counter::default(),
            packets_cut: Counter::default(),
            packets_joined: Counter::default(),
        }
    }
}

impl NodeStats {
    /// Packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    pub(crate) fn count_drops(&self, reason: DropReason, packets: u64) {
        let counter = &self.drops[reason as usize];
        counter.store(counter.load(Relaxed) + packets, Relaxed);
    }
}

/// Counters of one peer. Bytes are of inner packets, without WireGuard's overhead.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// Inner packets received and delivered.
    pub received_packets: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
    /// Inner packets sent.
    pub sent_packets: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    /// Outer bytes received and authenticated, WireGuard's headers included: what `wg show` reports.
    pub received_wire_bytes: Counter,
    /// Outer bytes sent: what `wg show` reports.
    pub sent_wire_bytes: Counter,
    /// Handshakes completed with this peer.
    pub handshakes: Counter,
    /// Packets dropped on behalf of this peer, either direction.
    pub drops: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }
}
