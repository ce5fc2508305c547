//! The targets that `make` offers besides the tests also work: the demo, the install, and the benches with their
//! smallest settings. Targets that take too long for this are part of the weekly run.
//!
//! The benches are separate programs. `make test` builds them and passes their paths.
#![allow(clippy::disallowed_methods, reason = "starts real programs")]

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Targets that need no test: other targets call them, or they do nothing that could break.
const TRIVIAL: [&str; 4] = ["bless", "help", "build", "clean"];
/// Targets whose program a test in this file starts.
const STARTED_HERE: [&str; 3] = ["demo", "install", "bench"];

#[test]
fn every_target_is_started_by_ci_by_a_test_or_every_week() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(documented_target).collect();
    assert!(targets.len() > 8, "{targets:?}: the test reads the Makefile wrongly");
    let ci = read(".ci/run");
    let by_ci = |target: &&str| ci.lines().any(|line| line.trim() == format!("make {target}"));
    let weekly = recipe(&makefile, "weekly");
    let by_week = |target: &&str| weekly.contains(&format!("$(MAKE) {target}"));
    let is_started = |target: &&str| {
        TRIVIAL.contains(target)
            || STARTED_HERE.contains(target)
            || by_ci(target)
            || by_week(target)
            || **target == *"weekly"
    };
    let idle: Vec<_> = targets.into_iter().filter(|target| !is_started(target)).collect();
    assert!(idle.is_empty(), "nothing ever starts these, so that they may rot unseen: {idle:?}");
}

#[test]
fn the_contest_measures_every_contestant() {
    contest(
        "plain,tcp,start,memory,ping",
        &["overlay", "overlay-high", "boringtun", "gotatun", "wireguard-go", "nebula"],
    );
}

#[test]
fn the_contest_measures_every_chapter() {
    contest("overlay,veth,offloads,tcp8,udp,aead,latency,fairness,scale", &["overlay"]);
}

#[test]
fn every_bench_of_the_node_runs() {
    let Some(program) = built("OVERLAY_NODE_BENCH") else { return };
    // Criterion's own switch to run each bench once, unmeasured.
    run(Command::new(program).args(["--bench", "--test"]).current_dir(root()));
}

#[test]
fn the_demo_runs_to_its_end() {
    if lab::Lab::new("demo").is_none() {
        return;
    }
    let said = run(Command::new("scripts/demo").arg(env!("CARGO_BIN_EXE_overlay")).current_dir(root()));
    assert!(said.contains("links, rules, sockets as before"), "{said}");
}

#[test]
fn the_install_puts_everything_where_a_package_wants_it() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Command::new("scripts/install")
        .env("DESTDIR", folder.path())
        .env("PREFIX", "/usr")
        .env("BINARY", env!("CARGO_BIN_EXE_overlay"))
        .current_dir(root()));
    for file in ["bin/overlay", "bin/overlay-wg", "lib/systemd/system/overlay@.service", "share/man/man1/overlay.1"] {
        assert!(folder.path().join("usr").join(file).exists(), "{file} is missing");
    }
}

/// Runs the contest with the smallest settings. Each of `contestants` must complete all measurements.
fn contest(only: &str, contestants: &[&str]) {
    let Some(program) = built("OVERLAY_CONTEST") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let smallest = [("ROUNDS", "1"), ("SECONDS", "1"), ("STREAM_SECONDS", "13"), ("PEERS", "100"), ("ONLY", only)];
    let smallest = smallest.map(|(name, value)| (format!("BENCH_{name}"), value));
    run(Command::new(program).envs(smallest).env("OVERLAY_BIN", env!("CARGO_BIN_EXE_overlay")).current_dir(&folder));
    let report = fs::read_to_string(folder.path().join("target/bench/report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["failures"], serde_json::json!([]), "something failed");
    let took_part = report["contestants"].as_array().expect("a list");
    for contestant in contestants {
        assert!(took_part.iter().any(|one| one["label"] == *contestant), "{contestant} took no part: {took_part:?}");
    }
}

/// The path of a program that `make test` has built, from this variable. If the variable is not set, because the test
/// was started by hand, prints that and returns `None`.
#[track_caller]
fn built(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        let reason = format!("{variable} is not set: `make test` builds that program and sets it");
        lab::skip(std::thread::current().name().unwrap_or_default(), &reason);
    }
    program
}

/// Runs a program that must succeed, and returns its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}\n{said}\n{told}", output.status);
    said
}

fn documented_target(line: &str) -> Option<&str> {
    let (target, rest) = line.split_once(':')?;
    (rest.contains("##") && target.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(target)
}

/// The lines that make runs for a target.
fn recipe(makefile: &str, target: &str) -> String {
    let start = format!("{target}:");
    let lines = makefile.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    lines.take_while(|line| line.starts_with('\t')).collect::<Vec<_>>().join("\n")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
