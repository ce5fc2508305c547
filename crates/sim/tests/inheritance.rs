//! Inner addresses that change hands: the flows of the peer that had an address are not those of the peer that has it next.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, PeerChange, PeerFlows, Protocol, Rule};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, Outsider, World};

fn udp(ports: Option<u16>) -> Rule {
    Rule { protocol: Protocol::Udp, ports: ports.map(|port| port..=port) }
}

/// UDP port 53 is in use.
fn ports() -> Command {
    Command::HostPorts { taken: vec![53], ephemeral: 32_768..=60_999 }
}

fn data(ends: Ends, from: u16, to: u16) -> Vec<u8> {
    ends.udp_between(from, to, b"more of it")
}

#[test]
fn a_peer_that_inherits_an_address_inherits_no_flow_of_it() {
    let mut world = World::new(7);
    let alice = world.host();
    let wide = "10.99.0.0/24".parse().unwrap();
    let mut mallory =
        world.outsider_with(alice, |peer| (peer.allowed_ips, peer.allow) = (vec![wide], Some(Vec::new())));
    let narrow = "10.99.0.5/32".parse().unwrap();
    let mut bob =
        world.outsider_with(alice, |peer| (peer.allowed_ips, peer.allow) = (vec![narrow], Some(vec![udp(Some(53))])));
    let mut from_mallory = world.connect(&mut mallory);
    let mut from_bob = world.connect(&mut bob);
    let ends = Ends::new(Ipv4Addr::new(10, 99, 0, 5), world.v4(alice, alice).source);
    world.inject(bob.address, alice, &from_bob.seal(&data(ends, 4_000, 53)));
    assert_eq!(world.received(alice).len(), 1);
    // What a reload does where bob is no longer in the file.
    world.command(alice, ports()).unwrap();
    world.remove_peer(alice, bob.key());
    // The service goes on with what it was asked.
    world.send(alice, data(ends.reversed(), 53, 4_000));
    world.inject(mallory.address, alice, &from_mallory.seal(&data(ends, 4_000, 53)));
    assert_eq!(world.received(alice).len(), 1, "mallory may open nothing, and alice only answered bob");
}

#[test]
fn flows_handed_over_say_nothing_of_other_addresses() {
    let mut world = World::new(7);
    let alice = world.host();
    // A start, as `device.rs` does it: ports, peers, flows. 10.99.0.5 was bob's before, who was allowed udp/53.
    world.command(alice, ports()).unwrap();
    let narrow = "10.99.0.5/32".parse().unwrap();
    let mut mallory =
        world.outsider_with(alice, |peer| (peer.allowed_ips, peer.allow) = (vec![narrow], Some(Vec::new())));
    let former = PeerFlows {
        peer: mallory.key(),
        flows: Vec::new(),
        is_complete: true,
        prefixes: Vec::new(),
        holes: Vec::new(),
    };
    world.command(alice, Command::RestoreFlows(former)).unwrap();
    let mut from_mallory = world.connect(&mut mallory);
    let ends = Ends::new(Ipv4Addr::new(10, 99, 0, 5), world.v4(alice, alice).source);
    world.send(alice, data(ends.reversed(), 53, 4_000));
    world.inject(mallory.address, alice, &from_mallory.seal(&data(ends, 4_000, 53)));
    assert_eq!(world.received(alice).len(), 0, "mallory may open nothing, and alice only answered bob");
}

/// Alice, who has mallory as 10.99.0.0/24, which may open nothing, and bob as one address in it.
fn nested(world: &mut World) -> (HostId, Outsider, Outsider) {
    let alice = world.host();
    world.command(alice, ports()).expect("ports");
    let (wide, narrow) = (net("10.99.0.0/24"), net("10.99.0.5/32"));
    let mallory = world.outsider_with(alice, |peer| (peer.allowed_ips, peer.allow) = (vec![wide], Some(Vec::new())));
    let rules = Some(vec![udp(Some(53))]);
    let bob = world.outsider_with(alice, |peer| (peer.allowed_ips, peer.allow) = (vec![narrow], rules));
    (alice, mallory, bob)
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// Whether mallory's data gets in after alice's service has sent to bob's former address.
fn gets_in(world: &mut World, alice: HostId, mallory: &mut Outsider) -> bool {
    let mut session = world.connect(mallory);
    let ends = Ends::new(Ipv4Addr::new(10, 99, 0, 5), world.v4(alice, alice).source);
    let before = world.received(alice).len();
    world.send(alice, data(ends.reversed(), 53, 4_000));
    world.inject(mallory.address, alice, &session.seal(&data(ends, 4_000, 53)));
    world.received(alice).len() > before
}

#[test]
fn a_prefix_that_is_taken_away_is_doubtful_for_its_heir() {
    for by_change in [false, true] {
        let mut world = World::new(7);
        let (alice, mut mallory, bob) = nested(&mut world);
        // What was in doubt when the peers were added no longer is.
        world.run_for(overlay_sim::minutes(3));
        world.command(alice, ports()).expect("ports");
        if by_change {
            let mut change = PeerChange::of(world.tag(alice, bob.key()));
            change.allowed_ips = vec![AllowedIpChange::Remove(net("10.99.0.5/32"))];
            world.command(alice, Command::ChangePeer(Box::new(change))).expect("the peer is there");
        } else {
            world.set_allowed_ips(alice, bob.key(), vec![net("10.98.0.5/32")]);
        }
        assert!(!gets_in(&mut world, alice, &mut mallory), "by change: {by_change}");
    }
}

#[test]
fn flows_handed_over_tell_of_the_same_addresses_only() {
    for (prefixes, holes, is_told) in [
        (vec!["10.99.0.0/24"], vec![], true),
        (vec!["10.99.0.0/24"], vec!["10.99.0.5/32"], false),
        (vec!["10.99.0.5/32"], vec![], false),
    ] {
        let mut world = World::new(7);
        let (alice, mut mallory, bob) = nested(&mut world);
        world.remove_peer(alice, bob.key());
        let nets = |texts: Vec<&str>| texts.into_iter().map(net).collect();
        let (prefixes, holes) = (nets(prefixes), nets(holes));
        let former = PeerFlows { peer: mallory.key(), flows: Vec::new(), is_complete: true, prefixes, holes };
        world.command(alice, Command::RestoreFlows(former)).expect("a peer");
        assert_eq!(gets_in(&mut world, alice, &mut mallory), is_told);
    }
}

#[test]
fn what_a_node_hands_over_names_prefixes_and_holes() {
    let mut world = World::new(7);
    let (alice, mallory, _) = nested(&mut world);
    let known = world.known_flows(alice);
    let of_mallory = known.iter().find(|known| known.peer == mallory.key()).expect("it has an allowlist");
    assert_eq!(of_mallory.prefixes, [net("10.99.0.0/24")]);
    assert_eq!(of_mallory.holes, [net("10.99.0.5/32")]);
}
