//! A process is killed, and members of the cluster are.

use std::time::{Duration, Instant};

use crate::lab::agents::befriend;
use crate::lab::{SHORTLY, within};
use crate::world::World;

/// How long agents may take to come to a different process.
const ELSEWHERE: Duration = Duration::from_secs(15);
/// How long it may take until something can be registered again.
const WRITABLE: Duration = Duration::from_secs(10);

#[test]
fn agents_of_a_process_that_is_killed_are_on_the_other_one_within_15_s() {
    let Some(mut world) = World::new("killed") else { return };
    // They know both, and choose one of them at random.
    let agents: Vec<_> = (0..6).map(|n| world.agent(&format!("agent-{n}"), &[0, 1])).collect();
    let (one, other) = (world.connections(0), world.connections(1));
    eprintln!("{one} agents at one process, {other} at the other");
    assert_eq!(one + other, 6);
    let (killed, left) = if one > 0 { (0, 1) } else { (1, 0) };
    world.kill(killed);
    let began = Instant::now();
    within(ELSEWHERE, "all agents at the other process", || (world.connections(left) == 6).then_some(()));
    eprintln!("all agents were there after {:.1} s", began.elapsed().as_secs_f64());
    // Each of them can be reached there.
    befriend(&agents[0], "--want icmp", &agents[5], "");
    // The process comes back, and serves.
    world.start(killed);
    let late = world.agent("late", &[killed]);
    within(SHORTLY, "an agent of the other process", || {
        late.verb("find agent-3 --json").stdout.contains("agent-3").then_some(())
    });
}

#[test]
fn a_leader_that_is_killed_keeps_nobody_from_registering_for_10_s() {
    let Some(mut world) = World::new("leader") else { return };
    let alice = world.agent("alice", &[0]);
    for round in 0..3 {
        let leader = world.etcd.leader();
        world.etcd.kill(leader);
        let began = Instant::now();
        let name = format!("newcomer-{round}");
        let _newcomer = world.agent(&name, &[round % 2]);
        let took = began.elapsed();
        eprintln!("without its leader, the cluster took a new agent after {:.1} s", took.as_secs_f64());
        assert!(took <= WRITABLE, "{took:?}");
        within(SHORTLY, "the newcomer at a different process", || {
            alice.verb(format!("find {name} --json")).stdout.contains(&name).then_some(())
        });
        world.etcd.revive(leader);
        world.etcd.is_healthy();
    }
}

#[test]
fn without_a_majority_agents_stay_connected_and_tunnels_go_on() {
    let Some(mut world) = World::new("majority") else { return };
    let (alice, bob) = (world.agent("alice", &[0]), world.agent("bob", &[1]));
    befriend(&alice, "--want icmp", &bob, "");
    let v4 = bob.v4();
    let pings = |count: u32| alice.host.run(format!("ping -n -q -c {count} -i 0.2 -W 1 {v4}"));
    within(SHORTLY, "an answer", || (pings(1).code == 0).then_some(()));
    world.etcd.kill(0);
    world.etcd.kill(1);
    // Longer than the lease of the processes in the cluster, and than the silence after which agents give a connection up.
    assert_eq!(pings(200).code, 0, "all are answered");
    assert_eq!((world.connections(0), world.connections(1)), (1, 1), "nobody has left");
    let found = alice.verb("find bob --json").stdout;
    assert!(found.contains("bob"), "what is known is answered: {found}");
    // Both sides say what is wrong.
    let stats = world.operator_asks(0, "stats");
    assert!(stats["store_silent"][0].as_u64() >= Some(30), "{stats}");
    let waiting = world.newcomer("waiting", &[1]);
    within(SHORTLY, "the doctor to notice", || {
        waiting.verb("doctor").stdout.contains("[rendezvous_stalls]").then_some(())
    });
    world.etcd.revive(0);
    world.etcd.is_healthy();
    let carol = world.agent("carol", &[1]);
    befriend(&carol, "--want icmp", &alice, "");
    within(SHORTLY, "everybody is seen as connected", || {
        let shown = world.etcd.run("get --prefix --keys-only overlay/lab/registry/here/").stdout;
        (shown.matches("overlay/lab/registry/here/").count() == 4).then_some(())
    });
}
