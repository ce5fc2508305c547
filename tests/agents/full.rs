//! A full disk under a running agent: what closes closes, what opens fails, and everything goes on once there is room.

use super::*;
use crate::lab::{Agents, Finished};

/// The exit code for a disk that takes nothing.
const FULL: i32 = 1;
/// What was taken back is written again every half minute.
const WRITTEN: Duration = Duration::from_secs(60);

#[track_caller]
fn says_that_the_disk_is_full(finished: &Finished) {
    assert_eq!(finished.code, FULL, "{}", finished.stderr);
    assert!(finished.stderr.contains("/peers/"), "{}", finished.stderr);
    assert!(finished.stderr.contains("No space left on device"), "{}", finished.stderr);
}

#[test]
fn a_full_disk_closes_what_is_taken_back_and_opens_nothing() {
    let Some(mut world) = Agents::new("full disk") else { return };
    let (alice, mut bob) = world.two();
    let (carol, dave) = (world.agent("carol"), world.agent("dave"));
    bob.kill9();
    let Some(disk) = bob.move_to_disk() else { return };
    bob.start_on(&disk);
    bob.is_registered("bob");
    let (identity, v4) = (bob.ask("agents")["identity"].clone(), bob.v4());
    befriend(&alice, "--want icmp", &bob, "");
    alice.host.reaches(&v4);
    carol.ask("handshake bob --want icmp");
    bob.is_asked_by("carol");

    disk.fill();
    says_that_the_disk_is_full(&bob.verb("approve carol"));
    assert_eq!(bob.peer("carol")["state"], "pending");
    assert_ne!(carol.peer("bob")["state"], "trusted");
    says_that_the_disk_is_full(&bob.verb("approve alice --allow any"));
    assert_eq!(bob.peer("alice")["allow"].to_string(), r#"["icmp"]"#, "what is on disk holds");
    alice.host.reaches(&v4);

    says_that_the_disk_is_full(&bob.verb("untrust alice"));
    assert_ne!(alice.host.run(format!("ping -n -q -c 3 -i 0.3 -W 1 {v4}")).code, 0, "closed all the same");
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    says_that_the_disk_is_full(&bob.verb("untrust alice"));
    // A request that cannot be written is not lost.
    dave.ask("handshake bob --want icmp");
    assert_eq!(bob.ask("agents")["identity"], identity);

    disk.make_room();
    bob.ask("approve carol");
    carol.sees("bob", "trusted");
    // Nobody says it again.
    alice.sees_within(WRITTEN, "bob", "untrusted");
    bob.kill9();
    bob.start_on(&disk);
    assert_eq!(bob.ask("agents")["identity"], identity);
    assert_eq!((&bob.peer("alice")["state"], &bob.peer("carol")["state"]), (&"untrusted".into(), &"trusted".into()));
    bob.is_asked_by("dave");
    bob.ask("approve dave");
    dave.sees("bob", "trusted");
    carol.host.reaches(&v4);
}

#[test]
fn an_agent_starts_on_a_full_disk_and_init_leaves_nothing_half_made() {
    let Some(mut world) = Agents::new("start on a full disk") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let identity = bob.ask("agents")["identity"].clone();
    bob.kill9();
    let Some(disk) = bob.move_to_disk() else { return };
    disk.fill();
    bob.start_on(&disk);
    assert_eq!(bob.ask("agents")["identity"], identity);
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    bob.kill9();

    let config = bob.host.dir().join("second.toml");
    let (state, url) = (disk.path().join("second").display().to_string(), &world.url);
    let line = format!("--state-dir {state} init second --rendezvous {url} -o {}", config.display());
    let init = || Finished::from(disk.command(&bob.host.overlay_command(&line)).output().expect("overlay init"));
    let finished = init();
    assert_eq!(finished.code, FULL, "{}", finished.stderr);
    assert!(finished.stderr.contains("No space left on device"), "{}", finished.stderr);
    assert!(!config.exists());
    // Neither is half a config left.
    let half = disk.path().join("half.toml");
    let elsewhere = bob.host.dir().join("elsewhere").display().to_string();
    let line_to_half = format!("--state-dir {elsewhere} init third --rendezvous {url} -o {}", half.display());
    let finished = disk.command(&bob.host.overlay_command(&line_to_half)).output().expect("overlay init");
    assert_eq!(Finished::from(finished).code, FULL);
    assert_eq!(disk.run(&format!("ls {}", half.display())).code, 2, "it is there");
    disk.make_room();
    init().succeeded("overlay init");
    bob.start_on(&disk);
    assert_eq!(bob.ask("agents")["identity"], identity);
}
