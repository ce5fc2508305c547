//! What Prometheus reads: counters as they stand when somebody scrapes, in OpenMetrics text.
//!
//! Nothing is counted twice: the collector reads the atomics that the engine writes. Every reason for a drop is there
//! from the first scrape on, also with zero, so that an alert on a rate never misses the first packet.

use std::fmt;
use std::sync::Arc;

use overlay_core::{DropReason, Instant, PeerStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::device::table::PeerEntry;
use crate::engine::{OffloadState, Offloads, now};
use crate::host::{HostFacts, HostState};
use crate::keys::encode_public;
use crate::view::{PathMtuState, PeerState, View, node_counters};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything there is to scrape.
pub fn text(view: &Arc<View>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(view.clone())));
    let mut out = String::new();
    // Writing to a string does not fail; what was written is shown in any case.
    let _ = encode(&mut out, &registry);
    out
}

struct Scrape(Arc<View>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// A family of counters with one member for each peer: name, help, where the value comes from.
type PeerCounter = (&'static str, &'static str, fn(&PeerStats) -> u64);

const PEER_COUNTERS: &[PeerCounter] = &[
    ("overlay_received_bytes", "Bytes of inner packets received from the peer.", |s| s.received_bytes.value()),
    ("overlay_sent_bytes", "Bytes of inner packets sent to the peer.", |s| s.sent_bytes.value()),
    ("overlay_received_packets", "Inner packets received from the peer.", |s| s.received_packets.value()),
    ("overlay_sent_packets", "Inner packets sent to the peer.", |s| s.sent_packets.value()),
    ("overlay_received_wire_bytes", "Outer bytes received from the peer and authenticated.", |s| {
        s.received_wire_bytes.value()
    }),
    ("overlay_sent_wire_bytes", "Outer bytes sent to the peer.", |s| s.sent_wire_bytes.value()),
    ("overlay_handshakes", "Handshakes completed with the peer.", |s| s.handshakes.value()),
    ("overlay_peer_dropped_packets", "Packets dropped on behalf of the peer, either direction.", |s| s.drops.value()),
];

impl Collector for Scrape {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(view) = self;
        let state = view.table().read();
        let interface = &state.interface;

        let mut info = out.encode_descriptor("overlay_build", "What was built.", None, MetricType::Info)?;
        info.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let mut info = out.encode_descriptor("overlay_interface", "Our own end.", None, MetricType::Info)?;
        let key = interface.public_key.as_ref().map(encode_public).unwrap_or_default();
        info.encode_info(&[("interface", interface.name.as_str()), ("public_key", key.as_str())])?;
        let started = interface.started.since_1970().as_secs_f64();
        gauge(&mut out, "overlay_start_time_seconds", "When the daemon was started, seconds since 1970.", started)?;
        let help = "MTU of inner packets to a peer of whose path nothing is known.";
        gauge(&mut out, "overlay_mtu_bytes", help, u32::from(interface.mtu))?;
        let help = "MTU of the kernel interface: the most that a path may turn out to carry.";
        gauge(&mut out, "overlay_max_mtu_bytes", help, u32::from(interface.max_mtu))?;

        let warnings = view.warnings().len() as u64;
        gauge(
            &mut out,
            "overlay_warnings",
            "Things that do not work as the config asks, as `overlay status` lists them.",
            warnings,
        )?;

        let help = "Packets dropped, by reason.";
        let mut family = out.encode_descriptor("overlay_dropped_packets", help, None, MetricType::Counter)?;
        for reason in DropReason::ALL {
            let labels = [("reason", reason.name())];
            let value = view.node_stats().drops(*reason);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        let figures = view.queue_figures();
        let counters = node_counters(view.node_stats()).chain(view.shell_stats().list()).chain(figures.counters());
        for (name, help, value) in counters {
            let name = format!("overlay_{name}");
            let mut counter = out.encode_descriptor(&name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        for (name, help, value) in figures.sizes() {
            gauge(&mut out, &format!("overlay_{name}"), help, value)?;
        }
        encode_offloads(&mut out, view.offloads())?;
        if let Some(host) = view.host() {
            encode_host(&mut out, host)?;
        }
        encode_peers(&mut out, &state.peers(), now())
    }
}

/// One sample for each state that an offload can be in, 1 for the one it is in.
fn encode_offloads(out: &mut DescriptorEncoder<'_>, offloads: &Offloads) -> fmt::Result {
    let help = "Offloads by state: 1 for the state each is in.";
    let mut family = out.encode_descriptor("overlay_offload", help, None, MetricType::Gauge)?;
    for (offload, state) in offloads.list() {
        for possible in OffloadState::ALL {
            let labels = [("offload", offload.name()), ("state", possible.name())];
            family.encode_family(&labels)?.encode_gauge(&u64::from(possible == state))?;
        }
    }
    Ok(())
}

/// What became of the footprint on the host.
fn encode_host(out: &mut DescriptorEncoder<'_>, host: &HostFacts) -> fmt::Result {
    let help = "Things that another program had taken away from this host and that were put back, by kind.";
    let mut family = out.encode_descriptor("overlay_host_restored", help, None, MetricType::Counter)?;
    for (part, count) in host.restored() {
        let labels = [("what", part.name())];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let help = "Whether everything that up adds to this host is there: 1 for the state it is in.";
    let mut family = out.encode_descriptor("overlay_host_state", help, None, MetricType::Gauge)?;
    let state = host.state();
    for possible in HostState::ALL {
        family.encode_family(&[("state", possible.name())])?.encode_gauge(&u64::from(possible == state))?;
    }
    let help = "Packets that our nft table dropped, by the rule that dropped them.";
    let mut family = out.encode_descriptor("overlay_guard_dropped_packets", help, None, MetricType::Counter)?;
    for (rule, count) in host.guard_drops() {
        family.encode_family(&[("rule", rule)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

fn encode_peers(out: &mut DescriptorEncoder<'_>, peers: &[&PeerEntry], now: Instant) -> fmt::Result {
    gauge(out, "overlay_peers", "Peers configured.", peers.len() as u64)?;
    let keys: Vec<String> = peers.iter().map(|peer| encode_public(&peer.public_key)).collect();
    let labelled = || {
        peers.iter().zip(&keys).map(|(peer, key)| {
            let name = peer.name.as_deref().unwrap_or_default();
            ([("peer", name), ("public_key", key.as_str())], *peer)
        })
    };
    for (name, help, value) in PEER_COUNTERS {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, peer) in labelled() {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(&peer.stats), None)?;
        }
    }
    let help = "When the last handshake with the peer was completed, seconds since 1970; absent before the first.";
    let mut family = out.encode_descriptor("overlay_latest_handshake_seconds", help, None, MetricType::Gauge)?;
    for (labels, peer) in labelled() {
        if let Some(handshake) = peer.handshake {
            let at = handshake.wall.since_1970().as_secs_f64();
            family.encode_family(&labels)?.encode_gauge(&at)?;
        }
    }
    let help = "How things stand with the peer: 1 for the state it is in.";
    let mut family = out.encode_descriptor("overlay_peer_state", help, None, MetricType::Gauge)?;
    for ([name, key], peer) in labelled() {
        let state = peer.state(now, peer.stats.sent_wire_bytes.value());
        for possible in PeerState::ALL {
            let labels = [name, key, ("state", possible.name())];
            family.encode_family(&labels)?.encode_gauge(&u64::from(possible == state))?;
        }
    }
    let known = || labelled().filter_map(|(labels, peer)| Some((labels, peer.path_mtu?)));
    let help = "The longest inner packet that is sent to the peer whole; absent while nothing is known of the path.";
    let mut family = out.encode_descriptor("overlay_peer_path_mtu_bytes", help, None, MetricType::Gauge)?;
    for (labels, path) in known() {
        family.encode_family(&labels)?.encode_gauge(&u32::from(path.told.mtu))?;
    }
    let help = "How well the MTU of the path to the peer is known: 1 for the state it is in.";
    let mut family = out.encode_descriptor("overlay_peer_path_mtu_state", help, None, MetricType::Gauge)?;
    for ([name, key], path) in known() {
        for possible in PathMtuState::ALL {
            let labels = [name, key, ("state", possible.name())];
            let is_in = possible == PathMtuState::from(path.told.state);
            family.encode_family(&labels)?.encode_gauge(&u64::from(is_in))?;
        }
    }
    Ok(())
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
    out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

#[cfg(test)]
mod tests;
