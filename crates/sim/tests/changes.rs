//! Partial changes of a peer: the named fields change at once, and nothing else changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, CommandError, PeerChange, PeerKey};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, Kind, World, millis, minutes, seconds};

fn change(world: &mut World, host: HostId, peer: HostId, edit: impl FnOnce(&mut PeerChange)) {
    let mut change = PeerChange::of(world.tag(host, world.key(peer)));
    edit(&mut change);
    world.command(host, Command::ChangePeer(Box::new(change))).expect("the peer is there");
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// How many packets `to` receives when `from` sends one to this address.
fn arrivals(world: &mut World, from: HostId, to: HostId, address: [u8; 4]) -> usize {
    let before = world.received(to).len();
    let ends = Ends::new(world.v4(from, to).source, Ipv4Addr::from(address));
    world.send(from, ends.udp(b"x"));
    world.run_for(seconds(1));
    world.received(to).len() - before
}

#[test]
fn a_change_of_nothing_changes_nothing() {
    let (mut world, alice, bob) = World::connected();
    change(&mut world, alice, bob, |_| {});
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.count(alice, Kind::Initiation), 1);
}

#[test]
fn a_peer_is_added_only_when_that_is_said() {
    let mut world = World::new(7);
    let alice = world.host();
    let bob = world.host();
    let (tag, key) = (world.tag_for(alice, world.key(bob)), world.key(bob));
    let unknown = PeerChange::of(tag);
    assert_eq!(world.command(alice, Command::ChangePeer(Box::new(unknown))), Err(CommandError::UnknownPeer));
    let added = PeerChange {
        add: Some((key, Arc::default())),
        endpoint: Some(world.outer(bob)[0]),
        allowed_ips: vec![AllowedIpChange::Add(net("10.77.0.2/32"))],
        ..PeerChange::of(tag)
    };
    world.command(alice, Command::ChangePeer(Box::new(added))).expect("a new peer");
    world.set_peer(bob, alice, |_| {});
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
}

#[test]
fn prefixes_come_move_and_go_one_by_one() {
    let (mut world, alice, bob) = World::connected();
    let carol = world.host();
    world.introduce(alice, carol);
    assert!(world.ping(alice, carol).is_some());
    // Both hosts accept any destination that alice sends to.
    for host in [bob, carol] {
        world
            .command(host, Command::SetAddresses { addresses: Vec::new(), forward: true })
            .expect("addresses are never refused");
    }
    let (wide, narrow) = (net("10.99.0.0/16"), net("10.99.0.1/32"));
    change(&mut world, alice, bob, |change| change.allowed_ips = vec![AllowedIpChange::Add(wide)]);
    assert_eq!(arrivals(&mut world, alice, bob, [10, 99, 0, 1]), 1);
    change(&mut world, alice, carol, |change| change.allowed_ips = vec![AllowedIpChange::Add(narrow)]);
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 1]), 1, "the longest prefix wins");
    // The prefix is not bob's, so removing it from bob has no effect.
    change(&mut world, alice, bob, |change| change.allowed_ips = vec![AllowedIpChange::Remove(narrow)]);
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 1]), 1);
    // Host bits are ignored: it is the same prefix.
    let again = AllowedIpChange::Add(net("10.99.7.7/16"));
    change(&mut world, alice, carol, |change| change.allowed_ips = vec![again]);
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 2]), 1, "it moved");
    change(&mut world, alice, bob, |change| change.allowed_ips = vec![AllowedIpChange::Remove(wide)]);
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 2]), 1, "it is not bob's any more");
    change(&mut world, alice, carol, |change| {
        change.allowed_ips = vec![AllowedIpChange::Add(narrow), AllowedIpChange::Remove(narrow)];
    });
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 1]), 1, "by the wider one");

    // Removing bob does not remove the prefix that moved to carol.
    world.remove_peer(alice, world.key(bob));
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 2]), 1);
    world.remove_peer(alice, world.key(carol));
    assert_eq!(arrivals(&mut world, alice, carol, [10, 99, 0, 2]), 0);
}

#[test]
fn an_endpoint_that_is_set_counts_in_a_session_that_is_alive() {
    let (mut world, alice, bob) = World::connected();
    let v6 = world.outer(bob)[1];
    change(&mut world, alice, bob, |change| change.endpoint = Some(v6));
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"by IPv6"));
    world.run_for(seconds(1));
    assert_eq!(world.sent_by(alice, Kind::Data).map(|sent| sent.destination).collect::<Vec<_>>(), [v6]);
    assert_eq!(world.count(alice, Kind::Initiation), 0);
}

#[test]
fn persistent_keepalive_begins_when_it_is_switched_on_and_ends_when_it_is_switched_off() {
    let (mut world, alice, bob) = World::connected();
    world.run_for(seconds(20));
    world.forget();
    change(&mut world, alice, bob, |change| change.persistent_keepalive = Some(Some(seconds(30))));
    assert_eq!(world.count(alice, Kind::Keepalive), 1, "at once");
    change(&mut world, alice, bob, |change| change.persistent_keepalive = Some(Some(seconds(40))));
    assert_eq!(world.count(alice, Kind::Keepalive), 1, "it is on already");
    world.run_for(seconds(41));
    assert_eq!(world.count(alice, Kind::Keepalive), 2);
    change(&mut world, alice, bob, |change| change.persistent_keepalive = Some(None));
    world.forget();
    world.run_for(minutes(10));
    assert!(world.sent().is_empty());
}

#[test]
fn persistent_keepalive_calls_a_peer_without_a_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    change(&mut world, alice, bob, |change| change.persistent_keepalive = Some(Some(seconds(30))));
    world.run_for(seconds(1));
    assert_eq!(world.handshakes(alice, bob), 1);
}

#[test]
fn a_change_needs_no_other_peer_to_be_named() {
    let (mut world, alice, bob) = World::connected();
    let strangers: Vec<_> = (1..=200u8).map(|byte| PeerKey([byte; 32])).collect();
    for (n, key) in (0..).zip(&strangers) {
        let prefix = IpNet::from(std::net::IpAddr::from([10, 80, 0, n]));
        let added = PeerChange {
            add: Some((*key, Arc::default())),
            allowed_ips: vec![AllowedIpChange::Add(prefix)],
            ..PeerChange::of(world.tag_for(alice, *key))
        };
        world.command(alice, Command::ChangePeer(Box::new(added))).expect("a new peer");
    }
    for key in strangers {
        world.command(alice, Command::RemovePeer(world.tag(alice, key))).expect("it is there");
    }
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
}
