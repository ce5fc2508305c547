//! Cutting produces the segments that a sender would have sent.

use proptest::prelude::*;

use super::*;
use crate::vectors::{bytes, hostile_packet, slow_sum, v4, v6};

const TCP_V4: VirtioHeader =
    VirtioHeader { needs_checksum: true, segmentation: Segmentation::TcpV4, segment_size: 4, ..VirtioHeader::NONE };
const TCP_V6: VirtioHeader = VirtioHeader { segmentation: Segmentation::TcpV6, ..TCP_V4 };
const UDP: VirtioHeader = VirtioHeader { segmentation: Segmentation::Udp, segment_size: 3, ..TCP_V4 };

/// TCP from 192.0.2.1 to 198.51.100.2 with CWR, ACK, PSH and FIN. Sequence number and identification are about to wrap.
/// The checksum is the sum of the pseudo header, as Linux leaves it.
const SUPER_V4: &str = "45000032 ffff4000 40064e8f c0000201 c6336402
    03e801bb fffffffe 00000007 5099ffff ec660000  30313233 34353637 3839";

fn segments(super_packet: &SuperPacket<'_>) -> Vec<Vec<u8>> {
    (0..super_packet.segments())
        .map(|index| {
            let mut out = vec![0xee; 2048];
            let len = super_packet.write_segment(index, &mut out);
            assert_eq!(len, super_packet.segment_len(index));
            assert!(out[len..].iter().all(|byte| *byte == 0xee), "nothing is written behind the segment");
            out.truncate(len);
            out
        })
        .collect()
}

#[test]
fn a_tcp_super_packet_becomes_the_segments_that_a_sender_would_have_sent() {
    let packet = bytes(SUPER_V4);
    let super_packet = SuperPacket::parse(&TCP_V4, &packet).unwrap();
    assert_eq!(super_packet.headers_len(), 40);
    assert_eq!(super_packet.payload_len(), 10);
    assert_eq!(super_packet.segment_size(), 4);
    // Only the first segment has CWR. Only the last has PSH and FIN.
    let expected = [
        "4500002c ffff4000 40064e95 c0000201 c6336402 03e801bb fffffffe 00000007 5090ffff 5b0c0000 30313233",
        "4500002c 00004000 40064e95 c0000201 c6336402 03e801bb 00000002 00000007 5010ffff 53810000 34353637",
        "4500002a 00014000 40064e96 c0000201 c6336402 03e801bb 00000006 00000007 5019ffff 85a90000 3839",
    ];
    assert_eq!(segments(&super_packet), expected.map(bytes));
}

#[test]
fn a_udp_super_packet_becomes_datagrams() {
    let addresses = "20010db8000000000000000000000001 20010db8000000000000000000000002";
    let packet = bytes(&format!("60000000 000d1140 {addresses} 12340035 000d0000 6162636465"));
    let expected = [
        format!("60000000 000b1140 {addresses} 12340035 000bcd97 616263"),
        format!("60000000 000a1140 {addresses} 12340035 000a2d97 6465"),
    ];
    let super_packet = SuperPacket::parse(&UDP, &packet).unwrap();
    assert_eq!(segments(&super_packet), expected.map(|hex| bytes(&hex)));
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_all_ones() {
    let datagram = |payload: [u8; 2]| {
        let packet = v4(17, 0, &[bytes("12340035 000a0000").as_slice(), &payload].concat());
        segments(&SuperPacket::parse(&UDP, &packet).unwrap()).swap_remove(0)
    };
    // The payload equals the checksum that a zero payload would have, so the sum becomes all ones.
    let checksum = datagram([0, 0])[26..28].try_into().unwrap();
    assert_eq!(datagram(checksum)[26..28], [0xff, 0xff]);
}

#[test]
fn one_segment_keeps_every_flag() {
    let packet = bytes(SUPER_V4);
    let header = VirtioHeader { segment_size: 1400, ..TCP_V4 };
    let cut = segments(&SuperPacket::parse(&header, &packet).unwrap());
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0][33], 0x99);
    assert_eq!(cut[0][36..38], [0xb8, 0x57]);
}

#[test]
fn headers_without_payload_are_one_segment() {
    let packet = v4(6, 0x4000, &bytes("03e801bb 00000001 00000000 5010ffff 00000000"));
    let super_packet = SuperPacket::parse(&TCP_V4, &packet).unwrap();
    assert_eq!((super_packet.segments(), super_packet.segment_len(0)), (1, 40));
}

#[test]
fn a_wrong_header_len_does_no_harm() {
    let packet = bytes(SUPER_V4);
    let right = segments(&SuperPacket::parse(&TCP_V4, &packet).unwrap());
    for header_len in [0, 1, 54, 0xffff] {
        let header = VirtioHeader { header_len, ..TCP_V4 };
        assert_eq!(segments(&SuperPacket::parse(&header, &packet).unwrap()), right);
    }
}

#[test]
fn a_smaller_limit_cuts_tcp_smaller_and_a_larger_one_changes_nothing() {
    let packet = bytes(SUPER_V4);
    let mut super_packet = SuperPacket::parse(&TCP_V4, &packet).unwrap();
    assert!(!super_packet.limit_segment(1500));
    assert!(!super_packet.limit_segment(44));
    assert_eq!(super_packet.segment_size(), 4);
    assert!(super_packet.limit_segment(43));
    assert_eq!((super_packet.segment_size(), super_packet.segments()), (3, 4));
    assert!(segments(&super_packet).iter().all(|segment| segment.len() <= 43));
    assert_eq!(segments(&super_packet)[1][24..28], [0, 0, 0, 1], "the sequence number follows the new size");
    assert!(!super_packet.limit_segment(44));
    assert_eq!(super_packet.segment_size(), 3);
}

#[test]
fn a_limit_that_cannot_be_met_changes_nothing() {
    let packet = bytes(SUPER_V4);
    let mut tcp = SuperPacket::parse(&TCP_V4, &packet).unwrap();
    assert!(!tcp.limit_segment(40), "no room for a byte");
    assert!(!tcp.limit_segment(0));
    assert_eq!(tcp.segment_size(), 4);

    let packet = v4(17, 0, &bytes("12340035 000d0000 6162636465"));
    let mut udp = SuperPacket::parse(&UDP, &packet).unwrap();
    assert!(!udp.limit_segment(30), "datagrams are not ours to cut");
    assert_eq!((udp.segment_size(), udp.segment_len(0)), (3, 31));
}

#[test]
fn what_contradicts_its_virtio_header_is_malformed() {
    let malformed = |header: &VirtioHeader, packet: &[u8]| SuperPacket::parse(header, packet).is_err();
    let tcp_v4 = bytes(SUPER_V4);
    assert!(malformed(&VirtioHeader { segmentation: Segmentation::None, ..TCP_V4 }, &tcp_v4), "no segmentation");
    assert!(malformed(&TCP_V6, &tcp_v4), "a different version");
    assert!(malformed(&UDP, &tcp_v4), "another protocol");
    assert!(malformed(&VirtioHeader { segment_size: 0, ..TCP_V4 }, &tcp_v4), "segments of nothing");
    assert!(malformed(&TCP_V4, &tcp_v4[..49]), "not whole");
    assert!(malformed(&TCP_V4, &v4(6, 0x2000, &tcp_v4[20..])), "a fragment");
    assert!(
        malformed(&UDP, &v4(17, 0, &bytes("12340035 000c0000 6162636465"))),
        "a UDP length that is not the packet's"
    );
}

#[test]
#[should_panic(expected = "there is no segment 2")]
fn asking_for_a_segment_behind_the_last_is_a_bug_of_the_caller() {
    let packet = bytes(SUPER_V4);
    let header = VirtioHeader { segment_size: 5, ..TCP_V4 };
    SuperPacket::parse(&header, &packet).unwrap().segment_len(2);
}

#[test]
fn source_routes_are_refused_and_other_options_are_copied() {
    let tcp = "03e801bb 00000001 00000000 5010ffff 00000000 3031323334";
    let with_options = |options: &str| {
        let mut packet = v4(6, 0x4000, &bytes(&format!("{options} {tcp}")));
        packet[0] = 0x47;
        packet
    };
    assert!(SuperPacket::parse(&TCP_V4, &with_options("01 8307 04 0a000003")).is_err(), "loose");
    assert!(SuperPacket::parse(&TCP_V4, &with_options("8907 04 0a000003 00")).is_err(), "strict");
    let packet = with_options("94040000 01010100");
    assert_eq!(segments(&SuperPacket::parse(&TCP_V4, &packet).unwrap())[1][20..28], bytes("94040000 01010100"));

    let routed = v6(43, &bytes(&format!("0600 0401 00000000 {tcp}")));
    assert!(SuperPacket::parse(&TCP_V6, &routed).is_err(), "routing header");
    let options = v6(60, &bytes(&format!("0600 0104 00000000 {tcp}")));
    assert_eq!(SuperPacket::parse(&TCP_V6, &options).unwrap().headers_len(), 68);
}

/// Sums of the IPv4 header and of TCP or UDP with its pseudo header, both computed the slow way. All ones if correct.
fn slow_sums(packet: &[u8], transport_at: usize) -> (u16, u16) {
    let is_v4 = packet[0] >> 4 == 4;
    let (network, addresses, protocol) = if is_v4 {
        (slow_sum(&packet[..transport_at]), &packet[12..20], packet[9])
    } else {
        (0xffff, &packet[8..40], if packet[6] == 60 { packet[40] } else { packet[6] })
    };
    let mut counted = addresses.to_vec();
    counted.extend_from_slice(&((packet.len() - transport_at) as u32).to_be_bytes());
    counted.extend_from_slice(&[0, 0, 0, protocol]);
    counted.extend_from_slice(&packet[transport_at..]);
    (network, slow_sum(&counted))
}

proptest! {
    #[test]
    fn every_segment_has_the_right_checksums_and_together_they_are_the_payload(
        payload in prop::collection::vec(any::<u8>(), 0..9000),
        segment_size in 1u16..1500,
        limit in 70usize..1600,
        header in any::<[u8; 20]>(),
        options in prop::sample::select(vec![0usize, 12, 40]),
        (is_tcp, is_v6) in any::<(bool, bool)>(),
    ) {
        let mut transport = header.to_vec();
        if is_tcp {
            transport[12] = (((20 + options) / 4) as u8) << 4;
            transport.resize(20 + options, 1);
        } else {
            transport.truncate(8);
            transport[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        }
        let headers_len = transport.len();
        transport.extend_from_slice(&payload);
        let protocol = if is_tcp { 6 } else { 17 };
        let (packet, at) = if is_v6 {
            (v6(60, &[&[protocol, 0, 1, 4, 0, 0, 0, 0], transport.as_slice()].concat()), 48)
        } else {
            (v4(protocol, 0x4000, &transport), 20)
        };
        let segmentation = match (is_tcp, is_v6) {
            (true, false) => Segmentation::TcpV4,
            (true, true) => Segmentation::TcpV6,
            _ => Segmentation::Udp,
        };
        let virtio = VirtioHeader { segmentation, segment_size, ..TCP_V4 };
        let mut super_packet = SuperPacket::parse(&virtio, &packet).unwrap();
        prop_assert_eq!(super_packet.headers_len(), at + headers_len);
        let was_cut = super_packet.limit_segment(limit);
        prop_assert_eq!(was_cut, super_packet.segment_size() < usize::from(segment_size));
        let fits = is_tcp && limit > super_packet.headers_len();

        let mut put_together = Vec::new();
        for segment in segments(&super_packet) {
            prop_assert!(Packet::parse(&segment).unwrap().len() == segment.len());
            prop_assert!(!fits || segment.len() <= limit);
            prop_assert!(segment.len() <= at + headers_len + usize::from(segment_size));
            prop_assert_eq!(slow_sums(&segment, at), (0xffff, 0xffff));
            if is_tcp {
                let sequence = |bytes: &[u8]| u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
                prop_assert_eq!(sequence(&segment).wrapping_sub(sequence(&packet)) as usize, put_together.len());
            }
            put_together.extend_from_slice(&segment[at + headers_len..]);
        }
        prop_assert_eq!(put_together, payload);
    }

    #[test]
    fn no_packet_makes_cutting_panic(
        packet in hostile_packet(),
        kind in 0usize..3,
        segment_size in 0u16..200,
        limit in 0usize..300,
    ) {
        let segmentation = [Segmentation::TcpV4, Segmentation::TcpV6, Segmentation::Udp][kind];
        let header = VirtioHeader { segmentation, segment_size, ..TCP_V4 };
        if let Ok(mut super_packet) = SuperPacket::parse(&header, &packet) {
            super_packet.limit_segment(limit);
            let _ = segments(&super_packet);
        }
    }
}
