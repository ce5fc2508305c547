//! A path that carries more than before.

use overlay_sim::{minutes, seconds};

use crate::flow::{Flow, run};
use crate::scene::{both_find, found_pair, has_found, path_mtu};

#[test]
fn more_is_found_after_ten_minutes_of_traffic_and_not_before() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    world.all_links(|link| link.mtu = 1_500);
    let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340)];
    run(&mut world, &mut flows, seconds(590));
    assert!(has_found(&world, alice, bob, 1_340), "{:?}", path_mtu(&world, alice, bob));
    run(&mut world, &mut flows, seconds(25));
    assert!(has_found(&world, alice, bob, 1_440), "{:?}", path_mtu(&world, alice, bob));
    assert_eq!(world.stats(alice).mtu_falls.value(), 1, "from what was assumed, before it was found");
}

#[test]
fn nobody_looks_for_more_where_nothing_is_sent() {
    for keepalive in [None, Some(seconds(25))] {
        let (mut world, alice, bob) = found_pair(11, 1_400, true);
        for (host, peer) in [(alice, bob), (bob, alice)] {
            world.set_peer(host, peer, |peer| peer.persistent_keepalive = keepalive);
        }
        world.all_links(|link| link.mtu = 1_500);
        let probes = |world: &overlay_sim::World| world.stats(alice).mtu_probes_sent.value();
        let before = probes(&world);
        world.run_for(minutes(30));
        assert_eq!(probes(&world), before, "{keepalive:?}: nobody is there who would be glad of it");
        // Small packets do not need a larger MTU, so they do not start a search.
        for _ in 0..60 {
            assert!(world.ping(alice, bob).is_some());
            world.run_for(seconds(10));
        }
        assert_eq!(probes(&world), before, "{keepalive:?}: pings of 84 bytes are small");
        let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340)];
        run(&mut world, &mut flows, seconds(10));
        assert!(has_found(&world, alice, bob, 1_440), "{keepalive:?}: {:?}", path_mtu(&world, alice, bob));
    }
}

#[test]
fn more_is_found_at_once_where_a_peer_moved() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    let mut flows = [
        Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340),
        Flow::new(&world, bob, alice, world.v4(bob, alice), 4_001, 1_340),
    ];
    run(&mut world, &mut flows, seconds(5));
    world.roam(bob, &["198.51.100.2:51820"]);
    world.all_links(|link| link.mtu = 1_500);
    run(&mut world, &mut flows, seconds(6));
    assert!(has_found(&world, alice, bob, 1_440), "{:?}", path_mtu(&world, alice, bob));
    assert!(flows.iter().all(|flow| flow.longest_gap < seconds(1)), "nobody waits for it");
}

#[test]
fn a_peer_that_moved_to_a_narrower_path_is_reached_all_the_same() {
    let (mut world, alice, bob) = found_pair(11, 9_000, true);
    let mut flows = [
        Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 8_940),
        Flow::new(&world, bob, alice, world.v4(bob, alice), 4_001, 8_940),
    ];
    run(&mut world, &mut flows, seconds(5));
    world.roam(bob, &["198.51.100.2:51820"]);
    world.all_links(|link| link.mtu = 1_400);
    run(&mut world, &mut flows, seconds(20));
    both_find(&mut world, alice, bob, 1_340);
    for flow in &flows {
        assert!(flow.longest_gap < seconds(5), "{:?}", flow.longest_gap);
    }
}
