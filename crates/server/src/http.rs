//! `GET /metrics` and `GET /health`, on a listener of their own.
//!
//! Everybody who reaches the listener may read: it belongs on loopback or on an address of a management network. Each
//! connection carries one request, and both their number and their time are bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::listening::accept;
use crate::metrics::CONTENT_TYPE;

/// Requests served at once.
const MAX_CONNECTIONS: usize = 8;
/// How long a caller may take to send the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
/// The largest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Serves until the future is dropped. `text`: what a scraper gets.
pub(crate) async fn serve(listener: TcpListener, text: impl Fn() -> String + Clone + Send + Sync + 'static) {
    let scrape = move || {
        let text = text();
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    // That this task answers shows that the runtime is alive.
    let routes = Router::new().route("/metrics", get(scrape)).route("/health", get(async || "ok\n"));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, _) = accept(|context| listener.poll_accept(context)).await;
        let routes = routes.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(MAX_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            // A caller that hangs up, stalls or does not speak HTTP affects nobody else.
            let _ = tokio::time::timeout(CONNECTION_PATIENCE, connection).await;
        });
    }
}
