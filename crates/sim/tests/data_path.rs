//! The data path between two bare nodes: packets that are carried away together travel together, and no step allocates.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{
    Command, Instant, Joins, Node, NodeConfig, Output, PeerConfig, PeerKey, PeerStats, PeerTag, UdpTrain, Via,
};
use overlay_sim::packet::Ends;
use overlay_wire::offload::{Segmentation, SuperPacket, VirtioHeader};
use zeroize::Zeroizing;

const ALICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BOB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Length of a data message's header and tag, in bytes.
const OVERHEAD: usize = 32;

#[test]
fn small_packets_that_are_carried_away_together_leave_as_one_train() {
    let mut pair = Pair::new(Joins::NOTHING);
    let packets: Vec<_> = (0..100).map(|number| pair.out.udp(&[number; 64])).collect();
    let trains = pair.send_together(&packets);
    // 92 bytes of IP, padded to 96. The kernel accepts at most 64 datagrams in a train.
    let shapes: Vec<_> = trains.iter().map(|train| (train.contents.len() / (96 + OVERHEAD), train.stride)).collect();
    assert_eq!(shapes, [(64, 96 + OVERHEAD), (36, 96 + OVERHEAD)]);
    assert_eq!(pair.receive(&trains), packets.into_iter().map(|packet| (1, packet)).collect::<Vec<_>>());
}

#[test]
fn packets_of_another_size_or_congestion_mark_begin_a_new_train() {
    let mut pair = Pair::new(Joins::NOTHING);
    let mut marked = pair.out.udp(&[4; 64]);
    marked[1] = 0b10;
    let packets = [pair.out.udp(&[1; 64]), pair.out.udp(&[2; 640]), pair.out.udp(&[3; 64]), marked];
    let trains = pair.send_together(&packets);
    assert_eq!(trains.len(), 4);
    assert_eq!(pair.receive(&trains).len(), 4);
}

#[test]
fn datagrams_that_come_one_by_one_are_joined_if_they_are_carried_away_together() {
    let mut pair = Pair::new(Joins { tcp: true, udp: true });
    let packets: Vec<_> = (0..70).map(|number| pair.out.udp(&[number; 64])).collect();
    let trains = pair.send_together(&packets);
    let singles: Vec<_> = trains.iter().flat_map(Train::singly).collect();
    assert_eq!(singles.len(), 70);
    let received = pair.receive(&singles);
    let counts: Vec<_> = received.iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, [64, 6], "a super-packet of UDP holds 64");
    // These packets in between cannot be joined.
    let between = [pair.out.udp(&[1; 64]), pair.out.udp(&[2; 65]), pair.out.udp(&[3; 65])];
    let trains = pair.send_together(&between);
    let counts: Vec<_> = pair.receive(&trains).iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn datagrams_are_not_joined_where_tun_cannot_cut_them() {
    let mut pair = Pair::new(Joins { tcp: true, udp: false });
    let packets = vec![pair.out.udp(&[7; 64]); 3];
    let trains = pair.send_together(&packets);
    assert_eq!(pair.receive(&trains).len(), 3);
    pair.bob.handle_command(Command::SetJoins(Joins { tcp: true, udp: true }), pair.now).expect("a change");
    let trains = pair.send_together(&packets);
    assert_eq!(pair.receive(&trains).len(), 1, "until it can");
}

#[test]
fn no_packet_is_worth_an_allocation() {
    costs_no_allocation(Pair::new(Joins { tcp: true, udp: true }));
}

#[test]
fn nor_is_one_to_a_peer_whose_path_is_known() {
    let mut pair = Pair::searching(Joins { tcp: true, udp: true });
    for _ in 0..1_000 {
        pair.pass(Duration::from_millis(5));
    }
    let large = pair.out.udp(&[7; 1_400 - 28]);
    let trains = pair.send_together(&[large]);
    assert!(trains[0].is_whole, "nobody may fragment what is known to arrive");
    costs_no_allocation(pair);
}

/// Checks that sending and receiving does not allocate after a first round.
fn costs_no_allocation(mut pair: Pair) {
    let (header, super_packet) = pair.super_packet();
    let small = pair.out.udp(&[7; 64]);
    let round = |pair: &mut Pair| {
        // Preparations here may allocate. The nodes may not.
        let (mut large, mut small) = (super_packet.clone(), vec![small.clone(); 64]);
        pair.now = pair.now + Duration::from_micros(100);
        let (now, to_bob) = (pair.now, pair.to_bob());
        let mut sent = Vec::with_capacity(100);
        let sealing = allocation_counter::measure(|| {
            pair.alice.handle_tun(&header, &mut large, now);
            small.iter_mut().for_each(|packet| pair.alice.handle_tun(&VirtioHeader::NONE, packet, now));
            for output in pair.alice.poll_outputs() {
                if let Output::Transmit(transmit) = output {
                    sent.push((transmit.contents.len(), transmit.segment_size));
                }
            }
        });
        assert!(!sent.is_empty());
        // Repeats the run outside the measurement, because here the output is kept.
        let trains = pair.send_as(&header, &super_packet);
        let mut packets = 0;
        let opening = allocation_counter::measure(|| {
            trains.iter().for_each(|train| pair.bob.handle_udp(&train.lend(to_bob), now));
            packets = pair.bob.poll_outputs().filter(|output| matches!(output, Output::Packet(_))).count();
        });
        assert_eq!(packets, 1);
        (sealing.count_total, opening.count_total)
    };
    let (sealing, opening) = round(&mut pair);
    assert!(sealing > 0 && opening > 0, "the first round makes the arenas");
    for _ in 0..100 {
        assert_eq!(round(&mut pair), (0, 0));
    }
}

/// Alice and Bob, with a session between them.
struct Pair {
    alice: Node,
    bob: Node,
    now: Instant,
    /// The inner addresses from Alice to Bob.
    out: Ends,
}

/// A train of datagrams in flight.
struct Train {
    contents: Vec<u8>,
    stride: usize,
    ecn: u8,
    /// Whether it must not be fragmented.
    is_whole: bool,
}

impl Train {
    /// The datagrams of this train as separate trains.
    fn singly(&self) -> impl Iterator<Item = Train> {
        self.contents.chunks(self.stride).map(|datagram| Train {
            contents: datagram.to_vec(),
            stride: datagram.len(),
            ecn: self.ecn,
            is_whole: self.is_whole,
        })
    }

    fn lend(&self, source: SocketAddr) -> UdpTrain<'_> {
        UdpTrain { contents: &self.contents, stride: self.stride, source, via: Via::ANY, ecn: self.ecn }
    }
}

impl Pair {
    /// `joins` says which packets Bob's TUN accepts joined.
    fn new(joins: Joins) -> Self {
        Self::with(joins, false)
    }

    /// Both nodes search for the path MTU.
    fn searching(joins: Joins) -> Self {
        Self::with(joins, true)
    }

    fn with(joins: Joins, mtu_discovery: bool) -> Self {
        let now = Instant::from_start(Duration::from_secs(1_000));
        let (alice, bob) = (node(1, ALICE, Joins::NOTHING, now), node(2, BOB, joins, now));
        let mut pair = Self { alice, bob, now, out: Ends::new(ALICE, BOB) };
        let [alice, bob] = [pair.alice.public_key(), pair.bob.public_key()].map(|key| key.expect("they have one"));
        introduce(&mut pair.alice, bob, BOB, mtu_discovery, now);
        introduce(&mut pair.bob, alice, ALICE, mtu_discovery, now);
        let first = pair.out.udp(b"first");
        pair.alice.handle_tun(&VirtioHeader::NONE, &mut first.clone(), now);
        for _ in 0..2 {
            let to_bob = trains(&mut pair.alice);
            to_bob.iter().for_each(|train| pair.bob.handle_udp(&train.lend(outside(ALICE)), now));
            let to_alice = trains(&mut pair.bob);
            to_alice.iter().for_each(|train| pair.alice.handle_udp(&train.lend(outside(BOB)), now));
        }
        assert_eq!(pair.alice.stats().handshakes_completed.value(), 1);
        pair
    }

    /// Lets time pass and exchanges all messages. What the network takes 5 ms for arrives at once.
    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.alice.handle_timeout(self.now);
        self.bob.handle_timeout(self.now);
        let (to_bob, to_alice) = (trains(&mut self.alice), trains(&mut self.bob));
        to_bob.iter().for_each(|train| self.bob.handle_udp(&train.lend(outside(ALICE)), self.now));
        to_alice.iter().for_each(|train| self.alice.handle_udp(&train.lend(outside(BOB)), self.now));
    }

    fn to_bob(&self) -> SocketAddr {
        outside(ALICE)
    }

    /// What Alice sends if all these packets wait in TUN.
    fn send_together(&mut self, packets: &[Vec<u8>]) -> Vec<Train> {
        for packet in packets {
            self.alice.handle_tun(&VirtioHeader::NONE, &mut packet.clone(), self.now);
        }
        trains(&mut self.alice)
    }

    fn send_as(&mut self, header: &VirtioHeader, packet: &[u8]) -> Vec<Train> {
        self.alice.handle_tun(header, &mut packet.to_vec(), self.now);
        trains(&mut self.alice)
    }

    /// What Bob writes to TUN if these trains arrive together: for each write, the number of packets and the first of
    /// them.
    fn receive(&mut self, trains: &[Train]) -> Vec<(usize, Vec<u8>)> {
        for train in trains {
            self.bob.handle_udp(&train.lend(outside(ALICE)), self.now);
        }
        let mut packets = Vec::new();
        for output in self.bob.poll_outputs() {
            let Output::Packet(packet) = output else { continue };
            let bytes: Vec<u8> = packet.parts().flatten().copied().collect();
            if packet.header.segmentation == Segmentation::None {
                packets.push((1, bytes));
                continue;
            }
            let joined = SuperPacket::parse(&packet.header, &bytes).expect("the kernel could cut it");
            let mut first = vec![0; joined.segment_len(0)];
            joined.write_segment(0, &mut first);
            packets.push((joined.segments(), first));
        }
        packets
    }

    /// A super-packet of forty TCP segments, as the kernel delivers it.
    fn super_packet(&self) -> (VirtioHeader, Vec<u8>) {
        let mut segment = self.out.tcp_syn(1_000, 22, 1_000);
        segment.truncate(20 + 20);
        segment[20 + 12] = 5 << 4;
        segment[20 + 13] = 0x10;
        segment.resize(40 + 40 * 1_360, 0x55);
        let packet = self.out.ip(6, &segment[20..]);
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: Segmentation::TcpV4,
            header_len: 40,
            segment_size: 1_360,
            checksum_start: 20,
            checksum_offset: 16,
            ..VirtioHeader::NONE
        };
        (header, packet)
    }
}

fn node(number: u8, address: Ipv4Addr, joins: Joins, now: Instant) -> Node {
    let config = NodeConfig {
        private_key: Some(Zeroizing::new([number; 32])),
        addresses: vec![address.into()],
        forward: false,
        mtu: 1420,
        max_mtu: 1420,
        joins,
        seed: [number; 32],
        wall_anchor: Some(now),
    };
    Node::new(config, now)
}

fn introduce(node: &mut Node, peer: PeerKey, address: Ipv4Addr, mtu_discovery: bool, now: Instant) {
    let config = Box::new(PeerConfig {
        endpoint: Some(outside(address)),
        allowed_ips: vec![ipnet::IpNet::from(std::net::IpAddr::from(address))],
        mtu_discovery,
        ..PeerConfig::of(peer)
    });
    let peer = PeerTag::from_bits(u32::from(address.octets()[3]));
    node.handle_command(Command::SetPeer { peer, config, stats: Arc::<PeerStats>::default() }, now)
        .expect("a good peer");
}

/// The outer address of the node with this inner address.
fn outside(inside: Ipv4Addr) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, inside.octets()[3]), 51_820).into()
}

/// The trains that a node sends. Its other outputs are ignored.
fn trains(node: &mut Node) -> Vec<Train> {
    let transmits = node.poll_outputs().filter_map(|output| match output {
        Output::Transmit(transmit) => Some(transmit),
        _ => None,
    });
    transmits
        .map(|transmit| Train {
            contents: transmit.contents.to_vec(),
            stride: transmit.segment_size,
            ecn: transmit.traffic_class,
            is_whole: transmit.whole_for.is_some(),
        })
        .collect()
}
