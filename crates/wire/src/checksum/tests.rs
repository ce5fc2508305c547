//! Compares sums with a slow implementation of RFC 1071, and updates with fresh sums.

use proptest::prelude::*;

use super::*;
use crate::vectors::{UDP_V4, UDP_V6, bytes, slow_sum};

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    assert_eq!(sum(&bytes("0001 f203 f4f5 f6f7")), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_updates_to_zero_and_not_to_its_negative() {
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn an_ipv4_header_has_its_known_checksum() {
    let header = bytes("4500 0073 0000 4000 4011 0000 c0a8 0001 c0a8 00c7");
    assert_eq!(finish(sum(&header)), 0xb861);
}

#[test]
fn an_odd_last_byte_counts_as_the_high_half_of_a_word() {
    assert_eq!(sum(&[0x12]), 0x1200);
    assert_eq!(sum(&[0xff, 0xff, 0x00, 0x01, 0x80]), 0x8001);
}

#[test]
fn a_valid_udp_packet_sums_to_all_ones_with_its_pseudo_header() {
    let packet = bytes(UDP_V4);
    let pseudo = pseudo_v4([192, 0, 2, 1].into(), [198, 51, 100, 2].into(), 17, 11);
    assert_eq!(fold(pseudo + sum(&packet[20..])), 0xffff);

    let packet = bytes(UDP_V6);
    let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    let pseudo = pseudo_v6(address(1), address(2), 17, 11);
    assert_eq!(fold(pseudo + sum(&packet[40..])), 0xffff);
}

#[test]
fn a_checksum_of_zero_is_written_as_all_ones_where_zero_means_none() {
    assert_eq!(finish(0xffff), 0);
    assert_eq!(finish_nonzero(0xffff), 0xffff);
    assert_eq!(finish_nonzero(0x1234), 0xedcb);
}

#[test]
fn sixty_four_kilobytes_of_ones_do_not_overflow() {
    assert_eq!(sum(&[0xff; 65_535]), u32::from(slow_sum(&[0xff; 65_535])));
}

proptest! {
    #[test]
    fn the_fast_sum_is_the_slow_sum(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(sum(&bytes), u32::from(slow_sum(&bytes)));
    }

    #[test]
    fn an_update_is_a_new_computation(
        mut bytes in prop::collection::vec(any::<u8>(), 20..60),
        new: u16,
        word in 0usize..10,
    ) {
        let before = finish(sum(&bytes));
        let old = u16::from_be_bytes([bytes[word * 2], bytes[word * 2 + 1]]);
        bytes[word * 2..word * 2 + 2].copy_from_slice(&new.to_be_bytes());
        prop_assume!(bytes.iter().any(|byte| *byte != 0));
        prop_assert_eq!(update(before, old, new), finish(sum(&bytes)));
    }
}
