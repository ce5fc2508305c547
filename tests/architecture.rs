//! The rules of the code that a compiler does not check: which crate may use which, where unsafe and boringtun may
//! appear, how files begin, and how long they may be.
#![allow(clippy::disallowed_methods, reason = "reads the source tree of the workspace")]

#[path = "architecture/modules.rs"]
mod modules;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use modules::{Exception, Modules};

/// The crates that each crate may use. A crate that is not listed here may not use any of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("overlay", &["overlay-cli"]),
    ("overlay-cli", &["overlay-daemon", "overlay-server", "overlay-wire"]),
    ("overlay-daemon", &["overlay-core", "overlay-os", "overlay-rendezvous", "overlay-wire"]),
    ("overlay-server", &["overlay-rendezvous", "overlay-os", "overlay-wire"]),
    ("overlay-rendezvous", &["overlay-wire"]),
    ("overlay-core", &["overlay-wire"]),
    ("overlay-os", &["overlay-wire"]),
    ("overlay-golden", &[]),
    ("overlay-sim", &["overlay-core", "overlay-rendezvous", "overlay-wire"]),
    ("overlay-wire", &[]),
];

/// The most lines in a file. A longer file holds a second noun that should have a file of its own.
/// A test file that is longer is about several subjects.
const LONGEST_FILE: usize = 500;

/// The longest chain of modules of `daemon` in which each uses the next one.
const DAEMON_FLOORS: usize = 8;

/// The uses between the planes of `core` that ARCHITECTURE.md draws upwards: the only files of a plane that may use the other.
/// Every plane may use the reasons for drops.
const UPWARD: &[(&str, &str, &[&str])] = &[
    ("session", "data", &["session::handshake"]),
    ("session", "path", &[]),
    ("path", "data", &[]),
    ("path", "session", &["path::calling"]),
];

/// Crates whose modules use each other in no circle, but for the uses that are listed, each with its reason.
const WITHOUT_CIRCLES: &[(&str, &[Exception])] = &[
    ("crates/daemon/src", &[]),
    ("crates/os/src", &[]),
    ("crates/cli/src", &[]),
    ("crates/server/src", &[]),
    ("crates/wire/src", &[]),
];

#[test]
fn every_arrow_between_crates_is_one_the_design_names() {
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let name = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
        let allowed = ARROWS.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
        // The root's tests and benches may use every crate.
        let tables: &[&str] = match name.as_str() {
            "overlay" => &["dependencies", "build-dependencies"],
            _ => &["dependencies", "dev-dependencies", "build-dependencies"],
        };
        for table in tables {
            let used = manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten();
            for (dependency, _) in used.filter(|(dependency, _)| dependency.starts_with("overlay")) {
                // Tests of every crate may compare with golden files.
                let is_for_tests = dependency == "overlay-golden" && *table == "dev-dependencies";
                if !is_for_tests && !allowed.contains(&dependency.as_str()) {
                    wrong.push(format!("{name} -> {dependency} in [{table}]"));
                }
            }
        }
        assert!(manifest.get("target").is_none(), "{name}: a [target] table could hide an arrow from this test");
    }
    assert!(wrong.is_empty(), "arrows that the design does not allow: {wrong:#?}");
}

#[test]
fn the_crates_are_those_of_the_design() {
    let names: BTreeSet<_> = manifests()
        .iter()
        .map(|manifest| manifest["package"]["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let strangers: Vec<_> = names.difference(&known).collect();
    assert!(strangers.is_empty(), "crates without a rule of their own: {strangers:?}");
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_in_os() {
    let root = manifest(Path::new("Cargo.toml"));
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for manifest in manifests() {
        let name = manifest["package"]["name"].as_str().expect("a package has a name");
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert!(inherits == Some(true) || name == "overlay-os", "{name} does not take the workspace's lints");
    }
    for file in sources().iter().filter(|file| !file.path.starts_with("crates/os") && !file.is_this()) {
        let found = file.code_lines().find(|(_, line)| words(line).any(|word| word == "unsafe"));
        assert!(
            found.is_none(),
            "unsafe outside crates/os: {}:{}",
            file.path.display(),
            found.map_or(0, |(number, _)| number)
        );
    }
}

#[test]
fn boringtun_is_named_at_its_seam_only() {
    let homes =
        ["engine.rs", "generation.rs", "local_key.rs"].map(|file| Path::new("crates/core/src/session").join(file));
    for file in sources().iter().filter(|file| !homes.contains(&file.path) && !file.is_this()) {
        let found = file.code_lines().find(|(_, line)| line.contains("boringtun::") || line.contains("use boringtun"));
        assert!(
            found.is_none(),
            "boringtun is used in {}:{}",
            file.path.display(),
            found.map_or(0, |(number, _)| number)
        );
    }
    for manifest in manifests() {
        let name = manifest["package"]["name"].as_str().expect("a package has a name");
        let uses = manifest.get("dependencies").is_some_and(|table| table.get("boringtun").is_some());
        assert!(!uses || name == "overlay-core", "{name} depends on boringtun");
    }
}

#[test]
fn the_pure_crates_cannot_name_the_clock_sockets_threads_or_global_randomness() {
    let root = manifest(Path::new("Cargo.toml"));
    for lint in ["disallowed_methods", "disallowed_types"] {
        assert_eq!(root["workspace"]["lints"]["clippy"][lint].as_str(), Some("deny"), "{lint}");
    }
    let clippy = manifest(Path::new("clippy.toml"));
    let listed = |list: &str| -> Vec<String> {
        let entries = clippy[list].as_array().expect("a list");
        entries.iter().filter_map(|entry| entry["path"].as_str()).map(str::to_owned).collect()
    };
    let (methods, types) = (listed("disallowed-methods"), listed("disallowed-types"));
    for method in ["std::time::Instant::now", "std::time::SystemTime::now", "std::thread::spawn", "std::thread::sleep"]
    {
        assert!(methods.iter().any(|listed| listed == method), "{method} is not disallowed");
    }
    for name in ["std::net::UdpSocket", "std::net::TcpStream", "std::net::TcpListener", "rand_core::OsRng"] {
        assert!(types.iter().any(|listed| listed == name), "{name} is not disallowed");
    }
    // A pure crate must not allow exceptions from them, except in tests.
    let pure = ["crates/core/src", "crates/wire/src", "crates/rendezvous/src", "crates/sim/src"];
    for file in
        sources().iter().filter(|file| pure.iter().any(|folder| file.path.starts_with(folder)) && !file.is_test())
    {
        let found = file.code_lines().find(|(_, line)| line.contains("clippy::disallowed"));
        assert!(found.is_none(), "an exception in {}:{}", file.path.display(), found.map_or(0, |(number, _)| number));
    }
}

/// A golden file that no test compares with would be read and kept up for nothing.
#[test]
fn every_golden_file_belongs_to_a_test() {
    for file in files_below(&["crates", "tests"], "txt") {
        let names: Vec<_> = file.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let [folder @ .., golden, source, test] = &names[..] else { continue };
        if golden != "golden" {
            continue;
        }
        let source = folder.iter().collect::<PathBuf>().join(source).with_extension("rs");
        let text = fs::read_to_string(root().join(&source)).unwrap_or_default();
        let test = test.trim_end_matches(".txt");
        assert!(text.contains(&format!("fn {test}(")), "{} belongs to no test: remove it", file.display());
    }
}

#[test]
fn every_source_file_says_first_what_it_is() {
    for file in sources() {
        assert!(file.text.starts_with("//!"), "{} does not open with `//!`", file.path.display());
    }
}

#[test]
fn no_source_file_grows_beyond_500_lines() {
    for file in sources() {
        let length = file.text.lines().count();
        assert!(length <= LONGEST_FILE, "{} has {length} lines", file.path.display());
    }
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    for (folder, exceptions) in WITHOUT_CIRCLES {
        let circles = Modules::read(&root().join(folder)).circles(exceptions);
        let told: String = circles.iter().map(ToString::to_string).collect();
        assert!(circles.is_empty(), "{folder}: {told}");
    }
}

#[test]
fn no_two_files_of_core_use_each_other() {
    let circles = Modules::read(&root().join("crates/core/src")).file_circles();
    assert!(circles.is_empty(), "uses that close a circle: {circles:#?}");
}

#[test]
fn the_planes_of_core_use_each_other_as_drawn() {
    let modules = Modules::read(&root().join("crates/core/src"));
    for (by, of, files) in UPWARD {
        let used = modules.uses(by, of).into_iter().filter(|(_, to)| to != "data::drop_reason");
        let wrong: Vec<_> = used.filter(|(from, _)| !files.contains(&from.as_str())).collect();
        assert!(wrong.is_empty(), "{by} -> {of}: {wrong:#?}");
    }
    assert!(!modules.uses("path::calling", "session").is_empty(), "the test sees nothing");
}

#[test]
fn the_daemon_has_eight_floors_at_most() {
    let floors = Modules::read(&root().join("crates/daemon/src")).floors();
    assert!(floors.len() <= DAEMON_FLOORS, "{} floors: {}", floors.len(), floors.join(" -> "));
}

/// A Rust file of the workspace.
struct Source {
    /// The path from the root of the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests") || self.path.ends_with("tests.rs")
    }

    /// Whether this is the file with these tests, which must contain the words that it looks for.
    fn is_this(&self) -> bool {
        self.path == Path::new("tests/architecture.rs")
    }

    /// The lines that are not comments, numbered from 1.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(path: &Path) -> toml::Value {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests of the root and of every crate.
fn manifests() -> Vec<toml::Value> {
    let crates = fs::read_dir(root().join("crates")).expect("the folder of the crates").flatten();
    let folders = crates.map(|entry| Path::new("crates").join(entry.file_name()));
    let all = folders.map(|folder| folder.join("Cargo.toml")).filter(|path| root().join(path).exists());
    [PathBuf::from("Cargo.toml")].into_iter().chain(all).map(|path| manifest(&path)).collect()
}

/// Every Rust file under crates, tests and benches.
fn sources() -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("a source file is UTF-8");
        Source { path, text }
    };
    files_below(&["crates", "tests", "benches"], "rs").into_iter().map(read).collect()
}

/// Every file of this kind below these folders of the repository.
fn files_below(folders: &[&str], kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == kind) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "found {} files: the test looks in the wrong place", found.len());
    found
}
