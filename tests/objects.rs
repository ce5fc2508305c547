//! The signed objects of agent mode, judged by a program that shares no code with ours.
#![allow(clippy::disallowed_methods, reason = "reads files of the source tree and runs a program")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use overlay_wire::signed::{PublicKey, ipv6_address};
use serde_json::Value;

/// Debian's interpreter: it has PyNaCl and cbor2.
const PYTHON: &str = "/usr/bin/python3";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn vectors() -> Value {
    let text = std::fs::read_to_string(root().join("tests/vectors/objects.json")).expect("the vectors");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

/// Whether the program can run here. With `OVERLAY_LAB=required`, as `make test` sets it, it must.
fn has_python() -> bool {
    let output = Command::new(PYTHON).args(["-c", "import nacl, cbor2"]).output();
    let can_run = output.is_ok_and(|output| output.status.success());
    let is_required = std::env::var_os("OVERLAY_LAB").is_some_and(|word| word == "required");
    assert!(can_run || !is_required, "python3-nacl or python3-cbor2 is missing: run scripts/setup test");
    if !can_run {
        eprintln!("skipped: {PYTHON} has no nacl or no cbor2");
    }
    can_run
}

fn verify(vectors: &Path) -> Output {
    let program = root().join("tests/vectors/verify.py");
    Command::new(PYTHON).arg("-B").arg(program).arg(vectors).output().expect("an interpreter")
}

/// Verifies the vectors with one change, and returns what the program prints when it fails.
fn complaint(change: impl FnOnce(&mut Value)) -> String {
    let mut vectors = vectors();
    change(&mut vectors);
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("objects.json");
    std::fs::write(&path, vectors.to_string()).expect("our own file");
    let output = verify(&path);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_program_in_a_different_language_agrees_with_every_vector() {
    if !has_python() {
        return;
    }
    let output = verify(&root().join("tests/vectors/objects.json"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let count = |name: &str| vectors()[name].as_array().map_or(0, Vec::len);
    assert!(count("good") >= 13 && count("bad") >= 40 && count("addresses") >= 3 && count("not_keys") >= 5);
    assert!(text.starts_with(&format!("{} good, {} bad, ", count("good"), count("bad"))), "{text}");
}

#[test]
fn the_program_notices_every_kind_of_change() {
    if !has_python() {
        return;
    }
    let flipped = complaint(|vectors| {
        let envelope = vectors["good"][0]["envelope"].as_str().expect("hex").to_owned();
        let last = if envelope.ends_with('0') { "1" } else { "0" };
        vectors["good"][0]["envelope"] = (envelope[..envelope.len() - 1].to_owned() + last).into();
    });
    assert!(flipped.contains("good network") && flipped.contains("bad_signature"), "{flipped}");
    let field = complaint(|vectors| vectors["good"][0]["fields"]["name"] = "lab2".into());
    assert!(field.contains("'name': 'lab'"), "{field}");
    let missing = complaint(|vectors| {
        vectors["good"][0]["fields"].as_object_mut().expect("fields").remove("pool");
    });
    assert!(missing.contains("addresses: 1 disagreements"), "{missing}");
    let good = complaint(|vectors| {
        let envelope = vectors["good"][5]["envelope"].clone();
        vectors["bad"][0]["envelope"] = envelope;
    });
    assert!(good.contains("it is good"), "{good}");
    let kind = complaint(|vectors| vectors["good"][5]["kind"] = "revoke".into());
    assert!(kind.contains("good revoke"), "{kind}");
    let reason = complaint(|vectors| vectors["bad"][0]["refused"] = "too_long".into());
    assert!(reason.contains("malformed, not too_long"), "{reason}");
    for (name, value) in [("ipv6", "fd00::1"), ("network_prefix", "fd00::/32")] {
        let address = complaint(|vectors| vectors["addresses"][0][name] = value.into());
        assert!(address.contains(&format!("{name} of ")), "{address}");
    }
    let candidate = complaint(|vectors| vectors["addresses"][0]["ipv4_candidates"][7] = "10.64.0.1".into());
    assert!(candidate.contains("ipv4_candidates of "), "{candidate}");
    let text = complaint(|vectors| vectors["keys"][0]["text"] = vectors["keys"][1]["text"].clone());
    assert!(text.contains("key "), "{text}");
    let not_a_key = complaint(|vectors| vectors["not_keys"][0] = vectors["keys"][0]["text"].clone());
    assert!(not_a_key.contains("not a key"), "{not_a_key}");
}

/// The example of the page is a shell script, and then what it prints, in two blocks.
#[test]
fn the_example_with_sha256sum_prints_what_the_page_says() {
    let page = std::fs::read_to_string(root().join("docs/objects.md")).expect("the page");
    let (_, from) = page.split_once("```sh\n").expect("the script");
    let (script, rest) = from.split_once("```\n").expect("its end");
    let (_, from) = rest.split_once("```\n").expect("what it prints");
    let (printed, _) = from.split_once("```\n").expect("its end");
    let output = Command::new("bash").args(["-euc", script]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text, printed);

    let value = |name: &str| -> PublicKey {
        let line = script.lines().find_map(|line| line.strip_prefix(name)).expect("the key in the script");
        line.parse().expect("a key")
    };
    let address: std::net::Ipv6Addr = printed.trim().parse().expect("an address");
    assert_eq!(address, ipv6_address(&value("network="), &value("identity=")));
}
