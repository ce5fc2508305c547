//! State files that are empty, cut off, changed or open to others: each is refused by name or made again, and nothing else
//! in the folder changes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::closed::{hand_out, network_key, token};
use super::*;
use crate::lab::{Agents, Finished};

/// The exit codes for a file that is damaged, and for one that others could have read or written.
const DAMAGED: i32 = 5;
/// The exit code for the state of a different machine.
const FOREIGN: i32 = 9;
const OPEN: i32 = 4;

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Empty,
    Half,
    Garbage,
    Missing,
    Mode(u32),
    Owner,
    Link,
    SecondName,
}

impl Harm {
    fn to(self, file: &Path, aside: &Path) {
        let before = fs::read(file).expect("the agent has made it");
        match self {
            Self::Empty => fs::write(file, ""),
            Self::Half => fs::write(file, &before[..before.len() / 2]),
            Self::Garbage => {
                let garbage: Vec<u8> = (0..before.len().max(40)).map(|at| (at * 167 + 89) as u8).collect();
                fs::write(file, garbage)
            }
            Self::Missing => fs::remove_file(file),
            Self::Mode(mode) => fs::set_permissions(file, Permissions::from_mode(mode)),
            Self::Owner => std::os::unix::fs::chown(file, Some(65_534), None),
            Self::Link => fs::rename(file, aside).and_then(|()| symlink(aside, file)),
            Self::SecondName => fs::hard_link(file, aside),
        }
        .expect("our own file");
    }
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The daemon names the file and does not start.
    Refused(i32),
    /// The daemon runs as the same agent, with the same peer.
    Runs,
    /// The same, and its log names the file.
    Warns,
}

fn outcome(file: &str, harm: Harm) -> Outcome {
    match (file, harm) {
        // It is empty, and only its lock matters.
        ("lock", _) => Outcome::Runs,
        // The rendezvous tells both again.
        ("registered" | "memberships", _) => Outcome::Runs,
        (_, Harm::Owner | Harm::Link | Harm::SecondName) => Outcome::Refused(OPEN),
        (_, Harm::Mode(mode)) if mode & 0o022 != 0 => Outcome::Refused(OPEN),
        (_, Harm::Mode(_)) if file.ends_with(".key") || file.starts_with("peers/") => Outcome::Refused(OPEN),
        (_, Harm::Mode(_)) => Outcome::Runs,
        // An administrator may remove the time, the attestation or the machine, and the rendezvous has the others.
        ("network" | "record" | "time" | "attestation" | "machine" | "version", Harm::Missing) => Outcome::Runs,
        ("machine", _) => Outcome::Refused(FOREIGN),
        ("network" | "record", _) => Outcome::Warns,
        _ => Outcome::Refused(DAMAGED),
    }
}

/// Every file below a folder, with its mode and its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, about) = (entry.path(), entry.path().symlink_metadata().expect("it is there"));
        if about.is_dir() {
            all.extend(content(&path));
        }
        let bytes = if about.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        all.insert(path, (about.permissions().mode(), bytes));
    }
    all
}

/// Runs `up`, which must end by itself.
#[track_caller]
fn refused_up(agent: &Agent) -> Finished {
    agent.host.start(agent.up_command(), "overlay up").finish_within(SHORTLY)
}

#[test]
fn a_harmed_state_file_is_refused_by_name_or_made_again() {
    let Some(mut world) = Agents::new("harmed files") else { return };
    let (alice, mut bob) = world.two();
    // A grant that ends makes `time`.
    befriend(&alice, "--want icmp", &bob, "--for 30d");
    let (identity, v4) = (bob.ask("agents")["identity"].clone(), bob.v4());
    let token = hand_out(&bob.host, &token(&network_key(&world), |_| {}));
    bob.ask(&format!("join {}", token.display()));
    bob.is_registered("bob");
    bob.kill9();
    let (folder, good) = (bob.state().join("lab"), bob.host.dir().join("good"));
    let aside = bob.host.dir().join("aside");
    bob.host.exec(format!("cp -a {} {}", folder.display(), good.display()));
    let peer = format!("peers/{}", alice.ask("agents")["identity"].as_str().expect("a key"));

    let files = [
        "identity.key",
        "tunnel.key",
        "mailbox.key",
        "network",
        "record",
        "time",
        "attestation",
        "machine",
        "version",
        "registered",
        "memberships",
        "lock",
        &peer,
    ];
    let harms = [Harm::Empty, Harm::Half, Harm::Garbage, Harm::Missing, Harm::Mode(0o644), Harm::Mode(0o620)];
    for file in files {
        for harm in harms.into_iter().chain([Harm::Owner, Harm::Link, Harm::SecondName]) {
            let what = format!("{file}, {harm:?}");
            let outcome = if matches!(harm, Harm::Missing) && file == peer {
                // Nothing says that it was there.
                continue;
            } else {
                outcome(file, harm)
            };
            let path = folder.join(file);
            harm.to(&path, &aside);
            let before = content(&folder);
            if let Outcome::Refused(code) = outcome {
                let finished = refused_up(&bob);
                assert_eq!(finished.code, code, "{what}: {}", finished.stderr);
                assert!(finished.stderr.contains(&path.display().to_string()), "{what}: {}", finished.stderr);
                assert!(finished.stderr.contains("\nhint: "), "{what}: {}", finished.stderr);
                assert!(!finished.stderr.contains("rm "), "{what}: {}", finished.stderr);
                assert_eq!(content(&folder), before, "{what}");
                if let Harm::Empty = harm {
                    eprintln!("{}", finished.stderr);
                }
                // `init` makes no second identity, whatever became of the first one.
                let again = bob.host.dir().join("again.toml");
                let state = bob.state().display().to_string();
                let line = format!("--state-dir {state} init bob --rendezvous {} -o {}", world.url, again.display());
                let init = bob.host.overlay(&line);
                assert!([4, 5, 9].contains(&init.code), "{what}: {}: {}", init.code, init.stderr);
                assert_eq!(content(&folder), before, "{what}: init");
                assert!(!again.exists(), "{what}");
            } else {
                bob.start();
                assert_eq!(bob.ask("agents")["identity"], identity, "{what}");
                // The folder is a backup each time, so what it grants may be held until the ledger was read.
                bob.sees("alice", "trusted");
                assert_eq!(bob.v4(), v4, "{what}");
                let is_named = bob.daemon().log().contains(&path.display().to_string());
                assert_eq!(is_named, outcome == Outcome::Warns, "{what}: {}", bob.daemon().log());
                if file == "network" || (file == "record" && outcome == Outcome::Warns) {
                    within(SHORTLY, &format!("{what}: the file"), || {
                        let now = fs::read(&path).ok()?;
                        // A record is signed anew. The network is what it was.
                        let is_whole = if file == "record" { now.len() > 500 } else { now == before_of(&good, file) };
                        is_whole.then_some(())
                    });
                }
                bob.kill9();
            }
            fs::remove_dir_all(&folder).expect("our own folder");
            let _ = fs::remove_file(&aside);
            bob.host.exec(format!("cp -a {} {}", good.display(), folder.display()));
        }
    }

    // Without its folder, nobody knows what was granted.
    fs::remove_dir_all(folder.join("peers")).expect("our own folder");
    let before = content(&folder);
    let finished = refused_up(&bob);
    assert_eq!(finished.code, DAMAGED, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("peers is missing") && finished.stderr.contains("\nhint: "),
        "{}",
        finished.stderr
    );
    assert_eq!(content(&folder), before);
}

fn before_of(good: &Path, file: &str) -> Vec<u8> {
    fs::read(good.join(file)).expect("a copy of ours")
}
