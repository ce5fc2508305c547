//! Tunnel keys that change while the peer stays the same: its key, and ours.

use overlay_core::{Protocol, Rule};
use overlay_sim::initiator::{Initiator, Session, Timestamp};
use overlay_sim::{HostId, Kind, Outsider, World, key_pair, millis, minutes, seconds};

/// Bob changes his key, and alice hears of it.
fn bob_changes_his_key(world: &mut World, alice: HostId, bob: HostId) {
    let before = world.key(bob);
    let (private, public) = key_pair(9);
    world.set_private_key(bob, Some(private));
    world.replace_key(alice, before, public);
}

fn arrives(world: &mut World, from: HostId, to: HostId, packet: Vec<u8>) -> bool {
    let before = world.received(to).len();
    world.send(from, packet);
    world.run_for(seconds(1));
    world.received(to).len() > before
}

#[test]
fn a_peer_with_a_new_key_is_called_again_at_once_and_where_it_was() {
    let (mut world, alice, bob) = World::connected();
    bob_changes_his_key(&mut world, alice, bob);
    assert_eq!(world.ping(alice, bob), Some(millis(40)), "one handshake");
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
    assert!(world.drops(bob).is_empty(), "{:?}", world.drops(bob));
}

#[test]
fn a_flow_that_we_opened_goes_on_when_the_peer_changes_its_key() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    world.set_peer(alice, bob, |peer| peer.allow = Some(Vec::new()));
    world.set_peer(bob, alice, |_| {});
    let ends = world.v4(alice, bob);
    assert!(arrives(&mut world, alice, bob, ends.udp_between(4_000, 53, b"a question")));
    bob_changes_his_key(&mut world, alice, bob);
    assert!(arrives(&mut world, bob, alice, ends.reversed().udp_between(53, 4_000, b"the answer")));
    assert!(!arrives(&mut world, bob, alice, ends.reversed().udp_between(53, 4_001, b"nobody asked")));
}

#[test]
fn a_withdrawn_right_stays_withdrawn_when_the_peer_changes_its_key() {
    let (mut world, alice, bob) = World::connected();
    let udp = Rule { protocol: Protocol::Udp, ports: None };
    world.set_peer(alice, bob, |peer| peer.allow = Some(vec![udp]));
    let ends = world.v4(bob, alice);
    assert!(arrives(&mut world, bob, alice, ends.udp_between(4_000, 53, b"allowed")));
    world.set_peer(alice, bob, |peer| peer.allow = Some(Vec::new()));
    bob_changes_his_key(&mut world, alice, bob);
    // Our answer must not make the flow ours.
    world.send(alice, ends.reversed().udp_between(53, 4_000, b"an answer"));
    world.run_for(seconds(1));
    assert!(!arrives(&mut world, bob, alice, ends.udp_between(4_000, 53, b"not any more")));
    assert_eq!(world.drops(alice).get("not_allowed"), Some(&1), "{:?}", world.drops(alice));
}

#[test]
fn what_is_known_of_the_path_outlives_the_key() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for (host, peer) in [(alice, bob), (bob, alice)] {
        world.set_peer(host, peer, |peer| peer.mtu_discovery = true);
    }
    world.ping(alice, bob);
    world.run_for(seconds(30));
    let probes = world.stats(alice).mtu_probes_sent.value();
    assert!(probes > 1, "a search");
    bob_changes_his_key(&mut world, alice, bob);
    world.ping(alice, bob);
    world.run_for(seconds(30));
    assert_eq!(world.stats(alice).mtu_probes_sent.value(), probes, "the size that was proven stays so");
}

#[test]
fn a_peer_that_knows_only_our_former_key_is_served_through_renewals() {
    let (mut world, alice, bob) = World::connected();
    let former = world.private_key(alice).expect("she has one");
    world.set_private_keys(alice, Some(key_pair(9).0), vec![former]);
    for minute in 0..10 {
        assert_eq!(world.ping(alice, bob), Some(millis(20)), "minute {minute}");
        assert_eq!(world.ping(bob, alice), Some(millis(20)), "minute {minute}");
        world.run_for(minutes(1));
    }
    assert!((4..8).contains(&world.handshakes(alice, bob)), "{}", world.handshakes(alice, bob));
    assert!(world.drops(bob).is_empty(), "{:?}", world.drops(bob));
    // A peer that begins anew calls by the key that it knows.
    world.restart(bob);
    assert_eq!(world.ping(bob, alice), Some(millis(40)));
}

#[test]
fn a_peer_that_learns_our_present_key_keeps_its_session_when_the_former_one_goes() {
    let (mut world, alice, bob) = World::connected();
    let (former, known) = (world.private_key(alice).expect("she has one"), world.key(alice));
    let (present, public) = key_pair(9);
    world.set_private_keys(alice, Some(present), vec![former]);
    world.replace_key(bob, known, public);
    assert_eq!(world.ping(bob, alice), Some(millis(40)), "one handshake, by the present key");
    world.set_private_keys(alice, Some(present), Vec::new());
    world.forget();
    assert_eq!((world.ping(alice, bob), world.ping(bob, alice)), (Some(millis(20)), Some(millis(20))));
    assert_eq!(world.count(alice, Kind::Initiation) + world.count(bob, Kind::Initiation), 0);
}

#[test]
fn a_former_key_that_goes_takes_its_sessions_with_it() {
    let (mut world, alice, bob) = World::connected();
    let former = world.private_key(alice).expect("she has one");
    let (present, _) = key_pair(9);
    world.set_private_keys(alice, Some(present), vec![former]);
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
    world.set_private_keys(alice, Some(present), Vec::new());
    let packet = world.v4(bob, alice).udp(b"in the session of the former key");
    assert!(!arrives(&mut world, bob, alice, packet));
    assert_eq!(world.drops(alice).get("unknown_receiver"), Some(&1), "{:?}", world.drops(alice));
}

/// Alice, who answers under two keys, and carol, who knows one of them and then the other.
struct Carol {
    world: World,
    alice: HostId,
    by_former: Outsider,
    by_present: Initiator,
}

impl Carol {
    fn new() -> Self {
        let mut world = World::new(7);
        let alice = world.host();
        let private = [5; 32];
        let mut by_former = world.outsider(alice);
        let key = by_former.key();
        by_former.initiator = Initiator::new(private, world.key(alice).0, 1);
        world.replace_key(alice, key, by_former.key());
        let former = world.private_key(alice).expect("she has one");
        let (present, public) = key_pair(9);
        world.set_private_keys(alice, Some(present), vec![former]);
        Self { world, alice, by_former, by_present: Initiator::new(private, public.0, 2) }
    }

    /// Calls by the former key, or by the present one: the initiation and the answers to it.
    fn call(&mut self, is_former: bool, second: u64) -> (Vec<u8>, usize) {
        let initiator = if is_former { &mut self.by_former.initiator } else { &mut self.by_present };
        let pending = initiator.initiate(Timestamp::from_unix_seconds(1_800_000_000 + second), second as u32);
        let answers = self.world.ask(self.by_former.address, self.alice, &pending.message);
        let session: Option<Session> =
            answers.first().map(|answer| initiator.complete(&pending, answer).expect("good"));
        if let Some(mut session) = session {
            self.world.inject(self.by_former.address, self.alice, &session.seal(&[]));
        }
        self.world.run_for(seconds(1));
        (pending.message.to_vec(), answers.len())
    }

    fn answers(&mut self, message: &[u8]) -> usize {
        self.world.run_for(seconds(1));
        self.world.ask(self.by_former.address, self.alice, message).len()
    }
}

#[test]
fn replays_are_refused_across_changes_from_one_key_of_ours_to_the_other() {
    let mut carol = Carol::new();
    let mut calls = Vec::new();
    for (is_former, second) in [(true, 1), (false, 2), (true, 3), (false, 4)] {
        let (message, answers) = carol.call(is_former, second);
        assert_eq!(answers, 1, "call {second}");
        calls.push(message);
        for (nth, call) in calls.clone().iter().enumerate() {
            assert_eq!(carol.answers(call), 0, "replay of call {} after call {second}", nth + 1);
        }
    }
}

#[test]
fn a_forged_call_by_our_other_key_disturbs_no_session() {
    let mut carol = Carol::new();
    assert_eq!(carol.call(false, 1).1, 1);
    // A stranger can name carol, and make mac1; the rest of the message is not hers.
    let mut forged = carol.by_former.initiator.initiate(Timestamp::from_unix_seconds(1_900_000_000), 7).message;
    forged[100] ^= 1;
    carol.by_former.initiator.sign(&mut forged, None);
    let before = carol.world.drops(carol.alice).get("handshake_forged").copied().unwrap_or(0);
    assert_eq!(carol.answers(&forged), 0);
    assert_eq!(carol.world.drops(carol.alice).get("handshake_forged"), Some(&(before + 1)));
    assert_eq!(carol.call(false, 2).1, 1, "the present key is still hers");
}
