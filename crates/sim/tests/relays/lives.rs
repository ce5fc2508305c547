//! Relays that end, begin again, and are slow.

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Route, millis, minutes, seconds};

/// Two strict agents that have pinged through the first relay.
fn relayed(relays: usize) -> Agents {
    let mut agents = Agents::started(7, &[Kind::Strict, Kind::Strict], relays);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    assert!(agents.world.ping(alice, bob).is_some());
    agents
}

#[test]
fn a_killed_relay_carries_nothing_and_a_new_one_in_its_place_everything() {
    let mut agents = relayed(1);
    let (alice, bob) = agents.pair();
    let relay = agents.relays[0];
    agents.world.kill_relay(relay);
    let pings = agents.world.pings(alice, bob, millis(500), seconds(20));
    assert_eq!(pings.lost(), pings.0.len());
    assert!(agents.world.relay_stats(relay).is_none());
    // It knows nobody. The agents find that out when they renew their bindings, or send something.
    agents.world.begin_relay(relay);
    let pings = agents.world.pings(alice, bob, millis(500), minutes(1));
    assert!(pings.until_first().is_some_and(|first| first < seconds(40)), "{:?}", pings.until_first());
    let stats = agents.world.relay_stats(relay).expect("it lives");
    assert_eq!((stats.bound, stats.opened), (2, 2));
    assert_eq!(agents.world.pings(alice, bob, millis(500), seconds(10)).lost(), 0);
}

#[test]
fn agents_go_on_at_their_other_relay() {
    let mut agents = relayed(2);
    let (alice, bob) = agents.pair();
    let Some(Route::Relayed(first)) = agents.world.routes(alice, bob).first().copied() else { panic!("a relay") };
    let second = *agents.relays.iter().find(|relay| **relay != first).expect("there are two");
    agents.world.kill_relay(first);
    let pings = agents.world.pings(alice, bob, millis(500), minutes(3));
    assert!(pings.longest_gap() < seconds(2), "{:?}", pings.longest_gap());
    assert_eq!(agents.world.routes(alice, bob), [Route::Relayed(second)]);
}

#[test]
fn a_relayed_pair_is_kept_for_an_hour() {
    let mut agents = relayed(1);
    let (alice, bob) = agents.pair();
    let pings = agents.world.pings(alice, bob, seconds(20), minutes(60));
    assert_eq!((pings.lost(), pings.doubled()), (0, 0));
    let stats = agents.world.relay_stats(agents.relays[0]).expect("it lives");
    assert_eq!((stats.bound, stats.lapsed, stats.opened), (2, 0, 2));
}

#[test]
fn a_node_that_is_restarted_hears_its_relays_and_channels_again() {
    let mut agents = relayed(1);
    let (alice, bob) = agents.pair();
    agents.world.restart(alice);
    assert!(agents.world.ping(alice, bob).is_some());
    let routes = agents.world.routes(alice, bob);
    assert!(!routes.is_empty() && routes.iter().all(|route| *route == Route::Relayed(agents.relays[0])));
}
