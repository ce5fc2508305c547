//! Serves HTTP to a bounded number of connections, each for a bounded time.
//!
//! Each connection carries a single request. The callers are a short-lived program and a scraper that comes every few
//! seconds, and a connection that is not kept alive cannot be held open. An answer that is a stream takes a [`Lease`].

use std::any::Any;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

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
        let lease = Lease::new((slot, guest));
        let routes = routes.layer(Extension(lease.clone()));
        // A caller that hangs up, stalls or does not speak HTTP affects nobody else.
        tokio::spawn(async move { lease.hold(serve_one(stream, routes)).await });
    }
}

/// What a connection occupies, and how long it may last. The handler of a stream changes both.
#[derive(Clone)]
pub(crate) struct Lease {
    /// Its place among the connections that are served at once.
    place: Arc<Mutex<Option<Box<dyn Any + Send>>>>,
    until: watch::Sender<Option<Instant>>,
}

impl Lease {
    fn new(place: impl Send + 'static) -> Self {
        let until = Some(Instant::now() + CONNECTION_PATIENCE);
        Self { place: Arc::new(Mutex::new(Some(Box::new(place)))), until: watch::Sender::new(until) }
    }

    /// Lets the connection last, and gives its place to others. The caller must bound such connections itself.
    pub(crate) fn prolong(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.until.send_replace(None);
    }

    /// Ends the connection after this time at the latest.
    pub(crate) fn end_within(&self, time: Duration) {
        self.until.send_replace(Some(Instant::now() + time));
    }

    /// Serves the connection for as long as it may last.
    async fn hold<T>(&self, connection: impl Future<Output = T>) {
        let mut connection = pin!(connection);
        let mut until = self.until.subscribe();
        loop {
            let at = *until.borrow_and_update();
            let end = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut connection => return,
                () = end => return,
                _ = until.changed() => {}
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_lasts_two_minutes_unless_its_handler_says_otherwise() {
        let began = Instant::now();
        Lease::new(()).hold(std::future::pending::<()>()).await;
        assert_eq!(began.elapsed(), CONNECTION_PATIENCE);

        let lease = Lease::new(());
        lease.prolong();
        let held = tokio::time::timeout(10 * CONNECTION_PATIENCE, lease.hold(std::future::pending::<()>()));
        assert!(held.await.is_err());

        let (lease, began) = (Lease::new(()), Instant::now());
        lease.prolong();
        let handler = async {
            tokio::time::sleep(10 * CONNECTION_PATIENCE).await;
            lease.end_within(Duration::from_secs(3));
        };
        tokio::join!(lease.hold(std::future::pending::<()>()), handler);
        assert_eq!(began.elapsed(), 10 * CONNECTION_PATIENCE + Duration::from_secs(3));
    }
}
