//! A host changes its tunnel key and still answers under the former one, until every peer has called by the new one.

use std::time::Duration;

use overlay_core::{Event, PeerKey, Protocol, Rule};
use overlay_sim::{HostId, Kind, World, key_pair, millis, minutes, seconds};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// The keys of a host that has rotated.
struct Rotated {
    private: [u8; 32],
    before: PeerKey,
    now: PeerKey,
    former: [u8; 32],
}

/// `host` takes a new key and still answers under the one before. Nobody is told.
fn rotate(world: &mut World, host: HostId, seed: u8) -> Rotated {
    let (former, before) = (world.private_key(host).expect("it has one"), world.key(host));
    let (private, now) = key_pair(seed);
    world.set_private_keys(host, Some(private), vec![former]);
    Rotated { private, before, now, former }
}

/// How often `host` was told that the peer knows its present key.
fn told(world: &World, host: HostId) -> usize {
    world.events(host).iter().filter(|(_, event)| matches!(event, Event::KnowsPresentKey(_))).count()
}

/// Sends packets in both directions every ten milliseconds for this long. Returns how many were lost each way.
fn lost_while(world: &mut World, alice: HostId, bob: HostId, span: Duration) -> (usize, usize) {
    let (to_bob, to_alice) = (world.v4(alice, bob), world.v4(bob, alice));
    let before = (world.received(bob).len(), world.received(alice).len());
    let count = (span.as_millis() / 10) as usize;
    for _ in 0..count {
        world.send(alice, to_bob.udp(b"to bob"));
        world.send(bob, to_alice.udp(b"to alice"));
        world.run_for(millis(10));
    }
    world.run_for(seconds(1));
    (count - (world.received(bob).len() - before.0), count - (world.received(alice).len() - before.1))
}

#[test]
fn a_peer_that_learns_the_new_key_uses_it_at_once_and_no_packet_is_lost() {
    let (mut world, alice, bob) = World::connected();
    let keys = rotate(&mut world, alice, 9);
    assert_eq!(lost_while(&mut world, alice, bob, seconds(1)), (0, 0));
    assert_eq!(told(&world, alice), 0);
    world.rotate_key(bob, keys.before, keys.now);
    let start = world.now();
    assert_eq!(lost_while(&mut world, alice, bob, seconds(5)), (0, 0));
    assert_eq!(told(&world, alice), 1);
    let (at, _) = world.events(alice).iter().find(|(_, event)| matches!(event, Event::KnowsPresentKey(_))).expect("it");
    assert!(at.since(start) <= millis(20), "{:?}", at.since(start));
    // The former key goes, and nothing is lost with it.
    world.set_private_keys(alice, Some(keys.private), Vec::new());
    assert_eq!(lost_while(&mut world, alice, bob, minutes(5)), (0, 0));
    assert_eq!(told(&world, alice), 1);
    assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
}

#[test]
fn both_sides_may_rotate_at_the_same_time() {
    let (mut world, alice, bob) = World::connected();
    let of_alice = rotate(&mut world, alice, 9);
    let of_bob = rotate(&mut world, bob, 10);
    world.rotate_key(bob, of_alice.before, of_alice.now);
    world.rotate_key(alice, of_bob.before, of_bob.now);
    assert_eq!(lost_while(&mut world, alice, bob, seconds(15)), (0, 0));
    assert_eq!((told(&world, alice), told(&world, bob)), (1, 1));
    world.set_private_keys(alice, Some(of_alice.private), Vec::new());
    world.set_private_keys(bob, Some(of_bob.private), Vec::new());
    assert_eq!(lost_while(&mut world, alice, bob, minutes(5)), (0, 0));
}

/// Whether a packet of alice reaches bob within this time, although bob never calls.
fn reaches(world: &mut World, alice: HostId, bob: HostId, span: Duration) -> bool {
    let before = world.received(bob).len();
    let packet = world.v4(alice, bob).udp(b"to bob");
    world.send(alice, packet);
    world.run_until(span, |world| world.received(bob).len() > before)
}

#[test]
fn a_peer_that_was_away_is_called_by_each_key_in_turn() {
    // Bob cannot call: he does not know where alice is.
    for knows_new in [false, true] {
        let mut world = World::new(7);
        let (alice, bob) = (world.host(), world.host());
        world.set_peer(alice, bob, |_| {});
        world.set_peer(bob, alice, |peer| peer.endpoint = None);
        let keys = rotate(&mut world, alice, 9);
        if knows_new {
            world.rotate_key(bob, keys.before, keys.now);
        }
        assert!(reaches(&mut world, alice, bob, seconds(6)), "{knows_new}");
        assert_eq!(told(&world, alice), usize::from(knows_new));
        assert_eq!(lost_while(&mut world, alice, bob, minutes(5)), (0, 0));
    }
}

/// Bob cannot call, so alice must find the pair of a tunnel key and a preshared key that bob has.
#[test]
fn each_key_of_ours_is_tried_with_each_preshared_key() {
    const SEEDS: std::ops::Range<u64> = 0..8;
    for (seed, knows_new, preshared) in SEEDS.flat_map(|seed| {
        [(false, (8, 0)), (false, (9, 0)), (true, (8, 0)), (true, (9, 0)), (false, (8, 9)), (true, (7, 8))]
            .map(|(knows_new, preshared)| (seed, knows_new, preshared))
    }) {
        let mut world = World::new(seed);
        let (alice, bob) = (world.host(), world.host());
        let key = |byte: u8| (byte != 0).then(|| zeroize::Zeroizing::new([byte; 32]));
        for (host, peer, (present, former)) in [(alice, bob, (9, 8)), (bob, alice, preshared)] {
            world.set_peer(host, peer, |config| {
                (config.preshared_key, config.former_preshared_key) = (key(present), key(former));
                config.endpoint = config.endpoint.filter(|_| host == alice);
            });
        }
        // Both orders of the public keys, before and after the rotation.
        let keys = rotate(&mut world, alice, 9 + seed as u8);
        if knows_new {
            world.rotate_key(bob, keys.before, keys.now);
        }
        // Four attempts find the preshared key of a peer, and every second one is made with the right key of ours.
        assert!(reaches(&mut world, alice, bob, seconds(46)), "seed {seed}, {knows_new}, {preshared:?}");
    }
}

#[test]
fn a_host_that_restarts_during_the_overlap_is_there_for_peers_of_either_key() {
    for knows_new in [false, true] {
        let (mut world, alice, bob) = World::connected();
        let keys = rotate(&mut world, alice, 9);
        if knows_new {
            world.rotate_key(bob, keys.before, keys.now);
        }
        world.run_for(seconds(10));
        world.restart(alice);
        world.set_private_keys(alice, Some(keys.private), vec![keys.former]);
        assert!(reaches(&mut world, alice, bob, seconds(11)), "{knows_new}");
        assert_eq!(lost_while(&mut world, alice, bob, minutes(5)), (0, 0));
    }
}

#[test]
fn a_peer_is_called_first_by_the_key_that_it_is_known_to_know() {
    for is_known in [false, true] {
        let (mut world, alice, bob) = World::connected();
        let keys = rotate(&mut world, alice, 9);
        world.set_peer(alice, bob, |peer| peer.own_key = is_known.then_some(keys.before));
        // A new node has its keys before it has peers.
        let peer = world.key(bob);
        world.remove_peer(alice, peer);
        world.set_peer(alice, bob, |peer| peer.own_key = is_known.then_some(keys.before));
        let took = world.ping(alice, bob);
        assert_eq!(took == Some(millis(40)), is_known, "{took:?}");
    }
    // A peer without a session, at the time of the rotation: it knows the key before.
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    rotate(&mut world, alice, 9);
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
}

#[test]
fn without_news_of_the_new_key_everything_goes_on_under_the_former_one() {
    let (mut world, alice, bob) = World::connected();
    let keys = rotate(&mut world, alice, 9);
    assert_eq!(lost_while(&mut world, alice, bob, minutes(10)), (0, 0));
    assert_eq!(told(&world, alice), 0);
    world.rotate_key(bob, keys.before, keys.now);
    assert_eq!(lost_while(&mut world, alice, bob, minutes(5)), (0, 0));
    assert_eq!(told(&world, alice), 1);
}

#[test]
fn a_compromised_key_gets_silence_at_once_and_its_sessions_end() {
    let (mut world, alice, bob) = World::connected();
    let before = world.key(alice);
    let (private, now) = key_pair(9);
    world.set_private_keys(alice, Some(private), Vec::new());
    world.forget();
    let ends = world.v4(bob, alice);
    for _ in 0..60 {
        world.send(bob, ends.udp(b"in a session of the former key"));
        world.run_for(seconds(1));
    }
    assert!(world.sent_by(bob, Kind::Initiation).count() > 0, "bob calls");
    let answers = world.sent_by(alice, Kind::Response).chain(world.sent_by(alice, Kind::Data)).count();
    assert_eq!(answers, 0, "{:?}", world.drops(alice));
    // Bob ends his sessions too when he learns that the former key is answered no more.
    world.replace_key(bob, before, now);
    assert_eq!(world.ping(bob, alice), Some(millis(40)), "one handshake, by the present key");
}

#[test]
fn sessions_end_when_the_key_before_is_not_the_one_that_is_still_answered() {
    let (mut world, alice, bob) = World::connected();
    let before = world.key(alice);
    // Alice rotated twice: bob knows neither of the keys that she answers under.
    let (middle, present) = (key_pair(9), key_pair(10));
    world.set_private_keys(alice, Some(present.0), vec![middle.0]);
    let tag = world.tag(bob, before);
    world.replace_key(bob, before, middle.1);
    world.rotate_key(bob, middle.1, present.1);
    assert_eq!(world.tag(bob, present.1), tag);
    assert_eq!(world.ping(bob, alice), Some(millis(40)));
}

#[test]
fn flows_withdrawn_rights_and_the_path_mtu_outlive_a_rotation() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    let dns = Rule { protocol: Protocol::Udp, ports: Some(53..=53) };
    world.set_peer(alice, bob, |peer| (peer.allow, peer.mtu_discovery) = (Some(vec![dns]), true));
    world.set_peer(bob, alice, |peer| peer.mtu_discovery = true);
    let (out, back) = (world.v4(alice, bob), world.v4(bob, alice));
    let arrives = |world: &mut World, packet: Vec<u8>| {
        let before = world.received(alice).len();
        world.send(bob, packet);
        world.run_for(seconds(1));
        world.received(alice).len() > before
    };
    world.send(alice, out.udp_between(4_000, 8_053, b"a question of ours"));
    world.run_for(seconds(30));
    assert!(arrives(&mut world, back.udp_between(5_000, 53, b"allowed")));
    world.set_peer(alice, bob, |peer| peer.allow = Some(Vec::new()));
    let probes = world.stats(alice).mtu_probes_sent.value();
    assert!(probes > 1, "a search");

    let keys = rotate(&mut world, bob, 9);
    world.rotate_key(alice, keys.before, keys.now);
    world.run_for(seconds(1));
    assert_eq!(told(&world, bob), 1);
    assert!(arrives(&mut world, back.udp_between(8_053, 4_000, b"the answer")));
    assert!(!arrives(&mut world, back.udp_between(5_000, 53, b"not any more")));
    world.set_private_keys(bob, Some(keys.private), Vec::new());
    assert!(!arrives(&mut world, back.udp_between(5_000, 53, b"not any more")));
    world.run_for(seconds(60));
    assert_eq!(world.stats(alice).mtu_probes_sent.value(), probes, "the size that was proven stays so");
}

/// One of two hosts that rotate at random moments.
struct Side {
    host: HostId,
    /// The seed of the present key, and the one before it while it is answered.
    present: u8,
    former: Option<u8>,
    /// What the other host knows as the key of this one.
    known: PeerKey,
    /// How often this host had been told that its present key is known when it last rotated.
    told: usize,
}

impl Side {
    fn apply(&self, world: &mut World) {
        let former = self.former.map(|seed| key_pair(seed).0).into_iter().collect();
        world.set_private_keys(self.host, Some(key_pair(self.present).0), former);
    }
}

#[test]
fn whatever_happens_during_rotations_the_tunnel_comes_back() {
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(seed);
        let hosts = [world.host(), world.host()];
        let mut next_key = 20;
        let mut sides = hosts.map(|host| {
            next_key += 1;
            let (private, known) = key_pair(next_key);
            world.set_private_key(host, Some(private));
            Side { host, present: next_key, former: None, known, told: 0 }
        });
        let [alice, bob] = hosts;
        world.introduce(alice, bob);
        for (host, peer) in [(alice, bob), (bob, alice)] {
            world.set_peer(host, peer, |peer| peer.persistent_keepalive = Some(seconds(25)));
        }
        let mut trace = Vec::new();
        for _ in 0..40 {
            let (at, action) = ((rng.next_u32() % 2) as usize, rng.next_u32() % 6);
            trace.push((at, action));
            let other = hosts[1 - at];
            let side = &mut sides[at];
            match action {
                // It rotates.
                0 if side.former.is_none() => {
                    next_key += 1;
                    (side.former, side.present) = (Some(side.present), next_key);
                    side.told = told(&world, side.host);
                    side.apply(&mut world);
                }
                // The other one hears of it.
                1 | 2 => {
                    let (before, now) = (side.known, key_pair(side.present).1);
                    if side.former.is_some_and(|former| key_pair(former).1 == before) {
                        world.rotate_key(other, before, now);
                    } else if before != now {
                        world.replace_key(other, before, now);
                    }
                    side.known = now;
                }
                // It restarts.
                3 => {
                    world.restart(side.host);
                    side.told = told(&world, side.host).min(side.told);
                    side.apply(&mut world);
                }
                // They do not hear each other for a while.
                4 => {
                    world.cut(alice, bob);
                    world.run_for(seconds(u64::from(rng.next_u32() % 200)));
                    world.mend(alice, bob);
                }
                _ => world.run_for(millis(u64::from(rng.next_u32() % 20_000))),
            }
            // The former key goes once the other one has used the present one.
            for side in &mut sides {
                if side.former.is_some() && told(&world, side.host) > side.told {
                    assert_eq!(side.known, key_pair(side.present).1, "seed {seed}: {trace:?}");
                    side.former = None;
                    side.apply(&mut world);
                }
            }
            if rng.next_u32() % 3 == 0 {
                let came_back = (0..4).any(|_| world.ping(alice, bob).is_some());
                assert!(came_back && world.ping(bob, alice).is_some(), "seed {seed}: {trace:?}");
            }
        }
    }
}

#[test]
fn a_peer_that_changes_between_our_keys_is_told_of_once() {
    let (mut world, alice, bob) = World::connected();
    let keys = rotate(&mut world, alice, 9);
    let mut knows = (keys.before, keys.now);
    for _ in 0..6 {
        world.rotate_key(bob, knows.0, knows.1);
        knows = (knows.1, knows.0);
        world.run_for(seconds(10));
        assert!(world.ping(bob, alice).is_some());
    }
    assert_eq!(told(&world, alice), 1);
    // A key after that is news again.
    let next = key_pair(11);
    world.set_private_keys(alice, Some(next.0), vec![keys.private, keys.former]);
    world.rotate_key(bob, knows.0, next.1);
    world.run_for(seconds(10));
    assert_eq!(told(&world, alice), 2);
}
