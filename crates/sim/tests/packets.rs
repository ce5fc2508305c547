//! Packets come out as they went in: both families, padding, trains, staging, and packets that the tunnel changes on
//! purpose.

use std::collections::BTreeMap;

use overlay_core::{Command, Joins};
use overlay_sim::packet::{self, Ends};
use overlay_sim::{HostOptions, Kind, World, millis, seconds};
use overlay_wire::ip::{Packet, TCP};
use overlay_wire::offload::{Segmentation, VirtioHeader};
use overlay_wire::{checksum, icmp};

const MTU: usize = 1420;
/// Length of a data message's header and tag, in bytes.
const OVERHEAD: usize = 32;

#[test]
fn packets_of_both_families_arrive_unchanged_in_both_directions() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let payload: Vec<u8> = (0..=255).cycle().take(1_372).collect();
    for (from, to) in [(alice, bob), (bob, alice)] {
        let (v4, v6) = (world.v4(from, to), world.v6(from, to));
        let packets = [
            v4.udp(&[]),
            v4.udp(&payload),
            v6.udp(&[]),
            v6.udp(&payload),
            v4.tcp_syn(1_000, 22, 1_000),
            v6.tcp_syn(1_000, 22, 1_000),
        ];
        for packet in &packets {
            world.send(from, packet.clone());
        }
        world.run_for(seconds(1));
        let received: Vec<_> = world.received(to).iter().map(|received| received.packet.clone()).collect();
        assert_eq!(received, packets);
        let sent: u64 = packets.iter().map(|packet| packet.len() as u64).sum();
        assert_eq!(world.peer_stats(from, world.key(to)).sent_bytes.value(), sent);
        assert_eq!(world.peer_stats(to, world.key(from)).received_bytes.value(), sent);
        assert_eq!(world.peer_stats(to, world.key(from)).received_packets.value(), 6);
    }
    assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
}

#[test]
fn every_packet_is_padded_to_16_bytes_or_to_the_mtu_with_zeros() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let session = world.connect(&mut carol);
    let ends = world.from_outsider(&carol).reversed();
    for len in 28..=MTU {
        let packet = ends.udp(&vec![0xff; len - 28]);
        world.send(alice, packet.clone());
        world.run_for(seconds(0));
        let mail = world.take_mail(carol.address);
        let [message] = &mail[..] else { panic!("{} datagrams for one packet", mail.len()) };
        let opened = session.open(message).expect("data for carol");
        let padded = len.next_multiple_of(16).min(MTU);
        assert_eq!(message.len(), padded + OVERHEAD, "{len} bytes");
        assert_eq!(opened.plaintext[..len], packet);
        assert!(opened.plaintext[len..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn counters_on_the_wire_rise_one_by_one() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let session = world.connect(&mut carol);
    let ends = world.from_outsider(&carol).reversed();
    for expected in 0..100 {
        world.send(alice, ends.udp(b"x"));
        world.run_for(seconds(0));
        let mail = world.take_mail(carol.address);
        assert_eq!(session.open(&mail[0]).expect("data for carol").counter, expected);
    }
}

#[test]
fn packets_that_wait_for_a_handshake_leave_in_order_and_no_more_than_128_wait() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for n in 0..200u32 {
        world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("staged_overflow", 72)]));
    world.run_for(seconds(1));
    let arrived: Vec<_> = world.received(bob).iter().filter_map(|it| packet::udp_payload(&it.packet)).collect();
    let expected: Vec<_> = (72..200u32).map(u32::to_be_bytes).collect();
    assert_eq!(arrived, expected, "the newest 128");
    assert_eq!(world.count(alice, Kind::Initiation), 1);
}

#[test]
fn packets_that_wait_at_the_responder_leave_when_the_session_is_confirmed() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(millis(15));
    // Bob has answered, and does not know yet whether alice received it.
    for n in 0..10u32 {
        world.send(bob, world.v4(bob, alice).udp(&n.to_be_bytes()));
    }
    assert_eq!(world.count(bob, Kind::Data), 0);
    world.run_for(seconds(1));
    let arrived: Vec<_> = world.received(alice).iter().filter_map(|it| packet::udp_payload(&it.packet)).collect();
    assert_eq!(arrived, (0..10u32).map(u32::to_be_bytes).collect::<Vec<_>>());
}

/// A TCP super-packet with this payload, and its virtio header.
fn super_packet(ends: Ends, payload: &[u8], segment_size: u16) -> (VirtioHeader, Vec<u8>) {
    let mut segment = vec![0x30, 0x39, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    segment.extend(payload);
    let (segmentation, ip_len) =
        if ends.source.is_ipv4() { (Segmentation::TcpV4, 20) } else { (Segmentation::TcpV6, 40) };
    let header = VirtioHeader {
        needs_checksum: true,
        segmentation,
        header_len: ip_len + 20,
        segment_size,
        checksum_start: ip_len,
        checksum_offset: 16,
        ..VirtioHeader::NONE
    };
    (header, ends.ip(TCP, &segment))
}

#[test]
fn a_super_packet_arrives_as_its_segments() {
    let payload: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    for is_staged in [true, false] {
        let mut world = World::new(7);
        let (alice, bob) = world.pair();
        if !is_staged {
            world.ping(alice, bob);
        }
        for ends in [world.v4(alice, bob), world.v6(alice, bob)] {
            world.forget();
            let (header, packet) = super_packet(ends, &payload, 1_360);
            world.send_super(alice, &header, packet);
            world.run_for(seconds(1));
            let headers = if ends.source.is_ipv4() { 40 } else { 60 };
            let segments: Vec<_> = world.received(bob).iter().map(|received| &received.packet).collect();
            assert_eq!(segments.len(), payload.len().div_ceil(1_360));
            assert_eq!(segments.iter().flat_map(|segment| &segment[headers..]).copied().collect::<Vec<_>>(), payload);
            for (index, segment) in segments.iter().enumerate() {
                let tcp = &segment[headers - 20..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                assert_eq!(sequence as usize, 1 + index * 1_360);
                let packet = Packet::parse(segment).expect("a whole packet");
                let pseudo = match (packet.source(), packet.destination()) {
                    (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => checksum::pseudo_v4(a, b, TCP, tcp.len()),
                    (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => checksum::pseudo_v6(a, b, TCP, tcp.len()),
                    _ => panic!("a packet of two families"),
                };
                assert_eq!(checksum::finish(pseudo + checksum::sum(tcp)), 0);
            }
            assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
        }
    }
}

#[test]
fn segments_of_a_train_are_written_to_tun_as_one_and_are_the_same_segments() {
    let payload: Vec<u8> = (0..30_000u32).map(|n| (n / 7) as u8).collect();
    let mut runs = Vec::new();
    for joins in [Joins::NOTHING, Joins { tcp: true, udp: false }] {
        let mut world = World::new(7);
        let alice = world.host();
        let bob = world.host_with(HostOptions { joins, ..HostOptions::default() });
        world.introduce(alice, bob);
        world.ping(alice, bob);
        world.forget();
        let before = world.tun_writes(bob);
        for ends in [world.v4(alice, bob), world.v6(alice, bob)] {
            let (header, packet) = super_packet(ends, &payload, 1_360);
            world.send_super(alice, &header, packet);
            world.run_for(seconds(1));
        }
        let segments: Vec<_> = world.received(bob).iter().map(|received| received.packet.clone()).collect();
        assert_eq!(segments.len(), 2 * payload.len().div_ceil(1_360));
        assert_eq!(world.tun_writes(bob) - before, if joins.tcp { 2 } else { segments.len() as u64 });
        runs.push(segments);
    }
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_the_mtu_that_fits() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.command(alice, Command::SetMtu { mtu: 1_300, max: 1_300 }).expect("an MTU");
    world.forget();
    for ends in [world.v4(alice, bob), world.v6(alice, bob)] {
        world.send(alice, ends.udp(&[0; 1_300]));
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_too_big", 2)]));
    for answer in world.received(alice) {
        let packet = Packet::parse(&answer.packet).expect("an ICMP error");
        let quoted = icmp::quoted(&packet).expect("the refused packet");
        assert_eq!(quoted.source, packet.destination());
        let at = packet.header_len();
        let mtu = &answer.packet[at + 6..at + 8];
        assert_eq!(u16::from_be_bytes([mtu[0], mtu[1]]), 1_300);
    }
    assert_eq!(world.received(alice).len(), 2);
    assert_eq!(world.sent().len(), 0);
}

#[test]
fn the_segment_size_that_a_tcp_connection_offers_is_clamped_to_the_smaller_mtu() {
    let mut world = World::new(7);
    let alice = world.host_with(HostOptions { mtu: 1_280, ..HostOptions::default() });
    let bob = world.host();
    world.introduce(alice, bob);
    for (from, to) in [(alice, bob), (bob, alice)] {
        for (ends, headers) in [(world.v4(from, to), 40), (world.v6(from, to), 60)] {
            world.forget();
            world.send(from, ends.tcp_syn(1_000, 80, 8_960));
            world.run_for(seconds(1));
            let syn = &world.received(to)[0].packet;
            let mss = u16::from_be_bytes([syn[syn.len() - 2], syn[syn.len() - 1]]);
            assert_eq!(mss, 1_280 - headers);
        }
    }
}

#[test]
fn a_source_that_is_not_ours_does_not_leave() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let carol = world.host();
    world.send(alice, world.v4(carol, bob).udp(b"not mine"));
    world.run_for(seconds(1));
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_source", 1)]));
    assert!(world.sent().is_empty());
}

#[test]
fn a_destination_that_is_nobodys_is_answered_as_unreachable() {
    let mut world = World::new(7);
    let (alice, _) = world.pair();
    let stranger = world.host();
    for ends in [world.v4(alice, stranger), world.v6(alice, stranger)] {
        world.forget();
        world.send(alice, ends.udp(b"anybody there"));
        let answer = &world.received(alice)[0].packet;
        let packet = Packet::parse(answer).expect("an ICMP error");
        assert_eq!(icmp::quoted(&packet).expect("the refused packet").destination, ends.destination);
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_no_peer", 2)]));
}

#[test]
fn what_is_no_packet_does_not_leave() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let good = world.v4(alice, bob).udp(b"hello");
    let mut lying = good.clone();
    lying[3] += 1;
    for packet in [vec![], vec![0x45], good[..19].to_vec(), lying, vec![0x50; 40], vec![0x60; 39]] {
        world.send(alice, packet);
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_malformed", 6)]));
    assert!(world.sent().is_empty());
}
