//! Our own key: replaced while peers talk, removed, set again; and a configured peer that turns out to be ourselves.

use std::collections::BTreeMap;

use overlay_core::{Command, CommandError, PeerChange, PeerKey};
use overlay_sim::{Kind, World, key_pair, millis, minutes, seconds};

#[test]
fn a_new_key_ends_what_was_agreed_with_the_old_one_at_once() {
    let (mut world, alice, bob) = World::connected();
    world.set_private_key(alice, Some(key_pair(9).0));
    world.send(bob, world.v4(bob, alice).udp(b"in the session of the old key"));
    world.run_for(seconds(1));
    assert!(world.received(alice).iter().all(|received| !received.packet.ends_with(b"old key")));
    assert_eq!(world.drops(alice), BTreeMap::from([("unknown_receiver", 1)]));
    assert_eq!(world.ping(alice, bob), None);
    let drops: Vec<_> = world.drops(bob).into_keys().collect();
    assert_eq!(drops, ["handshake_unknown_peer"], "called with the new key");
}

#[test]
fn with_a_new_key_a_peer_that_knows_it_is_called_where_it_was_last_seen() {
    let (mut world, alice, bob) = World::connected();
    world.roam(bob, &["198.51.100.7:4242"]);
    assert!(world.ping(bob, alice).is_some());
    world.set_private_key(alice, Some(key_pair(9).0));
    world.set_peer(bob, alice, |_| {});
    assert_eq!(world.ping(alice, bob), Some(millis(40)), "one handshake, at once");
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}

#[test]
fn persistent_keepalive_calls_with_the_new_key_without_being_asked() {
    let (mut world, alice, bob) = World::connected();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.forget();
    world.set_private_key(alice, Some(key_pair(9).0));
    world.set_peer(bob, alice, |_| {});
    world.run_for(seconds(6));
    assert_eq!(world.handshakes(alice, bob), 2);
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}

#[test]
fn a_thousand_peers_are_called_one_after_the_other_and_one_that_is_waited_for_first() {
    let (mut world, alice, bob) = World::connected();
    for n in 0..1_000u16 {
        let mut public_key = [9; 32];
        public_key[..2].copy_from_slice(&n.to_be_bytes());
        let tag = world.tag_for(alice, PeerKey(public_key));
        let config = PeerChange {
            add: Some((PeerKey(public_key), Default::default())),
            endpoint: Some(([203, 0, 113, 1], 1_000 + n).into()),
            ..PeerChange::of(tag)
        };
        world.command(alice, Command::ChangePeer(Box::new(config))).expect("a new peer");
        let kept = PeerChange { persistent_keepalive: Some(Some(seconds(25))), ..PeerChange::of(tag) };
        world.command(alice, Command::ChangePeer(Box::new(kept))).expect("it is there");
    }
    world.run_for(seconds(120));
    world.forget();
    let start = world.now();
    world.set_private_key(alice, Some(key_pair(9).0));
    world.set_peer(bob, alice, |_| {});
    assert_eq!(world.ping(alice, bob), Some(millis(40)), "who is wanted does not wait for its turn");
    world.run_for(millis(1_500));
    let mut called: Vec<_> = world.sent_by(alice, Kind::Initiation).map(|sent| sent.at.since(start)).collect();
    called.truncate(1_001);
    assert_eq!(called.len(), 1_001);
    for burst in called.chunk_by(|a, b| a == b) {
        assert!(burst.len() <= 2, "{} at {:?}", burst.len(), burst[0]);
    }
}

#[test]
fn packets_that_wait_leave_with_the_new_key() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.set_peer(alice, bob, |_| {});
    let (private, public) = key_pair(9);
    world.send(alice, world.v4(alice, bob).udp(b"early"));
    world.run_for(seconds(2));
    assert_eq!(world.drops(bob), BTreeMap::from([("handshake_unknown_peer", 1)]));
    world.set_private_key(alice, Some(private));
    assert_eq!(world.key(alice), public);
    world.set_peer(bob, alice, |_| {});
    // Bob received the first call with the new key too early.
    world.run_for(seconds(6));
    assert_eq!(world.received(bob).len(), 1);
}

#[test]
fn a_key_that_we_have_already_changes_nothing() {
    let (mut world, alice, bob) = World::connected();
    world.set_private_key(alice, Some(key_pair(9).0));
    world.set_peer(bob, alice, |_| {});
    assert!(world.ping(alice, bob).is_some());
    world.set_private_key(alice, Some(key_pair(9).0));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.handshakes(alice, bob), 2);
}

#[test]
fn a_peer_whose_key_becomes_our_own_is_removed() {
    let mut world = World::new(7);
    let alice = world.host();
    let (private, public) = key_pair(9);
    let tag = world.tag_for(alice, public);
    let twin = PeerChange { add: Some((public, Default::default())), ..PeerChange::of(tag) };
    world.command(alice, Command::ChangePeer(Box::new(twin))).expect("it is nobody's key yet");
    world.set_private_key(alice, Some(private));
    let change = || Command::ChangePeer(Box::new(PeerChange::of(tag)));
    assert_eq!(world.command(alice, change()), Err(CommandError::UnknownPeer));
    let again = PeerChange { add: Some((public, Default::default())), ..PeerChange::of(tag) };
    assert_eq!(world.command(alice, Command::ChangePeer(Box::new(again))), Err(CommandError::OwnKey));
}

#[test]
fn without_a_key_nothing_is_sent_and_nothing_understood() {
    let (mut world, alice, bob) = World::connected();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(5)));
    world.set_private_key(alice, None);
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"to bob"));
    world.send(bob, world.v4(bob, alice).udp(b"to alice"));
    world.run_for(minutes(1));
    assert!(world.sent().iter().all(|sent| sent.from != alice));
    let drops = world.drops(alice);
    assert_eq!(drops["outbound_no_key"], 1);
    assert_eq!(drops["unknown_receiver"], 1);
    assert!(drops["handshake_no_key"] >= 9, "{drops:?}");
    assert_eq!(drops.len(), 3, "{drops:?}");
    assert!(world.wakeups(alice) < 10, "{} wake-ups for nothing", world.wakeups(alice));
}

#[test]
fn packets_that_wait_are_dropped_with_the_key() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.set_private_key(alice, None);
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_no_key", 1)]));
}

#[test]
fn an_initiation_stays_a_replay_while_the_key_is_away() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let (private, _) = key_pair(9);
    world.set_private_key(alice, Some(private));
    world.set_peer(bob, alice, |_| {});
    assert!(world.ping(bob, alice).is_some());
    let old = world.sent_by(bob, Kind::Initiation).last().expect("an initiation").clone();
    world.set_private_key(alice, None);
    world.set_private_key(alice, Some(key_pair(10).0));
    world.set_private_key(alice, Some(private));
    world.run_for(seconds(1));
    let elsewhere = "198.51.100.66:6".parse().expect("an address");
    assert!(world.ask(elsewhere, alice, &old.bytes).is_empty(), "an answer to a replayed initiation");
    assert_eq!(world.drops(alice), BTreeMap::from([("handshake_replay", 1)]));
    assert_eq!(world.ping(bob, alice), None, "bob's session is over");
}

#[test]
fn an_initiation_stays_a_replay_when_its_key_comes_back_after_handshakes_with_others() {
    let (mut world, alice, bob) = World::connected();
    let keys = [9, 10, 11, 12].map(|byte| key_pair(byte).0);
    let mut old = Vec::new();
    for key in keys {
        world.set_private_key(alice, Some(key));
        world.set_peer(bob, alice, |_| {});
        // Twice with each key, so that the keys' replay state must be kept separately.
        for _ in 0..2 {
            assert!(world.ping(bob, alice).is_some());
            old.push((key, world.sent_by(bob, Kind::Initiation).last().expect("an initiation").clone()));
            for (host, is_up) in [(alice, false), (bob, false), (alice, true), (bob, true)] {
                world.command(host, Command::SetUp(is_up)).expect("always possible");
            }
        }
    }
    for (key, initiation) in &old {
        world.set_private_key(alice, Some(*key));
        world.run_for(seconds(1));
        let elsewhere = "198.51.100.66:6".parse().expect("an address");
        assert!(world.ask(elsewhere, alice, &initiation.bytes).is_empty(), "an answer to a replayed initiation");
    }
    assert_eq!(world.drops(alice)["handshake_replay"], 8);
}
