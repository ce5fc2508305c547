//! Around the ten: what a look changes, what a set-up that works is told, and other causes.

use std::path::Path;

use rustix::process::Signal;

use super::*;
use crate::lab::Pair;
use crate::lab::footprint::Footprint;

/// Every file below a folder, with what it holds and when it was written.
fn content(folder: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder").flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("there"));
            if metadata.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                found.push((path.display().to_string(), bytes, metadata.modified().expect("a time")));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_works_gives_no_finding_and_a_look_changes_nothing() {
    let Some(mut world) = Agents::new("doctor healthy") else { return };
    let (mut alice, bob) = world.two();
    Told::of(&alice, "").is_healthy();
    befriend(&alice, "--want icmp", &bob, "--for 1h");
    alice.host.reaches(&bob.v4());
    for (agent, peer) in [(&alice, "bob"), (&bob, "alice")] {
        Told::of(agent, "").is_healthy();
        Told::of(agent, &format!("--peer {peer}")).is_healthy();
        let text = agent.verb(format!("doctor {}", agent.config().display())).succeeded("overlay doctor");
        assert!(text.ends_with("\n\nnothing is wrong\n") && text.contains("answers after"), "{text}");
    }
    let log = alice.daemon().log();
    assert_eq!(log.matches("connected to the rendezvous").count(), 1, "the doctor takes nobody's connection: {log}");
    alice.stop();
    let (before, footprint) = (content(&alice.state()), Footprint::of(&alice.host));
    Told::of(&alice, "").names(&["no_daemon"]);
    assert_eq!(content(&alice.state()), before);
    footprint.assert_unchanged(&alice.host);
}

#[test]
fn a_daemon_that_hangs_and_a_network_that_swallows_everything_end_within_ten_seconds() {
    let Some(mut world) = Agents::new("doctor hangs") else { return };
    let alice = world.agent("alice");
    alice.daemon().signal(Signal::STOP);
    Told::of(&alice, "").names(&["daemon_silent"]);
    world.router.exec("nft add table inet dead");
    world.router.exec(["nft", "add chain inet dead input { type filter hook input priority 0; }"]);
    world.router.exec("nft add rule inet dead input drop");
    Told::of(&alice, "").names(&["daemon_silent", "rendezvous_unreachable"]);
    alice.daemon().signal(Signal::CONT);
}

#[test]
fn a_record_that_is_refused_is_told_with_what_to_do_about_it() {
    let Some(mut world) = Agents::new("doctor refused") else { return };
    let bob = world.agent("bob");
    let host = world.host("second");
    Agent::init(&host, "bob", &world.url).succeeded("overlay init");
    let mut second = Agent::of(&host);
    second.start();
    within(SHORTLY, "the refusal", || {
        second.ask("agents")["rendezvous"].as_str()?.contains("name_taken").then_some(())
    });
    let lines = Told::of(&second, "").names(&["name_taken"]);
    assert!(lines.contains("write a different `name`"), "{lines}");
    Told::of(&bob, "").is_healthy();

    world.kill();
    world.start_with("--closed");
    let host = world.host("stranger");
    Agent::init(&host, "stranger", &world.url).succeeded("overlay init");
    let mut stranger = Agent::of(&host);
    stranger.start();
    within(SHORTLY, "the refusal", || {
        stranger.ask("agents")["rendezvous"].as_str()?.contains("not_a_member").then_some(())
    });
    let lines = Told::of(&stranger, "").names(&["not_a_member"]);
    assert!(lines.contains("sudo overlay join FILE"), "{lines}");
}

#[test]
fn what_refuses_a_start_is_told_without_a_start() {
    let Some(mut world) = Agents::new("doctor refuses a start") else { return };
    let mut alice = world.agent("alice");
    alice.stop();
    let state = alice.state().join("lab");
    let chmod = |mode: &str, file: &str| drop(alice.host.exec(format!("chmod {mode} {}", state.join(file).display())));
    chmod("644", "identity.key");
    let lines = Told::of(&alice, "").names(&["state_permissions", "no_daemon"]);
    assert!(lines.contains("chmod 600"), "{lines}");
    chmod("600", "identity.key");
    let key = std::fs::read(state.join("tunnel.key")).expect("a key");
    std::fs::write(state.join("tunnel.key"), "").expect("our own file");
    let lines = Told::of(&alice, "").names(&["state_damaged", "no_daemon"]);
    assert!(lines.contains("tunnel.key is damaged"), "{lines}");
    std::fs::write(state.join("tunnel.key"), key).expect("our own file");

    alice.host.ip(&format!("link add {} type veth peer name other", alice.host.interface()));
    let lines = Told::of(&alice, "").names(&["cannot_start", "no_daemon"]);
    assert!(lines.contains("already exists"), "{lines}");
    alice.host.ip("link delete other");
    let port = inside(&alice.host, || std::net::UdpSocket::bind("0.0.0.0:51820").expect("the port is free"));
    let lines = Told::of(&alice, "").names(&["cannot_start", "no_daemon"]);
    assert!(lines.contains("UDP port 51820 is already in use"), "{lines}");
    drop(port);
    Told::of(&alice, "").names(&["no_daemon"]);

    let config = std::fs::read_to_string(alice.config()).expect("what `init` wrote");
    std::fs::write(alice.config(), format!("{config}\nnonsense = 1\n")).expect("the host's folder");
    let lines = Told::of(&alice, "").names(&["config", "no_daemon"]);
    assert!(lines.contains("nonsense"), "{lines}");
    std::fs::write(alice.config(), config).expect("the host's folder");

    std::fs::rename(&state, state.with_extension("away")).expect("our own folder");
    Told::of(&alice, "").names(&["no_identity", "no_daemon"]);
}

#[test]
fn the_rendezvous_is_named_if_its_clock_is_the_wrong_one() {
    let Some(mut world) = Agents::new("doctor rendezvous' clock") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    world.kill();
    if !world.start_at("-1d") {
        return;
    }
    let told = Told::of(&alice, "--peer bob");
    let findings = told.findings();
    let of_clock = findings.iter().find(|finding| finding["check"] == "clock").expect("it is found");
    assert_eq!(of_clock["code"], "rendezvous_clock", "{:#}", told.json);
    let what = of_clock["what"].as_str().expect("a text");
    assert!(what.contains("the clock of the rendezvous is wrong") && what.contains(" behind "), "{what}");
}

#[test]
fn a_clock_that_was_wrong_once_is_told_with_what_makes_it_right() {
    let Some(mut world) = Agents::new("doctor mark") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "--for 30d");
    bob.stop();
    if !bob.start_at("+1d") {
        return;
    }
    let mark = bob.state().join("lab/time");
    let reached = || std::fs::read_to_string(&mark).ok()?.trim().parse::<u128>().ok();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    within(SHORTLY, "the mark", || reached().filter(|reached| *reached > now() + 3_600_000));
    bob.stop();
    let lines = Told::of(&bob, "").names(&["no_daemon", "clock_mark"]);
    assert!(lines.contains("sudo overlay up -d"), "{lines}");
    bob.start();
    bob.is_registered("bob");
    let lines = Told::of(&bob, "").names(&["clock_mark"]);
    assert!(lines.contains(&format!("sudo rm {}", mark.display())), "{lines}");
    bob.stop();
    std::fs::remove_file(&mark).expect("what the fix says");
    bob.start();
    bob.is_registered("bob");
    Told::of(&bob, "").is_healthy();
}

#[test]
fn a_user_who_may_not_look_is_told_to_use_sudo() {
    let Some(mut world) = Agents::new("doctor as nobody") else { return };
    let mut alice = world.agent("alice");
    let program = world.lab.dir().join("overlay");
    std::fs::copy(crate::lab::host::overlay_program(), &program).expect("a copy of the binary");
    let line = |program: &Path| {
        let (state, run) = (alice.state().display().to_string(), alice.host.runtime_dir().display().to_string());
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        format!(
            "{nobody} {} --runtime-dir {run} --state-dir {state} doctor {} --json",
            program.display(),
            alice.config().display()
        )
    };
    let command = alice.host.command(line(&program));
    for path in [world.lab.dir(), alice.host.dir(), &program, &alice.config()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own");
    }
    let lines = Told::by(&alice.host, command).names(&["may_not_look"]);
    assert!(lines.contains("sudo"), "{lines}");
    let command = alice.host.command(line(&program));
    alice.stop();
    let lines = Told::by(&alice.host, command).names(&["may_not_look", "no_daemon"]);
    assert!(lines.contains("sudo"), "{lines}");
}

#[test]
fn in_static_mode_it_looks_at_the_daemon_and_its_peers() {
    let Some(pair) = Pair::new("doctor static mode") else { return };
    let config = pair.a.interface_toml(&["10.77.0.1/24"]) + &pair.b.peer_toml(None, &["10.77.0.2/32"]);
    let daemon = pair.a.overlay_up(&config);
    let by = |more: &str| {
        let line = format!("doctor {} {more} --json", daemon.config().display());
        Told::by(&pair.a, pair.a.overlay_command(line))
    };
    by("").is_healthy();
    let lines = by(&format!("--peer {}", pair.b.public_key())).names(&["peer_without_endpoint"]);
    assert!(lines.contains("no endpoint"), "{lines}");
    by("--peer carol").names(&["unknown_peer"]);
}
