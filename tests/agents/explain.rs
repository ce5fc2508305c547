//! `explain` and `rules` say what the data plane does, in every state of trust.

use std::net::UdpSocket;

use super::*;
use crate::lab::{A, Agents, B, Outside, Pair};

/// The exit code of what is refused.
const REFUSED: i32 = 7;

/// Whether the first packet of a flow gets to the other host, as a program sees it. Nothing listens there, so that an
/// answer of its kernel, and no service, says so.
fn arrives(from: &Host, address: &str, what: &str) -> bool {
    let target = |port: &str| -> SocketAddr {
        (address.parse::<std::net::IpAddr>().expect("an address"), port.parse().expect("a port")).into()
    };
    let refused = |error: std::io::Error| match error.raw_os_error() {
        Some(111) => true,
        Some(error) if PROHIBITED.contains(&error) => false,
        other => panic!("{what} to {address}: {other:?} {error}"),
    };
    match what.split_once('/') {
        Some(("tcp", port)) => inside(from, || {
            let connected = TcpStream::connect_timeout(&target(port), CONNECT);
            connected.map_or_else(refused, |_| true)
        }),
        Some(("udp", port)) => inside(from, || {
            let any: SocketAddr =
                if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("an address");
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.set_read_timeout(Some(CONNECT)).expect("a time");
            socket.connect(target(port)).expect("a route");
            let answer = socket.send(b"anybody?").and_then(|_| socket.recv(&mut [0; 8]));
            refused(answer.expect_err("nothing listens"))
        }),
        _ => from.run(format!("ping -n -q -c 1 -W 2 {address}")).code == 0,
    }
}

/// What `explain` says on this host, and its exit code.
#[track_caller]
fn explained(on: &Agent, from: &str, to: &str, what: &str) -> Value {
    let finished = on.verb(format!("explain {from} {to} {what} --json"));
    let answer: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(answer["schema"], "overlay.explain.v1", "{answer:#}");
    let code = if answer["verdict"] == "refused" { REFUSED } else { 0 };
    assert_eq!(finished.code, code, "{answer:#}");
    answer
}

/// Requires that both ends say what a program finds, and that they agree about the side that decides.
#[track_caller]
fn agrees(from: &Agent, to: &Agent, what: &str) -> Value {
    let (source, destination) = (from.host.name(), to.host.name());
    let there = explained(to, source, destination, what);
    let here = explained(from, source, destination, what);
    for address in [to.v4(), to.v6()] {
        let found = arrives(&from.host, &address, what);
        let verdict = if found { "allowed" } else { "refused" };
        let said = (&here["verdict"], &there["verdict"]);
        assert_eq!(said, (&verdict.into(), &verdict.into()), "{what} to {address}\n{here:#}\n{there:#}");
    }
    assert_eq!((&here["decider"], &here["rule"]), (&there["decider"], &there["rule"]), "{here:#}\n{there:#}");
    here
}

#[test]
fn explain_says_what_programs_find_for_every_kind_of_scope() {
    let Some(mut world) = Agents::new("explain") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let openings = ["icmp", "tcp/8000", "tcp/8001", "udp/8000", "udp/8001"];
    let cases: [(&str, [bool; 5]); 8] = [
        ("none", [false; 5]),
        ("any", [true; 5]),
        ("icmp", [true, false, false, false, false]),
        ("tcp", [false, true, true, false, false]),
        ("udp", [false, false, false, true, true]),
        ("tcp/8000", [false, true, false, false, false]),
        ("udp/7000-8000", [false, false, false, true, false]),
        ("47", [false; 5]),
    ];
    for (scope, allowed) in cases {
        bob.ask(&format!("approve alice --allow {scope}"));
        let list = if scope == "none" { Value::Array(Vec::new()) } else { Value::from(&[scope][..]) };
        within(SHORTLY, "alice to learn it", || (alice.peer("bob")["opens"] == list).then_some(()));
        for (what, is_allowed) in openings.into_iter().zip(allowed) {
            let answer = agrees(&alice, &bob, what);
            assert_eq!((&answer["verdict"] == "allowed", &answer["side"]), (is_allowed, &"there".into()), "{answer:#}");
            assert_eq!(answer["rule"].as_str(), is_allowed.then_some(scope), "{answer:#}");
            assert_eq!(answer["decider"], "bob");
        }
    }
    // Alice has given nothing.
    let answer = agrees(&bob, &alice, "tcp/8000");
    assert_eq!((&answer["reason"], &answer["decider"]), (&"not_listed".into(), &"alice".into()), "{answer:#}");
    // The hint does what it says.
    let hint = explained(&alice, "bob", "self", "tcp/8000")["hint"].as_str().expect("a hint").to_owned();
    alice.verb(hint.strip_prefix("sudo overlay ").expect("a command")).succeeded(&hint);
    within(SHORTLY, "bob to learn it", || (bob.peer("alice")["opens"][0] == "tcp/8000").then_some(()));
    agrees(&bob, &alice, "tcp/8000");
}

#[test]
fn explain_says_why_there_is_no_tunnel() {
    let Some(mut world) = Agents::new("explain, closed") else { return };
    let (alice, bob) = world.two();
    // The deciding side and its reason, as each side sees them. Neither can open anything meanwhile.
    let both_say = |alices: (&str, &str), bobs: (&str, &str)| {
        for (agent, peer, (side, reason)) in [(&alice, "bob", alices), (&bob, "alice", bobs)] {
            for (from, to) in [("self", peer), (peer, "self")] {
                let answer = explained(agent, from, to, "tcp/8000");
                let said = (&answer["verdict"], &answer["side"], &answer["reason"]);
                assert_eq!(said, (&"refused".into(), &side.into(), &reason.into()), "{answer:#}");
                assert!(answer["hint"].is_string() && answer["why"].is_string(), "{answer:#}");
            }
        }
        is_refused_at_once(&alice.host, &bob.v4(), 8000);
        is_refused_at_once(&bob.host, &alice.v6(), 8000);
    };
    both_say(("here", "unknown"), ("here", "unknown"));
    alice.ask("handshake bob --want tcp/8000");
    bob.is_asked_by("alice");
    both_say(("there", "asked"), ("here", "pending"));
    bob.ask("approve alice --for 2s");
    within(SHORTLY, "the grant to end", || (bob.peer("alice")["state"] == "expired").then_some(()));
    alice.sees("bob", "expired");
    both_say(("there", "expired"), ("here", "expired"));
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    agrees(&alice, &bob, "tcp/8000");
    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");
    both_say(("there", "revoked"), ("here", "revoked"));
}

#[test]
fn agents_are_named_by_name_key_or_address_and_one_of_both_is_this_one() {
    let Some(mut world) = Agents::new("explain, names") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let key = |agent: &Agent| agent.ask("agents")["identity"].as_str().expect("a key").to_owned();
    let names =
        |agent: &Agent, name: &str| [name.to_owned(), key(agent), key(agent)[..16].to_owned(), agent.v4(), agent.v6()];
    for from in names(&alice, "alice") {
        for to in names(&bob, "bob") {
            let answer = explained(&alice, &from, &to, "tcp/8000");
            assert_eq!((&answer["verdict"], &answer["to"]["name"]), (&"allowed".into(), &"bob".into()), "{answer:#}");
        }
    }
    for (line, code) in [
        ("explain alice self tcp/22", 2),
        ("explain bob carol tcp/22", 2),
        ("explain alice bob tcp", 2),
        ("explain alice bob tcp/1-9", 2),
        ("explain alice bob ssh", 2),
        ("rules carol", 6),
        ("rules alice", 6),
    ] {
        let finished = alice.verb(line);
        assert_eq!(finished.code, code, "{line}: {}", finished.stderr);
        assert!(finished.stderr.contains("\nhint: "), "{line}: {}", finished.stderr);
    }
}

#[test]
fn rules_show_both_grants_and_who_decided() {
    let Some(mut world) = Agents::new("rules") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000 --allow icmp", &bob, "--for 1h");
    let rules = bob.ask("rules alice");
    assert_eq!(rules["schema"], "overlay.rules.v1");
    assert_eq!((&rules["here"]["allow"], &rules["there"]["allow"]), (&["tcp/8000"][..].into(), &["icmp"][..].into()));
    assert_eq!((&rules["here"]["state"], &rules["here"]["by"]), (&"granted".into(), &"uid 0".into()), "{rules:#}");
    assert!(rules["here"]["expires"].is_u64() && rules["there"]["expires"].is_null(), "{rules:#}");
    assert!(rules["packets"]["received"].is_u64() && rules["tunnel"].is_string(), "{rules:#}");
    bob.ask("untrust alice");
    let rules = bob.ask("rules alice");
    assert_eq!((&rules["here"]["state"], &rules["here"]["allow"]), (&"revoked".into(), &Value::Null), "{rules:#}");
}

#[test]
fn explain_and_rules_work_in_static_mode() {
    let Some(pair) = Pair::new("explain, static") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let _on_b = pair.b.overlay_up(&(pair.config_of_b(Outside::V4) + "allow = [\"tcp/8000\", \"icmp\"]\n"));
    pair.a.reaches(B.v4);
    let explained = |on: &Host, from: &str, to: &str, what: &str| -> (i32, Value) {
        let finished = on.overlay(format!("explain {from} {to} {what} --json"));
        (finished.code, serde_json::from_str(&finished.stdout).expect("JSON"))
    };
    for (what, is_allowed) in [("tcp/8000", true), ("icmp", true), ("tcp/8001", false), ("udp/8000", false)] {
        let (code, answer) = explained(&pair.b, A.v4, "self", what);
        let verdict = if is_allowed { "allowed" } else { "refused" };
        assert_eq!((code, &answer["verdict"]), (if is_allowed { 0 } else { REFUSED }, &verdict.into()), "{answer:#}");
        // Only a packet that is listed gets an answer. In static mode the others are dropped by the peer.
        if let Some(port) = what.strip_prefix("tcp/") {
            let (result, _) = connect(&pair.a, B.v4, port.parse().expect("a port"));
            let is_answered = result.is_err_and(|error| error.raw_os_error() == Some(111));
            assert_eq!(is_answered, is_allowed, "{what}");
        }
    }
    let (code, answer) = explained(&pair.b, pair.b.interface(), A.v6, "tcp/22");
    assert_eq!((code, &answer["verdict"], &answer["side"]), (0, &"peer_decides".into(), &"there".into()), "{answer:#}");
    let (_, answer) = explained(&pair.a, pair.b.public_key(), "self", "47");
    assert_eq!((&answer["verdict"], &answer["reason"]), (&"allowed".into(), &"no_list".into()), "{answer:#}");
    assert_eq!(explained(&pair.a, "nobody", "self", "tcp/22").0, 6);

    let rules = pair.b.overlay(format!("rules {} --json", A.v4)).succeeded("overlay rules");
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    assert_eq!(rules["here"]["allow"], Value::from(&["tcp/8000", "icmp"][..]), "{rules:#}");
    assert_eq!((&rules["state"], &rules["there"]["state"]), (&"static".into(), &"not_known".into()), "{rules:#}");
    // What needs an agent says so.
    for line in ["decisions", "events", "trust verify bob"] {
        assert_eq!(pair.a.overlay(line).code, 5, "{line}");
    }
}
