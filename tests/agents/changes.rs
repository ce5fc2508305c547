//! What a trusted agent may open changes, and trust that was taken back is given again.

use super::*;
use crate::lab::{Agents, services};

#[test]
fn a_right_that_is_withdrawn_is_refused_at_once_and_the_others_stay() {
    let Some(mut world) = Agents::new("withdrawn") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let _server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);

    let changed = bob.ask("approve alice --allow icmp");
    assert_eq!((&changed["state"], &changed["allow"]), (&"changed".into(), &["icmp"][..].into()), "{changed:#}");
    // The issuer enforces it from now on, whatever the other side knows.
    assert_ne!(alice.curls(&v4).code, 0);
    within(SHORTLY, "alice to learn it", || (alice.peer("bob")["opens"][0] == "icmp").then_some(()));
    is_refused_at_once(&alice.host, &v4, services::HTTP);
    alice.host.reaches(&v4);

    bob.ask("approve alice --allow icmp --allow tcp/8000");
    gets_page(&alice, &v4);
}

#[test]
fn trust_that_was_taken_back_is_given_again_only_by_a_person() {
    let Some(mut world) = Agents::new("again") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");

    alice.ask("handshake bob --want tcp/8000");
    bob.is_asked_by("alice");
    is_refused_at_once(&alice.host, &v4, services::HTTP);
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    gets_page(&alice, &v4);
}

#[test]
fn a_third_agent_gets_nothing_from_two_that_trust_each_other() {
    let Some(mut world) = Agents::new("a third") else { return };
    let (alice, bob) = world.two();
    let eve = world.agent("eve");
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let _servers = (bob.serves(), alice.serves());
    gets_page(&alice, &bob.v4());
    gets_page(&bob, &alice.v6());
    for address in [bob.v4(), bob.v6(), alice.v4(), alice.v6()] {
        is_refused_at_once(&eve.host, &address, services::HTTP);
    }
    assert_eq!(bob.peer("eve"), Value::Null);
}

#[test]
fn a_reload_takes_back_nothing_that_a_verb_has_granted() {
    let Some(mut world) = Agents::new("reload") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    for agent in [&alice, &bob] {
        agent.verb("reload").succeeded("overlay reload");
    }
    assert_eq!(alice.curls(&v4).succeeded("curl"), "hello");
    assert_eq!(bob.daemon().status()["peers"].as_array().map(Vec::len), Some(1));
}

/// Adds keys to the `[agent]` table of an agent's config, and tables after it, and reloads it.
#[track_caller]
pub(super) fn configure(agent: &Agent, keys: &str, tables: &str) {
    let config = std::fs::read_to_string(agent.config()).expect("what init wrote");
    let config = config.replacen("\n[agent]\n", &format!("\n[agent]\n{keys}\n"), 1) + tables;
    std::fs::write(agent.config(), config).expect("our own file");
    agent.verb("reload").succeeded("overlay reload");
}

#[test]
fn an_agent_that_the_config_approves_gets_what_the_config_allows_until_a_person_takes_it_back() {
    let Some(mut world) = Agents::new("auto_approve") else { return };
    let (alice, bob) = world.two();
    let key = alice.ask("agents")["identity"].as_str().expect("a key").to_owned();
    configure(&bob, &format!("allow = [\"tcp/8000\"]\nauto_approve = [\"{key}\"]"), "");
    let _server = bob.serves();
    let v4 = bob.v4();
    alice.ask("handshake bob --want any");
    alice.sees("bob", "trusted");
    assert_eq!(alice.peer("bob")["opens"], Value::from(&["tcp/8000"][..]));
    gets_page(&alice, &v4);
    is_refused_at_once(&alice.host, &v4, 22);

    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");
    alice.ask("handshake bob --want any --allow icmp");
    bob.is_asked_by("alice");
    assert_eq!(bob.peer("alice")["state"], "pending");
}

#[test]
fn an_agent_that_the_config_trusts_gets_what_its_table_allows() {
    let Some(mut world) = Agents::new("[[trust]]") else { return };
    let (alice, bob) = world.two();
    let key = alice.ask("agents")["identity"].as_str().expect("a key").to_owned();
    configure(&bob, "", &format!("\n[[trust]]\nkey = \"{key}\"\nallow = [\"tcp/8000\"]\n"));
    let _server = bob.serves();
    alice.ask("handshake bob --want any");
    alice.sees("bob", "trusted");
    assert_eq!(alice.peer("bob")["opens"], Value::from(&["tcp/8000"][..]));
    gets_page(&alice, &bob.v4());

    // What the file says now is what she has. A verb changes nothing.
    assert_eq!(bob.verb("approve alice --allow any").code, 7);
    let config = std::fs::read_to_string(bob.config()).expect("our own file");
    let config = config.replace("allow = [\"tcp/8000\"]", "allow = [\"icmp\"]");
    std::fs::write(bob.config(), config).expect("our own file");
    bob.verb("reload").succeeded("overlay reload");
    assert_eq!(bob.peer("alice")["allow"], Value::from(&["icmp"][..]));
    alice.host.reaches(&bob.v4());
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
}
