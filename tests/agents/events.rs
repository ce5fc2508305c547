//! The stream of events, for people and for programs that decide.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::*;
use crate::lab::{Agents, Process, services};

/// The program of the docs that approves by itself.
fn approver() -> &'static str {
    let page = include_str!("../../docs/agents.md");
    let (_, program) = page.split_once("```python\n").expect("a program");
    program.split_once("```").expect("its end").0
}

fn socket(agent: &Agent) -> PathBuf {
    agent.host.runtime_dir().join(format!("{}.sock", agent.host.interface()))
}

/// Starts `overlay events --json`, and waits until it reads.
#[track_caller]
fn watch(agent: &Agent) -> Process {
    let command = agent.host.overlay_command("events --json");
    let process = agent.host.start(command, "overlay events");
    // A stream says nothing when it begins. A question that comes after it is answered after it.
    std::thread::sleep(Duration::from_millis(500));
    agent.ask("agents");
    process
}

/// The events so far: what, about whom, and by which side.
fn events(process: &Process) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let events = process.stdout();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let events =
        events.filter(|event| !matches!(event["event"].as_str(), Some("peer_up" | "peer_down" | "path_changed")));
    events.map(|event| (text(&event["event"]), text(&event["name"]), text(&event["by"]))).collect()
}

#[track_caller]
fn tells(process: &Process, expected: &[(&str, &str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(what, who, by)| ((*what).to_owned(), (*who).to_owned(), (*by).to_owned())).collect();
    within(SHORTLY, &format!("{expected:?}"), || {
        let events = events(process);
        assert!(events.len() <= expected.len() && expected.starts_with(&events), "{events:#?}");
        (events == expected).then_some(())
    });
}

#[test]
fn a_program_approves_by_itself_through_the_stream() {
    let Some(mut world) = Agents::new("approver") else { return };
    let (alice, bob) = world.two();
    let _server = bob.serves();
    let program = bob.host.write("approver.py", approver());
    let line = format!("{} {} {}", services::PYTHON, program.display(), socket(&bob).display());
    let _approver = bob.host.spawn(&line);
    alice.ask("handshake bob --want tcp/8000");
    alice.sees("bob", "trusted");
    gets_page(&alice, &bob.v4());
    assert_eq!(alice.peer("bob")["opens"], Value::from(&["tcp/8000"][..]));

    // A request that waited before the program was started is not missed, and what is not its business is left to people.
    let carol = world.agent("carol");
    carol.ask("handshake bob --want any");
    bob.is_asked_by("carol");
    let dave = world.agent("dave");
    dave.ask("handshake alice --want tcp/8000");
    alice.is_asked_by("dave");
    let program = alice.host.write("approver.py", approver());
    let line = format!("{} {} {}", services::PYTHON, program.display(), socket(&alice).display());
    let _second = alice.host.spawn(&line);
    dave.sees("alice", "trusted");
    assert_eq!(bob.peer("carol")["state"], "pending");
}

#[test]
fn each_side_is_told_what_happens() {
    let Some(mut world) = Agents::new("events") else { return };
    let (alice, bob) = world.two();
    let (at_alice, at_bob) = (watch(&alice), watch(&bob));
    alice.verb(["handshake", "bob", "\x1b[2Jplease\n", "--want", "tcp/8000"]).succeeded("overlay handshake");
    tells(&at_bob, &[("request", "alice", "-")]);
    let shown = at_bob.stdout();
    assert!(!shown.contains('\x1b') && shown.contains("\\u001b[2Jplease\\n"), "{shown:?}");
    bob.ask("approve alice");
    tells(&at_alice, &[("trusted", "bob", "-")]);
    tells(&at_bob, &[("request", "alice", "-"), ("trusted", "alice", "-")]);
    // It is called when something is sent to it. Nobody listens there.
    alice.host.run(format!("curl -s -m 5 http://{}:8000", bob.v4()));
    within(SHORTLY, "the peer to be up", || at_alice.stdout().contains("peer_up").then_some(()));
    bob.ask("approve alice --allow icmp");
    tells(&at_alice, &[("trusted", "bob", "-"), ("changed", "bob", "there")]);
    bob.ask("approve alice --allow icmp --for 1s");
    let until_then =
        [("trusted", "bob", "-"), ("changed", "bob", "there"), ("changed", "bob", "there"), ("expired", "bob", "-")];
    tells(&at_alice, &until_then);
    bob.ask("approve alice");
    bob.ask("untrust alice");
    let carol = world.agent("carol");
    carol.ask("handshake bob");
    bob.is_asked_by("carol");
    bob.ask("reject carol");
    tells(
        &at_bob,
        &[
            ("request", "alice", "-"),
            ("trusted", "alice", "-"),
            ("changed", "alice", "here"),
            ("changed", "alice", "here"),
            ("expired", "alice", "-"),
            ("trusted", "alice", "-"),
            ("untrusted", "alice", "here"),
            ("request", "carol", "-"),
            ("rejected", "carol", "here"),
        ],
    );
    let last = events(&at_alice).last().cloned();
    within(SHORTLY, "alice to be told", || {
        (events(&at_alice).last().is_some_and(|(what, ..)| what == "untrusted")).then_some(())
    });
    assert!(last.is_some());
}

#[test]
fn what_a_peer_says_in_the_tunnel_is_told() {
    let Some(mut world) = Agents::new("events, tunnel") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    // The relay ends with the rendezvous, and what it had not forwarded is lost.
    alice.verb("ping bob --until-direct -i 0.2").succeeded("overlay ping --until-direct");
    let at_alice = watch(&alice);
    world.kill();
    let began = Instant::now();
    bob.ask("approve alice --allow icmp");
    tells(&at_alice, &[("changed", "bob", "there")]);
    bob.ask("untrust alice");
    tells(&at_alice, &[("changed", "bob", "there"), ("untrusted", "bob", "there")]);
    // Twice a minute, everything is told anyway.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(alice.peer("bob")["state"], "untrusted");
}

#[test]
fn a_stream_ends_with_the_daemon_and_says_so() {
    let Some(mut world) = Agents::new("end of events") else { return };
    let alice = world.agent("alice");
    let stream = watch(&alice);
    alice.verb("down").succeeded("overlay down");
    let finished = stream.finish_within(SHORTLY);
    assert_eq!(finished.code, 3, "{}", finished.stdout);
    assert!(
        finished.stdout.contains("\"ended\"") && finished.stdout.contains("overlay.error.v1"),
        "{}",
        finished.stdout
    );
}

#[test]
fn readers_that_do_not_read_delay_nobody_and_are_bounded() {
    use std::io::Write as _;
    let Some(mut world) = Agents::new("slow readers") else { return };
    let (alice, bob) = world.two();
    let mut streams = Vec::new();
    for _ in 0..17 {
        let mut stream = UnixStream::connect(socket(&bob)).expect("the socket");
        stream.write_all(b"GET /v1/agent/events HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
        streams.push(stream);
    }
    let refused = within(SHORTLY, "the stream that is one too many", || {
        streams.iter().position(|stream| {
            stream.set_nonblocking(true).expect("our own socket");
            let mut head = [0; 64];
            std::io::Read::read(&mut &*stream, &mut head).is_ok() && head.starts_with(b"HTTP/1.0 409")
        })
    });
    eprintln!("stream {refused} was refused");
    let began = Instant::now();
    befriend(&alice, "--want tcp/8000", &bob, "");
    for _ in 0..20 {
        bob.ask("approve alice --allow icmp");
        bob.ask("approve alice --allow tcp/8000");
    }
    eprintln!("40 decisions with 16 readers that do not read: {:?}", began.elapsed());
    assert_eq!(bob.daemon().status()["peers"].as_array().map(Vec::len), Some(1));
}
