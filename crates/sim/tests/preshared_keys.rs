//! Preshared keys: both sides need the same one for a session. When a key changes, existing sessions continue, and the
//! next handshake uses the new key.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Command, PeerChange};
use overlay_sim::initiator::Session;
use overlay_sim::{HostId, Kind, Scene, World, millis, minutes, seconds};
use zeroize::Zeroizing;

/// Changes from the first key to the second.
const CHANGES: [[u8; 2]; 3] = [[0, 9], [8, 9], [8, 0]];

/// Makes `host` use this key in handshakes with `peer` from now on. 0 means no key.
fn set(world: &mut World, host: HostId, peer: HostId, key: u8) {
    world.set_peer(host, peer, |peer| peer.preshared_key = Some(Zeroizing::new([key; 32])));
}

/// Two hosts with a session that alice started.
fn connected() -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    assert!(world.ping(alice, bob).is_some());
    (world, alice, bob)
}

/// Makes both hosts ping each other ten times a second, and calls `at` with the number of each round before it. Returns
/// the number of rounds, and how many of each host's pings were answered.
fn talk(world: &mut World, pair: [HostId; 2], span: Duration, mut at: impl FnMut(&mut World, u64)) -> (u64, [u64; 2]) {
    let [one, other] = pair;
    let before = pair.map(|host| world.answers(host));
    let rounds = span.as_millis() as u64 / 100;
    for round in 0..rounds {
        at(world, round);
        world.send_ping(one, world.v4(one, other));
        world.send_ping(other, world.v6(other, one));
        world.run_for(millis(100));
    }
    let answered = [0, 1].map(|side| (world.answers(pair[side]) - before[side]) as u64);
    (rounds, answered)
}

#[test]
fn equal_keys_make_a_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    set(&mut world, alice, bob, 9);
    set(&mut world, bob, alice, 9);
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
}

#[test]
fn another_key_makes_no_session_and_lets_nothing_out() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    set(&mut world, alice, bob, 9);
    set(&mut world, bob, alice, 8);
    for _ in 0..300 {
        world.send_ping(alice, world.v4(alice, bob));
        world.send_ping(bob, world.v4(bob, alice));
        world.run_for(seconds(1));
    }
    assert!(world.received(alice).is_empty() && world.received(bob).is_empty());
    assert_eq!((world.handshakes(alice, bob), world.handshakes(bob, alice)), (0, 0));
    for host in [alice, bob] {
        assert_eq!(world.count(host, Kind::Data), 0, "data was sealed for somebody who did not prove the key");
        assert!(world.drops(host).contains_key("handshake_forged"), "{:?}", world.drops(host));
    }
}

#[test]
fn a_key_counts_from_the_next_handshake_on_whoever_learns_it_first() {
    // Alice changes first, or bob. From no key to one, from one key to a different one, and from one key to none.
    for (alice_is_first, [before, after]) in [true, false].into_iter().flat_map(|first| CHANGES.map(|it| (first, it))) {
        let mut world = World::new(7);
        let (alice, bob) = world.pair();
        set(&mut world, alice, bob, before);
        set(&mut world, bob, alice, before);
        assert!(world.ping(alice, bob).is_some());
        let (one, other) = if alice_is_first { (alice, bob) } else { (bob, alice) };
        let (sent, answered) = talk(&mut world, [alice, bob], minutes(5), |world, round| match round {
            300 => set(world, one, other, after),
            350 => set(world, other, one, after),
            1_100 => assert_eq!(world.handshakes(alice, bob), 1, "the session goes on for its two minutes"),
            _ => {}
        });
        assert_eq!(answered, [sent, sent], "alice first: {alice_is_first}, from {before} to {after}");
        assert_eq!(world.handshakes(alice, bob), 3);
        assert_eq!(world.count(alice, Kind::Initiation), 3, "none was refused");
        assert!(world.drops(alice).is_empty() && world.drops(bob).is_empty());
    }
}

/// Whatever is in flight when a key changes: packets, an initiation, its response, or the message that confirms it.
#[test]
fn a_change_in_the_middle_of_a_handshake_loses_nothing() {
    for offset in (0..=60).step_by(3) {
        for alice_is_first in [true, false] {
            let (mut world, alice, bob) = connected();
            world.run_for(seconds(119));
            world.forget();
            let (mut sent, mut begun) = (0, None);
            while sent < 600 {
                if begun.is_none() && world.count(alice, Kind::Initiation) > 0 {
                    begun = Some(sent);
                }
                for (delay, is_alice) in [(offset, alice_is_first), (offset + 25, !alice_is_first)] {
                    let (host, peer) = if is_alice { (alice, bob) } else { (bob, alice) };
                    if begun.is_some_and(|at| sent == at + delay) {
                        set(&mut world, host, peer, 9);
                    }
                }
                world.send_ping(alice, world.v4(alice, bob));
                world.send_ping(bob, world.v6(bob, alice));
                world.run_for(millis(if begun.is_some_and(|at| sent < at + 200) { 1 } else { 25 }));
                sent += 1;
            }
            let (more, answered) = talk(&mut world, [alice, bob], seconds(200), |_, _| {});
            world.run_for(seconds(1));
            let case =
                format!("{offset} ms, alice first: {alice_is_first}: {:?} {:?}", world.drops(alice), world.drops(bob));
            assert_eq!([world.answers(alice), world.answers(bob)], [sent as usize + more as usize; 2], "{case}");
            assert_eq!(answered[0], more, "{case}");
        }
    }
}

#[test]
fn while_one_side_has_the_key_the_session_lives_to_its_end_and_no_longer() {
    for alice_has_it in [true, false] {
        let (mut world, alice, bob) = connected();
        let began = world.now();
        let (one, other) = if alice_has_it { (alice, bob) } else { (bob, alice) };
        set(&mut world, one, other, 9);
        let (sent, answered) = talk(&mut world, [alice, bob], seconds(178), |_, _| {});
        assert_eq!(answered, [sent, sent], "alice has it: {alice_has_it}");
        world.run_for((began + seconds(181)).since(world.now()));
        let (_, answered) = talk(&mut world, [alice, bob], seconds(30), |_, _| {});
        assert_eq!(answered, [0, 0], "alice has it: {alice_has_it}");
        assert_eq!(world.handshakes(alice, bob), 1);
        set(&mut world, other, one, 9);
        assert!(world.ping(alice, bob).is_some(), "alice has it: {alice_has_it}");
        assert!(world.ping(bob, alice).is_some(), "alice has it: {alice_has_it}");
    }
}

#[test]
fn keys_that_change_every_few_seconds_lose_nothing_for_an_hour() {
    let (mut world, alice, bob) = connected();
    // The second side follows a second later, so some handshakes fall in between and fail.
    let (sent, answered) = talk(&mut world, [alice, bob], minutes(60), |world, round| {
        let key = 1 + (round / 70 % 250) as u8;
        match round % 70 {
            0 => set(world, alice, bob, key),
            10 => set(world, bob, alice, key),
            _ => {}
        }
    });
    assert_eq!(answered, [sent, sent], "{:?} {:?}", world.drops(alice), world.drops(bob));
    assert!(world.drops(alice).contains_key("handshake_forged"), "no handshake fell between");
}

#[test]
fn a_key_that_changes_without_a_session_counts_at_once() {
    let (mut world, alice, bob) = connected();
    world.run_for(minutes(4));
    set(&mut world, alice, bob, 9);
    assert_eq!(world.ping(alice, bob), None, "bob has none");
    set(&mut world, bob, alice, 9);
    assert!(world.ping(alice, bob).is_some());
    assert!(world.ping(bob, alice).is_some());
}

#[test]
fn a_key_that_changes_while_the_first_handshake_is_under_way_counts_for_its_repetition() {
    for (first_delay, second_delay) in [(5, 5), (5, 15), (15, 2)] {
        let mut world = World::new(7);
        let (alice, bob) = world.pair();
        world.send(alice, world.v4(alice, bob).udp(b"waits"));
        world.run_for(millis(first_delay));
        set(&mut world, alice, bob, 9);
        world.run_for(millis(second_delay));
        set(&mut world, bob, alice, 9);
        world.run_for(seconds(6));
        assert_eq!(world.received(bob).len(), 1, "after {first_delay} and {second_delay} ms");
        assert_eq!(world.handshakes(alice, bob), 1);
        assert_eq!(world.count(alice, Kind::Initiation), 2);
        assert_eq!(world.ping(bob, alice), Some(millis(20)));
    }
}

#[test]
fn the_key_that_a_peer_has_already_changes_nothing_and_zeros_are_none() {
    let (mut world, alice, bob) = connected();
    let mut change = PeerChange::of(world.tag(alice, world.key(bob)));
    change.preshared_key = Some(Zeroizing::new([0; 32]));
    world.command(alice, Command::ChangePeer(Box::new(change))).expect("bob is a peer");
    let mut change = PeerChange::of(world.tag(alice, world.key(bob)));
    change.preshared_key = Some(Zeroizing::new([9; 32]));
    world.command(alice, Command::ChangePeer(Box::new(change))).expect("bob is a peer");
    set(&mut world, alice, bob, 0);
    world.run_for(seconds(121));
    assert!(world.ping(alice, bob).is_some());
    world.run_for(seconds(1));
    assert_eq!((world.handshakes(alice, bob), world.count(alice, Kind::Initiation)), (2, 2));
}

#[test]
fn an_old_initiation_is_a_replay_also_after_the_key_changed() {
    for has_session in [true, false] {
        let (mut world, alice, bob) = connected();
        let old = world.sent_by(alice, Kind::Initiation).next().expect("an initiation").clone();
        world.run_for(if has_session { seconds(1) } else { minutes(4) });
        for key in [9, 8] {
            set(&mut world, bob, alice, key);
            world.run_for(seconds(1));
            let elsewhere = "198.51.100.66:6".parse().expect("an address");
            assert!(world.ask(elsewhere, bob, &old.bytes).is_empty(), "an answer to a replayed initiation");
        }
        assert_eq!(world.drops(bob), BTreeMap::from([("handshake_replay", 2)]));
        set(&mut world, alice, bob, 8);
        let way = if has_session { 20 } else { 40 };
        assert_eq!(world.ping(bob, alice), Some(millis(way)), "the endpoint did not move");
    }
}

/// A preshared key that changes at alice while carol has a session without one.
trait ChangingKey {
    /// Alice mixes a different key into handshakes with carol.
    fn set(&mut self, key: u8);

    /// A handshake of carol's, who has the key too, that she does not confirm.
    fn handshake(&mut self, key: u8) -> Session;

    /// Whether a packet of carol's in this session is delivered.
    fn takes(&mut self, session: &mut Session) -> bool;

    /// Whether what alice sends can be opened with this session.
    fn sends_in(&mut self, session: &Session) -> bool;
}

impl ChangingKey for Scene {
    fn set(&mut self, key: u8) {
        let mut change = PeerChange::of(self.world.tag(self.alice, self.carol.key()));
        change.preshared_key = Some(Zeroizing::new([key; 32]));
        self.world.command(self.alice, Command::ChangePeer(Box::new(change))).expect("carol is a peer");
    }

    fn handshake(&mut self, key: u8) -> Session {
        self.world.run_for(millis(50));
        let initiation = self.carol.initiate();
        let answers = self.world.ask(self.carol.address, self.alice, &initiation.message);
        self.carol.initiator.set_preshared_key([key; 32]);
        self.carol.initiator.complete(&initiation, &answers[0]).expect("a good response")
    }

    fn takes(&mut self, session: &mut Session) -> bool {
        let before = self.world.received(self.alice).len();
        let packet = self.world.from_outsider(&self.carol).udp(b"from carol");
        self.world.inject(self.carol.address, self.alice, &session.seal(&packet));
        self.world.received(self.alice).len() > before
    }

    fn sends_in(&mut self, session: &Session) -> bool {
        self.world.take_mail(self.carol.address);
        let packet = self.world.from_outsider(&self.carol).reversed().udp(b"from alice");
        self.world.send(self.alice, packet);
        self.world.run_for(seconds(0));
        self.world.take_mail(self.carol.address).iter().any(|message| session.open(message).is_ok())
    }
}

#[test]
fn the_session_of_a_new_key_is_used_once_the_peer_has_shown_that_it_has_it() {
    let mut scene = Scene::new();
    let mut old = scene.session.clone();
    scene.set(9);
    let mut new = scene.handshake(9);
    assert!(scene.sends_in(&old), "carol may not have got the response");
    assert!(scene.takes(&mut new));
    assert!(scene.sends_in(&new));
    assert!(scene.takes(&mut old), "what was on its way");
    assert!(scene.sends_in(&new), "which does not bring the old one back");
    assert!(scene.world.drops(scene.alice).is_empty());
    assert_eq!(scene.world.peer_stats(scene.alice, scene.carol.key()).handshakes.value(), 2);
}

#[test]
fn a_session_that_waits_for_its_confirmation_outlives_a_new_key() {
    let mut scene = Scene::new();
    scene.set(9);
    let mut unconfirmed = scene.handshake(9);
    scene.set(8);
    assert!(scene.takes(&mut unconfirmed));
    assert!(scene.sends_in(&unconfirmed));
}

#[test]
fn sessions_of_three_keys_of_before_are_kept_and_the_one_in_use_is_among_them() {
    let mut scene = Scene::new();
    let mut used = scene.session.clone();
    let mut never_used: Vec<_> = (1..=6)
        .map(|key| {
            scene.set(key);
            scene.handshake(key)
        })
        .collect();
    // Kept are the session in use, those of two former keys, and that of the current key.
    for (session, key) in never_used[..3].iter_mut().zip(1..) {
        assert!(!scene.takes(session), "key {key}");
    }
    assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("unknown_receiver", 3)]));
    assert!(scene.sends_in(&used));
    assert!(scene.takes(&mut used));
    for (session, key) in never_used[3..].iter_mut().zip(4..) {
        assert!(scene.takes(session), "key {key}");
        assert!(scene.sends_in(session), "key {key}");
    }
}

#[test]
fn after_180_seconds_nothing_of_a_former_key_is_opened() {
    let mut scene = Scene::new();
    let mut old = scene.session.clone();
    scene.world.run_for(seconds(100));
    scene.set(9);
    let mut new = scene.handshake(9);
    assert!(scene.takes(&mut new));
    scene.world.run_for(seconds(79));
    assert!(scene.takes(&mut old));
    scene.world.run_for(seconds(1));
    assert!(!scene.takes(&mut old) && scene.takes(&mut new));
    assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("unknown_receiver", 1)]));
}
