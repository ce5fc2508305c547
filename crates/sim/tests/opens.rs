//! What we may open at a peer is refused here, at once and by name, before it leaves.

use overlay_core::{Command, Protocol, Rule};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, World, seconds};
use overlay_wire::icmp;
use overlay_wire::ip::{Packet, TCP, Version};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn segment(ends: Ends, from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    ends.ip(TCP, &[&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]].concat())
}

fn tcp(port: u16) -> Rule {
    Rule { protocol: Protocol::Tcp, ports: Some(port..=port) }
}

/// Alice may open tcp/80 at bob, and bob may open tcp/22 and udp/53 at alice.
fn scene() -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| {
        peer.opens = Some(vec![tcp(80)]);
        peer.allow = Some(vec![tcp(22), Rule { protocol: Protocol::Udp, ports: Some(53..=53) }]);
    });
    world.run_for(seconds(1));
    (world, alice, bob)
}

/// The type and code of the ICMP errors that came back into alice's TUN since the last call.
fn errors(world: &mut World, host: HostId) -> Vec<(u8, u8)> {
    let errors = world
        .received(host)
        .iter()
        .filter_map(|received| {
            let packet = Packet::parse(&received.packet).ok()?;
            let at = if packet.version() == Version::V4 { 20 } else { 40 };
            let kind = *received.packet.get(at)?;
            icmp::is_error(packet.version(), kind).then(|| (kind, received.packet[at + 1]))
        })
        .collect();
    world.forget();
    errors
}

#[test]
fn what_the_peer_does_not_grant_is_refused_here_and_nothing_is_sent() {
    let (mut world, alice, bob) = scene();
    // Bob may not ping, but now there is a session.
    world.ping(bob, alice);
    world.forget();
    for (ends, prohibited) in [(world.v4(alice, bob), (3, 13)), (world.v6(alice, bob), (1, 1))] {
        for packet in
            [segment(ends, 40_000, 443, SYN), ends.udp_between(40_000, 80, b"hello"), ends.echo_request(1, 1, b"ping")]
        {
            world.send(alice, packet);
            assert!(world.sent().is_empty(), "not even a handshake");
            assert_eq!(errors(&mut world, alice), [prohibited]);
        }
        world.send(alice, segment(ends, 40_000, 80, SYN));
        assert_eq!(errors(&mut world, alice), []);
    }
    assert_eq!(world.drops(alice).get("not_allowed"), Some(&7), "six packets, and bob's ping");
}

#[test]
fn answers_to_what_the_peer_may_open_pass() {
    let (mut world, alice, bob) = scene();
    let ends = world.v4(alice, bob);
    for packet in [
        segment(ends, 22, 50_000, SYN | ACK),
        segment(ends, 22, 50_000, ACK),
        segment(ends, 40_000, 443, ACK),
        ends.udp_between(53, 50_000, b"an answer"),
    ] {
        world.send(alice, packet);
        assert_eq!(errors(&mut world, alice), []);
    }
    assert_eq!(world.drops(alice).get("not_allowed"), None);
}

#[test]
fn an_address_of_the_pool_that_is_nobodys_is_prohibited() {
    let mut world = World::new(7);
    let alice = world.host();
    world.command(alice, Command::SetPools(vec!["10.64.0.0/16".parse().expect("a prefix")])).expect("never refused");
    let source = world.v4(alice, alice).source;
    for (destination, expected) in [([10, 64, 3, 4], (3, 13)), ([10, 65, 3, 4], (3, 1))] {
        world.send(alice, Ends::new(source, std::net::IpAddr::from(destination)).udp(b"who is there"));
        assert_eq!(errors(&mut world, alice), [expected]);
    }
}
