//! A rendezvous that runs in this process, with its state in a temporary folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_server::{Access, Options, Relaying, ServeError, Setup, serve};
use overlay_wire::signed::SecretKey;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// How long to wait for what must happen soon.
const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Running {
    pub(crate) setup: Setup,
    pub(crate) metrics: SocketAddr,
    limits: Limits,
    state: tempfile::TempDir,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), limits).await
    }

    async fn start_in(state: tempfile::TempDir, limits: Limits) -> Self {
        // The port is free until somebody else takes it: the metrics have to be found.
        let metrics = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let metrics = metrics.expect("a port on loopback");
        let options = Options {
            network: "lab".to_owned(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            state_dir: state.path().to_owned(),
            is_closed: None,
            pool: None,
            url: None,
            network_file: None,
            metrics: Some(metrics),
            certificate: None,
            store: None,
            access: Access::default(),
            limits,
            is_replacing: false,
            relay: Relaying::default(),
        };
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ready = |setup: &Setup| drop(ready.send(setup.clone()));
            let end = async { drop(ended.await) };
            serve(options, ready, end).await
        });
        let setup = started.await.expect("it becomes ready");
        Self { setup, metrics, limits, state, end, task }
    }

    /// Ends it in order.
    pub(crate) async fn end(self) {
        let _ = self.end.send(());
        self.task.await.expect("no panic").expect("it ran to its end");
    }

    /// Ends it and starts it again, with what it has kept.
    pub(crate) async fn restart(self) -> Self {
        let _ = self.end.send(());
        self.task.await.expect("no panic").expect("it ran to its end");
        Self::start_in(self.state, self.limits).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.setup.url.port).into()
    }

    pub(crate) fn target(&self) -> Target {
        Target { rendezvous: self.setup.url.clone(), identity: Arc::new(key(3)), epoch: 0, ca_file: None }
    }

    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.state.path().join("rendezvous/lab").join(name)
    }

    /// Waits until as many connections have ended for this reason.
    pub(crate) async fn counts(&self, end: End, count: u64) {
        let began = Instant::now();
        while self.setup.stats.ended(end) < count {
            let all: Vec<_> = End::ALL.iter().map(|end| (end.code(), self.setup.stats.ended(*end))).collect();
            assert!(began.elapsed() < SOON, "{} did not become {count}: {all:?}", end.code());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.setup.stats.ended(end), count, "{}", end.code());
    }
}

pub(crate) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

/// Limits with which a test need not wait long.
pub(crate) fn limits() -> Limits {
    Limits { handshake: Duration::from_millis(500), idle: Duration::from_secs(1), ..Limits::default() }
}

/// Calls, and waits for the answer.
pub(crate) async fn answer_to(agent: &mut Connection, id: u32, verb: Verb) -> Reply {
    agent.calls.send(&Call { id, verb }).await.expect("sent");
    match agent.messages.next().await.expect("an answer") {
        FromServer::Answer(answer) if answer.id == id => answer.reply,
        other => panic!("not the answer: {other:?}"),
    }
}
