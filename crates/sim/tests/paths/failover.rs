//! A path that dies, in all the ways that paths die, under a ping of 100 a second: the longest gap that its sender sees.

use std::time::Duration;

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, HostId, Link, Pings, Route, RouterId, World, millis, minutes, seconds};

const RUNS: u64 = 20;
const INTERVAL: Duration = millis(10);

/// Two agents with a direct path of this round trip, and one through each relay that takes 20 ms longer.
pub(super) fn apart(seed: u64, kinds: [Kind; 2], relays: usize, round_trip: u64) -> Agents {
    let mut agents = Agents::behind(seed, &kinds, relays);
    let (alice, bob) = agents.pair();
    for (from, to) in [(alice, bob), (bob, alice)] {
        agents.world.link(from, to, |link| link.latency = millis(round_trip / 2));
    }
    for relay in agents.relays.clone() {
        for host in [alice, bob] {
            agents.world.link(host, relay, |link| link.latency = millis(round_trip + 20) / 4);
            agents.world.link(relay, host, |link| link.latency = millis(round_trip + 20) / 4);
        }
    }
    agents.start(&[Duration::ZERO; 2]);
    agents.world.run_for(seconds(2));
    agents
}

/// The hosts and routers of a world, for faults that come while it runs.
#[derive(Clone)]
struct Inhabitants {
    alice: HostId,
    bob: HostId,
    routers: Vec<RouterId>,
}

/// The longest gap of 20 runs around `fault`, which comes at a different moment of each: median, 95th percentile and worst.
fn gaps(kinds: [Kind; 2], relays: usize, round_trip: u64, fault: fn(&mut World, &Inhabitants)) -> [Duration; 3] {
    let run = |seed| {
        let mut agents = apart(seed, kinds, relays, round_trip);
        let (alice, bob) = agents.pair();
        agents.world.pings(alice, bob, INTERVAL, seconds(8));
        let is_direct = agents.world.routes(alice, bob) == [Route::Direct];
        assert_eq!(is_direct, kinds != [Kind::Strict; 2], "seed {seed}");
        let those = Inhabitants { alice, bob, routers: agents.routers.clone() };
        agents.world.after(millis(3_000 + seed * 13), move |world| fault(world, &those));
        agents.world.pings(alice, bob, INTERVAL, seconds(13)).longest_gap()
    };
    let mut gaps: Vec<_> = (0..RUNS).map(run).collect();
    gaps.sort_unstable();
    [gaps[gaps.len() / 2], gaps[gaps.len() * 95 / 100 - 1], gaps[gaps.len() - 1]]
}

/// Asserts what may be seen of a fault at both round trips.
fn bounded(name: &str, kinds: [Kind; 2], relays: usize, fault: fn(&mut World, &Inhabitants)) {
    for round_trip in [20, 80] {
        let [median, p95, worst] = gaps(kinds, relays, round_trip, fault);
        println!("{name}, {round_trip} ms: median {median:?}, p95 {p95:?}, worst {worst:?}");
        assert!(
            median <= millis(600) && p95 <= seconds(1) && worst <= seconds(3),
            "{name}, {round_trip} ms: {median:?} {p95:?} {worst:?}"
        );
    }
}

fn lose_all(world: &mut World, from: HostId, to: HostId) {
    world.link(from, to, |link| link.loss = 1.0);
}

pub(super) const DIRECT: [Kind; 2] = [Kind::Moderate, Kind::Linux];

#[test]
fn a_direct_path_dies_in_both_directions() {
    bounded("both directions", DIRECT, 1, |world, those| {
        lose_all(world, those.alice, those.bob);
        lose_all(world, those.bob, those.alice);
    });
}

#[test]
fn a_direct_path_dies_from_us_to_the_peer() {
    bounded("towards the peer", DIRECT, 1, |world, those| lose_all(world, those.alice, those.bob));
}

#[test]
fn a_direct_path_dies_from_the_peer_to_us() {
    bounded("from the peer", DIRECT, 1, |world, those| lose_all(world, those.bob, those.alice));
}

#[test]
fn our_router_forgets_its_mappings() {
    bounded("mappings forgotten", DIRECT, 1, |world, those| world.forget_mappings(those.routers[0]));
}

#[test]
fn the_router_of_the_peer_forgets_its_mappings() {
    bounded("mappings of the peer forgotten", DIRECT, 1, |world, those| world.forget_mappings(those.routers[1]));
}

#[test]
fn a_router_gets_a_different_address() {
    bounded("different address", DIRECT, 1, |world, those| world.renumber(those.routers[0], &["198.51.100.77"]));
}

#[test]
fn a_host_gets_a_different_address() {
    bounded("host moved", [Kind::None, Kind::Moderate], 1, |world, those| {
        world.roam(those.alice, &["198.51.100.78:51820"]);
    });
}

#[test]
fn a_relay_is_killed_and_there_is_a_spare() {
    bounded("relay killed", [Kind::Strict, Kind::Strict], 2, |world, those| {
        let Some(Route::Relayed(relay)) = world.routes(those.alice, those.bob).first().copied() else {
            panic!("relayed")
        };
        world.kill_relay(relay);
    });
}

#[test]
fn a_path_that_loses_a_third_is_left_within_three_seconds() {
    for round_trip in [20, 80] {
        let mut agents = apart(1, [Kind::Moderate, Kind::Linux], 1, round_trip);
        let (alice, bob) = agents.pair();
        agents.world.pings(alice, bob, INTERVAL, seconds(8));
        let lossy = |link: &mut Link| link.loss = 0.3;
        agents.world.link(alice, bob, lossy);
        agents.world.link(bob, alice, lossy);
        let pings = agents.world.pings(alice, bob, INTERVAL, seconds(63));
        let later = Pings(pings.0[300..].to_vec());
        let lost = later.lost() as f64 / later.0.len() as f64;
        println!("{round_trip} ms: {lost} of the pings after 3 s");
        assert!(lost <= 0.01, "{lost}");
    }
}

#[test]
fn a_path_that_loses_little_and_is_uneven_is_kept() {
    for (seed, round_trip) in [(1, 20), (2, 80)] {
        let mut agents = apart(seed, [Kind::Moderate, Kind::Linux], 1, round_trip);
        let (alice, bob) = agents.pair();
        agents.world.pings(alice, bob, INTERVAL, seconds(8));
        let worse = |link: &mut Link| (link.loss, link.jitter) = (0.03, millis(40));
        agents.world.link(alice, bob, worse);
        agents.world.link(bob, alice, worse);
        let switches =
            |world: &World| world.stats(alice).path_switches.value() + world.stats(bob).path_switches.value();
        let key = agents.world.key(bob);
        let (before, sent) = (switches(&agents.world), agents.world.peer_stats(alice, key).sent_wire_bytes.value());
        let mirrored = agents.world.stats(alice).mirrored_bytes.value();
        agents.world.pings(alice, bob, INTERVAL, minutes(10));
        let sent = agents.world.peer_stats(alice, key).sent_wire_bytes.value() - sent;
        let share = (agents.world.stats(alice).mirrored_bytes.value() - mirrored) as f64 / sent as f64;
        println!("{round_trip} ms: {} switches, {share:.4} mirrored", switches(&agents.world) - before);
        assert_eq!(switches(&agents.world), before, "{round_trip} ms");
        assert!(share <= 0.02, "{share}");
    }
}
