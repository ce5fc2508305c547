//! Names as people type them, and texts of strangers as people see them.

use super::*;
use crate::lab::{AT_LENGTH, Agents};

/// What cannot be a name, and the reason that people are told.
const BAD: [(&str, &str); 13] = [
    ("", "it is empty"),
    ("Bob", "it has the capital letter 'B'"),
    ("BOB", "it has the capital letter 'B'"),
    ("bob_2", "it has the character '_'"),
    ("bob.lab", "it has the character '.'"),
    ("bøb", "it has the character 'ø'"),
    ("-bob", "it begins or ends with a hyphen"),
    ("bob-", "it begins or ends with a hyphen"),
    ("a23456789012345678901234567890123", "it is longer than 32 characters"),
    ("123", "it has only digits"),
    ("xn--bb-9ia", "it begins with \\\"xn--\\\""),
    ("localhost", "it is reserved"),
    ("dns", "it is reserved"),
];

#[test]
fn what_is_not_a_name_is_refused_with_the_reason_by_init_and_by_config_check() {
    let Some(mut world) = Agents::new("bad names") else { return };
    let host = world.host("bob");
    let config = host.dir().join("new.toml");
    let state = host.dir().join("state");
    Agent::init(&host, "good-name", &world.url).succeeded("overlay init");
    let agent = Agent::of(&host);
    let good = std::fs::read_to_string(agent.config()).expect("what `init` has written");
    assert!(good.contains("name = \"good-name\""), "{good}");
    for (name, reason) in BAD {
        // Nothing is written: neither a config nor an identity.
        let (elsewhere, config) = (host.dir().join("elsewhere"), config.display().to_string());
        let (elsewhere_text, url) = (elsewhere.display().to_string(), &world.url);
        let words = ["--state-dir", &elsewhere_text, "init", "--rendezvous", url, "-o", &config, "--", name];
        let init = host.overlay(words);
        assert_eq!(init.code, 2, "{name:?}: {}", init.stderr);
        let reason = reason.replace("\\\"", "\"");
        assert!(init.stderr.contains(&reason), "{name:?}: {}", init.stderr);
        assert!(init.stderr.contains("\nhint: "), "{name:?}: {}", init.stderr);
        assert!(!elsewhere.exists() && !std::path::Path::new(&config).exists(), "{name:?}");

        let written = host.write("bad.toml", good.replace("\"good-name\"", &format!("{name:?}")));
        let check = host.overlay(format!("--state-dir {} config check {}", state.display(), written.display()));
        assert_eq!(check.code, 5, "{name:?}: {}", check.stderr);
        let said = check.stdout + &check.stderr;
        assert!(said.contains(&reason), "{name:?}: {said}");
    }
    let check = host.overlay(format!("config check {}", agent.config().display()));
    assert_eq!(check.code, 0, "{}", check.stderr);
}

#[test]
fn a_name_belongs_to_the_first_key_also_while_its_agent_is_off_and_after_restarts() {
    let Some(mut world) = Agents::new("first come") else { return };
    let (alice, mut bob) = world.two();
    let identity = bob.ask("agents")["identity"].clone();
    let host = world.host("bob2");
    Agent::init(&host, "bob", &world.url).succeeded("overlay init");
    let mut second = Agent::of(&host);
    bob.kill9();
    world.kill();
    world.start();
    for _ in 0..2 {
        second.start();
        within(SHORTLY, "the log to say so", || second.daemon().log().contains("name_taken").then_some(()));
        within(AT_LENGTH, "alice to be connected", || (alice.ask("agents")["rendezvous"] == "connected").then_some(()));
        let named = alice.ask("find bob");
        assert_eq!((&named["agents"][0]["identity"], named["agents"].as_array().map(Vec::len)), (&identity, Some(1)));
        second.kill9();
    }
    bob.start();
    bob.is_registered("bob");
}

#[test]
fn a_reason_with_ansi_sequences_is_inert_in_the_table_in_json_in_errors_and_in_the_log() {
    let Some(mut world) = Agents::new("inert everywhere") else { return };
    let alice = world.agent("alice");
    let host = world.host("bob");
    Agent::init(&host, "bob", &world.url).succeeded("overlay init");
    let mut bob = Agent::of(&host);
    bob.start_logging("debug");
    bob.is_registered("bob");
    let reason = "\x1b[2J\x1b]0;owned\x07\r\nmallory  trusted\u{202e}\u{9b}31m\t\\x1b";
    alice.verb(["handshake", "bob", reason]).succeeded("overlay handshake");
    let shown = bob.is_asked_by("alice");
    assert_eq!(shown["reason"], reason, "a program gets what was written");

    let is_inert =
        |text: &str| !text.chars().any(|c| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{9b}'));
    let table = bob.verb("pending").succeeded("overlay pending");
    assert_eq!(table.trim_end().lines().count(), 2, "{table}");
    assert!(is_inert(&table), "{table:?}");
    assert!(table.contains("owned") && table.contains("\\u{1b}"), "it is shown as escapes: {table}");
    let json = bob.verb("pending --json").succeeded("overlay pending --json");
    assert!(is_inert(&json), "{json:?}");
    assert!(json.contains("\\u001b") && json.contains("\\u202e"), "{json}");

    // What people type comes back in errors, and may have been copied from somewhere.
    for verb in ["approve", "reject", "untrust", "whois", "ip", "handshake"] {
        let finished = bob.verb([verb, "\x1b[2Jmallory\r\n\u{202e}x"]);
        assert_ne!(finished.code, 0, "{verb}");
        assert!(is_inert(&finished.stdout) && is_inert(&finished.stderr), "{verb}: {:?}", finished.stderr);
    }
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    for agent in [&alice, &bob] {
        assert!(is_inert(&agent.daemon().log()), "{:?}", agent.daemon().log());
    }
}
