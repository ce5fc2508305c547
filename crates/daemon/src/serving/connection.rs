//! Serves HTTP to a bounded number of connections, each for a bounded time.
//!
//! Each connection carries a single request. The callers are a short-lived program and a scraper that comes every few
//! seconds, and a connection that is not kept alive cannot be held open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// How long a caller may take to send the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may last, including a slow reload.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(120);

/// The largest request head in bytes. Requests have no bodies.
const MAX_HEAD: usize = 16 * 1024;

/// A source of connections.
pub(crate) trait Listener {
    /// The type of a connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection.
    async fn accept_stream(&self) -> io::Result<Self::Stream>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept_stream(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept_stream(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves until the future is dropped. There are at most `limit` connections at once, each with the routes that
/// `routes_for` returns for it.
pub(crate) async fn serve<L: Listener>(
    listener: L,
    limit: usize,
    routes_for: impl Fn(&L::Stream) -> Router,
) -> anyhow::Result<()> {
    serve_admitted(listener, limit, |stream| Some((routes_for(stream), ()))).await
}

/// Like [`serve`], but `admit` may turn a connection away, which closes it. Its second result is kept for as long as
/// the connection lasts.
pub(crate) async fn serve_admitted<L: Listener, G: Send + 'static>(
    listener: L,
    limit: usize,
    admit: impl Fn(&L::Stream) -> Option<(Router, G)>,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(limit));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let stream = accept(&listener).await;
        let Some((routes, guest)) = admit(&stream) else { continue };
        tokio::spawn(async move {
            let (_slot, _guest) = (slot, guest);
            // A caller that hangs up, stalls or does not speak HTTP affects nobody else.
            let _ = tokio::time::timeout(CONNECTION_PATIENCE, serve_one(stream, routes)).await;
        });
    }
}

/// Accepts a connection. Accepting fails while file descriptors are exhausted, so it is retried.
pub(crate) async fn accept<L: Listener>(listener: &L) -> L::Stream {
    loop {
        match listener.accept_stream().await {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

async fn serve_one<S>(stream: S, routes: Router) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await
}
