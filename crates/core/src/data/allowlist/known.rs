//! Flows as a value: what one node hands over to the one that runs after it.

use std::net::IpAddr;

use crate::PeerKey;

use super::flows::{End, Flow, FlowKey, Opener};
use super::{Allowlist, Instant};

/// A flow that the peer or we opened, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// The upper protocol's number.
    pub protocol: u8,
    /// Our inner address and port.
    pub ours: (IpAddr, Option<u16>),
    /// The peer's.
    pub theirs: (IpAddr, Option<u16>),
    /// Whether we opened it.
    pub is_ours: bool,
    /// Whether it is a TCP connection that is through its handshake and open on both sides.
    pub is_established: bool,
    /// When the last packet of it passed.
    pub last: Instant,
}

/// The flows of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFlows {
    /// Names the peer.
    pub peer: PeerKey,
    /// Those that are alive.
    pub flows: Vec<KnownFlow>,
    /// Whether there are no others that the peer opened.
    pub is_complete: bool,
}

impl Allowlist {
    /// All living flows, and whether there can be no others that the peer opened.
    pub(crate) fn known_flows(&self, now: Instant) -> (Vec<KnownFlow>, bool) {
        let known = |(key, flow): (&FlowKey, &Flow)| KnownFlow {
            protocol: key.protocol,
            ours: (key.ours.address, key.ours.port),
            theirs: (key.theirs.address, key.theirs.port),
            is_ours: flow.opener == Opener::Us,
            is_established: flow.is_established(),
            last: flow.last(),
        };
        let is_doubtful = self.doubt.as_ref().is_some_and(|doubt| now < doubt.until);
        let is_complete = !is_doubtful && !self.is_overflowing(now);
        (self.flows.iter().filter(|(_, flow)| flow.is_live(now)).map(known).collect(), is_complete)
    }

    /// How many flows it holds.
    pub(crate) fn len(&self) -> usize {
        self.flows.len(Opener::Us) + self.flows.len(Opener::Peer)
    }

    /// Takes over what another list knew. `is_complete`: there are no other flows of the peer.
    pub(crate) fn restore(&mut self, mut flows: Vec<KnownFlow>, is_complete: bool, now: Instant) {
        // Each list of the table is in the order of its last packets.
        flows.sort_by_key(|flow| flow.last);
        for known in flows.into_iter().filter(|known| known.last <= now) {
            let end = |(address, port)| End { address, port };
            let key = FlowKey { protocol: known.protocol, ours: end(known.ours), theirs: end(known.theirs) };
            let opener = if known.is_ours { Opener::Us } else { Opener::Peer };
            let flow = Flow::known(known.protocol, opener, known.is_established, known.last);
            if flow.is_live(now) && self.flows.find(&key, now).is_none() {
                self.open(key, flow, 0, now);
            }
        }
        if is_complete {
            self.doubt = None;
        }
    }
}
