//! Replays what fuzzers have found: every committed input goes through its target again.
#![allow(clippy::disallowed_methods, reason = "reads files of the source tree")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use overlay_sim::fuzz::{TARGETS, Target};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    inputs.sort();
    inputs
}

fn replay((name, target): Target) {
    let inputs = inputs(name);
    assert!(inputs.len() >= 5, "{name} has a corpus of {}", inputs.len());
    for input in &inputs {
        // If the target panics, this output names the input.
        println!("{}", input.display());
        target(&fs::read(input).expect("a readable file"));
    }
    target(&[]);
}

#[test]
fn every_input_of_the_parsers_is_survived() {
    TARGETS.into_iter().filter(|(name, _)| !name.starts_with("node_")).for_each(replay);
}

#[test]
fn every_input_of_a_node_is_survived() {
    TARGETS.into_iter().filter(|(name, _)| name.starts_with("node_")).for_each(replay);
}

#[test]
fn every_target_has_a_file_for_cargo_fuzz_and_a_corpus_and_there_are_no_others() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let in_folder = |folder: &str| -> BTreeSet<_> {
        let entries = fs::read_dir(fuzz().join(folder)).expect("a folder of fuzz/");
        let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
        entries.map(|entry| name(entry.expect("a readable folder"))).collect()
    };
    assert_eq!(in_folder("fuzz_targets"), names);
    assert_eq!(in_folder("corpus"), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
    }
}
