//! State folders of the release before, and of a later one.

use std::fs;

use super::*;
use crate::lab::Agents;

/// The exit code for state that cannot be used.
const REFUSED: i32 = 5;
/// What the release before this one did not write.
const NEW: [&str; 3] = ["version", "registered", "memberships"];

#[test]
fn a_folder_of_the_release_before_is_taken_as_it_is_and_one_of_a_later_release_is_refused() {
    let Some(mut world) = Agents::new("upgrades") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let (identity, v4) = (bob.ask("agents")["identity"].clone(), bob.v4());
    bob.stop();
    let folder = bob.state().join("lab");
    for file in NEW {
        fs::remove_file(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    bob.start();
    assert_eq!((bob.ask("agents")["identity"].clone(), bob.v4()), (identity, v4.clone()));
    bob.sees("alice", "trusted");
    alice.host.reaches(&v4);
    assert_eq!(fs::read_to_string(folder.join("version")).expect("the daemon writes it"), "2\n");
    within(SHORTLY, "what the rendezvous tells again", || {
        NEW.iter().all(|file| folder.join(file).exists()).then_some(())
    });

    bob.stop();
    fs::write(folder.join("version"), "3\n").expect("our own file");
    let up = bob.host.start(bob.up_command(), "overlay up").finish_within(SHORTLY);
    assert_eq!(up.code, REFUSED, "{}", up.stderr);
    assert!(
        up.stderr.contains("a later release of overlay has used") && up.stderr.contains("\nhint: "),
        "{}",
        up.stderr
    );
    eprintln!("{}", up.stderr);
    let doctor = bob.verb(format!("doctor {}", bob.config().display()));
    assert!(doctor.stdout.contains("a later release of overlay has used"), "{}{}", doctor.stdout, doctor.stderr);
    assert_eq!(fs::read_to_string(folder.join("version")).expect("there"), "3\n");
    fs::write(folder.join("version"), "2\n").expect("our own file");
    bob.start();
    bob.sees("alice", "trusted");
    alice.host.reaches(&v4);
}
