//! A node, and a kernel that hands it arbitrary packets with arbitrary virtio headers.

use overlay_core::{Joins, Protocol, Rule};
use overlay_wire::ip::{Packet, Version};
use overlay_wire::offload::{VIRTIO_HEADER_LEN, VirtioHeader};

use super::Input;
use super::node::{OURS, Options, Scene, THEIRS, home, kernel_takes, packet_from};
use crate::packet::Ends;

/// Passes arbitrary packets from TUN to the node. Each datagram sent must open and hold one whole packet that fits,
/// padded with zeros. Packets that come back must be whole too. The session must survive.
pub fn node_tun(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let mtu = [576, 1_280, 1_420, 65_535][usize::from(how % 4)];
    let mut scene = Scene::new(Options {
        mtu,
        joins: Joins::NOTHING,
        knows_addresses: how & 4 != 0,
        allow: (how & 8 != 0).then(|| vec![Rule { protocol: Protocol::Udp, ports: Some(53..=53) }]),
        mtu_discovery: false,
        finds_paths: false,
    });
    let ends = [Ends::new(OURS.0, THEIRS.0), Ends::new(OURS.1, THEIRS.1)];
    while !input.is_empty() {
        let header = VirtioHeader::decode(input.take(VIRTIO_HEADER_LEN)).unwrap_or(VirtioHeader::NONE);
        let mut packet = packet_from(&mut input, ends);
        let now = scene.now;
        scene.node.handle_tun(&header, &mut packet, now);
        let (sent, delivered) = scene.drain();
        for (destination, message) in &sent {
            assert_eq!(*destination, home());
            let plaintext = scene.session.open(message).expect("data of this session").plaintext;
            let packet = Packet::parse(&plaintext).expect("a whole packet");
            // IPv6 packets up to its minimum MTU are sent whole, whatever the tunnel's MTU.
            let most = if packet.version() == Version::V6 { mtu.max(1_280) } else { mtu };
            assert!(packet.len() <= usize::from(most), "{} bytes", packet.len());
            let padded = packet.len().next_multiple_of(16).min(usize::from(mtu)).max(packet.len());
            assert_eq!(plaintext.len(), padded);
            assert!(plaintext[packet.len()..].iter().all(|byte| *byte == 0));
        }
        for answer in delivered.iter().flat_map(kernel_takes) {
            assert!(answer.len() <= 1_280, "an ICMP error");
        }
    }
    scene.is_alive();
}
