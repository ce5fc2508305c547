//! A connection to a rendezvous: TCP, TLS, a WebSocket and the channel, all within one deadline.
//!
//! The URL pins the key of the rendezvous, and the channel proves it. So the chain of the TLS certificate is not believed and
//! need not be: a self-signed one, and one of a proxy that reads TLS, work as well as any other. The proxy can read and
//! change nothing, because the channel is sealed inside. A TLS handshake must still be signed by the certificate that it
//! shows (`tls`).

mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use overlay_rendezvous::channel::{
    Broken, Channel, Client, ClientSide, MAX_FRAME_LEN, Opener, Pinned, Refusal, Sealer,
};
use overlay_rendezvous::protocol::{Call, FromServer, decode, encode};
use overlay_wire::signed::{Auth, PublicKey, SecretKey, Signed};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use zeroize::Zeroizing;

/// How long connecting may take in all.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The path of the WebSocket for control messages.
const PATH: &str = "/v1/control";
/// The buffers of the WebSocket in bytes.
const BUFFER: usize = 16 * 1024;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The rendezvous, and the keys that it must prove to have.
    pub rendezvous: Pinned,
    /// Our own key.
    pub identity: Arc<SecretKey>,
    /// The value that the last connection handed out. 0: none.
    pub epoch: u64,
    /// Roots, as a PEM file, of which the TLS certificate must have one. `None`: any certificate will do.
    pub ca_file: Option<PathBuf>,
}

/// An established connection.
#[derive(Debug)]
pub struct Connection {
    /// What the rendezvous says of itself. It tells the time there, too.
    pub peer: Signed<Auth>,
    /// The version of the protocol that both ends speak.
    pub version: u16,
    /// Takes what we ask.
    pub calls: Calls,
    /// Gives what the rendezvous sends.
    pub messages: Messages,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The name has no address, or nobody answers there.
    Unreachable(io::Error),
    /// What answers is not a rendezvous.
    NotARendezvous(String),
    /// Something accepts the connection and does not speak for this long.
    Silent(Duration),
    /// It is a rendezvous, but not the pinned one.
    WrongRendezvous {
        /// The key that it has.
        offered: Option<PublicKey>,
    },
    /// Somebody between us forwards the auth of the rendezvous, or it contradicts what is pinned in a different way.
    BadAuth(Refusal),
    /// The rendezvous refuses our auth.
    Denied(Option<Refusal>),
    /// Something on this machine is missing, such as the file with the roots.
    Local(String),
}

impl ConnectError {
    /// The reason as one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NotARendezvous(_) => "not_a_rendezvous",
            Self::Silent(_) => "silent",
            Self::WrongRendezvous { .. } => Refusal::WrongRendezvous.code(),
            Self::BadAuth(refusal) => refusal.code(),
            Self::Denied(_) => "denied",
            Self::Local(_) => "local",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "the rendezvous cannot be reached: {error}"),
            Self::NotARendezvous(cause) => write!(f, "what answers is not a rendezvous: {cause}"),
            Self::Silent(patience) => {
                write!(f, "something accepts the connection, but does not speak within {} s", patience.as_secs())
            }
            Self::WrongRendezvous { offered: Some(offered) } => {
                write!(f, "the rendezvous has a different key than the URL says: it has {offered}")
            }
            Self::WrongRendezvous { offered: None } => {
                f.write_str("the rendezvous has a different key than the URL says")
            }
            Self::BadAuth(Refusal::Relayed) => {
                f.write_str("somebody between us and the rendezvous opens the connection")
            }
            Self::BadAuth(Refusal::WrongNetwork) => {
                f.write_str("the rendezvous serves a different network than the URL says")
            }
            Self::BadAuth(Refusal::UnknownVersion) => {
                f.write_str("the rendezvous speaks no version of the protocol that we speak")
            }
            Self::BadAuth(refusal) => write!(f, "what the rendezvous says of itself is refused: {}", refusal.code()),
            Self::Denied(Some(refusal)) => write!(f, "the rendezvous refuses us: {}", refusal.code()),
            Self::Denied(None) => f.write_str("the rendezvous refuses us"),
            Self::Local(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why an established connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The rendezvous has closed it, or the network has.
    Closed(String),
    /// A message could not be opened: it was changed, injected, or lost.
    Broken(Broken),
    /// The rendezvous sent what is not a message of this protocol.
    Malformed,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(cause) => write!(f, "the connection has ended: {cause}"),
            Self::Broken(broken) => write!(f, "a message cannot be opened: {broken}"),
            Self::Malformed => f.write_str("the rendezvous sent what is not a message"),
        }
    }
}

impl std::error::Error for Lost {}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// How a connection ended, for people.
fn shown_end(error: &Error) -> String {
    match error {
        // What TLS says of it is a text for programmers.
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the rendezvous closed it without a goodbye".to_owned()
        }
        error => error.to_string(),
    }
}

/// Connects within [`CONNECT_PATIENCE`].
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(target: &Target) -> Result<Connection, ConnectError> {
    let addresses = look_up(&target.rendezvous, CONNECT_PATIENCE).await?;
    connect_to(target, &addresses, CONNECT_PATIENCE).await
}

/// The addresses of the rendezvous' host, those of one kind in random order: each may be a process of its own, and all of them are
/// to have their share of the agents.
pub(crate) async fn look_up(rendezvous: &Pinned, patience: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = tokio::net::lookup_host((rendezvous.host.as_str(), rendezvous.port));
    let found = timeout_at(Instant::now() + patience, found).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(ConnectError::Unreachable)?;
    let mut keyed = Vec::new();
    for address in found {
        let mut key = [0; 8];
        overlay_os::random::fill(&mut key)
            .map_err(|error| ConnectError::Local(format!("the kernel gives no randomness: {error}")))?;
        keyed.push((key, address));
    }
    let kinds = keyed.chunk_by_mut(|(_, one), (_, other)| one.is_ipv4() == other.is_ipv4());
    kinds.for_each(|kind| kind.sort_unstable());
    Ok(keyed.into_iter().map(|(_, address)| address).collect())
}

/// Connects to one of these addresses.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_to(
    target: &Target,
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + patience;
    let tls = tls::connector(target.ca_file.as_deref())?;
    let tcp = timeout_at(deadline, connect_tcp(addresses, deadline)).await;
    let tcp = tcp.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(ConnectError::Unreachable)?;
    let greeted = timeout_at(deadline, async {
        let name = tls::name_of(&target.rendezvous.host)?;
        let stream = tls.connect(name, tcp).await.map_err(|error| not_a_rendezvous("TLS", &error))?;
        let mut socket = open_websocket(&target.rendezvous, stream).await?;
        let channel = shake_hands(&mut socket, target).await?;
        Ok((socket, channel))
    });
    let (socket, channel) = greeted.await.unwrap_or(Err(ConnectError::Silent(patience)))?;
    let (sink, stream) = socket.split();
    Ok(Connection {
        peer: channel.peer,
        version: channel.version,
        calls: Calls { sink, sealer: channel.sealer },
        messages: Messages { stream, opener: channel.opener, lost: None },
    })
}

/// Tries the addresses of the host one after the other, each for its share of the time that is left.
async fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - tried) as u32;
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A small message must not wait for the acknowledgement of the one before it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn open_websocket(rendezvous: &Pinned, stream: TlsStream<TcpStream>) -> Result<Socket, ConnectError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * BUFFER)
        .max_message_size(Some(MAX_FRAME_LEN))
        .max_frame_size(Some(MAX_FRAME_LEN));
    let url = format!("{}{PATH}", rendezvous.url().replacen("https", "wss", 1));
    let opened = client_async_with_config(url, stream, Some(config)).await;
    opened.map(|(socket, _)| socket).map_err(|error| not_a_rendezvous("WebSocket", &error))
}

async fn shake_hands(socket: &mut Socket, target: &Target) -> Result<Channel, ConnectError> {
    let mut random = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *random)
        .map_err(|error| ConnectError::Local(format!("the kernel gives no randomness: {error}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let side = ClientSide {
        network: target.rendezvous.network,
        rendezvous: target.rendezvous.rendezvous,
        identity: target.identity.clone(),
        epoch: target.epoch,
        now: now.as_millis().try_into().unwrap_or(u64::MAX),
    };
    let broken = |broken: Broken| not_a_rendezvous("channel", &broken);
    let (mut client, first) = Client::begin(side, &random).map_err(broken)?;
    let mut send = vec![first];
    loop {
        for message in send {
            socket.send(Message::binary(message)).await.map_err(|error| not_a_rendezvous("channel", &error))?;
        }
        let message = next_message(socket).await.map_err(|cause| not_a_rendezvous("channel", &cause))?;
        let step = client.handle(&message).map_err(|failed| match failed.reason {
            Broken::Auth(Refusal::WrongRendezvous) => ConnectError::WrongRendezvous { offered: failed.offered },
            Broken::Auth(refusal) => ConnectError::BadAuth(refusal),
            Broken::Denied(refusal) => ConnectError::Denied(refusal),
            reason => broken(reason),
        })?;
        if let Some(channel) = step.channel {
            return Ok(channel);
        }
        send = step.send;
    }
}

fn not_a_rendezvous(stage: &str, cause: &dyn fmt::Display) -> ConnectError {
    ConnectError::NotARendezvous(format!("{stage}: {cause}"))
}

/// Takes what we ask.
#[derive(Debug)]
pub struct Calls {
    sink: SplitSink<Socket, Message>,
    sealer: Sealer,
}

impl Calls {
    /// Sends a call. Its answer comes through [`Messages`]. After an error, or if this is cancelled, the connection is over.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn send(&mut self, call: &Call) -> Result<(), Lost> {
        let sealed = self.sealer.seal(&encode(call)).map_err(Lost::Broken)?;
        self.sink.send(Message::binary(sealed)).await.map_err(|error| Lost::Closed(shown_end(&error)))
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = self.sink.close().await;
    }
}

/// Gives what the rendezvous sends.
#[derive(Debug)]
pub struct Messages {
    stream: SplitStream<Socket>,
    opener: Opener,
    lost: Option<Lost>,
}

impl Messages {
    /// Waits for the next message. Can be cancelled.
    ///
    /// # Errors
    /// See [`Lost`]. After the first error the connection is over, and the error is repeated.
    pub async fn next(&mut self) -> Result<FromServer, Lost> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let message = self.receive().await;
        self.lost = message.as_ref().err().cloned();
        message
    }

    async fn receive(&mut self) -> Result<FromServer, Lost> {
        let sealed = next_message(&mut self.stream).await.map_err(Lost::Closed)?;
        let message = self.opener.open(&sealed).map_err(Lost::Broken)?;
        decode(&message).map_err(|_| Lost::Malformed)
    }
}

/// Waits for the next binary message. Can be cancelled.
async fn next_message(
    stream: &mut (impl futures_util::Stream<Item = Result<Message, Error>> + Unpin),
) -> Result<Vec<u8>, String> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(message))) => return Ok(message.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Text(_))) => return Err("it sends text".to_owned()),
            Some(Ok(Message::Close(_))) | None => return Err("it closes the connection".to_owned()),
            Some(Err(error)) => return Err(shown_end(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
