//! The connection to the rendezvous as a task of its own, so that a slow network delays nobody.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use overlay_rendezvous::protocol::{Call, FromServer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::{CONNECT_PATIENCE, ConnectError, Connection, Target, connect_to, look_up};

/// Calls that wait to be sent, and messages that wait to be read.
const QUEUE: usize = 256;

/// What the task reports.
#[derive(Debug)]
pub(crate) enum LinkNews {
    /// The rendezvous' host has these addresses.
    Resolved(Vec<SocketAddr>),
    /// The connection is up, in this version of the protocol.
    Connected(u16),
    /// There is no connection.
    Failed(ConnectError),
    /// The rendezvous sent this.
    Received(Box<FromServer>),
    /// The connection has ended.
    Lost(String),
}

/// At most one connection, or the attempt to make one.
#[derive(Default)]
pub(super) struct Link(Option<Task>);

struct Task {
    handle: JoinHandle<()>,
    calls: mpsc::Sender<Call>,
    news: mpsc::Receiver<LinkNews>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Link {
    /// Begins to connect. An earlier connection ends.
    pub(super) fn connect(&mut self, target: Target) {
        let (calls, to_send) = mpsc::channel(QUEUE);
        let (tell, news) = mpsc::channel(QUEUE);
        let handle = tokio::spawn(run(target, to_send, tell));
        self.0 = Some(Task { handle, calls, news });
    }

    /// Ends the connection, or the attempt. Nothing more is reported.
    pub(super) fn disconnect(&mut self) {
        self.0 = None;
    }

    /// Sends a call. Returns false if the network is too slow for what is asked.
    pub(super) fn send(&self, call: Call) -> bool {
        self.0.as_ref().is_none_or(|task| task.calls.try_send(call).is_ok())
    }

    /// Asks for news.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<LinkNews> {
        let Some(task) = &mut self.0 else { return Poll::Pending };
        match task.news.poll_recv(context) {
            Poll::Ready(Some(news)) => Poll::Ready(news),
            Poll::Ready(None) => {
                self.0 = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn run(target: Target, mut to_send: mpsc::Receiver<Call>, tell: mpsc::Sender<LinkNews>) {
    let connected = match look_up(&target.rendezvous, CONNECT_PATIENCE).await {
        Ok(addresses) => {
            if tell.send(LinkNews::Resolved(addresses.clone())).await.is_err() {
                return;
            }
            connect_to(&target, &addresses, CONNECT_PATIENCE).await
        }
        Err(error) => Err(error),
    };
    let Connection { mut calls, mut messages, version, .. } = match connected {
        Ok(connection) => connection,
        Err(error) => {
            let _ = tell.send(LinkNews::Failed(error)).await;
            return;
        }
    };
    if tell.send(LinkNews::Connected(version)).await.is_err() {
        return;
    }
    let lost = loop {
        tokio::select! {
            call = to_send.recv() => {
                let Some(call) = call else { return calls.close().await };
                if let Err(lost) = calls.send(&call).await {
                    break lost;
                }
            }
            message = messages.next() => match message {
                Ok(message) => {
                    if tell.send(LinkNews::Received(Box::new(message))).await.is_err() {
                        return;
                    }
                }
                Err(lost) => break lost,
            },
        }
    };
    let _ = tell.send(LinkNews::Lost(lost.to_string())).await;
}
