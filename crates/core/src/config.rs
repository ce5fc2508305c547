//! The configuration of a node: how it is made, and the commands that change it while it runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
pub use overlay_wire::offload::Joins;
use zeroize::Zeroizing;

use crate::data::allowlist::PeerFlows;
use crate::path::candidate::{Candidate, CandidateScope, Remote};
use crate::session::replays::PeerInitiations;
use crate::{Instant, Nat, PathTag, PeerKey, PeerStats, PeerTag, Rule, WallStep};

/// The initial configuration of a node.
pub struct NodeConfig {
    /// The X25519 tunnel key, clamped or not. `None`: nothing is sent or understood until there is a key.
    pub private_key: Option<Zeroizing<[u8; 32]>>,
    /// The virtual IPs of this host. If empty, any inner source may go out and any inner destination may come in, as in
    /// WireGuard.
    pub addresses: Vec<IpAddr>,
    /// Whether packets from the tunnel may go to destinations other than `addresses`.
    pub forward: bool,
    /// The MTU of inner packets to a peer while nothing is known of its path, 576..=65535 bytes.
    pub mtu: u16,
    /// The largest MTU that the search tries, `mtu`..=65535 bytes: the longest packet that TUN takes.
    pub max_mtu: u16,
    /// Which received packets are joined: the kinds of super-packets that TUN takes.
    pub joins: Joins,
    /// The seed of the node's own generator, for jitter and receiver indices. It comes from the operating system, or from
    /// the test.
    pub seed: [u8; 32],
    /// The source of handshake timestamps, which show wall-clock time. `None`: the wall clock runs in step with the lent
    /// clock, except for [`Command::WallClockSet`]. `Some`: a simulation that began at this instant and takes no time on
    /// the wall clock.
    pub wall_anchor: Option<Instant>,
}

/// Everything a peer is configured with.
#[derive(Clone)]
pub struct PeerConfig {
    /// The peer's tunnel key. Two peers never have the same. A low-order point yields no shared secret, so such a peer is
    /// neither called nor answered.
    pub public_key: PeerKey,
    /// The key that the peer had before, while the peer still answers under it. If the peer has this key here until now,
    /// its sessions continue until the next handshake, which begins at once. Calls by this key are not answered.
    pub former_key: Option<PeerKey>,
    /// The key of ours by which a new peer is called first, if it is one that we answer under. `None`: the present one.
    pub own_key: Option<PeerKey>,
    /// Mixed into every handshake. All zero means that there is no such key, as in WireGuard. Existing sessions continue
    /// when it changes.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// The preshared key before, if the peer may not have the present one yet. Both count until the peer has proven the
    /// present one, which is told as [`crate::Event::PresharedKeyProven`].
    pub former_preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to send until the peer is heard from a different address. `None`: wait until it calls. When an existing peer
    /// is changed, `None` keeps the endpoint it has.
    pub endpoint: Option<SocketAddr>,
    /// The inner prefixes of this peer: routed out to it, accepted in from it.
    pub allowed_ips: Vec<IpNet>,
    /// How long nothing may be sent before an empty packet is, 1 s to 65,535 s.
    pub persistent_keepalive: Option<Duration>,
    /// The protocols and ports that the peer may open towards us. `None`: all of them, and no flow state is kept. Empty:
    /// only answers.
    pub allow: Option<Vec<Rule>>,
    /// The protocols and ports that we may open at the peer, as far as is known. Anything else is refused at once, with an
    /// ICMP error. `None`: everything is sent, and the peer decides.
    pub opens: Option<Vec<Rule>>,
    /// Whether the MTU of the path is searched for, by control frames or echoes inside the session. If not, the peer keeps
    /// [`NodeConfig::mtu`] and gets only messages that WireGuard sends too. The exception is an overlay node that greets or
    /// probes us, which is answered.
    pub mtu_discovery: bool,
    /// Whether the node finds the path to the peer by itself, among candidates and relays. The peer must be an overlay node
    /// that does the same. If not, the endpoint follows what is authenticated, as in WireGuard.
    pub finds_paths: bool,
}

impl PeerConfig {
    /// A peer with only its key configured.
    pub fn of(public_key: PeerKey) -> Self {
        Self {
            public_key,
            former_key: None,
            own_key: None,
            preshared_key: None,
            former_preshared_key: None,
            endpoint: None,
            allowed_ips: Vec::new(),
            persistent_keepalive: None,
            allow: None,
            opens: None,
            mtu_discovery: false,
            finds_paths: false,
        }
    }
}

/// A change of some parts of a peer. Everything else stays.
pub struct PeerChange {
    /// The peer to change.
    pub peer: PeerTag,
    /// `Some`: the peer is added with this key if it does not exist, and is then counted here. `None`: the peer must exist.
    pub add: Option<(PeerKey, Arc<PeerStats>)>,
    /// See [`PeerConfig::preshared_key`]. All zero removes it.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to send from now on, also in a session that is alive.
    pub endpoint: Option<SocketAddr>,
    /// See [`PeerConfig::persistent_keepalive`]. Switching it on sends an empty packet at once.
    pub persistent_keepalive: Option<Option<Duration>>,
    /// Applied in order. The cost of each is logarithmic in the number of prefixes.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// A prefix that a peer gains or loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// The peer gains it. If a different peer has it, it moves.
    Add(IpNet),
    /// The peer loses it. If a different peer has it, it stays there.
    Remove(IpNet),
}

impl PeerChange {
    /// A change that leaves an existing peer as it is.
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

/// A change from control. Changes are applied in order, each one whole or not at all.
pub enum Command {
    /// Adds a peer, or replaces the configuration of a known one. What did not change is not disturbed: the session
    /// continues, and a new preshared key counts from the next handshake on. A new public key ends the sessions, unless
    /// the earlier one is [`PeerConfig::former_key`]. Flows, withdrawn rights and what is known of the path stay. Packets
    /// from link-local sources are accepted only from a peer that itself has a prefix in the link-local range. For a peer
    /// that only `ChangePeer` has configured, a shorter prefix is enough, as in WireGuard.
    SetPeer {
        /// The peer to add or replace.
        peer: PeerTag,
        /// The whole configuration. Nothing is kept of the earlier one.
        config: Box<PeerConfig>,
        /// Where the peer is counted from now on.
        stats: Arc<PeerStats>,
    },
    /// Changes parts of a peer, or adds it. Parts that the change does not name stay.
    ChangePeer(Box<PeerChange>),
    /// Removes a peer and its session. Its flows and its replay state are kept for two hours, in case it is
    /// added again.
    RemovePeer(PeerTag),
    /// Sets our own tunnel keys. Sessions and handshakes under any other key end at once. Peers keep their configuration
    /// and endpoint, and are called again when there is a reason to. A peer whose key is now our own is removed.
    SetPrivateKeys {
        /// The key that we speak as. All zero is not allowed. `None`: nothing is sent or understood.
        present: Option<Zeroizing<[u8; 32]>>,
        /// Former keys, [`crate::Node::MAX_FORMER_KEYS`] at most. They are still answered. Sessions under them continue and
        /// are renewed under them, until the peer calls by the present key. A peer that does not answer is called by each
        /// of the keys in turn.
        former: Vec<Zeroizing<[u8; 32]>>,
    },
    /// The interface came up or went down. It is up at first. While it is down nothing is sent or taken. When it goes down
    /// all sessions and handshakes end, and waiting packets are dropped. Peers keep their configuration and endpoint. When
    /// it comes up, peers with persistent keepalive are called.
    SetUp(bool),
    /// The addresses of a peer's host name, the best one first. Only [`crate::Node::MAX_CANDIDATES`] of them count. They
    /// change nothing while a session works. When the peer is silent or has no session, an initiation goes to each in turn.
    /// The address that the answer comes from becomes the endpoint.
    SetCandidates(PeerTag, Vec<SocketAddr>),
    /// The peer's host name was replaced by a different endpoint, so the addresses of the former name are not called any
    /// more. If the new endpoint is a name, its addresses are called as soon as they are known. A session continues
    /// meanwhile.
    ForgetCandidates(PeerTag),
    /// The addresses of the relays that we use, [`crate::Node::MAX_RELAYS`] at most. Channels, and messages of STUN and of relays,
    /// are taken from these addresses alone. Peers that are reached through a relay stay where they are.
    SetRelays(Vec<SocketAddr>),
    /// The addresses of this host that peers with [`PeerConfig::finds_paths`] are told. They replace those before, and at
    /// most [`crate::Node::MAX_LOCAL_CANDIDATES`] count.
    SetLocalCandidates {
        /// The addresses.
        candidates: Vec<Candidate>,
        /// Which of them a peer is told.
        scope: CandidateScope,
        /// The NAT in front of this host. It matters for counters alone.
        nat: Nat,
    },
    /// Where a peer with [`PeerConfig::finds_paths`] may be reached. It replaces what was said before.
    SetRemote {
        /// The peer.
        peer: PeerTag,
        /// Addresses and channels.
        remote: Remote,
    },
    /// An unverified ICMP "too big" says that this path carries inner packets of at most this many bytes. It only chooses
    /// what is probed next.
    TooBig(PathTag, u16),
    /// Says this to the peer's control, inside the session. It is sent once, if the peer is an overlay node that understands it.
    /// Without a session it waits for one for a minute. At most [`overlay_wire::control::MAX_WORD_LEN`] bytes.
    SayWord(PeerTag, Box<[u8]>),
    /// Hands this to the peer's control, inside the session. It is sent once, unless the peer is known not to take it. Without a
    /// session it is dropped. At most [`overlay_wire::control::MAX_PARCEL_LEN`] bytes.
    SendParcel(PeerTag, Box<[u8]>),
    /// Calls a peer without a session, everywhere at once.
    Call(PeerTag),
    /// Calls the peer if a word waits for a session with it.
    CallForWord(PeerTag),
    /// The peer has the present preshared key. If it has not proven that yet, it is called now: it may not be able to call us.
    /// A session goes on.
    KnowsPresharedKey(PeerTag),
    /// The addresses and forwarding of [`NodeConfig`].
    SetAddresses {
        /// See [`NodeConfig::addresses`].
        addresses: Vec<IpAddr>,
        /// See [`NodeConfig::forward`].
        forward: bool,
    },
    /// The prefixes in which only trusted peers have addresses. A packet to any other address in them is refused as
    /// prohibited rather than as unreachable.
    SetPools(Vec<IpNet>),
    /// New inner MTUs.
    SetMtu {
        /// See [`NodeConfig::mtu`].
        mtu: u16,
        /// See [`NodeConfig::max_mtu`].
        max: u16,
    },
    /// The wall clock was set. Handshake timestamps follow from the next handshake on, but never go back.
    WallClockSet(WallStep),
    /// This process, or its machine, was copied, and the other copy may run on. Sessions, handshakes and cookies end at once,
    /// and waiting packets stay. Peers that had a session are called.
    Copied {
        /// A new [`NodeConfig::seed`], which the other copy does not have.
        seed: Zeroizing<[u8; 32]>,
    },
    /// Which super-packets TUN takes from now on. See [`NodeConfig::joins`].
    SetJoins(Joins),
    /// The UDP ports of this host now. Send it before commands that add peers, add prefixes or set an allowlist. Programs
    /// may then continue flows that the node has never seen, and the node does not take those for flows that we opened. A
    /// node that never receives this command assumes that no host runs beneath it.
    HostPorts {
        /// The ports that sockets have, and the ephemeral ports that are reserved for services.
        taken: Vec<u16>,
        /// The ports that the kernel gives to programs that ask for any port.
        ephemeral: RangeInclusive<u16>,
    },
    /// Restores the flows of a peer that [`crate::Node::known_flows`] of an earlier node returned. Does nothing if the peer
    /// has no allowlist.
    RestoreFlows(PeerFlows),
    /// Restores the replay state of a peer that [`crate::Node::hand_over`] of an earlier node returned. Send it before the
    /// command that adds the peer, so that the first session has it. It is kept for two hours for a peer that does not exist.
    RestoreInitiations(PeerInitiations),
    /// Makes handshake timestamps run at least this far ahead of the wall clock, because an earlier node has used later ones.
    /// Send it before peers are added.
    RunAhead(Duration),
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The public key is our own.
    OwnKey,
    /// The peer does not exist.
    UnknownPeer,
    /// A different peer has this public key.
    KeyTaken,
    /// A different peer uses the place of this tag.
    TagTaken,
    /// There are more former keys than [`crate::Node::MAX_FORMER_KEYS`].
    TooManyKeys,
    /// There are more relays than [`crate::Node::MAX_RELAYS`].
    TooManyRelays,
    /// The relay is not one of those that we use.
    UnknownRelay,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnKey => "the public key is our own",
            Self::UnknownPeer => "there is no such peer",
            Self::KeyTaken => "a different peer has this public key",
            Self::TagTaken => "a different peer has this place",
            Self::TooManyKeys => "too many former keys",
            Self::TooManyRelays => "too many relays",
            Self::UnknownRelay => "the relay is not one of ours",
        })
    }
}

impl std::error::Error for CommandError {}
