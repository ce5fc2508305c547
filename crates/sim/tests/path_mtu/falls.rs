//! The MTU of a path falls silently from one moment to the next while large packets flow. Also a path that is only
//! lossy.

use overlay_core::{Event, PathMtuState};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, World, minutes, seconds};
use overlay_wire::ip::Version;

use crate::flow::{Flow, errors, least, run};
use crate::scene::{all_path_mtus, around, found_pair, has_found, pair, path_mtu};

/// One flow in each family and direction.
fn flows(world: &World, alice: HostId, bob: HostId, size: usize) -> Vec<Flow> {
    let to_bob = [world.v4(alice, bob), world.v6(alice, bob)];
    let new = |from, to, ends: Ends, port| Flow::new(world, from, to, ends, port, size);
    vec![
        new(alice, bob, to_bob[0], 4_000),
        new(alice, bob, to_bob[1], 4_001),
        new(bob, alice, to_bob[0].reversed(), 4_002),
        new(bob, alice, to_bob[1].reversed(), 4_003),
    ]
}

#[test]
fn a_silent_fall_stalls_nobody_for_five_seconds() {
    for is_v4 in [true, false] {
        for path in [&[1_500, 1_400, 1_280][..], &[9_000, 1_500], &[9_000, 1_280]] {
            let (mut world, alice, bob) = found_pair(11, path[0], is_v4);
            let mut flows = flows(&world, alice, bob, path[0] - around(is_v4));
            run(&mut world, &mut flows, seconds(5));
            assert!(flows.iter().all(|flow| flow.errors.is_empty()), "as long as it was");
            for mtu in &path[1..] {
                world.all_links(|link| link.mtu = *mtu);
                run(&mut world, &mut flows, seconds(20));
                let truth = mtu - around(is_v4);
                for (host, peer) in [(alice, bob), (bob, alice)] {
                    assert!(has_found(&world, host, peer, truth), "{truth}: {:?}", path_mtu(&world, host, peer));
                }
                for flow in &mut flows {
                    assert!(flow.longest_gap < seconds(5), "{path:?} {mtu} {is_v4}: {:?}", flow.longest_gap);
                    assert!(!flow.errors.is_empty(), "{path:?} {mtu} {is_v4}");
                    // The route to the peer has this MTU from now on.
                    flow.size = path_mtu(&world, alice, bob).map_or(0, |known| known.mtu.into());
                    flow.errors.clear();
                }
            }
        }
    }
}

#[test]
fn whoever_sent_packets_that_are_too_long_now_is_told_at_once() {
    for is_v4 in [true, false] {
        let (mut world, alice, bob) = found_pair(11, 1_500, is_v4);
        let size = 1_500 - around(is_v4);
        let (v4, v6) = (world.v4(alice, bob), world.v6(alice, bob));
        let mut flows: Vec<_> = [(v4, 4_000), (v4, 4_001), (v6, 4_004), (v6, 4_005)]
            .into_iter()
            .map(|(ends, port)| Flow::new(&world, alice, bob, ends, port, size))
            .collect();
        run(&mut world, &mut flows, seconds(2));
        world.forget();
        flows = [(v4, 4_000), (v4, 4_001), (v6, 4_004), (v6, 4_005)]
            .into_iter()
            .map(|(ends, port)| Flow::new(&world, alice, bob, ends, port, size))
            .collect();
        world.all_links(|link| link.mtu = 1_300);
        run(&mut world, &mut flows, seconds(10));

        let (fell_at, fallen) = world
            .events(alice)
            .iter()
            .find_map(|(at, event)| match event {
                Event::PathMtu(_, known) if usize::from(known.mtu) < size => Some((*at, usize::from(known.mtu))),
                _ => None,
            })
            .expect("it fell");
        for (flow, version) in flows.iter().zip([Version::V4, Version::V4, Version::V6, Version::V6]) {
            let first = flow.errors.first().unwrap_or_else(|| panic!("{version:?} of {is_v4} was never told"));
            assert_eq!(first.at, fell_at, "in that very moment: {first:?}");
            assert_eq!(first.mtu, fallen.max(least(version)));
            assert_eq!(first.source, first.quoted.1, "from where the packet was to go");
        }
        assert!(errors(&world, alice).len() <= 8, "and not again and again");
        assert!(errors(&world, bob).is_empty(), "who sent nothing is told nothing");
    }
}

#[test]
fn nobody_is_told_anything_before_the_first_search_is_over() {
    for (mtu, is_v4) in [(1_500, true), (1_500, false), (9_000, true)] {
        let (mut world, alice, bob) = pair(11, mtu, is_v4);
        let mut flows = flows(&world, alice, bob, 1_420);
        run(&mut world, &mut flows, seconds(10));
        assert!(has_found(&world, alice, bob, (mtu - around(is_v4)).min(8_940)));
        for flow in &flows {
            assert_eq!(flow.errors, [], "{mtu} {is_v4}: packets of 1,420 bytes fit before and after");
        }
        let lowest = all_path_mtus(&world, alice, bob).iter().map(|known| known.mtu).min();
        assert_eq!(lowest, Some(1_420), "{mtu} {is_v4}: routes do not go down and up again");
    }
}

#[test]
fn an_ipv6_sender_of_packets_that_every_link_carries_is_never_told_to_send_less() {
    let (mut world, alice, bob) = found_pair(11, 1_500, true);
    let mut flows = [Flow::new(&world, alice, bob, world.v6(alice, bob), 4_000, 1_280)];
    run(&mut world, &mut flows, seconds(2));
    world.all_links(|link| link.mtu = 1_280);
    // A different flow reveals the fall, because the packets of the first are too short.
    let mut both = vec![Flow::new(&world, alice, bob, world.v4(alice, bob), 4_001, 1_440)];
    both.extend(flows);
    run(&mut world, &mut both, seconds(20));
    assert!(has_found(&world, alice, bob, 1_220), "{:?}", path_mtu(&world, alice, bob));
    assert!(!both[0].errors.is_empty());
    assert_eq!(both[1].errors, [], "what it sends is cut here");
    assert!(both[1].longest_gap < seconds(5));
}

#[test]
fn ten_percent_of_loss_for_ten_minutes_is_never_taken_for_a_smaller_path() {
    for seed in 0..8 {
        let (mut world, alice, bob) = found_pair(seed, 1_500, true);
        world.all_links(|link| link.loss = 0.1);
        world.forget();
        let (there, back) = (world.v4(alice, bob), world.v6(bob, alice));
        let large = [there.udp(&[0x5a; 1_440 - 28]), back.udp(&[0x5a; 1_440 - 48])];
        for _ in 0..6_000 {
            world.send(alice, large[0].clone());
            world.send(bob, large[1].clone());
            world.run_for(minutes(10) / 6_000);
        }
        for (host, peer) in [(alice, bob), (bob, alice)] {
            let reported = all_path_mtus(&world, host, peer);
            assert!(reported.iter().all(|known| known.mtu == 1_440), "seed {seed}: {reported:?}");
            assert!(reported.iter().all(|known| known.state != PathMtuState::Assumed), "seed {seed}: {reported:?}");
            assert!(!world.drops(host).contains_key("outbound_too_big"));
            assert!(world.received(host).len() > 5_000, "seed {seed}: it flows");
        }
    }
}

#[test]
fn a_fall_on_a_path_that_loses_packets_is_noticed_too() {
    for seed in 0..8 {
        let (mut world, alice, bob) = found_pair(seed, 1_500, true);
        world.all_links(|link| link.loss = 0.02);
        let mut flows = flows(&world, alice, bob, 1_440);
        run(&mut world, &mut flows, minutes(1));
        world.all_links(|link| link.mtu = 1_400);
        run(&mut world, &mut flows, seconds(30));
        for flow in &flows {
            assert!(flow.longest_gap < seconds(8), "seed {seed}: {:?}", flow.longest_gap);
        }
        assert!(has_found(&world, alice, bob, 1_340), "seed {seed}: {:?}", path_mtu(&world, alice, bob));
    }
}

#[test]
fn packets_smaller_than_the_first_probe_do_not_vanish_in_a_path_that_carries_less_than_they_need() {
    for before in [1_500, 1_260] {
        for size in [513, 1_100, 1_199] {
            let (mut world, alice, bob) = found_pair(11, before, true);
            let mut flows = [
                Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, size),
                Flow::new(&world, bob, alice, world.v6(bob, alice), 4_001, size),
            ];
            run(&mut world, &mut flows, seconds(5));
            world.all_links(|link| (link.mtu, link.fragments) = (576, true));
            run(&mut world, &mut flows, seconds(30));
            for flow in &flows {
                assert!(flow.longest_gap < seconds(8), "{before} {size}: {:?}", flow.longest_gap);
            }
        }
    }
}

#[test]
fn who_lets_its_packets_be_fragmented_is_told_nothing() {
    let (mut world, alice, bob) = found_pair(11, 1_500, true);
    let mut packet = world.v4(alice, bob).udp(&[0x5a; 1_440 - 28]);
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    packet[10..12].copy_from_slice(&overlay_wire::checksum::update(sum, 0x4000, 0).to_be_bytes());
    packet[6] &= !0x40;
    world.all_links(|link| link.mtu = 1_400);
    for _ in 0..600 {
        world.send(alice, packet.clone());
        world.run_for(seconds(1) / 50);
    }
    assert!(has_found(&world, alice, bob, 1_340), "{:?}", path_mtu(&world, alice, bob));
    assert_eq!(errors(&world, alice), [], "its packets are cut here");
    let pieces = world.received(bob).iter().rev().take(2).map(|received| received.packet.len()).sum::<usize>();
    assert_eq!(pieces, 1_440 + 20, "and arrive");
}
