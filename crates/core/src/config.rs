//! What the node is told: how it is made, and the commands that change it while it runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
pub use overlay_wire::offload::Joins;
use zeroize::Zeroizing;

use crate::data::allowlist::PeerFlows;
use crate::{Instant, PathTag, PeerKey, PeerStats, PeerTag, Rule, WallStep};

/// What a node is made from.
pub struct NodeConfig {
    /// The X25519 tunnel key, clamped or not. `None`: nothing is sent and nothing understood until there is one.
    pub private_key: Option<Zeroizing<[u8; 32]>>,
    /// The virtual IPs of this host. Empty: any inner source may go out and any inner destination may come in, as in
    /// WireGuard.
    pub addresses: Vec<IpAddr>,
    /// Whether what comes out of the tunnel may go to other destinations than `addresses`.
    pub forward: bool,
    /// MTU of the inner packets to a peer of whose path nothing is known, 576..=65535 bytes.
    pub mtu: u16,
    /// The most that is tried to find out, `mtu`..=65535 bytes: what TUN takes.
    pub max_mtu: u16,
    /// Which received packets are joined: what TUN takes as super-packets.
    pub joins: Joins,
    /// Seeds the node's own generator: jitter and receiver indices. From the operating system, or from the test.
    pub seed: [u8; 32],
    /// Handshake timestamps are the wall clock's. `None`: it runs beside the clock that the node is lent, but for
    /// [`Command::WallClockSet`]. `Some`: a simulation, whose run began at this instant and lasts no time on the wall clock.
    pub wall_anchor: Option<Instant>,
}

/// Everything a peer is configured with.
#[derive(Clone)]
pub struct PeerConfig {
    /// The peer's tunnel key; no two peers have the same. With a low-order point there is no secret to share: such a peer is
    /// neither called nor answered.
    pub public_key: PeerKey,
    /// Mixed into every handshake; all zero means none, as in WireGuard. Sessions that there are go on when it changes.
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
    /// Whether the MTU of the path is searched for, by control frames or echoes inside the session. If not, the peer keeps
    /// the one of [`NodeConfig::mtu`], and gets nothing that WireGuard does not send, unless it asks: an overlay node that
    /// greets or probes us is answered.
    pub mtu_discovery: bool,
}

impl PeerConfig {
    /// A peer of which nothing but the key is configured.
    pub fn of(public_key: PeerKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            allowed_ips: Vec::new(),
            persistent_keepalive: None,
            allow: None,
            mtu_discovery: false,
        }
    }
}

/// What is to change in a peer, and nothing else.
pub struct PeerChange {
    /// Which peer.
    pub peer: PeerTag,
    /// `Some`: the peer is added if it is not there, with this key, and then counted here. `None`: it has to be there.
    pub add: Option<(PeerKey, Arc<PeerStats>)>,
    /// See [`PeerConfig::preshared_key`]; all zero takes it away.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to send from now on, also in a session that is alive.
    pub endpoint: Option<SocketAddr>,
    /// See [`PeerConfig::persistent_keepalive`]. One that is switched on begins with an empty packet at once.
    pub persistent_keepalive: Option<Option<Duration>>,
    /// Applied in order. Each costs the logarithm of how many there are.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// A prefix that becomes a peer's, or is no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// It is this peer's; if it was another's it moves.
    Add(IpNet),
    /// It is this peer's no longer; if it is another's it stays there.
    Remove(IpNet),
}

impl PeerChange {
    /// A change of nothing in a peer that is there.
    pub fn of(peer: PeerTag) -> Self {
        Self {
            peer,
            add: None,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: Vec::new(),
        }
    }
}

/// A change from control. Applied in order, each one whole or not at all.
pub enum Command {
    /// Adds a peer, or gives a known one this configuration. What did not change is not disturbed: the session lives
    /// on, and a new preshared key counts from the next handshake on. A new public key ends the sessions; flows, withdrawn rights
    /// and what is known of the path stay. Packets from link-local sources come only from a
    /// peer that has a prefix in the link-local range itself; one that was made by `ChangePeer` alone may also have a
    /// shorter one, as in WireGuard.
    SetPeer {
        /// Which peer.
        peer: PeerTag,
        /// All of it; nothing is kept of what was configured before.
        config: Box<PeerConfig>,
        /// Where the peer is counted from now on.
        stats: Arc<PeerStats>,
    },
    /// Changes parts of a peer, or adds it. What the change does not name stays.
    ChangePeer(Box<PeerChange>),
    /// Removes a peer and its session. Its flows are kept for two hours, in case it is added again.
    RemovePeer(PeerTag),
    /// Our own tunnel keys. Sessions and handshakes under a key that is in neither of these are over at once; peers keep
    /// what they were configured with and where they are, and are called again when there is a reason to. A peer whose
    /// key is our own from now on is removed.
    SetPrivateKeys {
        /// The key that we speak as, all zero not allowed. `None`: nothing is sent and nothing understood.
        present: Option<Zeroizing<[u8; 32]>>,
        /// Former keys, [`crate::Node::MAX_FORMER_KEYS`] at most. They are still answered, and sessions under them go on and are
        /// renewed under them, until the peer calls by the present one.
        former: Vec<Zeroizing<[u8; 32]>>,
    },
    /// The interface came up, or went down: as it is at first, up. While it is down nothing is sent and nothing taken.
    /// All sessions and handshakes are over when it goes down, and packets that wait are dropped; peers keep what they
    /// were configured with and where they are, and when it comes up those with persistent keepalive are called.
    SetUp(bool),
    /// The addresses of a peer's host name, the best one first; [`crate::Node::MAX_CANDIDATES`] of them count. While a session
    /// works they change nothing. When the peer is silent, or has no session, an initiation goes to each in turn, and where
    /// the answer comes from is its endpoint.
    SetCandidates(PeerTag, Vec<SocketAddr>),
    /// The peer's host name was replaced by another endpoint: what it was resolved to is no longer called. If the next one is a
    /// name, its addresses are called as soon as they are known, and a session goes on meanwhile.
    ForgetCandidates(PeerTag),
    /// An unverified ICMP "too big" says that this path carries inner packets of no more bytes than these. It chooses what is
    /// probed next, and nothing else.
    TooBig(PathTag, u16),
    /// The addresses and forwarding of [`NodeConfig`].
    SetAddresses {
        /// See [`NodeConfig::addresses`].
        addresses: Vec<IpAddr>,
        /// See [`NodeConfig::forward`].
        forward: bool,
    },
    /// New inner MTUs.
    SetMtu {
        /// See [`NodeConfig::mtu`].
        mtu: u16,
        /// See [`NodeConfig::max_mtu`].
        max: u16,
    },
    /// Somebody set the wall clock: handshake timestamps follow from the next handshake on, but never go back.
    WallClockSet(WallStep),
    /// What TUN takes as super-packets from now on: see [`NodeConfig::joins`].
    SetJoins(Joins),
    /// The UDP ports that are in use on this host now. To be said before commands that add peers, add prefixes or give an
    /// allowlist: programs may go on then with flows that the node has never seen, and those are not taken for ours. A node
    /// that was never told runs above no host.
    HostPorts(Vec<u16>),
    /// What [`crate::Node::known_flows`] of a node before this one said of a peer. Nothing happens where the peer has no
    /// allowlist.
    RestoreFlows(PeerFlows),
}

/// Why a command was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The public key is our own.
    OwnKey,
    /// There is no such peer.
    UnknownPeer,
    /// A different peer has this public key.
    KeyTaken,
    /// A different peer has the place of this tag.
    TagTaken,
    /// More former keys than [`crate::Node::MAX_FORMER_KEYS`].
    TooManyKeys,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnKey => "the public key is our own",
            Self::UnknownPeer => "there is no such peer",
            Self::KeyTaken => "a different peer has this public key",
            Self::TagTaken => "a different peer has this place",
            Self::TooManyKeys => "too many former keys",
        })
    }
}

impl std::error::Error for CommandError {}
