//! What agents keep for themselves.

use crate::protocol::{Code, Entry, Label, MAX_ENTRY_LEN, Reply, Verb};
use crate::registry::{ConnectionId, Order};
use crate::scene::{World, agent, code, record, register, release};

fn put(label: u8, sealed: &[u8]) -> Verb {
    Verb::PutEntry { label: [label; 16], sealed: sealed.to_vec().into() }
}

/// All entries of an agent, over all pages.
fn kept(world: &mut World, connection: ConnectionId) -> Vec<(Label, Vec<u8>)> {
    let (mut kept, mut after) = (Vec::new(), None);
    loop {
        let Reply::Entries { entries, next } = world.ask(connection, Verb::Entries { after }) else {
            panic!("entries, or an empty list");
        };
        kept.extend(entries.into_iter().map(|Entry { label, sealed }| (label, sealed.into())));
        let Some(next) = next else { return kept };
        after = Some(next);
    }
}

#[test]
fn an_entry_is_kept_for_its_agent_alone_and_over_restarts() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    assert_eq!(world.ask(alice, put(1, b"word")), Reply::Done);
    assert_eq!(world.ask(alice, put(2, b"other")), Reply::Done);
    assert_eq!(world.ask(alice, put(1, b"newer")), Reply::Done);
    assert_eq!(world.ask(bob, put(1, b"bob's")), Reply::Done);
    let all = vec![([1; 16], b"newer".to_vec()), ([2; 16], b"other".to_vec())];
    assert_eq!(kept(&mut world, alice), all);
    assert_eq!(kept(&mut world, bob), [([1; 16], b"bob's".to_vec())]);
    world.restart();
    let alice = world.connect(agent(1), 0);
    assert_eq!(kept(&mut world, alice), all);
}

#[test]
fn an_entry_is_answered_and_shown_once_it_is_on_disk() {
    let mut world = World::new();
    let alice = world.join(1);
    world.is_commit_held = true;
    let id = world.call(alice, put(1, b"word"));
    assert_eq!((world.answer(alice, id), kept(&mut world, alice)), (None, Vec::new()));
    world.fail();
    assert_eq!(world.answer(alice, id).as_ref().and_then(code), Some(Code::Later));
    let id = world.call(alice, put(1, b"word"));
    world.commit();
    assert_eq!(world.answer(alice, id), Some(Reply::Done));
    world.is_commit_held = false;
    let operations = world.registry.stats().commits;
    assert_eq!(world.ask(alice, put(1, b"word")), Reply::Done);
    assert_eq!(world.registry.stats().commits, operations, "the same bytes are not written again");
}

#[test]
fn entries_have_their_length_and_are_those_of_registered_agents() {
    let mut world = World::new();
    let alice = world.join(1);
    assert_eq!(code(&world.ask(alice, put(1, b""))), Some(Code::TooLong));
    assert_eq!(code(&world.ask(alice, put(1, &[0; MAX_ENTRY_LEN + 1]))), Some(Code::TooLong));
    assert_eq!(world.ask(alice, put(1, &[0; MAX_ENTRY_LEN])), Reply::Done);
    let stranger = world.connect(agent(9), 0);
    world.ask(stranger, Verb::Hello);
    assert_eq!(code(&world.ask(stranger, put(1, b"word"))), Some(Code::Unregistered));
    assert_eq!(kept(&mut world, stranger), []);
    for n in 2..40 {
        assert_eq!(world.ask(alice, put(n, &[n; MAX_ENTRY_LEN])), Reply::Done);
    }
    assert_eq!(kept(&mut world, alice).len(), 39, "page after page, each within a message");
}

/// Otherwise an order of the operator, or a record that ran out, could bring back what an agent took back.
#[test]
fn entries_outlive_a_release_a_removal_and_a_ban() {
    let mut world = World::new();
    let alice = world.join(1);
    world.ask(alice, put(1, b"word"));
    let word = [([1; 16], b"word".to_vec())];
    world.ask(alice, release(1, "agent1", 5));
    assert_eq!(kept(&mut world, alice), word);
    let mut again = record(1, "agent1", 6, world.now);
    again.ipv4 = world.registry.agents.free_address(&agent(1), world.now.unix, |_| false);
    assert_eq!(world.ask(alice, register(1, again)), Reply::Done);
    assert_eq!(world.order(Order::Remove(agent(1))), Some(Ok(())));
    world.restart();
    let alice = world.connect(agent(1), 0);
    world.ask(alice, Verb::Hello);
    assert_eq!(kept(&mut world, alice), word);

    assert_eq!(world.order(Order::Ban(agent(1))), Some(Ok(())));
    let alice = world.connect(agent(1), 0);
    world.ask(alice, Verb::Hello);
    assert_eq!(code(&world.ask(alice, Verb::Entries { after: None })), Some(Code::NotAMember));
    assert_eq!(world.order(Order::Unban(agent(1))), Some(Ok(())));
    assert_eq!(kept(&mut world, alice), word);
}

#[test]
fn entries_end_with_what_is_left_of_their_agent() {
    let mut world = World::new();
    let alice = world.join(1);
    for n in 0..130 {
        world.ask(alice, put(n, b"word"));
    }
    world.ask(alice, release(1, "agent1", 5));
    world.registry.disconnected(alice, world.now);
    world.advance_days(29);
    let alice = world.connect(agent(1), 0);
    assert_eq!(kept(&mut world, alice).len(), 130);
    world.registry.disconnected(alice, world.now);
    world.advance_days(2);
    let alice = world.connect(agent(1), 0);
    assert_eq!(kept(&mut world, alice), []);
    world.restart();
    let alice = world.connect(agent(1), 0);
    assert_eq!(kept(&mut world, alice), []);
}
