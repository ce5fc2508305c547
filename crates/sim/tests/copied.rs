//! A node that was copied while it ran uses nothing that its copy has, too.

use std::collections::BTreeSet;

use overlay_core::Command;
use overlay_sim::{HostId, Kind, World, millis, seconds};

fn copied(world: &mut World, host: HostId) {
    world.command(host, Command::Copied { seed: [9; 32].into() }).expect("always possible");
}

/// The receiver indices of the data messages that a host has sent.
fn receivers(world: &World, host: HostId) -> BTreeSet<[u8; 4]> {
    let index = |contents: &[u8]| contents[4..8].try_into().expect("a data message");
    world.sent_by(host, Kind::Data).map(|sent| index(&sent.bytes)).collect()
}

#[test]
fn its_sessions_end_and_its_peers_are_called() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    assert!(world.ping(alice, bob).is_some());
    let before = receivers(&world, alice);
    world.forget();
    copied(&mut world, alice);
    world.run_for(millis(100));
    assert_eq!(
        (world.handshakes(alice, bob), world.count(alice, Kind::Initiation)),
        (2, 1),
        "without a packet that wants it"
    );
    assert_eq!(world.ping(bob, alice), Some(millis(20)), "the peer has the new session");
    assert!(receivers(&world, alice).is_disjoint(&before));
}

#[test]
fn a_handshake_under_way_is_given_up() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.send(alice, world.v4(alice, bob).udp(b"waits"));
    // The initiation has arrived, and its answer is under way. The other copy may take it.
    world.run_for(millis(15));
    copied(&mut world, alice);
    // A peer takes one initiation in 20 ms, so the second one is repeated.
    world.run_for(seconds(6));
    assert_eq!(world.count(alice, Kind::Initiation), 3);
    assert_eq!(world.handshakes(alice, bob), 1);
    assert_eq!(world.received(bob).len(), 1, "the packet has waited");
    let indices: BTreeSet<_> = world.sent_by(alice, Kind::Initiation).map(|sent| sent.bytes[4..8].to_vec()).collect();
    assert_eq!(indices.len(), 3, "the answer to one of them is no answer to the other");
}

#[test]
fn a_peer_that_was_not_connected_is_left_alone() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    copied(&mut world, alice);
    world.run_for(seconds(10));
    assert_eq!(world.count(alice, Kind::Initiation), 0);
    assert!(world.ping(bob, alice).is_some());
}
