//! How sessions begin: which side initiates, what is retried when, and what a restart or a new key changes.

use std::collections::BTreeMap;

use overlay_core::{Event, PeerKey};
use overlay_sim::{Kind, World, millis, minutes, seconds};

/// How many completed handshakes with `peer` a host has reported.
fn completed(world: &World, host: overlay_sim::HostId, peer: PeerKey) -> usize {
    let peer = world.tag(host, peer);
    let is_one = |event: &Event| matches!(event, Event::HandshakeCompleted(of, _) if *of == peer);
    world.events(host).iter().filter(|(_, event)| is_one(event)).count()
}

#[test]
fn a_handshake_is_counted_once_on_either_side() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(1));
    assert_eq!((world.handshakes(alice, bob), world.handshakes(bob, alice)), (1, 1));
    assert_eq!(completed(&world, alice, world.key(bob)), 1);
    assert_eq!(completed(&world, bob, world.key(alice)), 1);
    assert_eq!(world.stats(alice).initiations_sent.value(), 1);
    assert_eq!(world.stats(bob).initiations_received.value(), 1);
    assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
}

#[test]
fn a_responder_knows_a_session_only_when_the_initiator_has_used_it() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    // The response was sent at 10 ms and has not arrived yet. The first data comes at 30 ms.
    world.run_for(millis(25));
    assert_eq!(world.count(bob, Kind::Response), 1);
    assert_eq!(world.handshakes(bob, alice), 0);
    world.run_for(millis(5));
    assert_eq!(world.handshakes(bob, alice), 1);
}

#[test]
fn a_handshake_with_nothing_to_send_is_confirmed_by_a_keepalive() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(seconds(1));
    let kinds: Vec<_> = world.sent().iter().map(|sent| (sent.from, sent.kind())).collect();
    assert_eq!(kinds, [(alice, Kind::Initiation), (bob, Kind::Response), (alice, Kind::Keepalive)]);
    assert_eq!(world.handshakes(bob, alice), 1);
}

#[test]
fn a_handshake_works_over_ipv6_outside() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let v6 = world.outer(bob)[1];
    assert!(v6.is_ipv6());
    world.set_peer(alice, bob, |peer| peer.endpoint = Some(v6));
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
    assert!(world.sent().iter().all(|sent| sent.source.is_ipv6()));
}

#[test]
fn a_peer_without_an_endpoint_waits_to_be_called() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.set_peer(alice, bob, |peer| peer.endpoint = None);
    world.set_peer(bob, alice, |_| {});
    assert_eq!(world.ping(alice, bob), None);
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_no_endpoint", 1)]));
    assert!(world.sent().is_empty());
    assert_eq!(world.ping(bob, alice), Some(millis(40)));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.last_endpoint(alice, world.key(bob)), Some(world.outer(bob)[0]));
}

#[test]
fn retries_come_after_five_seconds_and_up_to_a_third_more_never_twice_alike() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(minutes(3));
    let times: Vec<_> = world.sent_by(alice, Kind::Initiation).map(|sent| sent.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!((16..=17).contains(&gaps.len()), "{gaps:?}");
    assert!(gaps.iter().all(|gap| (seconds(5)..=millis(5_334)).contains(gap)), "{gaps:?}");
    let (least, most) = (gaps.iter().min().expect("gaps"), gaps.iter().max().expect("gaps"));
    assert!(*most - *least > millis(100), "{gaps:?}");
}

#[test]
fn without_any_wish_attempts_stop_after_90_seconds() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    let began = world.now();
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(minutes(30));
    let last = world.sent_by(alice, Kind::Initiation).last().expect("attempts").at;
    assert!((seconds(84)..seconds(90)).contains(&last.since(began)), "{:?}", last.since(began));
    assert_eq!(world.drops(alice), BTreeMap::from([("staged_expired", 1)]));
    let tag = world.tag(alice, world.key(bob));
    assert_eq!(
        world.events(alice).iter().map(|(_, event)| event).collect::<Vec<_>>(),
        [&Event::Answering(tag, false), &Event::HandshakeFailed(tag)]
    );
    // Giving up is not final: the next packet starts a new handshake.
    world.mend(alice, bob);
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
}

#[test]
fn kept_only_by_persistent_keepalive_attempts_back_off_to_25_seconds() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(minutes(30));
    let times: Vec<_> = world.sent_by(alice, Kind::Initiation).map(|sent| sent.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let is_about = |gap: &std::time::Duration, count| (seconds(count)..=seconds(count) + millis(334)).contains(gap);
    assert!(gaps[..15].iter().all(|gap| is_about(gap, 5)), "{gaps:?}");
    assert!(gaps.iter().is_sorted_by_key(|gap| gap.as_secs()), "{gaps:?}");
    assert!(gaps[25..].iter().all(|gap| is_about(gap, 25)), "{gaps:?}");
    assert!(gaps.len() > 60, "it never stops");

    // An outgoing packet does not wait for the back-off.
    let before = world.now();
    world.mend(alice, bob);
    assert!(world.ping(alice, bob).is_some(), "{:?}", world.now().since(before));
    assert!(world.now().since(before) < seconds(6));
}

#[test]
fn simultaneous_initiations_end_in_a_session_that_loses_nothing() {
    for offset in 0..=40 {
        let mut world = World::new(offset);
        let (alice, bob) = world.pair();
        world.send(alice, world.v4(alice, bob).udp(b"from alice"));
        world.run_for(millis(offset));
        world.send(bob, world.v4(bob, alice).udp(b"from bob"));
        world.run_for(seconds(1));
        for (from, to) in [(alice, bob), (bob, alice)] {
            assert_eq!(world.received(to).len(), 1, "offset {offset} ms, to {to:?}");
            assert!((1..=2).contains(&world.handshakes(from, to)), "offset {offset} ms");
        }
        world.forget();
        for _ in 0..300 {
            world.send_ping(alice, world.v4(alice, bob));
            world.send_ping(bob, world.v6(bob, alice));
            world.run_for(seconds(1));
        }
        assert_eq!((world.answers(alice), world.answers(bob)), (300, 300), "offset {offset} ms");
        assert!(world.drops(alice).is_empty(), "offset {offset} ms: {:?}", world.drops(alice));
        assert!(world.drops(bob).is_empty(), "offset {offset} ms: {:?}", world.drops(bob));
    }
}

#[test]
fn a_restarted_initiator_replaces_its_session_at_once() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for round in 1..=5 {
        assert_eq!(world.ping(alice, bob), Some(millis(40)), "round {round}");
        assert_eq!(world.ping(bob, alice), Some(millis(20)), "round {round}: bob uses the new session as well");
        assert_eq!(world.handshakes(bob, alice), round);
        world.restart(alice);
    }
    // Every initiation was newer than those before the restarts.
    assert!(world.drops(bob).is_empty(), "{:?}", world.drops(bob));
}

#[test]
fn a_restarted_responder_is_called_again_after_15_seconds_of_silence() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(30));
    world.restart(bob);
    let restarted = world.now();
    while world.answers(alice) < 2 && world.now().since(restarted) < seconds(60) {
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(seconds(1));
    }
    let silence = world.now().since(restarted);
    assert!((seconds(15)..=seconds(17)).contains(&silence), "{silence:?}");
    assert_eq!(world.drops(bob).keys().collect::<Vec<_>>(), [&"unknown_receiver"]);
}

#[test]
fn a_restarted_responder_that_has_something_to_say_is_back_at_once() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.restart(bob);
    assert_eq!(world.ping(bob, alice), Some(millis(40)));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert!(world.drops(bob).is_empty() && world.drops(alice).is_empty());
}

#[test]
fn an_initiation_from_an_earlier_life_is_a_replay() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    let old = world.sent_by(alice, Kind::Initiation).next().expect("an initiation").clone();
    world.restart(alice);
    world.ping(alice, bob);
    world.run_for(seconds(1));
    let handshakes = world.handshakes(bob, alice);
    world.inject("198.51.100.66:6".parse().expect("an address"), bob, &old.bytes);
    world.run_for(seconds(1));
    assert_eq!(world.drops(bob), BTreeMap::from([("handshake_replay", 1)]));
    assert_eq!(world.handshakes(bob, alice), handshakes);
    assert_eq!(world.ping(bob, alice), Some(millis(20)), "the endpoint did not move");
}

#[test]
fn a_stranger_who_repeats_an_old_initiation_does_not_end_a_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    let old = world.sent_by(alice, Kind::Initiation).next().expect("an initiation").clone();
    let elsewhere = "198.51.100.66:6".parse().expect("an address");
    let start = world.now();
    let talk_at = |world: &mut World, at: u64, stranger: bool| {
        world.run_for((start + seconds(at)).since(world.now()));
        if stranger {
            assert!(world.ask(elsewhere, bob, &old.bytes).is_empty());
        } else {
            world.send(bob, world.v4(bob, alice).udp(b"no answer from inside"));
        }
    };
    // Each refused initiation advances the session engine's clock, so data sent after it seems to have waited all that
    // time.
    for (at, stranger) in [(12, true), (13, false), (17, true), (40, false), (60, true), (107, true), (108, true)] {
        talk_at(&mut world, at, stranger);
    }
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"still there"));
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 1, "the session alice uses still opens");
    assert_eq!(world.drops(bob), BTreeMap::from([("handshake_replay", 5)]));
}
