//! Leases and watches.

use std::time::Duration;

use crate::protocol::{Push, Reply, Verb};
use crate::registry::LEASE;
use crate::scene::{World, agent, record, register, sign};

fn presence(n: u32, is_present: bool) -> Push {
    Push::Presence { identity: agent(n), is_present }
}

/// A world in which agent 1 watches agent 2, and has taken what was pushed first.
fn watching() -> (World, crate::registry::ConnectionId, crate::registry::ConnectionId) {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    assert_eq!(world.ask(alice, Verb::Watch { identities: vec![agent(2)] }), Reply::Done);
    world.pushes(alice);
    (world, alice, bob)
}

#[test]
fn a_watch_is_answered_after_what_is_known() {
    let mut world = World::new();
    let alice = world.join(1);
    let mut bob = record(2, "bob", 1, world.now);
    bob.ipv4 = Some(overlay_wire::signed::ipv4_candidate(&crate::scene::network(false).pool, &agent(2), 0).octets());
    let connection = world.connect(agent(2), 0);
    assert_eq!(world.ask(connection, register(2, bob.clone())), Reply::Done);
    world.pushes(alice);
    let id = world.call(alice, Verb::Watch { identities: vec![agent(2), agent(3)] });
    let sent = world.sent[&alice].clone();
    assert!(matches!(sent.back(), Some(crate::protocol::FromServer::Answer(answer)) if answer.id == id));
    let known = Push::Record { record: sign(2, bob).bytes().to_vec().into() };
    assert_eq!(world.pushes(alice), [known, presence(2, true), presence(3, false)]);
}

#[test]
fn a_changed_record_is_pushed_to_those_who_watch() {
    let (mut world, alice, bob) = watching();
    let newer = sign(2, record(2, "agent2", 2, world.now)).bytes().to_vec();
    assert_eq!(world.ask(bob, Verb::Register { record: newer.clone().into() }), Reply::Done);
    assert_eq!(world.pushes(alice), [Push::Record { record: newer.into() }]);
    assert_eq!(world.ask(alice, Verb::Unwatch { identities: vec![agent(2)] }), Reply::Done);
    assert_eq!(world.ask(bob, register(2, record(2, "agent2", 3, world.now))), Reply::Done);
    assert_eq!(world.pushes(alice), []);
}

#[test]
fn a_lease_outlives_its_connection_by_two_minutes() {
    let (mut world, alice, bob) = watching();
    world.advance(Duration::from_secs(60));
    world.registry.disconnected(bob, world.now);
    world.ask(alice, Verb::Ping);
    world.advance(LEASE / 2);
    world.ask(alice, Verb::Ping);
    world.advance(LEASE / 2 - Duration::from_millis(1));
    assert_eq!(world.pushes(alice), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.pushes(alice), [presence(2, false)]);
    world.connect(agent(2), 0);
    assert_eq!(world.pushes(alice), [presence(2, true)]);
}

#[test]
fn a_short_break_is_seen_by_nobody() {
    let (mut world, alice, bob) = watching();
    world.registry.disconnected(bob, world.now);
    world.advance(Duration::from_secs(100));
    world.connect(agent(2), 0);
    world.ask(alice, Verb::Ping);
    world.advance(Duration::from_secs(100));
    assert_eq!(world.pushes(alice), []);
}

#[test]
fn pings_keep_a_lease_and_silence_closes_the_connection() {
    let (mut world, alice, bob) = watching();
    for _ in 0..20 {
        world.advance(Duration::from_secs(15));
        world.ask(alice, Verb::Ping);
        assert!(matches!(world.ask(bob, Verb::Ping), Reply::Revision { time, .. } if time == world.now.unix));
    }
    assert_eq!(world.pushes(alice), []);
    for _ in 0..8 {
        world.advance(Duration::from_secs(15));
        world.ask(alice, Verb::Ping);
    }
    assert_eq!(world.pushes(alice), [presence(2, false)]);
    assert!(world.closed.contains(&bob));
    assert_eq!(world.registry.stats().silent_connections, 1);
    assert_eq!(world.registry.connections(), 1);
}

#[test]
fn the_newest_connection_of_an_identity_replaces_the_one_before_it() {
    let (mut world, alice, bob) = watching();
    let newer = world.connect(agent(2), 0);
    assert!(world.closed.contains(&bob));
    assert_eq!(world.registry.connections(), 2);
    world.registry.disconnected(bob, world.now);
    world.registry.disconnected(bob, world.now);
    assert!(matches!(world.ask(newer, Verb::Ping), Reply::Revision { .. }));
    assert_eq!(world.pushes(alice), []);
    assert_eq!(world.registry.stats().replaced_connections, 1);
}

#[test]
fn an_agent_that_is_not_registered_has_no_lease_after_its_connection() {
    let (mut world, alice, _) = watching();
    assert_eq!(world.ask(alice, Verb::Watch { identities: vec![agent(9)] }), Reply::Done);
    world.pushes(alice);
    let stranger = world.connect(agent(9), 0);
    assert_eq!(world.pushes(alice), [presence(9, true)]);
    world.registry.disconnected(stranger, world.now);
    world.settle();
    assert_eq!(world.pushes(alice), [presence(9, false)]);
}

/// One change costs its watchers, however many others are connected.
#[test]
fn of_a_thousand_connections_a_change_reaches_the_twenty_that_watch() {
    let mut world = World::new();
    let bob = world.join(2_000);
    let watchers: Vec<_> = (0..1_000).map(|n| world.join(n)).collect();
    for (n, connection) in watchers.iter().enumerate() {
        let other = if n % 50 == 0 { 2_000 } else { n as u32 / 50 };
        assert_eq!(world.ask(*connection, Verb::Watch { identities: vec![agent(other)] }), Reply::Done);
    }
    for connection in &watchers {
        world.pushes(*connection);
    }
    let before = world.registry.stats().pushes;
    assert_eq!(world.ask(bob, register(2_000, record(2_000, "agent2000", 2, world.now))), Reply::Done);
    assert_eq!(world.registry.stats().pushes - before, 20);
    let reached: Vec<_> = (0..1_000).filter(|n| !world.pushes(watchers[*n]).is_empty()).collect();
    assert_eq!(reached, (0..1_000).filter(|n| n % 50 == 0).collect::<Vec<_>>());
    // A connection that ends is forgotten by those it watched.
    for connection in &watchers {
        world.registry.disconnected(*connection, world.now);
    }
    let before = world.registry.stats().pushes;
    world.ask(bob, register(2_000, record(2_000, "agent2000", 3, world.now)));
    assert_eq!(world.registry.stats().pushes, before);
}

#[test]
fn an_old_epoch_betrays_a_clone() {
    let mut world = World::new();
    world.join(1);
    let epoch = |world: &mut World, presented| {
        let connection = world.connect(agent(1), presented);
        let Reply::Welcome { epoch, .. } = world.ask(connection, Verb::Hello) else { panic!("welcome") };
        epoch
    };
    let first = epoch(&mut world, 0);
    let second = epoch(&mut world, first);
    // Its answer may have been lost, so the value before it is good, too.
    let third = epoch(&mut world, first);
    assert_eq!(world.registry.stats().stale_epochs, 0);
    assert!(first != second && second != third);
    epoch(&mut world, first);
    assert_eq!(world.registry.stats().stale_epochs, 1);
}
