//! Fragments byte by byte.

use super::*;
use crate::vectors::{bytes, slow_sum, v4, v6};

/// UDP from 192.0.2.1 to 198.51.100.2, identification 1234, no DF, 40 bytes of payload.
const WHOLE: &str = "4500003c 12340000 40117c46 c0000201 c6336402
    00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223 24252627";

fn fragments(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut fragments = Vec::new();
    fragment_v4(&Packet::parse(packet)?, mtu, &mut |fragment| fragments.push(fragment.to_vec()))?;
    Ok(fragments)
}

fn words(fragments: &[Vec<u8>], at: usize) -> Vec<u16> {
    fragments.iter().map(|fragment| u16::from_be_bytes([fragment[at], fragment[at + 1]])).collect()
}

#[test]
fn a_packet_is_cut_at_the_last_multiple_of_eight_that_fits() {
    // An MTU of 47 has room for 27 bytes of payload: 24 are taken.
    let expected = [
        bytes(
            "4500002c 12342000 40115c56 c0000201 c6336402
            00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617",
        ),
        bytes("45000024 12340003 40117c5b c0000201 c6336402  18191a1b 1c1d1e1f 20212223 24252627"),
    ];
    assert_eq!(fragments(&bytes(WHOLE), 47).unwrap(), expected);
}

#[test]
fn a_packet_that_fits_is_handed_out_as_it_is() {
    assert_eq!(fragments(&bytes(WHOLE), 60).unwrap(), [bytes(WHOLE)]);
    assert_eq!(fragments(&bytes(WHOLE), 59).unwrap().len(), 2);
}

#[test]
fn cutting_a_fragment_goes_on_where_it_was_and_keeps_more_fragments() {
    let middle = fragments(&v4(17, 0x2000 | 100, &[7; 40]), 44).unwrap();
    assert_eq!(words(&middle, 6), [0x2000 | 100, 0x2000 | 103]);
    let last = fragments(&v4(17, 100, &[7; 37]), 44).unwrap();
    assert_eq!(words(&last, 6), [0x2000 | 100, 103]);
    assert_eq!(words(&last, 2), [44, 33]);
}

#[test]
fn later_fragments_carry_only_the_options_with_the_copy_bit() {
    // Record route (07, not copied), no-operation, router alert (94, copied), end.
    let options = "0707 04 0a000001 01 94040000 00000000";
    let mut packet = v4(17, 0, &bytes(&format!("{options} {}", "55".repeat(32))));
    packet[0] = 0x49;
    let cut = fragments(&packet, 52).unwrap();

    assert_eq!(cut.len(), 2);
    assert_eq!(cut[0][0], 0x49);
    assert_eq!(cut[0][20..36], bytes(options));
    assert_eq!(cut[0].len(), 52);
    assert_eq!(cut[1][0], 0x46);
    assert_eq!(cut[1][20..24], bytes("94040000"));
    assert_eq!(cut[1].len(), 24 + 16);
    assert_eq!(words(&cut, 6), [0x2000, 2]);
    for fragment in &cut {
        let header_len = usize::from(fragment[0] & 15) * 4;
        assert_eq!(slow_sum(&fragment[..header_len]), 0xffff);
    }
}

#[test]
fn fragments_put_together_are_the_packet() {
    let payload: Vec<u8> = (0..65_515u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let packet = v4(17, 0, &payload);
    for mtu in [28, 68, 576, 1280, 1499, 9000, 60_000] {
        let mut put_together = Vec::new();
        for fragment in fragments(&packet, mtu).unwrap() {
            assert!(fragment.len() <= mtu);
            assert_eq!(slow_sum(&fragment[..20]), 0xffff);
            let offset = u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff;
            assert_eq!(usize::from(offset) * 8, put_together.len());
            put_together.extend_from_slice(&fragment[20..]);
            let more = fragment[6] & 0x20 != 0;
            assert_eq!(more, put_together.len() < payload.len());
        }
        assert_eq!(put_together, payload, "mtu {mtu}");
    }
}

#[test]
fn what_must_not_be_cut_or_cannot_is_malformed_and_nothing_is_handed_out() {
    let refused = |packet: &[u8], mtu: usize| {
        let mut count = 0;
        let result = fragment_v4(&Packet::parse(packet).unwrap(), mtu, &mut |_| count += 1);
        assert_eq!(count, 0);
        result == Err(Malformed)
    };
    assert!(refused(&v4(17, 0x4000, &[0; 40]), 44), "DF");
    assert!(refused(&v6(17, &[0; 40]), 44), "IPv6");
    assert!(refused(&v4(17, 0, &[0; 40]), 27), "no room for eight bytes");
    assert!(refused(&v4(17, 0x2000, &[0; 39]), 44), "a first fragment of 39 bytes");
    assert!(refused(&v4(17, 0x1fff, &[0; 40]), 44), "an end beyond 65,535");
    let mut options = v4(17, 0, &[0x94; 40]);
    options[0] = 0x46;
    assert!(refused(&options, 40), "an option beyond the header");
}
