//! What the node is told: how it is made, and the commands that change it while it runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
pub use overlay_wire::offload::Joins;
use zeroize::Zeroizing;

use crate::{Instant, PeerStats};

/// What a node is made from.
pub struct NodeConfig {
    /// The X25519 tunnel key, clamped or not.
    pub private_key: Zeroizing<[u8; 32]>,
    /// The virtual IPs of this host. Empty: any inner source may go out and any inner destination may come in, as in
    /// WireGuard.
    pub addresses: Vec<IpAddr>,
    /// Whether what comes out of the tunnel may go to other destinations than `addresses`.
    pub forward: bool,
    /// MTU of the inner packets, 576..=65535 bytes.
    pub mtu: u16,
    /// Which received packets are joined: what TUN takes as super-packets.
    pub joins: Joins,
    /// Seeds the node's own generator: jitter and receiver indices. From the operating system, or from the test.
    pub seed: [u8; 32],
    /// Handshake timestamps are the wall clock's. `None`: it runs beside the clock that the node is lent. `Some`: a
    /// simulation, whose run began at this instant and lasts no time on the wall clock.
    pub wall_anchor: Option<Instant>,
}

/// A peer's X25519 public key: what names a peer, here and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl fmt::Debug for PeerKey {
    /// The first four bytes in hexadecimal: enough to tell peers of one node apart in a trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}..")
    }
}

/// Everything a peer is configured with.
#[derive(Clone)]
pub struct PeerConfig {
    /// Names the peer. A low-order point is refused with [`CommandError::LowOrderKey`].
    pub public_key: PeerKey,
    /// Mixed into every handshake; all zero means none, as in WireGuard.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to send until the peer is heard from somewhere else. `None`: wait until it calls. On a change of an
    /// existing peer `None` keeps the endpoint it has.
    pub endpoint: Option<SocketAddr>,
    /// Inner prefixes that are this peer's: routed out to it, accepted in from it.
    pub allowed_ips: Vec<IpNet>,
    /// An empty packet whenever nothing was sent for this long, 1 s to 65,535 s.
    pub persistent_keepalive: Option<Duration>,
    /// What the peer may open towards us. `None`: everything, and no flow state is kept. Empty: only answers.
    pub allow: Option<Vec<Rule>>,
}

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which upper-layer protocol.
    pub protocol: Protocol,
    /// Destination ports; `None` is all of them. Only for TCP and UDP.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The protocols a [`Rule`] can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ICMP and ICMPv6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// An IP protocol number that is none of the above.
    Number(u8),
}

/// A change from control. Applied in order, each one whole or not at all.
pub enum Command {
    /// Adds a peer, or gives a known one this configuration. What did not change is not disturbed: the session lives
    /// on unless the preshared key changed.
    SetPeer {
        /// All of it; nothing is kept of what was configured before.
        config: Box<PeerConfig>,
        /// Where the peer is counted from now on.
        stats: Arc<PeerStats>,
    },
    /// Removes a peer, its session and its flows.
    RemovePeer(PeerKey),
    /// A new endpoint for a peer, from a name look-up. Ignored while a session is alive.
    SetEndpoint(PeerKey, SocketAddr),
    /// The addresses and forwarding of [`NodeConfig`].
    SetAddresses {
        /// See [`NodeConfig::addresses`].
        addresses: Vec<IpAddr>,
        /// See [`NodeConfig::forward`].
        forward: bool,
    },
    /// A new inner MTU.
    SetMtu(u16),
    /// What TUN takes as super-packets from now on: see [`NodeConfig::joins`].
    SetJoins(Joins),
}

/// Why a command was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The public key is a low-order point: every secret derived from it is known to all.
    LowOrderKey,
    /// The public key is our own.
    OwnKey,
    /// No peer has this key.
    UnknownPeer,
    /// [`crate::Node::MAX_PEERS`] are configured already.
    TooManyPeers,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LowOrderKey => "the public key is a low-order point",
            Self::OwnKey => "the public key is our own",
            Self::UnknownPeer => "no peer has this public key",
            Self::TooManyPeers => "too many peers",
        })
    }
}

impl std::error::Error for CommandError {}
