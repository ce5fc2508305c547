//! Two clients and a registry.

use std::time::Duration;

use super::peers::{Peer, crash, lose, run, settle};
use crate::client::{Event, Outgoing};
use crate::protocol::Slot;
use crate::scene::World;

const A_MINUTE: Duration = Duration::from_secs(60);

/// Two agents that are registered and watch each other.
fn pair() -> (World, Peer, Peer) {
    let mut world = World::new();
    let (mut alice, mut bob) = (Peer::new(1), Peer::new(2));
    for peer in [&mut alice, &mut bob] {
        peer.set_record(None, &world);
    }
    assert_eq!(alice.client.watch(&[bob.identity()], world.now), Ok(()));
    assert_eq!(bob.client.watch(&[alice.identity()], world.now), Ok(()));
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE);
    (world, alice, bob)
}

fn is_present(events: &[Event]) -> Vec<bool> {
    let presence = |event: &Event| match event {
        Event::Presence { is_present, .. } => Some(*is_present),
        _ => None,
    };
    events.iter().filter_map(presence).collect()
}

fn sequences(events: &[Event]) -> Vec<u64> {
    let sequence = |event: &Event| match event {
        Event::Record(record) => Some(record.sequence),
        _ => None,
    };
    events.iter().filter_map(sequence).collect()
}

fn messages(events: &[Event]) -> Vec<u8> {
    let id = |event: &Event| match event {
        Event::Message { id, .. } => Some(id[0]),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

fn outgoing() -> Outgoing {
    Outgoing { sealed: b"hello".to_vec(), permit: None }
}

#[test]
fn two_agents_register_and_see_each_other() {
    let (mut world, mut alice, mut bob) = pair();
    let events = alice.take();
    assert!(matches!(events[0], Event::Online { record: None, .. }));
    assert!(events.contains(&Event::Registered { sequence: 2 }), "the second record has an address");
    assert!(events.contains(&Event::Synced));
    assert_eq!((sequences(&events), is_present(&events)), (vec![2], vec![true]));
    bob.take();
    bob.set_record(None, &world);
    settle(&mut world, &mut [&mut alice, &mut bob]);
    assert_eq!(sequences(&alice.take()), [3]);
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE * 30);
    let only_clocks = |events: Vec<Event>| events.iter().all(|event| matches!(event, Event::Clock { .. }));
    assert!(only_clocks(alice.take()), "nothing happens while nothing changes");
}

#[test]
fn a_message_is_sent_delivered_and_acknowledged() {
    let (mut world, mut alice, mut bob) = pair();
    let peers = &mut [&mut alice, &mut bob];
    assert_eq!(peers[0].client.send(peers[1].identity(), [7; 16], outgoing(), world.now), Ok(()));
    settle(&mut world, peers);
    assert!(peers[0].take().contains(&Event::Sent { to: peers[1].identity(), id: [7; 16] }));
    assert_eq!(messages(&peers[1].take()), [7]);
    // Before it is acknowledged, it comes again with each connection.
    lose(&mut world, peers[1]);
    run(&mut world, peers, A_MINUTE);
    assert_eq!(messages(&peers[1].take()), [7]);
    assert_eq!(peers[1].client.acknowledge(peers[0].identity(), [7; 16], world.now), Ok(()));
    settle(&mut world, peers);
    assert!(peers[0].take().contains(&Event::Delivered { to: peers[1].identity(), id: [7; 16] }));
    lose(&mut world, peers[1]);
    run(&mut world, peers, A_MINUTE);
    assert_eq!(messages(&peers[1].take()), [0; 0]);
}

#[test]
fn after_a_crash_between_commit_and_answer_everything_is_there_once() {
    let (mut world, mut alice, mut bob) = pair();
    let peers = &mut [&mut alice, &mut bob];
    world.is_commit_held = true;
    peers[0].set_record(None, &world);
    let to = peers[1].identity();
    assert_eq!(peers[0].client.send(to, [7; 16], outgoing(), world.now), Ok(()));
    assert_eq!(peers[0].client.put_slot(to, Slot::Endpoints, b"here".to_vec(), world.now), Ok(()));
    settle(&mut world, peers);
    assert_eq!(world.write().len(), 3);
    crash(&mut world, peers);
    world.is_commit_held = false;
    peers.iter_mut().for_each(|peer| drop(peer.take()));
    run(&mut world, peers, A_MINUTE);

    let events = peers[0].take();
    assert!(events.contains(&Event::Registered { sequence: 3 }));
    assert!(events.contains(&Event::Sent { to, id: [7; 16] }));
    assert!(!events.iter().any(|event| matches!(event, Event::Refused { .. })), "{events:?}");
    let events = peers[1].take();
    assert_eq!((messages(&events), sequences(&events)), (vec![7], vec![3]));
    let slots = events.iter().filter(|event| matches!(event, Event::Slot { sealed, .. } if sealed == b"here")).count();
    assert_eq!(slots, 1);
    assert_eq!(world.registry.stats().conflicts, 0);
}

#[test]
fn after_a_crash_before_the_commit_everything_is_done_again() {
    let (mut world, mut alice, mut bob) = pair();
    let peers = &mut [&mut alice, &mut bob];
    world.is_commit_held = true;
    peers[0].set_record(None, &world);
    let to = peers[1].identity();
    assert_eq!(peers[0].client.send(to, [7; 16], outgoing(), world.now), Ok(()));
    assert_eq!(peers[0].client.put_slot(to, Slot::Endpoints, b"here".to_vec(), world.now), Ok(()));
    settle(&mut world, peers);
    crash(&mut world, peers);
    world.is_commit_held = false;
    peers.iter_mut().for_each(|peer| drop(peer.take()));
    run(&mut world, peers, A_MINUTE);
    let events = peers[1].take();
    assert_eq!(messages(&events), [7]);
    // Bob may be back before alice, and then see the record that was there before.
    assert_eq!(sequences(&events).last(), Some(&3));
    assert!(events.iter().any(|event| matches!(event, Event::Slot { sealed, .. } if sealed == b"here")));
}

#[test]
fn a_peer_that_is_gone_is_absent_after_its_lease() {
    let (mut world, mut alice, mut bob) = pair();
    alice.take();
    lose(&mut world, &mut bob);
    run(&mut world, &mut [&mut alice], Duration::from_secs(119));
    assert_eq!(is_present(&alice.take()), [true; 0]);
    run(&mut world, &mut [&mut alice], Duration::from_secs(2));
    assert_eq!(is_present(&alice.take()), [false]);
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE);
    assert_eq!(is_present(&alice.take()), [true]);
}

#[test]
fn an_agent_with_many_slots_gets_them_all_there_within_the_quotas() {
    let (mut world, mut alice, mut bob) = pair();
    let others: Vec<_> = (100..160).collect();
    for n in &others {
        world.join(*n);
    }
    for n in &others {
        let to = crate::scene::agent(*n);
        assert_eq!(alice.client.put_slot(to, Slot::Endpoints, b"here".to_vec(), world.now), Ok(()));
        assert_eq!(alice.client.send(to, [*n as u8; 16], outgoing(), world.now), Ok(()));
    }
    alice.take();
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE);
    let events = alice.take();
    let sent = events.iter().filter(|event| matches!(event, Event::Sent { .. })).count();
    assert_eq!(sent, others.len(), "twenty at once, then one each second");
    assert!(world.registry.stats().over_identity_rate > 0);
    assert!(!events.iter().any(|event| matches!(event, Event::Refused { .. } | Event::Offline)));
    assert!(crate::store::Store::scan(&world.store, b"slot/", None, 99).is_ok_and(|slots| slots.len() == others.len()));
}

#[test]
fn thousands_of_watched_agents_are_told_again_after_each_connection() {
    let (mut world, mut alice, mut bob) = pair();
    let many: Vec<_> = (1_000..5_000).map(crate::scene::agent).collect();
    assert_eq!(alice.client.watch(&many, world.now), Ok(()));
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE);
    alice.take();
    lose(&mut world, &mut alice);
    run(&mut world, &mut [&mut alice, &mut bob], A_MINUTE);
    let events = alice.take();
    assert_eq!(is_present(&events).len(), many.len() + 1);
    assert_eq!(events.iter().filter(|event| **event == Event::Synced).count(), 1);
    assert_eq!(sequences(&events), [2], "the one record there is");
}
