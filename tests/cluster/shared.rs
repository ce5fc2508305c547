//! Agents of different processes see each other as if there were one.

use crate::lab::agents::befriend;
use crate::lab::{Agent, SHORTLY, within};
use crate::world::World;

#[test]
fn agents_of_different_processes_trust_find_and_reach_each_other() {
    let Some(mut world) = World::new("shared") else { return };
    let (alice, bob) = (world.agent("alice", &[0]), world.agent("bob", &[1]));
    assert_eq!((world.connections(0), world.connections(1)), (1, 1));
    // The request, the approval and the places of both go through both processes.
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let v4 = bob.v4();
    let _server = bob.serves();
    within(SHORTLY, "the page", || (alice.curls(&v4).stdout == "hello").then_some(()));

    // A name that is taken at one process is taken at the other.
    let carol = world.agents.host("carol");
    carol.write_etc_hosts("127.0.0.1 localhost\n192.0.2.9 rendezvous.example\n");
    Agent::init(&carol, "bob", &world.agents.url).succeeded("overlay init");
    let mut carol = Agent::of(&carol);
    carol.start();
    let said = within(SHORTLY, "a refusal", || {
        let said = carol.ask("agents").to_string();
        said.contains("taken").then_some(said)
    });
    eprintln!("{said}");

    // What the operator orders at one process holds at both.
    world.operator(0, "agents ban bob").succeeded("ban");
    within(SHORTLY, "the end of bob", || {
        let found = alice.verb("find bob --json").stdout;
        found.contains("\"agents\":[]").then_some(())
    });
    let listed = world.operator_asks(1, "agents list").to_string();
    assert!(listed.contains("banned"), "{listed}");
}

/// Each process would take strangers for as long as it does not know.
#[test]
fn a_network_that_one_process_closes_or_opens_is_so_at_the_other() {
    let Some(mut world) = World::new("closing") else { return };
    world.kill(0);
    world.start_with(0, "--closed");
    world.follows(1);
    let stranger = world.newcomer("stranger", &[1]);
    let said = within(SHORTLY, "a refusal", || {
        let said = stranger.ask("agents").to_string();
        said.contains("closed").then_some(said)
    });
    eprintln!("{said}");
    world.kill(1);
    world.start_with(1, "--open");
    world.follows(0);
    world.agent("newcomer", &[0]);
    // What was refused is taken now, and both say the same after a start without a word.
    stranger.is_registered("stranger");
    world.kill(0);
    world.start(0);
    world.agent("late", &[0]);
}
