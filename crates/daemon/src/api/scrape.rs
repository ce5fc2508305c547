//! The metrics over TCP, for a scraper: `GET /metrics` and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::serving::connection;
use crate::view::metrics::{CONTENT_TYPE, text};
use crate::view::{StatusWarning, View};

/// Under which the view keeps what is wrong here.
const TOPIC: &str = "metrics";

/// After the first try to listen that failed; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between two tries to listen.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Scrapes served at once.
const MAX_CONNECTIONS: usize = 8;

/// Listens at `address` as soon as that is possible, and serves. Metrics are no reason not to carry packets: until then a
/// warning stands in `status`, and it is tried again.
pub async fn serve_when_possible(address: SocketAddr, view: Arc<View>) -> anyhow::Result<()> {
    let mut wait = FIRST_RETRY;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let message = format!("cannot listen for metrics on {address}: {error}; overlay keeps trying");
                let hint = "set a different `listen` under [metrics], or stop the program that listens there";
                view.set_warnings(TOPIC, vec![StatusWarning::new("metrics", message, hint)]);
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    };
    view.set_warnings(TOPIC, Vec::new());
    serve_tcp(listener, view).await
}

/// Serves `GET /metrics` until the future is dropped. Everybody who reaches the listener may read: it belongs on loopback or
/// on an address of a management network.
///
/// # Errors
///
/// None at present: a connection that fails concerns only itself, and accepting is tried again.
pub async fn serve_tcp(listener: TcpListener, view: Arc<View>) -> anyhow::Result<()> {
    let scrape = move || {
        let text = text(&view);
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    let routes = Router::new().route("/metrics", get(scrape));
    connection::serve(listener, MAX_CONNECTIONS, |_| routes.clone()).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::view::tests::{bob, view};

    #[tokio::test]
    async fn it_is_served_over_tcp_with_its_media_type_and_nothing_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(serve_tcp(listener, view([bob()])));
        for (request, status, holds) in [
            ("GET /metrics", "HTTP/1.1 200 OK", "\noverlay_peers 1\n"),
            ("GET /v1/status", "HTTP/1.1 404 Not Found", ""),
            ("POST /metrics", "HTTP/1.1 405 Method Not Allowed", ""),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("a request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer and its end");
            assert!(answer.starts_with(status) && answer.contains(holds), "{answer}");
            if holds.is_empty() {
                continue;
            }
            assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{answer}");
        }
        server.abort();
    }
}
