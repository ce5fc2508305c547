//! Messages and slots.

use std::time::Duration;

use crate::protocol::{Code, MAX_SEALED_LEN, MAX_SLOT_LEN, Push, Reply, Slot, Verb};
use crate::scene::{DAY, START, World, agent, code, permit, release, send};

fn message(from: u32, id: u8, sealed: &[u8]) -> Push {
    Push::Message { from: agent(from), message: [id; 16], sealed: sealed.to_vec().into() }
}

fn acknowledge(from: u32, id: u8) -> Verb {
    Verb::Acknowledge { from: agent(from), message: [id; 16] }
}

fn put(to: u32, sealed: &[u8]) -> Verb {
    Verb::PutSlot { to: agent(to), slot: Slot::Endpoints, sealed: sealed.to_vec().into() }
}

fn with_permit(to: u32, id: u8, permit: Vec<u8>) -> Verb {
    let sealed = vec![1].into();
    Verb::Send { to: agent(to), message: [id; 16], sealed, permit: Some(permit.into()) }
}

#[test]
fn a_message_is_delivered_until_it_is_acknowledged() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.is_commit_held = true;
    let id = world.call(alice, send(2, 7, b"hello"));
    assert_eq!((world.answer(alice, id), world.pushes(bob)), (None, vec![]), "it is not on disk");
    assert_eq!(code(&world.ask(alice, send(2, 7, b"hello"))), Some(Code::Later), "the same message, on its way");
    world.commit();
    world.is_commit_held = false;
    assert_eq!(world.answer(alice, id), Some(Reply::Done));
    assert_eq!(world.pushes(bob), [message(1, 7, b"hello")]);
    assert_eq!(world.ask(alice, send(2, 7, b"hello")), Reply::Done);
    assert_eq!(world.pushes(bob), [], "once for each connection");
    let bob = world.connect(agent(2), 0);
    assert_eq!(world.pushes(bob), []);
    world.ask(bob, Verb::Hello);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob), [message(1, 7, b"hello")]);

    assert_eq!(world.ask(bob, acknowledge(1, 7)), Reply::Done);
    assert_eq!(world.pushes(alice), [Push::Delivered { to: agent(2), message: [7; 16] }]);
    assert_eq!(world.ask(bob, acknowledge(1, 7)), Reply::Done);
    assert_eq!(world.ask(bob, acknowledge(9, 9)), Reply::Done, "what is not there need not be deleted");
    let bob = world.connect(agent(2), 0);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob), []);
}

#[test]
fn a_sender_that_was_away_learns_that_its_message_was_delivered() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.ask(alice, send(2, 7, b"hello"));
    world.registry.disconnected(alice, world.now);
    world.ask(bob, acknowledge(1, 7));
    let delivered = || [Push::Delivered { to: agent(2), message: [7; 16] }];
    let alice = world.connect(agent(1), 0);
    world.ask(alice, Verb::Hello);
    assert_eq!(world.pushes(alice), delivered());
    let alice = world.connect(agent(1), 0);
    world.ask(alice, Verb::Hello);
    assert_eq!(world.pushes(alice), []);
    // It asks again after an answer was lost. The message is not delivered a second time.
    world.pushes(bob);
    let id = world.call(alice, send(2, 7, b"hello"));
    assert_eq!(world.answer(alice, id), Some(Reply::Done));
    assert_eq!((world.pushes(alice), world.pushes(bob)), (delivered().to_vec(), vec![]));
}

#[test]
fn a_message_and_its_receipt_are_gone_after_seven_days() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.ask(alice, send(2, 1, b"old"));
    world.ask(alice, send(2, 2, b"acknowledged"));
    world.ask(bob, acknowledge(1, 2));
    world.advance_days(6);
    let bob = world.connect(agent(2), 0);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob).len(), 0, "the second message of a stranger replaced the first");
    let alice = world.connect(agent(1), 0);
    world.ask(alice, send(2, 3, b"new"));
    world.advance_days(2);
    let bob = world.connect(agent(2), 0);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob), [message(1, 3, b"new")]);
    assert_eq!(world.registry.stats().expired_messages, 1);
    world.advance_days(6);
    let bob = world.connect(agent(2), 0);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob), []);
    assert_eq!(crate::store::Store::scan(&world.store, b"mail/", None, 9), Ok(Vec::new()));
}

#[test]
fn a_permit_of_the_recipient_opens_the_other_half() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.ask(alice, send(2, 1, b"as a stranger"));
    let good = permit(2, 1, START + DAY);
    for id in 2..5 {
        assert_eq!(world.ask(alice, with_permit(2, id, good.clone())), Reply::Done);
    }
    assert_eq!(world.pushes(bob).len(), 4);
    for (wrong, expected) in [
        (permit(3, 1, START + DAY), Code::NotYours),
        (permit(2, 3, START + DAY), Code::NotYours),
        (permit(2, 1, START + 1), Code::Clock),
        (vec![1, 2, 3], Code::Malformed),
    ] {
        world.now.unix += 2;
        assert_eq!(code(&world.ask(alice, with_permit(2, 9, wrong))), Some(expected));
    }
    assert_eq!(world.registry.stats().dropped_messages, 0);
    assert_eq!(world.ask(alice, send(2, 9, b"as a stranger")), Reply::Done);
    assert_eq!(world.registry.stats().dropped_messages, 1);
}

#[test]
fn correspondents_are_registered_and_letters_are_bounded() {
    let mut world = World::new();
    let alice = world.join(1);
    world.join(2);
    let stranger = world.connect(agent(9), 0);
    let long = vec![0; MAX_SEALED_LEN + 1];
    for (connection, verb, expected) in [
        (stranger, send(2, 1, b"x"), Code::Unregistered),
        (stranger, put(2, b"x"), Code::Unregistered),
        (stranger, Verb::Watch { identities: vec![agent(2)] }, Code::Unregistered),
        (alice, send(9, 1, b"x"), Code::NotFound),
        (alice, put(9, b"x"), Code::NotFound),
        (alice, send(2, 1, &long), Code::TooLong),
        (alice, send(2, 1, b""), Code::TooLong),
        (alice, put(2, &long[..=MAX_SLOT_LEN]), Code::TooLong),
    ] {
        assert_eq!(code(&world.ask(connection, verb)), Some(expected));
    }
    assert_eq!(world.ask(alice, send(2, 1, &long[1..])), Reply::Done);
    assert_eq!(world.ask(alice, put(2, &long[..MAX_SLOT_LEN])), Reply::Done);
}

#[test]
fn a_slot_is_pushed_to_a_recipient_that_watches() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    let slot = |sealed: &[u8]| Push::Slot { from: agent(1), slot: Slot::Endpoints, sealed: sealed.to_vec().into() };
    assert_eq!(world.ask(alice, put(2, b"first")), Reply::Done);
    assert_eq!(world.pushes(bob), []);
    assert_eq!(world.ask(bob, Verb::Watch { identities: vec![agent(1)] }), Reply::Done);
    assert!(world.pushes(bob).contains(&slot(b"first")));
    world.is_commit_held = true;
    world.call(alice, put(2, b"second"));
    world.call(alice, put(2, b"third"));
    assert_eq!(world.pushes(bob), []);
    world.commit();
    assert_eq!(world.pushes(bob), [slot(b"second"), slot(b"third")]);
    let same = world.call(alice, put(2, b"third"));
    assert_eq!((world.waiting(), world.answer(alice, same)), (0, Some(Reply::Done)), "nothing is written twice");
    world.is_commit_held = false;
    // What an agent keeps for one other agent is shown to nobody else.
    let carol = world.join(3);
    world.ask(carol, Verb::Watch { identities: vec![agent(1)] });
    assert!(world.pushes(carol).iter().all(|push| !matches!(push, Push::Slot { .. })));
}

#[test]
fn what_waits_for_an_agent_that_left_is_forgotten_with_it() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    for id in 0..10 {
        world.ask(alice, with_permit(2, id, permit(2, 1, START + DAY)));
    }
    world.ask(alice, put(2, b"x"));
    assert_eq!(world.ask(bob, release(2, "agent2", 9)), Reply::Done);
    assert_eq!(code(&world.ask(alice, put(2, b"y"))), Some(Code::NotFound));
    world.advance_days(31);
    assert_eq!(world.registry.agents(), 1);
    let left = crate::store::Store::scan(&world.store, b"", None, 99).expect("a store in memory");
    let left: Vec<_> = left.iter().map(|(key, _)| String::from_utf8_lossy(&key[..5]).into_owned()).collect();
    assert_eq!(left, ["agent", "ipv4/", "name/"], "of the other agent");
}

#[test]
fn a_failed_store_loses_what_it_did_not_keep_and_says_so() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.ask(bob, Verb::Watch { identities: vec![agent(1)] });
    world.pushes(bob);
    world.is_commit_held = true;
    let calls = [world.call(alice, send(2, 1, b"x")), world.call(alice, put(2, b"x"))];
    world.fail();
    for id in calls {
        assert_eq!(world.answer(alice, id).as_ref().and_then(code), Some(Code::Later));
    }
    assert_eq!(world.pushes(bob), []);
    assert_eq!(world.registry.stats().failures, 2);
    world.is_commit_held = false;
    world.now.monotonic += Duration::from_secs(9);
    assert_eq!(world.ask(alice, send(2, 1, b"x")), Reply::Done);
    assert_eq!(world.ask(alice, put(2, b"x")), Reply::Done);
    assert_eq!(world.pushes(bob).len(), 2);
}
