//! Every family of metrics: its name, type, labels and help text, in the order in which a scraper reads them.
//!
//! Plain counters are listed where they are declared: those of the node and its peers in `core`, those of the engine in
//! `shell`, those of the kernel in `queues`. Families with labels are declared here. `docs/metrics.md` shows all of them.

use std::fmt;

use overlay_core::{Figure, NodeStats, PeerStats};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

use crate::engine::{QueueFigures, ShellStats};

/// What every name of a metric begins with.
pub(super) const PREFIX: &str = "overlay";

/// Samples that have a name, a type and a help text in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without the prefix, and without the suffix that its type adds.
    pub name: &'static str,
    /// What OpenMetrics calls its type.
    pub kind: Kind,
    /// The names of the labels of each sample.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the daemon is started again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1: the labels carry the information.
    Info,
}

/// Families about one subject.
#[derive(Debug)]
pub struct Group {
    /// The subject.
    pub title: &'static str,
    /// In the order in which a scraper reads them.
    pub families: Vec<Family>,
}

/// The labels of each peer's samples.
const PEER: &[&str] = &["peer", "public_key"];
/// The same, for a peer that is in one of several states.
const PEER_STATE: &[&str] = &["peer", "public_key", "state"];

pub(super) const BUILD: Family = info("build", &["version"], "The version of the daemon.");
pub(super) const INTERFACE: Family =
    info("interface", &["interface", "public_key"], "The interface and its public key.");
pub(super) const START_TIME: Family =
    gauge("start_time_seconds", &[], "When the daemon was started, in seconds since 1970.");
pub(super) const MTU: Family = gauge("mtu_bytes", &[], "MTU of inner packets to a peer whose path is not known yet.");
pub(super) const MAX_MTU: Family =
    gauge("max_mtu_bytes", &[], "MTU of the kernel interface: the largest MTU that a path can turn out to have.");
pub(super) const WARNINGS: Family =
    gauge("warnings", &[], "Things that do not work as the config asks; `overlay status` lists them.");

pub(super) const DROPPED: Family = counter("dropped_packets", &["reason"], "Packets dropped, by reason.");

const ATTEMPT: &[&str] = &["method", "nat"];
pub(super) const PATH_ATTEMPTS: Family = counter(
    "path_attempts",
    ATTEMPT,
    "Attempts to reach a peer over one pair of addresses: `relay` through a relay, `private` and `public` at an address that the \
     peer has named, `peer_reflexive` at one that it was heard from; `nat` is the mapping of our own NAT.",
);
pub(super) const PATH_ATTEMPTS_SUCCEEDED: Family = counter(
    "path_attempts_succeeded",
    ATTEMPT,
    "Attempts to reach a peer over one pair of addresses that it has answered.",
);

pub(super) const OFFLOAD: Family =
    gauge("offload", &["offload", "state"], "State of each offload: 1 for the state that it is in, 0 for the others.");

pub(super) const RESTORED: Family = counter(
    "host_restored",
    &["what"],
    "Things that another program removed from this host and that were restored: `address`, `link`, `mtu`, `route`, \
     `rule` or `nft_table`.",
);
pub(super) const HOST_STATE: Family = gauge(
    "host_state",
    &["state"],
    "Whether everything that `up` added to this host is there: 1 for the state that it is in, 0 for the others.",
);
pub(super) const GUARD_DROPPED: Family = counter(
    "guard_dropped_packets",
    &["rule"],
    "Packets that our nft table dropped: `weak_host` went to a virtual IP through a different interface, `outside_tunnel` was \
     covered by a /0 and would have left outside the tunnel.",
);

pub(super) const AGENT_REFUSED: Family = counter(
    "agent_refused",
    &["reason"],
    "What a rendezvous or a peer has shown to this agent and was refused, by reason. Only in agent mode.",
);

pub(super) const FRIEND_PARCELS: Family = counter(
    "friend_parcels",
    &["what"],
    "Endpoints that trusted peers carry for each other: `asked`, sent to find a peer; `answered`, sent back to one that was \
     looking for us; `handed`, carried for two others; `refused`, not carried, because there was no room or one of them is not \
     trusted here. Only in agent mode.",
);

pub(super) const LAN_ANNOUNCEMENTS: Family = counter(
    "lan_announcements",
    &["result"],
    "Announcements on the links of this host: `sent`; `found`, of a trusted peer; `foreign`, for somebody else or from a different \
     network; `malformed`; `overrun`, too many at once. Only in agent mode.",
);

pub(super) const NAMED: Family = gauge("named_agents", &[], "Agents that this host finds by name. Only in agent mode.");
pub(super) const NAME_QUESTIONS: Family = counter(
    "name_questions",
    &["result"],
    "DNS questions to this agent: `answered`; `negative`, no such name or record; `foreign`, not a name of the network; `stranger`, \
     not asked by this host; `malformed`; `overrun`, too many at once. Only in agent mode.",
);

pub(super) const PEERS: Family = gauge("peers", &[], "Peers that are configured.");
pub(super) const LATEST_HANDSHAKE: Family = gauge(
    "latest_handshake_seconds",
    PEER,
    "When the last handshake with the peer was completed, in seconds since 1970; absent before the first.",
);
pub(super) const PEER_STATES: Family =
    gauge("peer_state", PEER_STATE, "State of the peer: 1 for the state that it is in, 0 for the others.");
pub(super) const PEER_PATH: Family = gauge(
    "peer_path",
    &["peer", "public_key", "kind"],
    "Whether packets to the peer go `direct` or through a `relay`: 1 for the kind in use; absent without an endpoint.",
);
pub(super) const PATH_MTU: Family = gauge(
    "peer_path_mtu_bytes",
    PEER,
    "The longest inner packet that is sent to the peer whole; absent while nothing is known of the path.",
);
pub(super) const PATH_MTU_STATE: Family = gauge(
    "peer_path_mtu_state",
    PEER_STATE,
    "How well the MTU of the path to the peer is known: 1 for the state that it is in, 0 for the others.",
);

/// All families.
pub fn groups() -> Vec<Group> {
    let group = |title, families| Group { title, families };
    let node = NodeStats::COUNTERS.iter().map(Family::of_counter);
    let queues = QueueFigures::COUNTERS.iter().map(Family::of_counter);
    let queues = queues.chain(QueueFigures::SIZES.iter().map(Family::of_size));
    let peers = [PEERS].into_iter().chain(PeerStats::COUNTERS.iter().map(Family::of_peers));
    vec![
        group("The daemon", vec![BUILD, INTERFACE, START_TIME, MTU, MAX_MTU, WARNINGS]),
        group("Drops", vec![DROPPED]),
        group("Handshakes and paths", node.chain([PATH_ATTEMPTS, PATH_ATTEMPTS_SUCCEEDED]).collect()),
        group("The engine thread", ShellStats::COUNTERS.iter().map(Family::of_counter).collect()),
        group("Queues of the kernel", queues.collect()),
        group("Offloads", vec![OFFLOAD]),
        group("The host", vec![RESTORED, HOST_STATE, GUARD_DROPPED]),
        group("The agent", vec![AGENT_REFUSED, FRIEND_PARCELS, LAN_ANNOUNCEMENTS, NAMED, NAME_QUESTIONS]),
        group("Peers", peers.chain([LATEST_HANDSHAKE, PEER_STATES, PEER_PATH, PATH_MTU, PATH_MTU_STATE]).collect()),
    ]
}

impl Family {
    /// The counter of a table, without labels.
    pub(super) fn of_counter<S, V>(figure: &Figure<S, V>) -> Self {
        counter(figure.name, &[], figure.help)
    }

    /// The size of a table, without labels.
    pub(super) fn of_size<S, V>(figure: &Figure<S, V>) -> Self {
        gauge(figure.name, &[], figure.help)
    }

    /// The counter of a table, with a sample for each peer.
    pub(super) fn of_peers<S, V>(figure: &Figure<S, V>) -> Self {
        counter(figure.name, PEER, figure.help)
    }

    /// Writes what precedes the samples, and returns where they go.
    pub(super) fn begin<'o>(&self, out: &'o mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'o>, fmt::Error> {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
        };
        out.encode_descriptor(self.name, self.help, None, kind)
    }
}

impl Kind {
    /// Its name in OpenMetrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Family {
    /// As its samples are written, with the names of the labels: `overlay_dropped_packets_total{reason}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        write!(f, "{PREFIX}_{}{suffix}", self.name)?;
        if self.labels.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.labels.join(",")) }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn info(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Info, labels, help }
}
