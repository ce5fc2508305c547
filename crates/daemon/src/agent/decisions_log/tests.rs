//! The log in a folder: what is in it, how it is bounded, and what happens when it cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const NOON: u64 = 1_795_867_200_000;

fn key(byte: u8) -> PublicKey {
    overlay_wire::signed::SecretKey::from_bytes(&[byte; 32]).public()
}

fn approved(byte: u8) -> Decision {
    Decision {
        decision: "approved".to_owned(),
        uid: Some(1000),
        name: format!("agent-{byte}"),
        identity: key(byte).to_string(),
        allow: Some(vec!["tcp/22".to_owned()]),
        expires: Some(1_795_900_000),
        ..Decision::default()
    }
}

fn log() -> (tempfile::TempDir, DecisionLog) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = DecisionLog::open(folder.path()).expect("our own folder");
    (folder, log)
}

#[test]
fn a_decision_is_a_line_of_json_that_only_the_owner_reads() {
    let (folder, mut log) = log();
    log.note(approved(1), NOON);
    let path = folder.path().join(NAME);
    let text = fs::read_to_string(&path).expect("the log");
    let expected = format!(
        r#"{{"time":"2026-11-28T12:00:00Z","unix_ms":1795867200000,"decision":"approved","uid":1000,"name":"agent-1","identity":"{}","allow":["tcp/22"],"expires":1795900000}}"#,
        key(1)
    );
    assert_eq!(text, expected + "\n");
    assert_eq!(fs::metadata(&path).expect("the log").permissions().mode() & 0o777, 0o600);
    // A different process reads the same.
    let log = DecisionLog::open(folder.path()).expect("our own folder");
    assert_eq!(
        log.newest(None, 10),
        [Decision { time: "2026-11-28T12:00:00Z".to_owned(), unix_ms: NOON, ..approved(1) }]
    );
}

#[test]
fn the_newest_come_first_and_those_of_one_peer_are_found() {
    let (_folder, mut log) = log();
    for (at, byte) in [1, 2, 1, 3].into_iter().enumerate() {
        log.note(approved(byte), NOON + at as u64);
    }
    let times = |peer: Option<u8>, limit| -> Vec<u64> {
        let peer = peer.map(key);
        log.newest(peer.as_ref(), limit).into_iter().map(|decision| decision.unix_ms - NOON).collect()
    };
    assert_eq!(times(None, 3), [3, 2, 1]);
    assert_eq!(times(Some(1), 10), [2, 0]);
    assert!(times(Some(9), 10).is_empty());
    assert_eq!(log.last(&key(2)).map(|decision| decision.unix_ms), Some(NOON + 1));
}

#[test]
fn the_newest_are_found_across_both_files() {
    let (folder, mut log) = log();
    let small = Folder::trusted(folder.path(), &[]).expect("our own folder");
    log.lines = LineLog::new(small, NAME, OLD, 1_000);
    for at in 0..100 {
        log.note(approved(1), NOON + at);
    }
    let newest: Vec<_> = log.newest(None, 5).into_iter().map(|decision| decision.unix_ms - NOON).collect();
    assert_eq!(newest, [99, 98, 97, 96, 95]);
    assert!(fs::metadata(folder.path().join(OLD)).is_ok_and(|old| old.len() > 0));
    assert_eq!(log.unwritten(), 0);
}

#[test]
fn what_cannot_be_written_is_counted_and_the_next_one_is_written() {
    let (folder, mut log) = log();
    fs::create_dir(folder.path().join(NAME)).expect("a folder in the way");
    log.note(approved(1), NOON);
    assert_eq!((log.unwritten(), log.newest(None, 10)), (1, Vec::new()));
    assert!(log.failure().is_some());
    fs::remove_dir(folder.path().join(NAME)).expect("our own folder");
    log.note(approved(2), NOON + 1);
    assert_eq!((log.unwritten(), log.newest(None, 10).len()), (1, 1));
    assert_eq!(log.failure(), None);
}

#[test]
fn half_a_line_is_not_a_decision_and_spoils_no_other() {
    let (folder, mut log) = log();
    log.note(approved(1), NOON);
    let path = folder.path().join(NAME);
    let text = fs::read(&path).expect("the log");
    fs::write(&path, [&text[..], &text[..40]].concat()).expect("our own file");
    let mut log = DecisionLog::open(folder.path()).expect("our own folder");
    log.note(approved(2), NOON + 1);
    let names: Vec<_> = log.newest(None, 10).into_iter().map(|decision| decision.name).collect();
    assert_eq!(names, ["agent-2", "agent-1"]);
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let (folder, mut log) = log();
    log.note(approved(1), NOON);
    fs::rename(folder.path().join(NAME), folder.path().join("kept")).expect("our own folder");
    log.note(approved(2), NOON + 1);
    assert_eq!(log.newest(None, 10).len(), 1);
}

#[test]
fn a_peer_that_asks_again_and_again_does_not_fill_the_log() {
    let (_folder, mut log) = log();
    for at in 0..100 {
        log.note_automatic(key(1), approved(1), NOON + at);
    }
    log.note_automatic(key(2), approved(2), NOON);
    assert_eq!(log.newest(Some(&key(1)), 1_000).len(), MAX_AUTOMATIC as usize);
    assert_eq!(log.newest(Some(&key(2)), 1_000).len(), 1);
    log.note_automatic(key(1), approved(1), NOON + HOUR);
    assert_eq!(log.newest(Some(&key(1)), 1_000).len(), MAX_AUTOMATIC as usize + 1);
    assert_eq!(log.unwritten(), 84);
}
