//! ICMP errors byte by byte: which packets are answered, which are not, and what a quote tells.

use proptest::prelude::*;

use super::*;
use crate::ip::{TCP, UDP};
use crate::vectors::{UDP_V4, UDP_V6, bytes, hostile_packet, slow_sum, v4, v6};

fn answer_to(packet: &[u8], write: impl Fn(&Packet<'_>, &mut Vec<u8>) -> bool) -> Option<Vec<u8>> {
    let mut out = vec![0xee; 3];
    let written = write(&Packet::parse(packet).unwrap(), &mut out);
    assert_eq!(written, !out.is_empty());
    written.then_some(out)
}

fn too_big_for(packet: &[u8]) -> Option<Vec<u8>> {
    answer_to(packet, |packet, out| too_big(packet, 1280, out))
}

#[test]
fn fragmentation_needed_names_the_mtu_and_comes_from_the_destination() {
    let expected = format!("45c0003b 00004000 40014dcb c6336402 c0000201  0304e44f 00000500 {UDP_V4}");
    assert_eq!(too_big_for(&bytes(UDP_V4)), Some(bytes(&expected)));
}

#[test]
fn packet_too_big_names_the_mtu_and_comes_from_the_destination() {
    let expected = format!(
        "60000000 003b3a40 20010db8000000000000000000000002 20010db8000000000000000000000001 02002be6 00000500 {UDP_V6}"
    );
    assert_eq!(too_big_for(&bytes(UDP_V6)), Some(bytes(&expected)));
}

#[test]
fn unreachable_is_host_unreachable_or_address_unreachable() {
    let expected = format!("45c0003b 00004000 40014dcb c6336402 c0000201  0301e952 00000000 {UDP_V4}");
    assert_eq!(answer_to(&bytes(UDP_V4), unreachable), Some(bytes(&expected)));
    let expected = format!(
        "60000000 003b3a40 20010db8000000000000000000000002 20010db8000000000000000000000001 010331e3 00000000 {UDP_V6}"
    );
    assert_eq!(answer_to(&bytes(UDP_V6), unreachable), Some(bytes(&expected)));
}

#[test]
fn a_long_packet_is_quoted_up_to_the_limit_of_its_family() {
    let mut udp = bytes("1234 0035 05d8 0000");
    udp.resize(1496, 0x61);
    let packet = v4(17, 0x4000, &udp);
    let message = too_big_for(&packet).unwrap();
    assert_eq!(message.len(), 576);
    assert_eq!(message[28..], packet[..548]);
    assert_eq!(u16::from_be_bytes([message[2], message[3]]), 576);
    assert_eq!(slow_sum(&message[20..]), 0xffff);

    let packet = v6(17, &udp);
    let message = too_big_for(&packet).unwrap();
    assert_eq!(message.len(), 1280);
    assert_eq!(message[48..], packet[..1232]);
    assert_eq!(u16::from_be_bytes([message[4], message[5]]), 1240);
    let mut checked = message[8..40].to_vec();
    checked.extend_from_slice(&[0, 0, 0x04, 0xd8, 0, 0, 0, 58]);
    checked.extend_from_slice(&message[40..]);
    assert_eq!(slow_sum(&checked), 0xffff);
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    for kind in [3, 4, 5, 11, 12] {
        assert_eq!(too_big_for(&v4(1, 0, &[kind, 0, 0, 0, 0, 0, 0, 0])), None, "ICMP type {kind}");
    }
    for kind in [1, 2, 3, 4, 127, 137] {
        assert_eq!(too_big_for(&v6(58, &[kind, 0, 0, 0, 0, 0, 0, 0])), None, "ICMPv6 type {kind}");
        assert_eq!(too_big_for(&v6(60, &[58, 0, 1, 4, 0, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0])), None, "behind options");
    }
    assert!(too_big_for(&v4(1, 0, &[8, 0, 0, 0, 0, 0, 0, 0])).is_some(), "an echo is answered");
    assert!(too_big_for(&v6(58, &[128, 0, 0, 0, 0, 0, 0, 0])).is_some(), "an echo is answered");
}

#[test]
fn a_first_fragment_is_answered_and_a_later_one_is_not() {
    let udp = bytes("1234 0035 0bb8 0000 6162636465666768");
    assert!(too_big_for(&v4(17, 0x2000, &udp)).is_some());
    assert_eq!(too_big_for(&v4(17, 0x2002, &udp)), None);
    assert_eq!(too_big_for(&v6(44, &bytes("1100 05c9 12345678 61626364"))), None);
    assert_eq!(too_big_for(&v6(253, &bytes("1100 05c9 12345678"))), None, "what cannot be read");
}

#[test]
fn addresses_that_name_no_single_host_are_not_answered() {
    for address in ["00000000", "ffffffff", "e0000001", "efffffff"] {
        for at in [12, 16] {
            let mut packet = bytes(UDP_V4);
            packet[at..at + 4].copy_from_slice(&bytes(address));
            assert_eq!(too_big_for(&packet), None, "{address} at {at}");
        }
    }
    for address in ["00000000000000000000000000000000", "ff020000000000000000000000000001"] {
        for at in [8, 24] {
            let mut packet = bytes(UDP_V6);
            packet[at..at + 16].copy_from_slice(&bytes(address));
            assert_eq!(too_big_for(&packet), None, "{address} at {at}");
        }
    }
}

#[test]
fn an_error_shows_the_flow_that_it_quotes() {
    let udp = Header::Udp { source: 4660, destination: 53 };
    for vector in [UDP_V4, UDP_V6] {
        let packet = bytes(vector);
        let packet = Packet::parse(&packet).unwrap();
        let message = too_big_for(packet.bytes()).unwrap();
        let expected = Quoted { source: packet.source(), destination: packet.destination(), protocol: 17, header: udp };
        assert_eq!(quoted(&Packet::parse(&message).unwrap()), Some(expected));
    }
}

/// An ICMP "time exceeded" that quotes these bytes.
fn time_exceeded(quote: &[u8]) -> Vec<u8> {
    v4(1, 0, &[&[11, 0, 0, 0, 0, 0, 0, 0], quote].concat())
}

fn quoted_header(message: &[u8]) -> Option<Header> {
    quoted(&Packet::parse(message).unwrap()).map(|quoted| quoted.header)
}

#[test]
fn eight_bytes_above_ip_are_enough_of_a_quote() {
    let tcp = v4(6, 0, &bytes("03e8 01bb 00000001 00000000 5012 ffff 0000 0000"));
    let ports = |flags| Some(Header::Tcp { source: 1000, destination: 443, flags });
    assert_eq!(quoted_header(&time_exceeded(&tcp)), ports(0x12));
    assert_eq!(quoted_header(&time_exceeded(&tcp[..34])), ports(0x12));
    assert_eq!(quoted_header(&time_exceeded(&tcp[..28])), ports(0));
    assert_eq!(quoted_header(&time_exceeded(&tcp[..27])), None);
    assert_eq!(quoted_header(&time_exceeded(&tcp[..19])), None);
    assert_eq!(quoted_header(&time_exceeded(&[])), None);
    let echo = v4(1, 0, &bytes("0800 0000 1234 0001 6162"));
    assert_eq!(quoted_header(&time_exceeded(&echo[..28])), Some(Header::Icmp { kind: 8, code: 0, id: 0x1234 }));
}

#[test]
fn padding_behind_a_short_quoted_packet_is_no_part_of_it() {
    let mut quote = v4(6, 0, &bytes("03e8 01bb"));
    quote.resize(128, 0);
    assert_eq!(quoted_header(&time_exceeded(&quote)), None);
}

#[test]
fn extension_headers_and_fragments_in_a_quote_are_followed() {
    let error = |quote: &[u8]| v6(58, &[&[3, 0, 0, 0, 0, 0, 0, 0], quote].concat());
    let ports = Some(Header::Udp { source: 4660, destination: 53 });
    assert_eq!(quoted_header(&error(&v6(60, &bytes("1100 0104 00000000 12340035 00080000")))), ports);
    assert_eq!(quoted_header(&error(&v6(44, &bytes("1100 0001 12345678 12340035 0bb80000")))), ports);
    assert_eq!(quoted_header(&error(&v6(44, &bytes("1100 05c9 12345678")))), Some(Header::LaterFragment));
    assert_eq!(quoted_header(&error(&v6(253, &bytes("1100 0104 00000000 12340035 00080000")))), None);
}

#[test]
fn what_is_no_error_quotes_nothing() {
    let echo = v4(1, 0, &[&[8, 0, 0, 0, 0, 0, 0, 0], bytes(UDP_V4).as_slice()].concat());
    assert_eq!(quoted_header(&echo), None);
    assert_eq!(quoted_header(&bytes(UDP_V4)), None);
    let other_family = time_exceeded(&bytes(UDP_V6));
    assert_eq!(quoted_header(&other_family), None);
    let fragment = v4(1, 0x2002, &[&[11, 0, 0, 0, 0, 0, 0, 0], bytes(UDP_V4).as_slice()].concat());
    assert_eq!(quoted_header(&fragment), None);
}

#[test]
fn a_refusal_comes_from_the_destination_of_what_it_quotes() {
    // The vectors go from 192.0.2.1 to 198.51.100.2, and from 2001:db8::1 to 2001:db8::2.
    let answer = |quote: &[u8], kind: u8, code: u8| {
        let refused = Packet::parse(quote).unwrap();
        let mut message = answer_to(quote, unreachable).unwrap();
        let offset = refused.header_len();
        message[offset..offset + 2].copy_from_slice(&[kind, code]);
        message
    };
    let is_refusal = |message: &[u8]| refused(&Packet::parse(message).unwrap()).is_some();
    for (quote, refusals) in [(UDP_V4, [(3, 2), (3, 3)]), (UDP_V6, [(1, 4), (4, 1)])] {
        let quote = bytes(quote);
        let refusals_of_all: Vec<_> = (0..=255u8)
            .flat_map(|kind| (0..=255u8).map(move |code| (kind, code)))
            .filter(|(kind, code)| is_refusal(&answer(&quote, *kind, *code)))
            .collect();
        assert_eq!(refusals_of_all, refusals);
        let good = answer(&quote, refusals[1].0, refusals[1].1);
        let quoted = refused(&Packet::parse(&good).unwrap()).unwrap();
        assert_eq!(quoted.header, Header::Udp { source: 4660, destination: 53 });
        // The last byte of the source, and of the destination.
        let ends = if quote[0] >> 4 == 4 { [15, 19] } else { [23, 39] };
        for at in ends {
            let mut message = good.clone();
            message[at] ^= 1;
            assert!(!is_refusal(&message));
        }
    }
    assert!(!is_refusal(&bytes(UDP_V4)));
}

proptest! {
    #[test]
    fn no_packet_makes_reading_or_answering_panic(bytes in hostile_packet(), mtu: u16) {
        let mut out = Vec::new();
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = quoted(&packet);
            let _ = refused(&packet);
            too_big(&packet, mtu, &mut out);
            prop_assert!(out.len() <= 1280);
            unreachable(&packet, &mut out);
            prop_assert!(out.len() <= 1280);
        }
        for (version, protocol) in [(0x45, ICMP), (0x60, ICMPV6)] {
            let kind = if version == 0x45 { 3 } else { 1 };
            let payload = [&[kind, 0, 0, 0, 0, 0, 0, 0], bytes.as_slice()].concat();
            let message = if version == 0x45 { v4(protocol, 0, &payload) } else { v6(protocol, &payload) };
            let _ = quoted(&Packet::parse(&message).unwrap());
        }
    }
}

#[test]
fn the_beginning_of_a_packet_is_answered_as_the_whole_of_it() {
    let mut packet = vec![0; 1_400];
    packet[..20].copy_from_slice(&[0x45, 0, 5, 120, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..28].copy_from_slice(&[0x10, 0, 0, 53, 5, 100, 0, 0]);
    let (mut whole, mut part) = (Vec::new(), Vec::new());
    assert!(too_big(&Packet::parse(&packet).expect("a packet"), 1_200, &mut whole));
    for protocol in [UDP, TCP] {
        packet[9] = protocol;
        assert!(too_big(&Packet::parse_start(&packet[..128]).expect("its beginning"), 1_200, &mut part), "{protocol}");
        assert_eq!((part.len(), &part[20..22]), (20 + 8 + 128, &whole[20..22]));
    }
    packet[9] = ICMP;
    packet[20..22].copy_from_slice(&[3, 4]);
    assert!(!too_big(&Packet::parse_start(&packet[..128]).expect("its beginning"), 1_200, &mut part), "an error");
    packet[20..22].copy_from_slice(&[8, 0]);
    assert!(too_big(&Packet::parse_start(&packet[..128]).expect("its beginning"), 1_200, &mut part), "a ping");
}

#[test]
fn a_report_names_the_addresses_that_an_error_quotes() {
    let report_of = |packet: &[u8]| report(&Packet::parse(packet).unwrap());
    for (refused, len) in [(bytes(UDP_V4), 20), (bytes(UDP_V6), 40)] {
        let (source, destination) = {
            let packet = Packet::parse(&refused).unwrap();
            (packet.source(), packet.destination())
        };
        assert_eq!(report_of(&refused), Report::Nothing);
        let wrap = |quote: &[u8], kind: u8| {
            let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quote].concat();
            if source.is_ipv4() { v4(ICMP, 0, &message) } else { v6(ICMPV6, &message) }
        };
        let (error, other) = if source.is_ipv4() { (3, 8) } else { (1, 128) };
        let about = Report::About { source, destination };
        assert_eq!(report_of(&wrap(&refused[..len], error)), about);
        let mut garbled = refused[..len].to_vec();
        garbled[0] = 0;
        assert_eq!(report_of(&wrap(&garbled, error)), about, "whatever else is wrong");
        assert_eq!(report_of(&wrap(&refused[..len - 1], error)), Report::Nothing);
        assert_eq!(report_of(&wrap(&refused, other)), Report::Nothing);
    }
    assert_eq!(report_of(&v4(ICMP, 0x2000, &[3, 4, 0, 0, 0, 0, 2, 40])), Report::Hidden);
}
