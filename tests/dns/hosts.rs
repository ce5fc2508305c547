//! Names through the hosts file, on a host without systemd-resolved.

use std::time::{Duration, Instant};

use crate::lab::AT_LENGTH;
use crate::lab::services::SshServer;

use super::*;

/// What stands in the file of each host of a lab.
const BEFORE: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";

#[test]
fn ssh_curl_and_getent_find_a_trusted_agent_by_its_name_alone() {
    let Some((_world, alice, bob)) = friends("hosts") else { return };
    assert_eq!(finds(&alice, "bob"), addresses(&bob));
    assert_eq!(finds(&alice, &format!("bob.{DOMAIN}")), addresses(&bob));
    assert_eq!(finds(&alice, "alice"), addresses(&alice), "its own name, too");
    let _web = bob.serves();
    assert_eq!(alice.curls("bob").stdout, "hello");
    let sshd = SshServer::start(&bob.host);
    let input = alice.host.write("input", "through the tunnel");
    let printed = sshd.ssh(&alice.host, "bob", "cat", &input).succeed_within(SHORTLY);
    assert_eq!(printed, "through the tunnel");
    let by_address = alice.host.exec(format!("getent hosts {}", bob.v4()));
    assert!(by_address.contains(&format!("bob.{DOMAIN}")), "{by_address}");

    let names = &alice.daemon().status()["names"];
    assert_eq!(
        (&names["way"], &names["domain"], &names["agents"]),
        (&"hosts".into(), &DOMAIN.into(), &1.into()),
        "{names}"
    );
}

#[test]
fn a_pending_agent_has_no_name_and_one_that_lost_trust_has_it_no_more() {
    let Some((mut world, alice, _bob)) = friends("pending") else { return };
    let carol = world.agent("carol");
    carol.ask("handshake alice");
    alice.is_asked_by("carol");
    finds(&alice, "bob");
    assert_ne!(alice.host.run("getent ahosts carol").code, 0);
    alice.ask("untrust bob");
    within(SHORTLY, "bob's name to go", || (alice.host.run("getent ahosts bob").code != 0).then_some(()));
    assert!(!alice.host.etc_hosts().contains("bob"), "{}", alice.host.etc_hosts());
}

#[test]
fn the_file_is_as_it_was_after_the_daemon_however_it_ends() {
    let Some((_world, mut alice, _bob)) = friends("hosts end") else { return };
    finds(&alice, "bob");
    alice.stop();
    assert_eq!(alice.host.etc_hosts(), BEFORE, "at once");

    alice.start();
    finds(&alice, "bob");
    let began = Instant::now();
    alice.kill9();
    within(SHORTLY, "the names to go", || (alice.host.etc_hosts() == BEFORE).then_some(()));
    eprintln!("killed: the names are gone after {:?}", began.elapsed());
}

#[test]
fn what_a_killed_daemon_and_a_killed_keeper_leave_is_removed_by_down() {
    let Some((_world, mut alice, _bob)) = friends("hosts left") else { return };
    // The last write is over: one that is cut off may leave a block without names.
    within(SHORTLY, "all names", || {
        let file = alice.host.etc_hosts();
        (file.contains(" bob\n") && file.contains(" alice\n")).then_some(())
    });
    kill_all(&mut alice);
    assert!(alice.host.etc_hosts().contains("bob"), "nobody was left to remove it");
    let down = alice.verb(format!("down {}", alice.host.interface()));
    let said = down.stderr.clone() + &down.stdout;
    assert!(down.code == 0 && said.contains("names of agents in /etc/hosts"), "{said}");
    assert_eq!(alice.host.etc_hosts(), BEFORE);
}

#[test]
fn names_survive_a_hundred_kills_and_the_file_stays_valid() {
    let Some((_world, mut alice, _bob)) = friends("hosts kills") else { return };
    for round in 0..100_u64 {
        // Anywhere between its first step and its last.
        let wait = Duration::from_micros(round * 2_617 % 150_000);
        std::thread::sleep(wait);
        kill_all(&mut alice);
        let file = alice.host.etc_hosts();
        for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let address = line.split_whitespace().next().expect("not empty");
            assert!(address.parse::<std::net::IpAddr>().is_ok(), "{line:?} in {file}");
        }
        assert!(file.starts_with(BEFORE), "{file}");
        alice.start();
    }
    finds(&alice, "bob");
    alice.stop();
    assert_eq!(alice.host.etc_hosts(), BEFORE);
}

#[test]
fn lines_of_others_and_names_that_they_have_stay() {
    let Some((_world, mut alice, bob)) = friends("hosts others") else { return };
    alice.stop();
    alice.host.write_etc_hosts("127.0.0.1 localhost\n192.0.2.77 bob printer");
    alice.start();
    let full = format!("bob.{DOMAIN}");
    assert_eq!(finds(&alice, &full), addresses(&bob));
    assert_eq!(finds(&alice, "bob"), ["192.0.2.77"], "it was there first");
    let with_ours = alice.host.etc_hosts();
    alice.host.write_etc_hosts(&format!("{with_ours}192.0.2.78 scanner\n"));
    alice.ask("untrust bob");
    within(SHORTLY, "bob's name to go", || (!alice.host.etc_hosts().contains(&full)).then_some(()));
    alice.stop();
    assert_eq!(alice.host.etc_hosts(), "127.0.0.1 localhost\n192.0.2.77 bob printer192.0.2.78 scanner\n");
}

#[test]
fn names_come_back_when_another_program_writes_the_file_anew() {
    let Some((_world, alice, bob)) = friends("hosts rewritten") else { return };
    finds(&alice, "bob");
    alice.host.write_etc_hosts("127.0.0.1 localhost\n192.0.2.77 printer\n");
    within(AT_LENGTH, "the names", || alice.host.etc_hosts().contains("bob").then_some(()));
    assert_eq!(finds(&alice, "bob"), addresses(&bob));
    assert!(alice.host.etc_hosts().contains("printer"));
}

#[test]
fn the_keeper_outlives_a_signal_and_cleans_up_after_the_daemon() {
    let Some((_world, mut alice, _bob)) = friends("hosts signals") else { return };
    finds(&alice, "bob");
    let pid = alice.daemon().pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the daemon runs");
    // As a service manager does that ends a whole group.
    for child in children.split_whitespace() {
        alice.host.exec(["kill", "-TERM", child]);
    }
    alice.stop();
    assert_eq!(alice.host.etc_hosts(), BEFORE);
}

/// Kills the processes that the daemon has started, and the daemon. The daemon itself cannot write the file.
fn kill_all(alice: &mut Agent) {
    let pid = alice.daemon().pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let _ = std::process::Command::new("kill").args(["-KILL", child]).status();
    }
    alice.kill9();
}
