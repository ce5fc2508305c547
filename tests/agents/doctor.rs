//! `overlay doctor` on ten broken set-ups: each cause is named within ten seconds, with the daemon and without it. A set-up
//! that works gives no finding.

#[path = "doctor/around.rs"]
mod around;

use std::net::TcpListener;
use std::process::Command;

use super::clones::{MACHINES, copy_of, has_stopped, with_machine_id};
use super::*;
use crate::lab::{Agents, faketime, skip};

/// What is promised.
const TEN_SECONDS: Duration = Duration::from_secs(10);
/// The exit code if there is an error.
const DEGRADED: i32 = 10;

/// What the doctor says.
struct Told {
    json: Value,
    code: i32,
}

impl Told {
    /// Runs the doctor.
    #[track_caller]
    fn by(host: &Host, command: Command) -> Told {
        let began = Instant::now();
        let finished = host.start(command, "overlay doctor").finish_within(SHORTLY);
        let took = began.elapsed();
        let json: Value = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr));
        let told = Told { json, code: finished.code };
        eprintln!("{}: {:?} after {took:.1?}, exit code {}", host.name(), told.codes(), told.code);
        assert!(took < TEN_SECONDS, "{took:?}");
        assert_eq!(told.json["schema"], "overlay.doctor.v1");
        let has_error = told.findings().iter().any(|finding| finding["severity"] == "error");
        assert_eq!(
            (told.json["healthy"].clone(), told.code),
            (Value::from(!has_error), if has_error { DEGRADED } else { 0 })
        );
        for finding in told.findings() {
            let is_told =
                ["what", "cause", "fix"].iter().all(|line| finding[line].as_str().is_some_and(|it| !it.is_empty()));
            assert!(is_told, "{finding:#}");
        }
        told
    }

    /// Runs the doctor for an agent.
    #[track_caller]
    fn of(agent: &Agent, more: &str) -> Told {
        Self::by(&agent.host, command(agent, more))
    }

    fn findings(&self) -> Vec<Value> {
        self.json["findings"].as_array().expect("a list").clone()
    }

    fn codes(&self) -> Vec<String> {
        self.findings().iter().map(|finding| finding["code"].as_str().expect("a text").to_owned()).collect()
    }

    /// Requires these findings, and no others. Returns the lines of the first.
    #[track_caller]
    fn names(&self, codes: &[&str]) -> String {
        assert_eq!(self.codes(), codes, "{:#}", self.json);
        let first = &self.findings()[0];
        ["what", "cause", "fix"].map(|line| first[line].as_str().expect("a text").to_owned()).join("\n")
    }

    #[track_caller]
    fn is_healthy(&self) {
        assert_eq!(self.codes(), [""; 0], "{:#}", self.json);
        assert_eq!(self.code, 0);
    }
}

/// The command that runs the doctor for an agent.
fn command(agent: &Agent, more: &str) -> Command {
    let (state, config) = (agent.state().display().to_string(), agent.config().display().to_string());
    agent.host.overlay_command(format!("--state-dir {state} doctor {config} {more} --json"))
}

/// Writes a different URL of the rendezvous into the config.
#[track_caller]
fn set_url(agent: &Agent, from: &str, to: &str) {
    let config = std::fs::read_to_string(agent.config()).expect("what `init` wrote");
    assert!(config.contains(from), "{config}");
    std::fs::write(agent.config(), config.replace(from, to)).expect("the host's folder");
}

/// Waits until the agent says that the rendezvous is not connected.
#[track_caller]
fn is_cut_off(agent: &Agent) {
    within(SHORTLY, "the end of the connection", || {
        let told = agent.ask("agents")["rendezvous"].clone();
        (!matches!(told.as_str(), Some("connected" | "connecting"))).then_some(())
    });
}

#[test]
fn one_a_wrong_key_in_the_url_is_told_from_the_right_one() {
    let Some(mut world) = Agents::new("doctor wrong key") else { return };
    let mut alice = world.agent("alice");
    Told::of(&alice, "").is_healthy();
    let (_other, other) = world.second_rendezvous();
    let [right, wrong] = [&world.url, &other].map(|url| url.split(['#', '.']).rev().nth(1).expect("a key").to_owned());
    alice.stop();
    set_url(&alice, &right, &wrong);
    let lines = Told::of(&alice, "").names(&["no_daemon", "wrong_rendezvous_key"]);
    assert!(lines.contains("sudo overlay up -d"), "{lines}");
    // The network lists the right one. An agent that has met it goes on there.
    alice.start();
    alice.is_registered("alice");
    let told = Told::of(&alice, "");
    let lines = told.names(&["wrong_rendezvous_key"]);
    assert!(lines.contains(&right) && lines.contains(&wrong) && told.code == 0, "{lines}");
    alice.stop();
    std::fs::remove_file(alice.state().join("lab/network")).expect("it was seen");
    alice.start();
    is_cut_off(&alice);
    let told = Told::of(&alice, "");
    told.names(&["wrong_rendezvous_key"]);
    assert_eq!(told.code, DEGRADED);

    // The other half of the URL: the key of the network.
    alice.stop();
    set_url(&alice, &wrong, &right);
    let [right, wrong] = [&world.url, &other].map(|url| url.rsplit('.').next().expect("a key").to_owned());
    set_url(&alice, &right, &wrong);
    Told::of(&alice, "").names(&["no_daemon", "wrong_network_key"]);
}

#[test]
fn two_a_dead_rendezvous_is_told_from_one_that_does_not_speak() {
    let Some(mut world) = Agents::new("doctor dead rendezvous") else { return };
    let mut alice = world.agent("alice");
    world.kill();
    is_cut_off(&alice);
    let lines = Told::of(&alice, "").names(&["rendezvous_unreachable"]);
    assert!(lines.contains("192.0.2.9 port 7447") && lines.contains("refused"), "{lines}");
    let silent = inside(&world.router, || TcpListener::bind("192.0.2.9:7447").expect("the port is free"));
    let lines = Told::of(&alice, "").names(&["rendezvous_silent"]);
    assert!(lines.contains("does not speak"), "{lines}");
    drop(silent);
    world.router.exec("nft add table inet dead");
    world.router.exec(["nft", "add chain inet dead input { type filter hook input priority 0; }"]);
    world.router.exec("nft add rule inet dead input tcp dport 7447 drop");
    let lines = Told::of(&alice, "").names(&["rendezvous_unreachable"]);
    assert!(lines.contains("timed out"), "{lines}");
    alice.stop();
    Told::of(&alice, "").names(&["no_daemon", "rendezvous_unreachable"]);
    set_url(&alice, "192.0.2.9", "nowhere.invalid");
    // The network, as the agent knows it, still lists the one that is dead.
    Told::of(&alice, "").names(&["no_daemon", "rendezvous_name", "rendezvous_unreachable"]);
}

#[test]
fn three_a_wrong_clock_is_told_with_whose_it_is_and_by_how_much() {
    let Some(mut world) = Agents::new("doctor clock") else { return };
    let mut alice = world.agent("alice");
    for (offset, direction) in [("-400d", "behind"), ("+400d", "ahead of")] {
        alice.stop();
        if !alice.start_at(offset) {
            return;
        }
        within(SHORTLY, "the refusal of the record", || {
            alice.ask("agents")["rendezvous"].as_str().is_some_and(|told| told.contains("clock")).then_some(())
        });
        let mut command = command(&alice, "");
        assert!(faketime::under_another_clock(&mut command, &alice.host.dir().join("offset")));
        let told = Told::by(&alice.host, command);
        told.names(&["record_refused", "clock"]);
        let what = told.findings()[1]["what"].as_str().expect("a text").to_owned();
        // A second may have passed between both clocks.
        let is_known = [format!("it is 400 d {direction}"), format!("it is 399 d 23 h {direction}")];
        assert!(what.contains("the clock of this host") && is_known.iter().any(|it| what.contains(it)), "{what}");
    }
}

#[test]
fn four_and_five_the_side_that_has_to_approve_is_named_on_both_sides() {
    let Some(mut world) = Agents::new("doctor approval") else { return };
    let (mut alice, bob) = world.two();
    alice.ask("handshake bob --want icmp");
    bob.is_asked_by("alice");
    within(SHORTLY, "the request to be delivered", || (alice.peer("bob")["request"] == "delivered").then_some(()));
    let lines = Told::of(&alice, "").names(&["asked"]);
    assert!(lines.contains("bob has not approved") && lines.contains("on bob: sudo overlay approve alice"), "{lines}");
    assert_eq!(Told::of(&alice, "--peer bob").code, DEGRADED, "the peer that is asked about has no tunnel");
    let lines = Told::of(&bob, "").names(&["pending"]);
    assert!(lines.contains("by one side only: alice") && lines.contains("sudo overlay approve alice"), "{lines}");
    // Without the daemon, the state folder says it.
    alice.stop();
    Told::of(&alice, "").names(&["no_daemon", "asked"]);
    alice.start();
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    // Until there is a session, neither knows where the other one is.
    alice.host.reaches(&bob.v6());
    Told::of(&bob, "--peer alice").is_healthy();
    Told::of(&alice, "--peer bob").is_healthy();

    // One side has trusted beforehand, or has taken its trust back.
    let carol = world.agent("carol");
    let key = carol.ask("agents")["identity"].as_str().expect("a key").to_owned();
    bob.ask(&format!("trust {key}"));
    let lines = Told::of(&bob, "").names(&["beforehand"]);
    assert!(lines.contains("by one side only"), "{lines}");
    Told::of(&carol, "--peer bob").names(&["unknown_peer"]);
    bob.ask(&format!("untrust {key}"));
    bob.ask("untrust alice");
    within(SHORTLY, "alice to hear of it", || (alice.peer("bob")["state"] == "untrusted").then_some(()));
    let lines = Told::of(&alice, "").names(&["revoked"]);
    assert!(lines.contains("bob took its trust back"), "{lines}");
    Told::of(&bob, "").is_healthy();
    assert_eq!(Told::of(&bob, "--peer alice").codes(), ["revoked"]);
}

#[test]
fn six_a_grant_that_has_expired_is_named_with_its_side() {
    let Some(mut world) = Agents::new("doctor expired") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "--for 3s");
    Told::of(&alice, "").is_healthy();
    alice.sees("bob", "expired");
    bob.sees("alice", "expired");
    let lines = Told::of(&alice, "").names(&["grant_expired"]);
    assert!(lines.contains("the grant of bob has expired") && lines.contains("on bob: "), "{lines}");
    let lines = Told::of(&bob, "").names(&["grant_expired"]);
    assert!(lines.contains("the grant for alice has expired") && lines.contains("approve alice --for"), "{lines}");
    bob.stop();
    Told::of(&bob, "").names(&["no_daemon", "grant_expired"]);
}

#[test]
fn seven_an_address_that_collides_is_named_with_the_command_that_frees_it() {
    let Some(mut world) = Agents::new("doctor collision") else { return };
    let mut alice = world.agent("alice");
    let v4: std::net::Ipv4Addr = alice.v4().parse().expect("an address");
    let [first, second, ..] = v4.octets();
    let link = alice.host.link_to(&world.router);
    for what in [
        format!("route {{}} {first}.{second}.7.0/24 dev {link}"),
        format!("address {{}} {first}.{second}.7.9/24 dev {link}"),
    ] {
        alice.host.ip(&what.replace("{}", "add"));
        let told = within(SHORTLY, "the warning of the daemon", || {
            Some(Told::of(&alice, "")).filter(|it| !it.codes().is_empty())
        });
        let lines = told.names(&["pool_taken"]);
        let fix = format!(
            "sudo ip {}{} delete {first}.{second}.7.",
            if what.starts_with('r') { "-4 " } else { "" },
            what.split(' ').next().expect("a word")
        );
        assert!(lines.contains(&link) && lines.contains(&fix) && lines.contains("goes on without IPv4"), "{lines}");
        alice.stop();
        Told::of(&alice, "").names(&["no_daemon", "pool_taken"]);
        alice.host.ip(&what.replace("{}", "delete"));
        Told::of(&alice, "").names(&["no_daemon"]);
        alice.start();
        alice.is_registered("alice");
        Told::of(&alice, "").is_healthy();
    }
}

#[test]
fn eight_ipv6_that_is_switched_off_is_named_with_the_sysctl() {
    let Some(mut world) = Agents::new("doctor no IPv6") else { return };
    let mut alice = world.agent("alice");
    let v4: std::net::Ipv4Addr = alice.v4().parse().expect("an address");
    alice.host.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    let told =
        within(SHORTLY, "the warning of the daemon", || Some(Told::of(&alice, "")).filter(|it| !it.codes().is_empty()));
    let lines = told.names(&["ipv6_off"]);
    assert!(
        lines.contains("sudo sysctl net.ipv6.conf.all.disable_ipv6=0") && lines.contains("without IPv6"),
        "{lines}"
    );
    alice.stop();
    Told::of(&alice, "").names(&["no_daemon", "ipv6_off"]);
    // Neither family: the daemon refuses to start, and the doctor says why.
    let [first, second, ..] = v4.octets();
    alice.host.ip(&format!("route add {first}.{second}.7.0/24 dev {}", alice.host.link_to(&world.router)));
    Told::of(&alice, "").names(&["no_daemon", "no_family"]);
}

#[test]
fn nine_a_clone_is_named_on_the_host_that_has_stopped() {
    let Some(mut world) = Agents::new("doctor clone") else { return };
    let bob = world.agent("bob");
    let mut copy = copy_of(&mut world, &bob, "copy");
    copy.start();
    within(TEN_SECONDS, "the first bob to stop", || has_stopped(&bob).then_some(()));
    let lines = Told::of(&bob, "").names(&["key_clone"]);
    assert!(lines.contains("a different host runs with the identity") && lines.contains("overlay init"), "{lines}");
    Told::of(&copy, "").is_healthy();
}

#[test]
fn ten_the_state_of_a_different_machine_is_named_and_left_as_it_is() {
    if !std::path::Path::new("/etc/machine-id").exists() {
        skip("foreign state", "this machine has no /etc/machine-id, over which the test could put one");
        return;
    }
    let Some(mut world) = Agents::new("doctor foreign state") else { return };
    let mut alice = world.agent("alice");
    alice.stop();
    let machine = alice.state().join("lab/machine");
    let before = std::fs::read(&machine).expect("it was bound");
    let told = Told::by(&alice.host, with_machine_id(&alice.host, MACHINES[0], &command(&alice, ""), ""));
    let lines = told.names(&["foreign_state", "no_daemon"]);
    assert!(lines.contains("names a different machine") && lines.contains("--adopt"), "{lines}");
    assert_eq!(std::fs::read(&machine).expect("it is there"), before);
    // A folder that no machine has run yet is not bound by a look at it.
    std::fs::remove_file(&machine).expect("our own file");
    Told::of(&alice, "").names(&["no_daemon"]);
    assert!(!machine.exists());
}
