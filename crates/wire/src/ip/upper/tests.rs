//! Chains of extension headers and fragments, honest and hostile.

use super::*;
use crate::vectors::{UDP_V4, UDP_V6, bytes, v4, v6};

const SYN: &str = "03e8 01bb 00000001 00000000 5002 ffff 0000 0000";
const PORTS: Header = Header::Tcp { source: 1000, destination: 443, flags: 2 };

const MORE: u16 = 0x2000;

fn upper(packet: &[u8]) -> Result<Upper, Opaque> {
    Packet::parse(packet).expect("a whole packet").upper()
}

fn header(packet: &[u8]) -> Result<Header, Opaque> {
    upper(packet).map(|upper| upper.header)
}

/// An IPv6 packet whose extension headers and payload are written in hex.
fn chain(first: u8, hex: &str) -> Vec<u8> {
    v6(first, &bytes(hex))
}

#[test]
fn ports_are_found_behind_a_plain_ip_header() {
    let udp = Header::Udp { source: 4660, destination: 53 };
    assert_eq!(upper(&bytes(UDP_V4)), Ok(Upper { protocol: 17, offset: 20, fragment: None, header: udp }));
    assert_eq!(upper(&bytes(UDP_V6)), Ok(Upper { protocol: 17, offset: 40, fragment: None, header: udp }));
    assert_eq!(header(&v4(6, 0, &bytes(SYN))), Ok(PORTS));
    assert_eq!(header(&v6(6, &bytes(SYN))), Ok(PORTS));
}

#[test]
fn ports_are_found_behind_ipv4_options() {
    let mut packet = v4(6, 0, &bytes(&format!("01010101 94040000 {SYN}")));
    packet[0] = 0x47;
    assert_eq!(upper(&packet), Ok(Upper { protocol: 6, offset: 28, fragment: None, header: PORTS }));
}

#[test]
fn only_echoes_have_an_identifier() {
    let icmp = |kind, id| Ok(Header::Icmp { kind, code: 0, id });
    assert_eq!(header(&v4(1, 0, &bytes("0800 0000 1234 0001"))), icmp(8, 0x1234));
    assert_eq!(header(&v4(1, 0, &bytes("0000 0000 1234 0001"))), icmp(0, 0x1234));
    assert_eq!(header(&v4(1, 0, &bytes("0b00 0000 1234 0001"))), icmp(11, 0));
    assert_eq!(header(&v6(58, &bytes("8000 0000 1234 0001"))), icmp(128, 0x1234));
    assert_eq!(header(&v6(58, &bytes("8100 0000 1234 0001"))), icmp(129, 0x1234));
    assert_eq!(header(&v6(58, &bytes("0200 0000 1234 0001"))), icmp(2, 0));
}

#[test]
fn icmp_of_the_other_family_is_just_another_protocol() {
    assert_eq!(header(&v6(1, &bytes("0800 0000 1234 0001"))), Ok(Header::Other));
    assert_eq!(header(&v4(58, 0, &bytes("8000 0000 1234 0001"))), Ok(Header::Other));
}

#[test]
fn every_known_extension_header_is_stepped_over() {
    // Next header TCP, length 0 (eight bytes), then PadN.
    for extension in [0, 43, 60, 135, 139, 140] {
        let packet = chain(extension, &format!("0600 0104 00000000 {SYN}"));
        let expected = Upper { protocol: 6, offset: 48, fragment: None, header: PORTS };
        assert_eq!(upper(&packet), Ok(expected), "extension header {extension}");
    }
    // Length 1 means sixteen bytes.
    let packet = chain(60, &format!("0601 010c 000000000000000000000000 {SYN}"));
    assert_eq!(upper(&packet).unwrap().offset, 56);
    // The authentication header counts 4-byte units, minus two: 04 means 24 bytes.
    let packet = chain(51, &format!("0604 0000 00000001 00000002 000000000000000000000000 {SYN}"));
    assert_eq!(upper(&packet), Ok(Upper { protocol: 6, offset: 64, fragment: None, header: PORTS }));
}

#[test]
fn a_chain_of_eight_is_followed_and_one_of_nine_is_not() {
    let of = |count: usize| {
        let links = "3c00 0104 00000000".repeat(count - 1);
        chain(60, &format!("{links} 0600 0104 00000000 {SYN}"))
    };
    assert_eq!(header(&of(8)), Ok(PORTS));
    assert_eq!(header(&of(9)), Err(Opaque::ChainTooLong));
}

#[test]
fn experimental_extension_headers_are_unknown_and_esp_is_another_protocol() {
    for experimental in [253, 254] {
        assert_eq!(header(&chain(experimental, "0600 0104 00000000")), Err(Opaque::UnknownExtension));
    }
    assert_eq!(header(&chain(60, &format!("fd00 0104 00000000 {SYN}"))), Err(Opaque::UnknownExtension));
    for other in [50, 59, 47] {
        assert_eq!(header(&chain(other, "0600 0104")), Ok(Header::Other));
    }
}

#[test]
fn sctp_dccp_and_udp_lite_begin_with_their_ports() {
    for protocol in [33, 132, 136] {
        let ports = Header::Ports { source: 666, destination: 22 };
        assert_eq!(header(&chain(protocol, "029a 0016")), Ok(ports));
        assert_eq!(header(&v4(protocol, 0, &bytes("029a 0016"))), Ok(ports));
        assert_eq!(header(&v4(protocol, 0, &bytes("029a 00"))), Err(Opaque::Truncated));
        // A first fragment shows them, or hides them in a later one.
        assert_eq!(header(&v4(protocol, MORE, &bytes("029a 0016"))), Ok(ports));
        assert_eq!(header(&v4(protocol, MORE, &bytes("029a 00"))), Err(Opaque::ShortFirstFragment));
        assert_eq!(header(&v4(protocol, 1, &[0; 8])), Ok(Header::LaterFragment));
    }
}

#[test]
fn the_end_of_an_association_is_the_type_of_its_message() {
    let ends = |packet: &[u8]| {
        let packet = Packet::parse(packet).unwrap();
        packet.ends_association(&packet.upper().unwrap())
    };
    // The first chunk of SCTP and its type: DATA, INIT, ABORT, SHUTDOWN COMPLETE.
    for (kind, is_end) in [("00", false), ("01", false), ("06", true), ("0e", true)] {
        let message = format!("029a 0016 00000001 00000000 {kind} 00 0004");
        assert_eq!(ends(&v4(132, 0, &bytes(&message))), is_end, "{kind}");
        assert_eq!(ends(&chain(132, &message)), is_end, "{kind}");
    }
    assert!(!ends(&v4(132, 0, &bytes("029a 0016 00000001 00000000"))));
    // The four bits of DCCP's type: Data, Reset with and without the bit for long sequence numbers behind it.
    for (kind, is_end) in [("04", false), ("0e", true), ("0f", true), ("ef", true), ("1e", false)] {
        assert_eq!(ends(&v4(33, 0, &bytes(&format!("029a 0016 0400 0000 {kind}00 0001")))), is_end, "{kind}");
    }
    assert!(!ends(&v4(33, 0, &bytes("029a 0016"))));
    // Neither TCP, UDP nor UDP-Lite.
    for protocol in [6, 17, 136] {
        let mut message = bytes("029a 0016 0014 0000 0e00 0001 0650 0000 0000 0000");
        message[12] = 0x50;
        assert!(!ends(&v4(protocol, 0, &message)));
    }
}

#[test]
fn an_extension_header_beyond_the_end_is_truncated() {
    assert_eq!(header(&chain(60, "")), Err(Opaque::Truncated));
    assert_eq!(header(&chain(60, "0600 0104 000000")), Err(Opaque::Truncated));
    assert_eq!(header(&chain(60, "06ff 0104 00000000")), Err(Opaque::Truncated));
    assert_eq!(header(&chain(51, "0604 0000 00000001 00000002")), Err(Opaque::Truncated));
    assert_eq!(header(&chain(44, "0600 0001 000000")), Err(Opaque::Truncated));
}

#[test]
fn an_upper_header_beyond_the_end_is_truncated() {
    for len in 0..20 {
        assert_eq!(header(&v4(6, 0, &bytes(SYN)[..len])), Err(Opaque::Truncated), "{len} bytes of TCP");
        assert_eq!(header(&v6(6, &bytes(SYN)[..len])), Err(Opaque::Truncated), "{len} bytes of TCP");
    }
    for len in 0..8 {
        assert_eq!(header(&v4(17, 0, &[0; 8][..len])), Err(Opaque::Truncated), "{len} bytes of UDP");
        assert_eq!(header(&v4(1, 0, &[0; 8][..len])), Err(Opaque::Truncated), "{len} bytes of ICMP");
        assert_eq!(header(&v6(58, &[0; 8][..len])), Err(Opaque::Truncated), "{len} bytes of ICMPv6");
    }
}

#[test]
fn lying_lengths_of_tcp_and_udp_are_truncated() {
    let tcp = |offset: &str| v4(6, 0, &bytes(&format!("03e8 01bb 00000001 00000000 {offset}02 ffff 0000 0000")));
    assert_eq!(header(&tcp("40")), Err(Opaque::Truncated), "data offset below 5");
    assert_eq!(header(&tcp("60")), Err(Opaque::Truncated), "data offset beyond the end");
    let udp = |len: &str| v4(17, 0, &bytes(&format!("1234 0035 {len} 0000 616263")));
    assert_eq!(header(&udp("0007")), Err(Opaque::Truncated), "shorter than its header");
    assert_eq!(header(&udp("000c")), Err(Opaque::Truncated), "beyond the end");
    assert_eq!(header(&udp("000b")), Ok(Header::Udp { source: 4660, destination: 53 }));
}

#[test]
fn a_first_fragment_shows_its_ports_and_may_announce_more_than_it_holds() {
    let fragment = Some(Fragment { id: 0xabcd, offset: 0, more: true, start: 20 });
    assert_eq!(upper(&v4(6, MORE, &bytes(SYN))), Ok(Upper { protocol: 6, offset: 20, fragment, header: PORTS }));
    let udp = Header::Udp { source: 4660, destination: 53 };
    assert_eq!(
        upper(&v4(17, MORE, &bytes("1234 0035 0bb8 0000"))),
        Ok(Upper { protocol: 17, offset: 20, fragment, header: udp })
    );
}

#[test]
fn a_first_fragment_too_short_for_its_headers_is_named() {
    for len in [0, 8, 16] {
        assert_eq!(header(&v4(6, MORE, &bytes(SYN)[..len])), Err(Opaque::ShortFirstFragment), "{len} bytes of TCP");
    }
    assert_eq!(header(&v4(17, MORE, &[])), Err(Opaque::ShortFirstFragment));
    assert_eq!(header(&v4(1, MORE, &[])), Err(Opaque::ShortFirstFragment));
    // TCP options that continue in a later fragment.
    let options = bytes("03e8 01bb 00000001 00000000 8002 ffff 0000 0000 01010101");
    assert_eq!(header(&v4(6, MORE, &options)), Err(Opaque::ShortFirstFragment));
    // RFC 7112: an extension header, and a TCP header, that continue in a later fragment.
    assert_eq!(header(&chain(44, "3c00 0001 12345678 0600 0104")), Err(Opaque::ShortFirstFragment));
    assert_eq!(header(&chain(44, "3c00 0001 12345678 0600 0104 00000000 03e801bb")), Err(Opaque::ShortFirstFragment));
}

#[test]
fn a_later_fragment_shows_nothing_above_ip() {
    let fragment = Some(Fragment { id: 0xabcd, offset: 185, more: true, start: 20 });
    let expected = Upper { protocol: 6, offset: 20, fragment, header: Header::LaterFragment };
    assert_eq!(upper(&v4(6, MORE | 185, &bytes(SYN))), Ok(expected));
    let fragment = Some(Fragment { id: 0xabcd, offset: 0x1fff, more: false, start: 20 });
    assert_eq!(upper(&v4(17, 0x1fff, &[0; 8])).unwrap().fragment, fragment);
}

#[test]
fn the_bits_of_an_ipv6_fragment_header_are_where_rfc_8200_has_them() {
    // Offset 185 (1,480 bytes) is the upper 13 bits, 05c8; the lowest bit is "more".
    let fragment = Some(Fragment { id: 0x12345678, offset: 185, more: true, start: 48 });
    let expected = Upper { protocol: 6, offset: 48, fragment, header: Header::LaterFragment };
    assert_eq!(upper(&chain(44, "0600 05c9 12345678 0000000000000000")), Ok(expected));

    let fragment = Some(Fragment { id: 0x12345678, offset: 185, more: false, start: 48 });
    assert_eq!(upper(&chain(44, "0600 05c8 12345678 0000000000000000")).unwrap().fragment, fragment);

    let fragment = Some(Fragment { id: 0x12345678, offset: 0, more: true, start: 48 });
    let expected = Upper { protocol: 6, offset: 48, fragment, header: PORTS };
    assert_eq!(upper(&chain(44, &format!("0600 0001 12345678 {SYN}"))), Ok(expected));

    // The two reserved bits between the offset and "more" are ignored.
    assert_eq!(upper(&chain(44, &format!("0600 0006 12345678 {SYN}"))).unwrap().fragment, None);
}

#[test]
fn tcp_at_fragment_offset_one_is_named_in_both_families() {
    assert_eq!(header(&v4(6, 1, &bytes(SYN))), Err(Opaque::TcpAtOffsetOne));
    assert_eq!(header(&v4(6, MORE | 1, &bytes(SYN))), Err(Opaque::TcpAtOffsetOne));
    assert_eq!(header(&chain(44, &format!("0600 0008 12345678 {SYN}"))), Err(Opaque::TcpAtOffsetOne));
    assert_eq!(header(&v4(17, 1, &[0; 8])), Ok(Header::LaterFragment));
}

#[test]
fn a_later_fragment_is_not_read_as_extension_headers() {
    // The fragment header names destination options, but these bytes come from the middle of them.
    let fragment = Some(Fragment { id: 0x12345678, offset: 185, more: true, start: 48 });
    let expected = Upper { protocol: 60, offset: 48, fragment, header: Header::LaterFragment };
    assert_eq!(upper(&chain(44, &format!("3c00 05c9 12345678 0600 0104 00000000 {SYN}"))), Ok(expected));
    assert_eq!(upper(&chain(44, "3c00 05c9 12345678 06ff 0104")), Ok(expected));
}

#[test]
fn the_fragmented_part_begins_behind_the_fragment_header_wherever_that_stands() {
    // Hop-by-hop options, the fragment header, destination options, TCP. Only the last two are fragmented.
    let packet = chain(0, &format!("2c00 0104 00000000 3c00 0001 12345678 0600 0104 00000000 {SYN}"));
    let fragment = Some(Fragment { id: 0x12345678, offset: 0, more: true, start: 56 });
    assert_eq!(upper(&packet), Ok(Upper { protocol: 6, offset: 64, fragment, header: PORTS }));
}

#[test]
fn a_fragment_header_on_a_whole_packet_makes_it_no_fragment() {
    let expected = Upper { protocol: 6, offset: 48, fragment: None, header: PORTS };
    assert_eq!(upper(&chain(44, &format!("0600 0000 12345678 {SYN}"))), Ok(expected));
    assert_eq!(header(&chain(44, "0600 0000 12345678 03e8 01bb")), Err(Opaque::Truncated));
}

#[test]
fn two_fragment_headers_are_refused_even_if_the_first_says_nothing() {
    let packet = chain(44, &format!("2c00 0000 12345678 0600 0001 12345678 {SYN}"));
    assert_eq!(header(&packet), Err(Opaque::ChainTooLong));
    let packet = chain(44, &format!("2c00 0001 12345678 0600 05c8 12345678 {SYN}"));
    assert_eq!(header(&packet), Err(Opaque::ChainTooLong));
}
