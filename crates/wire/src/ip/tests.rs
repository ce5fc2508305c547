//! Tests which bytes are accepted as an IP packet.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::vectors::{UDP_V4, UDP_V6, bytes, hostile_packet};

#[test]
fn an_ipv4_packet_shows_its_fields() {
    let bytes = bytes(UDP_V4);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.version(), Version::V4);
    assert_eq!(packet.len(), 31);
    assert_eq!(packet.header_len(), 20);
    assert_eq!(packet.source(), IpAddr::from([192, 0, 2, 1]));
    assert_eq!(packet.destination(), IpAddr::from([198, 51, 100, 2]));
    assert_eq!(packet.protocol(), UDP);
    assert_eq!(packet.ecn(), 0);
    assert!(packet.dont_fragment());
}

#[test]
fn an_ipv6_packet_shows_its_fields() {
    let mut bytes = bytes(UDP_V6);
    bytes[1] = 0x30; // traffic class 03
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.version(), Version::V6);
    assert_eq!(packet.len(), 51);
    assert_eq!(packet.header_len(), 40);
    assert_eq!(packet.source(), IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
    assert_eq!(packet.destination(), IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)));
    assert_eq!(packet.protocol(), UDP);
    assert_eq!(packet.ecn(), 3);
    assert!(packet.dont_fragment());
}

#[test]
fn ecn_and_df_of_ipv4_are_read_from_their_bits() {
    let mut bytes = bytes(UDP_V4);
    bytes[1] = 0xfe; // every bit of DSCP, ECT(0)
    bytes[6] = 0xbf; // every bit but DF
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.ecn(), 2);
    assert!(!packet.dont_fragment());
}

#[test]
fn padding_behind_the_packet_is_cut_off() {
    for vector in [UDP_V4, UDP_V6] {
        let whole = bytes(vector);
        let mut padded = whole.clone();
        padded.resize(64, 0);
        assert_eq!(Packet::parse(&padded).unwrap().bytes(), whole);
    }
}

#[test]
fn a_packet_that_is_not_all_there_is_malformed_at_every_length() {
    for vector in [UDP_V4, UDP_V6] {
        let whole = bytes(vector);
        for len in 0..whole.len() {
            assert_eq!(Packet::parse(&whole[..len]).err(), Some(Malformed), "{len} bytes");
        }
        assert!(Packet::parse(&whole).is_ok());
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let altered = |at: usize, value: u8| {
        let mut packet = bytes(UDP_V4);
        packet[at] = value;
        Packet::parse(&packet).err()
    };
    assert_eq!(altered(0, 0x44), Some(Malformed), "header length below 20");
    assert_eq!(altered(0, 0x48), Some(Malformed), "header longer than the packet");
    assert_eq!(altered(3, 19), Some(Malformed), "total length below the header");
    assert_eq!(altered(3, 32), Some(Malformed), "total length beyond the bytes");
    assert_eq!(altered(0, 0x55), Some(Malformed), "version 5");
    assert_eq!(altered(3, 20), None, "a header and nothing else");
}

proptest! {
    #[test]
    fn no_bytes_make_a_packet_panic(bytes in hostile_packet(), mtu in 0usize..400) {
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert!(packet.header_len() <= packet.len() && packet.len() <= bytes.len());
            let _ = (packet.source(), packet.destination(), packet.protocol(), packet.ecn(), packet.dont_fragment());
            if let Ok(upper) = packet.upper() {
                prop_assert!(upper.offset <= packet.len());
            }
            let _ = fragment_v4(&packet, mtu, &mut |fragment| assert!(fragment.len() <= mtu));
        }
    }
}
