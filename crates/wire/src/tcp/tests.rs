//! MSS options in every position.

use proptest::prelude::*;

use super::*;
use crate::vectors::{UDP_V4, bytes, hostile_packet, slow_sum, v4, v6};

const HEADER_V4: &str = "4500002c 12344000 40063c61 c0000201 c6336402";
const HEADER_V6: &str = "60000000 00180640 20010db8000000000000000000000001 20010db8000000000000000000000002";

fn clamped(packet: &str, mtu: usize) -> Option<Vec<u8>> {
    let mut packet = bytes(packet);
    let before = packet.clone();
    let changed = clamp_mss(&mut packet, mtu);
    assert_eq!(changed, packet != before);
    changed.then_some(packet)
}

#[test]
fn a_syn_over_ipv4_is_lowered_to_the_mtu_less_forty() {
    let before = format!("{HEADER_V4} 03e801bb 00000001 00000000 6002ffff a64b0000 020405b4");
    let after = format!("{HEADER_V4} 03e801bb 00000001 00000000 6002ffff a69b0000 02040564");
    assert_eq!(clamped(&before, 1420), Some(bytes(&after)));
}

#[test]
fn a_syn_ack_over_ipv6_is_lowered_to_the_mtu_less_sixty() {
    let before = format!("{HEADER_V6} 01bb03e8 00000001 00000002 6012ffff 37100000 020405a0");
    let after = format!("{HEADER_V6} 01bb03e8 00000001 00000002 6012ffff 37600000 02040550");
    assert_eq!(clamped(&before, 1420), Some(bytes(&after)));
}

#[test]
fn an_option_at_an_odd_offset_keeps_the_checksum_right() {
    let header = "45000030 12344000 40063c5d c0000201 c6336402";
    let before = format!("{header} 03e801bb 00000001 00000000 7002ffff e3f60000 01020405 b4010100");
    let after = format!("{header} 03e801bb 00000001 00000000 7002ffff 33f70000 01020405 64010100");
    assert_eq!(clamped(&before, 1420), Some(bytes(&after)));
}

#[test]
fn an_mss_is_never_raised() {
    let syn = format!("{HEADER_V4} 03e801bb 00000001 00000000 6002ffff a69b0000 02040564");
    assert_eq!(clamped(&syn, 1420), None, "equal");
    assert_eq!(clamped(&syn, 1500), None, "lower");
    assert_eq!(clamped(&syn, 100_000), None, "an MTU beyond 16 bits");
}

#[test]
fn what_has_no_mss_to_lower_is_left_alone() {
    let ack = format!("{HEADER_V4} 03e801bb 00000001 00000000 6010ffff a64b0000 020405b4");
    assert_eq!(clamped(&ack, 1420), None, "no SYN");
    let no_option = "45000028 12344000 40060000 c0000201 c6336402 03e801bb 00000001 00000000 5002ffff 00000000";
    assert_eq!(clamped(no_option, 1420), None, "no options");
    let ended = format!("{HEADER_V4} 03e801bb 00000001 00000000 7002ffff 00000000 00000000 020405b4");
    assert_eq!(clamped(&ended.replace("4500002c", "45000030"), 1420), None, "behind the end of options");
    let later = format!("{HEADER_V4} 03e801bb 00000001 00000000 6002ffff a64b0000 020405b4");
    assert_eq!(clamped(&later.replace("12344000", "123400b9"), 1420), None, "a later fragment");
    assert_eq!(clamped(UDP_V4, 1420), None, "UDP");
    assert_eq!(clamped("", 1420), None, "nothing");
}

#[test]
fn an_mtu_without_room_for_a_byte_changes_nothing() {
    let syn = format!("{HEADER_V4} 03e801bb 00000001 00000000 6002ffff a64b0000 020405b4");
    for mtu in [0, 39, 40] {
        assert_eq!(clamped(&syn, mtu), None);
    }
    assert_eq!(clamped(&syn, 41).map(|packet| packet[42..44].to_vec()), Some(vec![0, 1]));
}

#[test]
fn options_with_broken_lengths_end_the_search() {
    for options in ["08000000 020405b4", "08010000 020405b4", "010101ff", "01010102", "02050000", "020305b4"] {
        let offset = 5 + options.split(' ').count();
        let tcp = format!("03e801bb 00000001 00000000 {offset:x}002ffff 00000000 {options}");
        let mut packet = v4(6, 0, &bytes(&tcp));
        assert!(!clamp_mss(&mut packet, 1420), "{options}");
    }
}

#[test]
fn every_mss_option_is_lowered_behind_others_and_behind_extension_headers() {
    let options = "020405b4 0402 080a 00000001 00000000 01 030307 020405b0 00";
    let tcp = format!("03e801bb 00000001 00000000 b002ffff 12340000 {options}");
    let mut packet = v6(60, &bytes(&format!("0600 0104 00000000 {tcp}")));
    let sum = slow_sum(&packet[48..]);
    assert!(clamp_mss(&mut packet, 1280));
    let expected = options.replace("05b4", "04c4").replace("05b0", "04c4");
    assert_eq!(packet[68..], bytes(&expected));
    // The checksum stays correct: the sum over header and checksum has not changed.
    assert_eq!(slow_sum(&packet[48..]), sum);
}

proptest! {
    #[test]
    fn no_packet_makes_clamping_panic(mut packet in hostile_packet(), mtu in 0usize..2000) {
        let before = packet.clone();
        let changed = clamp_mss(&mut packet, mtu);
        prop_assert_eq!(changed, packet != before);
    }
}
