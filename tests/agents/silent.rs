//! A rendezvous that accepts connections and never speaks, and one that a black hole has swallowed.

use super::several::{Network, meets_at};
use super::*;
use crate::lab::Agents;

/// How long an agent may stay with a rendezvous that says nothing.
const NOTICED: Duration = Duration::from_secs(40);

/// Since when, and in what state, an agent is with its first rendezvous.
fn first_meeting(agent: &Agent) -> (String, u64) {
    let meeting = agent.ask("agents")["meetings"][0].clone();
    (meeting["state"].as_str().expect("a state").to_owned(), meeting["since"].as_u64().expect("a time"))
}

#[test]
fn a_black_hole_is_noticed_and_the_other_rendezvous_answers_meanwhile() {
    let Some(mut network) = Network::new("black hole") else { return };
    let (alice, bob) = (network.agent("alice", 0), network.agent("bob", 1));
    for agent in [&alice, &bob] {
        meets_at(agent, 2);
    }
    let router = network.world.router.clone();
    router.shell("nft 'add table inet hole; add chain inet hole in { type filter hook input priority 0; }'");
    router.shell("nft 'add rule inet hole in tcp dport 7447 tcp flags syn counter drop'");
    router.shell("nft 'add rule inet hole in tcp dport 7447 drop'");
    let began = Instant::now();
    // The other one answers at once.
    befriend(&alice, "--want icmp", &bob, "");
    let befriended = began.elapsed();
    // A new connection is tried: its SYN falls into the hole.
    within(NOTICED, "another attempt", || {
        let counted = router.shell("nft list chain inet hole in");
        let packets = counted.split_once("counter packets ")?.1.split_once(' ')?.0.parse::<u64>().ok()?;
        (packets > 0).then_some(())
    });
    let noticed = began.elapsed();
    let (state, since) = first_meeting(&alice);
    assert!(state != "connected" && unix_seconds() - since < NOTICED.as_secs(), "{state} since {since}");
    eprintln!("black hole: a friend by the other one after {befriended:?}, another attempt after {noticed:?}");
    router.shell("nft delete table inet hole");
    meets_at(&alice, 2);
    assert!(first_meeting(&alice).1 > since);
}

#[test]
fn a_rendezvous_that_never_speaks_is_tried_again_and_status_says_since_when() {
    if !crate::lab::installed("never speaks", &["socat"]) {
        return;
    }
    let Some(mut world) = Agents::new("never speaks") else { return };
    let alice = world.agent("alice");
    world.kill();
    let began = Instant::now();
    let silent = world.router.spawn("socat -d -d -u TCP-LISTEN:7447,bind=192.0.2.9,reuseaddr,fork OPEN:/dev/null");
    let accepted = || silent.stderr().matches("accepting connection from").count();
    within(NOTICED, "the first attempt", || (accepted() > 0).then_some(()));
    let first = Instant::now();
    within(NOTICED, "another attempt", || (accepted() > 1).then_some(()));
    eprintln!("never speaks: tried after {:?}, and again after {:?}", first - began, first.elapsed());
    let (state, since) = first_meeting(&alice);
    let is_since = (unix_seconds() - since).abs_diff(began.elapsed().as_secs()) <= 2;
    assert!(state != "connected" && is_since, "{state} since {since}");
    let status = alice.verb(format!("status {}", alice.host.interface())).succeeded("status");
    assert!(status.contains("has not served this agent since 20"), "{status}");
}
