//! A preshared key that is replaced while one side may not have the new one: that side's peer knows the former key too, and
//! the tunnel goes on with whichever key both have.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Command, Event, PeerConfig};
use overlay_sim::{Agents, HostId, HostOptions, Kind, Scene, World, millis, minutes, nat, seconds};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

/// A present key and a former one. 0 stands for no key.
type Keys = (u8, u8);

/// Makes `host` use these keys in handshakes with `peer` from now on.
fn set(world: &mut World, host: HostId, peer: HostId, (present, former): Keys) {
    world.set_peer(host, peer, |peer| {
        peer.preshared_key = Some(Zeroizing::new([present; 32]));
        peer.former_preshared_key = (former != 0).then(|| Zeroizing::new([former; 32]));
    });
}

/// Two hosts that have key 8 in common, and a session with it that alice began.
fn connected() -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    set(&mut world, alice, bob, (8, 0));
    set(&mut world, bob, alice, (8, 0));
    assert!(world.ping(alice, bob).is_some());
    (world, alice, bob)
}

/// Both hosts ping each other ten times a second. Returns how many pings of each host went unanswered.
fn unanswered(world: &mut World, [one, other]: [HostId; 2], span: Duration) -> [usize; 2] {
    world.run_for(millis(100));
    let before = [one, other].map(|host| world.answers(host));
    let rounds = span.as_millis() as usize / 100;
    for _ in 0..rounds {
        world.send_ping(one, world.v4(one, other));
        world.send_ping(other, world.v6(other, one));
        world.run_for(millis(100));
    }
    world.run_for(millis(100));
    [(one, before[0]), (other, before[1])].map(|(host, before)| rounds - (world.answers(host) - before))
}

/// How often a host was told that its peer has proven the present key.
fn proofs(world: &World, host: HostId) -> usize {
    world.events(host).iter().filter(|(_, event)| matches!(event, Event::PresharedKeyProven(_))).count()
}

#[test]
fn a_key_that_never_reaches_the_other_side_costs_no_packet() {
    for alice_has_it in [true, false] {
        let (mut world, alice, bob) = connected();
        let (one, other) = if alice_has_it { (alice, bob) } else { (bob, alice) };
        set(&mut world, one, other, (9, 8));
        assert_eq!(unanswered(&mut world, [alice, bob], minutes(30)), [0, 0], "alice has it: {alice_has_it}");
        assert!(world.handshakes(alice, bob) >= 14, "{}", world.handshakes(alice, bob));
        assert_eq!((proofs(&world, alice), proofs(&world, bob)), (0, 0));
        // The first attempt of each handshake fails, and no other.
        let sent = world.count(alice, Kind::Initiation) + world.count(bob, Kind::Initiation);
        assert!(sent as u64 <= 2 * world.handshakes(alice, bob), "{sent} initiations");
    }
}

#[test]
fn a_key_that_both_sides_get_is_used_by_the_next_handshake_and_the_former_one_is_forgotten() {
    for alice_is_first in [true, false] {
        let (mut world, alice, bob) = connected();
        let (one, other) = if alice_is_first { (alice, bob) } else { (bob, alice) };
        set(&mut world, one, other, (9, 8));
        world.run_for(seconds(60));
        set(&mut world, other, one, (9, 8));
        assert_eq!(unanswered(&mut world, [alice, bob], seconds(80)), [0, 0]);
        assert_eq!((world.handshakes(alice, bob), world.count(alice, Kind::Initiation)), (2, 2), "none failed");
        assert_eq!((proofs(&world, alice), proofs(&world, bob)), (1, 1));
        assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
        // A side that had the former key alone would not be talked to.
        set(&mut world, other, one, (8, 0));
        assert_eq!(unanswered(&mut world, [alice, bob], minutes(4)).map(|count| count > 0), [true, true]);
    }
}

/// The peer was told the new key, and its own calls may look like replays: its clock was set back, and it was restarted.
#[test]
fn a_peer_that_is_known_to_have_the_new_key_is_called_at_once() {
    let (mut world, alice, bob) = connected();
    let bobs = world.tag(alice, world.key(bob));
    let told = |world: &mut World| {
        world.command(alice, Command::KnowsPresharedKey(bobs)).expect("he is there");
        world.run_for(seconds(1));
        (world.handshakes(alice, bob), proofs(world, alice), proofs(world, bob))
    };
    assert_eq!(told(&mut world), (1, 0, 0), "there is no former key, so nothing is to be proven");
    set(&mut world, alice, bob, (9, 8));
    set(&mut world, bob, alice, (9, 8));
    world.run_for(seconds(1));
    assert_eq!(world.handshakes(alice, bob), 1, "the session goes on by itself");
    assert_eq!(told(&mut world), (2, 1, 1));
    assert_eq!(told(&mut world), (2, 1, 1), "it is proven");
}

#[test]
fn a_peer_that_calls_just_before_it_gets_the_key_has_a_session_as_soon_as_it_has_it() {
    for former in [0, 7] {
        let agents = Agents::started(7, &[nat::Kind::None; 2], 1);
        let ((alice, bob), mut world) = (agents.pair(), agents.world);
        set(&mut world, alice, bob, (9, 8));
        set(&mut world, bob, alice, (7, 0));
        world.run_for(seconds(2));
        world.send_ping(bob, world.v4(bob, alice));
        world.run_for(millis(100));
        assert!(world.stats(bob).initiations_sent.value() > 0 && world.handshakes(alice, bob) == 0, "in vain");
        set(&mut world, bob, alice, (9, former));
        let after = world.ping(bob, alice);
        assert!(after.is_some_and(|after| after < millis(500)), "former {former}: {after:?}");
    }
}

#[test]
fn a_key_that_arrives_after_many_handshakes_with_the_former_one_is_used_by_the_next() {
    let (mut world, alice, bob) = connected();
    set(&mut world, bob, alice, (9, 8));
    assert_eq!(unanswered(&mut world, [alice, bob], minutes(11)), [0, 0]);
    assert_eq!((proofs(&world, alice), proofs(&world, bob)), (0, 0));
    set(&mut world, alice, bob, (9, 8));
    assert_eq!(unanswered(&mut world, [alice, bob], minutes(3)), [0, 0]);
    assert_eq!((proofs(&world, alice), proofs(&world, bob)), (1, 1));
}

/// Whatever two sides have, if one of the keys is the same. Either side calls, or both do.
#[test]
fn two_sides_without_a_session_find_the_key_that_both_have() {
    const SETS: [[Keys; 2]; 6] =
        [[(9, 8), (8, 0)], [(9, 8), (9, 0)], [(9, 8), (9, 8)], [(9, 8), (8, 7)], [(9, 7), (8, 7)], [(9, 8), (7, 8)]];
    for (one, other) in SETS.into_iter().flat_map(|[one, other]| [(one, other), (other, one)]) {
        for (seed, callers) in (0..10).flat_map(|seed| (1..=3).map(move |callers| (seed, callers))) {
            let mut world = World::new(seed);
            let (alice, bob) = world.pair();
            set(&mut world, alice, bob, one);
            set(&mut world, bob, alice, other);
            for (host, peer) in [(alice, bob), (bob, alice)].into_iter().filter(|(host, _)| {
                let bit = if *host == alice { 1 } else { 2 };
                callers & bit != 0
            }) {
                world.set_peer(host, peer, |peer| peer.persistent_keepalive = Some(seconds(25)));
            }
            let case = format!("{one:?} and {other:?}, callers {callers}, seed {seed}");
            let is_done = |world: &World| world.handshakes(alice, bob) > 0 && world.handshakes(bob, alice) > 0;
            assert!(world.run_until(seconds(25), is_done), "{case}");
            assert!(world.ping(alice, bob).is_some() && world.ping(bob, alice).is_some(), "{case}");
        }
    }
}

/// Calls, answers and confirmations are lost, so the two sides count their turns differently.
#[test]
fn two_sides_find_the_key_that_both_have_over_a_path_that_loses_a_fifth() {
    for (seed, (one, other)) in (0..40).flat_map(|seed| [((9, 8), (8, 0)), ((9, 8), (8, 7))].map(|keys| (seed, keys))) {
        let mut world = World::new(seed);
        let (alice, bob) = world.pair();
        world.all_links(|link| link.loss = 0.2);
        set(&mut world, alice, bob, one);
        set(&mut world, bob, alice, other);
        for (host, peer) in [(alice, bob), (bob, alice)] {
            world.set_peer(host, peer, |peer| peer.persistent_keepalive = Some(seconds(25)));
        }
        let is_done = |world: &World| world.handshakes(alice, bob) > 0 && world.handshakes(bob, alice) > 0;
        assert!(world.run_until(minutes(2), is_done), "{one:?} and {other:?}, seed {seed}");
    }
}

#[test]
fn keys_that_are_not_the_same_on_any_side_make_no_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    set(&mut world, alice, bob, (9, 8));
    set(&mut world, bob, alice, (7, 6));
    assert_eq!(unanswered(&mut world, [alice, bob], minutes(5)), [3_000, 3_000]);
    assert_eq!((world.handshakes(alice, bob), world.handshakes(bob, alice)), (0, 0));
    assert_eq!((world.count(alice, Kind::Data), world.count(bob, Kind::Data)), (0, 0));
}

/// Whatever is in flight when the keys change: packets, an initiation, its response, or the message that confirms it.
#[test]
fn a_replacement_in_the_middle_of_a_handshake_loses_nothing() {
    for offset in (0..=60).step_by(6) {
        for (alice_is_first, later) in [(true, 25), (false, 25), (true, 100_000), (false, 100_000)] {
            let (mut world, alice, bob) = connected();
            unanswered(&mut world, [alice, bob], seconds(118));
            let pair = if alice_is_first { [alice, bob] } else { [bob, alice] };
            world.forget();
            let before = [alice, bob].map(|host| world.answers(host));
            let mut begun = None;
            for sent in 0..5_000 {
                if begun.is_none() && world.count(alice, Kind::Initiation) > 0 {
                    begun = Some(sent);
                }
                for (delay, host, peer) in [(offset, pair[0], pair[1]), (offset + later, pair[1], pair[0])] {
                    if begun.is_some_and(|at| sent == at + delay) {
                        set(&mut world, host, peer, (9, 8));
                    }
                }
                world.send_ping(alice, world.v4(alice, bob));
                world.send_ping(bob, world.v6(bob, alice));
                world.run_for(millis(if begun.is_some_and(|at| sent < at + 200) { 1 } else { 100 }));
            }
            world.run_for(millis(100));
            let case =
                format!("{offset} ms, {alice_is_first}, {later}: {:?} {:?}", world.drops(alice), world.drops(bob));
            let answered = [alice, bob].map(|host| world.answers(host));
            assert_eq!([answered[0] - before[0], answered[1] - before[1]], [5_000; 2], "{case}");
        }
    }
}

/// One side of a relation, which keeps the last key that the peer has proven until it proves a newer one.
#[derive(Clone, Copy, Default)]
struct Side {
    keys: Keys,
    proofs: usize,
    /// What the host was told last.
    told: Option<Keys>,
}

impl Side {
    fn replace(&mut self, key: u8) {
        let (present, former) = self.keys;
        self.keys = (key, if former == 0 { present } else { former });
    }

    /// Looks whether the present key was proven.
    fn look(&mut self, proofs: usize) {
        if std::mem::replace(&mut self.proofs, proofs) < proofs {
            self.keys.1 = 0;
        }
    }
}

#[test]
fn keys_that_are_replaced_again_and_again_and_arrive_or_not_lose_nothing_for_six_hours() {
    for seed in 0..4 {
        let (mut world, alice, bob) = connected();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut random = |below: u32| rng.next_u32() % below;
        let mut sides = [Side { keys: (8, 0), ..Side::default() }; 2];
        let mut arrives: Option<(u32, usize, u8)> = None;
        let mut number = 8_u8;
        for second in 0..6 * 3_600 {
            if random(200) == 0 {
                // One side answers the other, which gets the answer later or never. A newer one replaces an older one.
                let (who, now) = (random(2) as usize, second);
                number = if number == 250 { 1 } else { number + 1 };
                sides[who].replace(number);
                arrives = (random(3) > 0).then(|| (now + random(300), 1 - who, number));
            }
            if let Some((_, who, key)) = arrives.take_if(|(at, ..)| *at <= second) {
                sides[who].replace(key);
            }
            for (side, (host, peer)) in sides.iter_mut().zip([(alice, bob), (bob, alice)]) {
                let before = side.told.replace(side.keys);
                side.look(proofs(&world, host));
                if before != Some(side.keys) {
                    set(&mut world, host, peer, side.keys);
                }
            }
            assert!(world.ping(alice, bob).is_some(), "seed {seed}, second {second}");
            assert!(world.ping6(bob, alice).is_some(), "seed {seed}, second {second}");
            world.run_for(millis(900));
        }
        assert!(proofs(&world, alice) > 5 && proofs(&world, bob) > 5);
    }
}

/// Carol has a session with alice, and alice has two keys for the next one.
fn with_two_keys() -> Scene {
    let mut scene = Scene::with(HostOptions::default(), |peer| peer.preshared_key = Some(Zeroizing::new([8; 32])));
    let config = PeerConfig {
        preshared_key: Some(Zeroizing::new([9; 32])),
        former_preshared_key: Some(Zeroizing::new([8; 32])),
        ..PeerConfig::of(scene.carol.key())
    };
    scene.world.configure(scene.alice, config).expect("a peer");
    scene
}

/// Which key alice answers a call of carol with. Carol does not confirm the session.
fn answered_with(scene: &mut Scene) -> u8 {
    scene.world.run_for(seconds(5));
    let pending = scene.carol.initiate();
    let answers = scene.world.ask(scene.carol.address, scene.alice, &pending.message);
    let with: Vec<_> = [7, 8, 9]
        .into_iter()
        .filter(|key| {
            scene.carol.initiator.set_preshared_key([*key; 32]);
            scene.carol.initiator.complete(&pending, &answers[0]).is_ok()
        })
        .collect();
    assert_eq!(with.len(), 1, "{with:?}");
    with[0]
}

#[test]
fn forged_calls_of_a_peer_take_no_turn() {
    let mut scene = with_two_keys();
    for _ in 0..7 {
        scene.world.run_for(millis(50));
        let mut forged = scene.carol.initiate().message;
        // The timestamp, which nobody but carol can seal.
        forged[100] ^= 1;
        scene.carol.initiator.sign(&mut forged, None);
        assert!(scene.world.ask(scene.carol.address, scene.alice, &forged).is_empty());
    }
    assert_eq!(scene.drops(), BTreeMap::from([("handshake_forged", 7)]));
    assert_eq!([answered_with(&mut scene), answered_with(&mut scene)], [9, 8]);
}

#[test]
fn an_old_call_is_a_replay_whichever_key_is_in_turn() {
    let mut scene = with_two_keys();
    let mut old = Vec::new();
    for round in 0..6 {
        scene.world.run_for(seconds(5));
        let pending = scene.carol.initiate();
        assert_eq!(scene.world.ask(scene.carol.address, scene.alice, &pending.message).len(), 1, "round {round}");
        old.push(pending.message);
        for message in &old {
            scene.world.run_for(millis(50));
            assert!(scene.world.ask("198.51.100.66:6".parse().expect("an address"), scene.alice, message).is_empty());
        }
    }
    assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("handshake_replay", 21)]));
}
