//! Attacks on the allowlist with chains of IPv6 extension headers. The port at the end of a chain counts, and if it
//! cannot be found with certainty, nothing passes.

use super::bytes::{Ends, TCP, UDP, options};
use super::siege::{MALLORY, Siege};

const ALLOW: &[&str] = &["tcp/22", "udp/7000-7010", "icmp"];
const OPEN: u16 = 7000;
const CLOSED: u16 = 9999;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
/// Mobility, HIP and shim6 have the same layout as options.
const OTHERS: [u8; 3] = [135, 139, 140];

/// A chain of these headers, each 8 bytes long, in front of a payload of protocol `last`.
fn chain(ends: Ends, headers: &[u8], last: u8, payload: &[u8]) -> Vec<u8> {
    let next = headers.iter().skip(1).copied().chain([last]);
    let mut bytes: Vec<u8> = next.flat_map(|next| options(next, 1)).collect();
    bytes.extend(payload);
    ends.ip(headers.first().copied().unwrap_or(last), &bytes)
}

#[test]
fn the_port_at_the_end_of_a_chain_counts() {
    let Some(mut siege) = Siege::with_allowlist("chains", ALLOW) else { return };
    let (open, closed) = (siege.application(OPEN), siege.application(CLOSED));
    let mut mallory = siege.attacker(MALLORY);
    let [_, ends] = MALLORY.both_families();
    let udp = |port| ends.udp_bytes(4660, port, &[0x55; 24]);

    // One header of each kind, and as many as we follow. The victim's kernel knows the first two kinds.
    let known = [vec![HOP_BY_HOP], vec![DESTINATION_OPTIONS], vec![HOP_BY_HOP, DESTINATION_OPTIONS]];
    let most = [[DESTINATION_OPTIONS; 8].to_vec(), [&[HOP_BY_HOP][..], &[DESTINATION_OPTIONS; 7]].concat()];
    for headers in known.iter().chain(&most) {
        let what = format!("{headers:?}");
        siege.delivers(&mut mallory, &what, &[chain(ends, headers, UDP, &udp(OPEN))]);
        assert_eq!(open.receives(), [0x55; 24], "{what}: the kernel has found the same port");
        siege.refuses(&mut mallory, "not_allowed", &what, &[chain(ends, headers, UDP, &udp(CLOSED))]);
        let tcp = ends.tcp_bytes(50_000, 80, 1, 2, &[]);
        siege.refuses(&mut mallory, "not_allowed", &what, &[chain(ends, headers, TCP, &tcp)]);
        siege.refuses(&mut mallory, "not_allowed", &what, &[chain(ends, headers, 47, &udp(OPEN))]);
        siege.refuses(&mut mallory, "not_allowed", &what, &[chain(ends, headers, NO_NEXT_HEADER, &udp(OPEN))]);
        siege.refuses(&mut mallory, "not_allowed", &what, &[chain(ends, headers, ESP, &udp(OPEN))]);
    }
    for kind in OTHERS {
        siege.refuses(&mut mallory, "not_allowed", "rare", &[chain(ends, &[kind], UDP, &udp(CLOSED))]);
        siege.delivers(&mut mallory, "rare", &[chain(ends, &[kind], UDP, &udp(OPEN))]);
    }
    // A routing header that still leads to another host.
    let routed = |port| {
        let header = [&[UDP, 2, 0, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
        ends.ip(ROUTING, &[&header[..], &udp(port)].concat())
    };
    siege.refuses(&mut mallory, "not_allowed", "routed", &[routed(CLOSED)]);
    siege.delivers(&mut mallory, "routed", &[routed(OPEN)]);
    // The authentication header counts 4-byte units, minus two.
    let authenticated = |port| ends.ip(AUTHENTICATION, &[&[UDP, 4][..], &[0; 22], &udp(port)].concat());
    siege.refuses(&mut mallory, "not_allowed", "authenticated", &[authenticated(CLOSED)]);
    siege.delivers(&mut mallory, "authenticated", &[authenticated(OPEN)]);
    open.has_received_nothing();
    closed.has_received_nothing();
}

#[test]
fn chains_that_are_too_long_unknown_or_broken_are_dropped() {
    let Some(mut siege) = Siege::with_allowlist("broken chains", ALLOW) else { return };
    let (open, closed) = (siege.application(OPEN), siege.application(CLOSED));
    let mut mallory = siege.attacker(MALLORY);
    let [_, ends] = MALLORY.both_families();
    let udp = ends.udp_bytes(7000, OPEN, &[0x55; 24]);

    let long = [9, 10, 20, 150].map(|count| chain(ends, &vec![DESTINATION_OPTIONS; count], UDP, &udp));
    siege.refuses(&mut mallory, "extension_headers", "too long", &long);
    let unknown = [
        chain(ends, &[253], UDP, &udp),
        chain(ends, &[254], UDP, &udp),
        chain(ends, &[HOP_BY_HOP, 253], UDP, &udp),
        chain(ends, &[HOP_BY_HOP, DESTINATION_OPTIONS, 254], UDP, &udp),
    ];
    siege.refuses(&mut mallory, "extension_headers", "unknown", &unknown);
    // Numbers that are not extension headers end the chain, whatever follows.
    let ended = [5, 52, 61, 99, 134, 136, 141, 200, 252, 255].map(|kind| chain(ends, &[HOP_BY_HOP, kind], UDP, &udp));
    siege.refuses(&mut mallory, "not_allowed", "no extension headers", &ended);

    // Lengths that point beyond the packet, into the ports, or behind them.
    let says = |units: u8| {
        let mut packet = chain(ends, &[DESTINATION_OPTIONS], UDP, &udp);
        packet[41] = units;
        packet
    };
    siege.refuses(&mut mallory, "not_allowed", "lengths", &[1, 2, 3, 4, 5, 100, 255].map(says));
    siege.delivers(&mut mallory, "lengths", &[says(0)]);
    assert_eq!(open.receives(), [0x55; 24]);
    // Options that end where a denied port begins, with an open port at the usual offset.
    let denied = ends.udp_bytes(4660, CLOSED, &[0x55; 24]);
    let disguised = [&[UDP, 1, 0x1e, 12][..], &udp[..8], &[0; 4], &denied].concat();
    siege.refuses(&mut mallory, "not_allowed", "disguised", &[ends.ip(DESTINATION_OPTIONS, &disguised)]);
    // Packets that end within a header, and chains without an end.
    let whole = chain(ends, &[HOP_BY_HOP, DESTINATION_OPTIONS], UDP, &udp);
    let cut: Vec<_> = (40..whole.len())
        .map(|len| {
            let mut cut = whole[..len].to_vec();
            cut[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            cut
        })
        .collect();
    siege.refuses(&mut mallory, "not_allowed", "cut short", &cut);
    let nothing_behind = [HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS].map(|kind| ends.ip(kind, &[]));
    siege.refuses(&mut mallory, "not_allowed", "nothing behind", &nothing_behind);
    siege.delivers(&mut mallory, "whole", &[whole]);
    assert_eq!(open.receives(), [0x55; 24]);

    // In IPv4 the same numbers are ordinary protocols, and none of them is listed.
    let [v4, _] = MALLORY.both_families();
    let in_v4 = [HOP_BY_HOP, ROUTING, 44, AUTHENTICATION, DESTINATION_OPTIONS]
        .map(|kind| v4.ip(kind, &[&options(UDP, 1)[..], &v4.udp_bytes(4660, OPEN, &[0; 8])].concat()));
    siege.refuses(&mut mallory, "not_allowed", "in IPv4", &in_v4);
    open.has_received_nothing();
    closed.has_received_nothing();
}
