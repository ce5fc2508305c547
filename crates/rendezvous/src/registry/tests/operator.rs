//! What the operator orders.

use overlay_wire::signed::{SecretKey, Signed, Token, ipv4_candidate};

use crate::protocol::{Code, Find, Push, Reply, Verb};
use crate::registry::{ConnectionId, Limits, Order, OrderRefused};
use crate::scene::{World, agent, attestation, code, new_token, record, register, release, send, sign_token};
use crate::store::Store;

const DONE: Option<Result<(), OrderRefused>> = Some(Ok(()));

fn closed() -> World {
    World::with(Limits::default(), true)
}

/// Joins with a use of token 7, which may be used as often as it says.
fn join_with_token(world: &mut World, n: u32, uses: u32) -> ConnectionId {
    world.join_as(n, |record| record.attestation = Some(attestation(n, 7, uses, false)))
}

/// What an agent is told that registers with a use of token 7.
fn told(world: &mut World, n: u32, sequence: u64, uses: u32) -> Option<Code> {
    let connection = world.connect(agent(n), 0);
    let mut mine = record(n, &format!("agent{n}"), sequence, world.now);
    mine.ipv4 = world.registry.agents.free_address(&agent(n), world.now.unix, |_| false);
    mine.attestation = Some(attestation(n, 7, uses, false));
    code(&world.ask(connection, register(n, mine)))
}

#[test]
fn a_token_is_known_before_its_use_and_ends_with_its_revocation() {
    let mut world = closed();
    assert_eq!(world.order(Order::AddToken(sign_token(new_token(7, 0)))), DONE);
    let known = |world: &World| {
        world.registry.known_tokens().map(|known| (known.used, known.revoked.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(known(&world), [(0, false)]);
    join_with_token(&mut world, 1, 0);
    assert_eq!(known(&world), [(1, false)]);
    // The same token again changes nothing.
    assert_eq!(world.order(Order::AddToken(sign_token(new_token(7, 0)))), DONE);
    let key = new_token(7, 0).token;
    assert_eq!(world.order(Order::RevokeToken(key)), DONE);
    assert_eq!(world.order(Order::RevokeToken(key)), DONE, "again");
    for is_restarted in [false, true] {
        assert_eq!(told(&mut world, 2, 1, 0), Some(Code::NotAMember), "restarted: {is_restarted}");
        assert_eq!(told(&mut world, 1, 2 + u64::from(is_restarted), 0), None, "a member stays one");
        assert_eq!(known(&world), [(1, true)]);
        world.restart();
    }
    assert_eq!(world.order(Order::RevokeToken(agent(1))), Some(Err(OrderRefused::NotFound)));
}

#[test]
fn a_token_of_a_different_network_is_refused() {
    let mut world = closed();
    let other = SecretKey::from_bytes(&[9; 32]);
    let token = Signed::sign(Token { network: other.public(), ..new_token(7, 1) }, &other).expect("a good token");
    assert_eq!(world.order(Order::AddToken(token)), Some(Err(OrderRefused::NotOurs)));
}

#[test]
fn a_token_counts_no_more_uses_than_it_has_however_many_come_at_once() {
    let mut world = closed();
    world.is_commit_held = true;
    let mut calls = Vec::new();
    for n in 1..=100 {
        let connection = world.connect(agent(n), 0);
        let mut mine = record(n, &format!("agent{n}"), 1, world.now);
        mine.ipv4 = Some(ipv4_candidate(&crate::scene::network(true).pool, &agent(n), 0).octets());
        mine.attestation = Some(attestation(n, 7, 1, false));
        calls.push((connection, register(n, mine)));
    }
    // Those that are told to ask again do so, until nobody is.
    let mut joined = 0;
    while !calls.is_empty() {
        let asked: Vec<_> = calls
            .drain(..)
            .map(|(connection, verb)| (connection, world.call(connection, verb.clone()), verb))
            .collect();
        world.commit();
        for (connection, id, verb) in asked {
            match world.answer(connection, id).expect("an answer") {
                Reply::Done => joined += 1,
                Reply::Refused { code: Code::Later | Code::Ipv4, .. } => calls.push((connection, verb)),
                Reply::Refused { code, .. } => assert_eq!(code, Code::NotAMember),
                other => panic!("{other:?}"),
            }
        }
        calls.retain(|_| joined == 0);
    }
    assert_eq!((joined, world.registry.agents()), (1, 1));
}

#[test]
fn a_removed_agent_needs_a_new_token_and_keeps_its_name_for_a_month() {
    let mut world = closed();
    let alice = join_with_token(&mut world, 1, 2);
    let bob = join_with_token(&mut world, 2, 2);
    world.ask(bob, Verb::Watch { identities: vec![agent(1)] });
    world.pushes(bob);
    assert_eq!(world.order(Order::Remove(agent(1))), DONE);
    assert!(world.closed.contains(&alice));
    assert_eq!(world.pushes(bob), [Push::Presence { identity: agent(1), is_present: false }]);
    assert_eq!(world.find(bob, Find::Key(agent(1))), [""; 0]);
    assert_eq!(world.order(Order::Remove(agent(1))), Some(Err(OrderRefused::NotFound)));
    // The token was used twice, by an agent that is gone and one that is here.
    for is_restarted in [false, true] {
        assert_eq!(told(&mut world, 1, 5, 2), Some(Code::NotAMember), "restarted: {is_restarted}");
        assert_eq!(told(&mut world, 3, 5, 2), Some(Code::NotAMember), "restarted: {is_restarted}");
        world.restart();
    }
    let views = world.registry.agents_after(None, 10);
    let shown: Vec<_> = views.iter().map(|view| (*view.identity, view.record.is_some(), view.is_member)).collect();
    let mut expected = [(agent(1), false, false), (agent(2), true, true)];
    expected.sort();
    assert_eq!(shown, expected);
}

/// A token vouches for tags, so a member cannot show the tags of a token that does not count.
#[test]
fn a_member_shows_no_token_that_does_not_count() {
    let mut world = closed();
    join_with_token(&mut world, 1, 1);
    let shows = |world: &mut World, sequence, token: Option<u32>, uses| {
        let connection = world.connect(agent(1), 0);
        let mut mine = record(1, "agent1", sequence, world.now);
        mine.ipv4 = world.registry.agents.address_of(&agent(1));
        mine.attestation = token.map(|token| attestation(1, token, uses, false));
        code(&world.ask(connection, register(1, mine)))
    };
    assert_eq!(world.order(Order::AddToken(sign_token(new_token(8, 0)))), DONE);
    assert_eq!(world.order(Order::RevokeToken(new_token(8, 0).token)), DONE);
    world.join_as(2, |record| record.attestation = Some(attestation(2, 9, 1, false)));
    let mut sequence = 1;
    for is_restarted in [false, true] {
        for (token, uses, expected) in [
            (Some(8), 0, Some(Code::NotAMember)),
            (Some(9), 1, Some(Code::NotAMember)),
            (Some(7), 1, None),
            (None, 0, None),
        ] {
            sequence += 1;
            assert_eq!(shows(&mut world, sequence, token, uses), expected, "{token:?}, restarted: {is_restarted}");
        }
        world.restart();
    }
    // One that counts is used once more, and from then on it is the one that it is a member by.
    assert_eq!(shows(&mut world, 20, Some(10), 1), None);
    assert_eq!(shows(&mut world, 21, Some(10), 1), None);
    assert_eq!(shows(&mut world, 22, Some(7), 1), Some(Code::NotAMember), "it is used up");
    let used: Vec<_> = world.registry.known_tokens().map(|known| known.used).collect();
    assert_eq!(used.iter().sum::<u32>(), 3);
}

#[test]
fn a_banned_agent_gets_nothing_until_the_ban_is_lifted() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.ask(bob, send(1, 7, b"this waits for alice"));
    assert_eq!(world.order(Order::Ban(agent(1))), DONE);
    assert_eq!(world.order(Order::Ban(agent(1))), DONE, "again");
    assert_eq!(world.registry.banned_with_name("agent1"), Some(&agent(1)));
    assert_eq!(world.registry.banned_with_name("agent2"), None);
    assert!(world.closed.contains(&alice));
    assert_eq!(world.find(bob, Find::Name("agent1".to_owned())), [""; 0]);
    for is_restarted in [false, true] {
        let alice = world.connect(agent(1), 0);
        assert!(matches!(world.ask(alice, Verb::Hello), Reply::Welcome { .. }), "restarted: {is_restarted}");
        assert_eq!(world.pushes(alice), [], "restarted: {is_restarted}");
        for verb in [
            register(1, record(1, "agent1", 9, world.now)),
            send(2, 1, b"a request"),
            Verb::Find { by: Find::All, after: None },
            Verb::Watch { identities: vec![agent(2)] },
        ] {
            assert_eq!(code(&world.ask(alice, verb)), Some(Code::NotAMember));
        }
        world.restart();
    }
    assert_eq!(world.registry.agents_after(None, 10).iter().filter(|view| view.banned.is_some()).count(), 1);
    assert_eq!(world.order(Order::Unban(agent(1))), DONE);
    assert_eq!(world.order(Order::Unban(agent(1))), Some(Err(OrderRefused::NotFound)));
    let alice = world.connect(agent(1), 0);
    assert_eq!(code(&world.ask(alice, register(1, record(1, "agent1", 9, world.now)))), Some(Code::Ipv4));
    // An agent that has never been here can be banned, too.
    assert_eq!(world.order(Order::Ban(agent(5))), DONE);
    let shown: Vec<_> = world.registry.agents_after(None, 10).iter().map(|view| view.banned.is_some()).collect();
    assert_eq!(shown.iter().filter(|is_banned| **is_banned).count(), 1);
}

#[test]
fn a_record_and_a_ban_that_are_under_way_at_once_end_in_the_ban() {
    for ban_is_first in [false, true] {
        let mut world = World::new();
        let alice = world.connect(agent(1), 0);
        let mut mine = record(1, "agent1", 1, world.now);
        mine.ipv4 = world.registry.agents.free_address(&agent(1), world.now.unix, |_| false);
        world.is_commit_held = true;
        if ban_is_first {
            assert_eq!(world.order(Order::Ban(agent(1))), None);
        }
        let call = world.call(alice, register(1, mine));
        if ban_is_first {
            assert_eq!(world.answer(alice, call).as_ref().and_then(code), Some(Code::Later));
        } else {
            assert_eq!(world.order(Order::Ban(agent(1))), Some(Err(OrderRefused::Later)));
        }
        world.commit();
        world.is_commit_held = false;
        assert_eq!(world.order(Order::Ban(agent(1))), DONE);
        let views = world.registry.agents_after(None, 9);
        let shown: Vec<_> = views.iter().map(|view| (view.record.is_some(), view.banned.is_some())).collect();
        assert_eq!(shown, [(false, true)], "the ban is first: {ban_is_first}");
    }
}

#[test]
fn a_name_that_was_given_up_is_freed_and_one_in_use_is_not() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    let free = |world: &mut World, name: &str| world.order(Order::Free(name.to_owned()));
    assert_eq!(free(&mut world, "agent1"), Some(Err(OrderRefused::InUse(agent(1)))));
    assert_eq!(free(&mut world, "nobody"), Some(Err(OrderRefused::NotFound)));
    assert_eq!(world.ask(alice, release(1, "agent1", 5)), Reply::Done);
    let take =
        |world: &mut World, sequence| code(&world.ask(bob, register(2, record(2, "agent1", sequence, world.now))));
    assert_eq!(take(&mut world, 2), Some(Code::NameTaken));
    assert_eq!(free(&mut world, "agent1"), DONE);
    assert_eq!(take(&mut world, 3), None);
}

#[test]
fn an_order_is_answered_once_it_is_on_disk_and_a_failure_changes_nothing() {
    let mut world = World::new();
    world.join(1);
    world.is_commit_held = true;
    assert_eq!(world.order(Order::Ban(agent(1))), None);
    assert_eq!(world.order(Order::Remove(agent(1))), Some(Err(OrderRefused::Later)), "the first one is under way");
    world.fail();
    world.is_commit_held = false;
    assert_eq!(world.order(Order::Ban(agent(1))), DONE);
    world.restart();
    assert_eq!(world.registry.agents_after(None, 10).iter().filter(|view| view.banned.is_some()).count(), 1);
}

#[test]
fn a_count_of_the_release_before_is_read() {
    let mut world = closed();
    join_with_token(&mut world, 1, 1);
    let key = [b"token/".as_slice(), &new_token(7, 1).token.0].concat();
    let mut operation = crate::store::Operation::default();
    operation.push(key.clone(), crate::store::Expected::Any, Some(minicbor::to_vec(1_u32).expect("CBOR")));
    let Ok(_) = world.store.commit(&[operation]);
    world.restart();
    assert_eq!(told(&mut world, 2, 1, 1), Some(Code::NotAMember));
    assert_eq!(told(&mut world, 1, 2, 1), None);
}

#[test]
fn those_that_came_while_the_network_was_open_stay() {
    let mut world = World::new();
    world.join(1);
    world.set_closed();
    world.restart();
    let alice = world.connect(agent(1), 0);
    let mut mine = record(1, "agent1", 2, world.now);
    mine.ipv4 = world.registry.agents.address_of(&agent(1));
    assert_eq!(world.ask(alice, register(1, mine)), Reply::Done);
    let carol = world.connect(agent(3), 0);
    assert_eq!(code(&world.ask(carol, register(3, record(3, "carol", 1, world.now)))), Some(Code::NotAMember));
}
