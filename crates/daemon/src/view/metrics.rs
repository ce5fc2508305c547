//! What Prometheus reads: the counters at the time of the scrape, in OpenMetrics text.
//!
//! Nothing is counted twice: the collector reads the atomics that the engine writes. Every reason for a drop is there
//! from the first scrape on, also with zero, so that an alert on a rate never misses the first packet.

use std::fmt;
use std::sync::Arc;

use overlay_core::{Attempts, DropReason, Instant, Method, Nat, NodeStats, PeerStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::registry::Registry;

use crate::device::table::{InterfaceEntry, PeerEntry};
use crate::engine::{OffloadState, Offloads, QueueFigures, ShellStats, now};
use crate::host::{HostFacts, HostState};
use crate::keys::encode_public;
use crate::names::Shown as NamesShown;
use crate::view::{PathKind, PathMtuState, PeerState, View};

mod families;

pub use families::{Family, Group, Kind, groups};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns all metrics as OpenMetrics text.
pub fn text(view: &Arc<View>) -> String {
    let mut registry = Registry::with_prefix(families::PREFIX);
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

impl Collector for Scrape {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(view) = self;
        let state = view.table().read();
        encode_daemon(&mut out, &state.interface, view.warnings().len() as u64)?;
        let mut drops = families::DROPPED.begin(&mut out)?;
        for reason in DropReason::ALL {
            let labels = [("reason", reason.name())];
            drops
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&view.node_stats().drops(*reason), None)?;
        }
        for figure in NodeStats::COUNTERS {
            counter(&mut out, Family::of_counter(figure), figure.value(view.node_stats()))?;
        }
        encode_attempts(&mut out, view.node_stats())?;
        for figure in ShellStats::COUNTERS {
            counter(&mut out, Family::of_counter(figure), figure.value(view.shell_stats()))?;
        }
        let queues = view.queue_figures();
        for figure in QueueFigures::COUNTERS {
            figure.value(&queues).map_or(Ok(()), |count| counter(&mut out, Family::of_counter(figure), count))?;
        }
        for figure in QueueFigures::SIZES {
            figure.value(&queues).map_or(Ok(()), |size| gauge(&mut out, Family::of_size(figure), size))?;
        }
        encode_offloads(&mut out, view.offloads())?;
        if let Some(host) = view.host() {
            encode_host(&mut out, host)?;
        }
        if let Some(refusals) = view.refusals() {
            encode_counts(&mut out, families::AGENT_REFUSED, "reason", refusals.list())?;
        }
        if let Some(friends) = view.friends() {
            encode_counts(&mut out, families::FRIEND_PARCELS, "what", friends.list())?;
        }
        if let Some(lan) = view.lan() {
            encode_counts(&mut out, families::LAN_ANNOUNCEMENTS, "result", lan.list())?;
        }
        if let Some(names) = view.names() {
            encode_names(&mut out, &names)?;
        }
        encode_peers(&mut out, &state.peers(), now())
    }
}

/// The daemon itself and its interface.
fn encode_daemon(out: &mut DescriptorEncoder<'_>, interface: &InterfaceEntry, warnings: u64) -> fmt::Result {
    families::BUILD.begin(out)?.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
    let key = interface.public_key.as_ref().map(encode_public).unwrap_or_default();
    let labels = [("interface", interface.name.as_str()), ("public_key", key.as_str())];
    families::INTERFACE.begin(out)?.encode_info(&labels)?;
    gauge(out, families::START_TIME, interface.started.since_1970().as_secs_f64())?;
    gauge(out, families::MTU, u32::from(interface.mtu))?;
    gauge(out, families::MAX_MTU, u32::from(interface.max_mtu))?;
    gauge(out, families::WARNINGS, warnings)
}

/// Attempts to reach peers, one sample for each method and each kind of NAT.
fn encode_attempts(out: &mut DescriptorEncoder<'_>, stats: &NodeStats) -> fmt::Result {
    let all = || Method::ALL.into_iter().flat_map(|method| Nat::ALL.map(|nat| (method, nat)));
    let made: fn(&Attempts) -> u64 = |attempts| attempts.made.value();
    let succeeded: fn(&Attempts) -> u64 = |attempts| attempts.succeeded.value();
    for (family, count) in [(families::PATH_ATTEMPTS, made), (families::PATH_ATTEMPTS_SUCCEEDED, succeeded)] {
        let mut family = family.begin(out)?;
        for (method, nat) in all() {
            let labels = [("method", method.name()), ("nat", nat.name())];
            let count = count(stats.attempts(method, nat));
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

/// One sample for each state that an offload can be in.
fn encode_offloads(out: &mut DescriptorEncoder<'_>, offloads: &Offloads) -> fmt::Result {
    let mut family = families::OFFLOAD.begin(out)?;
    for (offload, state) in offloads.list() {
        for possible in OffloadState::ALL {
            let labels = [("offload", offload.name()), ("state", possible.name())];
            family.encode_family(&labels)?.encode_gauge(&u64::from(possible == state))?;
        }
    }
    Ok(())
}

/// The state of the footprint on the host.
fn encode_host(out: &mut DescriptorEncoder<'_>, host: &HostFacts) -> fmt::Result {
    let mut family = families::RESTORED.begin(out)?;
    for (part, count) in host.restored() {
        let labels = [("what", part.name())];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let mut family = families::HOST_STATE.begin(out)?;
    let state = host.state();
    for possible in HostState::ALL {
        family.encode_family(&[("state", possible.name())])?.encode_gauge(&u64::from(possible == state))?;
    }
    let mut family = families::GUARD_DROPPED.begin(out)?;
    for (rule, count) in host.guard_drops() {
        family.encode_family(&[("rule", rule)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

/// A counter for each of these words, which are values of one label.
fn encode_counts<'a>(
    out: &mut DescriptorEncoder<'_>,
    family: Family,
    label: &str,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut family = family.begin(out)?;
    for (word, count) in counts {
        family.encode_family(&[(label, word)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

/// The names of agents on this host.
fn encode_names(out: &mut DescriptorEncoder<'_>, names: &NamesShown) -> fmt::Result {
    gauge(out, families::NAMED, names.agents as u64)?;
    let questions = names.questions.iter().map(|(result, count)| (result.as_str(), *count));
    encode_counts(out, families::NAME_QUESTIONS, "result", questions)
}

fn encode_peers(out: &mut DescriptorEncoder<'_>, peers: &[&PeerEntry], now: Instant) -> fmt::Result {
    gauge(out, families::PEERS, peers.len() as u64)?;
    let keys: Vec<String> = peers.iter().map(|peer| encode_public(&peer.public_key)).collect();
    let labelled = || {
        peers.iter().zip(&keys).map(|(peer, key)| {
            let name = peer.name.as_deref().unwrap_or_default();
            ([("peer", name), ("public_key", key.as_str())], *peer)
        })
    };
    for figure in PeerStats::COUNTERS {
        let mut family = Family::of_peers(figure).begin(out)?;
        for (labels, peer) in labelled() {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&figure.value(&peer.stats), None)?;
        }
    }
    let mut family = families::LATEST_HANDSHAKE.begin(out)?;
    for (labels, peer) in labelled() {
        if let Some(handshake) = peer.handshake {
            let at = handshake.wall.since_1970().as_secs_f64();
            family.encode_family(&labels)?.encode_gauge(&at)?;
        }
    }
    let mut family = families::PEER_STATES.begin(out)?;
    for ([name, key], peer) in labelled() {
        let state = peer.state(now, peer.stats.sent_wire_bytes.value());
        for possible in PeerState::ALL {
            let labels = [name, key, ("state", possible.name())];
            family.encode_family(&labels)?.encode_gauge(&u64::from(possible == state))?;
        }
    }
    let mut family = families::PEER_PATH.begin(out)?;
    for ([name, key], peer) in labelled() {
        let Some(is_relayed) = peer.is_relayed() else { continue };
        for possible in PathKind::ALL {
            let labels = [name, key, ("kind", possible.name())];
            family.encode_family(&labels)?.encode_gauge(&u64::from(possible == PathKind::of(is_relayed)))?;
        }
    }
    let known = || labelled().filter_map(|(labels, peer)| Some((labels, peer.path_mtu?)));
    let mut family = families::PATH_MTU.begin(out)?;
    for (labels, path) in known() {
        family.encode_family(&labels)?.encode_gauge(&u32::from(path.told.mtu))?;
    }
    let mut family = families::PATH_MTU_STATE.begin(out)?;
    for ([name, key], path) in known() {
        for possible in PathMtuState::ALL {
            let labels = [name, key, ("state", possible.name())];
            let is_in = possible == PathMtuState::from(path.told.state);
            family.encode_family(&labels)?.encode_gauge(&u64::from(is_in))?;
        }
    }
    Ok(())
}

/// A family of one counter.
fn counter(out: &mut DescriptorEncoder<'_>, family: Family, value: u64) -> fmt::Result {
    family.begin(out)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

/// A family of one gauge.
fn gauge(out: &mut DescriptorEncoder<'_>, family: Family, value: impl EncodeGaugeValue) -> fmt::Result {
    family.begin(out)?.encode_gauge(&value)
}

#[cfg(test)]
mod tests;
