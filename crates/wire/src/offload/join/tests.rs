//! Joining: what the kernel receives, what is never joined, and that cutting restores the packets.

use proptest::prelude::*;

use super::*;
use crate::offload::SuperPacket;
use crate::vectors::{bytes, hostile_packet};

/// Three segments from 192.0.2.1:1000 to 198.51.100.2:443, with sequence numbers 0xfffffffe, 2 and 6. The last has PSH.
/// Their TCP checksums are never verified.
const SEGMENTS: [&str; 3] = [
    "4500002c 12344000 40063c61 c0000201 c6336402 03e801bb fffffffe 00000007 5010ffff 5b8c0000 30313233",
    "4500002c 12354000 40063c60 c0000201 c6336402 03e801bb 00000002 00000007 5010ffff 53810000 34353637",
    "4500002a 12364000 40063c61 c0000201 c6336402 03e801bb 00000006 00000007 5018ffff 85aa0000 3839",
];

/// What the same sender would have passed to an offloading device of its own: total length 50 with its header checksum,
/// PSH from the last segment, and the folded sum of the pseudo header (192.0.2.1, 198.51.100.2, 6, 30).
const JOINED: &str = "45000032 12344000 40063c5b c0000201 c6336402
    03e801bb fffffffe 00000007 5018ffff ec5b0000  30313233 34353637 3839";

const ALL: Joins = Joins { tcp: true, udp: true };

/// Three datagrams from 192.0.2.1:1000 to 198.51.100.2:443.
const DATAGRAMS: [&str; 3] = [
    "45000020 12344000 40113c62 c0000201 c6336402 03e801bb 000cab97 30313233",
    "45000020 12354000 40113c61 c0000201 c6336402 03e801bb 000ca38f 34353637",
    "4500001e 12364000 40113c62 c0000201 c6336402 03e801bb 000ad5c6 3839",
];

/// What the same sender would have sent with UDP_SEGMENT: total length 38, UDP length 18, and the folded sum of the
/// pseudo header (192.0.2.1, 198.51.100.2, 17, 18).
const JOINED_DATAGRAMS: &str = "45000026 12344000 40113c5c c0000201 c6336402 03e801bb 0012ec5a 30313233 34353637 3839";

fn join(segments: &[Vec<u8>]) -> (usize, VirtioHeader, Vec<u8>) {
    let mut joined = segments[0].clone();
    let mut join = Join::begin(&segments[0], ALL).expect("the first segment begins a super-packet");
    for segment in &segments[1..] {
        let Some(payload_at) = join.append(&joined[..segments[0].len()], segment) else { break };
        joined.extend_from_slice(&segment[payload_at..]);
    }
    let first = segments[0].len();
    let header = join.finish(&mut joined[..first]);
    (join.segments(), header, joined)
}

#[test]
fn segments_become_the_super_packet_that_an_offloading_sender_would_hand_over() {
    let (count, header, packet) = join(&SEGMENTS.map(bytes));
    assert_eq!(count, 3);
    assert_eq!(packet, bytes(JOINED));
    // Flags NEEDS_CSUM, type TCPV4, 40 bytes of headers, 4 bytes in a segment, checksum from 20 at 16, all
    // little-endian.
    assert_eq!(header.encode(), *bytes("0101 2800 0400 1400 1000"));
}

#[test]
fn a_lone_segment_stays_as_it_is() {
    let segment = bytes(SEGMENTS[0]);
    assert_eq!(join(std::slice::from_ref(&segment)), (1, VirtioHeader::NONE, segment));
}

#[test]
fn nothing_follows_a_pushed_or_a_shorter_segment() {
    let [first, second, third] = SEGMENTS.map(bytes);
    let mut pushed = second.clone();
    pushed[33] |= PSH;
    assert_eq!(join(&[first.clone(), pushed, third.clone()]).0, 2);
    let mut fourth = third.clone();
    fourth[24..28].copy_from_slice(&8u32.to_be_bytes());
    let mut unpushed = third;
    unpushed[33] &= !PSH;
    assert_eq!(join(&[first, second, unpushed, fourth]).0, 3);
}

#[test]
fn a_segment_that_differs_in_more_than_its_place_does_not_join() {
    let differs = |at: usize, value: u8| {
        let [first, mut second, _] = SEGMENTS.map(bytes);
        assert_ne!(second[at], value);
        second[at] = value;
        join(&[first, second]).0 == 1
    };
    let fields = [
        ("ECN mark", 1, 0x03),
        ("may be fragmented", 6, 0x00),
        ("time to live", 8, 63),
        ("source address", 15, 9),
        ("destination address", 19, 9),
        ("source port", 21, 9),
        ("destination port", 23, 9),
        ("sequence number", 27, 3),
        ("acknowledgement", 31, 8),
        ("header length", 32, 0x60),
        ("window", 35, 0xfe),
    ];
    for (name, at, value) in fields {
        assert!(differs(at, value), "{name}");
    }
    for (name, flag) in [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("URG", 0x20), ("ECE", 0x40), ("CWR", 0x80)] {
        assert!(differs(33, ACK | flag), "{name}");
    }
}

#[test]
fn ids_count_up_where_a_packet_may_be_fragmented() {
    let may_fragment = |id: [u8; 2], segment: &str| {
        let mut segment = bytes(segment);
        segment[6] = 0;
        segment[4..6].copy_from_slice(&id);
        segment
    };
    let first = may_fragment([0x12, 0x34], SEGMENTS[0]);
    assert_eq!(join(&[first.clone(), may_fragment([0x12, 0x35], SEGMENTS[1])]).0, 2);
    assert_eq!(join(&[first, may_fragment([0x12, 0x36], SEGMENTS[1])]).0, 1);
}

#[test]
fn what_is_no_plain_segment_with_payload_does_not_begin() {
    let begins = |change: fn(&mut Vec<u8>)| {
        let mut segment = bytes(SEGMENTS[0]);
        change(&mut segment);
        Join::begin(&segment, ALL).is_some()
    };
    assert!(begins(|_| {}));
    assert!(!begins(|segment| segment.truncate(40)), "no payload");
    assert!(!begins(|segment| segment[0] = 0x46), "IP options");
    assert!(!begins(|segment| segment[6] = 0x20), "a first fragment");
    assert!(!begins(|segment| segment[7] = 1), "a later fragment");
    assert!(!begins(|segment| segment[9] = 132), "SCTP");
    assert!(!begins(|segment| segment[32] = 0x40), "a header shorter than TCP's");
    assert!(!begins(|segment| segment[33] = 0x12), "SYN");
}

#[test]
fn datagrams_become_the_super_packet_that_an_offloading_sender_would_hand_over() {
    let (count, header, packet) = join(&DATAGRAMS.map(bytes));
    assert_eq!(count, 3);
    assert_eq!(packet, bytes(JOINED_DATAGRAMS));
    // Flags NEEDS_CSUM, type UDP_L4, 28 bytes of headers, 4 bytes in a datagram, checksum from 20 at 6, all
    // little-endian.
    assert_eq!(header.encode(), *bytes("0105 1c00 0400 1400 0600"));
}

#[test]
fn a_datagram_of_another_flow_or_size_or_without_checksum_does_not_join() {
    let joins = |change: fn(&mut Vec<u8>)| {
        let [first, mut second, _] = DATAGRAMS.map(bytes);
        change(&mut second);
        join(&[first, second]).0 == 2
    };
    assert!(joins(|_| {}));
    assert!(!joins(|datagram| datagram[21] = 9), "source port");
    assert!(!joins(|datagram| datagram[23] = 9), "destination port");
    assert!(!joins(|datagram| datagram[25] = 11), "a length that is not the datagram's");
    assert!(!joins(|datagram| datagram[26..28].fill(0)), "no checksum");
    assert!(!joins(|datagram| datagram[1] = 3), "ECN mark");
    assert!(
        !joins(|datagram| {
            datagram.push(0);
            datagram[25] = 13
        }),
        "longer than the first"
    );
    let [first, second, third] = DATAGRAMS.map(bytes);
    assert_eq!(join(&[first, third, second]).0, 2, "nothing follows a shorter one");
}

#[test]
fn a_super_packet_holds_64_datagrams() {
    let datagrams: Vec<_> = (0..100).map(|_| bytes(DATAGRAMS[0])).collect();
    assert_eq!(join(&datagrams).0, 64);
}

#[test]
fn only_what_was_asked_for_is_joined() {
    let begins = |packet: &str, tcp, udp| Join::begin(&bytes(packet), Joins { tcp, udp }).is_some();
    assert!(begins(SEGMENTS[0], true, false) && !begins(SEGMENTS[0], false, true));
    assert!(begins(DATAGRAMS[0], false, true) && !begins(DATAGRAMS[0], true, false));
}

#[test]
fn a_super_packet_ends_before_65_536_bytes() {
    let segment = |index: u32| {
        let mut segment = bytes(SEGMENTS[0]);
        segment.resize(40 + 1_380, 0x55);
        segment[24..28].copy_from_slice(&(1_380 * index).to_be_bytes());
        segment[2..4].copy_from_slice(&1_420u16.to_be_bytes());
        segment
    };
    let segments: Vec<_> = (0..60).map(segment).collect();
    let (count, _, packet) = join(&segments);
    assert_eq!((count, packet.len()), (47, 40 + 47 * 1_380));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(first in hostile_packet(), next in hostile_packet()) {
        if let Some(mut join) = Join::begin(&first, ALL) {
            let _ = join.append(&first, &next);
            let mut first = first;
            let _ = join.finish(&mut first);
        }
    }

    #[test]
    fn cutting_what_was_joined_gives_the_packets_back(
        is_v6: bool,
        is_udp: bool,
        options in 0usize..=10,
        size in 1usize..1_400,
        lens in prop::collection::vec(any::<prop::sample::Index>(), 1),
        count in 2usize..45,
        sequence: u32,
        pushed: bool,
    ) {
        let payload_len = size * (count - 1) + 1 + lens[0].index(size);
        let segmentation = match (is_udp, is_v6) {
            (true, _) => Segmentation::Udp,
            (_, true) => Segmentation::TcpV6,
            (_, false) => Segmentation::TcpV4,
        };
        let virtio = VirtioHeader { segmentation, segment_size: size as u16, ..VirtioHeader::NONE };
        let original = match is_udp {
            true => long_datagram(is_v6, payload_len),
            false => super_packet(is_v6, options, payload_len, sequence, pushed),
        };
        prop_assume!(original.len() <= MAX_LEN);
        let cut = SuperPacket::parse(&virtio, &original).expect("a super-packet");
        let segments: Vec<Vec<u8>> = (0..cut.segments())
            .map(|index| {
                let mut out = vec![0; 2_048];
                let len = cut.write_segment(index, &mut out);
                out.truncate(len);
                out
            })
            .collect();

        let (joined_count, header, joined) = join(&segments);
        prop_assert_eq!(joined_count, count);
        prop_assert_eq!(joined.len(), original.len());
        let again = SuperPacket::parse(&header, &joined).expect("a super-packet");
        for (index, segment) in segments.iter().enumerate() {
            let mut out = vec![0; 2_048];
            let len = again.write_segment(index, &mut out);
            prop_assert_eq!(&out[..len], &segment[..]);
        }
    }
}

fn super_packet(is_v6: bool, options: usize, payload_len: usize, sequence: u32, pushed: bool) -> Vec<u8> {
    let mut tcp = bytes("03e801bb 00000000 00000007 5010ffff 00000000");
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = ((5 + options) << 4) as u8;
    tcp[13] = if pushed { ACK | PSH } else { ACK };
    tcp.extend(std::iter::repeat_n(1, options * 4));
    tcp.extend((0..payload_len).map(|at| (at % 251) as u8));
    if is_v6 { crate::vectors::v6(TCP, &tcp) } else { crate::vectors::v4(TCP, 0x4000, &tcp) }
}

fn long_datagram(is_v6: bool, payload_len: usize) -> Vec<u8> {
    let mut udp = bytes("03e801bb 0000 0000");
    udp[4..6].copy_from_slice(&((8 + payload_len) as u16).to_be_bytes());
    udp.extend((0..payload_len).map(|at| (at % 251) as u8));
    if is_v6 { crate::vectors::v6(UDP, &udp) } else { crate::vectors::v4(UDP, 0x4000, &udp) }
}
