//! What is on disk when a command returns, and what waits for an agent that is not there.

use super::*;
use crate::lab::Agents;

#[test]
fn an_approval_is_on_disk_before_the_command_returns() {
    let Some(mut world) = Agents::new("approve, kill") else { return };
    let (alice, mut bob) = world.two();
    alice.ask("handshake bob --want tcp/8000");
    bob.is_asked_by("alice");
    bob.ask("approve alice");
    bob.kill9();
    bob.start();
    assert_eq!(bob.peer("alice")["state"], "trusted");
    alice.sees("bob", "trusted");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
}

#[test]
fn a_revocation_is_on_disk_before_the_command_returns() {
    let Some(mut world) = Agents::new("untrust, kill") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    world.kill();
    bob.ask("untrust alice");
    bob.kill9();
    bob.start();
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    assert_ne!(alice.host.run(format!("ping -n -q -c 3 -i 0.3 -W 1 {v4}")).code, 0);
    // The other side learns it when the rendezvous is back.
    world.start();
    within(RECONNECT, "alice to be told", || (alice.peer("bob")["state"] == "untrusted").then_some(()));
}

/// Reconnects are spread over half a minute.
const RECONNECT: Duration = Duration::from_secs(60);

#[test]
fn a_request_and_its_approval_wait_for_agents_that_are_not_there() {
    let Some(mut world) = Agents::new("mailbox") else { return };
    let (mut alice, mut bob) = world.two();
    bob.kill9();
    alice.ask("handshake bob --want tcp/8000");
    // The request is on disk. Whether it was sent already does not matter.
    alice.kill9();
    bob.start();
    alice.start();
    bob.is_asked_by("alice");
    alice.kill9();
    bob.ask("approve alice");
    alice.start();
    alice.sees("bob", "trusted");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
}

#[test]
fn the_asker_sees_how_far_its_request_came() {
    let Some(mut world) = Agents::new("progress") else { return };
    let (alice, mut bob) = world.two();
    let is = |progress: &str| {
        within(SHORTLY, &format!("the request to be {progress}"), || {
            (alice.peer("bob")["request"] == progress).then_some(())
        });
    };
    bob.kill9();
    alice.ask("handshake bob --want tcp/8000");
    is("sent");
    bob.start();
    is("delivered");
    assert_eq!(alice.peer("bob")["state"], "asked");
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    assert_eq!(alice.peer("bob")["request"], Value::Null);
}

#[test]
fn a_peer_that_moved_while_it_was_off_is_found_again() {
    let Some(mut world) = Agents::new("moved") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    drop(server);
    bob.kill9();
    let link = bob.host.link_to(&world.router);
    bob.host.ip(&format!("address flush dev {link} scope global"));
    bob.host.ip(&format!("address add 10.200.0.2/24 dev {link}"));
    bob.host.ip(&format!("route add default via 10.200.0.1 dev {link}"));
    world.router.ip(&format!("address add 10.200.0.1/24 dev {}", world.router.link_to(&bob.host)));
    bob.start();
    let _server = bob.serves();
    gets_page(&alice, &v4);
}

#[test]
fn agents_come_back_to_a_rendezvous_that_was_restarted() {
    let Some(mut world) = Agents::new("restarted") else { return };
    let (alice, bob) = world.two();
    world.kill();
    for agent in [&alice, &bob] {
        within(SHORTLY, "the loss to be noticed", || (agent.ask("agents")["rendezvous"] != "connected").then_some(()));
    }
    world.start();
    for agent in [&alice, &bob] {
        within(RECONNECT, "the connection", || (agent.ask("agents")["rendezvous"] == "connected").then_some(()));
    }
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
}
