//! The bytes of the virtio header, and finished partial checksums.

use proptest::prelude::*;

use super::*;
use crate::vectors::{UDP_V4, bytes};

#[test]
#[cfg(target_endian = "little")]
fn the_header_of_a_tcp_super_packet_is_what_linux_writes() {
    // NEEDS_CSUM, TCPV6 with ECN, 72 bytes of headers, segments of 1208, checksum from 40 at 16.
    let wire = bytes("01 84 4800 b804 2800 1000");
    let header = VirtioHeader {
        needs_checksum: true,
        data_valid: false,
        segmentation: Segmentation::TcpV6,
        ecn: true,
        header_len: 72,
        segment_size: 1208,
        checksum_start: 40,
        checksum_offset: 16,
    };
    assert_eq!(VirtioHeader::decode(&wire), Ok(header));
    assert_eq!(header.encode(), wire[..]);
}

#[test]
fn each_segmentation_has_its_number_and_no_other_is_taken() {
    for (number, segmentation) in [
        (0, Some(Segmentation::None)),
        (1, Some(Segmentation::TcpV4)),
        (2, None),
        (3, None), // UFO: one datagram to be fragmented, which we did not offer.
        (4, Some(Segmentation::TcpV6)),
        (5, Some(Segmentation::Udp)),
        (6, None),
        (0x21, None), // Inside a UDP tunnel.
    ] {
        let wire = [2, number, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(VirtioHeader::decode(&wire).ok().map(|header| header.segmentation), segmentation, "{number}");
        if let Some(segmentation) = segmentation {
            assert_eq!(VirtioHeader { segmentation, data_valid: true, ..VirtioHeader::NONE }.encode(), wire);
        }
    }
}

#[test]
fn a_header_needs_ten_bytes_and_skips_flags_of_no_concern() {
    assert_eq!(VirtioHeader::decode(&[0; 9]), Err(Malformed));
    assert_eq!(VirtioHeader::decode(&[0; 10]), Ok(VirtioHeader::NONE));
    assert_eq!(VirtioHeader::decode(&[0; 11]), Ok(VirtioHeader::NONE));
    assert_eq!(VirtioHeader::decode(&[0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(VirtioHeader::NONE));
}

const UNFINISHED: VirtioHeader =
    VirtioHeader { needs_checksum: true, checksum_start: 20, checksum_offset: 6, ..VirtioHeader::NONE };

#[test]
fn an_unfinished_checksum_is_finished_in_place() {
    // The field holds c000 + 0201 + c633 + 6402 + 0011 + 000b, folded but not complemented.
    let mut packet = bytes(UDP_V4);
    packet[26..28].copy_from_slice(&[0xec, 0x53]);
    assert_eq!(complete_checksum(&UNFINISHED, &mut packet), Ok(()));
    assert_eq!(packet, bytes(UDP_V4));
}

#[test]
fn a_finished_checksum_of_zero_becomes_all_ones() {
    const IP: &str = "45000018 00004000 40110000 c0000201 c6336402";
    let header = VirtioHeader { checksum_start: 20, checksum_offset: 2, ..UNFINISHED };
    let mut packet = bytes(&format!("{IP} fffe 0001"));
    assert_eq!(complete_checksum(&header, &mut packet), Ok(()));
    assert_eq!(packet, bytes(&format!("{IP} fffe ffff")));
}

#[test]
fn a_finished_packet_is_left_alone() {
    let mut packet = bytes(UDP_V4);
    let header = VirtioHeader { needs_checksum: false, ..UNFINISHED };
    assert_eq!(complete_checksum(&header, &mut packet), Ok(()));
    assert_eq!(packet, bytes(UDP_V4));
}

#[test]
fn a_checksum_outside_the_packet_or_in_its_ip_header_is_malformed_and_nothing_is_touched() {
    let outside = [(20, 10), (20, 0xffff), (30, 0), (31, 0), (32, 0), (0xffff, 0xffff)];
    for (start, offset) in outside.into_iter().chain([(0, 0), (0, 26), (12, 4), (19, 2)]) {
        let mut packet = bytes(UDP_V4);
        let header = VirtioHeader { checksum_start: start, checksum_offset: offset, ..UNFINISHED };
        assert_eq!(complete_checksum(&header, &mut packet), Err(Malformed), "{start} + {offset}");
        assert_eq!(packet, bytes(UDP_V4));
    }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(wire: [u8; 10]) {
        if let Ok(header) = VirtioHeader::decode(&wire) {
            prop_assert_eq!(VirtioHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn no_header_makes_completing_panic(
        start: u16,
        offset: u16,
        mut packet in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let header = VirtioHeader { checksum_start: start % 120, checksum_offset: offset % 120, ..UNFINISHED };
        let _ = complete_checksum(&header, &mut packet);
    }
}
