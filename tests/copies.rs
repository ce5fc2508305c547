//! A process that is copied while it runs: no copy uses a key and a counter that the other one uses, too.
#![allow(clippy::disallowed_methods, reason = "the lab waits for real programs")]

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::process::kill;
use lab::{A, B, Datagram, Frames, Host, Outside, Overlay, Pair, SHORTLY, within};
use rustix::process::Signal;

/// The type of a data message.
const DATA: u8 = 4;
/// How many data messages a session carries before it counts as used.
const USED: usize = 20;

/// Starts a daemon whose threads can be made to fork.
fn up_with_fork(host: &Host, config: &str) -> Overlay {
    let library = host.dir().join("fork_on_signal.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/copies/fork_on_signal.c");
    host.exec(format!("gcc -shared -fPIC -o {} {source}", library.display()));
    let config = host.write_secret("overlay.toml", config);
    let mut command = host.overlay_command(format!("up {}", config.display()));
    command.env("LD_PRELOAD", library);
    Overlay::from_command(host, command)
}

/// Forks the engine's thread of a daemon. Returns the child, in which that thread is the only one.
fn fork_engine(daemon: &Overlay) -> Copy {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("a process").flatten();
    let is_engine = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "engine");
    let engine = tasks.map(|task| task.path()).find(is_engine).expect("an engine");
    // The kernel prefers the thread that is named.
    kill(engine.file_name().and_then(|name| name.to_str()).expect("a number"), Signal::USR1);
    within(SHORTLY, "a child", || {
        let children = fs::read_to_string(engine.join("children")).unwrap_or_default();
        children.split_whitespace().next().map(|child| Copy(child.to_owned()))
    })
}

/// Ends the copy, also when the test fails.
struct Copy(String);

impl Drop for Copy {
    fn drop(&mut self) {
        kill(&self.0, Signal::KILL);
    }
}

/// Receiver index and counter of a data message that A has sent.
fn sealed_with(datagram: &Datagram) -> Option<(u32, u64)> {
    let contents = &datagram.contents;
    let is_from_a = datagram.source.port() == 51820 && datagram.source.ip().to_string() == A.outer_v4;
    let receiver = u32::from_le_bytes(contents.get(4..8)?.try_into().ok()?);
    let counter = u64::from_le_bytes(contents.get(8..16)?.try_into().ok()?);
    (is_from_a && contents[0] == DATA).then_some((receiver, counter))
}

#[test]
fn a_live_node_that_forks_never_uses_a_counter_twice() {
    let Some(pair) = Pair::new("a fork") else { return };
    let on_a = up_with_fork(&pair.a, &pair.config_of_a(Outside::V4));
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    pair.a.reaches(B.v4);
    pair.a.offloads_off(&pair.b);
    let frames = Frames::start(&pair.a, &pair.a.link_to(&pair.b), "", "udp port 51820");
    let _pings =
        [pair.a.spawn(format!("ping -q -i 0.005 {}", B.v4)), pair.b.spawn(format!("ping -q -i 0.005 {}", A.v4))];
    let sessions = || {
        let mut sessions = BTreeMap::<u32, usize>::new();
        for (receiver, _) in frames.datagrams().iter().filter_map(sealed_with) {
            *sessions.entry(receiver).or_default() += 1;
        }
        sessions
    };
    within(SHORTLY, "a session in use", || sessions().values().any(|count| *count >= USED).then_some(()));
    let before: BTreeSet<u32> = sessions().into_keys().collect();

    let copy = fork_engine(&on_a);
    // Both go on: the former session as well as a new one, which the copy has made.
    let at_the_fork = sessions();
    within(Duration::from_secs(30), "both copies to send", || {
        let sent: Vec<_> = frames.datagrams().iter().filter_map(sealed_with).collect();
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = sent.iter().filter(|sealed| !seen.insert(**sealed)).collect();
        assert!(twice.is_empty(), "{} of {} counters were used twice: {:?}", twice.len(), sent.len(), twice.first());
        let now = sessions();
        let has_new = now.iter().any(|(receiver, count)| !before.contains(receiver) && *count >= USED);
        let goes_on = before.iter().any(|receiver| now[receiver] >= at_the_fork[receiver] + USED);
        let done = has_new && goes_on;
        done.then(|| println!("{} data messages in {} sessions, no counter twice", sent.len(), now.len()))
    });
    assert!(Path::new("/proc").join(&copy.0).exists(), "the copy has ended: {}", on_a.log());
    assert!(on_a.log().contains("this process was copied while it ran"), "{}", on_a.log());
}
