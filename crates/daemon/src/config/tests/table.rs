//! The table of keys: it says what is read, and the files that are made from it are current.

use std::collections::BTreeSet;

use super::super::keys::{
    AGENT, Absent, Applied, INTERFACE as OURS, METRICS, PEER, Shape, TOP, TRUST, TUNING, keys_for_next_up,
};
use super::*;

/// A config with this line in the table of this name.
fn with_line(table: &str, line: &str) -> String {
    if matches!(table, "agent" | "trust") {
        return with_line_of_agent_mode(table, line);
    }
    let line_of = |name: &str| if name == table { line } else { "" };
    let (interface, peer, tuning) = (line_of("interface"), line_of("peer"), line_of("tuning"));
    let metrics = if table == "metrics" && !line.is_empty() { format!("[metrics]\n{line}\n") } else { String::new() };
    format!(
        "{INTERFACE}{interface}\n[[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\n{peer}\n[tuning]\n{tuning}\n{metrics}"
    )
}

fn with_line_of_agent_mode(table: &str, line: &str) -> String {
    let in_agent = if table == "agent" { line } else { "" };
    let key = line.split(' ').next().unwrap_or_default();
    let agent = [
        ("name", "name = \"dave\"".to_owned()),
        ("rendezvous", format!("rendezvous = [\"https://[2001:db8::7]:7447#{DAVE}.{ERIN}\"]")),
    ];
    let agent: String = agent
        .iter()
        .filter(|(name, _)| table != "agent" || *name != key)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    let trust = match table {
        "trust" if key == "key" => format!("[[trust]]\n{line}\n"),
        "trust" => format!("[[trust]]\nkey = \"{DAVE}\"\n{line}\n"),
        _ => String::new(),
    };
    format!("[agent]\n{agent}{in_agent}\n{trust}")
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let keys_of = |table: &serde_json::Value| {
        let mut keys: Vec<_> = table["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let tables = [
        ("InterfaceTable", &OURS),
        ("PeerTable", &PEER),
        ("MetricsTable", &METRICS),
        ("TuningTable", &TUNING),
        ("AgentTable", &AGENT),
        ("TrustTable", &TRUST),
    ];
    for (definition, table) in tables {
        let mut keys: Vec<_> = table.keys.iter().map(|key| key.name.to_owned()).collect();
        keys.sort();
        assert_eq!(keys_of(&schema["$defs"][definition]), keys, "{definition}");
    }
    assert_eq!(keys_of(&schema), ["agent", "interface", "metrics", "peer", "trust", "tuning"]);
}

#[test]
fn the_committed_schema_is_current() {
    committed("schema.json", &schema());
}

#[test]
fn the_committed_reference_is_current() {
    committed("reference.toml", &reference());
}

/// A file under configs is this text; `OVERLAY_BLESS=1` makes it so.
#[track_caller]
fn committed(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    if std::env::var_os("OVERLAY_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == text, "run `OVERLAY_BLESS=1 cargo test -p overlay-daemon committed`");
}

#[test]
fn a_key_that_is_left_out_has_the_default_of_the_table() {
    for (name, table) in tables().map(|(key, table)| (key.name, table)) {
        let absent = accepted(&with_line(name, ""));
        for key in table.keys {
            let Absent::Value(value) = key.default else { continue };
            let config = accepted(&with_line(name, &format!("{} = {value}", key.name)));
            assert!(
                config.interface == absent.interface
                    && config.peers == absent.peers
                    && config.tuning == absent.tuning
                    && config.agent == absent.agent,
                "{} = {value} is not the default of {}",
                key.name,
                table.header
            );
        }
    }
}

#[test]
fn the_reader_takes_the_values_of_the_table_and_no_others() {
    for (name, table) in tables().map(|(key, table)| (key.name, table)) {
        for key in table.keys {
            let reads = |value: String| read(&with_line(name, &format!("{} = {value}", key.name))).is_ok();
            let number = |min: u32, max: u32| {
                let above = u64::from(max) + 1;
                assert!(reads(min.to_string()) && reads(max.to_string()), "{} from {min} to {max}", key.name);
                assert!(!reads(above.to_string()), "{} takes {above}", key.name);
                assert!(!reads((i64::from(min) - 1).to_string()), "{} takes less than {min}", key.name);
            };
            let words = |words: &[&str]| {
                assert!(words.iter().all(|word| reads(format!("\"{word}\""))), "{} takes {words:?}", key.name);
                let others = ["auto", "on", "off", "strict", "default", "high", "realtime", "main", "none"];
                let others = others.into_iter().filter(|other| !words.contains(other));
                let taken: Vec<_> = others.filter(|other| reads(format!("\"{other}\""))).collect();
                assert!(taken.is_empty(), "{} also takes {taken:?}", key.name);
            };
            match key.shape {
                Shape::Flag => assert!(["true", "false"].iter().all(|flag| reads((*flag).to_owned())), "{}", key.name),
                Shape::Number(min, max) => number(min, max),
                Shape::Words(choice) => words(choice),
                Shape::WordsOrNumber(choice, min, max) => {
                    words(choice);
                    number(min, max);
                }
                // Their examples are read with configs/reference.toml.
                _ => {}
            }
        }
    }
}

#[test]
fn the_table_says_everything_once() {
    for table in tables().map(|(_, table)| table).chain([&TOP]) {
        let mut words = BTreeSet::new();
        for key in table.keys {
            let other = key.aliases.iter().copied().chain([key.name]).find(|word| !words.insert(*word));
            assert_eq!(other, None, "stands for two keys of {}", table.header);
            assert!(key.meaning.ends_with('.') && !key.values.ends_with('.'), "{}", key.name);
        }
    }
    let peers = TOP.keys.iter().find(|key| key.name == "peer").unwrap();
    let most = overlay_core::Node::MAX_PEERS.to_string();
    assert!(peers.values.replace(',', "").contains(&most), "{}", peers.values);
}

#[test]
fn what_agent_mode_applies_at_a_reload_is_what_it_allows() {
    let reloaded = |table: &KeyTable| {
        let keys = table.keys.iter().filter(|key| matches!(key.applied, Applied::Reload));
        keys.map(|key| key.name).collect::<Vec<_>>()
    };
    assert_eq!(reloaded(&AGENT), ["allow", "auto_approve"]);
    assert_eq!(reloaded(&TRUST), ["key", "allow", "expires"]);
}

#[test]
fn a_changed_key_waits_for_the_next_up_if_the_table_says_so() {
    for (name, table) in tables().map(|(key, table)| (key.name, table)) {
        let old = accepted(&with_line(name, ""));
        for key in table.keys {
            let waits = matches!(key.applied, Applied::NextUp(_));
            let Some(value) = different_value(key) else {
                assert!(!waits, "{name}.{} needs a value that differs", key.name);
                continue;
            };
            let new = accepted(&with_line(name, &format!("{} = {value}", key.name)));
            let expected = if waits { vec![format!("{name}.{}", key.name)] } else { Vec::new() };
            assert_eq!(keys_for_next_up(&old, &new), expected, "{name}.{} = {value}", key.name);
        }
    }
}

/// Returns a value other than the default, or `None` for keys that need more than their own line.
fn different_value(key: &Key) -> Option<String> {
    match key.shape {
        Shape::Flag => Some("true".to_owned()),
        Shape::Number(_, max) => Some(max.to_string()),
        Shape::Words(choice) | Shape::WordsOrNumber(choice, ..) => {
            let mut words = choice.iter().map(|word| format!("\"{word}\""));
            words
                .find(|word| !matches!(key.default, Absent::Value(default) if default == word))
                .or(Some("1280".to_owned()))
        }
        Shape::Text(_) | Shape::Texts(..) if matches!(key.applied, Applied::NextUp(_)) => {
            Some(key.default.example().to_owned())
        }
        _ => None,
    }
}
