//! A path that carries less than IPv6's minimum MTU. Packets of 1,280 bytes still arrive, in fragments, and TCP is told
//! to send what fits.

use std::collections::BTreeSet;

use overlay_sim::packet::{Ends, udp_payload};
use overlay_sim::{HostId, Kind, World, millis, seconds};
use overlay_wire::checksum;
use overlay_wire::offload::{Segmentation, VirtioHeader};

use crate::scene::{around, found_pair};

/// IPv6's minimum MTU in bytes.
const LEAST: usize = 1_280;
/// Length of the IPv6 and UDP headers in bytes.
const HEADERS_LEN: usize = 48;

/// A datagram of exactly 1,280 bytes with a unique content.
fn numbered(ends: Ends, number: u16) -> Vec<u8> {
    let mut payload = vec![0x5a; LEAST - HEADERS_LEN];
    payload[..2].copy_from_slice(&number.to_be_bytes());
    ends.udp(&payload)
}

fn packets(world: &World, host: HostId) -> Vec<Vec<u8>> {
    world.received(host).iter().map(|received| received.packet.clone()).collect()
}

#[test]
fn ipv6_packets_of_1280_bytes_arrive_whole_and_unchanged_both_ways() {
    for is_v4 in [true, false] {
        let (mut world, alice, bob) = found_pair(11, 1_280, is_v4);
        world.forget();
        let (there, back) = (world.v6(alice, bob), world.v6(bob, alice));
        let sent: [Vec<_>; 2] = [there, back].map(|ends| (0..100).map(|number| numbered(ends, number)).collect());
        for (one, other) in sent[0].iter().zip(&sent[1]) {
            world.send(alice, one.clone());
            world.send(bob, other.clone());
            world.run_for(millis(1));
        }
        world.run_for(seconds(1));
        assert_eq!((packets(&world, bob), packets(&world, alice)), (sent[0].clone(), sent[1].clone()), "{is_v4}");
        for host in [alice, bob] {
            let stats = world.stats(host);
            assert_eq!((stats.packets_cut.value(), stats.packets_joined.value()), (100, 100));
            assert_eq!(world.drops(host).len(), 0, "{:?}", world.drops(host));
            let longest = world.sent_by(host, Kind::Data).map(|sent| sent.bytes.len()).max();
            assert!(longest.is_some_and(|len| len + around(is_v4) - 32 <= 1_280), "{longest:?}");
        }
    }
}

#[test]
fn what_fits_is_not_cut() {
    let (mut world, alice, bob) = found_pair(11, 1_280, true);
    let ends = world.v6(alice, bob);
    world.send(alice, ends.udp(&[0x5a; 1_220 - HEADERS_LEN]));
    world.send(alice, world.v4(alice, bob).udp(&[0x5a; 1_220 - 28]));
    assert_eq!(world.stats(alice).packets_cut.value(), 0);
    world.send(alice, ends.udp(&[0x5a; 1_221 - HEADERS_LEN]));
    assert_eq!(world.stats(alice).packets_cut.value(), 1);
}

#[test]
fn a_super_packet_of_udp_arrives_in_segments_of_1280_bytes() {
    for is_v4 in [true, false] {
        let (mut world, alice, bob) = found_pair(11, 1_280, is_v4);
        world.forget();
        let ends = world.v6(alice, bob);
        let segments: Vec<_> = (0..5).map(|number| numbered(ends, number)).collect();
        let short = ends.udp(b"the last one is shorter");
        let payload: Vec<u8> =
            segments.iter().chain([&short]).flat_map(|packet| &packet[HEADERS_LEN..]).copied().collect();
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: Segmentation::Udp,
            header_len: HEADERS_LEN as u16,
            segment_size: (LEAST - HEADERS_LEN) as u16,
            checksum_start: 40,
            checksum_offset: 6,
            ..VirtioHeader::NONE
        };
        world.send_super(alice, &header, ends.udp(&payload));
        world.run_for(seconds(1));
        assert_eq!(packets(&world, bob), [segments, vec![short]].concat(), "{is_v4}");
        assert_eq!(world.stats(alice).packets_cut.value(), 5);
    }
}

#[test]
fn a_lost_piece_costs_the_packet_that_it_belongs_to_and_is_counted() {
    const PACKETS: u16 = 500;
    for seed in 0..4 {
        let (mut world, alice, bob) = found_pair(seed, 1_280, false);
        world.all_links(|link| (link.loss, link.reorder) = (0.1, 0.05));
        world.forget();
        let ends = world.v6(alice, bob);
        for number in 0..PACKETS {
            world.send(alice, numbered(ends, number));
            world.run_for(millis(200));
        }
        world.run_for(seconds(3));
        // A packet that was given up is counted when the next fragment arrives.
        world.all_links(|link| link.loss = 0.0);
        world.send(alice, numbered(ends, PACKETS));
        world.run_for(seconds(1));

        let pieces: Vec<_> = world.sent_by(alice, Kind::Data).filter(|sent| sent.bytes.len() == 1_200 + 32).collect();
        assert!(pieces.len() > usize::from(PACKETS), "{}", pieces.len());
        let whole: BTreeSet<_> =
            packets(&world, bob).into_iter().filter(|packet| udp_payload(packet).is_some()).collect();
        for packet in &whole {
            let payload = udp_payload(packet).expect("UDP");
            let number = u16::from_be_bytes([payload[0], payload[1]]);
            assert_eq!(*packet, numbered(ends, number), "unchanged");
        }
        let arrived = whole.len() as u64;
        // Nine in ten fragments arrive, and a packet has two.
        assert!((350..480).contains(&arrived), "seed {seed}: {arrived}");
        assert_eq!(world.stats(bob).packets_joined.value(), arrived, "each once");
        let given_up = world.drops(bob)["fragment_frame_lost"];
        assert!(given_up > 0 && given_up <= u64::from(PACKETS) + 1 - arrived, "seed {seed}: {given_up}");
        // If a packet is not counted at all, both of its fragments were lost: one packet in a hundred.
        assert!(u64::from(PACKETS) + 1 - arrived - given_up < 20, "seed {seed}: {given_up} of {arrived}");
        assert_eq!(world.drops(bob).get("fragment_frame"), None);
    }
}

/// The SYN-ACK that answers a SYN.
fn syn_ack(ends: Ends, mss: u16) -> Vec<u8> {
    const SYN: u16 = 0x6002;
    const SYN_ACK: u16 = 0x6012;
    let mut packet = ends.tcp_syn(22, 4_000, mss);
    let tcp = packet.len() - 24;
    packet[tcp + 12..tcp + 14].copy_from_slice(&SYN_ACK.to_be_bytes());
    let sum = u16::from_be_bytes([packet[tcp + 16], packet[tcp + 17]]);
    packet[tcp + 16..tcp + 18].copy_from_slice(&checksum::update(sum, SYN, SYN_ACK).to_be_bytes());
    packet
}

#[test]
fn tcp_is_told_both_ways_what_the_path_really_carries_and_never_more() {
    for (mtu, is_v4) in [(1_280, true), (1_280, false), (1_400, true), (1_500, false), (9_000, true)] {
        let (mut world, alice, bob) = found_pair(11, mtu, is_v4);
        let carried = (mtu - around(is_v4)).min(8_940);
        for (from, to) in [(alice, bob), (bob, alice)] {
            for (ends, headers_len) in [(world.v4(from, to), 40), (world.v6(from, to), 60)] {
                for offered in [8_960, 1_460, 536] {
                    for is_answer in [false, true] {
                        world.forget();
                        let made = |mss| if is_answer { syn_ack(ends, mss) } else { ends.tcp_syn(4_000, 22, mss) };
                        world.send(from, made(offered));
                        world.run_for(seconds(1));
                        let [packet] = &packets(&world, to)[..] else { panic!("{mtu} {is_v4}") };
                        let mss = u16::from_be_bytes([packet[packet.len() - 2], packet[packet.len() - 1]]);
                        let carried_payload = (carried - headers_len) as u16;
                        let range = offered.min(carried_payload - 16)..=offered.min(carried_payload);
                        assert!(range.contains(&mss), "{mtu} {is_v4}: {mss} of {range:?}");
                        assert_eq!(*packet, made(mss), "and its checksum is right");
                    }
                }
            }
        }
    }
}
