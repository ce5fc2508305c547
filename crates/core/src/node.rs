//! The node's public interface. It dispatches and decides nothing.
//!
//! `impl Node` blocks also stand in the files that tell how a packet, a handshake or a change is handled: `data/outbound`,
//! `data/inbound`, `session/handshake` and `change`. They know the node, and the node only calls them.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_wire::offload::VirtioHeader;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::context::Context;
use crate::data::allowlist::{Allowlist, MAX_FLOWS};
use crate::data::budget::Budget;
use crate::data::coalesce::Coalescer;
use crate::data::scratch::Scratch;
use crate::data::staged::STAGED_BUDGET;
use crate::deadlines::Deadlines;
use crate::local::Local;
use crate::outbox::Outbox;
use crate::parked::Parked;
use crate::path::candidates::MAX_CANDIDATES;
use crate::path::endpoints::Endpoints;
use crate::path::probing::Probing;
use crate::peers::Peers;
use crate::session::answered::Answered;
use crate::session::gate::{HandshakeGate, LOAD_LIMIT};
use crate::session::indices::Indices;
use crate::session::local_key::{LocalKey, LocalKeys};
use crate::session::replays::Replays;
use crate::wall_clock::WallClock;
use crate::{
    CandidateScope, Command, CommandError, Instant, Nat, NodeConfig, NodeStats, Outputs, PathTag, PathsReport, PeerKey,
    PeerTag, UdpTrain,
};

/// The local participant in the overlay. The crate's documentation shows how to drive it: after every input, or after a few
/// that came at once, carry [`Node::poll_outputs`] away.
pub struct Node {
    pub(crate) peers: Peers,
    pub(crate) deadlines: Deadlines,
    pub(crate) gate: HandshakeGate,
    pub(crate) scratch: Scratch,
    pub(crate) flows_parked: Parked<Allowlist>,
    pub(crate) replays_parked: Parked<Replays>,
    pub(crate) answered: Answered,
    pub(crate) context: Context,
}

impl Node {
    /// The most peers that a node takes. Receiver indices then stay sparse, so a guessed one matches no peer.
    pub const MAX_PEERS: usize = PeerTag::PLACES;
    /// The most addresses of one host name that are called.
    pub const MAX_CANDIDATES: usize = MAX_CANDIDATES;
    /// The most former keys of ours that are still answered. Each costs a hash for every handshake message.
    pub const MAX_FORMER_KEYS: usize = 3;
    /// The most relays. Each train from elsewhere is compared with all of them.
    pub const MAX_RELAYS: usize = 16;

    /// The most candidates of this host, and of one peer.
    pub const MAX_LOCAL_CANDIDATES: usize = 8;
    /// See [`crate::Remote::candidates`].
    pub const MAX_REMOTE_CANDIDATES: usize = 16;

    /// Makes a node without peers.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let rng = ChaCha8Rng::from_seed(config.seed);
        let mut secrets = rng.clone();
        secrets.set_stream(1);
        let local = Local {
            keys: LocalKeys::new(config.private_key.as_deref(), &[], LOAD_LIMIT, now),
            is_up: true,
            addresses: config.addresses,
            forward: config.forward,
            mtu: usize::from(config.mtu),
            max_mtu: usize::from(config.max_mtu),
            joins: config.joins,
            wall: WallClock::new(config.wall_anchor),
            ports: None,
            pools: Vec::new(),
            relays: Vec::new(),
            candidates: Vec::new(),
            candidate_scope: CandidateScope::default(),
            nat: Nat::default(),
            secret: secrets.next_u64(),
        };
        Self {
            peers: Peers::new(),
            deadlines: Deadlines::default(),
            gate: HandshakeGate::new(now),
            scratch: Scratch::default(),
            flows_parked: Parked::default(),
            replays_parked: Parked::default(),
            answered: Answered::default(),
            context: Context {
                local,
                indices: Indices::default(),
                outbox: Outbox::default(),
                coalescer: Coalescer::default(),
                stats: Arc::default(),
                rng,
                staging: Budget::new(STAGED_BUDGET),
                flows: Budget::new(MAX_FLOWS),
                frame: Vec::new(),
                endpoints: Endpoints::default(),
                probing: Probing::default(),
            },
        }
    }

    /// Our own public key. `None` if we have no private key.
    pub fn public_key(&self) -> Option<PeerKey> {
        self.context.local.keys.present().map(LocalKey::public)
    }

    /// The node's counters. Any thread may read them.
    pub fn stats(&self) -> Arc<NodeStats> {
        Arc::clone(&self.context.stats)
    }

    /// What is known of the paths to a peer. `None` for a peer without [`crate::PeerConfig::finds_paths`].
    pub fn paths(&mut self, peer: PeerTag, now: Instant) -> Option<PathsReport> {
        self.peers.peer(peer)?.paths.agent.as_ref().map(|agent| agent.report(&self.context.local, now))
    }

    /// Takes one packet or super-packet from TUN. It may be changed in place.
    pub fn handle_tun(&mut self, header: &VirtioHeader, packet: &mut [u8], now: Instant) {
        self.outbound(header, packet, now);
    }

    /// Takes a datagram train from the network.
    pub fn handle_udp(&mut self, train: &UdpTrain<'_>, now: Instant) {
        self.inbound(train, now);
    }

    /// Handles a refused datagram of `len` bytes on this path. It must not be fragmented, and it is longer than the device
    /// carries.
    pub fn handle_refused(&mut self, path: PathTag, len: usize, now: Instant) {
        let Some(known) = self.peers.peer(path.peer) else { return };
        self.context.on_refused(known, path, len, now);
        self.attend(path.peer, now);
    }

    /// Handles an initiation to this peer that was not sent to `destination`, because this host has no route there or
    /// forbids it.
    pub fn handle_unsent(&mut self, peer: PeerTag, destination: SocketAddr, now: Instant) {
        let Some(known) = self.peers.peer(peer) else { return };
        self.context.on_unsent(known, destination, now);
        self.attend(peer, now);
    }

    /// Applies a change from control, whole or not at all.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        self.change(command, now)
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, tag)) = self.deadlines.pop_due(now) {
            if let Some(peer) = self.peers.peer(tag)
                && peer.armed.take(at)
            {
                self.attend(tag, now);
            }
        }
    }

    /// Returns all outputs to carry away, and when to call [`Node::handle_timeout`].
    pub fn poll_outputs(&mut self) -> Outputs<'_> {
        self.context.coalescer.finish(&mut self.context.outbox);
        self.context.outbox.outputs(self.deadlines.next())
    }

    /// Does what is due for one peer by `now`, and arms its next deadline.
    pub(crate) fn attend(&mut self, tag: PeerTag, now: Instant) {
        self.resume(tag, now);
        let Some(peer) = self.peers.peer(tag) else { return };
        peer.rights.tidy(now);
        self.context.advance(peer, now);
        peer.arm(&mut self.deadlines, now);
    }
}
