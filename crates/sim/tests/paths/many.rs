//! A node with many peers, none of which is there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{Command, PeerConfig, PeerKey, Remote};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, World, millis, minutes, seconds};
use overlay_wire::relay::{Channel, open_data};

const RELAY: &str = "203.0.113.9:7447";

/// The inner address of a peer.
fn inner(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a4d_0000 + 256 + number).into()
}

/// Alice with so many peers. The number of each is its channel at the one relay, which forwards nothing.
fn alice_with_peers(world: &mut World, count: u32) -> HostId {
    let alice = world.host();
    let relay: SocketAddr = RELAY.parse().expect("an address");
    world.command(alice, Command::SetRelays(vec![relay])).expect("one relay");
    for number in 1..=count {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let config = PeerConfig {
            allowed_ips: vec![IpNet::from(inner(number))],
            finds_paths: true,
            mtu_discovery: true,
            persistent_keepalive: Some(seconds(25)),
            ..PeerConfig::of(PeerKey(key))
        };
        world.configure(alice, config).expect("a good peer");
        let channel = Channel::new(number).expect("24 bits");
        let remote = Remote { relayed: vec![(relay, channel)], ..Remote::default() };
        let peer = world.tag(alice, PeerKey(key));
        world.command(alice, Command::SetRemote { peer, remote }).expect("it is there");
    }
    alice
}

/// How many datagrams went to this peer so far.
fn sent_to(world: &World, number: u32) -> usize {
    let channels = world.sent().iter().filter_map(|sent| open_data(&sent.bytes));
    channels.filter(|(channel, _)| channel.number() == number).count()
}

#[test]
fn a_thousand_peers_that_are_not_used_cost_nothing() {
    let mut world = World::new(1);
    let alice = alice_with_peers(&mut world, 1_000);
    let before = world.wakeups(alice);
    world.run_for(minutes(10));
    assert_eq!(world.sent().len(), 0);
    assert!(world.wakeups(alice) - before <= 10, "{} wake-ups", world.wakeups(alice) - before);
}

#[test]
fn calls_that_go_unanswered_keep_no_first_call_from_leaving_at_once() {
    const PEERS: u32 = 450;
    let mut world = World::new(1);
    let alice = alice_with_peers(&mut world, PEERS);
    let own = world.v4(alice, alice).source;
    // The limit counts by seconds of the node's clock.
    world.run_for(millis(1_000 - (world.now().since_start().as_millis() % 1_000) as u64));
    for number in 1..=PEERS {
        if number == PEERS {
            // By now all others have been called twice more.
            world.run_for(millis(600));
        }
        world.send(alice, Ends::new(own, inner(number)).udp(b"hello"));
        assert_eq!(sent_to(&world, number), 1, "peer {number}");
    }
    assert!(world.stats(alice).path_probes_withheld.value() > 0, "the repetitions have met the limit");
}
