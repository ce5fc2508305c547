//! One connection of an agent: TLS, WebSocket, the channel, and then calls and messages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use overlay_rendezvous::channel::{self, Channel, Handshake, ServerSide};
use overlay_rendezvous::protocol::{decode, encode};
use overlay_rendezvous::registry::Arrival;
use overlay_wire::signed::{PublicKey, SecretKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::desk::{Desk, Forgery};
use super::{now, random};

/// How long an agent that was shown a wrong auth has to say something to it.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) network: PublicKey,
    pub(super) key: Arc<SecretKey>,
    /// The protocol versions that it speaks.
    pub(super) versions: &'static [u16],
    pub(super) desk: Arc<Mutex<Desk>>,
}

impl Server {
    pub(super) async fn run(self, listener: TcpListener) {
        let tls = acceptor();
        while let Ok((tcp, from)) = listener.accept().await {
            let (server, tls) = (self.clone(), tls.clone());
            // A connection that fails concerns only itself.
            tokio::spawn(async move { server.serve(tls, tcp, from).await });
        }
    }

    /// Serves one connection. `None`: it has ended.
    async fn serve(self, tls: TlsAcceptor, tcp: TcpStream, from: SocketAddr) -> Option<()> {
        let _ = tcp.set_nodelay(true);
        let mut socket = accept_async(tls.accept(tcp).await.ok()?).await.ok()?;
        let forgery = self.desk().forgery.clone();
        if let Some(forgery) = forgery {
            return self.deceive(&mut socket, &forgery).await;
        }
        let Channel { peer, mut sealer, mut opener, .. } = self.greet(&mut socket).await?;
        let arrival = Arrival { identity: peer.identity, address: from.ip(), epoch: peer.epoch };
        let (out, mut waiting) = mpsc::unbounded_channel();
        let connection = {
            let mut desk = self.desk();
            desk.auths.push(peer);
            desk.connect(arrival, out)
        };
        loop {
            tokio::select! {
                frame = next_of(&mut socket) => {
                    let call = frame.and_then(|frame| decode(&opener.open(&frame).ok()?).ok());
                    match call {
                        Some(call) => self.desk().call(connection, call),
                        None => break,
                    }
                }
                message = waiting.recv() => {
                    let Some(sealed) = message.and_then(|message| sealer.seal(&encode(&message)).ok()) else { break };
                    if socket.send(Message::binary(sealed)).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.desk().disconnect(connection);
        Some(())
    }

    /// The handshake of an honest rendezvous.
    async fn greet(&self, socket: &mut Socket) -> Option<Channel> {
        let side =
            ServerSide { network: self.network, key: Arc::clone(&self.key), now: now().unix, versions: self.versions };
        let mut server = channel::Server::begin(side, &random()).ok()?;
        loop {
            let step = server.handle(&next_of(socket).await?).ok()?;
            for message in step.send {
                socket.send(Message::binary(message)).await.ok()?;
            }
            if let Some(channel) = step.channel {
                return Some(channel);
            }
        }
    }

    /// Shows the agent a wrong auth, and counts what it says after that.
    async fn deceive(&self, socket: &mut Socket, forgery: &Forgery) -> Option<()> {
        let mut noise = Handshake::responder(&random()).ok()?;
        noise.read(&next_of(socket).await?).ok()?;
        socket.send(Message::binary(noise.write().ok()?)).await.ok()?;
        let (mut sealer, _, hash) = noise.finish().ok()?;
        socket.send(Message::binary(sealer.seal(&forgery(hash)).ok()?)).await.ok()?;
        self.desk().deceived.0 += 1;
        while let Ok(Some(_)) = tokio::time::timeout(LAST_WORDS, next_of(socket)).await {
            self.desk().deceived.1 += 1;
        }
        Some(())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no filter panics")
    }
}

/// The next binary message. `None`: the connection has ended.
async fn next_of(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(message) => return Some(message.into()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            Message::Text(_) | Message::Close(_) => return None,
        }
    }
}

/// A certificate of our own, as most rendezvous have. Agents pin keys.
fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a config");
    TlsAcceptor::from(Arc::new(config))
}
