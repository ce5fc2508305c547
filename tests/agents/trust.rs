//! How trust begins: asked and approved, asked from both sides, refused, and what it lets each side open.

use super::*;
use crate::lab::{Agents, SHORTLY, services, within};

/// From nothing to a page by virtual IP.
const FROM_NOTHING: Duration = Duration::from_secs(10);

#[test]
fn two_agents_that_know_a_url_and_a_name_reach_each_other_within_ten_seconds() {
    let began = Instant::now();
    let Some(mut world) = Agents::new("from nothing") else { return };
    let (alice, bob) = world.two();
    // What the relay of the rendezvous answers comes from its port.
    let datagrams = Counter::new(&bob.host, "udp dport 51820 udp sport != 7447");
    let _server = bob.serves();
    let (v4, v6) = (bob.v4(), bob.v6());
    assert_eq!(alice.verb("ip bob").succeeded("overlay ip bob").trim(), v4);
    assert_eq!(alice.verb("ip -6 bob").succeeded("overlay ip -6 bob").trim(), v6);

    // Before both have said yes, nothing gets there, and the programs are told at once.
    for address in [&v4, &v6] {
        is_refused_at_once(&alice.host, address, services::HTTP);
    }
    alice.ask("handshake bob --want tcp/8000 --want icmp");
    let request = bob.is_asked_by("alice");
    assert_eq!((&request["want"][0], &request["want"][1]), (&"tcp/8000".into(), &"icmp".into()));
    assert_eq!((&alice.peer("bob")["state"], &bob.peer("alice")["state"]), (&"asked".into(), &"pending".into()));
    for address in [&v4, &v6] {
        is_refused_at_once(&alice.host, address, services::HTTP);
    }
    assert_eq!(datagrams.packets(), 0, "a datagram to an agent that has not agreed");
    let refused = alice.daemon().dropped("outbound_no_peer");
    assert!(refused >= 12, "{refused}: the kernel refused them, not the daemon");

    bob.ask("approve alice");
    gets_page(&alice, &v4);
    let took = began.elapsed();
    eprintln!("from nothing to curl: {:.1} s", took.as_secs_f64());
    assert!(took <= FROM_NOTHING, "{took:?}");
    assert_eq!(alice.curls(&v6).succeeded("curl by IPv6"), "hello");
    alice.host.reaches(&v4);
    alice.host.reaches(&v6);
}

#[test]
fn what_was_not_granted_is_refused_at_once_on_both_sides() {
    let Some(mut world) = Agents::new("not granted") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let granted = |agent: &Agent, peer: &str| {
        let peer = agent.peer(peer);
        (peer["allow"].to_string(), peer["opens"].to_string())
    };
    assert_eq!(granted(&alice, "bob"), ("[]".to_owned(), r#"["tcp/8000"]"#.to_owned()));
    assert_eq!(granted(&bob, "alice"), (r#"["tcp/8000"]"#.to_owned(), "[]".to_owned()));
    let _servers = (bob.serves(), alice.serves());
    for address in [bob.v4(), bob.v6()] {
        gets_page(&alice, &address);
        is_refused_at_once(&alice.host, &address, 8001);
    }
    for address in [alice.v4(), alice.v6()] {
        is_refused_at_once(&bob.host, &address, services::HTTP);
        is_refused_at_once(&bob.host, &address, 22);
    }
    let refused = [alice.daemon(), bob.daemon()].map(|daemon| daemon.dropped("not_allowed"));
    assert!(refused[0] >= 6 && refused[1] >= 12, "{refused:?}");
}

#[test]
fn requests_that_cross_approve_each_other_with_what_each_gave() {
    let Some(mut world) = Agents::new("crossing") else { return };
    let (alice, bob) = world.two();
    std::thread::scope(|scope| {
        scope.spawn(|| alice.ask("handshake bob --want any --allow icmp"));
        scope.spawn(|| bob.ask("handshake alice --want any --allow tcp/8000"));
    });
    alice.sees("bob", "trusted");
    bob.sees("alice", "trusted");
    for (agent, peer, allow, opens) in [(&alice, "bob", "icmp", "tcp/8000"), (&bob, "alice", "tcp/8000", "icmp")] {
        let peer = agent.peer(peer);
        assert_eq!((&peer["allow"], &peer["opens"]), (&[allow][..].into(), &[opens][..].into()), "{peer:#}");
    }
    let _server = bob.serves();
    let (to_bob, to_alice) = (bob.v4(), alice.v4());
    gets_page(&alice, &to_bob);
    bob.host.reaches(&to_alice);
    is_refused_at_once(&bob.host, &to_alice, services::HTTP);
}

#[test]
fn a_rejected_request_opens_nothing_and_the_asker_is_told() {
    let Some(mut world) = Agents::new("reject") else { return };
    let (alice, bob) = world.two();
    // What the relay of the rendezvous answers comes from its port.
    let datagrams = Counter::new(&bob.host, "udp dport 51820 udp sport != 7447");
    alice.ask("handshake bob --want tcp/8000");
    bob.is_asked_by("alice");
    bob.ask("reject alice");
    assert_eq!(bob.ask("pending")["requests"].as_array().map(Vec::len), Some(0));
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    alice.sees("bob", "untrusted");
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
    assert_eq!(datagrams.packets(), 0);
}

#[test]
fn only_what_was_asked_can_be_approved() {
    let Some(mut world) = Agents::new("never asked") else { return };
    let (alice, _bob) = world.two();
    for stranger in ["bob", "nobody"] {
        let finished = alice.verb(format!("approve {stranger}"));
        assert_eq!(finished.code, 6, "{}", finished.stderr);
        assert!(finished.stderr.contains("\nhint: "), "{}", finished.stderr);
    }
    assert_eq!(alice.ask("agents")["peers"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_second_agent_of_the_same_name_is_refused_and_says_so() {
    let Some(mut world) = Agents::new("taken name") else { return };
    let (alice, bob) = world.two();
    let host = world.host("bob2");
    Agent::init(&host, "bob", &world.url).succeeded("overlay init");
    let mut second = Agent::of(&host);
    second.start();
    within(SHORTLY, "the log to say so", || second.daemon().log().contains("name_taken").then_some(()));
    // The name still leads to the first one.
    let named = alice.ask("whois bob");
    assert_eq!(named["agents"][0]["identity"], bob.ask("agents")["identity"], "{named:#}");
}

#[test]
fn what_a_stranger_writes_is_shown_without_effect() {
    let Some(mut world) = Agents::new("inert") else { return };
    let (alice, bob) = world.two();
    alice.verb(["handshake", "bob", "\x1b[2Jhello\r\nmallory  trusted"]).succeeded("overlay handshake");
    bob.is_asked_by("alice");
    let shown = bob.verb("pending").succeeded("overlay pending");
    assert_eq!(shown.trim_end().lines().count(), 2, "{shown}");
    assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'), "{shown:?}");
}

#[test]
fn a_grant_of_the_asker_ends_too() {
    let Some(mut world) = Agents::new("the asker's expiry") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp --for 2s", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    alice.sees("bob", "expired");
    bob.sees("alice", "expired");
    is_refused_at_once(&alice.host, &v4, services::HTTP);
    is_refused_at_once(&bob.host, &alice.v4(), services::HTTP);
}
