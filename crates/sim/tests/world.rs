//! The world itself: its runs are reproducible, several worlds do not disturb each other, and it sleeps between events.

use std::time::Duration;

use overlay_core::Instant;
use overlay_sim::{Kind, World, millis, minutes, seconds};

/// Ten minutes over links with every kind of fault.
fn stormy_run(seed: u64) -> World {
    let mut world = World::new(seed);
    let (alice, bob) = world.pair();
    world.all_links(|link| {
        link.jitter = millis(30);
        link.loss = 0.1;
        link.duplicate = 0.05;
        link.reorder = 0.1;
        link.corrupt = 0.02;
    });
    for _ in 0..600 {
        world.send_ping(alice, world.v4(alice, bob));
        world.send(bob, world.v6(bob, alice).udp(&[7; 100]));
        world.run_for(seconds(1));
    }
    world
}

#[test]
fn one_seed_makes_one_run() {
    let (one, again, other) = (stormy_run(1), stormy_run(1), stormy_run(2));
    assert!(one.sent().len() > 1_500, "{}", one.sent().len());
    assert_eq!(one.trace(), again.trace());
    assert_ne!(one.trace(), other.trace());
}

#[test]
fn two_hosts_reach_each_other_in_two_round_trips_and_then_in_one() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    // Initiation, response, ping and answer take 10 ms each.
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.ping6(bob, alice), Some(millis(20)));
    let kinds: Vec<_> = world.sent().iter().map(|sent| (sent.from, sent.kind())).collect();
    let expected =
        [(alice, Kind::Initiation), (bob, Kind::Response), (alice, Kind::Data), (bob, Kind::Data), (alice, Kind::Data)];
    assert_eq!(kinds[..5], expected);
}

/// Runs ten minutes with a ping every second. Returns when each handshake was completed, counted from the world's
/// start.
fn handshake_times(mut world: World) -> Vec<Duration> {
    let (alice, bob) = world.pair();
    for _ in 0..600 {
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(seconds(1));
    }
    assert_eq!(world.answers(alice), 600);
    let start = world.now() - world.elapsed();
    world.sent_by(alice, Kind::Initiation).map(|sent| sent.at.since(start)).collect()
}

#[test]
fn a_run_does_not_depend_on_when_its_clock_started() {
    let at_boot = handshake_times(World::starting_at(Instant::default(), 7));
    let days_later = handshake_times(World::starting_at(Instant::from_start(minutes(60 * 24 * 400)), 7));
    let earlier_again = handshake_times(World::new(7));
    assert_eq!(at_boot, [0, 121, 242, 363, 484].map(seconds));
    assert_eq!(at_boot, days_later);
    assert_eq!(at_boot, earlier_again, "times went backwards between two worlds of one thread");
}

#[test]
fn two_worlds_of_one_thread_take_turns_without_disturbing_each_other() {
    let mut worlds = [World::starting_at(Instant::from_start(minutes(90)), 1), World::new(2)];
    let pairs = worlds.each_mut().map(|world| world.pair());
    for _ in 0..300 {
        for (world, (alice, bob)) in worlds.iter_mut().zip(pairs) {
            assert!(world.ping(alice, bob).is_some());
            world.run_for(seconds(1));
        }
    }
    for (world, (alice, bob)) in worlds.iter().zip(pairs) {
        assert_eq!(world.handshakes(alice, bob), 3);
        assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
    }
}

#[test]
fn an_idle_pair_sleeps() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(minutes(60));
    assert!(world.wakeups(alice) + world.wakeups(bob) < 20, "{} {}", world.wakeups(alice), world.wakeups(bob));
    // Traffic renews a session, never a timer alone (paper, section 6.2).
    assert_eq!(world.count(alice, Kind::Initiation) + world.count(bob, Kind::Initiation), 1);
}
