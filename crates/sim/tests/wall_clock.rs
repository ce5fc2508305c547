//! The wall clock is set while a node runs. Handshake timestamps follow it forwards and never go back, and sessions do
//! not notice.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Command, WallStep};
use overlay_sim::{HostId, Outsider, World, millis, minutes, seconds};

const DAY: Duration = Duration::from_secs(86_400);

/// Sets the host's clock.
fn set(world: &mut World, host: HostId, step: WallStep) {
    world.command(host, Command::WallClockSet(step)).expect("nobody refuses the time");
}

/// Makes the host call an outsider, who does not answer. Returns the timestamp of the initiation in nanoseconds.
fn called(world: &mut World, outsider: &mut Outsider) -> u128 {
    let packet = world.from_outsider(outsider).reversed().udp(b"are you there");
    world.take_mail(outsider.address);
    world.send(outsider.host, packet);
    world.run_for(seconds(6));
    let mail = world.take_mail(outsider.address);
    let initiation = mail.iter().rev().find(|message| message[0] == 1).expect("a call");
    let (_, _, timestamp) = outsider.initiator.answer(initiation, 77).expect("for us");
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&timestamp.0[..8]);
    let nanos = u32::from_be_bytes([timestamp.0[8], timestamp.0[9], timestamp.0[10], timestamp.0[11]]);
    u128::from(u64::from_be_bytes(bytes)) * 1_000_000_000 + u128::from(nanos)
}

/// A peer that the host last heard long ago.
fn acquaintance(world: &mut World, host: HostId) -> Outsider {
    let mut outsider = world.outsider(host);
    world.connect(&mut outsider);
    world.run_for(seconds(200));
    outsider
}

/// Checks the difference, with some tolerance: a new session engine reads this machine's clock, and tests take a
/// moment.
#[track_caller]
fn assert_is(later: u128, earlier: u128, by: Duration) {
    let difference = later.saturating_sub(earlier);
    assert!(difference.abs_diff(by.as_nanos()) < 5_000_000_000, "{difference} and not {by:?}");
}

#[test]
fn the_next_handshake_follows_a_clock_that_is_set_forward() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = acquaintance(&mut world, alice);
    let began = (called(&mut world, &mut carol), world.elapsed());
    // While she is being called, and before the first session with a different peer.
    set(&mut world, alice, WallStep::Forward(DAY));
    let after = called(&mut world, &mut carol);
    assert_is(after, began.0, DAY + (world.elapsed() - began.1));
    let mut dave = acquaintance(&mut world, alice);
    let first = called(&mut world, &mut dave);
    assert_is(first, began.0, DAY + (world.elapsed() - began.1));
}

#[test]
fn timestamps_never_go_back_whatever_becomes_of_clock_peers_and_sessions() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = acquaintance(&mut world, alice);
    let before = called(&mut world, &mut carol);
    set(&mut world, alice, WallStep::Back(DAY));
    let after = called(&mut world, &mut carol);
    assert!(after > before, "{after} {before}");
    assert_is(after, before, seconds(6));

    // The same peer, added again. Nothing about it is remembered except how far the clock went back.
    let config = overlay_core::PeerConfig {
        endpoint: Some(carol.address),
        allowed_ips: carol.inner.map(Into::into).to_vec(),
        ..overlay_core::PeerConfig::of(carol.key())
    };
    world.remove_peer(alice, carol.key());
    world.configure(alice, config).expect("a peer");
    let anew = called(&mut world, &mut carol);
    assert!(anew > after, "{anew} {after}");

    // Setting the clock forward by half a day makes up for half of the step back. A further day makes up for the rest
    // and gains half a day.
    set(&mut world, alice, WallStep::Forward(DAY / 2));
    let half = called(&mut world, &mut carol);
    assert!(half > anew);
    assert_is(half, anew, seconds(6));
    set(&mut world, alice, WallStep::Forward(DAY));
    assert_is(called(&mut world, &mut carol), half, DAY / 2 + seconds(6));
}

#[test]
fn a_node_that_began_a_day_behind_is_heard_within_seconds_of_being_set_right() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    // Bob has seen a timestamp that alice's clock will reach only tomorrow.
    set(&mut world, alice, WallStep::Forward(DAY));
    assert!(world.ping(alice, bob).is_some());
    world.run_for(seconds(20));
    world.restart(alice);
    for _ in 0..13 {
        assert!(world.ping(alice, bob).is_none());
    }
    assert!(world.drops(bob)["handshake_replay"] > 20, "{:?}", world.drops(bob));
    set(&mut world, alice, WallStep::Forward(DAY));
    let took = world.ping(alice, bob).expect("heard");
    assert!(took < millis(5_500), "{took:?}");
}

#[test]
fn a_peer_that_is_kept_is_called_again_without_its_long_pauses() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    set(&mut world, alice, WallStep::Forward(DAY));
    assert!(world.ping(alice, bob).is_some());
    world.run_for(seconds(20));
    world.restart(alice);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(minutes(10));
    assert_eq!(world.handshakes(alice, bob), 0, "since it began anew");
    set(&mut world, alice, WallStep::Forward(DAY));
    world.run_for(millis(5_500));
    assert_eq!(world.handshakes(alice, bob), 1);
}

#[test]
fn sessions_and_handshakes_under_way_do_not_notice() {
    for step in [WallStep::Forward(DAY), WallStep::Back(DAY)] {
        let mut world = World::new(7);
        let (alice, bob) = world.pair();
        world.all_links(|link| link.latency = millis(400));
        // While an initiation is in flight, and then while its response is.
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(millis(100));
        set(&mut world, alice, step);
        world.run_for(millis(500));
        set(&mut world, alice, step);
        world.run_for(millis(1_200));
        assert_eq!((world.answers(alice), world.handshakes(alice, bob)), (1, 1), "{step:?}");
        // During a session, while data flows both ways, over several rekeys.
        let (mut sent, before) = (0, world.answers(alice));
        for second in 0..600 {
            if second % 50 == 0 {
                set(&mut world, alice, step);
            }
            let (from, to) = if second % 2 == 0 { (alice, bob) } else { (bob, alice) };
            sent += usize::from(from == alice);
            world.send_ping(from, world.v4(from, to));
            world.run_for(seconds(1));
        }
        assert_eq!(world.answers(alice) - before, sent, "{step:?}");
        assert!(world.handshakes(alice, bob) < 10, "{}", world.handshakes(alice, bob));
        assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty(), "{:?}", world.drops(bob));
    }
}

#[test]
fn replays_of_a_peer_stay_replays_when_our_clock_is_set() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let old = carol.initiate();
    let new = carol.initiate();
    assert_eq!(world.ask(carol.address, alice, &new.message).len(), 1);
    world.run_for(seconds(1));
    set(&mut world, alice, WallStep::Forward(DAY));
    for message in [&old.message, &new.message] {
        world.run_for(seconds(1));
        assert!(world.ask(carol.address, alice, message).is_empty());
    }
    assert_eq!(world.drops(alice)["handshake_replay"], 2);
    world.connect(&mut carol);
}

#[test]
fn timestamps_do_not_go_back_over_an_orderly_restart() {
    let mut world = World::new(7);
    let alice = world.host();
    let address = SocketAddr::from(([203, 0, 113, 77], 51820));
    let mut carol = world.outsider_with(alice, |peer| peer.endpoint = Some(address));
    carol.address = address;
    // A false step, and its correction.
    set(&mut world, alice, WallStep::Forward(DAY));
    let before = called(&mut world, &mut carol);
    set(&mut world, alice, WallStep::Back(DAY));
    let meanwhile = called(&mut world, &mut carol);
    assert!(meanwhile > before);
    let mut latest = meanwhile;
    for _ in 0..2 {
        world.restart_in_order(alice);
        let after = called(&mut world, &mut carol);
        assert!(after > latest, "carol refuses us as a replay for {} s", latest.abs_diff(after) / 1_000_000_000);
        latest = after;
    }
    assert_is(latest, before, seconds(18));
    // The clock catches up, and then goes its way.
    set(&mut world, alice, WallStep::Forward(DAY));
    let caught_up = called(&mut world, &mut carol);
    assert_is(caught_up, latest, seconds(6));
    world.restart_in_order(alice);
    assert_eq!(world.hand_over(alice).ahead, Duration::ZERO);
}
