//! A registry that starts again from its store, at any moment.

use crate::protocol::{Code, Find, Push, Reply, Slot, Verb};
use crate::scene::{START, World, agent, code, permit, record, register, release, send};
use crate::store::{Expected, Operation, Store};

/// Everything that an agent is shown after it has connected, said hello and watched everybody.
fn view(world: &mut World, n: u32) -> (Reply, Vec<Push>, Vec<String>) {
    let connection = world.connect(agent(n), 0);
    let hello = match world.ask(connection, Verb::Hello) {
        Reply::Welcome { network, record, .. } => {
            Reply::Welcome { network, record, epoch: 0, seen_from: Vec::new().into(), relay: None }
        }
        other => other,
    };
    world.ask(connection, Verb::Watch { identities: (1..=5).map(agent).collect() });
    let mut pushes = world.pushes(connection);
    // Presence begins anew with a restart.
    pushes.retain(|push| !matches!(push, Push::Presence { .. }));
    let mut found = world.find(connection, Find::All);
    found.extend(world.find(connection, Find::Tag("gpu".to_owned())));
    found.extend(world.find(connection, Find::Name("bob".to_owned())));
    found.extend(world.find(connection, Find::Name("agent2".to_owned())));
    (hello, pushes, found)
}

#[test]
fn a_restart_from_the_store_yields_the_same_answers() {
    let mut world = World::new();
    let alice = world.join_as(1, |record| record.tags = vec!["gpu".to_owned()]);
    let bob = world.join(2);
    let carol = world.join(3);
    let dave = world.join(4);
    world.ask(bob, register(2, record(2, "bob", 2, world.now)));
    world.ask(alice, send(2, 1, b"stranger"));
    let friendly = permit(2, 1, START + 1_000);
    let sealed = b"friend".to_vec().into();
    world.ask(alice, Verb::Send { to: agent(2), message: [2; 16], sealed, permit: Some(friendly.into()) });
    world.ask(carol, send(1, 3, b"acknowledged"));
    world.ask(alice, Verb::Acknowledge { from: agent(3), message: [3; 16] });
    world.ask(alice, Verb::PutSlot { to: agent(2), slot: Slot::Endpoints, sealed: b"old".to_vec().into() });
    world.ask(alice, Verb::PutSlot { to: agent(2), slot: Slot::Endpoints, sealed: b"here".to_vec().into() });
    world.ask(alice, Verb::PutSlot { to: agent(1), slot: Slot::Word, sealed: b"mine".to_vec().into() });
    world.ask(dave, release(4, "agent4", 7));

    let before: Vec<_> = (1..=5).map(|n| view(&mut world, n)).collect();
    assert!(before[1].1.contains(&Push::Message {
        from: agent(1),
        message: [2; 16],
        sealed: b"friend".to_vec().into()
    }));
    world.restart();
    let after: Vec<_> = (1..=5).map(|n| view(&mut world, n)).collect();
    // The registry before had told carol already that her message was delivered.
    let delivered = Push::Delivered { to: agent(1), message: [3; 16] };
    let without = |(hello, mut pushes, found): (Reply, Vec<Push>, Vec<String>)| {
        pushes.retain(|push| *push != delivered);
        (hello, pushes, found)
    };
    let after: Vec<_> = after.into_iter().map(without).collect();
    let before: Vec<_> = before.into_iter().map(without).collect();
    assert_eq!(after, before);

    // What was refused before is refused now, and the revisions of the store are known.
    let eve = world.connect(agent(5), 0);
    assert_eq!(code(&world.ask(eve, register(5, record(5, "agent4", 1, world.now)))), Some(Code::NameTaken));
    assert_eq!(code(&world.ask(eve, register(5, record(5, "agent2", 1, world.now)))), Some(Code::NameTaken));
    let dave = world.connect(agent(4), 0);
    assert_eq!(code(&world.ask(dave, register(4, record(4, "agent4", 7, world.now)))), Some(Code::TooOld));
    let bob = world.connect(agent(2), 0);
    assert_eq!(world.ask(bob, register(2, record(2, "bobby", 3, world.now))), Reply::Done);
    assert_eq!(world.ask(bob, release(2, "bobby", 4)), Reply::Done);
    assert_eq!(world.registry.stats().conflicts, 0);
}

#[test]
fn a_crash_between_commit_and_answer_is_healed_by_asking_again() {
    let mut world = World::new();
    let alice = world.join(1);
    world.join(2);
    world.is_commit_held = true;
    let newer = register(1, record(1, "agent1", 2, world.now));
    world.call(alice, newer.clone());
    world.call(alice, send(2, 1, b"hello"));
    world.write();
    world.restart();
    world.is_commit_held = false;
    let alice = world.connect(agent(1), 0);
    assert_eq!(world.ask(alice, newer), Reply::Done);
    assert_eq!(world.ask(alice, send(2, 1, b"hello")), Reply::Done);
    let bob = world.connect(agent(2), 0);
    world.ask(bob, Verb::Hello);
    assert_eq!(world.pushes(bob).len(), 1, "one message, once");
}

#[test]
fn a_crash_before_the_commit_loses_what_was_not_answered() {
    let mut world = World::new();
    let alice = world.join(1);
    let bob = world.join(2);
    world.is_commit_held = true;
    world.call(alice, register(1, record(1, "new-name", 2, world.now)));
    world.restart();
    world.is_commit_held = false;
    let _ = bob;
    let bob = world.connect(agent(2), 0);
    assert_eq!(world.find(bob, Find::Key(agent(1))), ["agent1"]);
    assert_eq!(world.ask(bob, register(2, record(2, "new-name", 2, world.now))), Reply::Done);
}

#[test]
fn an_entry_that_cannot_be_read_spoils_nothing_else() {
    let mut world = World::new();
    world.join(1);
    world.join(2);
    let mut operation = Operation::default();
    let key = [&b"agent/"[..], &agent(1).0].concat();
    operation.push(key, Expected::Any, Some(b"torn".to_vec()));
    operation.push(b"slot/short".to_vec(), Expected::Any, Some(Vec::new()));
    assert!(world.store.commit(&[operation]).is_ok_and(|outcomes| outcomes[0].is_ok()));
    world.restart();
    assert_eq!(world.registry.stats().damaged_entries, 2);
    let bob = world.connect(agent(2), 0);
    assert_eq!(world.find(bob, Find::All), ["agent2"]);
    assert_eq!(code(&world.ask(bob, register(2, record(2, "agent1", 2, world.now)))), Some(Code::NameTaken));
    // The agent whose entry is gone registers again, under the name that is still its own.
    let alice = world.connect(agent(1), 0);
    assert_eq!(world.ask(alice, register(1, record(1, "agent1", 2, world.now))), Reply::Done);
}

#[test]
fn a_conflict_is_counted_and_the_caller_asks_again() {
    let mut world = World::new();
    let alice = world.join(1);
    let mut operation = Operation::default();
    operation.push(b"name/stolen".to_vec(), Expected::Any, Some(Vec::new()));
    assert!(world.store.commit(&[operation]).is_ok());
    let reply = world.ask(alice, register(1, record(1, "stolen", 2, world.now)));
    assert_eq!(code(&reply), Some(Code::Later));
    assert_eq!(world.registry.stats().conflicts, 1);
    assert_eq!(world.find(alice, Find::Key(agent(1))), ["agent1"]);
}
