//! What two nodes find on a path that they know nothing about, for every common MTU.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::{MtuLimit, ProbedBy};

use crate::scene::{ASSUMED, MAX_MTU, all_path_mtus, around, both_find, pair, path_mtu};

/// Outer MTUs found in practice.
const PATHS: [usize; 9] = [1_280, 1_296, 1_368, 1_400, 1_420, 1_480, 1_492, 1_500, 9_000];

#[test]
fn the_mtu_of_every_path_is_found_within_seconds_and_never_above_the_truth() {
    for mtu in PATHS {
        for is_v4 in [true, false] {
            let (mut world, alice, bob) = pair(11, mtu, is_v4);
            world.ping(alice, bob).expect("an answer");
            let began = world.elapsed();
            let truth = (mtu - around(is_v4)).min(MAX_MTU.into());
            both_find(&mut world, alice, bob, truth);
            let took = world.elapsed() - began;
            assert!(took < Duration::from_secs(6), "{mtu} {is_v4}: {took:?}");
            for (host, peer) in [(alice, bob), (bob, alice)] {
                let known = path_mtu(&world, host, peer).expect("found");
                assert_eq!(known.probed_by, ProbedBy::ControlFrames);
                let limit = if truth == usize::from(MAX_MTU) { MtuLimit::Interface } else { MtuLimit::Path };
                assert_eq!(known.limit, limit, "{mtu} {is_v4}");
            }
        }
    }
}

#[test]
fn where_the_path_carries_the_most_packets_are_never_held_to_less() {
    let (mut world, alice, bob) = pair(11, 9_000, true);
    world.ping(alice, bob).expect("an answer");
    both_find(&mut world, alice, bob, MAX_MTU.into());
    for (host, peer) in [(alice, bob), (bob, alice)] {
        let reported: BTreeSet<_> = all_path_mtus(&world, host, peer).into_iter().map(|known| known.mtu).collect();
        assert_eq!(reported, BTreeSet::from([ASSUMED, MAX_MTU]));
    }
}
