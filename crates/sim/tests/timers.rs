//! The effect of time on a session: renewal, keepalives, silence, and recovery from it.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::Instant;
use overlay_sim::{HostId, Kind, World, millis, minutes, packet, seconds};

/// How many initiations both sides sent.
fn initiations(world: &World) -> usize {
    world.sent().iter().filter(|sent| sent.kind() == Kind::Initiation).count()
}

/// The times at which a host sent this kind of message, counted from `start`.
fn times(world: &World, host: HostId, kind: Kind, start: Instant) -> Vec<Duration> {
    world.sent_by(host, kind).map(|sent| sent.at.since(start)).collect()
}

#[test]
fn ten_minutes_of_traffic_renew_the_session_every_two_minutes_and_lose_nothing() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let start = world.now();
    for _ in 0..6_000 {
        world.send_ping(alice, world.v4(alice, bob));
        world.send_ping(bob, world.v6(bob, alice));
        world.run_for(millis(100));
    }
    world.run_for(seconds(1));
    assert_eq!((world.answers(alice), world.answers(bob)), (6_000, 6_000));
    assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());

    let renewals = times(&world, alice, Kind::Initiation, start);
    assert_eq!(renewals.len(), 5, "{renewals:?}");
    for pair in renewals.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((seconds(120)..=seconds(121)).contains(&gap), "the lent clock says {gap:?}: {renewals:?}");
    }
    let handshakes = [world.handshakes(alice, bob), world.handshakes(bob, alice)];
    assert!(handshakes.iter().all(|count| (5..=6).contains(count)), "{handshakes:?}");
}

/// Ten minutes of one-way traffic. Packet n carries the number n.
fn one_way(world: &mut World, from: HostId, to: HostId) {
    world.forget();
    for n in 0..600u32 {
        world.send(from, world.v4(from, to).udp(&n.to_be_bytes()));
        world.run_for(seconds(1));
    }
    world.run_for(seconds(1));
    let arrived: Vec<_> = world.received(to).iter().filter_map(|it| packet::udp_payload(&it.packet)).collect();
    let expected: Vec<_> = (0..600u32).map(u32::to_be_bytes).collect();
    assert_eq!(arrived, expected);
    assert!(world.drops(from).is_empty() && world.drops(to).is_empty());
}

#[test]
fn one_way_traffic_of_the_initiator_arrives_and_renews_its_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    one_way(&mut world, alice, bob);
    assert!((5..=6).contains(&initiations(&world)), "{}", initiations(&world));
    assert_eq!(world.count(bob, Kind::Data), 0);
    let keepalives = world.count(bob, Kind::Keepalive);
    assert!((50..=60).contains(&keepalives), "one in ten seconds: {keepalives}");
}

#[test]
fn one_way_traffic_of_the_responder_arrives_and_the_session_is_renewed() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    one_way(&mut world, bob, alice);
    // The initiator renews before 165 s (paper, section 6.2). The other side may renew earlier.
    assert!((3..=6).contains(&initiations(&world)), "{}", initiations(&world));
}

#[test]
fn a_pause_costs_at_most_one_handshake_whoever_speaks_first() {
    let pauses = [
        15, 16, 20, 25, 30, 45, 60, 90, 105, 110, 115, 119, 120, 121, 125, 135, 150, 160, 164, 166, 170, 175, 179, 180,
        181, 185, 200, 240, 300, 359, 361, 400, 500, 539, 540, 541, 560, 600, 1_000,
    ];
    for pause in pauses {
        for alice_speaks in [true, false] {
            let mut world = World::new(pause);
            let (alice, bob) = world.pair();
            world.ping(alice, bob);
            world.run_for(seconds(pause));
            world.forget();
            let (first, second) = if alice_speaks { (alice, bob) } else { (bob, alice) };
            let answer = world.ping(first, second);
            assert!(answer.is_some_and(|after| after <= millis(40)), "after {pause} s: {answer:?}");
            for _ in 0..15 {
                assert!(world.ping(first, second).is_some());
                world.run_for(seconds(1));
            }
            world.run_for(seconds(60));
            // Traffic renews the session after 120 s. From 180 s on the session has expired.
            let most = if pause + 16 < 120 { 0 } else { 1 };
            assert!(initiations(&world) <= most, "after {pause} s: {} initiations", initiations(&world));
            assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
        }
    }
}

#[test]
fn a_packet_now_and_then_renews_the_session_no_more_often_than_steady_traffic() {
    for period in [5, 9, 10, 11, 14, 15, 16, 20, 25, 30, 45, 60, 100] {
        for both in [true, false] {
            let mut world = World::new(period);
            let (alice, bob) = world.pair();
            for _ in 0..(600 / period) {
                assert!(world.ping(alice, bob).is_some_and(|after| after <= millis(40)), "every {period} s");
                if both {
                    assert!(world.ping(bob, alice).is_some());
                }
                world.run_for(seconds(period));
            }
            assert!(initiations(&world) <= 6, "every {period} s: {} initiations", initiations(&world));
            assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
        }
    }
}

#[test]
fn unanswered_packets_now_and_then_cause_no_handshakes_of_their_own() {
    for period in [5, 9, 10, 11, 14, 15, 16, 20, 25, 30, 45, 60, 100] {
        let mut world = World::new(period);
        let (alice, bob) = world.pair();
        for _ in 0..(600 / period) {
            world.send(alice, world.v4(alice, bob).udp(b"no answer"));
            world.run_for(seconds(period));
        }
        assert_eq!(world.received(bob).len() as u64, 600 / period, "every {period} s");
        assert!(initiations(&world) <= 6, "every {period} s: {} initiations", initiations(&world));
    }
}

#[test]
fn data_that_got_no_answer_gets_one_keepalive_after_ten_seconds() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(11));
    world.forget();
    let start = world.now();
    world.send(alice, world.v4(alice, bob).udp(b"one"));
    world.run_for(seconds(3));
    world.send(alice, world.v4(alice, bob).udp(b"two"));
    world.run_for(seconds(90));
    let keepalives = times(&world, bob, Kind::Keepalive, start);
    assert_eq!(keepalives, [seconds(10) + millis(10)], "ten seconds after the first");
    assert_eq!(world.count(alice, Kind::Keepalive), 0, "a keepalive wants no answer");
    assert_eq!(initiations(&world), 0);
}

#[test]
fn an_answer_within_ten_seconds_makes_the_keepalive_unnecessary() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(11));
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"question"));
    world.run_for(seconds(9));
    world.send(bob, world.v4(bob, alice).udp(b"answer"));
    world.run_for(seconds(60));
    assert_eq!(world.count(bob, Kind::Keepalive), 0);
    assert_eq!(world.count(alice, Kind::Keepalive), 1, "the answer was data too");
}

#[test]
fn data_into_silence_starts_a_handshake_after_15_seconds_and_up_to_a_third_more() {
    let mut waits = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        world.ping(alice, bob);
        world.run_for(seconds(40));
        world.cut(alice, bob);
        world.forget();
        let start = world.now();
        world.send(alice, world.v4(alice, bob).udp(b"into silence"));
        world.run_for(seconds(18));
        let initiations = times(&world, alice, Kind::Initiation, start);
        let [wait] = initiations[..] else { panic!("seed {seed}: {initiations:?}") };
        assert!((seconds(15)..=millis(15_333)).contains(&wait), "seed {seed}: {wait:?}");
        waits.insert(wait);
    }
    assert!(waits.len() >= 15, "with jitter: {waits:?}");
}

#[test]
fn persistent_keepalive_leaves_no_gap_longer_than_its_interval() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(minutes(30));
    let sent: Vec<_> = world.sent().iter().filter(|sent| sent.from == alice).map(|sent| sent.at).collect();
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap <= seconds(25) + millis(20)), "{gaps:?}");
    // 72 keepalives, and two more messages for each of 14 renewals.
    assert!((70..=102).contains(&sent.len()), "{}", sent.len());
    // A keepalive renews the session like data does, so the next one never finds it expired.
    assert!((14..=15).contains(&world.handshakes(alice, bob)), "{}", world.handshakes(alice, bob));
    assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
}

#[test]
fn persistent_keepalive_keeps_a_peer_reachable_that_cannot_call() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.set_peer(bob, alice, |peer| peer.endpoint = None);
    world.run_for(seconds(1));
    for _ in 0..100 {
        world.run_for(seconds(37));
        let answer = world.ping(bob, alice);
        assert!(answer.is_some_and(|after| after <= millis(40)), "{answer:?} after {:?}", world.elapsed());
    }
}

#[test]
fn persistent_keepalive_stays_silent_while_there_is_traffic() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(seconds(1));
    world.forget();
    for _ in 0..100 {
        world.ping(alice, bob);
        world.run_for(seconds(1));
    }
    assert_eq!(world.count(alice, Kind::Keepalive), 0);
}

#[test]
fn persistent_keepalive_can_be_set_and_taken_away_while_running() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(10)));
    world.forget();
    world.run_for(seconds(95));
    assert!((9..=10).contains(&world.count(alice, Kind::Keepalive)));
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = None);
    world.run_for(minutes(3));
    world.forget();
    world.run_for(minutes(20));
    assert_eq!(world.sent().iter().filter(|sent| sent.from == alice).count(), 0);
}
