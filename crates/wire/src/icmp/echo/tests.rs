//! Echoes byte by byte. The checksums in the vectors were computed by an independent program.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::vectors::{bytes, hostile_packet, slow_sum, v4, v6};

const V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];
const V6: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2))];

fn request([source, destination]: [IpAddr; 2], len: usize) -> Option<Vec<u8>> {
    let mut out = vec![0xee; len + 3];
    let is_written = write_echo_request(source, destination, 0x1234, 7, len, &mut out);
    let untouched = if is_written { &out[len..] } else { &out[..] };
    assert!(untouched.iter().all(|byte| *byte == 0xee), "nothing else is written");
    out.truncate(len);
    is_written.then_some(out)
}

fn reply_in(packet: &[u8]) -> Option<EchoReply> {
    let reply = echo_reply(&Packet::parse(packet).unwrap());
    assert!(reply.is_none() || may_be_echo_reply(packet), "{packet:02x?}");
    reply
}

#[test]
fn of_most_packets_their_protocol_says_that_they_are_no_reply() {
    for packet in [v4(6, 0, &[0; 20]), v4(17, 0, &[0; 8]), v4(58, 0, &[0; 8]), v6(6, &[0; 20]), v6(17, &[0; 8])] {
        assert!(!may_be_echo_reply(&packet), "{packet:02x?}");
    }
    for bytes in [&[][..], &[0x45; 9], &[0x60; 6], &[0x50; 40]] {
        assert!(!may_be_echo_reply(bytes), "{bytes:02x?}");
    }
}

fn reply_from(source: IpAddr) -> Option<EchoReply> {
    Some(EchoReply { source, id: 0x1234, sequence: 7 })
}

#[test]
fn a_request_is_exactly_as_long_as_asked_for_and_may_not_be_fragmented() {
    let shortest = "4500001c 00004000 400126df 0a000001 0a000002  0800e5c4 12340007";
    assert_eq!(request(V4, 28), Some(bytes(shortest)));
    let odd = "45000021 00004000 400126da 0a000001 0a000002  0800e5c4 12340007 0000000000";
    assert_eq!(request(V4, 33), Some(bytes(odd)));

    let addresses = "fd000000000000000000000000000001 fd000000000000000000000000000002";
    let shortest = format!("60000000 00083a40 {addresses}  8000737d 12340007");
    assert_eq!(request(V6, 48), Some(bytes(&shortest)));
    let long = format!("60000000 04d93a40 {addresses}  80006eac 12340007 {}", "00".repeat(1_233));
    assert_eq!(request(V6, 1_281), Some(bytes(&long)));
}

#[test]
fn the_longest_request_is_that_of_ip() {
    for (ends, at) in [(V4, 20), (V6, 40)] {
        let packet = request(ends, 65_535).unwrap();
        let parsed = Packet::parse(&packet).unwrap();
        assert_eq!((parsed.len(), parsed.dont_fragment(), parsed.upper().unwrap().offset), (65_535, true, at));
    }
    assert_eq!(slow_sum(&request(V4, 65_535).unwrap()[20..]), 0xffff);
}

#[test]
fn what_is_no_request_is_not_written() {
    assert_eq!(request(V4, 27), None, "no room for the headers");
    assert_eq!(request(V6, 47), None, "no room for the headers");
    assert_eq!(request(V4, 0), None);
    for ends in [V4, V6] {
        assert_eq!(request(ends, 65_536), None, "longer than a packet");
    }
    for ends in [[V4[0], V6[1]], [V6[0], V4[1]]] {
        assert_eq!(request(ends, 100), None, "two families");
    }
    let mut short = [0xee; 99];
    assert!(!write_echo_request(V4[0], V4[1], 1, 1, 100, &mut short));
    assert_eq!(short, [0xee; 99]);
}

#[test]
fn a_whole_reply_says_what_it_answers() {
    let reply = "45000020 00004000 400126db 0a000002 0a000001  0000edc4 12340007 00000000";
    assert_eq!(reply_in(&bytes(reply)), reply_from(V4[1]));
    let addresses = "fd000000000000000000000000000002 fd000000000000000000000000000001";
    let reply = format!("60000000 000c3a40 {addresses}  81007279 12340007 00000000");
    assert_eq!(reply_in(&bytes(&reply)), reply_from(V6[1]));
    let behind_options = v6(60, &bytes("3a00 0104 00000000 81000000 12340007"));
    assert_eq!(reply_in(&behind_options), reply_from(V6[0]));
}

#[test]
fn the_first_fragment_of_a_reply_counts_and_the_later_ones_do_not() {
    let data = "00".repeat(24);
    let first = format!("45000034 abcd2000 40019af9 0a000002 0a000001  0000edc4 12340007 {data}");
    assert_eq!(reply_in(&bytes(&first)), reply_from(V4[1]));
    // A later fragment that happens to hold the bytes of a reply, and the last fragment.
    let later = format!("45000034 abcd2004 40019af5 0a000002 0a000001  0000edc4 12340007 {data}");
    assert_eq!(reply_in(&bytes(&later)), None);
    assert_eq!(reply_in(&v4(1, 0x0004, &bytes("0000edc4 12340007"))), None);

    let addresses = "fd000000000000000000000000000002 fd000000000000000000000000000001";
    let packet =
        |offset: &str| bytes(&format!("60000000 00282c40 {addresses} 3a00{offset} 12345678  81006d21 12340007 {data}"));
    assert_eq!(reply_in(&packet("0001")), reply_from(V6[1]), "more follow");
    assert_eq!(reply_in(&packet("0000")), reply_from(V6[1]), "a fragment that is all of it");
    assert_eq!(reply_in(&packet("0021")), None);
    assert_eq!(reply_in(&packet("0020")), None, "the last");
}

#[test]
fn what_is_no_reply_or_too_short_for_one_is_none() {
    let message = |kind: u8, code: u8| [kind, code, 0, 0, 0x12, 0x34, 0, 7];
    assert_eq!(reply_in(&v4(1, 0, &message(0, 0))), reply_from(V4[0]));
    assert_eq!(reply_in(&v6(58, &message(129, 0))), reply_from(V6[0]));
    for (kind, code) in [(8, 0), (0, 1), (129, 0), (3, 0), (13, 0)] {
        assert_eq!(reply_in(&v4(1, 0, &message(kind, code))), None, "ICMP type {kind} code {code}");
    }
    for (kind, code) in [(128, 0), (129, 1), (0, 0), (1, 0)] {
        assert_eq!(reply_in(&v6(58, &message(kind, code))), None, "ICMPv6 type {kind} code {code}");
    }
    // Each family's ICMP inside the other family, and a different protocol.
    assert_eq!(reply_in(&v4(58, 0, &message(129, 0))), None);
    assert_eq!(reply_in(&v6(1, &message(0, 0))), None);
    assert_eq!(reply_in(&v4(17, 0, &message(0, 0))), None);
    for len in 0..8 {
        assert_eq!(reply_in(&v4(1, 0, &message(0, 0)[..len])), None, "{len} bytes");
        assert_eq!(reply_in(&v4(1, 0x2000, &message(0, 0)[..len])), None, "{len} bytes of a first fragment");
        assert_eq!(reply_in(&v6(58, &message(129, 0)[..len])), None, "{len} bytes");
    }
}

proptest! {
    #[test]
    fn no_packet_makes_looking_for_a_reply_panic(bytes in hostile_packet(), kind in prop::sample::select(vec![0u8, 129])) {
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = echo_reply(&packet);
        }
        let payload = [&[kind, 0], bytes.as_slice()].concat();
        for packet in [v4(1, 0, &payload), v4(1, 0x2000, &payload), v6(58, &payload)] {
            let reply = reply_in(&packet);
            prop_assert!(reply.is_none() || payload.len() >= 8);
        }
    }
}
