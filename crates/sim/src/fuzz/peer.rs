//! A node, and a peer with valid keys that chooses every inner byte.

use std::time::Duration;

use overlay_core::{Joins, Protocol, Rule};
use overlay_wire::control::{self, Abilities, Frame, MIN_PROBE_LEN};
use overlay_wire::ip::{IPV6_HEADER_LEN, Packet};

use super::Input;
use super::node::{OURS, Options, Scene, THEIRS, home, kernel_takes, packet_from};
use crate::packet::Ends;

/// The most pauses of 700 ms, so that the session does not expire.
const MAX_PAUSES: usize = 100;

/// Passes arbitrary packets of a peer to the node, alone and in trains. A delivered packet must be whole, come from the
/// peer's own addresses, be meant for us, and be one that the kernel can cut. The session must survive.
pub fn node_peer(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let dns = Rule { protocol: Protocol::Udp, ports: Some(53..=53) };
    let high = Rule { protocol: Protocol::Tcp, ports: Some(1..=0x7fff) };
    let icmp = Rule { protocol: Protocol::Icmp, ports: None };
    let mut scene = Scene::new(Options {
        mtu: 1420,
        joins: Joins { tcp: how & 1 != 0, udp: how & 2 != 0 },
        knows_addresses: true,
        allow: (how & 4 != 0).then(|| vec![dns, high, icmp]),
        mtu_discovery: how & 8 != 0,
        finds_paths: how & 16 != 0,
    });
    let ends = [Ends::new(THEIRS.0, OURS.0), Ends::new(THEIRS.1, OURS.1)];
    let mut train: Vec<Vec<u8>> = Vec::new();
    let (mut asked, mut pauses) = (0, 0);
    while !input.is_empty() {
        let then = input.byte();
        let plaintext = plaintext_from(&mut input, ends);
        asked += usize::from(control::is_control(&plaintext));
        let message = scene.session.seal_as_is(scene.session.next_counter, &plaintext);
        scene.session.next_counter += 1;
        // Datagrams of the same length travel as a train if the input says so.
        if then.is_multiple_of(4) || train.last().is_some_and(|last| last.len() != message.len()) {
            arrive(&mut scene, &mut train);
        }
        train.push(message);
        if then % 8 < 4 {
            arrive(&mut scene, &mut train);
            look(&mut scene, std::mem::take(&mut asked));
        }
        if then & 0x80 != 0 && pauses < MAX_PAUSES {
            pauses += 1;
            // In this time probes time out, and so do packets that lack fragments.
            scene.pass(Duration::from_millis(700));
            scene.drain();
        }
    }
    arrive(&mut scene, &mut train);
    look(&mut scene, asked);
    scene.is_alive();
}

/// Builds a packet or a control frame. The frame is valid, or has arbitrary bytes in place of its TLVs.
fn plaintext_from(input: &mut Input<'_>, ends: [Ends; 2]) -> Vec<u8> {
    if input.0.first().is_none_or(|shape| *shape < 0xc0) {
        return packet_from(input, ends);
    }
    input.byte();
    let kind = input.byte() % 8;
    let bytes = input.part();
    let mut rest = Input::new(bytes);
    let (id, first, second) = (u32::from(rest.byte()), rest.word(), rest.word());
    let understands = Abilities(first);
    let frame = match kind {
        0 => Frame::Hello { nonce: id, understands, mtu: second },
        1 => Frame::HelloReply { nonce: id, understands, mtu: second },
        // The most that a session can carry.
        2 => Frame::Probe { id, size: first.min(65_000) },
        3 => Frame::ProbeReply { id, size: first },
        // A fragment whose offset and total contradict each other is refused like any other malformed frame.
        4 => Frame::Fragment { id, offset: first, total: second, bytes: rest.0 },
        5 => Frame::Word { bytes: rest.0 },
        6 => Frame::Parcel { bytes: rest.0 },
        _ => return around(bytes),
    };
    let mut packet = vec![0; frame.len()];
    frame.write(&mut packet);
    packet
}

/// The headers of a frame with these bytes as its TLVs. Its checksum is not valid, since none is checked.
fn around(tlvs: &[u8]) -> Vec<u8> {
    const HEADERS_LEN: usize = 48;
    let mut packet = vec![0; MIN_PROBE_LEN];
    Frame::Probe { id: 0, size: 0 }.write(&mut packet);
    packet.truncate(HEADERS_LEN);
    packet.extend(&tlvs[..tlvs.len().min(65_000)]);
    let len = ((packet.len() - IPV6_HEADER_LEN) as u16).to_be_bytes();
    packet[4..6].copy_from_slice(&len);
    packet[44..46].copy_from_slice(&len);
    packet
}

fn arrive(scene: &mut Scene, train: &mut Vec<Vec<u8>>) {
    if let Some(first) = train.first() {
        let stride = first.len();
        scene.hear(home(), &train.concat(), stride);
    }
    train.clear();
}

/// Checks what the node sends and delivers. `asked` is the number of control frames in the peer's last messages.
fn look(scene: &mut Scene, asked: usize) {
    let (sent, delivered) = scene.drain();
    // Each frame may be answered. A hello is also followed by a probe, which may leave only with the next datagram.
    assert!(sent.len() <= 2 * asked + 1, "{} answers to {asked} frames", sent.len());
    for packet in delivered.iter().flat_map(kernel_takes) {
        let packet = Packet::parse(&packet).expect("a whole packet");
        let (source, destination) = (packet.source(), packet.destination());
        assert!(source == THEIRS.0 || source == THEIRS.1, "from {source}");
        assert!(destination == OURS.0 || destination == OURS.1, "to {destination}");
    }
}
