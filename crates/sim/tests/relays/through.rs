//! Agents with no path but a relay.

use overlay_core::Event;
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Link, Route, millis, seconds};

/// Agents behind such routers, and no link between them.
fn apart(kinds: &[Kind], relays: usize) -> Agents {
    let mut agents = Agents::started(7, kinds, relays);
    for (index, one) in agents.hosts.iter().enumerate() {
        agents.hosts[index + 1..].iter().for_each(|other| agents.world.cut(*one, *other));
    }
    agents
}

#[test]
fn two_agents_ping_each_other_through_a_relay_from_behind_every_kind() {
    for a in Kind::ALL {
        for b in Kind::ALL {
            let mut agents = apart(&[a, b], 1);
            let (alice, bob) = agents.pair();
            let names = format!("{} and {}", a.name(), b.name());
            agents.world.run_for(seconds(2));
            assert!(agents.world.ping(alice, bob).is_some(), "{names}");
            let pings = agents.world.pings(bob, alice, millis(100), seconds(10));
            assert_eq!((pings.lost(), pings.doubled()), (0, 0), "{names}");
            assert_eq!(agents.world.routes(alice, bob), [Route::Relayed(agents.relays[0])], "{names}");
            assert_eq!(agents.world.handshakes(alice, bob), 1, "{names}");
            let stats = agents.world.relay_stats(agents.relays[0]).expect("it lives");
            assert_eq!((stats.bound, stats.opened), (2, 2), "{names}: a channel for each permit");
        }
    }
}

#[test]
fn a_ping_through_a_relay_takes_two_links_each_way() {
    let mut agents = apart(&[Kind::Strict, Kind::Strict], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    assert!(agents.world.ping(alice, bob).is_some());
    assert_eq!(agents.world.ping(alice, bob), Some(4 * Link::default().latency));
    // A relay is slow in one direction to one agent.
    agents.world.link(agents.relays[0], bob, |link| link.latency = millis(200));
    assert_eq!(agents.world.ping(alice, bob), Some(3 * Link::default().latency + millis(200)));
}

#[test]
fn every_pair_of_a_crowd_has_channels_of_its_own() {
    let mut agents = apart(&[Kind::Strict, Kind::Moderate, Kind::Open, Kind::CarrierGrade], 2);
    agents.world.run_for(seconds(2));
    for from in agents.hosts.clone() {
        for to in agents.hosts.clone() {
            assert!(from == to || agents.world.ping(from, to).is_some());
        }
    }
    let bound: u64 = agents.relays.iter().map(|relay| agents.world.relay_stats(*relay).expect("it lives").bound).sum();
    assert_eq!(bound, 8, "all agents are bound at both relays");
}

#[test]
fn agents_may_begin_at_different_times() {
    let mut agents = Agents::behind(7, &[Kind::Strict, Kind::Strict], 1);
    let (alice, bob) = agents.pair();
    agents.start(&[seconds(1), seconds(30)]);
    let pings = agents.world.pings(alice, bob, seconds(1), seconds(40));
    assert!(pings.until_first().is_some_and(|first| first > seconds(30)), "{pings:?}");
    assert!(agents.world.ping(bob, alice).is_some());
    let completed = |event: &Event| matches!(event, Event::HandshakeCompleted(..));
    assert!(agents.world.events(alice).iter().any(|(_, event)| completed(event)));
}

#[test]
fn a_message_of_the_rendezvous_takes_as_long_as_the_test_says() {
    let mut agents = Agents::behind(7, &[Kind::Strict, Kind::Strict], 1);
    let (alice, bob) = agents.pair();
    agents.world.set_rendezvous_delay(seconds(3));
    agents.start(&[seconds(0), seconds(0)]);
    agents.world.run_for(millis(2_900));
    assert_eq!(agents.world.known_candidates(alice, bob), []);
    agents.world.run_for(millis(300));
    assert_eq!(agents.world.known_candidates(alice, bob).len(), 1, "the one that a relay sees");
}
