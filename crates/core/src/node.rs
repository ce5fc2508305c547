//! The front door: dispatches, decides nothing.

use std::sync::Arc;

use overlay_wire::offload::VirtioHeader;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::context::{Context, Local};
use crate::data::allowlist::Allowlist;
use crate::data::coalesce::Coalescer;
use crate::data::handshake::{HandshakeGate, LOAD_LIMIT};
use crate::data::outbound::Scratch;
use crate::data::session::LocalKey;
use crate::output::Outbox;
use crate::path::endpoint::Endpoint;
use crate::peers::{PeerId, Peers};
use crate::timer::Deadlines;
use crate::{
    Command, CommandError, DropReason, Instant, NodeConfig, NodeStats, Outputs, PeerConfig, PeerKey, PeerStats,
    UdpTrain,
};

/// Our participant in the overlay. See the crate's documentation for how it is driven: after every input, or after a few
/// that came at once, carry [`Node::poll_outputs`] away.
pub struct Node {
    pub(crate) peers: Peers,
    pub(crate) deadlines: Deadlines,
    pub(crate) gate: HandshakeGate,
    pub(crate) scratch: Scratch,
    pub(crate) context: Context,
}

impl Node {
    /// The most peers a node takes: receiver indices stay sparse, a guess finds none.
    pub const MAX_PEERS: usize = 1 << 20;

    /// A node without peers.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let rng = ChaCha8Rng::from_seed(config.seed);
        let local = Local {
            key: LocalKey::new(&config.private_key, LOAD_LIMIT, now),
            addresses: config.addresses,
            forward: config.forward,
            mtu: usize::from(config.mtu),
            joins: config.joins,
            wall_anchor: config.wall_anchor,
        };
        Self {
            peers: Peers::new(),
            deadlines: Deadlines::default(),
            gate: HandshakeGate::new(now),
            scratch: Scratch::default(),
            context: Context {
                local,
                outbox: Outbox::default(),
                coalescer: Coalescer::default(),
                stats: Arc::default(),
                rng,
            },
        }
    }

    /// Our own public key.
    pub fn public_key(&self) -> PeerKey {
        self.context.local.key.public()
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

    /// Applies a change from control, whole or not at all.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match command {
            Command::SetPeer { config, stats } => self.set_peer(*config, stats, now),
            Command::RemovePeer(key) => {
                let mut peer = self.peers.remove(key).ok_or(CommandError::UnknownPeer)?;
                self.context.stats.count_drops(DropReason::StagedExpired, peer.staged.clear());
                Ok(())
            }
            Command::SetEndpoint(key, address) => {
                let id = self.peers.find(key).ok_or(CommandError::UnknownPeer)?;
                if let Some(peer) = self.peers.peer(id)
                    && !peer.is_alive(now)
                {
                    peer.endpoint = Some(Endpoint::configured(address));
                    peer.hasten(&mut self.context.rng);
                }
                self.attend(id, now);
                Ok(())
            }
            Command::SetAddresses { addresses, forward } => {
                self.context.local.addresses = addresses;
                self.context.local.forward = forward;
                Ok(())
            }
            Command::SetJoins(joins) => {
                self.context.local.joins = joins;
                Ok(())
            }
            Command::SetMtu(mtu) => {
                self.context.local.mtu = usize::from(mtu);
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

    fn set_peer(&mut self, config: PeerConfig, stats: Arc<PeerStats>, now: Instant) -> Result<(), CommandError> {
        let key = config.public_key;
        if key == self.public_key() {
            return Err(CommandError::OwnKey);
        }
        if self.context.local.key.is_low_order(key) {
            return Err(CommandError::LowOrderKey);
        }
        let known = self.peers.find(key);
        let is_new = known.is_none();
        let id = match known {
            Some(id) => id,
            None if self.peers.len() >= Self::MAX_PEERS => return Err(CommandError::TooManyPeers),
            None => self.peers.insert(key, now, &mut self.context.rng),
        };
        self.peers.set_allowed_ips(id, config.allowed_ips);
        let Some(peer) = self.peers.peer(id) else { return Err(CommandError::UnknownPeer) };
        let preshared_key = config.preshared_key.filter(|key| **key != [0; 32]);
        if peer.preshared_key != preshared_key {
            peer.preshared_key = preshared_key;
            self.context.replace_session(peer, now);
        }
        if let Some(address) = config.endpoint {
            peer.endpoint = Some(Endpoint::configured(address));
            peer.hasten(&mut self.context.rng);
        }
        peer.stats = stats;
        peer.persistent_keepalive = config.persistent_keepalive;
        match (&mut peer.allowlist, config.allow) {
            (_, None) => peer.allowlist = None,
            (Some(allowlist), Some(rules)) => allowlist.set_rules(rules),
            (None, Some(rules)) if is_new => {
                peer.allowlist = Some(Allowlist::new(rules, self.context.rng.next_u64()));
            }
            (None, Some(rules)) => {
                peer.allowlist = Some(Allowlist::restricting(rules, self.context.rng.next_u64(), now));
            }
        }
        self.attend(id, now);
        Ok(())
    }
}
