//! The MTU of a path, found by two nodes that know nothing of it: nothing that is sent disappears in it.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::{Event, MtuLimit, PathMtu, PathMtuState, ProbedBy};
use overlay_sim::{HostId, HostOptions, World, seconds};

/// Bytes around an inner packet: IPv4, UDP, WireGuard.
const AROUND_V4: usize = 60;
/// The same over IPv6.
const AROUND_V6: usize = 80;
/// Outer MTUs that there are.
const PATHS: [usize; 9] = [1_280, 1_296, 1_368, 1_400, 1_420, 1_480, 1_492, 1_500, 9_000];

/// Two nodes that take packets of 8,940 bytes, on a path that carries outer packets of `mtu` bytes and is silent about it.
fn pair(mtu: usize, is_v4: bool) -> (World, HostId, HostId) {
    let mut world = World::new(11);
    let options = || HostOptions { mtu: 1420, max_mtu: 8_940, mtu_discovery: true, ..HostOptions::default() };
    let (alice, bob) = (world.host_with(options()), world.host_with(options()));
    for (host, peer) in [(alice, bob), (bob, alice)] {
        let outer = *world.outer(peer).iter().find(|address| address.is_ipv4() == is_v4).expect("both families");
        world.set_peer(host, peer, |config| config.endpoint = Some(outer));
    }
    world.all_links(|link| link.mtu = mtu);
    (world, alice, bob)
}

/// What `host` last said of the path to its peer.
fn path_mtu(world: &World, host: HostId) -> Option<PathMtu> {
    world.events(host).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(_, path_mtu) => Some(*path_mtu),
        _ => None,
    })
}

fn is_found(world: &World, host: HostId) -> bool {
    path_mtu(world, host).is_some_and(|known| known.state == PathMtuState::Found)
}

#[test]
fn the_mtu_of_every_path_is_found_within_seconds_and_never_above_the_truth() {
    for mtu in PATHS {
        for (is_v4, around) in [(true, AROUND_V4), (false, AROUND_V6)] {
            let (mut world, alice, bob) = pair(mtu, is_v4);
            world.ping(alice, bob).expect("an answer");
            let began = world.elapsed();
            let is_over = world.run_until(seconds(10), |world| is_found(world, alice) && is_found(world, bob));
            assert!(is_over, "{mtu} {is_v4}: {:?} {:?}", path_mtu(&world, alice), path_mtu(&world, bob));
            let took = world.elapsed() - began;
            assert!(took < Duration::from_secs(6), "{mtu} {is_v4}: {took:?}");
            let truth = (mtu - around).min(8_940);
            for host in [alice, bob] {
                let known = path_mtu(&world, host).expect("found");
                let found = usize::from(known.mtu);
                assert!(found <= truth && truth - found <= 16, "{found} of {truth}");
                assert_eq!(known.probed_by, ProbedBy::ControlFrames);
                let limit = if truth == 8_940 { MtuLimit::Interface } else { MtuLimit::Path };
                assert_eq!(known.limit, limit, "{mtu} {is_v4}");
            }
        }
    }
}

#[test]
fn where_the_path_carries_the_most_packets_are_never_held_to_less() {
    let (mut world, alice, bob) = pair(9_000, true);
    world.ping(alice, bob).expect("an answer");
    assert!(world.run_until(seconds(1), |world| is_found(world, alice) && is_found(world, bob)));
    for host in [alice, bob] {
        let said = world.events(host).iter().filter_map(|(_, event)| match event {
            Event::PathMtu(_, known) => Some(known.mtu),
            _ => None,
        });
        assert_eq!(said.collect::<BTreeSet<_>>(), BTreeSet::from([1_420, 8_940]));
    }
}

#[test]
fn who_moves_to_a_wider_path_finds_it_though_only_the_peer_notices() {
    for is_v4 in [true, false] {
        let (mut world, alice, bob) = pair(1_280, is_v4);
        world.ping(alice, bob).expect("an answer");
        assert!(world.run_until(seconds(10), |world| is_found(world, alice) && is_found(world, bob)));
        world.all_links(|link| link.mtu = 1_500);
        world.roam(alice, &["198.51.100.9:51820", "[2001:db8:99::9]:51820"]);
        world.ping(alice, bob).expect("an answer");
        let truth = 1_500 - if is_v4 { AROUND_V4 } else { AROUND_V6 };
        let is_wide = |world: &World, host| {
            is_found(world, host) && path_mtu(world, host).is_some_and(|known| usize::from(known.mtu) == truth)
        };
        let is_over = world.run_until(seconds(10), |world| is_wide(world, alice) && is_wide(world, bob));
        assert!(is_over, "{is_v4}: {:?} {:?}", path_mtu(&world, alice), path_mtu(&world, bob));
    }
}
