//! What a peer may say about packets that did not go to it, and what a flow of ours opens to it.

use overlay_core::{Protocol, Rule};
use overlay_sim::World;
use overlay_sim::packet::Ends;
use overlay_wire::checksum;

#[test]
fn a_peer_reports_nothing_about_packets_of_a_different_peer() {
    for allow in [None, Some(vec![Rule { protocol: Protocol::Icmp, ports: None }])] {
        let mut world = World::new(7);
        let alice = world.host();
        let mut mallory = world.outsider_with(alice, |peer| peer.allow = allow.clone());
        let bob = world.outsider(alice);
        let mut session = world.connect(&mut mallory);
        let quoted = world.from_outsider(&bob).reversed().udp_between(51_820, 51_820, &[0; 100]);
        let mut error = vec![3, 4, 0, 0, 0, 0, 2, 40];
        error.extend(&quoted[..28]);
        let sum = checksum::finish(checksum::sum(&error));
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = world.from_outsider(&mallory).ip(1, &error);
        world.inject(mallory.address, alice, &session.seal(&packet));
        assert_eq!(world.received(alice).len(), 0, "{allow:?}");
    }
}

#[test]
fn an_sctp_dccp_or_udp_lite_flow_opens_no_other_port() {
    for protocol in [33, 132, 136] {
        let mut world = World::new(7);
        let alice = world.host();
        let mut mallory = world.outsider_with(alice, |peer| peer.allow = Some(Vec::new()));
        let mut from_mallory = world.connect(&mut mallory);
        let ends = world.from_outsider(&mallory);
        let packet = |ends: Ends, from: u16, to: u16| {
            ends.ip(protocol, &[&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 20]].concat())
        };
        world.send(alice, packet(ends.reversed(), 40_000, 3_868));
        world.inject(mallory.address, alice, &from_mallory.seal(&packet(ends, 3_868, 40_000)));
        assert_eq!(world.received(alice).len(), 1, "the answer");
        world.inject(mallory.address, alice, &from_mallory.seal(&packet(ends, 666, 22)));
        assert_eq!(world.received(alice).len(), 1, "{protocol}: a different port");
    }
}
