//! Handwritten vectors: each message, the places where it may hide, and packets that merely look similar.

use super::*;

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
/// Hop-by-hop options with a router alert for MLD (RFC 2710 section 3), in front of ICMPv6.
const ROUTER_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const ROUTER_ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
const MORE: u16 = 1;

fn v4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet =
        vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A fragment header. `offset` is in units of 8 bytes.
fn fragment(next: u8, offset: u16, more: u16) -> [u8; 8] {
    let [high, low] = (offset << 3 | more).to_be_bytes();
    [next, 0, high, low, 0, 0, 0, 7]
}

#[track_caller]
fn asked(packet: &[u8]) -> Result<bool, Opaque> {
    configures_hosts(&Packet::parse(packet).expect("a packet"))
}

#[test]
fn the_icmp_types_are_those_of_the_registries_that_configure() {
    let of_v4: Vec<u8> =
        (0..=255).filter(|kind| asked(&v4(ICMP, 0, &[*kind, 0, 0, 0, 0, 0, 0, 0])) == Ok(true)).collect();
    assert_eq!(of_v4, [5, 9, 10, 15, 16, 17, 18]);
    let of_v6: Vec<u8> =
        (0..=255).filter(|kind| asked(&v6(ICMPV6, &[*kind, 0, 0, 0, 0, 0, 0, 0])) == Ok(true)).collect();
    let wanted = (130..=138).chain(141..=149).chain(151..=154).chain([157, 158]);
    assert_eq!(of_v6, wanted.collect::<Vec<u8>>());
    assert_eq!(asked(&v4(IGMP, 0, &[0x16, 0, 0, 0, 224, 0, 0, 251])), Ok(true));
    // In the other address family these protocol numbers mean nothing.
    assert_eq!(asked(&v4(ICMPV6, 0, &ROUTER_ADVERTISEMENT)), Ok(false));
    assert_eq!(asked(&v6(IGMP, &[0x16; 8])), Ok(false));
}

#[test]
fn dhcp_is_known_by_its_ports_whatever_its_length_says() {
    let ports = |source: u16, destination: u16, len: u16| {
        [source.to_be_bytes(), destination.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat()
    };
    for (source, destination, of_v4, of_v6) in [
        (67, 68, true, false),
        (68, 67, true, false),
        (1234, 68, true, false),
        (67, 67, false, false),
        (1234, 67, false, false),
        (546, 547, false, true),
        (547, 546, false, true),
        (1234, 546, false, true),
        (547, 547, false, false),
        (53, 53, false, false),
    ] {
        // RFC 768 requires at least 8. Linux accepts 0 in IPv6, where it means that the length stands elsewhere.
        for len in [8, 0, 9, 65_535] {
            let udp = ports(source, destination, len);
            assert_eq!(asked(&v4(UDP, 0, &udp)), Ok(of_v4), "{source} to {destination}, {len}");
            assert_eq!(asked(&v6(UDP, &udp)), Ok(of_v6), "{source} to {destination}, {len}");
        }
    }
}

#[test]
fn extension_headers_hide_nothing() {
    let behind = |headers: &[[u8; 8]], first: u8| v6(first, &[&headers.concat()[..], &ROUTER_ADVERTISEMENT].concat());
    assert_eq!(asked(&v6(HOP_BY_HOP, &[&ROUTER_ALERT[..], &[131, 0, 0, 0, 0, 0, 0, 0]].concat())), Ok(true), "MLD");
    assert_eq!(asked(&behind(&[options(ICMPV6)], DESTINATION_OPTIONS)), Ok(true));
    assert_eq!(asked(&behind(&[options(DESTINATION_OPTIONS), options(ICMPV6)], HOP_BY_HOP)), Ok(true));
    assert_eq!(asked(&behind(&[fragment(ICMPV6, 0, 0)], FRAGMENT)), Ok(true), "RFC 6946: no fragment at all");
    let mut chain = vec![options(DESTINATION_OPTIONS); 8];
    chain.push(options(ICMPV6));
    assert_eq!(asked(&behind(&chain, DESTINATION_OPTIONS)), Err(Opaque::ChainTooLong));
    let twice = [fragment(FRAGMENT, 0, 0), fragment(ICMPV6, 0, 0)];
    assert_eq!(asked(&behind(&twice, FRAGMENT)), Err(Opaque::ChainTooLong));
    // A receiver does not know how to continue behind these.
    assert_eq!(asked(&behind(&[options(ICMPV6)], 253)), Err(Opaque::UnknownExtension));
    assert_eq!(asked(&v6(DESTINATION_OPTIONS, &[ICMPV6, 9, 0, 0])), Err(Opaque::Truncated));
    assert_eq!(asked(&v6(ICMPV6, &[])), Ok(false));
    assert_eq!(asked(&v6(UDP, &[2, 34, 2])), Ok(false), "no ports");
}

#[test]
fn fragments_hide_nothing() {
    let first = |next: u8, payload: &[u8]| v6(FRAGMENT, &[&fragment(next, 0, MORE)[..], payload].concat());
    assert_eq!(asked(&first(ICMPV6, &ROUTER_ADVERTISEMENT)), Ok(true), "RFC 6980");
    assert_eq!(asked(&first(ICMPV6, &ROUTER_ADVERTISEMENT[..1])), Ok(true), "its type is enough");
    assert_eq!(asked(&first(ICMPV6, &[])), Err(Opaque::ShortFirstFragment));
    assert_eq!(asked(&first(UDP, &[2, 34, 2])), Err(Opaque::ShortFirstFragment));
    assert_eq!(asked(&first(DESTINATION_OPTIONS, &[ICMPV6, 1, 1, 12, 0, 0, 0, 0])), Err(Opaque::ShortFirstFragment));
    assert_eq!(asked(&first(ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1])), Ok(false), "a ping");
    let later = v6(FRAGMENT, &[&fragment(ICMPV6, 1, 0)[..], &ROUTER_ADVERTISEMENT].concat());
    assert_eq!(asked(&later), Ok(false));

    const MORE_V4: u16 = 0x2000;
    assert_eq!(asked(&v4(ICMP, MORE_V4, &[5, 0, 0, 0, 10, 0, 0, 9])), Ok(true));
    assert_eq!(asked(&v4(ICMP, MORE_V4, &[])), Err(Opaque::ShortFirstFragment));
    assert_eq!(asked(&v4(UDP, MORE_V4, &[0, 67, 0, 68, 1, 0, 0, 0])), Ok(true));
    assert_eq!(asked(&v4(UDP, 1, &[0, 67, 0, 68, 1, 0, 0, 0])), Ok(false), "bytes of a payload");
    assert_eq!(asked(&v4(IGMP, MORE_V4, &[])), Ok(true));
}

#[test]
fn ordinary_packets_pass() {
    for (protocol, payload) in [(TCP, &[0; 20][..]), (TCP, &[]), (47, &[134; 8]), (50, &[134; 8]), (59, &[134; 8])] {
        assert_eq!(asked(&v6(protocol, payload)), Ok(false), "{protocol}");
        assert_eq!(asked(&v4(protocol, 0, payload)), Ok(false), "{protocol}");
    }
}
