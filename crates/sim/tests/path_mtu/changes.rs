//! Changes while a path is being searched or is known: peers, keys, sessions, sizes and the clock.

use overlay_core::{Command, MtuLimit, PathMtu, PathMtuState, PeerKey, ProbedBy};
use overlay_core::{Event, PeerConfig};
use overlay_sim::{HostId, HostOptions, Kind, World, millis, minutes, seconds};
use overlay_wire::control::{Abilities, Frame};

use crate::flow::{Flow, run};
use crate::scene::{
    ASSUMED, MAX_MTU, acquaint, all_path_mtus, both_find, found_pair, has_found, options, pair, path_mtu,
};
use crate::stock::Stock;

fn known(world: &World, host: HostId, peer: PeerKey) -> Option<PathMtu> {
    let peer = world.tag(host, peer);
    world.events(host).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(of, known) if of.peer == peer => Some(*known),
        _ => None,
    })
}

#[test]
fn an_overlay_node_that_becomes_a_stock_peer_and_one_again_is_asked_as_it_answers() {
    let mut world = World::new(11);
    let alice = world.host_with(options());
    let mut peer = Stock::new(&mut world, alice, true);
    let key = peer.outsider.key();
    peer.is_overlay = true;
    let large = peer.ends(&world, true).udp(&[0x5a; 1_400 - 28]);
    let flow = |world: &mut World, peer: &mut Stock, seconds: u64| {
        for _ in 0..seconds * 10 {
            world.send(alice, large.clone());
            peer.run(world, millis(100));
        }
    };
    let how = |world: &World| known(world, alice, key).map(|known| (known.state, known.mtu, known.probed_by));
    flow(&mut world, &mut peer, 10);
    assert_eq!(how(&world), Some((PathMtuState::Found, 1_440, ProbedBy::ControlFrames)));

    // A program without control frames replaces the peer, and initiates.
    peer.is_overlay = false;
    peer.call(&mut world);
    world.forget();
    let before = peer.heard.len();
    flow(&mut world, &mut peer, 150);
    let arrived = peer.heard[before..].iter().filter(|(_, packet)| *packet == large).count();
    assert_eq!(arrived, 1_500, "whatever is thought of it, its packets arrive");
    assert_eq!(how(&world), Some((PathMtuState::Found, 1_440, ProbedBy::Echoes)));

    peer.is_overlay = true;
    peer.call(&mut world);
    peer.say_frame(&mut world, Frame::Hello { nonce: 1, understands: Abilities::FRAGMENTS, mtu: 9_000 });
    flow(&mut world, &mut peer, 10);
    assert_eq!(how(&world), Some((PathMtuState::Found, 1_440, ProbedBy::ControlFrames)));
}

#[test]
fn a_node_that_starts_anew_and_is_only_called_learns_who_calls() {
    let (mut world, alice, bob) = found_pair(11, 1_280, true);
    world.forget();
    world.restart(bob);
    for _ in 0..40 {
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(seconds(1));
    }
    assert_eq!(world.count(bob, Kind::Initiation), 0, "it is called");
    let learned = path_mtu(&world, bob, alice).map(|known| (known.state, known.probed_by));
    assert_eq!(learned, Some((PathMtuState::Found, ProbedBy::ControlFrames)));
    let packet = world.v6(bob, alice).udp(&[0x5a; 1_280 - 48]);
    world.send(bob, packet.clone());
    world.run_for(seconds(1));
    assert!(world.received(alice).iter().any(|received| received.packet == packet), "in pieces");
}

#[test]
fn a_new_key_changes_nothing_about_the_path() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    let old = world.key(alice);
    world.set_private_key(alice, Some([9; 32]));
    world.remove_peer(bob, old);
    world.set_peer(bob, alice, |_| {});
    world.ping(alice, bob).expect("an answer");
    world.run_for(seconds(1));
    both_find(&mut world, alice, bob, 1_340);
}

#[test]
fn another_mtu_of_the_interface_is_searched_for_and_told() {
    let mut world = World::new(11);
    let small = HostOptions { max_mtu: 1_500, ..options() };
    let (alice, bob) = (world.host_with(small.clone()), world.host_with(small));
    acquaint(&mut world, alice, bob, true);
    world.all_links(|link| link.mtu = 9_000);
    world.ping(alice, bob).expect("an answer");
    both_find(&mut world, alice, bob, 1_500);
    assert_eq!(path_mtu(&world, alice, bob).map(|known| known.limit), Some(MtuLimit::Interface));

    for host in [alice, bob] {
        world.command(host, Command::SetMtu { mtu: ASSUMED, max: 8_940 }).expect("a change");
    }
    // Each node tells the other at once.
    both_find(&mut world, alice, bob, 8_940);

    world.command(alice, Command::SetMtu { mtu: 1_280, max: 1_280 }).expect("a change");
    world.run_for(seconds(5));
    assert!(has_found(&world, alice, bob, 1_280), "{:?}", path_mtu(&world, alice, bob));
}

#[test]
fn an_interface_that_takes_more_from_now_on_disturbs_nobody_whose_path_does_not() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    world.forget();
    for (mtu, max) in [(ASSUMED, 65_000), (ASSUMED + 8, 65_000), (ASSUMED, MAX_MTU)] {
        world.command(alice, Command::SetMtu { mtu, max }).expect("a change");
        world.run_for(seconds(5));
    }
    let reported = [all_path_mtus(&world, alice, bob), all_path_mtus(&world, bob, alice)];
    assert_eq!(reported, [vec![], vec![]], "what was found is found");
}

#[test]
fn a_peer_that_is_removed_while_it_is_probed_is_gone() {
    let (mut world, alice, bob) = pair(11, 1_400, true);
    world.ping(alice, bob).expect("an answer");
    let probes = |world: &World| world.stats(alice).mtu_probes_sent.value();
    assert!(world.run_until(seconds(5), |world| probes(world) == 2), "one is under way");
    world.remove_peer(alice, world.key(bob));
    world.forget();
    let sent = world.sent().len();
    world.run_for(minutes(5));
    assert!(world.sent()[sent..].iter().all(|sent| sent.from != alice));
    world.set_peer(alice, bob, |_| {});
    world.ping(alice, bob).expect("an answer");
    both_find(&mut world, alice, bob, 1_340);
}

#[test]
fn a_session_that_ends_while_a_probe_is_under_way_costs_nothing_but_time() {
    for is_found in [false, true] {
        let (mut world, alice, bob) = if is_found { found_pair(11, 1_400, true) } else { pair(11, 1_400, true) };
        let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340)];
        run(&mut world, &mut flows, millis(if is_found { 5_000 } else { 120 }));
        let before = all_path_mtus(&world, alice, bob).len();
        world.cut(alice, bob);
        let large = world.v4(alice, bob).udp(&[0x5a; 1_340 - 28]);
        for _ in 0..400 {
            world.send(alice, large.clone());
            world.run_for(seconds(1));
        }
        world.mend(alice, bob);
        world.send(alice, large.clone());
        world.run_for(seconds(10));
        both_find(&mut world, alice, bob, 1_340);
        let reported = &all_path_mtus(&world, alice, bob)[before..];
        assert!(
            !is_found || reported.iter().all(|known| known.mtu >= 1_328),
            "a dead path is not a narrow one: {reported:?}"
        );
    }
}

#[test]
fn a_host_that_slept_for_an_hour_goes_on_where_it_was() {
    for is_found in [false, true] {
        let (mut world, alice, bob) = if is_found { found_pair(11, 1_400, true) } else { pair(11, 1_400, true) };
        let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340)];
        run(&mut world, &mut flows, millis(if is_found { 5_000 } else { 120 }));
        let before = all_path_mtus(&world, alice, bob).len();
        world.suspend(alice, minutes(60));
        let mut flows = [Flow::new(&world, alice, bob, world.v4(alice, bob), 4_000, 1_340)];
        run(&mut world, &mut flows, seconds(12));
        both_find(&mut world, alice, bob, 1_340);
        assert!(flows[0].longest_gap < seconds(6), "{:?}", flows[0].longest_gap);
        let reported = &all_path_mtus(&world, alice, bob)[before..];
        assert!(!is_found || reported.iter().all(|known| known.mtu >= 1_328), "{reported:?}");
    }
}

#[test]
fn persistent_keepalive_alone_sends_no_probe_for_hours() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    for (host, peer) in [(alice, bob), (bob, alice)] {
        world.set_peer(host, peer, |peer| peer.persistent_keepalive = Some(seconds(25)));
    }
    world.run_for(seconds(10));
    world.forget();
    let before = [alice, bob].map(|host| world.stats(host).mtu_probes_sent.value());
    world.run_for(minutes(240));
    assert_eq!([alice, bob].map(|host| world.stats(host).mtu_probes_sent.value()), before);
    // Only a hello and its answer for each session, and keepalives.
    let sessions = world.count(alice, Kind::Initiation) + world.count(bob, Kind::Initiation);
    let frames = world.count(alice, Kind::Data) + world.count(bob, Kind::Data);
    assert!(frames <= 2 * sessions, "{frames} in {sessions} sessions");
}

#[test]
fn a_peer_whose_path_is_no_longer_searched_is_as_any_other_and_control_is_told() {
    let (mut world, alice, bob) = found_pair(11, 9_000, true);
    world.forget();
    world.set_peer(alice, bob, |peer: &mut PeerConfig| peer.mtu_discovery = false);
    let known = path_mtu(&world, alice, bob).expect("told");
    assert_eq!((known.mtu, known.state, known.probed_by), (ASSUMED, PathMtuState::Assumed, ProbedBy::Nothing));
    assert_eq!(world.stats(alice).mtu_falls.value(), 0, "the path carries what it carried");
    world.send(alice, world.v4(alice, bob).udp(&[0x5a; 1_420 - 28]));
    world.run_for(seconds(1));
    assert!(world.sent().iter().all(|sent| sent.from != alice || !sent.dont_fragment));
    assert!(world.received(bob).iter().any(|received| received.packet.len() == 1_420));
}

#[test]
fn a_peer_that_is_told_of_anew_without_a_change_keeps_what_was_found() {
    let (mut world, alice, bob) = found_pair(11, 1_400, true);
    world.forget();
    for _ in 0..10 {
        world.set_peer(alice, bob, |_| {});
        world.run_for(seconds(1));
    }
    assert!(path_mtu(&world, alice, bob).is_none(), "no news");
    world.send(alice, world.v4(alice, bob).udp(&[0x5a; 1_340 - 28]));
    world.run_for(seconds(1));
    assert!(world.sent_by(alice, Kind::Data).any(|sent| sent.dont_fragment));
}

#[test]
fn a_node_whose_interface_takes_more_from_now_on_tells_its_peers_at_once() {
    for is_caller in [true, false] {
        let mut world = World::new(11);
        let small = HostOptions { max_mtu: 1_380, mtu: 1_380, ..options() };
        let raised = world.host_with(small);
        let other = world.host_with(options());
        acquaint(&mut world, raised, other, true);
        world.all_links(|link| link.mtu = 9_000);
        let (caller, called) = if is_caller { (raised, other) } else { (other, raised) };
        world.ping(caller, called).expect("an answer");
        both_find(&mut world, raised, other, 1_380);
        let limit = |world: &World, host, peer| path_mtu(world, host, peer).map(|known| known.limit);
        assert_eq!(limit(&world, raised, other), Some(MtuLimit::Interface), "{is_caller}");
        assert_eq!(limit(&world, other, raised), Some(MtuLimit::Peer), "{is_caller}");

        let handshakes = world.handshakes(caller, called);
        world.command(raised, Command::SetMtu { mtu: ASSUMED, max: 8_940 }).expect("a change");
        both_find(&mut world, raised, other, 8_940);
        assert_eq!(limit(&world, other, raised), Some(MtuLimit::Interface), "{is_caller}");
        world.command(raised, Command::SetMtu { mtu: 1_280, max: 1_280 }).expect("a change");
        both_find(&mut world, raised, other, 1_280);
        assert_eq!(limit(&world, other, raised), Some(MtuLimit::Peer), "{is_caller}");
        assert_eq!(world.handshakes(caller, called), handshakes, "{is_caller}: in the same session");
    }
}
