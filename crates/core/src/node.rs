//! The front door: dispatches, decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_wire::offload::VirtioHeader;
use overlay_wire::wireguard::DATA_OVERHEAD;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::context::{Context, Local};
use crate::data::allowlist::HostPorts;
use crate::data::coalesce::Coalescer;
use crate::data::handshake::{HandshakeGate, LOAD_LIMIT};
use crate::data::outbound::Scratch;
use crate::data::parked::Parked;
use crate::data::session::LocalKey;
use crate::indices::Indices;
use crate::output::Outbox;
use crate::path::candidates::MAX_CANDIDATES;
use crate::path::endpoints::Endpoints;
use crate::peers::{PeerId, Peers};
use crate::timer::Deadlines;
use crate::wall_clock::WallClock;
use crate::{Command, CommandError, Instant, NodeConfig, NodeStats, Outputs, PeerKey, PeerTag, UdpTrain};

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
    pub const MAX_PEERS: usize = 1 << 20;
    /// The most addresses of one host name that are called.
    pub const MAX_CANDIDATES: usize = MAX_CANDIDATES;

    /// A node without peers.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let rng = ChaCha8Rng::from_seed(config.seed);
        let local = Local {
            key: config.private_key.map(|key| LocalKey::new(&key, LOAD_LIMIT, now)),
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
        self.context.local.key.as_ref().map(LocalKey::public)
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

    /// A datagram of `len` bytes to this peer, which nobody may fragment, was refused: it is longer than the device carries.
    pub fn handle_refused(&mut self, peer: PeerTag, len: usize, now: Instant) {
        let Some(known) = self.peers.peer(peer.0) else { return };
        self.context.on_refused(known, len.saturating_sub(DATA_OVERHEAD), now);
        self.attend(peer.0, now);
    }

    /// An initiation to this peer was not sent to `destination`, because this host has no way there or forbids it.
    pub fn handle_unsent(&mut self, peer: PeerTag, destination: SocketAddr, now: Instant) {
        let Some(known) = self.peers.peer(peer.0) else { return };
        self.context.on_unsent(known, destination, now);
        self.attend(peer.0, now);
    }

    /// Applies a change from control, whole or not at all.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match command {
            Command::SetPeer { config, stats } => self.set_peer(*config, stats, now),
            Command::ChangePeer(change) => self.change_peer(*change, now),
            Command::RemovePeer(key) => self.remove_peer(key, now),
            Command::SetPrivateKey(key) => {
                self.set_private_key(key, now);
                Ok(())
            }
            Command::SetUp(is_up) => {
                self.set_up(is_up, now);
                Ok(())
            }
            Command::SetCandidates(key, addresses) => {
                let id = self.peers.find(key).ok_or(CommandError::UnknownPeer)?;
                if let Some(peer) = self.peers.peer(id) {
                    self.context.set_candidates(peer, &addresses, now);
                }
                self.attend(id, now);
                Ok(())
            }
            Command::ForgetCandidates(key) => {
                let id = self.peers.find(key).ok_or(CommandError::UnknownPeer)?;
                if let Some(peer) = self.peers.peer(id) {
                    peer.candidates.get_or_insert_default().forget();
                }
                Ok(())
            }
            Command::TooBig(key, mtu) => {
                let id = self.peers.find(key).ok_or(CommandError::UnknownPeer)?;
                if let Some(discovery) = self.peers.peer(id).and_then(|peer| peer.discovery.as_mut()) {
                    discovery.on_too_big(mtu.into());
                }
                self.attend(id, now);
                Ok(())
            }
            Command::SetAddresses { addresses, forward } => {
                self.context.local.addresses = addresses;
                self.context.local.forward = forward;
                for id in self.peers.ids() {
                    let Some(peer) = self.peers.peer(id) else { continue };
                    self.context.on_change(peer, now);
                    self.deadlines.arm_next(peer, now);
                }
                Ok(())
            }
            Command::WallClockSet(step) => {
                self.on_wall_clock_set(step, now);
                Ok(())
            }
            Command::SetJoins(joins) => {
                self.context.local.joins = joins;
                Ok(())
            }
            Command::HostPorts(ports) => {
                self.context.local.ports = Some(HostPorts::new(&self.context.local.addresses, ports));
                Ok(())
            }
            Command::RestoreFlows(known) => self.restore_flows(known, now),
            Command::SetMtu { mtu, max } => {
                let is_news = self.context.local.max_mtu != usize::from(max);
                self.context.local.mtu = usize::from(mtu);
                self.context.local.max_mtu = usize::from(max);
                for id in self.peers.ids() {
                    let Some(peer) = self.peers.peer(id) else { continue };
                    if is_news {
                        self.context.on_other_mtu(peer, now);
                    }
                    self.context.settle(peer, now);
                    self.attend(id, now);
                }
                Ok(())
            }
        }
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.pop_due(now) {
            if let Some(peer) = self.peers.peer(id)
                && peer.armed.take(at)
            {
                self.attend(id, now);
            }
        }
    }

    /// Everything to carry away, and when to call [`Node::handle_timeout`].
    pub fn poll_outputs(&mut self) -> Outputs<'_> {
        self.context.coalescer.finish(&mut self.context.outbox);
        self.context.outbox.outputs(self.deadlines.next())
    }

    /// Brings one peer up to now and arms its next deadline.
    pub(crate) fn attend(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.peer(id) else { return };
        self.context.advance(peer, now);
        self.deadlines.arm_next(peer, now);
    }
}
