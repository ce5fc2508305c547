//! Authentic messages with inner packets that a peer must not send: because of their source, because of their
//! destination, or because they are not valid packets.

use super::bytes::{TCP, UDP, ends, options, with};
use super::siege::{CAROL, MALLORY, Siege};
use crate::lab::{A, Outside};

/// UDP between these addresses.
fn udp(source: &str, destination: &str) -> Vec<u8> {
    ends(source, destination).udp(4660, 7000, b"hello")
}

#[test]
fn an_inner_source_that_is_not_the_senders_is_dropped_in_both_families() {
    // Mallory's network is large and includes Carol's address. The most specific owner counts.
    let mallory = MALLORY.peer_toml(&["10.77.0.0/24", "fd77::/64"]);
    let peers = [mallory, CAROL.own_peer_toml()];
    let Some(mut siege) = Siege::begin("sources", Outside::V4, "", &peers) else { return };
    let mut mallory = siege.attacker(MALLORY);

    for (source, reason) in [
        (CAROL.v4, "spoofed_source"),
        ("10.78.0.2", "spoofed_source"),
        ("10.1.0.2", "spoofed_source"),
        ("255.255.255.255", "martian_source"),
        (A.v4, "martian_source"),
        ("127.0.0.1", "martian_source"),
        ("127.255.255.254", "martian_source"),
        ("224.0.0.1", "martian_source"),
        ("239.255.255.255", "martian_source"),
        ("0.0.0.0", "martian_source"),
    ] {
        siege.refuses(&mut mallory, reason, source, &[udp(source, A.v4)]);
    }
    for (source, reason) in [
        (CAROL.v6, "spoofed_source"),
        ("fd78::2", "spoofed_source"),
        ("fe80::1", "spoofed_source"),
        ("::ffff:10.77.0.2", "spoofed_source"),
        ("::ffff:127.0.0.1", "spoofed_source"),
        (A.v6, "martian_source"),
        ("::1", "martian_source"),
        ("ff02::1", "martian_source"),
        ("::", "martian_source"),
    ] {
        siege.refuses(&mut mallory, reason, source, &[udp(source, A.v6)]);
    }
    let honest = [udp(MALLORY.v4, A.v4), udp("10.77.0.200", A.v4), udp(MALLORY.v6, A.v6), udp("fd77::ffff", A.v6)];
    siege.delivers(&mut mallory, "her own", &honest);

    // The victim attributes those drops to Mallory.
    assert_eq!(siege.peer(MALLORY)["drops"], 19);
    assert_eq!(siege.peer(CAROL)["drops"], 0);
}

#[test]
fn a_source_is_judged_by_who_owns_the_session_and_not_by_where_it_came_from() {
    let Some(mut siege) = Siege::of_two("two peers") else { return };
    let (mut mallory, mut carol) = (siege.attacker(MALLORY), siege.attacker(CAROL));
    let packets = [udp(MALLORY.v4, A.v4), udp(CAROL.v4, A.v4)];
    // Carol's message from Mallory's socket still counts as Carol's, so her endpoint moves there.
    let messages = [carol.session.seal(&packets[0]), carol.session.seal(&packets[1])];
    siege.strike(&mut mallory, &messages).is("carol's", &packets[1..], &[("spoofed_source", 1)]);
    siege.is_at(CAROL, &mallory.wire);
    siege.is_alive(&mut carol);
    siege.is_at(CAROL, &carol.wire);
}

#[test]
fn what_is_not_for_us_is_dropped_unless_we_forward() {
    let peers = [MALLORY.own_peer_toml(), CAROL.own_peer_toml()];
    let beyond = [udp(MALLORY.v4, "10.77.0.9"), udp(MALLORY.v4, CAROL.v4), udp(MALLORY.v6, "fd77::9")];
    {
        let Some(mut siege) = Siege::begin("destinations", Outside::V4, "forward = false", &peers) else { return };
        let mut mallory = siege.attacker(MALLORY);
        siege.refuses(&mut mallory, "inbound_destination", "beyond", &beyond);
        // The victim's outer address is its own, but it is not a virtual IP.
        for destination in [A.outer_v4, "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.77.0.255", "0.0.0.0"] {
            siege.refuses(&mut mallory, "inbound_destination", destination, &[udp(MALLORY.v4, destination)]);
        }
        for destination in [A.outer_v6, "::1", "ff02::1", "fe80::1", "::ffff:10.77.0.1", "::"] {
            siege.refuses(&mut mallory, "inbound_destination", destination, &[udp(MALLORY.v6, destination)]);
        }
        let honest = [udp(MALLORY.v4, A.v4), udp(MALLORY.v6, A.v6)];
        siege.delivers(&mut mallory, "ours", &honest);
    }
    let Some(mut siege) = Siege::begin("destinations", Outside::V4, "forward = true", &peers) else { return };
    let mut mallory = siege.attacker(MALLORY);
    siege.delivers(&mut mallory, "beyond, and we forward", &beyond);
}

#[test]
fn what_is_no_whole_ip_packet_is_dropped() {
    let Some(mut siege) = Siege::of_two("malformed") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let (v4, v6) = (udp(MALLORY.v4, A.v4), udp(MALLORY.v6, A.v6));
    // An honest packet of each shape that is modified below.
    siege.delivers(&mut mallory, "whole", &[v4.clone(), v6.clone()]);

    // The messages have exactly these bytes. Padding would hide where they end.
    let mut malformed: Vec<(String, Vec<u8>)> = Vec::new();
    malformed.extend((1..v4.len()).map(|len| (format!("v4 cut to {len}"), v4[..len].to_vec())));
    malformed.extend((1..v6.len()).map(|len| (format!("v6 cut to {len}"), v6[..len].to_vec())));
    for version in (0..16).filter(|version| !matches!(version, 4 | 6)) {
        malformed.push((format!("v4 that says version {version}"), with(v4.clone(), 0, &[version << 4 | 5])));
        malformed.push((format!("v6 that says version {version}"), with(v6.clone(), 0, &[version << 4])));
    }
    malformed.push(("v4 that says version 6".into(), with(v4.clone(), 0, &[0x60])));
    malformed.push(("v6 that says version 4".into(), with(v6.clone(), 0, &[0x40])));
    for words in 0..5 {
        malformed.push((format!("a header of {words} words"), with(v4.clone(), 0, &[0x40 | words])));
    }
    for words in 9..16 {
        malformed.push((format!("a header of {words} words"), with(v4.clone(), 0, &[0x40 | words])));
    }
    for len in (0..20).chain([v4.len() as u16 + 1, 0x7fff, 0xffff]) {
        malformed.push((format!("v4 that says {len} bytes"), with(v4.clone(), 2, &len.to_be_bytes())));
    }
    // The header is longer than the packet's length field allows, although the bytes are present.
    let long = with([&v4[..], &[0; 64]].concat(), 0, &[0x4f]);
    malformed.push(("a header longer than its packet".into(), long));
    for len in [v6.len() as u16 - 40 + 1, 0x7fff, 0xffff] {
        malformed.push((format!("v6 that says {len} bytes"), with(v6.clone(), 4, &len.to_be_bytes())));
    }
    malformed.push(("zeros".into(), vec![0; 16]));
    malformed.push(("more zeros".into(), vec![0; 1408]));
    malformed.push(("ones".into(), vec![0xff; 1408]));

    let count = malformed.len() as u64;
    assert!(count > 150);
    for (what, plaintext) in malformed {
        let message = mallory.session.seal_as_is(mallory.session.next_counter, &plaintext);
        mallory.session.next_counter += 1;
        let outcome = siege.strike(&mut mallory, &[message]);
        outcome.is(&what, &[], &[("inbound_malformed", 1)]);
        assert_eq!(outcome.answers.len(), 0, "{what}");
    }
    assert_eq!(siege.peer(MALLORY)["drops"], count);
}

#[test]
fn padding_may_hold_anything_and_have_any_length_and_a_keepalive_is_no_packet() {
    let Some(mut siege) = Siege::of_two("padding") else { return };
    let mut mallory = siege.attacker(MALLORY);
    for packet in [udp(MALLORY.v4, A.v4), udp(MALLORY.v6, A.v6)] {
        for padding in (0..32).chain([255, 1000]) {
            let plaintext = [&packet[..], &vec![0xa5; padding]].concat();
            let message = mallory.session.seal_as_is(mallory.session.next_counter, &plaintext);
            mallory.session.next_counter += 1;
            siege.strike(&mut mallory, &[message]).is("padded", std::slice::from_ref(&packet), &[]);
        }
    }
    let keepalives: Vec<_> = (0..8).map(|_| mallory.session.seal(&[])).collect();
    assert!(keepalives.iter().all(|message| message.len() == 32));
    let outcome = siege.strike(&mut mallory, &keepalives);
    outcome.is("keepalives", &[], &[]);
    assert_eq!(outcome.answers.len(), 0, "a keepalive is not answered");
}

#[test]
fn the_bytes_behind_a_packet_that_says_it_is_shorter_do_not_reach_the_kernel() {
    let Some(mut siege) = Siege::of_two("short") else { return };
    let mut mallory = siege.attacker(MALLORY);
    // A UDP packet of 13 bytes above IP, in packets whose length field says less. The rest counts as padding.
    for (packet, at, header_len) in [(udp(MALLORY.v4, A.v4), 2, 20), (udp(MALLORY.v6, A.v6), 4, 40)] {
        for kept in [0, 1, 8, 12] {
            let says = if header_len == 20 { header_len + kept } else { kept } as u16;
            let lying = with(packet.clone(), at, &says.to_be_bytes());
            let message = mallory.session.seal(&lying);
            let delivered = vec![lying[..header_len + kept].to_vec()];
            siege.strike(&mut mallory, &[message]).is("shorter", &delivered, &[]);
        }
    }
    // Without an allowlist, extension headers and unknown protocols are left to the kernel.
    let from_v6 = ends(MALLORY.v6, A.v6);
    let unknown = [
        from_v6.ip(253, &[0; 24]),
        from_v6.ip(0, &[&options(60, 1)[..], &options(UDP, 1), &from_v6.udp_bytes(1, 2, b"")].concat()),
        from_v6.ip(TCP, &[0; 3]),
    ];
    siege.delivers(&mut mallory, "unknown", &unknown);
}
