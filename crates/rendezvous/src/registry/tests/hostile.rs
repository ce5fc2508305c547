//! Callers that ask too often, too much, or for what is not theirs.

use std::time::Duration;

use crate::protocol::{Code, Find, MAX_MESSAGE_LEN, MAX_WATCHED, MAX_WATCHED_AT_ONCE, Reply, Slot, Verb, decode};
use crate::quota::{Rate, Rates};
use crate::registry::{ConnectionId, Limits};
use crate::scene::{World, agent, code, record, register, send};

/// Rates that no test reaches.
fn without_quotas() -> Limits {
    let all = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let rates = Rates { look_ups: all, writes: all, slots: all };
    Limits { identity_rates: rates, address_rates: rates, ..Limits::default() }
}

#[test]
fn a_caller_that_writes_too_often_is_told_when_to_ask_again() {
    let mut world = World::new();
    let alice = world.join(1);
    let bob = world.join(2);
    let mut sequence = 1;
    let mut again = |world: &mut World| {
        sequence += 1;
        world.ask(alice, register(1, record(1, "agent1", sequence, world.now)))
    };
    // Joining took two writes of twenty.
    for _ in 0..18 {
        assert_eq!(again(&mut world), Reply::Done);
    }
    let Reply::Refused { code: Code::Later, wait: Some(wait), .. } = again(&mut world) else { panic!("too often") };
    assert!((1_000..=1_001).contains(&wait));
    assert!(matches!(world.ask(alice, Verb::Ping), Reply::Revision { .. }), "look-ups are counted separately");
    assert_eq!(world.ask(bob, register(2, record(2, "agent2", 2, world.now))), Reply::Done, "others are not");
    let alice_again = world.connect(agent(1), 0);
    let reply = world.ask(alice_again, register(1, record(1, "agent1", 99, world.now)));
    assert_eq!(code(&reply), Some(Code::Later), "a new connection does not help");
    world.advance(Duration::from_millis(wait.into()));
    let reply = world.ask(alice_again, register(1, record(1, "agent1", 99, world.now)));
    assert_eq!(reply, Reply::Done);
    assert_eq!(world.registry.stats().over_identity_rate, 2);
    assert_eq!(world.registry.stats().refused(Code::Later), 2);
}

#[test]
fn look_ups_have_a_rate_and_a_watch_costs_what_it_makes_the_registry_send() {
    let mut world = World::new();
    let alice = world.join(1);
    world.advance(Duration::from_secs(10));
    let find = || Verb::Find { by: Find::All, after: None };
    let done = (0..200).filter(|_| code(&world.ask(alice, find())).is_none()).count();
    assert_eq!(done, 100);
    world.advance(Duration::from_secs(1));
    let done = (0..200).filter(|_| code(&world.ask(alice, find())).is_none()).count();
    assert_eq!(done, 50);
    world.advance(Duration::from_secs(10));
    let watch = || Verb::Watch { identities: (0..MAX_WATCHED_AT_ONCE as u32).map(agent).collect() };
    let done = (0..200).filter(|_| code(&world.ask(alice, watch())).is_none()).count();
    assert_eq!(done, 5);
}

#[test]
fn lists_are_bounded() {
    let mut world = World::with(without_quotas(), false);
    let alice = world.join(1);
    let identities = |range: std::ops::Range<usize>| range.map(|n| agent(n as u32)).collect::<Vec<_>>();
    for verb in [
        Verb::Watch { identities: identities(0..MAX_WATCHED_AT_ONCE + 1) },
        Verb::Unwatch { identities: identities(0..MAX_WATCHED_AT_ONCE + 1) },
    ] {
        assert_eq!(code(&world.ask(alice, verb)), Some(Code::TooLong));
    }
    let chunks = MAX_WATCHED / MAX_WATCHED_AT_ONCE;
    for chunk in 0..chunks {
        let range = chunk * MAX_WATCHED_AT_ONCE..(chunk + 1) * MAX_WATCHED_AT_ONCE;
        assert_eq!(world.ask(alice, Verb::Watch { identities: identities(range) }), Reply::Done);
    }
    let more = Verb::Watch { identities: identities(MAX_WATCHED..MAX_WATCHED + 1) };
    assert_eq!(code(&world.ask(alice, more.clone())), Some(Code::TooLong));
    let again = Verb::Watch { identities: identities(0..MAX_WATCHED_AT_ONCE) };
    assert_eq!(world.ask(alice, again), Reply::Done, "what is watched already takes no room");
    assert_eq!(world.ask(alice, Verb::Unwatch { identities: identities(0..1) }), Reply::Done);
    assert_eq!(world.ask(alice, more), Reply::Done);
}

#[test]
fn all_watches_together_are_bounded() {
    let mut world = World::with(Limits { watches: 5, ..Limits::default() }, false);
    let (alice, bob) = (world.join(1), world.join(2));
    let watch = |range: std::ops::Range<u32>| Verb::Watch { identities: range.map(agent).collect() };
    assert_eq!(world.ask(alice, watch(0..3)), Reply::Done);
    assert_eq!(code(&world.ask(bob, watch(0..3))), Some(Code::Full));
    assert_eq!(world.ask(bob, watch(0..2)), Reply::Done);
    assert_eq!(world.ask(bob, Verb::Unwatch { identities: vec![agent(0), agent(9)] }), Reply::Done);
    assert_eq!(world.ask(bob, watch(5..6)), Reply::Done);
    assert_eq!(code(&world.ask(alice, watch(7..8))), Some(Code::Full));
    world.registry.disconnected(bob, world.now);
    assert_eq!(world.ask(alice, watch(7..9)), Reply::Done);
    assert_eq!(code(&world.ask(alice, watch(9..10))), Some(Code::Full));
}

#[test]
fn operations_under_way_are_bounded() {
    let mut world = World::with(without_quotas(), false);
    let alice = world.join(1);
    world.join(2);
    for n in 0..5_000_u32 {
        world.is_commit_held = true;
        let slot = crate::protocol::Slot::Word;
        let put = Verb::PutSlot { to: agent(2), slot, sealed: n.to_be_bytes().to_vec().into() };
        let id = world.call(alice, put);
        let refused = world.answer(alice, id).as_ref().and_then(code);
        assert_eq!(refused, (n >= 4_096).then_some(Code::Later), "{n}");
    }
    assert_eq!(world.waiting(), 4_096);
}

/// What is due is noted once for each thing, however often it is done over.
#[test]
fn the_agenda_does_not_grow_with_calls() {
    let mut world = World::with(without_quotas(), false);
    let (alice, bob) = (world.join(1), world.join(2));
    let before = world.registry.due();
    for n in 0..500 {
        assert_eq!(world.ask(alice, register(1, record(1, "agent1", 2 + n, world.now))), Reply::Done);
        let mut message = [0; 16];
        message[..8].copy_from_slice(&n.to_be_bytes());
        let sealed = vec![1].into();
        assert_eq!(world.ask(alice, Verb::Send { to: agent(2), message, sealed, permit: None }), Reply::Done);
        if n % 2 == 0 {
            assert_eq!(world.ask(bob, Verb::Acknowledge { from: agent(1), message }), Reply::Done);
        }
        world.now.unix += 1;
    }
    let receipts = 64;
    assert!(world.registry.due() <= before + receipts + 1, "{} entries", world.registry.due());
}

#[test]
fn connections_are_bounded_and_unknown_ones_are_ignored() {
    let mut world = World::with(Limits { connections: 2, ..Limits::default() }, false);
    let first = world.connect(agent(1), 0);
    world.connect(agent(2), 0);
    let third = world.connect(agent(3), 0);
    assert!(world.closed.contains(&third));
    assert_eq!(world.registry.stats().refused_connections, 1);
    let replaced = world.connect(agent(2), 0);
    assert!(!world.closed.contains(&replaced), "a replaced connection leaves its room to the new one");
    for unknown in [third, ConnectionId(999)] {
        let id = world.call(unknown, Verb::Hello);
        assert_eq!(world.answer(unknown, id), None);
        world.registry.disconnected(unknown, world.now);
    }
    world.registry.disconnected(first, world.now);
    assert_eq!(world.registry.connections(), 1);
}

#[test]
fn a_flood_from_strangers_leaves_room_for_permits_and_other_mailboxes() {
    let mut world = World::with(without_quotas(), false);
    let victim = world.join(500);
    world.join(501);
    let mut kept = 0;
    for n in 0..100 {
        let stranger = world.join(n);
        kept += usize::from(world.ask(stranger, send(500, 1, &[0; 7_000])) == Reply::Done);
    }
    assert_eq!(kept, 131_072 / 7_000, "as many as fit half a mailbox");
    assert_eq!(world.pushes(victim).len(), kept);
    let late = world.connect(agent(99), 0);
    assert_eq!(code(&world.ask(late, send(500, 2, b"x"))), None, "short ones still fit");
    assert_eq!(world.ask(late, send(501, 1, b"x")), Reply::Done);
    let permit = crate::scene::permit(500, 99, crate::scene::START + 9);
    let sealed = vec![0; 7_000].into();
    let verb = Verb::Send { to: agent(500), message: [9; 16], sealed, permit: Some(permit.into()) };
    assert_eq!(world.ask(late, verb), Reply::Done);
}

#[test]
fn strangers_keep_out_no_answer_and_no_peer() {
    let mut world = World::with(without_quotas(), false);
    let victim = world.join(500);
    let [asked, peer] = [501, 502].map(|n| world.join(n));
    for n in 0..100 {
        let stranger = world.join(n);
        world.ask(stranger, send(500, 1, &[0; 7_000]));
    }
    let long = |to| send(to, 1, &[0; 7_000]);
    let refused = [asked, peer].map(|sender| code(&world.ask(sender, long(500))));
    assert_eq!(refused, [Some(Code::Full); 2], "so far they are strangers, too");
    // The victim asks one of them, and keeps its endpoints for the other one.
    assert_eq!(world.ask(victim, long(501)), Reply::Done);
    let endpoints = Verb::PutSlot { to: agent(502), slot: Slot::Endpoints, sealed: vec![1].into() };
    assert_eq!(world.ask(victim, endpoints), Reply::Done);
    for sender in [asked, peer] {
        assert_eq!(world.ask(sender, long(500)), Reply::Done);
    }
    let stranger = world.join(600);
    assert_eq!(code(&world.ask(stranger, long(500))), Some(Code::Full));
    // Nor is one a friend that got a word, which may be a refusal.
    let word = Verb::PutSlot { to: agent(600), slot: Slot::Word, sealed: vec![1].into() };
    assert_eq!(world.ask(victim, word), Reply::Done);
    assert_eq!(code(&world.ask(stranger, long(500))), Some(Code::Full));
    // That the request was acknowledged changes nothing, and neither does a restart.
    let acknowledge = Verb::Acknowledge { from: agent(500), message: [1; 16] };
    assert_eq!(world.ask(asked, acknowledge), Reply::Done);
    world.restart();
    let [asked, peer] = [501, 502].map(|n| world.connect(agent(n), 0));
    for sender in [asked, peer] {
        assert_eq!(world.ask(sender, send(500, 2, &[0; 7_000])), Reply::Done);
    }
}

#[test]
fn bytes_that_are_not_a_call_are_refused() {
    use crate::protocol::Call;
    let good = crate::protocol::encode(&Call { id: 1, verb: Verb::Ping });
    assert_eq!(decode(&good), Ok(Call { id: 1, verb: Verb::Ping }));
    let mut longer = good.clone();
    longer.push(0);
    let list_of_four_billion = [0x82, 0x01, 0x82, 0x07, 0x81, 0x9a, 0xff, 0xff, 0xff, 0xff];
    let unknown_verb = [0x82, 0x01, 0x82, 0x18, 0x63, 0x80];
    for wrong in
        [&longer[..], &good[..good.len() - 1], &[], &list_of_four_billion, &unknown_verb, &[0; MAX_MESSAGE_LEN + 1]]
    {
        assert!(decode::<Call>(wrong).is_err());
    }
}

/// A whole office shares an address. What one of them asks must not cost the others their connections.
#[test]
fn a_neighbour_behind_the_same_address_takes_nobody_offline() {
    let look_ups = Rate { per_second: 1, burst: 20 };
    let limits = Limits { address_rates: Rates { look_ups, ..Rates::ADDRESS }, ..Limits::default() };
    let mut world = World::with(limits, false);
    let office = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
    let neighbour = world.connect_from(agent(1), office, 0);
    let find = || Verb::Find { by: Find::All, after: None };
    let done = (0..50).filter(|_| code(&world.ask(neighbour, find())).is_none()).count();
    assert_eq!(done, 20);
    let alice = world.connect_from(agent(2), office, 0);
    assert!(matches!(world.ask(alice, Verb::Hello), Reply::Welcome { .. }));
    assert!(matches!(world.ask(alice, Verb::Ping), Reply::Revision { .. }));
    assert_eq!(code(&world.ask(alice, Verb::Hello)), Some(Code::Later), "the first hello alone is free");
    // The rate of the identity bounds its pings.
    let done = (0..200).filter(|_| code(&world.ask(alice, Verb::Ping)).is_none()).count();
    assert_eq!(done, 98);
}
