//! When a peer is reported as not answering, and when it is not.

use std::time::Duration;

use overlay_core::Event;
use overlay_sim::{HostId, HostOptions, Kind, World, millis, seconds};

use crate::name_service::{Resolver, address, answering};

#[test]
fn data_that_goes_unanswered_for_15_s_makes_a_peer_suspect_and_anything_authentic_ends_it() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(40));
    world.cut(alice, bob);
    world.forget();
    let began = world.now();
    world.send(alice, world.v4(alice, bob).udp(b"into silence"));
    world.run_for(seconds(30));
    let bob_tag = world.tag(alice, world.key(bob));
    let at = world.events(alice).iter().find(|(_, event)| *event == Event::Answering(bob_tag, false));
    assert_eq!(at.map(|(at, _)| at.since(began)), Some(seconds(15)));
    assert_eq!(world.stats(alice).peers_suspected.value(), 1);
    world.mend(alice, bob);
    world.run_for(seconds(6));
    assert_eq!(answering(&world, alice, world.key(bob)), [false, true]);
    assert_eq!(answering(&world, bob, world.key(alice)), [], "he was owed nothing");
}

#[test]
fn an_old_address_that_answers_late_stays_the_endpoint() {
    for late in [15, 16, 20, 30, 60, 100] {
        let mut world = World::new(late);
        let (alice, bob) = world.pair();
        world.ping(alice, bob);
        let (key, nowhere) = (world.key(bob), address("203.0.113.99:1"));
        let home = world.outer(bob)[0];
        let mut resolver = Resolver::new(&mut world, alice, key, vec![nowhere]);
        world.cut(alice, bob);
        for _ in 0..late {
            world.send(alice, world.v4(alice, bob).udp(b"are you there"));
            resolver.run(&mut world, seconds(1));
        }
        world.mend(alice, bob);
        world.forget();
        let took = resolver.run_until(&mut world, seconds(10), |world| {
            world.send(alice, world.v4(alice, bob).udp(b"are you there"));
            !world.received(bob).is_empty()
        });
        assert!(took.is_some_and(|took| took <= seconds(6)), "{late} s: {took:?}");
        resolver.run(&mut world, seconds(20));
        assert_eq!(world.last_endpoint(alice, key), None, "it never moved");
        assert!(world.ping(alice, bob).is_some());
        assert!(world.sent_by(alice, Kind::Data).all(|sent| sent.destination == home));
    }
}

#[test]
fn while_a_session_works_another_answer_changes_nothing() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.ping(alice, bob);
    let (key, nowhere) = (world.key(bob), address("203.0.113.99:1"));
    for minute in 0..20 {
        world.resolve(alice, key, &[nowhere]).expect("bob is a peer");
        for _ in 0..20 {
            // Some of the time there is traffic, and the rest only keepalives.
            if minute % 4 < 2 {
                assert!(world.ping(alice, bob).is_some());
            }
            world.run_for(seconds(3));
        }
    }
    assert!(world.take_mail(nowhere).is_empty());
    assert_eq!(answering(&world, alice, key), []);
    assert_eq!(world.last_endpoint(alice, key), None);
}

#[test]
fn a_renewal_that_is_lost_is_repeated_where_the_peer_is_and_nowhere_else() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    let (key, nowhere) = (world.key(bob), address("203.0.113.99:1"));
    world.resolve(alice, key, &[nowhere]).expect("bob is a peer");
    world.run_for(seconds(119));
    world.ping(alice, bob);
    world.cut(alice, bob);
    world.run_for(seconds(1));
    world.send(alice, world.v4(alice, bob).udp(b"time to renew"));
    world.run_for(seconds(8));
    // A changed name is not a reason to look elsewhere either while an initiation is waiting for its answer.
    world.resolve(alice, key, &[nowhere]).expect("bob is a peer");
    world.mend(alice, bob);
    assert!(world.run_until(seconds(6), |world| world.handshakes(alice, bob) == 2));
    assert!(world.take_mail(nowhere).is_empty());
    assert_eq!(answering(&world, alice, key), []);
}

#[test]
fn one_way_traffic_and_pings_now_and_then_make_nobody_suspect() {
    for period in [1, 5, 9, 10, 11, 14, 15, 16, 20, 25, 60] {
        let mut world = World::new(period);
        let (alice, bob) = world.pair();
        for _ in 0..(900 / period) {
            world.send(alice, world.v4(alice, bob).udp(b"no answer"));
            world.run_for(seconds(period));
        }
        assert_eq!(answering(&world, alice, world.key(bob)), [], "every {period} s");
        assert_eq!(answering(&world, bob, world.key(alice)), [], "every {period} s");
    }
}

#[test]
fn a_peer_that_calls_again_and_again_because_it_does_not_hear_us_is_silent() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (key, other) = (carol.key(), address("203.0.113.99:1"));
    world.resolve(alice, key, &[carol.address, other]).expect("carol is a peer");
    world.connect(&mut carol);
    world.run_for(seconds(1));
    world.forget();
    let began = world.now();
    for _ in 0..4 {
        // She receives neither the data nor the response.
        let calling = carol.initiate();
        assert_eq!(world.ask(carol.address, alice, &calling.message).len(), 1, "a response");
        for _ in 0..50 {
            world.send(alice, world.from_outsider(&carol).reversed().udp(b"are you there"));
            world.run_for(millis(100));
        }
    }
    let tag = world.tag(alice, key);
    let at = world.events(alice).iter().find(|(_, event)| *event == Event::Answering(tag, false));
    assert_eq!(at.map(|(at, _)| at.since(began)), Some(seconds(15)));
    assert!(!world.take_mail(other).is_empty(), "her other address is called");
    // That she sends inside a session proves that she hears alice.
    let mut session = world.connect(&mut carol);
    world.inject(carol.address, alice, &session.seal(&[]));
    assert_eq!(answering(&world, alice, key), [false, true]);
}

#[test]
fn a_lossy_path_makes_a_peer_suspect_rarely_and_costs_it_nothing() {
    let mut suspected = 0;
    for seed in 0..10 {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        let (key, addresses) = (world.key(bob), world.outer(bob).to_vec());
        let mut resolver = Resolver::new(&mut world, alice, key, addresses);
        world.ping(alice, bob);
        world.all_links(|link| link.loss = 0.2);
        // The worst case: alice receives only one keepalive in ten seconds.
        for _ in 0..600 {
            world.send(alice, world.v4(alice, bob).udp(b"no answer"));
            resolver.run(&mut world, seconds(1));
        }
        suspected += world.stats(alice).peers_suspected.value();
        assert!(world.received(bob).len() > 400, "{}", world.received(bob).len());
        let answers = answering(&world, alice, key);
        assert!(answers.chunks(2).all(|pair| pair[0] != *pair.get(1).unwrap_or(&true)), "{answers:?}");
    }
    // Each lost keepalive leaves 20 s between two. The kernel would start a handshake then, too.
    assert!(suspected <= 150, "{suspected} in 100 minutes");
}

#[test]
fn a_peer_that_is_called_and_does_not_answer_is_reported_after_5_s() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    let began = world.now();
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(600));
    let events: Vec<_> = world.events(alice).iter().map(|(at, event)| (at.since(began), event.clone())).collect();
    assert_eq!(events[0], (seconds(5), Event::Answering(world.tag(alice, world.key(bob)), false)));
    assert_eq!(answering(&world, alice, world.key(bob)), [false], "once");
    assert_eq!(world.stats(alice).peers_suspected.value(), 0, "there was no session to doubt");
}

#[test]
fn a_peer_that_is_silent_and_kept_alive_is_called_until_it_answers() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.ping(alice, bob);
    world.cut(alice, bob);
    world.send(alice, world.v4(alice, bob).udp(b"into silence"));
    world.run_for(seconds(16));
    // The handshake is given up after 90 s and the session ends after 180 s, but attempts continue throughout.
    for _ in 0..20 {
        world.forget();
        world.run_for(seconds(30));
        assert!(world.count(alice, Kind::Initiation) > 0, "{:?}", world.elapsed());
    }
    world.mend(alice, bob);
    assert!(world.run_until(seconds(26), |world| world.handshakes(alice, bob) == 2));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
}

/// Two hosts that search for the path MTU, and a path from alice to bob that fails when the search is `progress` old. Bob
/// still sends large packets and pings.
fn one_way_failure(seed: u64, progress: Duration, bob_sends: usize) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    let options = HostOptions { mtu: 1_420, max_mtu: 8_940, mtu_discovery: true, ..HostOptions::default() };
    let (alice, bob) = (world.host_with(options.clone()), world.host_with(options));
    world.introduce(alice, bob);
    world.all_links(|link| link.mtu = 1_500);
    world.ping(alice, bob).expect("an answer");
    if bob_sends > 0 {
        world.send(bob, world.v4(bob, alice).udp(&vec![0; bob_sends]));
    }
    world.run_for(progress);
    world.link(alice, bob, |link| link.loss = 1.0);
    world.forget();
    (world, alice, bob)
}

#[test]
fn a_peer_that_only_asks_is_silent_because_it_may_not_hear_us() {
    for progress in [0, 20, 100, 300, 1_000, 1_500, 2_500, 10_000] {
        let (mut world, alice, bob) = one_way_failure(progress, millis(progress), 1_000);
        let began = world.now();
        world.run_for(millis(200));
        for _ in 0..100 {
            world.send(alice, world.v4(alice, bob).udp(b"are you there"));
            world.run_for(millis(200));
        }
        let tag = world.tag(alice, world.key(bob));
        let at = world.events(alice).iter().find(|(_, event)| *event == Event::Answering(tag, false));
        let took = at.map(|(at, _)| at.since(began));
        assert!(took.is_some_and(|took| took <= millis(15_400)), "{progress} ms into the search: {took:?}");
    }
}

#[test]
fn a_peer_that_asks_still_owes_a_keepalive_and_sends_it() {
    for period in [700, 1_100, 3_000, 9_000, 11_000] {
        let mut world = World::new(period);
        let options = HostOptions { mtu: 1_420, max_mtu: 8_940, mtu_discovery: true, ..HostOptions::default() };
        let (alice, bob) = (world.host_with(options.clone()), world.host_with(options));
        world.introduce(alice, bob);
        world.all_links(|link| link.mtu = 1_500);
        for _ in 0..(120_000 / period) {
            // Large packets in both directions keep both searches going. Nothing else is said.
            world.send(alice, world.v4(alice, bob).udp(&[0; 1_300]));
            world.run_for(millis(period));
        }
        assert_eq!(answering(&world, alice, world.key(bob)), [], "every {period} ms");
        assert_eq!(answering(&world, bob, world.key(alice)), [], "every {period} ms");
    }
}
