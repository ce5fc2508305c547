//! The content of a status request: JSON of the local API and of `overlay status --json`, schema `overlay.status.v1`.
//!
//! Fields are only ever added. Units are part of the names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{PathBuf, absolute};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{DropReason, Instant, NodeStats, Protocol, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PathKind, PathMtuStatus, StatusWarning, View};
use crate::agent::{FriendCounts, LanCounts};
use crate::config::Endpoint;
use crate::device::table::{Handshake, InterfaceEntry, PeerEntry, PeerState};
use crate::engine::{OffloadState, QueueFigures, ShellStats};
use crate::host::{HostFacts, HostStatus};
use crate::keys::encode_public;
use crate::names::Shown as NamesShown;

/// The complete status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The name of this JSON schema.
    #[schemars(extend("const" = Self::SCHEMA))]
    pub schema: Cow<'static, str>,
    /// The version of the daemon.
    pub version: Cow<'static, str>,
    /// Our own side.
    pub interface: InterfaceStatus,
    /// The peers, in the order of the config.
    pub peers: Vec<PeerStatus>,
    /// Dropped packets by reason. Every reason is listed, even if it is zero.
    pub drops: BTreeMap<String, u64>,
    /// Counters of the node and the engine thread, and packets that the kernel dropped for lack of space.
    pub counters: BTreeMap<String, u64>,
    /// The size and content of the kernel's buffers, in bytes.
    #[serde(default)]
    pub queues: BTreeMap<String, u64>,
    /// Which offloads are in use.
    #[serde(default)]
    pub offloads: BTreeMap<String, OffloadState>,
    /// The state of what `up` has added to this host. Absent for `overlay wg`, which adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStatus>,
    /// Endpoints that trusted peers carry for each other: sent to find a peer (`asked`), sent back to one that was looking for us
    /// (`answered`), carried for two others (`handed`), and not carried (`refused`). Empty in static mode.
    #[serde(default)]
    pub friend_parcels: BTreeMap<String, u64>,
    /// Announcements on the links of this host: ours (`sent`), those of trusted peers (`found`), and those that were not for us
    /// (`foreign`), not valid (`malformed`) or too many (`overrun`). Empty in static mode.
    #[serde(default)]
    pub lan_announcements: BTreeMap<String, u64>,
    /// How agents are found by name. Absent if they are not: in static mode, and with `dns = "off"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesShown>,
    /// What does not work as the config asks, and what to do about it.
    #[serde(default)]
    pub warnings: Vec<StatusWarning>,
}

/// Our own side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// The name of the kernel interface.
    pub name: String,
    /// Our public key in base64. Absent without a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The virtual IPs with their prefixes.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// The MTU in bytes of inner packets to a peer about whose path nothing is known.
    pub mtu: u16,
    /// The MTU of the kernel interface in bytes: the most that a path may turn out to carry.
    #[serde(default)]
    pub max_mtu: u16,
    /// The UDP port that is bound.
    pub listen_port: u16,
    /// The mark on our own datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// The absolute path of the config in force.
    pub config: PathBuf,
    /// How long the daemon has been running, including suspend.
    pub uptime_seconds: u64,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// The peer's name in the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The peer's public key in base64.
    pub public_key: String,
    /// Where we currently send: an address of the peer, or of a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Whether that is a relay. Absent without an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathKind>,
    /// The endpoint's host name and port, if it was configured by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_name: Option<String>,
    /// The prefixes that are routed to the peer.
    #[schemars(with = "Vec<String>")]
    pub allowed_ips: Vec<IpNet>,
    /// The peer's state, derived from the facts.
    pub state: PeerState,
    /// When the last handshake completed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_handshake: Option<u64>,
    /// How long ago that was, on a clock that nobody sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_handshake_age_seconds: Option<u64>,
    /// Bytes of inner packets received.
    pub received_bytes: u64,
    /// Bytes of inner packets sent.
    pub sent_bytes: u64,
    /// Inner packets received.
    pub received_packets: u64,
    /// Inner packets sent.
    pub sent_packets: u64,
    /// Outer bytes received and authenticated, as counted by `wg show`.
    pub received_wire_bytes: u64,
    /// Outer bytes sent, as counted by `wg show`.
    pub sent_wire_bytes: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Seconds between keepalives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_keepalive: Option<u16>,
    /// What the peer may open towards us. Absent if it may open everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Packets dropped for this peer, in either direction.
    pub drops: u64,
    /// What is known about the longest packet that reaches the peer. Absent until something is known. The MTU is then
    /// the interface's `mtu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<PathMtuStatus>,
}

impl InterfaceStatus {
    /// Returns [`InterfaceStatus::max_mtu`], or `mtu` if the daemon does not report it.
    pub fn most(&self) -> u16 {
        self.max_mtu.max(self.mtu)
    }
}

impl Status {
    /// The name of this JSON schema.
    pub const SCHEMA: &'static str = "overlay.status.v1";
}

impl View {
    pub(super) fn status_at(&self, now: Instant) -> Status {
        let state = self.table.read();
        let queues = self.queue_figures();
        let node = NodeStats::COUNTERS.iter().map(|counter| (counter.name, counter.value(&self.node)));
        let shell = ShellStats::COUNTERS.iter().map(|counter| (counter.name, counter.value(&self.shell)));
        Status {
            schema: Status::SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            interface: interface_status(&state.interface, now.since(self.started)),
            peers: state.peers().into_iter().map(|peer| peer_status(peer, now, state.interface.mtu)).collect(),
            drops: named(DropReason::ALL.iter().map(|reason| (reason.name(), self.node.drops(*reason)))),
            counters: named(node.chain(shell).chain(queues.told(QueueFigures::COUNTERS))),
            queues: named(queues.told(QueueFigures::SIZES)),
            offloads: self.offloads().list().map(|(offload, state)| (offload.name().to_owned(), state)).collect(),
            host: self.host().map(HostFacts::status),
            friend_parcels: named(self.friends().into_iter().flat_map(FriendCounts::list)),
            lan_announcements: named(self.lan().into_iter().flat_map(LanCounts::list)),
            names: self.names(),
            warnings: self.warnings(),
        }
    }
}

fn named<'a>(figures: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    figures.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn interface_status(interface: &InterfaceEntry, uptime: Duration) -> InterfaceStatus {
    InterfaceStatus {
        name: interface.name.clone(),
        public_key: interface.public_key.as_ref().map(encode_public),
        addresses: interface.addresses.clone(),
        mtu: interface.mtu,
        max_mtu: interface.max_mtu,
        listen_port: interface.listen_port,
        fwmark: interface.fwmark,
        forward: interface.forward,
        // The reader may be in a different working directory.
        config: absolute(&interface.config_file).unwrap_or_else(|_| interface.config_file.clone()),
        uptime_seconds: uptime.as_secs(),
    }
}

fn peer_status(peer: &PeerEntry, now: Instant, configured_mtu: u16) -> PeerStatus {
    let stats = &peer.stats;
    let since_1970 = |handshake: Handshake| handshake.wall.since_1970().as_secs();
    PeerStatus {
        name: peer.name.clone(),
        public_key: encode_public(&peer.public_key),
        endpoint: peer.endpoint,
        path: peer.is_relayed().map(PathKind::of),
        endpoint_name: match peer.configured_endpoint() {
            Some(name @ Endpoint::Name { .. }) => Some(name.to_string()),
            _ => None,
        },
        allowed_ips: peer.allowed_ips.iter().copied().collect(),
        state: peer.state(now, stats.sent_wire_bytes.value()),
        latest_handshake: peer.handshake.map(since_1970),
        latest_handshake_age_seconds: peer.handshake.map(|handshake| now.since(handshake.at).as_secs()),
        received_bytes: stats.received_bytes.value(),
        sent_bytes: stats.sent_bytes.value(),
        received_packets: stats.received_packets.value(),
        sent_packets: stats.sent_packets.value(),
        received_wire_bytes: stats.received_wire_bytes.value(),
        sent_wire_bytes: stats.sent_wire_bytes.value(),
        handshakes: stats.handshakes.value(),
        persistent_keepalive: peer.persistent_keepalive,
        allow: peer.allow.as_ref().map(|rules| rules.iter().map(rule_text).collect()),
        drops: stats.drops.value(),
        path_mtu: peer.path_mtu.map(|known| PathMtuStatus::of(&known, configured_mtu)),
    }
}

/// Formats an allowlist entry as in the config, such as `tcp/8000-8010`.
pub fn rule_text(rule: &Rule) -> String {
    let protocol = match rule.protocol {
        Protocol::Icmp => Cow::Borrowed("icmp"),
        Protocol::Tcp => Cow::Borrowed("tcp"),
        Protocol::Udp => Cow::Borrowed("udp"),
        Protocol::Number(number) => Cow::Owned(number.to_string()),
    };
    match &rule.ports {
        None => protocol.into_owned(),
        Some(ports) if ports.start() == ports.end() => format!("{protocol}/{}", ports.start()),
        Some(ports) => format!("{protocol}/{}-{}", ports.start(), ports.end()),
    }
}
