//! Two nodes, the path between them, and what they know about it.

use overlay_core::{Event, PathMtu, PathMtuState};
use overlay_sim::{HostId, HostOptions, World, seconds};

/// The longest inner packet over Ethernet with jumbo frames, in bytes.
pub(crate) const MAX_MTU: u16 = 8_940;
/// The inner MTU that is assumed while nothing is known, in bytes.
pub(crate) const ASSUMED: u16 = 1_420;

/// How many bytes surround an inner packet.
pub(crate) fn around(is_v4: bool) -> usize {
    if is_v4 { 60 } else { 80 }
}

/// Options for a host that searches for the path MTU.
pub(crate) fn options() -> HostOptions {
    HostOptions { mtu: ASSUMED, max_mtu: MAX_MTU, mtu_discovery: true, ..HostOptions::default() }
}

/// Two nodes that know nothing yet, on a path that silently drops outer packets above `mtu` bytes.
pub(crate) fn pair(seed: u64, mtu: usize, is_v4: bool) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.host_with(options()), world.host_with(options()));
    acquaint(&mut world, alice, bob, is_v4);
    world.all_links(|link| link.mtu = mtu);
    (world, alice, bob)
}

/// Makes two hosts peers of each other over this family.
pub(crate) fn acquaint(world: &mut World, one: HostId, other: HostId, is_v4: bool) {
    for (host, peer) in [(one, other), (other, one)] {
        let outer = *world.outer(peer).iter().find(|address| address.is_ipv4() == is_v4).expect("both families");
        world.set_peer(host, peer, |config| config.endpoint = Some(outer));
    }
}

/// Like [`pair`], after both nodes have found the path MTU.
pub(crate) fn found_pair(seed: u64, mtu: usize, is_v4: bool) -> (World, HostId, HostId) {
    let (mut world, alice, bob) = pair(seed, mtu, is_v4);
    world.ping(alice, bob).expect("an answer");
    both_find(&mut world, alice, bob, mtu - around(is_v4));
    (world, alice, bob)
}

/// Waits until both have found `truth`, or at most 16 bytes less.
pub(crate) fn both_find(world: &mut World, alice: HostId, bob: HostId, truth: usize) {
    let truth = truth.min(MAX_MTU.into());
    let is_over = world.run_until(seconds(10), |world| {
        [(alice, bob), (bob, alice)].into_iter().all(|(host, peer)| has_found(world, host, peer, truth))
    });
    assert!(is_over, "{truth}: {:?} {:?}", path_mtu(world, alice, bob), path_mtu(world, bob, alice));
}

/// The path MTU that `host` last reported for `peer`.
pub(crate) fn path_mtu(world: &World, host: HostId, peer: HostId) -> Option<PathMtu> {
    let tag = world.tag(host, world.key(peer));
    world.events(host).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(of, path_mtu) if of.peer == tag => Some(*path_mtu),
        _ => None,
    })
}

/// All path MTUs that `host` has reported for `peer` since the records were cleared.
pub(crate) fn all_path_mtus(world: &World, host: HostId, peer: HostId) -> Vec<PathMtu> {
    let tag = world.tag(host, world.key(peer));
    let events = world.events(host).iter();
    let reported = events.filter_map(|(_, event)| match event {
        Event::PathMtu(of, path_mtu) if of.peer == tag => Some(*path_mtu),
        _ => None,
    });
    reported.collect()
}

/// Whether `host` has found `truth`, or at most 16 bytes less.
pub(crate) fn has_found(world: &World, host: HostId, peer: HostId, truth: usize) -> bool {
    path_mtu(world, host, peer).is_some_and(|known| {
        let mtu = usize::from(known.mtu);
        known.state == PathMtuState::Found && mtu <= truth && truth - mtu <= 16
    })
}
