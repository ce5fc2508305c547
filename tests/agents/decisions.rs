//! The log of decisions, trust that is given beforehand, and the code by which people compare keys.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::changes::configure;
use super::*;
use crate::lab::{Agents, services};

fn state(agent: &Agent) -> PathBuf {
    agent.host.dir().join("state/lab")
}

fn key(agent: &Agent) -> String {
    agent.ask("agents")["identity"].as_str().expect("a key").to_owned()
}

/// What was decided, by whom, and what it gives, oldest first.
fn decided(agent: &Agent, arguments: &str) -> Vec<(String, String, String)> {
    let answer = agent.ask(&format!("decisions {arguments}"));
    assert_eq!(answer["schema"], "overlay.decisions.v1");
    let decisions = answer["decisions"].as_array().expect("a list").iter().rev();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by = |decision: &Value| decision["uid"].as_u64().map_or(text(&decision["rule"]), |uid| format!("uid {uid}"));
    decisions.map(|it| (text(&it["decision"]), by(it), it["allow"].to_string())).collect()
}

fn expected(lines: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    lines.iter().map(|(what, by, allow)| ((*what).to_owned(), (*by).to_owned(), (*allow).to_owned())).collect()
}

#[test]
fn every_decision_is_logged_with_who_made_it_and_outlives_the_daemon() {
    let Some(mut world) = Agents::new("decisions") else { return };
    let (alice, mut bob) = world.two();
    let carol = world.agent("carol");
    befriend(&alice, "--want tcp/8000", &bob, "");
    bob.ask("approve alice --allow icmp --for 2s");
    within(SHORTLY, "the grant to end", || (bob.peer("alice")["state"] == "expired").then_some(()));
    bob.ask("approve alice --allow icmp");
    bob.ask("untrust alice");
    carol.ask("handshake bob --want any");
    bob.is_asked_by("carol");
    bob.ask("reject carol");
    let lines = [
        ("approved", "uid 0", r#"["tcp/8000"]"#),
        ("changed", "uid 0", r#"["icmp"]"#),
        ("expired", "expiry", "null"),
        ("changed", "uid 0", r#"["icmp"]"#),
        ("untrusted", "uid 0", "null"),
    ];
    assert_eq!(decided(&bob, "--peer alice"), expected(&lines));
    bob.kill9();
    bob.start();
    let all = decided(&bob, "");
    assert_eq!(all.last(), Some(&("rejected".to_owned(), "uid 0".to_owned(), "null".to_owned())), "{all:?}");
    assert_eq!(all.len(), lines.len() + 1);
    assert_eq!(decided(&bob, "-n 1").len(), 1);

    let path = state(&bob).join("decisions.log");
    assert_eq!(fs::metadata(&path).expect("the log").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).expect("the log");
    for line in text.lines() {
        let decision: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(decision["identity"].as_str().map(str::len), Some(52), "{line}");
        assert!(decision["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(decision["unix_ms"].is_u64() && decision["name"].is_string(), "{line}");
    }
}

#[test]
fn trust_is_taken_back_even_if_that_cannot_be_logged() {
    let Some(mut world) = Agents::new("no log") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let path = state(&bob).join("decisions.log");
    fs::remove_file(&path).expect("the log");
    fs::create_dir(&path).expect("a folder in the way");
    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
    assert_eq!(bob.ask("decisions")["unwritten"], 1);
    let warnings = |agent: &Agent| agent.daemon().status()["warnings"].clone();
    let kinds = warnings(&bob);
    assert!(kinds.as_array().is_some_and(|all| all.iter().any(|it| it["kind"] == "decisions")), "{kinds:#}");
    assert!(bob.daemon().log().contains("cannot be logged"), "{}", bob.daemon().log());
    fs::remove_dir(&path).expect("our folder");
    alice.ask("handshake bob");
    bob.is_asked_by("alice");
    bob.ask("reject alice");
    assert_eq!(decided(&bob, ""), expected(&[("rejected", "uid 0", "null")]));
    assert!(!warnings(&bob).to_string().contains("decisions"), "{:#}", warnings(&bob));
}

#[test]
fn what_the_config_decides_is_logged_with_its_rule() {
    let Some(mut world) = Agents::new("decisions of the config") else { return };
    let (alice, bob) = world.two();
    let carol = world.agent("carol");
    configure(
        &bob,
        &format!("allow = [\"tcp/8000\"]\nauto_approve = [\"{}\"]", key(&alice)),
        &format!("\n[[trust]]\nkey = \"{}\"\nallow = [\"icmp\"]\n", key(&carol)),
    );
    alice.ask("handshake bob --want any");
    alice.sees("bob", "trusted");
    carol.ask("handshake bob --want any");
    carol.sees("bob", "trusted");
    assert_eq!(decided(&bob, "--peer alice"), expected(&[("approved", "auto_approve", r#"["tcp/8000"]"#)]));
    let carols = decided(&bob, "--peer carol");
    assert!(carols.iter().all(|(_, by, allow)| by == "[[trust]]" && allow == r#"["icmp"]"#), "{carols:?}");
    assert!(!carols.is_empty());
    assert_eq!(bob.ask("rules carol")["here"]["by"], "[[trust]]");
}

#[test]
fn trust_that_is_given_beforehand_answers_the_request() {
    let Some(mut world) = Agents::new("beforehand") else { return };
    let (alice, mut bob) = world.two();
    let alices = key(&alice);
    // A name could be anybody's until then.
    assert_eq!(bob.verb("trust alice").code, 2);
    assert_eq!(bob.verb(format!("trust {}", key(&bob))).code, 2);
    let granted = bob.ask(&format!("trust {alices} --allow tcp/8000 --for 1h"));
    assert_eq!((&granted["state"], &granted["identity"]), (&"granted".into(), &alices.as_str().into()));
    assert_eq!(bob.ask("agents")["peers"][0]["state"], "granted");
    assert_eq!(bob.ask(&format!("rules {alices}"))["here"]["state"], "beforehand");
    let why = bob.verb(format!("explain {alices} self tcp/8000 --json"));
    assert!(why.code == 7 && why.stdout.contains("\"beforehand\""), "{}", why.stdout);
    // It is on disk.
    bob.kill9();
    bob.start();
    bob.is_registered("bob");
    let _server = bob.serves();
    alice.ask("handshake bob --want any");
    alice.sees("bob", "trusted");
    assert_eq!(alice.peer("bob")["opens"], Value::from(&["tcp/8000"][..]));
    assert!(alice.peer("bob")["expires"].is_u64());
    gets_page(&alice, &bob.v4());
    let lines = [("granted", "uid 0", r#"["tcp/8000"]"#), ("approved", "trust", r#"["tcp/8000"]"#)];
    assert_eq!(decided(&bob, "--peer alice"), expected(&lines));

    // It was used once: what is taken back stays so, and is given again by a key.
    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");
    alice.ask("handshake bob --want any --allow icmp");
    bob.is_asked_by("alice");
    let approved = bob.ask(&format!("trust {alices} --allow icmp"));
    assert_eq!((&approved["state"], &approved["allow"][0]), (&"trusted".into(), &"icmp".into()), "{approved:#}");
}

#[test]
fn trust_that_is_given_beforehand_can_be_taken_back_before_it_is_used() {
    let Some(mut world) = Agents::new("beforehand, untrust") else { return };
    let (alice, bob) = world.two();
    let alices = key(&alice);
    bob.ask(&format!("trust {alices} --allow any"));
    assert_eq!(bob.ask(&format!("untrust {alices}"))["state"], "untrusted");
    assert_eq!(bob.verb(format!("untrust {alices}")).code, 6);
    alice.ask("handshake bob --want any");
    bob.is_asked_by("alice");
    assert_eq!(bob.peer("alice")["state"], "pending");
    let lines = [("granted", "uid 0", r#"["any"]"#), ("untrusted", "uid 0", "null")];
    assert_eq!(decided(&bob, &format!("--peer {alices}")), expected(&lines));
}

#[test]
fn both_sides_show_one_code_which_sha256sum_makes_too() {
    let Some(mut world) = Agents::new("verify") else { return };
    let (alice, bob) = world.two();
    alice.ask("handshake bob");
    bob.is_asked_by("alice");
    let (alices, bobs) = (alice.ask("trust verify bob"), bob.ask("trust verify alice"));
    assert_eq!(alices["schema"], "overlay.verify.v1");
    assert_eq!(alices["code"], bobs["code"]);
    let network = world.url.rsplit('.').next().expect("#RVKEY.NETKEY");
    let page = include_str!("../../docs/agents.md");
    let line = page.lines().find(|line| line.contains("| sha256sum |")).expect("a line for a shell");
    let line = line.replace("NETKEY", network).replace("KEY1", &key(&bob)).replace("KEY2", &key(&alice));
    let computed = alice.host.shell(&line);
    assert_eq!(alices["code"].as_str(), Some(computed.trim()), "{line}");
    let eve = world.agent("eve");
    assert_ne!(alice.ask(&format!("trust verify {}", key(&eve)))["code"], alices["code"]);
    assert_eq!(alice.verb("trust verify nobody").code, 6);
}
