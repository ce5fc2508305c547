//! Fragments and extension headers: later fragments follow the first, and nothing gets around the rules.

use super::*;

const ORPHAN: Result<(), DropReason> = Err(DropReason::FragmentOrphan);
const EVASION: Result<(), DropReason> = Err(DropReason::FragmentEvasion);
const EXTENSION: Result<(), DropReason> = Err(DropReason::ExtensionHeaders);

/// Builds the first fragment of a UDP packet to `port`: 24 bytes, so that the next one is at offset 3.
fn first(v: Version, id: u16, port: u16) -> Vec<u8> {
    let mut payload = udp_bytes(40000, port, 24);
    // The UDP length is that of the whole datagram.
    payload[5] = 40;
    fragment(v, PEER, US, 17, id, 0, true, &payload)
}

fn later(v: Version, id: u16) -> Vec<u8> {
    fragment(v, PEER, US, 17, id, 3, false, &[0; 16])
}

#[test]
fn later_fragments_follow_their_first() {
    for v in [V4, V6] {
        let mut list = allow(&["udp/53"]);
        assert_eq!(list.asked(&later(v, 7), at(0)), ORPHAN, "before its first");
        assert_eq!(list.asked(&first(v, 7, 53), at(0)), ADMITTED);
        assert_eq!(list.asked(&later(v, 7), at(0)), ADMITTED);
        assert_eq!(list.asked(&later(v, 7), at(1)), ADMITTED, "and once more");
        assert_eq!(list.asked(&later(v, 8), at(0)), ORPHAN, "another packet");
        assert_eq!(list.asked(&fragment(v, PEER_NET, US, 17, 7, 3, false, &[0; 16]), at(0)), ORPHAN);
        assert_eq!(list.asked(&fragment(v, PEER, US_TOO, 17, 7, 3, false, &[0; 16]), at(0)), ORPHAN);
        assert_eq!(list.asked(&first(v, 9, 54), at(0)), REFUSED);
        assert_eq!(list.asked(&later(v, 9), at(0)), REFUSED);
    }
}

#[test]
fn fragments_of_answers_to_us_come_in() {
    let mut list = allow(&[]);
    list.sees_out(&udp(V4, US, PEER, 53, 40000), at(0));
    assert_eq!(list.asked(&first(V4, 7, 53), at(0)), ADMITTED);
    assert_eq!(list.asked(&later(V4, 7), at(0)), ADMITTED);
}

#[test]
fn a_verdict_lasts_two_seconds() {
    assert_eq!(VERDICT_LIFETIME, Duration::from_secs(2));
    let mut list = allow(&["udp/53"]);
    assert_eq!(list.asked(&first(V4, 7, 53), at(0)), ADMITTED);
    assert_eq!(list.asked(&later(V4, 7), at(1)), ADMITTED);
    assert_eq!(list.asked(&later(V4, 7), at(2)), ORPHAN);
}

#[test]
fn a_change_of_rules_takes_verdicts_back_and_the_same_rules_do_not() {
    let mut list = allow(&["udp/53"]);
    assert_eq!(list.asked(&first(V4, 7, 53), at(0)), ADMITTED);
    list.set_rules(vec![rule("udp/53")]);
    assert_eq!(list.asked(&later(V4, 7), at(0)), ADMITTED);
    list.withdraw_all();
    assert_eq!(list.asked(&later(V4, 7), at(0)), ORPHAN);
}

#[test]
fn the_last_verdict_on_a_packet_holds() {
    let mut list = allow(&["udp/53"]);
    assert_eq!(list.asked(&first(V4, 7, 53), at(0)), ADMITTED);
    assert_eq!(list.asked(&first(V4, 7, 54), at(0)), REFUSED);
    assert_eq!(list.asked(&later(V4, 7), at(0)), REFUSED);
}

#[test]
fn at_most_256_verdicts_are_kept_and_the_oldest_goes() {
    let mut list = allow(&["udp/53"]);
    for id in 0..=MAX_VERDICTS as u16 {
        assert_eq!(list.asked(&first(V4, id, 53), at(0)), ADMITTED);
    }
    assert_eq!((MAX_VERDICTS, list.fragments.len()), (256, 256));
    assert_eq!(list.asked(&later(V4, 0), at(0)), ORPHAN);
    assert_eq!(list.asked(&later(V4, 1), at(0)), ADMITTED);
    assert_eq!(list.asked(&later(V4, 256), at(0)), ADMITTED);
    assert_eq!(list.asked(&first(V4, 999, 53), at(2)), ADMITTED);
    assert_eq!(list.fragments.len(), 1, "void verdicts make room");
}

#[test]
fn one_source_pushes_out_no_verdict_of_another() {
    let other = |id, offset, more| fragment(V4, PEER_NET, US, 17, id, offset, more, &udp_bytes(1, 53, 24)[..24]);
    let mut list = allow(&["udp/53"]);
    assert_eq!(list.asked(&other(7, 0, true), at(0)), ADMITTED);
    for id in 0..2 * MAX_VERDICTS as u16 {
        assert_eq!(list.asked(&first(V4, id, 53), at(0)), ADMITTED);
    }
    assert_eq!(list.fragments.len(), MAX_VERDICTS);
    assert_eq!(list.asked(&other(7, 3, false), at(0)), ADMITTED);
}

#[test]
fn a_fragment_that_reaches_back_into_the_first_is_evasion() {
    for v in [V4, V6] {
        let mut list = allow(&["udp/53", "tcp/22"]);
        assert_eq!(list.asked(&first(v, 7, 53), at(0)), ADMITTED);
        for offset in [1, 2] {
            assert_eq!(list.asked(&fragment(v, PEER, US, 17, 7, offset, true, &[0; 16]), at(0)), EVASION);
        }
        // RFC 1858: a second fragment that overwrites TCP flags, and a first fragment without ports.
        assert_eq!(list.asked(&fragment(v, PEER, US, 6, 8, 1, false, &[0; 16]), at(0)), EVASION);
        let tcp = tcp_bytes(40000, 22, SYN, 24);
        assert_eq!(list.asked(&fragment(v, PEER, US, 6, 9, 0, true, &tcp[..8]), at(0)), EVASION);
        assert_eq!(list.asked(&fragment(v, PEER, US, 6, 9, 2, false, &tcp[16..]), at(0)), ORPHAN);
    }
    // Destination options belong to the fragmented part: the UDP header begins at offset 2 here, the payload at 3.
    let mut list = allow(&["udp/53"]);
    let mut payload = options(17, 2);
    payload.extend(udp_bytes(40000, 53, 8));
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 0, true, &payload), at(0)), ADMITTED);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 2, false, &udp_bytes(40000, 54, 8)), at(0)), EVASION);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 3, false, &[0; 8]), at(0)), ADMITTED);
}

#[test]
fn headers_in_front_of_the_fragment_header_do_not_shorten_the_first_fragment() {
    let mut list = allow(&["udp/53"]);
    let chained = |offset, more, payload: &[u8]| {
        let headers = [&options(44, 1)[..], &fragment_header(60, 7, offset, more), payload].concat();
        packet(V6, PEER, US, 0, &headers)
    };
    let payload = [options(17, 4), udp_bytes(40000, 53, 8)].concat();
    assert_eq!(list.asked(&chained(0, true, &payload), at(0)), ADMITTED);
    for offset in 1..5 {
        assert_eq!(list.asked(&chained(offset, false, &udp_bytes(40000, 54, 8)), at(0)), EVASION, "offset {offset}");
    }
    assert_eq!(list.asked(&chained(5, false, &[0; 8]), at(0)), ADMITTED);
}

#[test]
fn a_shorter_first_fragment_does_not_uncover_the_ports_of_a_longer_one() {
    let mut list = allow(&["udp/53"]);
    let long = [options(17, 4), udp_bytes(40000, 53, 8)].concat();
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 0, true, &long), at(0)), ADMITTED);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 17, 7, 0, true, &udp_bytes(40000, 53, 8)), at(0)), ADMITTED);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 4, false, &udp_bytes(40000, 54, 8)), at(0)), EVASION);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 60, 7, 5, false, &[0; 8]), at(0)), ADMITTED);
}

#[test]
fn a_protocol_listed_by_number_is_admitted_in_fragments_too() {
    let mut list = allow(&["47"]);
    for v in [V4, V6] {
        assert_eq!(list.asked(&fragment(v, PEER, US, 47, 7, 0, true, &[0; 16]), at(0)), ADMITTED);
        assert_eq!(list.asked(&fragment(v, PEER, US, 47, 7, 2, false, &[0; 16]), at(0)), ADMITTED);
        assert_eq!(list.asked(&fragment(v, PEER, US, 50, 8, 0, true, &[0; 16]), at(0)), REFUSED);
        assert_eq!(list.asked(&fragment(v, PEER, US, 50, 9, 2, true, &[0; 16]), at(0)), ORPHAN);
    }
    assert_eq!(list.asked(&fragment(V4, PEER, US, 47, 10, 2, false, &[0; 16]), at(0)), ADMITTED);
    // The protocol of a later IPv6 fragment is not believed, and does not separate it from its first fragment.
    assert_eq!(list.asked(&fragment(V6, PEER, US, 47, 10, 2, false, &[0; 16]), at(0)), ORPHAN);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 47, 11, 0, true, &[0; 16]), at(0)), ADMITTED);
    assert_eq!(list.asked(&fragment(V6, PEER, US, 17, 11, 2, false, &[0; 16]), at(0)), ADMITTED);
}

#[test]
fn the_rules_see_through_extension_headers_they_know() {
    let mut list = allow(&["udp/53"]);
    for (port, verdict) in [(53, ADMITTED), (54, REFUSED)] {
        let udp = udp_bytes(40000, port, 12);
        let chains: [(u8, &[u8]); 4] = [
            (0, &options(17, 1)),
            (60, &options(17, 4)),
            (0, &[options(60, 1), options(17, 2)].concat()),
            (44, &fragment_header(17, 7, 0, false)),
        ];
        for (protocol, chain) in chains {
            let bytes = packet(V6, PEER, US, protocol, &[chain, &udp].concat());
            assert_eq!(list.asked(&bytes, at(0)), verdict, "{bytes:02x?}");
        }
    }
}

#[test]
fn a_chain_that_cannot_be_followed_is_dropped_by_name() {
    let udp = udp_bytes(40000, 53, 12);
    let mut list = allow(&["udp", "tcp", "icmp", "253", "60"]);
    for unknown in [253, 254] {
        assert_eq!(list.asked(&packet(V6, PEER, US, unknown, &[&options(17, 1)[..], &udp].concat()), at(0)), EXTENSION);
    }
    let mut long = Vec::new();
    (0..20).for_each(|_| long.extend(options(60, 1)));
    assert_eq!(list.asked(&packet(V6, PEER, US, 60, &long), at(0)), EXTENSION);
    let twice = [fragment_header(44, 7, 0, false), fragment_header(17, 7, 0, false)].concat();
    assert_eq!(list.asked(&packet(V6, PEER, US, 44, &[&twice[..], &udp].concat()), at(0)), EXTENSION);
    // The header length points beyond the packet.
    assert_eq!(list.asked(&packet(V6, PEER, US, 60, &[17, 200, 0, 0, 0, 0, 0, 0]), at(0)), REFUSED);
}

/// Generates packets that no rule of [`RULES`] lists: the protocol, and the bytes from its header on.
fn unlisted() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let port = any::<u16>().prop_filter("listed", |port| !matches!(port, 22 | 53 | 8000..=8010));
    let tail = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        (any::<u16>(), port.clone(), any::<u8>(), tail.clone())
            .prop_map(|(source, port, flags, tail)| { (6, [tcp_bytes(source, port, flags, 20), tail].concat()) }),
        (any::<u16>(), port, tail.clone()).prop_map(|(source, port, tail)| {
            let mut bytes = [udp_bytes(source, port, 8), tail].concat();
            let len = bytes.len() as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            (17, bytes)
        }),
        (any::<u8>(), tail.clone()).prop_map(|(kind, tail)| (58, [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &tail].concat())),
        (prop::sample::select(vec![1u8, 4, 41, 50, 59, 132, 136, 253, 255]), tail),
    ]
}

const RULES: [&str; 4] = ["tcp/22", "udp/53", "tcp/8000-8010", "47"];

#[derive(Clone, Debug)]
enum Extension {
    HopByHop(u8),
    Destination(u8),
    Routing,
    Authentication,
    AtomicFragment,
}

/// Puts extension headers in front of `protocol`.
fn wrap((protocol, bytes): (u8, Vec<u8>), chain: &[Extension]) -> (u8, Vec<u8>) {
    chain.iter().rev().fold((protocol, bytes), |(next, bytes), extension| {
        let (kind, header) = match *extension {
            Extension::HopByHop(len) => (0, options(next, len)),
            Extension::Destination(len) => (60, options(next, len)),
            Extension::Routing => (43, vec![next, 0, 4, 0, 0, 0, 0, 0]),
            Extension::Authentication => (51, vec![next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            Extension::AtomicFragment => (44, fragment_header(next, 1, 0, false).to_vec()),
        };
        (kind, [header, bytes].concat())
    })
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let extension = prop_oneof![
        (1u8..4).prop_map(Extension::HopByHop),
        (1u8..4).prop_map(Extension::Destination),
        Just(Extension::Routing),
        Just(Extension::Authentication),
        Just(Extension::AtomicFragment),
    ];
    prop::collection::vec(extension, 0..6)
}

/// Cuts `payload` at the given points (in units of 8 bytes) into fragments, with `in_front` before the fragment header.
fn cut(
    v: Version,
    in_front: &[Extension],
    (protocol, payload): &(u8, Vec<u8>),
    id: u16,
    mut points: Vec<usize>,
) -> Vec<Vec<u8>> {
    let units = payload.len().div_ceil(8);
    points.retain(|&point| point > 0 && point < units);
    points.extend([0, units]);
    points.sort_unstable();
    points.dedup();
    points
        .windows(2)
        .map(|pair| {
            let part = &payload[pair[0] * 8..(pair[1] * 8).min(payload.len())];
            let (offset, more) = (pair[0] as u16, pair[1] < units);
            match v {
                V4 => fragment(V4, PEER, US, *protocol, id, offset, more, part),
                V6 => {
                    let header = fragment_header(*protocol, id, offset, more);
                    let (first, bytes) = wrap((44, [&header[..], part].concat()), in_front);
                    packet(V6, PEER, US, first, &bytes)
                }
            }
        })
        .collect()
}

/// Reassembles the admitted fragments of one IPv4 packet like the most lenient receiver. Overlaps are accepted, and
/// `last_wins` decides whether the last or the first one counts. Returns `None` while something is missing.
fn reassemble(admitted: &[Vec<u8>], last_wins: bool) -> Option<Vec<u8>> {
    let mut bytes: Vec<Option<u8>> = Vec::new();
    let mut is_ended = false;
    for packet in admitted {
        let field = u16::from_be_bytes([packet[6], packet[7]]);
        let start = usize::from(field & 0x1fff) * 8;
        is_ended |= field & 0x2000 == 0;
        for (at, &byte) in packet[20..].iter().enumerate().map(|(at, byte)| (start + at, byte)) {
            if bytes.len() <= at {
                bytes.resize(at + 1, None);
            }
            if last_wins || bytes[at].is_none() {
                bytes[at] = Some(byte);
            }
        }
    }
    if is_ended { bytes.into_iter().collect() } else { None }
}

proptest! {
    #[test]
    fn no_byte_string_makes_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        version in prop::sample::select(vec![0u8, 0x45, 0x46, 0x60]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 253]),
        makes_lengths_right in any::<bool>(),
    ) {
        let mut list = allow(&["tcp/22", "udp", "47"]);
        if version != 0 && bytes.len() > 40 {
            bytes[0] = version;
            let is_v4 = version & 0x40 == 0x40 && version < 0x60;
            bytes[if is_v4 { 9 } else { 6 }] = protocol;
            if makes_lengths_right {
                let (at, len) = if is_v4 { (2, bytes.len()) } else { (4, bytes.len() - 40) };
                bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
            }
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = list.admit(&packet, at(0));
            list.on_outbound(&packet, |_| Party::OWN, at(0));
            let _ = list.admit(&packet, at(1));
            let _ = flow_key(&packet);
        }
    }

    #[test]
    fn what_no_rule_lists_and_we_never_opened_is_never_admitted(
        upper in unlisted(),
        is_v6 in any::<bool>(),
        behind in extensions(),
        in_front in extensions(),
        points in prop::collection::vec(0usize..12, 0..4),
        order in any::<u64>(),
        repeats in 1usize..3,
    ) {
        // Meanwhile the rules, other flows, and fragments with other identifications are in use.
        let mut list = allow(&RULES);
        for v in [V4, V6] {
            list.sees_out(&udp(v, US, PEER, 1, 1), at(0));
            prop_assume!(!(upper.0 == 17 && upper.1[..4] == [0, 1, 0, 1]));
            prop_assert_eq!(list.asked(&tcp(v, PEER, US, 9, 22, SYN), at(0)), ADMITTED);
            prop_assert_eq!(list.asked(&first(v, 0xffff, 53), at(0)), ADMITTED);
        }
        let v = if is_v6 { V6 } else { V4 };
        let whole = if is_v6 { wrap(upper, &behind) } else { upper };
        let mut packets = cut(v, &in_front, &whole, 7, points);
        let (protocol, bytes) = if is_v6 { wrap(whole, &in_front) } else { whole };
        packets.push(packet(v, PEER, US, protocol, &bytes));
        let len = packets.len();
        packets.rotate_left(order as usize % len);
        for packet in packets.iter().cycle().take(len * repeats) {
            prop_assert!(list.asked(packet, at(0)).is_err(), "{packet:02x?}");
        }
    }

    #[test]
    fn no_order_or_overlap_of_fragments_assembles_a_packet_that_no_rule_lists(
        parts in prop::collection::vec((0u16..5, 1usize..5, any::<bool>(), prop::sample::select(vec![22u16, 23])), 1..12),
        protocol in prop::sample::select(vec![6u8, 17]),
    ) {
        let mut list = allow(&["tcp/22", "udp/22"]);
        let mut admitted = Vec::new();
        for (offset, units, more, port) in parts {
            // Every part looks like a header with a port, wherever it is placed.
            let mut payload = if protocol == 6 { tcp_bytes(9, port, SYN, 40) } else { udp_bytes(9, port, 40) };
            payload.truncate(units * 8);
            let packet = fragment(V4, PEER, US, protocol, 7, offset, more, &payload);
            if list.asked(&packet, at(0)).is_ok() {
                admitted.push(packet);
            }
        }
        for last_wins in [false, true] {
            if let Some(whole) = reassemble(&admitted, last_wins) {
                prop_assert_eq!(&whole[2..4], &[0, 22][..]);
                prop_assert!(protocol != 6 || whole[13] == SYN, "the flags that were judged");
            }
        }
    }
}
