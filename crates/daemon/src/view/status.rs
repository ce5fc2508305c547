//! The answer to "how are you?": JSON of the local API and of `overlay status --json`, schema `overlay.status.v1`.
//!
//! Fields are only ever added. Units stand in the names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{PathBuf, absolute};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{DropReason, Instant, NodeStats, Protocol, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PathMtuStatus, StatusWarning, View};
use crate::config::Endpoint;
use crate::device::table::{Handshake, InterfaceEntry, PeerEntry, PeerState};
use crate::engine::OffloadState;
use crate::host::{HostFacts, HostStatus};
use crate::keys::encode_public;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Names this shape of JSON.
    #[schemars(extend("const" = Self::SCHEMA))]
    pub schema: Cow<'static, str>,
    /// Version of the daemon.
    pub version: Cow<'static, str>,
    /// Our own end.
    pub interface: InterfaceStatus,
    /// In the order of the config.
    pub peers: Vec<PeerStatus>,
    /// Packets dropped, by reason. Every reason is there, also with zero.
    pub drops: BTreeMap<String, u64>,
    /// What the node and the engine thread counted, and what the kernel dropped for want of room.
    pub counters: BTreeMap<String, u64>,
    /// Sizes of the kernel's buffers and what is in them, bytes.
    #[serde(default)]
    pub queues: BTreeMap<String, u64>,
    /// Which offloads are in use.
    #[serde(default)]
    pub offloads: BTreeMap<String, OffloadState>,
    /// How what `up` has added to this host fares; absent for `overlay wg`, which adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStatus>,
    /// What does not work as the config asks, and what to do about it.
    #[serde(default)]
    pub warnings: Vec<StatusWarning>,
}

/// Our own end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Name of the kernel interface.
    pub name: String,
    /// Our public key, base64; absent without a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The virtual IPs with their prefixes.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// MTU of inner packets to a peer of whose path nothing is known, bytes.
    pub mtu: u16,
    /// MTU of the kernel interface, bytes: a path may turn out to carry this much.
    #[serde(default)]
    pub max_mtu: u16,
    /// The UDP port that is bound.
    pub listen_port: u16,
    /// Mark on our own datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// Whether peers may reach destinations beyond this host.
    pub forward: bool,
    /// The config in force, an absolute path.
    pub config: PathBuf,
    /// How long the daemon has been running, suspend included.
    pub uptime_seconds: u64,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its name in the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its public key, base64.
    pub public_key: String,
    /// Where we send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The endpoint's host name and port, if it was configured by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_name: Option<String>,
    /// What is ours to route to it.
    #[schemars(with = "Vec<String>")]
    pub allowed_ips: Vec<IpNet>,
    /// What follows from the facts.
    pub state: PeerState,
    /// When the last handshake was completed, seconds since 1970.
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
    /// Outer bytes received and authenticated, as `wg show` counts them.
    pub received_wire_bytes: u64,
    /// Outer bytes sent, as `wg show` counts them.
    pub sent_wire_bytes: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Seconds between keepalives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_keepalive: Option<u16>,
    /// What it may open towards us; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Packets dropped on its behalf, either direction.
    pub drops: u64,
    /// What is known of the longest packet that reaches it; absent while nothing was told: then it is the interface's `mtu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<PathMtuStatus>,
}

impl InterfaceStatus {
    /// [`InterfaceStatus::max_mtu`]; of a daemon that does not tell it, its `mtu`.
    pub fn most(&self) -> u16 {
        self.max_mtu.max(self.mtu)
    }
}

impl Status {
    /// Names this shape of JSON.
    pub const SCHEMA: &'static str = "overlay.status.v1";
}

impl View {
    pub(super) fn status_at(&self, now: Instant) -> Status {
        let state = self.table.read();
        let node = node_counters(&self.node);
        let figures = self.queue_figures();
        let counters = node.chain(self.shell.list()).chain(figures.counters());
        Status {
            schema: Status::SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            interface: interface_status(&state.interface, now.since(self.started)),
            peers: state.peers().into_iter().map(|peer| peer_status(peer, now, state.interface.mtu)).collect(),
            drops: DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), self.node.drops(*reason))).collect(),
            counters: counters.map(named).collect(),
            queues: figures.sizes().map(named).collect(),
            offloads: self.offloads().list().map(|(offload, state)| (offload.name().to_owned(), state)).collect(),
            host: self.host().map(HostFacts::status),
            warnings: self.warnings(),
        }
    }
}

fn named((name, _, value): (&str, &str, u64)) -> (String, u64) {
    (name.to_owned(), value)
}

/// The node's counters as (name, help, value).
pub(crate) fn node_counters(node: &NodeStats) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    [
        ("initiations_sent", "Handshake initiations sent.", node.initiations_sent.value()),
        (
            "initiations_received",
            "Handshake initiations received and authenticated.",
            node.initiations_received.value(),
        ),
        ("handshakes_completed", "Handshakes completed, whoever began them.", node.handshakes_completed.value()),
        ("cookies_sent", "Cookie replies sent.", node.cookies_sent.value()),
        ("peers_suspected", "Times that a peer with a session stopped to answer.", node.peers_suspected.value()),
        (
            "questions_sent",
            "Questions to peers that had nothing to say, whether they are there.",
            node.questions_sent.value(),
        ),
        ("mtu_probes_sent", "Probes for the MTU of a path.", node.mtu_probes_sent.value()),
        ("mtu_falls", "Times that a path turned out to carry less than before.", node.mtu_falls.value()),
        ("packets_cut", "Packets that went to a peer in pieces.", node.packets_cut.value()),
        ("packets_joined", "Packets of peers that came in pieces.", node.packets_joined.value()),
    ]
    .into_iter()
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
        // Whoever reads it may be in another folder.
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

/// An entry of an allowlist as the config writes it, `tcp/8000-8010`.
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
