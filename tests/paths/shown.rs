//! What people and programs see of paths: `overlay path`, `ping --until-direct`, `status`, events and counters.

use std::time::Duration;

use overlay_sim::nat::Kind;
use serde_json::Value;

use crate::lab::{Agent, Agents, Apart, SHORTLY, within};

/// The lines of JSON that a program has printed.
fn lines(printed: &str) -> Vec<Value> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The peer in `overlay status`.
fn status_of(agent: &Agent, peer: &str) -> Value {
    let status = agent.ask("status");
    let peers = status["peers"].as_array().expect("a list");
    peers.iter().find(|known| known["name"] == peer).cloned().expect("the peer")
}

#[test]
fn a_direct_path_is_waited_for_and_shown() {
    let Some(apart) = Apart::new("path direct", [Kind::Moderate, Kind::Linux]) else { return };
    let Apart { alice, bob, .. } = &apart;
    let events = alice.host.start(alice.host.overlay_command("events --json"), "overlay events");
    let printed = alice.verb("ping bob --until-direct --json -i 0.2").succeeded("overlay ping --until-direct");
    let printed = lines(&printed);
    let [.., answer, summary] = &printed[..] else { panic!("{printed:?}") };
    assert_eq!((&answer["event"], &answer["path"]), (&"answer".into(), &"direct".into()), "{printed:?}");
    assert_eq!((&summary["event"], &summary["remote"]), (&"summary".into(), &answer["remote"]));
    let before = &printed[..printed.len() - 2];
    assert!(before.iter().all(|line| line["path"] != "direct"), "it ends with the first one: {printed:?}");

    let path = alice.ask("path bob");
    let primary = &path["primary"];
    assert_eq!((&path["schema"], &path["peer"]), (&"overlay.path.v1".into(), &"bob".into()));
    assert_eq!((&primary["kind"], &primary["remote"]), (&"direct".into(), &answer["remote"]), "{path:#}");
    for field in ["rtt_ms", "loss", "since"] {
        assert!(path[field].is_number() && path[field] == primary[field], "{field}: {path:#}");
    }
    assert!(path.get("why_not_direct").is_none(), "{path:#}");
    let pairs = path["pairs"].as_array().expect("a list");
    assert!(pairs.iter().any(|pair| pair["kind"] == "relay" && pair["state"] == "proven"), "{path:#}");
    let text = alice.verb("path bob").succeeded("overlay path bob");
    assert!(text.contains("works, in use") && text.contains("path       direct "), "{text}");

    // By key, by the beginning of it, by tunnel key and by address.
    let known = alice.peer("bob");
    let identity = known["identity"].as_str().expect("a key");
    let tunnel_key = path["public_key"].as_str().expect("a key");
    for name in [identity, &identity[..16], tunnel_key, &bob.v6()] {
        assert_eq!(alice.ask(&format!("path {name}"))["peer"], "bob", "{name}");
    }

    assert_eq!(status_of(alice, "bob")["path"], "direct");
    let counters = alice.daemon().status()["counters"].clone();
    for counter in ["direct_searches", "direct_searches_succeeded", "relayed_sent_bytes", "relayed_received_bytes"] {
        assert!(counters[counter].as_u64().is_some_and(|count| count > 0), "{counter}: {counters:#}");
    }
    let mean = counters["time_to_direct_milliseconds"].as_u64().expect("a number")
        / counters["direct_searches_succeeded"].as_u64().expect("a number");
    assert!(mean < 10_000, "{mean} ms");
    let socket = alice.host.runtime_dir().join(format!("{}.sock", alice.host.interface()));
    let metrics = alice.host.exec(format!("curl -sS --unix-socket {} http://localhost/metrics", socket.display()));
    for method in ["relay", "public"] {
        let of_method = format!("overlay_path_attempts_succeeded_total{{method=\"{method}\",nat=\"unknown\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&of_method)?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "{method}: {metrics}");
    }
    within(SHORTLY, "the event", || {
        let event = lines(&events.stdout()).into_iter().rfind(|event| event["event"] == "path_changed")?;
        let is_it = event["path"] == "direct" && event["remote"] == answer["remote"] && event["name"] == "bob";
        is_it.then_some(())
    });
}

#[test]
fn waiting_in_vain_for_a_direct_path_ends_with_8_and_the_reason() {
    let Some(apart) = Apart::new("path relayed", [Kind::Strict, Kind::Strict]) else { return };
    let alice = &apart.alice;
    alice.host.reaches_within(Duration::from_secs(15), &apart.bob.v6());
    let waited = alice.verb("ping bob --until-direct --timeout 3 -i 0.2");
    assert_eq!(waited.code, 8, "{}{}", waited.stdout, waited.stderr);
    assert!(waited.stdout.contains(" via relay "), "{}", waited.stdout);
    assert!(waited.stderr.contains("error: `bob` is not reached directly"), "{}", waited.stderr);
    let counted = alice.verb("ping bob --until-direct -c 2 -i 0.1 --json");
    let last = lines(&counted.stdout).pop().expect("a line");
    assert_eq!((counted.code, &last["code"]), (8, &"timeout".into()), "{}", counted.stdout);

    within(Duration::from_secs(15), "the end of the search", || {
        let path = alice.ask("path bob");
        assert_eq!(path["primary"]["kind"], "relay", "{path:#}");
        (path["why_not_direct"]["reason"] == "unanswered").then_some(())
    });
    assert_eq!(status_of(alice, "bob")["path"], "relay");
    let text = alice.verb("path bob").succeeded("overlay path bob");
    assert!(text.contains("via relay ") && text.contains("not direct no probe was answered"), "{text}");
}

#[test]
fn a_peer_without_a_tunnel_has_no_path_and_the_reason_is_said() {
    let Some(mut world) = Agents::new("path of a stranger") else { return };
    let (alice, bob) = world.two();
    alice.ask("handshake bob");
    bob.is_asked_by("alice");
    for (agent, peer, code, cause) in [
        (&alice, "bob", 7, "it has not answered the request of this agent"),
        (&bob, "alice", 7, "its request waits for a decision on this side"),
        (&alice, "eve", 6, "this agent knows no peer `eve`"),
    ] {
        let refused = agent.verb(format!("path {peer}"));
        assert!(refused.code == code && refused.stderr.contains(cause), "{} {}", refused.code, refused.stderr);
    }
    let refused = alice.verb("ping eve --until-direct");
    assert_eq!(refused.code, 6, "{}", refused.stderr);
}
