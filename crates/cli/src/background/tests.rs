//! How the output of the background half is interpreted.

use overlay_golden::golden;

use super::*;
use crate::output::rendered;

/// A process that prints this on stdout and exits with this code.
fn child(says: &str, code: u8) -> Child {
    Command::new("sh")
        .args(["-c", "printf '%s' \"$0\"; exit $1", says, &code.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell")
}

#[test]
fn a_background_half_that_is_ready_is_left_running() {
    let line = serde_json::to_string(&Ready { pid: 4711, ..Ready::now() }).expect("plain data");
    let ready = await_ready(child(&line, 0), Some(Path::new("x.log"))).expect("ready");
    assert_eq!((ready.pid, ready.status.as_str()), (4711, "ready"));
}

#[test]
fn its_failure_becomes_ours() {
    let failure = Failure::new(ExitKind::Conflict, "already running").with_hint("overlay down lab");
    let line = serde_json::to_string(&FailureBody::from(failure.clone())).expect("plain data");
    assert_eq!(await_ready(child(&line, 9), Some(Path::new("x.log"))).err(), Some(failure));
}

#[test]
fn one_that_ends_without_a_word_points_to_its_log() {
    for words in ["", "{}", "Segmentation fault"] {
        let failure =
            await_ready(child(words, 101), Some(Path::new("/run/overlay/lab.log"))).err().expect("no success");
        assert_eq!(failure.hint.as_deref(), Some("tail /run/overlay/lab.log"));
        golden(format!("{words:?}"), rendered(&failure, false));
    }
}
