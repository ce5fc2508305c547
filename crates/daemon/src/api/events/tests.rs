//! Streams as seen by a program that reads them, with an agent that sends what the test says.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::agent::request::{Happened, MAX_WAITING};
use crate::api::{self, MAX_CONNECTIONS, tests::sent};
use crate::serving::access::{Caller, Uid};
use crate::serving::connection;
use crate::view::tests::{bob, view};

struct World {
    _folder: TempDir,
    socket: PathBuf,
    streams: mpsc::Receiver<EventSender>,
}

impl World {
    /// An agent at which one request waits.
    fn new() -> Self {
        Self::served(|listener, requests| {
            tokio::spawn(api::serve(listener, view([bob()]), requests));
        })
    }

    /// The same for an API whose callers are all taken for this one.
    fn of(caller: Caller) -> Self {
        Self::served(|listener, requests| {
            let routes = api::routes(view([bob()]), requests);
            let routes = routes.layer(Extension(caller)).layer(Extension(Uid(1000)));
            tokio::spawn(connection::serve(listener, 4, move |_| routes.clone()));
        })
    }

    fn served(serve: impl FnOnce(UnixListener, mpsc::Sender<api::Request>)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("overlay0.sock");
        let (requests, mut asked) = mpsc::channel(1);
        serve(api::bind(&socket).expect("a socket"), requests);
        let (begun, streams) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(api::Request::Agent(call, answer)) = asked.recv().await {
                let AgentRequest::Ask(Question::Watch(stream)) = call.request else { panic!("not a stream") };
                begun.send(stream).await.expect("the test runs");
                let _ = answer.send(Ok(AgentReply::Watching(vec![AgentEvent::of(Happened::Request, 1)])));
            }
        });
        Self { _folder: folder, socket, streams }
    }

    /// Begins a stream, and reads its head.
    async fn watch(&mut self) -> (BufReader<UnixStream>, EventSender) {
        let mut connection = UnixStream::connect(&self.socket).await.expect("a connection");
        let request = b"GET /v1/agent/events HTTP/1.0\r\nHost: localhost\r\n\r\n";
        connection.write_all(request).await.expect("a request");
        let sender = self.streams.recv().await.expect("a stream");
        let mut reader = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).await.expect("a head"), 0);
        }
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("application/x-ndjson"), "{head}");
        (reader, sender)
    }
}

/// Begins a stream, and returns the first line of its head.
async fn status(socket: &Path) -> String {
    let mut connection = UnixStream::connect(socket).await.expect("a connection");
    connection.write_all(b"GET /v1/agent/events HTTP/1.0\r\nHost: localhost\r\n\r\n").await.expect("a request");
    let mut status = String::new();
    BufReader::new(connection).read_line(&mut status).await.expect("a head");
    status
}

async fn line(reader: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    let length = reader.read_line(&mut line).await.expect("a line");
    (length > 0).then(|| serde_json::from_str(&line).expect("JSON"))
}

#[tokio::test]
async fn a_stream_begins_with_what_waits_and_ends_with_the_reason() {
    let mut world = World::new();
    let (mut reader, sender) = world.watch().await;
    assert_eq!(line(&mut reader).await.expect("an event")["event"], "request");
    assert!(sender.send(&AgentEvent::of(Happened::Trusted, 1_795_867_200_000)));
    let trusted = line(&mut reader).await.expect("an event");
    let expected =
        r#"{"schema":"overlay.event.v1","event":"trusted","time":"2026-11-28T12:00:00Z","unix_ms":1795867200000}"#;
    assert_eq!(trusted, serde_json::from_str::<Value>(expected).expect("JSON"));
    drop(sender);
    assert_eq!(line(&mut reader).await.expect("an event")["event"], "ended");
    assert_eq!(line(&mut reader).await, None);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_dropped_and_told_so() {
    let mut world = World::new();
    let (mut reader, sender) = world.watch().await;
    let long = AgentEvent::says(Happened::PeerUp, 1, "x".repeat(8 * 1024));
    let mut count = 0;
    while sender.send(&long) {
        count += 1;
        assert!(count < 10_000, "nothing bounds the stream");
        // The server may fill the socket meanwhile.
        tokio::task::yield_now().await;
    }
    assert!(count >= MAX_WAITING, "{count}");
    drop(sender);
    let mut last = Value::Null;
    while let Some(event) = line(&mut reader).await {
        last = event;
    }
    assert_eq!(last["event"], "dropped", "{last}");
}

#[tokio::test]
async fn streams_take_no_place_from_those_who_ask() {
    let mut world = World::new();
    let mut streams = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        streams.push(world.watch().await);
    }
    let (code, _) = sent(&world.socket, "GET /v1/version", "").await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_reader_that_hangs_up_is_forgotten() {
    let mut world = World::new();
    let (reader, sender) = world.watch().await;
    drop(reader);
    let patience = tokio::time::timeout(Duration::from_secs(10), async {
        while sender.send(&AgentEvent::of(Happened::PeerUp, 1)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.expect("the stream ends");
}

#[tokio::test]
async fn users_who_may_only_read_have_a_part_of_the_streams_and_strangers_have_none() {
    let mut world = World::of(Caller::Member);
    let streams = [world.watch().await, world.watch().await];
    let (code, failure) = sent(&world.socket, "GET /v1/agent/events", "").await;
    assert_eq!(code, 409, "{failure}");
    drop(streams);
    // The server notices that a reader has gone when it looks at the connection.
    let again = tokio::time::timeout(Duration::from_secs(10), async {
        while !status(&world.socket).await.starts_with("HTTP/1.0 200") {}
    });
    again.await.expect("a place is free again");
    let world = World::of(Caller::Stranger);
    assert_eq!(sent(&world.socket, "GET /v1/agent/events", "").await.0, 403);
}
