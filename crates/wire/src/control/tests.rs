//! Control frames byte by byte. The checksums in the vectors were computed by an independent program.

use proptest::prelude::*;

use super::*;
use crate::vectors::{UDP_V6, bytes, hostile_packet};

const ENDS: &str = "fe80000000000000 6f7665726c617901 fe80000000000000 6f7665726c617902 6f766f76";

/// A frame with the given UDP length, UDP checksum and payload. All frames share the rest.
pub(super) fn vector(len: &str, checksum: &str, payload: &str) -> Vec<u8> {
    bytes(&format!("60000000 {len} 1101 {ENDS} {len} {checksum} {payload}"))
}

pub(super) fn written(frame: Frame<'_>) -> Vec<u8> {
    let mut out = vec![0xee; 2_000];
    let len = frame.write(&mut out);
    assert_eq!(len, frame.len());
    assert!(out[len..].iter().all(|byte| *byte == 0xee), "nothing is written behind a frame");
    out.truncate(len);
    out
}

/// A frame with these TLVs. Its checksum is not valid, since none is checked.
fn with_tlvs(payload: &str) -> Vec<u8> {
    let len = format!("{:04x}", 8 + bytes(payload).len());
    vector(&len, "0000", payload)
}

#[test]
fn each_message_has_its_bytes() {
    let (nonce, id) = (0x0102_0304, 7);
    for (frame, expected) in [
        (
            Frame::Hello { nonce, understands: Abilities::FRAGMENTS, mtu: 1_500 },
            vector("0014", "2553", "8001 0008 01020304 0001 05dc"),
        ),
        (
            Frame::HelloReply { nonce, understands: Abilities::FRAGMENTS, mtu: 1_420 },
            vector("0014", "25a2", "8002 0008 01020304 0001 058c"),
        ),
        (Frame::Probe { id, size: 56 }, vector("0010", "2f39", "8003 0004 00000007")),
        (Frame::ProbeReply { id, size: 1_280 }, vector("0012", "2a32", "8004 0006 00000007 0500")),
        (
            Frame::Fragment { id: 9, offset: 1_232, total: 1_280, bytes: b"abc" },
            vector("0017", "60ed", "8005 000b 00000009 04d0 0500 616263"),
        ),
        (Frame::Word { bytes: b"abcd" }, vector("0010", "6a76", "8006 0004 61626364")),
        (Frame::Parcel { bytes: b"abcd" }, vector("0010", "6a72", "800a 0004 61626364")),
    ] {
        assert_eq!(written(frame), expected, "{frame:?}");
        assert_eq!(Frame::parse(&expected), Ok(frame));
        assert!(is_control(&expected));
    }
}

#[test]
fn a_probe_is_padded_to_every_length_exactly() {
    let id = 7;
    for (size, expected) in [
        (57, vector("0011", "2f37", "8003 0004 00000007 00")),
        (59, vector("0013", "2f33", "8003 0004 00000007 000000")),
        (60, vector("0014", "2f31", "8003 0004 00000007 0000 0000")),
        (64, vector("0018", "2f25", "8003 0004 00000007 0000 0004 00000000")),
        (1_280, vector("04d8", "20e5", &format!("8003 0004 00000007 0000 04c4 {}", "00".repeat(1_220)))),
    ] {
        assert_eq!(written(Frame::Probe { id, size }), expected, "{size} bytes");
        assert_eq!(Frame::parse(&expected), Ok(Frame::Probe { id, size }));
    }
    assert_eq!(written(Frame::Probe { id, size: 0 }).len(), MIN_PROBE_LEN, "none is smaller");
    let mut largest = vec![0; 65_535];
    assert_eq!(Frame::Probe { id, size: 65_535 }.write(&mut largest), 65_535);
    assert_eq!(Frame::parse(&largest), Ok(Frame::Probe { id, size: 65_535 }));
}

#[test]
fn what_wireguard_pads_a_probe_with_is_no_part_of_its_size() {
    let mut probe = written(Frame::Probe { id: 1, size: 57 });
    probe.resize(64, 0);
    assert_eq!(Frame::parse(&probe), Ok(Frame::Probe { id: 1, size: 57 }));
}

#[test]
fn a_checksum_of_zero_is_written_as_the_other_zero() {
    let expected = vector("0012", "ffff", "8004 0006 00002a39 0500");
    assert_eq!(written(Frame::ProbeReply { id: 0x2a39, size: 1_280 }), expected);
}

#[test]
fn overheads_are_what_frames_have() {
    assert_eq!(written(Frame::Fragment { id: 0, offset: 0, total: 9, bytes: b"x" }).len(), FRAGMENT_OVERHEAD + 1);
    assert_eq!((FRAGMENT_OVERHEAD, MIN_PROBE_LEN, MAX_MESSAGE_LEN), (60, 56, 60));
    for frame in [
        Frame::Hello { nonce: 0, understands: Abilities::default(), mtu: 0 },
        Frame::HelloReply { nonce: 0, understands: Abilities::default(), mtu: 0 },
        Frame::ProbeReply { id: 0, size: 0 },
    ] {
        assert!(frame.len() <= MAX_MESSAGE_LEN);
    }
}

#[test]
fn only_both_addresses_and_both_ports_make_a_frame() {
    let frame = written(Frame::ProbeReply { id: 7, size: 1_280 });
    // Changes the version, the next header, and one bit of each address and of each port.
    for at in [0, 6, 8, 23, 24, 39, 40, 41, 42, 43] {
        let mut other = frame.clone();
        other[at] ^= 0x10;
        assert!(!is_control(&other), "byte {at}");
        assert_eq!(Frame::parse(&other), Err(Refused::Malformed), "byte {at}");
    }
    // Traffic class and flow label.
    for at in [1, 2, 3] {
        let mut same = frame.clone();
        same[at] ^= 0x10;
        assert!(is_control(&same) && Frame::parse(&same).is_ok(), "byte {at}");
    }
    assert!(!is_control(&bytes(UDP_V6)));
    assert!(!is_control(&[]));
    assert!(!is_control(&frame[..47]));
    assert!(is_control(&frame[..48]), "what it lacks is found when it is read");
    for len in 0..frame.len() {
        assert_eq!(Frame::parse(&frame[..len]), Err(Refused::Malformed), "{len} bytes");
    }
}

#[test]
fn what_is_unknown_is_skipped_unless_it_is_critical() {
    let reply = "8004 0006 00000007 0500";
    let expected = Ok(Frame::ProbeReply { id: 7, size: 1_280 });
    let skipped = vector("0021", "c90a", &format!("0123 0002 6162 {reply} 0000 0001 ff 7fff 0000"));
    assert_eq!(Frame::parse(&skipped), expected, "an unknown one, padding that is not zero, an empty one");
    for critical in [format!("{reply} 8123 0000"), format!("ffff 0001 00 {reply}"), "800b 0000".to_owned()] {
        assert_eq!(Frame::parse(&with_tlvs(&critical)), Err(Refused::UnknownCritical), "{critical}");
    }
    // Type 0 is padding, but type 0 with the critical bit is an unknown critical TLV.
    assert_eq!(Frame::parse(&with_tlvs(&format!("{reply} 8000 0000"))), Err(Refused::UnknownCritical));
    // A message type without its critical bit is an unknown TLV, so the frame has no message.
    assert_eq!(Frame::parse(&with_tlvs("0004 0006 00000007 0500")), Err(Refused::Malformed));
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    for payload in [
        // No message, and two messages.
        "",
        "0000 0004 61626364",
        "8003 0004 00000007 8003 0004 00000007",
        "8003 0004 00000007 8004 0006 00000007 0500",
        // Values that are incomplete, or not as long as their type requires.
        "8003 0005 00000007",
        "8003 0004 00000007 0000 00ff 00",
        "8003 0003 000000",
        "8003 0005 0000000700",
        "8004 0004 00000007",
        "8001 0007 01020304 0001 05",
        "8002 0009 01020304 0001 05dc 00",
        // Trailing bytes that are neither a TLV nor zeros.
        "8003 0004 00000007 01",
        "8003 0004 00000007 000001",
        // A fragment without bytes, and two that reach beyond their packet.
        "8005 0008 00000009 0000 0500",
        "8005 0009 00000009 0500 0500 61",
        "8005 000b 00000009 ffff 0001 616263",
    ] {
        assert_eq!(Frame::parse(&with_tlvs(payload)), Err(Refused::Malformed), "{payload}");
    }
    assert!(Frame::parse(&with_tlvs("8005 0009 00000009 04ff 0500 61")).is_ok(), "its last byte is the packet's last");

    let probe = with_tlvs("8003 0004 00000007");
    for udp_len in [0, 8, 15, 17, 0xffff] {
        let mut packet = probe.clone();
        packet[44..46].copy_from_slice(&u16::to_be_bytes(udp_len));
        assert_eq!(Frame::parse(&packet), Err(Refused::Malformed), "UDP of {udp_len} bytes");
    }
    for ip_len in 0..16 {
        let mut packet = probe.clone();
        packet[5] = ip_len;
        packet[45] = ip_len;
        assert_eq!(Frame::parse(&packet), Err(Refused::Malformed), "IPv6 payload of {ip_len} bytes");
    }
}

#[test]
fn a_probe_longer_than_any_packet_has_a_length_is_malformed() {
    let mut packet = vector("fff0", "0000", "8003 0004 00000007 0000");
    packet.extend_from_slice(&(0xfff0u16 - 8 - 12).to_be_bytes());
    packet.resize(40 + 0xfff0, 0);
    assert_eq!(Frame::parse(&packet), Err(Refused::Malformed));
}

#[test]
fn abilities_that_have_no_name_yet_are_kept() {
    let hello = with_tlvs("8001 0008 00000000 8003 05dc");
    let Ok(Frame::Hello { understands, .. }) = Frame::parse(&hello) else { panic!("a good hello") };
    assert_eq!(understands, Abilities(0x8003));
    assert!(understands.include(Abilities::FRAGMENTS) && !understands.include(Abilities(4)));
    assert!(!Abilities(2).include(Abilities::FRAGMENTS));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_a_frame_panic(any in hostile_packet(), tlvs in prop::collection::vec(any::<u8>(), 0..100), kind in 0u8..12) {
        let _ = Frame::parse(&any);
        let tlvs: String = tlvs.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = Frame::parse(&with_tlvs(&tlvs));
        let _ = Frame::parse(&with_tlvs(&format!("80{kind:02x} 00{:02x} {tlvs}", tlvs.len() / 2)));
    }
}
