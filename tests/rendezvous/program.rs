//! `overlay rendezvous serve` as people run it, and its metrics.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use overlay_rendezvous::channel::Pinned;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

pub(crate) fn serve(state: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_overlay"))
        .args(["rendezvous", "serve", "--network", "lab", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(state)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("our own program")
}

/// Reads the line that says that it is ready, ends the program in order, and returns the line and what followed it.
pub(crate) fn line_and_end(mut child: Child) -> (String, String) {
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut line, mut rest) = (String::new(), String::new());
    stdout.read_line(&mut line).expect("a line");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("our own child");
    stdout.read_to_string(&mut rest).expect("its end");
    assert!(child.wait().expect("our own child").success());
    (line, rest)
}

#[test]
fn one_line_says_that_it_is_ready_and_the_next_start_has_the_same_keys() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let (line, rest) = line_and_end(serve(state.path(), &["--pool", "10.99.0.0/16"]));
    assert_eq!(rest, "", "exactly one line");
    let first: Pinned = line.trim_end().parse().expect("the URL of a rendezvous");
    assert_eq!(first.host, "127.0.0.1");

    let (line, rest) = line_and_end(serve(state.path(), &["--json"]));
    assert_eq!(rest, "", "exactly one line");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(ready["schema"], "overlay.rendezvous.serve.v1");
    assert_eq!((&ready["network"], &ready["pool"]), (&"lab".into(), &"10.99.0.0/16".into()));
    let second: Pinned = ready["url"].as_str().expect("a text").parse().expect("the URL of a rendezvous");
    assert_eq!((second.rendezvous, second.network), (first.rendezvous, first.network));
}

#[test]
fn what_keeps_it_from_starting_is_told_with_its_exit_code() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let running = serve(state.path(), &[]);
    let mut running = running;
    let mut line = String::new();
    BufReader::new(running.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let taken = TcpStream::connect_timeout(&address_in(&line), Duration::from_secs(5)).expect("it listens");
    drop(taken);

    let second = serve(state.path(), &[]).wait_with_output().expect("it ends");
    assert_eq!(second.status.code(), Some(9));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("error: a rendezvous of the network `lab` is running\n"), "{text}");
    assert!(second.stdout.is_empty());
    running.kill().expect("our own child");
    running.wait().expect("our own child");

    std::fs::write(state.path().join("rendezvous/lab/rendezvous.key"), "").expect("ours");
    let torn = serve(state.path(), &[]).wait_with_output().expect("it ends");
    assert_eq!(torn.status.code(), Some(1));
    let text = String::from_utf8_lossy(&torn.stderr).into_owned();
    assert!(text.contains("rendezvous.key` cannot be used\ncause: it is empty\nhint: restore it"), "{text}");
}

fn address_in(line: &str) -> SocketAddr {
    let pinned: Pinned = line.trim_end().parse().expect("the URL of a rendezvous");
    SocketAddr::new(pinned.host.parse().expect("an address"), pinned.port)
}

#[test]
fn it_serves_on_when_nobody_reads_its_line() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut child = serve(state.path(), &[]);
    drop(child.stdout.take());
    let network = state.path().join("rendezvous/lab/certificate.pem");
    let began = Instant::now();
    while !network.exists() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("our own child").is_none(), "it has ended");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("our own child");
    assert!(child.wait().expect("our own child").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_have_a_listener_of_their_own() {
    let server = Running::start(Limits::default()).await;
    let _agent = connect(&server.target()).await.expect("a connection");
    let metrics = server.metrics;
    let asked = move |path: &str| {
        let mut stream = TcpStream::connect(metrics).expect("the listener");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let (metrics, health, other) =
        tokio::task::spawn_blocking(move || (asked("/metrics"), asked("/health"), asked("/"))).await.expect("no panic");
    assert!(metrics.contains("\noverlay_rendezvous_open_connections 1\n"), "{metrics}");
    assert!(metrics.contains("\noverlay_rendezvous_established_connections_total 1\n"), "{metrics}");
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("ok\n"), "{health}");
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
}
