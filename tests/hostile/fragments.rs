//! Attacks on the allowlist with fragments: ports that are missing, ports that come later, ports that are replaced.
//!
//! The victim's kernel reassembles everything that it gets from the TUN. So in addition to checking what was delivered,
//! a program on a closed port checks that nothing ever reaches it.

use super::bytes::{ACK, Ends, FRAGMENT, SYN, TCP, UDP, fragment_header, options};
use super::siege::{Attacker, MALLORY, STRANGER, Siege};

const ALLOW: &[&str] = &["tcp/22", "udp/7000-7010", "icmp"];
const OPEN: u16 = 7000;
const CLOSED: u16 = 9999;

/// A UDP packet to this port: a first fragment of 24 bytes, two in the middle, and a last one of 8.
struct Cut {
    whole: Vec<u8>,
    fragments: Vec<Vec<u8>>,
}

fn cut(ends: Ends, id: u16, port: u16) -> Cut {
    let whole: Vec<u8> = ends.udp_bytes(4660, port, &(0..48).collect::<Vec<u8>>());
    let part = |from: usize, to: usize| ends.fragment(UDP, id, (from / 8) as u16, to < 56, &whole[from..to]);
    Cut { fragments: vec![part(0, 24), part(24, 40), part(40, 48), part(48, 56)], whole }
}

/// Attacks, and checks which of the packets are delivered and how the others are counted.
#[track_caller]
fn attack(
    siege: &mut Siege,
    mallory: &mut Attacker,
    what: &str,
    packets: &[Vec<u8>],
    delivered: &[usize],
    dropped: &[(&str, u64)],
) {
    let messages = mallory.seal(packets);
    let delivered: Vec<_> = delivered.iter().map(|at| packets[*at].clone()).collect();
    siege.strike(mallory, &messages).is(what, &delivered, dropped);
}

#[test]
fn fragments_follow_the_verdict_on_their_first_in_both_families() {
    let Some(mut siege) = Siege::with_allowlist("fragments", ALLOW) else { return };
    let (open, closed) = (siege.application(OPEN), siege.application(CLOSED));
    let mut mallory = siege.attacker(MALLORY);
    for ends in MALLORY.both_families() {
        let mut id = 0x100;
        let mut next = |port| {
            id += 1;
            cut(ends, id, port)
        };
        // Honest fragments: in order, and with the first one late, so that the peer must send the others again.
        let honest = next(OPEN);
        attack(&mut siege, &mut mallory, "in order", &honest.fragments, &[0, 1, 2, 3], &[]);
        assert_eq!(open.receives(), honest.whole[8..]);
        let late = next(OPEN).fragments;
        let packets = [3, 2, 0, 1, 2, 3].map(|at| late[at].clone());
        attack(&mut siege, &mut mallory, "late", &packets, &[2, 3, 4, 5], &[("fragment_orphan", 2)]);
        assert_eq!(open.receives(), honest.whole[8..]);

        let denied = next(CLOSED).fragments;
        attack(&mut siege, &mut mallory, "denied", &denied, &[], &[("not_allowed", 4)]);
        let orphans = &next(OPEN).fragments[1..];
        attack(&mut siege, &mut mallory, "orphans", orphans, &[], &[("fragment_orphan", 3)]);

        // Later fragments that only seem to belong to an admitted first one.
        let admitted = next(OPEN).fragments.swap_remove(0);
        let of = |ends: Ends, id| ends.fragment(UDP, id, 3, true, &[0; 8]);
        let packets = [admitted, of(ends, 0x7777), of(elsewhere(ends), 0x105), of(ends, 0x105)];
        let dropped = [("fragment_orphan", 1), ("spoofed_source", 1)];
        attack(&mut siege, &mut mallory, "of another packet", &packets, &[0, 3], &dropped);

        // The first fragment is followed by a second first fragment, to a closed port. That one is dropped, and later
        // fragments count as belonging to it.
        let (open_first, closed_first) = (next(OPEN).fragments, cut(ends, 0x106, CLOSED).fragments);
        let packets =
            [&open_first[0], &closed_first[0], &open_first[1], &open_first[2], &open_first[3]].map(Clone::clone);
        attack(&mut siege, &mut mallory, "two firsts", &packets, &[0], &[("not_allowed", 4)]);

        // A later fragment that overlaps the first could replace the ports that were checked.
        let first = next(OPEN).fragments.swap_remove(0);
        let ports = ends.udp_bytes(4660, CLOSED, &[0; 16]);
        let over = |offset: u16, more: bool| ends.fragment(UDP, 0x107, offset, more, &ports[8..]);
        let packets = [first, over(1, false), over(2, false), over(1, true), over(2, true), over(3, true)];
        attack(&mut siege, &mut mallory, "overlapping", &packets, &[0, 5], &[("fragment_evasion", 4)]);

        // ICMP is allowed, and its later fragments also require their first one.
        let echo = ends.icmp_bytes(if ends.is_v4() { 8 } else { 128 }, 0, [0, 1, 0, 1], &[0; 32]);
        let protocol = ends.icmp_protocol();
        let packets = [
            ends.fragment(protocol, 0x200, 2, false, &echo[16..]),
            ends.fragment(protocol, 0x200, 0, true, &echo[..16]),
            ends.fragment(protocol, 0x200, 2, false, &echo[16..]),
        ];
        attack(&mut siege, &mut mallory, "a ping", &packets, &[1, 2], &[("fragment_orphan", 1)]);
        // A protocol that is not listed has no admitted fragments.
        let packets = [ends.fragment(47, 0x201, 0, true, &[0; 16]), ends.fragment(47, 0x201, 2, false, &[0; 16])];
        attack(&mut siege, &mut mallory, "GRE", &packets, &[], &[("not_allowed", 2)]);
    }
    open.has_received_nothing();
    closed.has_received_nothing();
}

/// The addresses of a host that is not a peer.
fn elsewhere(ends: Ends) -> Ends {
    STRANGER.both_families()[usize::from(!ends.is_v4())]
}

#[test]
fn fragments_that_hide_ports_or_flags_are_evasion_in_both_families() {
    let Some(mut siege) = Siege::with_allowlist("tiny fragments", ALLOW) else { return };
    let mut mallory = siege.attacker(MALLORY);
    for ends in MALLORY.both_families() {
        for port in [22, 80] {
            let tcp = ends.tcp_bytes(50_000, port, 1, SYN, &[0; 20]);
            // A first fragment with ports but no flags, or with flags but not the whole header. The second fragment
            // belongs to an unknown packet, or holds the rest of the header.
            for (len, dropped) in
                [(8, &[("fragment_evasion", 2)][..]), (16, &[("fragment_evasion", 1), ("fragment_orphan", 1)][..])]
            {
                let first = ends.fragment(TCP, 0x300 + port, 0, true, &tcp[..len]);
                let second = ends.fragment(TCP, 0x300 + port, (len / 8) as u16, false, &tcp[len..]);
                attack(&mut siege, &mut mallory, "tiny", &[first, second], &[], dropped);
            }
            // Flags at offset 1 would replace those of an admitted first fragment (RFC 3128).
            let at_one = ends.fragment(TCP, 0x310, 1, false, &tcp[8..]);
            siege.refuses(&mut mallory, "fragment_evasion", "TCP at offset 1", &[at_one]);
            // A header length beyond the end of the fragment.
            let mut long = tcp.clone();
            long[12] = 0xf0;
            let long = ends.fragment(TCP, 0x311, 0, true, &long);
            siege.refuses(&mut mallory, "fragment_evasion", "a long header", &[long]);
        }
        let short = ends.fragment(ends.icmp_protocol(), 0x312, 0, true, &[8, 0, 0, 0]);
        siege.refuses(&mut mallory, "fragment_evasion", "a short ping", &[short]);
        let nothing = [UDP, TCP].map(|protocol| ends.fragment(protocol, 0x313, 0, true, &[]));
        siege.refuses(&mut mallory, "fragment_evasion", "nothing at all", &nothing);

        // Honest fragments of the same shape: the whole header is in the first one.
        let tcp = ends.tcp_bytes(50_000, 22, 1, ACK, &[0; 20]);
        let first = ends.fragment(TCP, 0x320, 0, true, &tcp[..24]);
        let again = ends.fragment(TCP, 0x320, 1, false, &tcp[8..]);
        let second = ends.fragment(TCP, 0x320, 3, false, &tcp[24..]);
        let packets = [first, again, second];
        attack(&mut siege, &mut mallory, "an honest one", &packets, &[0, 2], &[("fragment_evasion", 1)]);
        // A UDP header fits in 8 bytes, the smallest fragment.
        let udp = ends.udp_bytes(4660, OPEN, &[0; 8]);
        let packets = [ends.fragment(UDP, 0x321, 0, true, &udp[..8]), ends.fragment(UDP, 0x321, 1, false, &udp[8..])];
        attack(&mut siege, &mut mallory, "as tiny as it gets", &packets, &[0, 1], &[]);
        // A length that lies about later fragments can be detected only by reassembly. A length that is too short is
        // detected here.
        let mut short = udp.clone();
        short[4..6].copy_from_slice(&7u16.to_be_bytes());
        let short = ends.fragment(UDP, 0x322, 0, true, &short);
        siege.refuses(&mut mallory, "not_allowed", "a short length", &[short]);
    }
}

#[test]
fn ipv6_fragments_cannot_hide_ports_behind_their_own_headers() {
    let Some(mut siege) = Siege::with_allowlist("IPv6 fragments", ALLOW) else { return };
    let closed = siege.application(CLOSED);
    let open = siege.application(OPEN);
    let mut mallory = siege.attacker(MALLORY);
    let [_, ends] = MALLORY.both_families();
    let udp = |port| ends.udp_bytes(4660, port, &[0x55; 24]);
    let first = |id, next, payload: &[u8]| ends.fragment(next, id, 0, true, payload);
    let later = |id, next, offset, payload: &[u8]| ends.fragment(next, id, offset, false, payload);

    // The next header field of a later fragment is ignored. The one in the first fragment counts.
    let packets = [first(1, UDP, &udp(OPEN)[..16]), later(1, TCP, 2, &udp(OPEN)[16..])];
    attack(&mut siege, &mut mallory, "says TCP later", &packets, &[0, 1], &[]);
    assert_eq!(open.receives(), [0x55; 24]);
    let packets = [first(2, UDP, &udp(CLOSED)[..16]), later(2, 58, 2, &udp(CLOSED)[16..])];
    attack(&mut siege, &mut mallory, "says ICMP later", &packets, &[], &[("not_allowed", 2)]);

    // Headers that continue in the second fragment (RFC 7112).
    let hidden = [&options(UDP, 1)[..], &udp(CLOSED)].concat();
    let packets = [first(3, 60, &hidden[..8]), later(3, 60, 1, &hidden[8..])];
    let dropped = [("fragment_evasion", 1), ("fragment_orphan", 1)];
    attack(&mut siege, &mut mallory, "ports in the second", &packets, &[], &dropped);
    let long = [&options(UDP, 4)[..], &udp(CLOSED)].concat();
    let packets = [first(4, 60, &long[..16]), later(4, 60, 2, &long[16..])];
    attack(&mut siege, &mut mallory, "options over both", &packets, &[], &dropped);
    // Honest fragments: everything up to the ports is in the first one.
    let visible = [&options(UDP, 1)[..], &udp(OPEN)].concat();
    let packets = [first(5, 60, &visible[..16]), later(5, 60, 2, &visible[16..])];
    attack(&mut siege, &mut mallory, "ports in the first", &packets, &[0, 1], &[]);
    assert_eq!(open.receives(), [0x55; 24]);

    // Options in front of the fragment header, and more options behind it. Whatever overlaps the first fragment is an
    // evasion, however the headers are arranged.
    let behind = [&options(UDP, 4)[..], &udp(OPEN)].concat();
    let chained = |id, offset, more, payload: &[u8]| {
        ends.ip(0, &[&options(FRAGMENT, 1)[..], &fragment_header(60, id, offset, more), payload].concat())
    };
    let ports = udp(CLOSED);
    let packets = [
        chained(6, 0, true, &behind[..48]),
        chained(6, 1, true, &[0; 8]),
        chained(6, 4, true, &ports[..16]),
        chained(6, 5, false, &ports[..16]),
        chained(6, 6, false, &behind[48..]),
    ];
    attack(&mut siege, &mut mallory, "over the ports", &packets, &[0, 4], &[("fragment_evasion", 3)]);
    assert_eq!(open.receives(), [0x55; 24]);

    // Two first fragments, both to an open port: the shorter one does not expose the ports of the longer one to
    // overwriting.
    let short = ends.fragment(UDP, 13, 0, true, &udp(OPEN)[..8]);
    let long = ends.fragment(60, 13, 0, true, &behind[..48]);
    let packets = [long, short, later(13, UDP, 4, &ports[..16]), later(13, UDP, 5, &ports[..16])];
    attack(&mut siege, &mut mallory, "two firsts", &packets, &[0, 1], &[("fragment_evasion", 2)]);

    // Fragments that are whole packets are judged as such, and their verdict does not apply to other fragments.
    let atomic = |id, port| ends.ip(FRAGMENT, &[&fragment_header(UDP, id, 0, false)[..], &udp(port)].concat());
    siege.delivers(&mut mallory, "atomic", &[atomic(7, OPEN)]);
    assert_eq!(open.receives(), [0x55; 24]);
    siege.refuses(&mut mallory, "not_allowed", "atomic", &[atomic(8, CLOSED)]);
    let packets = [atomic(9, OPEN), later(9, UDP, 4, &[0; 8])];
    attack(&mut siege, &mut mallory, "after an atomic one", &packets, &[0], &[("fragment_orphan", 1)]);
    assert_eq!(open.receives(), [0x55; 24]);
    let twice =
        [&fragment_header(FRAGMENT, 10, 0, false)[..], &fragment_header(UDP, 10, 0, false), &udp(OPEN)].concat();
    siege.refuses(&mut mallory, "extension_headers", "two fragment headers", &[ends.ip(FRAGMENT, &twice)]);
    let twice = [&fragment_header(FRAGMENT, 11, 0, true)[..], &fragment_header(UDP, 11, 1, false), &udp(OPEN)].concat();
    siege.refuses(&mut mallory, "extension_headers", "two fragment headers", &[ends.ip(FRAGMENT, &twice)]);
    let cut_short = ends.ip(FRAGMENT, &fragment_header(UDP, 12, 0, false)[..7]);
    siege.refuses(&mut mallory, "not_allowed", "half a fragment header", &[cut_short]);

    open.has_received_nothing();
    closed.has_received_nothing();
}
