//! The answer to `get=1`: all configuration and state, including secrets.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::device::table::{InterfaceEntry, PeerEntry};
use crate::view::View;

/// Returns the answer, including `errno=0` and the empty line.
pub(super) fn get(view: &View) -> Zeroizing<String> {
    let state = view.table().read();
    let peers = state.peers();
    // Reserves room for everything at once: a string that grows would leave copies of keys in memory.
    let room = 256 + peers.iter().map(|peer| 512 + 64 * peer.allowed_ips.len()).sum::<usize>();
    let mut out = Zeroizing::new(String::with_capacity(room));
    print_interface(&mut out, &state.interface);
    for peer in peers {
        let stats = &peer.stats;
        print_peer(&mut out, peer, stats.received_wire_bytes.value(), stats.sent_wire_bytes.value());
    }
    out.push_str("errno=0\n\n");
    out
}

fn print_interface(out: &mut String, interface: &InterfaceEntry) {
    if let Some(key) = &interface.private_key {
        line_hex(out, "private_key", &key.to_bytes());
    }
    line(out, "listen_port", interface.listen_port);
    if let Some(mark) = interface.fwmark {
        line(out, "fwmark", mark);
    }
}

pub(super) fn print_peer(out: &mut String, peer: &PeerEntry, received: u64, sent: u64) {
    line_hex(out, "public_key", &peer.public_key.0);
    let none = [0; 32];
    line_hex(out, "preshared_key", peer.preshared_key.as_deref().unwrap_or(&none));
    line(out, "protocol_version", 1);
    if let Some(endpoint) = peer.endpoint {
        line(out, "endpoint", endpoint);
    }
    let handshake = peer.handshake.map(|handshake| handshake.wall.since_1970()).unwrap_or_default();
    line(out, "last_handshake_time_sec", handshake.as_secs());
    line(out, "last_handshake_time_nsec", handshake.subsec_nanos());
    line(out, "tx_bytes", sent);
    line(out, "rx_bytes", received);
    line(out, "persistent_keepalive_interval", peer.persistent_keepalive.unwrap_or(0));
    for prefix in &peer.allowed_ips {
        line(out, "allowed_ip", prefix);
    }
}

fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{key}={value}");
}

fn line_hex(out: &mut String, key: &str, value: &[u8; 32]) {
    let _ = write!(out, "{key}=");
    for byte in value {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\n');
}
