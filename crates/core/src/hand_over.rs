//! What a node hands over to the next one of this host, if it ends in order.
//!
//! Flows keep connections that we opened from being cut. Initiations keep replays from moving a peer's endpoint. How far
//! timestamps ran ahead keeps peers from taking the next node's handshakes for replays. A node that was killed hands over
//! nothing.

use std::time::Duration;

use crate::node::Node;
use crate::session::replays::Replays;
use crate::{Instant, PeerFlows, PeerInitiations};

/// What a node knows that the next one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// The flows of all peers that have an allowlist, for [`crate::Command::RestoreFlows`].
    pub flows: Vec<PeerFlows>,
    /// The replay state of all peers that have called, for [`crate::Command::RestoreInitiations`].
    pub initiations: Vec<PeerInitiations>,
    /// How far handshake timestamps run ahead of the wall clock, for [`crate::Command::RunAhead`].
    pub ahead: Duration,
}

impl Node {
    /// Returns what the next node needs. The caller makes no further handshakes with this one.
    pub fn hand_over(&mut self, now: Instant) -> HandOver {
        let flows = self.known_flows(now);
        let mut initiations = Vec::new();
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            let replays = peer.tunnel.replays();
            if !replays.is_empty() {
                initiations
                    .push(PeerInitiations { peer: peer.tunnel.key, initiations: replays.iter().copied().collect() });
            }
        }
        HandOver { flows, initiations, ahead: self.context.local.wall.ahead() }
    }

    /// Takes over the replay state of a peer, which is usually added after this.
    pub(crate) fn restore_initiations(&mut self, known: PeerInitiations, now: Instant) {
        let peer = self.peers.find(known.peer).and_then(|tag| self.peers.peer(tag));
        if let Some(peer) = peer {
            // A session that exists has replay state of its own.
            return peer.tunnel.remembered.add(known.initiations);
        }
        let mut replays = Replays::default();
        replays.add(known.initiations);
        self.replays_parked.park(known.peer, replays, now);
    }
}
