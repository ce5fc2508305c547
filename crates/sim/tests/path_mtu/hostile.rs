//! Peers that lie, flood, and send what no honest peer would. All have valid keys, since nobody else can reach this
//! code.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use overlay_core::{Event, PathMtuState, Protocol, Rule};
use overlay_sim::packet::Ends;
use overlay_sim::{HostOptions, Scene, millis, seconds};
use overlay_wire::control::{self, Abilities, Frame};

use crate::control_peer::{Frames, encoded, scene, scene_with};
use crate::scene::{ASSUMED, MAX_MTU, options};

/// Offset of the TLVs in a frame.
const TLVS: usize = 48;

/// A frame of these bytes where the TLVs are. Nobody looks at its checksum.
fn frame_of(tlvs: &[u8]) -> Vec<u8> {
    let mut packet = encoded(Frame::Probe { id: 0, size: 0 });
    packet.truncate(TLVS);
    packet.extend(tlvs);
    let [high, low] = ((packet.len() - 40) as u16).to_be_bytes();
    for at in [4, 44] {
        packet[at..at + 2].copy_from_slice(&[high, low]);
    }
    packet
}

const HELLO: [u8; 12] = [0x80, 1, 0, 8, 0, 0, 0, 9, 0, 1, 5, 0];

#[test]
fn a_malformed_frame_is_counted_and_does_nothing() {
    let fragment = |offset: u16, total: u16, bytes: &[u8]| {
        let mut tlv = vec![0x80, 5, 0, 8 + bytes.len() as u8, 0, 0, 0, 1];
        tlv.extend(offset.to_be_bytes());
        tlv.extend(total.to_be_bytes());
        tlv.extend(bytes);
        tlv
    };
    let cases: [(&str, Vec<u8>); 13] = [
        ("no message", vec![]),
        ("padding alone", vec![0, 0, 0, 4, 0, 0, 0, 0]),
        ("two messages", [HELLO, HELLO].concat()),
        ("a value longer than the frame", vec![0x80, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a hello that is short", vec![0x80, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
        ("a hello that is long", vec![0x80, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a probe of five bytes", vec![0x80, 3, 0, 5, 0, 0, 0, 0, 0]),
        ("a reply without a size", vec![0x80, 4, 0, 4, 0, 0, 0, 0]),
        ("a fragment of nothing", fragment(0, 10, &[])),
        ("a fragment beyond the end", fragment(8, 10, b"abc")),
        ("a fragment far beyond the end", fragment(0xffff, 10, b"a")),
        ("bytes behind the last TLV", [&HELLO[..], &[1]].concat()),
        ("nothing but a type", vec![0x80, 1]),
    ];
    let mut scene = scene();
    for (number, (what, tlvs)) in (1..).zip(&cases) {
        assert_eq!(scene.ask(&frame_of(tlvs)), [[0u8; 0]; 0], "{what}");
        assert_eq!(scene.drops(), BTreeMap::from([("control_malformed", number)]), "{what}");
    }
    // The lengths of IPv6 and UDP contradict each other.
    let mut packet = frame_of(&HELLO);
    packet[45] -= 1;
    assert_eq!(scene.ask(&packet), [[0u8; 0]; 0]);
    assert_eq!(scene.drops(), BTreeMap::from([("control_malformed", cases.len() as u64 + 1)]));
    assert_eq!(scene.probes(5_000), [], "nobody has said hello");
    assert!(scene.received().is_empty() && scene.known().is_none_or(|known| known.state == PathMtuState::Assumed));
}

#[test]
fn what_is_critical_must_be_understood_and_everything_else_is_skipped() {
    let unknown = |kind: u8| [kind, 77, 0, 3, 1, 2, 3];
    let mut scene = scene();
    assert_eq!(scene.ask(&frame_of(&[&HELLO[..], &unknown(0x80)].concat())), [[0u8; 0]; 0]);
    assert_eq!(scene.ask(&frame_of(&[&unknown(0x80), &HELLO[..]].concat())), [[0u8; 0]; 0]);
    assert_eq!(scene.drops(), BTreeMap::from([("control_unknown", 2)]));
    for frame in [[&unknown(0), &HELLO[..]].concat(), [&HELLO[..], &unknown(0x7f)].concat()] {
        let answers = scene.ask(&frame_of(&frame));
        let is_reply = |answer: &Vec<u8>| matches!(Frame::parse(answer), Ok(Frame::HelloReply { nonce: 9, .. }));
        assert_eq!(answers.iter().filter(|answer| is_reply(answer)).count(), 1);
    }
    assert_eq!(scene.drops(), BTreeMap::from([("control_unknown", 2)]));
}

#[test]
fn a_flood_of_hellos_is_answered_one_for_one_and_harms_nobody_else() {
    let mut scene = scene();
    let (bob, alice) = (scene.world.host_with(options()), scene.alice);
    scene.world.introduce(alice, bob);
    scene.world.ping(alice, bob).expect("an answer");
    scene.world.run_for(seconds(5));
    let mut replies = 0;
    for number in 0..2_000u32 {
        let mtu = [0, 576, 1_199, 1_200, 1_500, 9_000, u16::MAX][number as usize % 7];
        let hello = Frame::Hello { nonce: number, understands: Abilities(number as u16), mtu };
        let answers = scene.send_frame(hello);
        let is_reply = |answer: &&Vec<u8>| matches!(Frame::parse(answer), Ok(Frame::HelloReply { .. }));
        replies += answers.iter().filter(is_reply).count();
        let others: Vec<_> = answers.iter().filter(|answer| !is_reply(answer)).collect();
        assert!(others.len() <= 1, "and a probe at most: {}", others.len());
        assert!(others.iter().all(|packet| packet.len() <= 1_200), "of the least size");
    }
    assert_eq!(replies, 2_000);
    assert!(scene.drops().is_empty(), "{:?}", scene.drops());
    assert!(scene.world.ping(alice, bob).is_some());
}

#[test]
fn nobody_raises_the_mtu_above_our_own_by_a_hello_or_an_answer() {
    let mut scene = scene_with(HostOptions { max_mtu: 1_500, ..options() });
    scene.hello(u16::MAX);
    let mut largest = 0;
    for _ in 0..200 {
        for (id, size) in scene.probes(20) {
            largest = largest.max(size);
            // It says that more arrived than was sent, and then the truth.
            scene.send_frame(Frame::ProbeReply { id, size: u16::MAX });
            scene.send_frame(Frame::ProbeReply { id, size: size + 100 });
            scene.send_frame(Frame::ProbeReply { id, size });
        }
    }
    assert_eq!(largest, 1_500);
    let known = scene.known().expect("found");
    assert_eq!((known.state, known.mtu), (PathMtuState::Found, 1_500));
}

#[test]
fn an_answer_to_no_probe_of_ours_changes_nothing() {
    let mut scene = scene();
    scene.hello(MAX_MTU);
    let [(id, size)] = scene.probes(1)[..] else { panic!("a probe") };
    assert_eq!(size, 1_200);
    let mut lie = |id: u32, size: u16| {
        scene.send_frame(Frame::ProbeReply { id, size });
    };
    for size in [0, 57, 1_199, 1_201, 8_940, u16::MAX] {
        lie(id, size);
    }
    for flip in 0..32 {
        lie(id ^ 1 << flip, 1_200);
        lie(id ^ 1 << flip, 8_940);
    }
    for random in 0..1_000u32 {
        lie(random.wrapping_mul(0x9e37_79b9), 8_940);
    }
    assert!(scene.known().is_none_or(|known| (known.state, known.mtu) == (PathMtuState::Assumed, ASSUMED)));
    scene.send_frame(Frame::ProbeReply { id, size });
    let mut probes = scene.probes(1);
    let (next, size) = probes.pop().expect("the next one");
    assert_eq!(size, MAX_MTU);
    // The answer before comes again, for a size that was never sent under its id.
    scene.send_frame(Frame::ProbeReply { id, size: MAX_MTU });
    assert!(scene.known().is_none_or(|known| known.mtu != MAX_MTU));
    scene.send_frame(Frame::ProbeReply { id: next, size });
    scene.probes(1);
    assert_eq!(scene.known().map(|known| known.mtu), Some(MAX_MTU));
}

#[test]
fn a_peer_that_answers_a_size_only_at_times_ends_at_one_that_it_answers() {
    let mut scene = scene();
    scene.hello(MAX_MTU);
    for round in 0..600 {
        for (id, size) in scene.probes(50) {
            // It answers sizes above 1,440 bytes only in every third second.
            if size <= 1_440 || round / 20 % 3 == 0 {
                scene.send_frame(Frame::ProbeReply { id, size });
            }
        }
        // Large packets go out all the time.
        let large = scene.ends().reversed().udp(&[0x5a; 1_300]);
        scene.world.send(scene.alice, large);
    }
    let reports =
        scene.world.events(scene.alice).iter().filter(|(_, event)| matches!(event, Event::PathMtu(..))).count();
    assert!(reports < 200, "control is not flooded: {reports}");
    assert!(scene.known().is_some_and(|known| known.mtu >= 1_200));
}

#[test]
fn pieces_that_overlap_or_are_too_long_are_refused() {
    let mut scene = scene();
    let piece = |offset, total, bytes| Frame::Fragment { id: 1, offset, total, bytes };
    for (second, what) in [
        (piece(2, 8, b"cdef"), "one over the other"),
        (piece(0, 8, b"a"), "the same again"),
        (piece(4, 9, b"efgh"), "another length"),
    ] {
        scene.send_frame(piece(0, 8, b"abcd"));
        let before = scene.drops().get("fragment_frame").copied().unwrap_or_default();
        assert_eq!(scene.send_frame(second), [[0u8; 0]; 0], "{what}");
        assert_eq!(scene.drops().get("fragment_frame"), Some(&(before + 1)), "{what}");
    }
    scene.send_frame(Frame::Fragment { id: 2, offset: 0, total: 1_281, bytes: &[0; 1_000] });
    scene.send_frame(Frame::Fragment { id: 2, offset: 60_000, total: u16::MAX, bytes: &[0; 1_000] });
    assert_eq!(scene.drops(), BTreeMap::from([("fragment_frame", 5)]));
    assert!(scene.received().is_empty());
}

#[test]
fn endless_first_pieces_keep_no_more_than_eight_packets() {
    let mut scene = scene();
    for id in 0..10_000 {
        scene.send_frame(Frame::Fragment { id, offset: 0, total: 1_280, bytes: &[0; 100] });
    }
    assert_eq!(scene.drops(), BTreeMap::from([("fragment_frame_lost", 10_000 - 8)]));
    // An honest packet gets through in between, and its peer does not suffer.
    let packet = scene.ends().udp(&[0x5a; 1_000]);
    scene.pieces(77_777, &packet, 600);
    assert_eq!(scene.received(), [packet]);
}

#[test]
fn a_packet_in_pieces_is_judged_as_any_other() {
    let dns = Rule { protocol: Protocol::Udp, ports: Some(53..=53) };
    let mut scene = Scene::with(options(), |peer| {
        peer.mtu_discovery = true;
        peer.allow = Some(vec![dns]);
    });
    let honest = scene.ends();
    let from = |source: [u8; 4]| Ends { source: Ipv4Addr::from(source).into(), ..honest };
    let to = |destination: [u8; 4]| Ends { destination: Ipv4Addr::from(destination).into(), ..honest };
    let dns = |ends: Ends| ends.udp_between(4_000, 53, &[0x5a; 1_000]);
    let mut expected = BTreeMap::new();
    let mut short = dns(honest);
    short.truncate(1_000);
    for (number, (packet, reason)) in (0..).zip([
        (dns(from([10, 77, 0, 99])), "spoofed_source"),
        (dns(from([127, 0, 0, 1])), "martian_source"),
        (dns(from([224, 0, 0, 1])), "martian_source"),
        (dns(honest.reversed()), "martian_source"),
        (dns(to([10, 99, 0, 1])), "inbound_destination"),
        (honest.udp_between(4_000, 54, &[0x5a; 1_000]), "not_allowed"),
        (short, "inbound_malformed"),
        (vec![0x5a; 1_100], "inbound_malformed"),
        (vec![0; 1_100], "inbound_malformed"),
        (vec![0x45], "inbound_malformed"),
    ]) {
        *expected.entry(reason).or_insert(0) += 1;
        scene.pieces(number, &packet, 600);
        assert_eq!(scene.drops(), expected, "{number}");
        assert!(scene.received().is_empty(), "{number}");
    }
    scene.pieces(1_000, &dns(honest), 600);
    assert_eq!(scene.received(), [dns(honest)]);
}

#[test]
fn a_control_frame_in_pieces_is_not_obeyed() {
    // Everything is routed to this peer, and the node does not know its own addresses. So only the frame itself is a
    // reason to refuse it.
    let mut scene = scene_with(HostOptions { knows_addresses: false, ..options() });
    let everything = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix")).to_vec();
    scene.world.set_allowed_ips(scene.alice, scene.carol.key(), everything);
    let hello = encoded(Frame::Hello { nonce: 7, understands: Abilities::FRAGMENTS, mtu: 9_000 });
    let probe = encoded(Frame::Probe { id: 7, size: 600 });
    let inner = scene.ends().udp(b"a packet");
    let piece = encoded(Frame::Fragment { id: 9, offset: 0, total: inner.len() as u16, bytes: &inner });
    for (number, frame) in (1..).zip([hello, probe, piece]) {
        assert!(control::is_control(&frame));
        assert_eq!(scene.pieces(number, &frame, frame.len().div_ceil(2)), [[0u8; 0]; 0], "{number}");
        assert_eq!(scene.drops(), BTreeMap::from([("control_malformed", u64::from(number))]), "{number}");
        assert!(scene.received().is_empty(), "{number}");
    }
}

#[test]
fn nobody_behind_tun_speaks_in_control_frames() {
    let mut scene = scene_with(HostOptions { knows_addresses: false, ..options() });
    let everything = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix")).to_vec();
    scene.world.set_allowed_ips(scene.alice, scene.carol.key(), everything);
    let alice = scene.alice;
    scene.world.take_mail(scene.carol.address);
    for frame in [
        Frame::ProbeReply { id: 1, size: 9_000 },
        Frame::HelloReply { nonce: 1, understands: Abilities(1), mtu: 9_000 },
    ] {
        scene.world.send(alice, encoded(frame));
    }
    scene.world.run_for(millis(1));
    let mail = scene.world.take_mail(scene.carol.address);
    assert_eq!(scene.open(&mail), [[0u8; 0]; 0]);
    assert_eq!(scene.drops(), BTreeMap::from([("outbound_source", 2)]));
}

#[test]
fn a_hello_that_is_the_first_data_of_a_peer_is_learned_from() {
    // The keepalive that would confirm the session is lost.
    let mut scene = Scene::unconfirmed(options(), |peer| peer.mtu_discovery = true);
    let answers = scene.hello(9_000);
    assert!(matches!(Frame::parse(&answers[0]), Ok(Frame::HelloReply { nonce: 7, .. })));
    assert!(
        answers.iter().any(|packet| matches!(Frame::parse(packet), Ok(Frame::Probe { .. })))
            || !scene.probes(1_000).is_empty(),
        "it is known to answer probes"
    );
}
