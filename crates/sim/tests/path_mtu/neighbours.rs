//! Peers of one node behind paths of different widths, and a device that carries less than the maximum MTU.

use overlay_core::{MtuLimit, PathMtuState};
use overlay_sim::{HostOptions, World, millis, seconds};

use crate::flow::{Flow, errors, run};
use crate::scene::{MAX_MTU, acquaint, both_find, has_found, options, path_mtu};

#[test]
fn a_peer_behind_9000_gets_jumbo_packets_and_one_behind_1500_is_not_hurt() {
    let mut world = World::new(11);
    let [hub, wide, narrow] = [(); 3].map(|()| world.host_with(options()));
    acquaint(&mut world, hub, wide, true);
    acquaint(&mut world, hub, narrow, true);
    world.all_links(|link| link.mtu = 9_000);
    for (from, to) in [(hub, narrow), (narrow, hub)] {
        world.link(from, to, |link| link.mtu = 1_500);
    }
    world.ping(hub, wide).expect("an answer");
    world.ping(hub, narrow).expect("an answer");
    both_find(&mut world, hub, wide, 8_940);
    both_find(&mut world, hub, narrow, 1_440);
    world.forget();

    let mut flows = [
        Flow::new(&world, hub, wide, world.v4(hub, wide), 4_000, 8_940),
        Flow::new(&world, hub, narrow, world.v4(hub, narrow), 4_001, 1_440),
        Flow::new(&world, narrow, hub, world.v6(narrow, hub), 4_002, 1_440),
    ];
    run(&mut world, &mut flows, seconds(60));
    for flow in &flows {
        assert_eq!(flow.errors, []);
        assert!(flow.longest_gap < millis(100), "{:?}", flow.longest_gap);
    }
    assert_eq!(world.received(wide).iter().map(|received| received.packet.len()).max(), Some(8_940));
    // A sender of jumbo packets to the narrow peer is told at once, and sends smaller ones.
    let mut large = [Flow::new(&world, hub, narrow, world.v4(hub, narrow), 4_003, 8_940)];
    run(&mut world, &mut large, seconds(1));
    assert_eq!((large[0].size, large[0].errors.len()), (1_440, 1));
    assert!(large[0].longest_gap < millis(100));
    assert!(path_mtu(&world, hub, wide).is_none() && path_mtu(&world, hub, narrow).is_none(), "no news of either");
    assert_eq!(errors(&world, hub).len(), 1);
}

#[test]
fn what_our_own_device_refuses_is_known_at_once() {
    for (device_mtu, carries) in [(1_500, 1_440), (1_400, 1_340), (1_300, 1_240)] {
        let mut world = World::new(11);
        let alice = world.host_with(HostOptions { device_mtu, ..options() });
        let bob = world.host_with(options());
        acquaint(&mut world, alice, bob, true);
        world.all_links(|link| (link.mtu, link.latency) = (9_000, millis(2)));
        world.send_ping(alice, world.v4(alice, bob));
        world.run_until(seconds(1), |world| world.handshakes(alice, bob) == 1);
        let began = world.elapsed();
        let is_over = world.run_until(seconds(5), |world| has_found(world, alice, bob, carries));
        let took = world.elapsed() - began;
        assert!(is_over && took < millis(100), "{device_mtu}: {took:?} {:?}", path_mtu(&world, alice, bob));
        let known = path_mtu(&world, alice, bob).expect("found");
        assert_eq!((known.state, known.limit), (PathMtuState::Found, MtuLimit::Host), "{device_mtu}");
        // The path in the other direction has a different MTU.
        assert!(world.run_until(seconds(5), |world| has_found(world, bob, alice, MAX_MTU.into())));
    }
}

#[test]
fn packets_that_the_device_refuses_from_one_moment_to_the_next_are_sent_smaller() {
    let mut world = World::new(11);
    let alice = world.host_with(options());
    let bob = world.host_with(options());
    acquaint(&mut world, alice, bob, true);
    world.all_links(|link| link.mtu = 9_000);
    world.ping(alice, bob).expect("an answer");
    both_find(&mut world, alice, bob, 8_940);
    let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 8_940)];
    run(&mut world, &mut flows, seconds(5));
    world.set_device_mtu(alice, 1_500);
    run(&mut world, &mut flows, seconds(5));
    assert!(flows[0].longest_gap < millis(200), "{:?}", flows[0].longest_gap);
    assert!(has_found(&world, alice, bob, 1_440), "{:?}", path_mtu(&world, alice, bob));
}
