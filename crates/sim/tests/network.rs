//! Bad networks: loss, reordering, duplicates, corruption, replays, hosts that move, and peers that are away for a
//! while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use overlay_sim::{HostId, Kind, Sent, World, millis, minutes, packet, seconds};

/// How many duplicates of these kinds arrived: all arrivals of each datagram except the first.
fn doubles(world: &World, from: HostId, kinds: &[Kind]) -> u64 {
    let is_one = |sent: &&Sent| sent.from == from && kinds.contains(&sent.kind());
    world.sent().iter().filter(is_one).map(|sent| sent.arrivals.len().saturating_sub(1) as u64).sum()
}

/// The numbers in the UDP packets that a host received, in order.
fn numbers(world: &World, host: HostId) -> Vec<u32> {
    let number = |payload: &[u8]| payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    world.received(host).iter().filter_map(|it| packet::udp_payload(&it.packet).and_then(number)).collect()
}

#[test]
fn a_fifth_of_all_datagrams_lost_costs_a_fifth_of_the_packets_and_nothing_else() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        world.all_links(|link| link.loss = 0.2);
        for n in 0..6_000u32 {
            world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
            world.send(bob, world.v4(bob, alice).udp(&n.to_be_bytes()));
            world.run_for(millis(100));
        }
        for host in [alice, bob] {
            let arrived = numbers(&world, host);
            assert!((4_500..5_100).contains(&arrived.len()), "seed {seed}: {} of 6,000", arrived.len());
            assert!(arrived.is_sorted(), "seed {seed}");
            assert!(world.drops(host).is_empty(), "seed {seed}: {:?}", world.drops(host));
        }
        assert!((5..=8).contains(&world.handshakes(alice, bob)), "seed {seed}: {}", world.handshakes(alice, bob));
    }
}

#[test]
fn disorder_within_the_window_loses_nothing() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.all_links(|link| link.reorder = 0.5);
    for n in 0..5_000u32 {
        world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
        world.run_for(millis(1));
    }
    world.run_for(seconds(1));
    let arrived = numbers(&world, bob);
    assert!(!arrived.is_sorted());
    assert_eq!(arrived.len(), 5_000);
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>().len(), 5_000);
    assert!(world.drops(bob).is_empty(), "{:?}", world.drops(bob));
}

#[test]
fn every_double_is_delivered_once_and_counted() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.all_links(|link| link.duplicate = 0.3);
    for n in 0..3_000u32 {
        world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
        world.send(bob, world.v4(bob, alice).udp(&n.to_be_bytes()));
        world.run_for(millis(30));
    }
    world.run_for(seconds(1));
    for (from, to) in [(alice, bob), (bob, alice)] {
        assert_eq!(numbers(&world, to), (0..3_000).collect::<Vec<_>>());
        let expected = doubles(&world, from, &[Kind::Data, Kind::Keepalive]);
        assert!(expected > 800);
        assert_eq!(world.drops(to), BTreeMap::from([("replay", expected)]));
    }
}

#[test]
fn every_damaged_datagram_is_dropped_and_counted_once() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.all_links(|link| link.corrupt = 0.1);
    for _ in 0..3_000 {
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(millis(300));
    }
    world.run_for(seconds(1));
    assert!((2_300..2_600).contains(&world.answers(alice)), "{}", world.answers(alice));
    for (from, to) in [(alice, bob), (bob, alice)] {
        // mac2 is verified only under load.
        let matters = |sent: &&Sent| {
            let is_handshake = matches!(sent.kind(), Kind::Initiation | Kind::Response);
            sent.flipped.is_some_and(|bit| !is_handshake || bit / 8 < sent.bytes.len() - 16)
        };
        let damaged = world.sent().iter().filter(|sent| sent.from == from).filter(matters).count() as u64;
        assert!(damaged > 200);
        assert_eq!(world.drops(to).values().sum::<u64>(), damaged, "{:?}", world.drops(to));
    }
}

#[test]
fn a_storm_of_everything_lets_most_packets_through_and_breaks_nothing() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        world.all_links(|link| {
            link.jitter = millis(80);
            link.loss = 0.1;
            link.duplicate = 0.1;
            link.reorder = 0.2;
            link.corrupt = 0.05;
        });
        for n in 0..6_000u32 {
            world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
            world.send(bob, world.v6(bob, alice).udp(&n.to_be_bytes()));
            world.run_for(millis(100));
        }
        for host in [alice, bob] {
            let arrived = numbers(&world, host);
            let distinct: BTreeSet<_> = arrived.iter().collect();
            assert!(arrived.len() > 4_800, "seed {seed}: {} of 6,000", arrived.len());
            assert_eq!(arrived.len(), distinct.len(), "seed {seed}: a packet was delivered twice");
        }
        world.all_links(|link| *link = overlay_sim::Link::default());
        assert!(world.ping(alice, bob).is_some() && world.ping(bob, alice).is_some(), "seed {seed}");
    }
}

#[test]
fn a_replay_of_every_datagram_changes_nothing_and_is_counted() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for _ in 0..20 {
        world.ping(alice, bob);
        world.ping6(bob, alice);
    }
    world.run_for(seconds(30));
    let recorded: Vec<_> = world.sent().to_vec();
    let (received, endpoints) = ([alice, bob].map(|host| world.received(host).len()), world.events(alice).len());
    let elsewhere: SocketAddr = "198.51.100.66:6".parse().expect("an address");
    for source in [None, Some(elsewhere)] {
        for sent in &recorded {
            let to = if sent.from == alice { bob } else { alice };
            let answers = world.ask(source.unwrap_or(elsewhere), to, &sent.bytes);
            assert!(answers.is_empty(), "an answer to a replayed {:?}", sent.kind());
            world.inject(source.unwrap_or(sent.source), to, &sent.bytes);
        }
    }
    world.run_for(seconds(30));
    assert_eq!([alice, bob].map(|host| world.received(host).len()), received);
    assert_eq!(world.events(alice).len(), endpoints, "{:?}", world.events(alice));

    let count = |from, kind| 4 * world.count(from, kind) as u64;
    let bobs = count(alice, Kind::Data) + count(alice, Kind::Keepalive);
    assert_eq!(world.drops(bob), BTreeMap::from([("replay", bobs), ("handshake_replay", 4)]));
    let alices = count(bob, Kind::Data) + count(bob, Kind::Keepalive);
    // A response that does not match any open initiation.
    assert_eq!(world.drops(alice), BTreeMap::from([("replay", alices), ("handshake_forged", 4)]));
    assert_eq!(world.ping(alice, bob), Some(millis(20)), "the session and both endpoints are as they were");
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}

#[test]
fn a_host_that_moves_is_followed_from_its_next_datagram() {
    for alice_moves in [true, false] {
        let mut world = World::new(7);
        let (alice, bob) = world.pair();
        world.ping(alice, bob);
        let (mover, other) = if alice_moves { (alice, bob) } else { (bob, alice) };
        world.roam(mover, &["198.51.100.7:4242"]);
        assert_eq!(world.ping(mover, other), Some(millis(20)));
        assert_eq!(world.last_endpoint(other, world.key(mover)), Some(world.outer(mover)[0]));
        assert_eq!(world.ping(other, mover), Some(millis(20)));
        assert_eq!(world.handshakes(alice, bob), 1, "the session moved along");
    }
}

#[test]
fn a_host_that_moves_from_ipv4_to_ipv6_is_followed() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    // Alice keeps both families. Bob's endpoint for her is the address that she sent from. From now on he has only
    // IPv6.
    let v6 = world.outer(alice)[1];
    world.roam(bob, &["[2001:db8:7::7]:4242"]);
    world.set_peer(bob, alice, |peer| peer.endpoint = Some(v6));
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
}

#[test]
fn a_silent_host_that_moved_is_found_by_its_persistent_keepalive() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(bob, alice, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.ping(alice, bob);
    world.roam(bob, &["198.51.100.7:4242"]);
    world.run_for(seconds(26));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
}

#[test]
fn moving_ten_times_within_a_stream_loses_only_what_was_under_way() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for n in 0..1_000u32 {
        if n % 100 == 50 {
            world.roam(bob, &[&format!("198.51.100.{}:4242", n / 100 + 1)]);
        }
        world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
        world.send(bob, world.v4(bob, alice).udp(&n.to_be_bytes()));
        world.run_for(millis(20));
    }
    world.run_for(seconds(1));
    assert_eq!(numbers(&world, alice).len(), 1_000);
    assert!(numbers(&world, bob).len() >= 1_000 - 20, "{}", numbers(&world, bob).len());
    assert_eq!(world.handshakes(alice, bob), 1);
}

#[test]
fn answers_leave_from_the_address_that_was_spoken_to() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.roam(bob, &["192.0.2.2:51820", "198.51.100.2:51820"]);
    let second = world.outer(bob)[1];
    world.set_peer(alice, bob, |peer| peer.endpoint = Some(second));
    assert!(world.ping(alice, bob).is_some());
    assert!(world.sent().iter().filter(|sent| sent.from == bob).all(|sent| sent.source == second));
    assert_eq!(world.last_endpoint(alice, world.key(bob)), None, "it is where the config said");
}

/// Cuts the connection between two hosts for `outage`, with pings from these hosts every second in the meantime.
/// Returns how long after the end of the outage the first ping arrives.
fn back_after(outage: Duration, talkers: [bool; 2], talks_meanwhile: bool, restarts: bool) -> Option<Duration> {
    let mut world = World::new(outage.as_millis() as u64);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(5));
    world.cut(alice, bob);
    if restarts {
        world.restart(bob);
    }
    let hosts = [(alice, bob), (bob, alice)];
    let talk = |world: &mut World| {
        for ((from, to), talks) in hosts.into_iter().zip(talkers) {
            if talks {
                world.send(from, world.v4(from, to).udp(b"are you there"));
            }
        }
    };
    let end = world.now() + outage;
    while talks_meanwhile && world.now() + millis(700) <= end {
        talk(&mut world);
        world.run_for(millis(700));
    }
    world.run_for(end.since(world.now()));
    world.mend(alice, bob);
    world.forget();
    let mended = world.now();
    while world.now().since(mended) < seconds(60) {
        talk(&mut world);
        let arrived = hosts.iter().zip(talkers).all(|((_, to), talks)| !talks || !world.received(*to).is_empty());
        if arrived {
            return Some(world.now().since(mended));
        }
        world.run_for(millis(100));
    }
    None
}

#[test]
fn a_peer_that_was_gone_is_reached_within_six_seconds_of_its_return_when_anybody_talks() {
    let outages = [
        20, 60, 85, 88, 89, 90, 91, 92, 95, 100, 120, 150, 170, 175, 179, 180, 181, 185, 200, 265, 270, 300, 355, 500,
        530, 539, 540, 541, 545, 600, 635, 700,
    ];
    let mut late = Vec::new();
    for outage in outages {
        for talkers in [[true, false], [false, true], [true, true]] {
            for talks_meanwhile in [true, false] {
                for restarts in [true, false] {
                    let after = back_after(seconds(outage), talkers, talks_meanwhile, restarts);
                    // Alice's session is old, and bob does not know it. She must notice his silence first.
                    let is_deaf = restarts && !talks_meanwhile && talkers == [true, false] && outage < 175;
                    let limit = if is_deaf { seconds(21) } else { seconds(6) };
                    let case = format!("{outage} s, {talkers:?}, meanwhile {talks_meanwhile}, restarts {restarts}");
                    if after.is_none_or(|after| after > limit) {
                        late.push(format!("{case}: {after:?}"));
                    }
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[test]
fn a_peer_that_was_gone_is_back_within_30_seconds_by_persistent_keepalive_alone() {
    for outage in [60, 90, 100, 150, 180, 200, 300, 540, 600, 1_200] {
        let mut world = World::new(outage);
        let (alice, bob) = (world.host(), world.host());
        world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
        // Bob cannot initiate.
        world.set_peer(bob, alice, |peer| peer.endpoint = None);
        world.run_for(seconds(5));
        world.cut(alice, bob);
        if outage >= 180 {
            world.restart(bob);
        }
        world.run_for(seconds(outage));
        world.mend(alice, bob);
        let heard = |world: &World| world.peer_stats(bob, world.key(alice)).received_wire_bytes.value();
        let before = heard(&world);
        assert!(world.run_until(seconds(30), |world| heard(world) > before), "after {outage} s");
        world.run_for(seconds(1));
        assert!(world.ping(bob, alice).is_some_and(|after| after <= millis(40)), "after {outage} s");
    }
}

#[test]
fn one_deaf_direction_does_not_keep_the_peers_apart_when_it_heals() {
    // Bob hears alice, but she does not hear him. He answers every initiation, and no session is ever confirmed.
    for outage in [20, 40, 60, 90, 120, 200, 300] {
        let mut world = World::new(outage);
        let (alice, bob) = world.pair();
        world.ping(alice, bob);
        world.link(bob, alice, |link| link.loss = 1.0);
        for _ in 0..outage {
            world.send_ping(alice, world.v4(alice, bob));
            world.run_for(seconds(1));
        }
        world.link(bob, alice, |link| link.loss = 0.0);
        world.forget();
        let mended = world.now();
        while world.answers(alice) == 0 && world.now().since(mended) < seconds(60) {
            world.send_ping(alice, world.v4(alice, bob));
            world.run_for(millis(100));
        }
        let after = world.now().since(mended);
        assert!(after < seconds(6), "after {outage} s: {after:?}");
    }
}

#[test]
fn one_deaf_direction_does_not_stop_the_other_before_the_session_is_too_old() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.link(bob, alice, |link| link.loss = 1.0);
    for n in 0..300u32 {
        world.send(alice, world.v4(alice, bob).udp(&n.to_be_bytes()));
        world.run_for(seconds(1));
    }
    // Handshakes fail from the 15th second on and are given up 90 seconds later. The keys are valid for 180 seconds.
    let arrived = numbers(&world, bob);
    assert_eq!(arrived, (0..arrived.len() as u32).collect::<Vec<_>>());
    assert!((178..=180).contains(&arrived.len()), "{}", arrived.len());
}

#[test]
fn a_datagram_above_the_link_mtu_is_lost_and_smaller_ones_pass() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.all_links(|link| link.mtu = 1_280);
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(&[0; 1_300]));
    world.send(alice, world.v4(alice, bob).udp(&[0; 1_100]));
    world.run_for(minutes(1));
    assert_eq!(world.received(bob).len(), 1);
}
