//! A host name with many addresses, some of which lead nowhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Command;
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, Kind, World, millis, seconds};

use crate::name_service::{Resolver, address};

const DEAD_V6: &str = "[2001:db8:dead::1]:51820";

/// When and where alice's initiations were sent, in milliseconds since the world began.
fn calls(world: &World, alice: HostId) -> Vec<(u128, SocketAddr)> {
    let began = world.now().since_start() - world.elapsed();
    let called = world.sent_by(alice, Kind::Initiation);
    called.map(|sent| ((sent.at.since_start() - began).as_millis(), sent.destination)).collect()
}

/// Alice and bob. Alice knows bob by a name that has these addresses, and has not talked to him yet.
fn scene(addresses: &[SocketAddr]) -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.set_peer(alice, bob, |peer| peer.endpoint = None);
    world.set_peer(bob, alice, |peer| peer.endpoint = None);
    world.resolve(alice, world.key(bob), addresses).expect("bob is a peer");
    (world, alice, bob)
}

#[test]
fn a_dead_family_costs_a_quarter_of_a_second_at_the_first_start() {
    let v4 = address("192.0.2.2:51820");
    let (mut world, alice, bob) = scene(&[address(DEAD_V6), v4]);
    assert_eq!(world.ping(alice, bob), Some(millis(250 + 40)));
    assert_eq!(calls(&world, alice), [(0, address(DEAD_V6)), (250, v4)]);
    assert_eq!(world.last_endpoint(alice, world.key(bob)), Some(v4));
    // The same initiation was sent twice, and bob answered it once.
    let sent: Vec<_> = world.sent_by(alice, Kind::Initiation).map(|sent| &sent.bytes).collect();
    assert!(sent[0] == sent[1] && world.count(bob, Kind::Response) == 1);
    world.run_for(seconds(600));
    assert_eq!(calls(&world, alice).len(), 2);
}

#[test]
fn a_peer_that_is_reached_by_both_families_answers_the_first_and_drops_the_other_as_a_replay() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.all_links(|link| link.latency = millis(400));
    world.set_peer(alice, bob, |peer| peer.endpoint = None);
    world.set_peer(bob, alice, |peer| peer.endpoint = None);
    let [v4, v6] = world.outer(bob).to_vec()[..] else { panic!("two addresses") };
    world.resolve(alice, world.key(bob), &[v6, v4]).expect("bob is a peer");
    assert!(world.ping(alice, bob).is_some());
    assert_eq!(world.drops(bob), BTreeMap::from([("handshake_replay", 1)]));
    assert_eq!(world.last_endpoint(alice, world.key(bob)), Some(v6));
}

#[test]
fn what_this_host_cannot_send_to_costs_no_time() {
    let v4 = address("192.0.2.2:51820");
    let (mut world, alice, bob) = scene(&[address(DEAD_V6), address("[2001:db8:dead::2]:1"), v4]);
    // If the host has no IPv6 address, the kernel refuses.
    world.roam(alice, &["192.0.2.1:51820"]);
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
    assert_eq!(calls(&world, alice), [(0, v4)]);
    // Every send that can be refused is refused. The next attempt follows after five seconds, not in a busy loop.
    world.set_peer(alice, bob, |_| {});
    world.roam(alice, &[]);
    world.run_for(seconds(600));
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(4));
    let refused = world.stats(alice).initiations_sent.value();
    world.run_for(seconds(40));
    assert!(world.stats(alice).initiations_sent.value() - refused <= 3 * 8);
}

#[test]
fn a_family_that_dies_is_left_within_20_s_and_the_endpoint_moves_only_by_an_answer() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        let [v4, v6] = world.outer(bob).to_vec()[..] else { panic!("two addresses") };
        world.set_peer(alice, bob, |peer| peer.endpoint = Some(v6));
        let key = world.key(bob);
        let mut resolver = Resolver::new(&mut world, alice, key, vec![v6, v4]);
        world.ping(alice, bob).expect("an answer");
        world.run_for(seconds(10 * seed));
        world.roam(bob, &["192.0.2.2:51820"]);
        world.forget();
        let took = resolver.run_until(&mut world, seconds(60), |world| {
            world.send(alice, world.v4(alice, bob).udp(b"are you there"));
            let v4_data = world.sent().iter().any(|sent| sent.kind() == Kind::Data && sent.destination == v4);
            let is_there = world.last_endpoint(alice, key) == Some(v4);
            assert!(is_there || !v4_data, "data goes where the peer was heard from");
            is_there
        });
        assert!(took.is_some_and(|took| took <= seconds(16)), "{seed}: {took:?}");
    }
}

/// IPv6 dies in one direction, and the peer calls too if it no longer hears us. If only its own datagrams are lost, it has
/// answered the first call before the copy over IPv4 arrives, so only the second call gets through.
#[test]
fn a_family_that_dies_in_one_direction_is_left_by_the_first_call_or_the_second() {
    for (there, back, limit) in [(true, true, 16), (true, false, 16), (false, true, 21)] {
        for seed in 0..100 {
            let mut world = World::new(seed);
            let (alice, bob) = world.pair();
            let [v4, v6] = world.outer(bob).to_vec()[..] else { panic!("two addresses") };
            world.set_peer(alice, bob, |peer| peer.endpoint = Some(v6));
            world.set_peer(bob, alice, |peer| peer.endpoint = None);
            let key = world.key(bob);
            let mut resolver = Resolver::new(&mut world, alice, key, vec![v6, v4]);
            world.ping(alice, bob).expect("an answer");
            world.run_for(millis(130 * seed));
            world.link(alice, bob, |link| link.is_ipv4_only = there);
            world.link(bob, alice, |link| link.is_ipv4_only = back);
            let ends = world.v4(alice, bob);
            let took = resolver.run_until(&mut world, seconds(60), |world| {
                world.send_ping(alice, ends);
                world.last_endpoint(alice, key) == Some(v4)
            });
            let case = format!("lost there: {there}, back: {back}, {seed}");
            assert!(took.is_some_and(|took| took <= seconds(limit)), "{case}: {took:?}");
        }
    }
}

#[test]
fn an_attempt_reaches_nine_addresses_and_no_more_whatever_the_name_service_says() {
    let lies = |round: u8| -> Vec<SocketAddr> { (0..30).map(|n| ([203, 0, round, n], 53).into()).collect() };
    let (mut world, alice, bob) = scene(&lies(0));
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(millis(4_900));
    assert_eq!(calls(&world, alice).len(), 8, "the first eight");
    // The name's addresses change every tenth of a second. One initiation goes to at most 17 of them.
    for round in 1..100 {
        world.resolve(alice, world.key(bob), &lies(round)).expect("bob is a peer");
        world.run_for(millis(100));
    }
    let mut copies = BTreeMap::new();
    for sent in world.sent_by(alice, Kind::Initiation) {
        *copies.entry(sent.bytes.clone()).or_insert(0) += 1;
    }
    assert!(copies.len() >= 3 && copies.values().all(|count| *count <= 17), "{:?}", copies.values());
    assert_eq!(copies.values().max(), Some(&17), "the bound is reached");
}

#[test]
fn a_candidate_inside_the_tunnel_is_no_loop() {
    let inside = address("10.99.0.1:51820");
    let (mut world, alice, bob) = scene(&[inside, address("192.0.2.2:51820")]);
    world.set_peer(alice, bob, |peer| peer.allowed_ips.push("10.99.0.0/16".parse().expect("a prefix")));
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(0));
    let mail = world.take_mail(inside);
    assert_eq!(mail.len(), 1);
    // The routing table returns alice's own initiation to her, before and after there is a session.
    let looped = Ends::new(world.v4(alice, bob).source, inside.ip()).udp_between(51_820, 51_820, &mail[0]);
    world.send(alice, looped.clone());
    world.run_for(seconds(1));
    world.send(alice, looped);
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_loop", 2)]));
}

#[test]
fn a_cookie_of_one_address_does_not_keep_the_peer_from_another() {
    // Bob is under load, so callers must prove their address.
    let [v6, v4] = [address(DEAD_V6), address("192.0.2.2:51820")];
    let (mut world, alice, bob) = scene(&[v6, v4]);
    let mut flood = overlay_sim::initiator::Initiator::new([9; 32], world.key(bob).0, 9);
    for n in 0..400 {
        let stranger = flood.initiate(overlay_sim::initiator::Timestamp::from_unix_seconds(n), n as u32);
        world.inject(address("198.51.100.1:1"), bob, &stranger.message);
    }
    let took = world.ping(alice, bob);
    assert!(took.is_none_or(|took| took < Duration::from_secs(6)), "{took:?}");
    assert!(world.run_until(seconds(6), |world| world.handshakes(alice, bob) == 1));
    assert_eq!(world.last_endpoint(alice, world.key(bob)), Some(v4));
}

#[test]
fn an_endpoint_that_is_configured_forgets_what_the_name_had() {
    let (mut world, alice, bob) = scene(&[address(DEAD_V6), address("[2001:db8:dead::2]:1")]);
    let v4 = address("192.0.2.2:51820");
    world.set_peer(alice, bob, |peer| peer.endpoint = Some(v4));
    assert!(world.ping(alice, bob).is_some());
    world.cut(alice, bob);
    world.forget();
    for _ in 0..300 {
        world.send(alice, world.v4(alice, bob).udp(b"are you there"));
        world.run_for(seconds(1));
    }
    assert!(calls(&world, alice).iter().all(|(_, at)| *at == v4));
    // The addresses of a forgotten name are not called either.
    world.resolve(alice, world.key(bob), &[address(DEAD_V6)]).expect("bob is a peer");
    world.command(alice, Command::ForgetCandidates(world.tag(alice, world.key(bob)))).expect("bob is a peer");
    world.run_for(seconds(1));
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"are you there"));
    world.run_for(seconds(60));
    assert!(calls(&world, alice).len() > 5 && calls(&world, alice).iter().all(|(_, at)| *at == v4));
}
