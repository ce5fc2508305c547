//! Flows as plain values, which one node hands over to its successor.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::PeerKey;
use crate::data::shares::Party;
use crate::parked::Keep;

use super::flow::{Flow, Opener, TcpStage};
use super::flows::{End, FlowKey};
use super::{Allowlist, Instant};

/// A flow, the side that opened it, and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// The number of the upper protocol.
    pub protocol: u8,
    /// Our inner address and port.
    pub ours: (IpAddr, Option<u16>),
    /// The peer's inner address and port.
    pub theirs: (IpAddr, Option<u16>),
    /// Whether we opened it.
    pub is_ours: bool,
    /// The stage of its connection. `None` for protocols other than TCP.
    pub tcp: Option<TcpStage>,
    /// When it was last renewed.
    pub last: Instant,
    /// When a packet of ours last renewed it.
    pub last_ours: Instant,
}

/// The flows of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFlows {
    /// The key of the peer.
    pub peer: PeerKey,
    /// The live flows.
    pub flows: Vec<KnownFlow>,
    /// Whether the list contains every live flow that the peer opened.
    pub is_complete: bool,
    /// The peer's prefixes. The list says nothing of other addresses.
    pub prefixes: Vec<IpNet>,
    /// Prefixes of different peers that lie inside those. The list says nothing of their addresses either.
    pub holes: Vec<IpNet>,
}

impl Keep for Allowlist {
    const MAX_PEERS: usize = 1_024;
    /// Counted in flows.
    const MAX_SIZE: usize = 32_768;

    fn size(&self) -> usize {
        self.len()
    }
}

impl Allowlist {
    /// Returns all live flows, and whether the list contains every live flow that the peer opened.
    pub(crate) fn known_flows(&self, now: Instant) -> (Vec<KnownFlow>, bool) {
        let known = |(key, flow): (&FlowKey, &Flow)| KnownFlow {
            protocol: key.protocol,
            ours: (key.ours.address, key.ours.port),
            theirs: (key.theirs.address, key.theirs.port),
            is_ours: flow.opener == Opener::Us,
            tcp: flow.tcp_stage(),
            last: flow.last(),
            last_ours: flow.last_ours(),
        };
        let is_complete = !self.is_in_doubt(now) && !self.is_overflowing(now);
        (self.flows.iter().filter(|(_, flow)| flow.is_live(now)).map(known).collect(), is_complete)
    }

    /// How many flows the table holds.
    pub(crate) fn len(&self) -> usize {
        self.flows.len(Opener::Us) + self.flows.len(Opener::Peer)
    }

    /// Takes over the flows of a previous node. `is_complete` says that the peer has no other flows. `party` maps an inner
    /// source to its party.
    pub(crate) fn restore(
        &mut self,
        mut flows: Vec<KnownFlow>,
        is_complete: bool,
        party: impl Fn(IpAddr) -> Party,
        now: Instant,
    ) {
        // Each list of the table is ordered by the last renewal.
        flows.sort_by_key(|flow| flow.last);
        for known in flows.into_iter().filter(|known| known.last <= now) {
            let end = |(address, port)| End { address, port };
            let key = FlowKey { protocol: known.protocol, ours: end(known.ours), theirs: end(known.theirs) };
            let opener = if known.is_ours { Opener::Us } else { Opener::Peer };
            let flow = Flow::known(known.protocol, opener, known.tcp, known.last, known.last_ours);
            if flow.is_live(now) && self.flows.find(&key, now).is_none() {
                let party = if known.is_ours { party(known.ours.0) } else { self.party };
                self.open(key, flow, party, now);
            }
        }
        if is_complete {
            self.doubt = None;
        }
    }
}
