//! One connection of an agent, from its first byte to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use overlay_rendezvous::channel::{Channel, MAX_FRAME_LEN, Opener, Sealer, Server, ServerSide, VERSIONS};
use overlay_rendezvous::protocol::{Call, decode};
use overlay_rendezvous::registry::{Arrival, ConnectionId};
use overlay_wire::signed::{PublicKey, SecretKey};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use zeroize::Zeroizing;

use crate::PATH;
use crate::clock::now;
use crate::desk::Report;
use crate::end::End;
use crate::limits::Limits;
use crate::metrics::Stats;
use crate::outbox::Outbox;

/// The buffers of a WebSocket in bytes. They are kept for as long as the connection, and most of the time they are empty.
const BUFFER: usize = 4 * 1024;
/// How long an agent is not read that has called too often. What it sends meanwhile fills its own buffers, and then it waits.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the end of a connection may take to be sent.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// What all connections have in common.
pub(crate) struct Shared {
    pub(crate) tls: TlsAcceptor,
    pub(crate) network: PublicKey,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) limits: Limits,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reports: mpsc::Sender<Report>,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Serves a connection to its end, and counts the reason.
pub(crate) async fn serve(tcp: TcpStream, address: IpAddr, id: ConnectionId, shared: Arc<Shared>) {
    let end = match timeout(shared.limits.handshake, greet(tcp, &shared)).await {
        Err(_) => End::HandshakeDeadline,
        Ok(Err(end)) => end,
        Ok(Ok((socket, channel))) => {
            shared.stats.established.fetch_add(1, Relaxed);
            let arrival = Arrival { identity: channel.peer.identity, address, epoch: channel.peer.epoch };
            let outbox = Outbox::new(shared.limits.out_queue);
            if shared.reports.send(Report::Connected(id, arrival, outbox.clone())).await.is_err() {
                return shared.stats.count_end(End::Shutdown);
            }
            let end = converse(socket, channel, id, &outbox, &shared).await;
            // If the registry is gone, nobody needs to know.
            let _ = shared.reports.send(Report::Disconnected(id)).await;
            end
        }
    };
    shared.stats.count_end(end);
    tracing::debug!(connection = id.0, reason = end.code(), "a connection has ended");
}

/// TLS, WebSocket and the handshake of the channel.
async fn greet(tcp: TcpStream, shared: &Shared) -> Result<(Socket, Channel), End> {
    // A small message must not wait for the acknowledgement of the one before it.
    let _ = tcp.set_nodelay(true);
    let tls = shared.tls.accept(tcp).await.map_err(|_| End::Tls)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * MAX_FRAME_LEN)
        .max_message_size(Some(MAX_FRAME_LEN))
        .max_frame_size(Some(MAX_FRAME_LEN));
    let mut socket = accept_hdr_async_with_config(tls, require_path, Some(config)).await.map_err(|_| End::WebSocket)?;
    let mut random = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *random).map_err(|error| {
        tracing::error!(%error, "the kernel gives no randomness");
        End::Closed
    })?;
    let side = ServerSide { network: shared.network, key: shared.key.clone(), now: now().unix, versions: VERSIONS };
    let mut server = Server::begin(side, &random)?;
    loop {
        let message = next_message(&mut socket).await?;
        match server.handle(&message) {
            Ok(step) => {
                for message in step.send {
                    socket.send(Message::binary(message)).await.map_err(|error| end_of(&error))?;
                }
                if let Some(channel) = step.channel {
                    return Ok((socket, channel));
                }
            }
            Err(failed) => {
                if let Some(farewell) = failed.farewell {
                    let _ = socket.send(Message::binary(farewell)).await;
                    let _ = timeout(FAREWELL_PATIENCE, socket.close(None)).await;
                }
                return Err(failed.reason.into());
            }
        }
    }
}

/// Turns a request for any other path away.
#[allow(clippy::result_large_err, reason = "the library demands this type")]
fn require_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == PATH {
        return Ok(response);
    }
    let mut refused = ErrorResponse::new(None);
    *refused.status_mut() = StatusCode::NOT_FOUND;
    Err(refused)
}

/// Carries calls and messages until one end has enough.
async fn converse(socket: Socket, channel: Channel, id: ConnectionId, outbox: &Outbox, shared: &Shared) -> End {
    let (mut sink, mut stream) = socket.split();
    let (mut sealer, mut opener) = (channel.sealer, channel.opener);
    let end = tokio::select! {
        end = read(&mut stream, &mut opener, id, outbox, shared) => end,
        end = write(&mut sink, &mut sealer, outbox, shared) => end,
    };
    let _ = timeout(FAREWELL_PATIENCE, sink.close()).await;
    end
}

/// Reads calls. Only one call of a connection is with the registry at a time, so that its turn comes no earlier because it
/// calls more, and an agent that calls too often is read more slowly.
async fn read(
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    opener: &mut Opener,
    id: ConnectionId,
    outbox: &Outbox,
    shared: &Shared,
) -> End {
    loop {
        // Only what the agent has sealed shows that it is there. A proxy may answer the pings of a WebSocket.
        let idle_at = Instant::now() + shared.limits.idle;
        let message = match timeout_at(idle_at, next_message(stream)).await {
            Err(_) => return End::Idle,
            Ok(Err(end)) => return end,
            Ok(Ok(message)) => message,
        };
        let opened = match opener.open(&message) {
            Ok(opened) => opened,
            Err(broken) => return broken.into(),
        };
        let Ok(call) = decode::<Call>(&opened) else { return End::MalformedCall };
        shared.stats.calls.fetch_add(1, Relaxed);
        if shared.reports.send(Report::Call(id, call)).await.is_err() {
            // The registry's task has ended, and the queue holds the last message.
            std::future::pending::<()>().await;
        }
        if outbox.taken().await {
            sleep(PAUSE).await;
        }
    }
}

async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    sealer: &mut Sealer,
    outbox: &Outbox,
    shared: &Shared,
) -> End {
    loop {
        let sealed = match outbox.next().await {
            Ok(message) => sealer.seal(&message),
            Err(end) => return end,
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(broken) => return broken.into(),
        };
        let sent = tokio::select! {
            sent = timeout(shared.limits.idle, sink.send(Message::binary(sealed))) => sent,
            () = outbox.overflowed() => return End::OutQueueFull,
        };
        match sent {
            Err(_) => return End::Idle,
            Ok(Err(error)) => return end_of(&error),
            Ok(Ok(())) => shared.stats.sent.fetch_add(1, Relaxed),
        };
    }
}

/// Waits for the next binary message. Can be cancelled.
async fn next_message(stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) -> Result<Vec<u8>, End> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(message))) => return Ok(message.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Text(_))) => return Err(End::WebSocket),
            Some(Ok(Message::Close(_))) | None => return Err(End::Closed),
            Some(Err(error)) => return Err(end_of(&error)),
        }
    }
}

fn end_of(error: &Error) -> End {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => End::Closed,
        _ => End::WebSocket,
    }
}
