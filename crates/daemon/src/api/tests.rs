//! The API as seen by a caller without our client: exact paths, methods, status codes and bodies.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::view::tests::{bob, view};

/// A served API. The user that runs the tests owns the daemon, so everything is permitted.
struct World {
    _folder: TempDir,
    socket: PathBuf,
    requests: mpsc::Receiver<Request>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("overlay0.sock");
        let listener = bind(&socket).expect("a socket");
        let (sender, requests) = mpsc::channel(1);
        tokio::spawn(serve(listener, view([bob()]), sender));
        Self { _folder: folder, socket, requests }
    }

    /// Returns status code and body.
    async fn ask(&self, request: &str) -> (u16, String) {
        self.send(request, "").await
    }

    async fn send(&self, request: &str, body: &str) -> (u16, String) {
        sent(&self.socket, request, body).await
    }

    async fn ask_json(&self, request: &str) -> (u16, Value) {
        let (status, body) = self.ask(request).await;
        (status, serde_json::from_str(&body).expect("JSON"))
    }
}

/// Sends a request with this body. Returns status code and body of the answer.
pub(super) async fn sent(socket: &Path, request: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.expect("a connection");
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = Vec::new();
    // A server that does not read a whole body resets the connection behind its answer.
    if let Err(error) = stream.read_to_end(&mut answer).await {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head[9..12].parse().expect("a status code"), body.to_owned())
}

#[tokio::test]
async fn status_version_and_metrics_are_read_without_the_supervisor() {
    let world = World::new();
    let (code, status) = world.ask_json("GET /v1/status").await;
    assert_eq!(
        (code, &status["schema"], &status["peers"][0]["name"]),
        (200, &json!("overlay.status.v1"), &json!("bob"))
    );
    let (code, version) = world.ask_json("GET /v1/version").await;
    assert_eq!((code, version), (200, json!({"schema": "overlay.version.v1", "version": env!("CARGO_PKG_VERSION")})));
    let (code, text) = world.ask("GET /metrics").await;
    assert!(code == 200 && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn every_documented_operation_is_answered_as_documented() {
    for operation in &openapi::OPERATIONS {
        let mut world = World::new();
        // A daemon that is stopping answers without a supervisor: reload and agent with a failure, down as ever.
        world.requests.close();
        let (query, body) = match operation.takes {
            openapi::Takes::Nothing | openapi::Takes::Path(..) => (String::new(), ""),
            openapi::Takes::Query(parameters) => {
                let value = |name: &str| if name == "what" { "icmp" } else { "1" };
                let given = parameters.iter().map(|(name, ..)| format!("{name}={}", value(name)));
                (format!("?{}", given.collect::<Vec<_>>().join("&")), "")
            }
            openapi::Takes::Body(_) if operation.path == "/v1/agent/key/rotate" => (String::new(), "{}"),
            openapi::Takes::Body(_) if operation.path == "/v1/agent/join" => {
                (String::new(), r#"{"token":"","bind":""}"#)
            }
            openapi::Takes::Body(_) => (String::new(), r#"{"peer":"bob"}"#),
        };
        let path = match operation.takes {
            openapi::Takes::Path(name, _) => operation.path.replace(&format!("{{{name}}}"), "bob"),
            _ => operation.path.to_owned(),
        };
        let asked = format!("{} {path}{query}", operation.method.to_uppercase());
        let (code, body) = world.send(&asked, body).await;
        let needs_supervisor = ["/v1/reload", "/v1/agent/", "/v1/explain", "/v1/rules", "/v1/peers/"]
            .iter()
            .any(|path| operation.path.starts_with(path));
        let expected = if needs_supervisor { 503 } else { 200 };
        assert_eq!(code, expected, "{}: {body}", operation.path);
        let is_json = serde_json::from_str::<Value>(&body).is_ok();
        assert_eq!(is_json, !matches!(operation.answer, openapi::Answer::Text(_)), "{}: {body}", operation.path);
    }
}

#[tokio::test]
async fn a_reload_is_answered_with_what_the_supervisor_reports() {
    let mut world = World::new();
    let report = ReloadReport { added: vec!["carol".to_owned()], unchanged: 1, ..ReloadReport::default() };
    let supervisor = async {
        let Some(Request::Reload(answer)) = world.requests.recv().await else { panic!("no reload was asked") };
        answer.send(Ok(report)).expect("somebody waits");
    };
    // The request borrows nothing from the receiver.
    let socket = world.socket.clone();
    let asker = async move {
        let mut stream = UnixStream::connect(socket).await.expect("a connection");
        stream.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer and its end");
        answer
    };
    let (answer, ()) = tokio::join!(asker, supervisor);
    let body = answer.split_once("\r\n\r\n").expect("a head and a body").1;
    assert_eq!(
        body,
        r#"{"schema":"overlay.reload.v1","status":"ok","added":["carol"],"removed":[],"changed":[],"unchanged":1,"needs_restart":[]}"#
    );
}

#[tokio::test]
async fn what_the_api_does_not_know_is_refused_in_json() {
    let world = World::new();
    let (code, body) = world.ask_json("GET /v2/status").await;
    assert_eq!((code, &body["schema"], &body["code"]), (404, &json!("overlay.error.v1"), &json!("not_found")));
    let (code, body) = world.ask_json("GET /v1/down").await;
    assert_eq!((code, &body["code"], &body["exit"]), (400, &json!("usage"), &json!(2)));
}

#[tokio::test]
async fn a_daemon_that_is_stopping_already_counts_as_stopped() {
    let mut world = World::new();
    world.requests.close();
    let (code, body) = world.ask_json("POST /v1/down").await;
    assert_eq!((code, body), (200, json!({"schema": "overlay.down.v1", "status": "ok", "interface": "overlay0"})));
    let (code, body) = world.ask_json("POST /v1/reload").await;
    assert_eq!((code, &body["code"]), (503, &json!("no_daemon")));
}

#[tokio::test]
async fn further_connections_wait_while_all_slots_are_taken() {
    let world = World::new();
    let idle: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| std::os::unix::net::UnixStream::connect(&world.socket).expect("a connection"))
        .collect();
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), world.ask("GET /v1/version")).await;
    assert!(waits.is_err());
    drop(idle);
    assert_eq!(world.ask("GET /v1/version").await.0, 200);
}
