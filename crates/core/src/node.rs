//! The front door: dispatches, decides nothing.
//!
//! `impl Node` also stands where a packet's, a handshake's or a change's story is told: `data/outbound`, `data/inbound`,
//! `session/handshake` and `change`. They know the node, and the node only calls them.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_wire::offload::VirtioHeader;
use overlay_wire::wireguard::DATA_OVERHEAD;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::context::Context;
use crate::data::coalesce::Coalescer;
use crate::data::parked::Parked;
use crate::data::scratch::Scratch;
use crate::deadlines::Deadlines;
use crate::local::Local;
use crate::outbox::Outbox;
use crate::path::candidates::MAX_CANDIDATES;
use crate::path::endpoints::Endpoints;
use crate::peers::Peers;
use crate::session::gate::{HandshakeGate, LOAD_LIMIT};
use crate::session::indices::Indices;
use crate::session::local_key::{LocalKey, LocalKeys};
use crate::wall_clock::WallClock;
use crate::{Command, CommandError, Instant, NodeConfig, NodeStats, Outputs, PathTag, PeerKey, PeerTag, UdpTrain};

/// Our participant in the overlay. See the crate's documentation for how it is driven: after every input, or after a few
/// that came at once, carry [`Node::poll_outputs`] away.
pub struct Node {
    pub(crate) peers: Peers,
    pub(crate) deadlines: Deadlines,
    pub(crate) gate: HandshakeGate,
    pub(crate) scratch: Scratch,
    pub(crate) parked: Parked,
    pub(crate) context: Context,
}

impl Node {
    /// The most peers a node takes: receiver indices stay sparse, a guess finds none.
    pub const MAX_PEERS: usize = PeerTag::PLACES;
    /// The most addresses of one host name that are called.
    pub const MAX_CANDIDATES: usize = MAX_CANDIDATES;
    /// The most former keys of our own that are still answered. Each costs a hash for every handshake message.
    pub const MAX_FORMER_KEYS: usize = 3;

    /// A node without peers.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let rng = ChaCha8Rng::from_seed(config.seed);
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
        };
        Self {
            peers: Peers::new(),
            deadlines: Deadlines::default(),
            gate: HandshakeGate::new(now),
            scratch: Scratch::default(),
            parked: Parked::default(),
            context: Context {
                local,
                indices: Indices::default(),
                outbox: Outbox::default(),
                coalescer: Coalescer::default(),
                stats: Arc::default(),
                rng,
                frame: Vec::new(),
                endpoints: Endpoints::default(),
            },
        }
    }

    /// Our own public key, if we have a private one.
    pub fn public_key(&self) -> Option<PeerKey> {
        self.context.local.keys.present().map(LocalKey::public)
    }

    /// The node's counters, to be read from anywhere.
    pub fn stats(&self) -> Arc<NodeStats> {
        Arc::clone(&self.context.stats)
    }

    /// Takes one packet or super-packet from TUN. It may be changed in place.
    pub fn handle_tun(&mut self, header: &VirtioHeader, packet: &mut [u8], now: Instant) {
        self.outbound(header, packet, now);
    }

    /// Takes a datagram train from the network.
    pub fn handle_udp(&mut self, train: &UdpTrain<'_>, now: Instant) {
        self.inbound(train, now);
    }

    /// A datagram of `len` bytes on this path, which nobody may fragment, was refused: it is longer than the device carries.
    pub fn handle_refused(&mut self, path: PathTag, len: usize, now: Instant) {
        let Some(known) = self.peers.peer(path.peer) else { return };
        self.context.on_refused(known, path, len.saturating_sub(DATA_OVERHEAD), now);
        self.attend(path.peer, now);
    }

    /// An initiation to this peer was not sent to `destination`, because this host has no way there or forbids it.
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

    /// Everything to carry away, and when to call [`Node::handle_timeout`].
    pub fn poll_outputs(&mut self) -> Outputs<'_> {
        self.context.coalescer.finish(&mut self.context.outbox);
        self.context.outbox.outputs(self.deadlines.next())
    }

    /// Brings one peer up to now and arms its next deadline.
    pub(crate) fn attend(&mut self, tag: PeerTag, now: Instant) {
        let Some(peer) = self.peers.peer(tag) else { return };
        self.context.advance(peer, now);
        peer.arm(&mut self.deadlines, now);
    }
}
