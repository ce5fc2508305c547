//! `overlay status` for people: the interface in a few lines, its peers as a table.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use overlay_daemon::engine::OffloadState;
use overlay_daemon::host::HostStatus;
use overlay_daemon::view::{InterfaceStatus, PathKind, PeerState, PeerStatus, Status};

use crate::figures::{ago, bytes, span};

/// How many prefixes and rules of a peer are shown. The rest are only counted.
const SHOWN: usize = 3;

/// The whole text, without a final newline.
pub(crate) fn status(status: &Status) -> String {
    let mut text = heading(status);
    text.push('\n');
    if status.peers.is_empty() {
        text.push_str("\nno peers");
    } else {
        text.push_str(&peers(&status.peers));
    }
    text
}

fn heading(status: &Status) -> String {
    let interface = &status.interface;
    let mut lines = vec![
        ("interface", interface.name.clone()),
        ("public key", interface.public_key.clone().unwrap_or_else(|| "none: there is no private key".to_owned())),
        ("addresses", joined(&interface.addresses, usize::MAX)),
        ("port, MTU", format!("{}, {}", interface.listen_port, mtu(interface))),
        ("running for", span(interface.uptime_seconds)),
        ("config", interface.config.display().to_string()),
    ];
    if let Some(names) = &status.names {
        lines.push(("names", format!("NAME.{}, by {}", names.domain, names.way)));
    }
    if let Some(narrow) = narrow_paths(status) {
        lines.push(("warning", narrow));
    }
    for warning in &status.warnings {
        lines.push(("warning", warning.message.clone()));
        lines.extend(warning.hint.clone().map(|hint| ("  hint", hint)));
    }
    for warning in status.host.iter().flat_map(|host| &host.warnings) {
        lines.push(("warning", warning.clone()));
    }
    if let Some(restored) = status.host.as_ref().and_then(restored) {
        lines.push(("restored", restored));
    }
    if let Some(drops) = drops(status) {
        lines.push(("dropped", drops));
    }
    if let Some(drops) = status.host.as_ref().and_then(guard_drops) {
        lines.push(("guard drops", drops));
    }
    if let Some(drops) = kernel_drops(status) {
        lines.push(("kernel drops", drops));
    }
    if let Some(offloads) = missing_offloads(status) {
        lines.push(("offloads", offloads));
    }
    let lines: Vec<String> = lines.into_iter().map(|(label, value)| format!("{label:<12} {value}")).collect();
    lines.join("\n")
}

/// The MTU that paths to peers start with, and the kernel interface's MTU if that is larger.
fn mtu(interface: &InterfaceStatus) -> String {
    match interface.most() {
        most if most == interface.mtu => most.to_string(),
        most => format!("{} (interface {most})", interface.mtu),
    }
}

/// The paths whose MTU is smaller than expected. `None` if there are no such paths.
fn narrow_paths(status: &Status) -> Option<String> {
    let narrow = status.peers.iter().filter_map(|peer| Some((peer, peer.path_mtu.filter(|path| path.is_narrow)?)));
    let narrow: Vec<String> = narrow
        .map(|(peer, path)| format!("path to {} carries {} of {} bytes", label(peer), path.mtu, path.configured))
        .collect();
    match narrow.len().saturating_sub(SHOWN) {
        0 if narrow.is_empty() => None,
        0 => Some(narrow.join("; ")),
        more => Some(format!("{}; {more} more: overlay mtu", narrow[..SHOWN].join("; "))),
    }
}

/// The drop reasons that occurred, most frequent first. `None` if nothing was dropped.
fn drops(status: &Status) -> Option<String> {
    let mut met: Vec<(&str, u64)> =
        status.drops.iter().map(|(reason, count)| (reason.as_str(), *count)).filter(|(_, count)| *count > 0).collect();
    if met.is_empty() {
        return None;
    }
    met.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let met: Vec<String> = met.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    Some(met.join(", "))
}

/// What was restored on this host after another program had removed it. `None` if nothing was.
fn restored(host: &HostStatus) -> Option<String> {
    let restored = host.restored.iter().filter(|(_, count)| **count > 0);
    let restored: Vec<String> = restored.map(|(what, count)| format!("{what} {count}")).collect();
    (!restored.is_empty()).then(|| format!("{}: another program had removed it", restored.join(", ")))
}

/// The packets that our nft table has dropped. `None` if it dropped none.
fn guard_drops(host: &HostStatus) -> Option<String> {
    let rules = [("weak_host", "to virtual IPs from elsewhere"), ("outside_tunnel", "on their way past the tunnel")];
    let dropped = rules.map(|(rule, whence)| (host.guard_drops.get(rule).copied().unwrap_or_default(), whence));
    let dropped = dropped.into_iter().filter(|(count, _)| *count > 0);
    let dropped: Vec<String> = dropped.map(|(count, whence)| format!("{count} {whence}")).collect();
    (!dropped.is_empty()).then(|| dropped.join(", "))
}

/// The packets that did not fit the kernel's queues for us. `None` if all did.
fn kernel_drops(status: &Status) -> Option<String> {
    let queues = [("tun_queue_dropped", "from this host"), ("udp_receive_overflow", "from peers")];
    let lost = queues.map(|(counter, whence)| (status.counters.get(counter).copied().unwrap_or_default(), whence));
    let lost: Vec<_> = lost.into_iter().filter(|(count, _)| *count > 0).collect();
    (!lost.is_empty()).then(|| {
        let lost: Vec<String> = lost.into_iter().map(|(count, whence)| format!("{count} {whence}")).collect();
        format!("{}: more than the daemon could read in time", lost.join(", "))
    })
}

/// The offloads that are not in use, and why. `None` if all are in use.
fn missing_offloads(status: &Status) -> Option<String> {
    let missing = status.offloads.iter().filter(|(_, state)| **state != OffloadState::On);
    let missing: Vec<String> = missing
        .map(|(offload, state)| match state {
            OffloadState::FallenBack => format!("{offload} refused by the kernel"),
            state => format!("{offload} {}", state.name()),
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn peers(peers: &[PeerStatus]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    table.set_header(["peer", "endpoint", "path", "state", "handshake", "received", "sent", "allowed IPs", "may open"]);
    for peer in peers {
        table.add_row([
            label(peer),
            endpoint(peer),
            peer.path.map_or("-", PathKind::name).to_owned(),
            state(peer.state).to_owned(),
            peer.latest_handshake_age_seconds.map_or_else(|| "never".to_owned(), ago),
            bytes(peer.received_bytes),
            bytes(peer.sent_bytes),
            joined(&peer.allowed_ips, SHOWN),
            allow(peer),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(index, 5 | 6) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("\n{}", line.trim_end())).collect()
}

/// The peer's name, or enough of its key to identify it.
pub(crate) fn label(peer: &PeerStatus) -> String {
    match &peer.name {
        Some(name) => name.clone(),
        None => format!("{}…", peer.public_key.chars().take(8).collect::<String>()),
    }
}

fn endpoint(peer: &PeerStatus) -> String {
    match (peer.endpoint, &peer.endpoint_name) {
        (Some(address), _) => address.to_string(),
        (None, Some(name)) => format!("{name} (not resolved)"),
        (None, None) => "-".to_owned(),
    }
}

fn allow(peer: &PeerStatus) -> String {
    match peer.allow.as_deref() {
        None => "everything".to_owned(),
        Some([]) => "nothing".to_owned(),
        Some(rules) => joined(rules, SHOWN),
    }
}

/// The peer's state in a word or two.
pub(crate) fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Connected => "connected",
        PeerState::Suspect => "suspect",
        PeerState::Handshaking => "handshaking",
        PeerState::Idle => "idle",
        PeerState::Unreachable => "unreachable",
        PeerState::NoEndpoint => "no endpoint",
    }
}

fn joined(prefixes: &[impl ToString], shown: usize) -> String {
    let texts: Vec<String> = prefixes.iter().take(shown).map(ToString::to_string).collect();
    match prefixes.len().saturating_sub(shown) {
        0 if texts.is_empty() => "-".to_owned(),
        0 => texts.join(", "),
        more => format!("{} and {more} more", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests;
