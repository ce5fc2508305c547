//! A node with a session, and its handwritten peer. All targets that go through a node start from this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{
    Command, Instant, Joins, Node, NodeConfig, Output, PeerConfig, PeerKey, PeerTag, Rule, UdpTrain, Via,
};
use overlay_wire::ip::Packet;
use overlay_wire::offload::{self, Segmentation, SuperPacket, VirtioHeader};
use zeroize::Zeroizing;

use super::Input;
use crate::initiator::{Initiator, Session, Timestamp};
use crate::packet::Ends;

/// The inner addresses of the node and of its peer.
pub(super) const OURS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 77, 0, 1), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
pub(super) const THEIRS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 77, 0, 2), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

/// The configuration of the node.
pub(super) struct Options {
    pub(super) mtu: u16,
    pub(super) joins: Joins,
    pub(super) knows_addresses: bool,
    pub(super) allow: Option<Vec<Rule>>,
    pub(super) mtu_discovery: bool,
    pub(super) finds_paths: bool,
}

/// A node and one of its peers.
pub(super) struct Scene {
    pub(super) node: Node,
    pub(super) session: Session,
    pub(super) now: Instant,
    /// The peer's messages so far: an initiation and a keepalive.
    pub(super) messages: Vec<Vec<u8>>,
}

/// A datagram that a node sends, with its destination.
pub(super) type Datagram = (SocketAddr, Vec<u8>);

/// A packet that a node delivers.
pub(super) type Delivered = (VirtioHeader, Vec<u8>);

/// The outer address of the peer.
pub(super) fn home() -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, 2), 51_820).into()
}

impl Scene {
    pub(super) fn new(options: Options) -> Self {
        let now = Instant::from_start(Duration::from_secs(1_000));
        let config = NodeConfig {
            private_key: Some(Zeroizing::new([1; 32])),
            addresses: if options.knows_addresses { vec![OURS.0.into(), OURS.1.into()] } else { Vec::new() },
            forward: false,
            mtu: options.mtu,
            max_mtu: options.mtu,
            joins: options.joins,
            seed: [7; 32],
            wall_anchor: Some(now),
        };
        let mut node = Node::new(config, now);
        let mut peer = Initiator::new([2; 32], node.public_key().expect("it has a key").0, 3);
        let config = Box::new(PeerConfig {
            allowed_ips: vec![IpAddr::from(THEIRS.0).into(), IpAddr::from(THEIRS.1).into()],
            allow: options.allow,
            mtu_discovery: options.mtu_discovery,
            finds_paths: options.finds_paths,
            ..PeerConfig::of(PeerKey(peer.public_key()))
        });
        node.handle_command(Command::SetPeer { peer: PeerTag::from_bits(0), config, stats: Arc::default() }, now)
            .expect("a good peer");

        let pending = peer.initiate(Timestamp::from_unix_seconds(1), 0x0101_0101);
        hear(&mut node, home(), &pending.message, pending.message.len(), now);
        let response = node.poll_outputs().find_map(|output| match output {
            Output::Transmit(transmit) => Some(transmit.contents.to_vec()),
            _ => None,
        });
        let session = peer.complete(&pending, &response.expect("an answer")).expect("a good response");
        let mut scene = Self { node, session, now, messages: vec![pending.message] };
        let keepalive = scene.session.seal(&[]);
        scene.hear(home(), &keepalive, keepalive.len());
        scene.messages.push(keepalive);
        scene.drain();
        scene
    }

    /// Passes a train to the node.
    pub(super) fn hear(&mut self, source: SocketAddr, contents: &[u8], stride: usize) {
        hear(&mut self.node, source, contents, stride, self.now);
    }

    /// Takes everything that the node wants to send and to deliver, and checks that a shell could use it.
    pub(super) fn drain(&mut self) -> (Vec<Datagram>, Vec<Delivered>) {
        let (mut sent, mut delivered) = (Vec::new(), Vec::new());
        for output in self.node.poll_outputs() {
            match output {
                Output::Transmit(transmit) => {
                    assert!(transmit.segment_size > 0 && !transmit.contents.is_empty());
                    assert!(transmit.contents.len() <= transmit.segment_size * 128);
                    let datagrams = transmit.contents.chunks(transmit.segment_size);
                    sent.extend(datagrams.map(|datagram| (transmit.destination, datagram.to_vec())));
                }
                Output::Packet(packet) => {
                    delivered.push((packet.header, packet.parts().flatten().copied().collect()));
                }
                Output::Event(_) | Output::Foreign(_) => {}
                Output::Timeout(at) => assert!(at.is_none_or(|at| at > self.now), "a shell would never sleep"),
            }
        }
        (sent, delivered)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.node.handle_timeout(self.now);
    }

    /// Checks that the node still accepts data from the peer.
    pub(super) fn is_alive(&mut self) {
        let packet = Ends::new(THEIRS.0, OURS.0).udp_between(4_000, 53, b"still here");
        let message = self.session.seal(&packet);
        self.hear(home(), &message, message.len());
        let (_, delivered) = self.drain();
        assert!(delivered == [(VirtioHeader::NONE, packet)], "the session is dead");
    }
}

fn hear(node: &mut Node, source: SocketAddr, contents: &[u8], stride: usize, now: Instant) {
    let via = Via::to(Ipv4Addr::new(192, 0, 2, 1).into(), 1);
    node.handle_udp(&UdpTrain { contents, stride, source, via, ecn: 0 }, now);
}

/// Builds a packet from the input: arbitrary bytes, or arbitrary bytes behind a valid header. `ends` has both families.
pub(super) fn packet_from(input: &mut Input<'_>, ends: [Ends; 2]) -> Vec<u8> {
    let shape = input.byte();
    let protocol = input.byte();
    let mut bytes = input.part().to_vec();
    if shape & 0x10 != 0 {
        // Makes large packets from few bytes.
        let long = bytes.len() * 16;
        bytes = bytes.iter().copied().cycle().take(long.min(65_000)).collect();
    }
    let mut packet = match shape % 4 {
        0 => bytes,
        1 => ends[0].ip(protocol, &bytes),
        2 => ends[1].ip(protocol, &bytes),
        _ => {
            let mut packet = ends[0].ip(protocol, &bytes);
            packet[6] &= !0x40;
            packet
        }
    };
    if shape & 0x20 != 0 {
        input.edit(&mut packet);
    }
    packet
}

/// The packets that the local kernel makes of a delivered one.
pub(super) fn kernel_takes((header, packet): &Delivered) -> Vec<Vec<u8>> {
    if header.segmentation == Segmentation::None {
        let mut packet = packet.clone();
        offload::complete_checksum(header, &mut packet).expect("a header that fits its packet");
        assert_eq!(Packet::parse(&packet).expect("a whole packet").len(), packet.len());
        return vec![packet];
    }
    let train = SuperPacket::parse(header, packet).expect("a whole super-packet");
    (0..train.segments())
        .map(|index| {
            let mut segment = vec![0; train.segment_len(index)];
            train.write_segment(index, &mut segment);
            segment
        })
        .collect()
}
