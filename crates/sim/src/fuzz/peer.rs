//! A node, and a peer with good keys who chooses every inner byte.

use overlay_core::{Joins, Protocol, Rule};
use overlay_wire::ip::Packet;

use super::Input;
use super::node::{OURS, Options, Scene, THEIRS, home, kernel_takes, packet_from};
use crate::packet::Ends;

/// Any packets of a peer, alone and in trains: what is delivered is whole, the peer's own, for us, and such that the kernel
/// can cut it; and the session lives on.
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
    });
    let ends = [Ends::new(THEIRS.0, OURS.0), Ends::new(THEIRS.1, OURS.1)];
    let mut train: Vec<Vec<u8>> = Vec::new();
    while !input.is_empty() {
        let then = input.byte();
        let plaintext = packet_from(&mut input, ends);
        let message = scene.session.seal_as_is(scene.session.next_counter, &plaintext);
        scene.session.next_counter += 1;
        // Datagrams of one length travel together if the input says so.
        if then.is_multiple_of(4) || train.last().is_some_and(|last| last.len() != message.len()) {
            arrive(&mut scene, &mut train);
        }
        train.push(message);
        if then % 8 < 4 {
            arrive(&mut scene, &mut train);
            look(&mut scene);
        }
    }
    arrive(&mut scene, &mut train);
    look(&mut scene);
    scene.is_alive();
}

fn arrive(scene: &mut Scene, train: &mut Vec<Vec<u8>>) {
    if let Some(first) = train.first() {
        let stride = first.len();
        scene.hear(home(), &train.concat(), stride);
    }
    train.clear();
}

fn look(scene: &mut Scene) {
    let (sent, delivered) = scene.drain();
    assert!(sent.is_empty(), "nothing that a peer sends is answered at once");
    for packet in delivered.iter().flat_map(kernel_takes) {
        let packet = Packet::parse(&packet).expect("a whole packet");
        let (source, destination) = (packet.source(), packet.destination());
        assert!(source == THEIRS.0 || source == THEIRS.1, "from {source}");
        assert!(destination == OURS.0 || destination == OURS.1, "to {destination}");
    }
}
