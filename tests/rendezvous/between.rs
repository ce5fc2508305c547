//! A proxy that opens TLS with a certificate of its own, as companies and sandboxes have: it can carry, and nothing else.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use overlay_rendezvous::channel::Broken;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::refused::websocket;

/// Which end gets a message that the other one did not send, and after how many that it did.
#[derive(Clone, Copy)]
enum Injected {
    Nowhere,
    ToServer { after: usize },
    ToAgent { after: usize },
}

/// Starts a proxy before a server, and returns what an agent connects to.
async fn proxy(server: &Running, injected: Injected) -> Target {
    let read = |name| std::fs::read(server.state_file(name)).expect("the server's certificate");
    // Which certificate it shows does not matter. This one is at hand.
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(&read("certificate.pem"))
        .collect::<Result<_, _>>()
        .expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(&read("certificate.key")).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a config");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let mut target = server.target();
    target.rendezvous.port = listener.local_addr().expect("bound").port();
    let (to, roots) = (server.address(), server.state_file("certificate.pem"));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("the agent");
        let agent = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.expect("TLS");
        let agent = tokio_tungstenite::accept_async(agent).await.expect("a WebSocket");
        let server = websocket(TcpStream::connect(to).await.expect("the server"), &roots, "/v1/control").await;
        let ((mut to_agent, mut from_agent), (mut to_server, mut from_server)) =
            (agent.split(), server.expect("a WebSocket").split());
        let (mut of_agent, mut of_server) = (0, 0);
        loop {
            tokio::select! {
                message = from_agent.next() => {
                    let Some(Ok(message)) = message else { break };
                    if to_server.send(message).await.is_err() { break }
                    of_agent += 1;
                    if matches!(injected, Injected::ToServer { after } if after == of_agent) {
                        let _ = to_server.send(Message::binary(vec![0])).await;
                    }
                }
                message = from_server.next() => {
                    let Some(Ok(message)) = message else { break };
                    if to_agent.send(message).await.is_err() { break }
                    of_server += 1;
                    if matches!(injected, Injected::ToAgent { after } if after == of_server) {
                        let _ = to_agent.send(Message::binary(vec![0])).await;
                    }
                }
            }
        }
    });
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_opens_tls_can_carry_a_connection() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&proxy(&server, Injected::Nowhere).await).await.expect("a connection");
    let reply = answer_to(&mut agent, 1, Verb::Hello).await;
    assert!(matches!(reply, Reply::Welcome { .. }), "{reply:?}");
}

/// The agent's first two messages are those of the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_injected_towards_the_server_ends_the_connection() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&proxy(&server, Injected::ToServer { after: 3 }).await).await.expect("a connection");
    agent.calls.send(&Call { id: 1, verb: Verb::Ping }).await.expect("sent");
    server.counts(End::Channel(Broken::NotAuthentic), 1).await;
    let last = loop {
        if let Err(lost) = agent.messages.next().await {
            break lost;
        }
    };
    assert!(matches!(last, Lost::Closed(_)), "{last}");
}

/// The server's first three messages are those of the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_injected_towards_the_agent_ends_the_connection() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&proxy(&server, Injected::ToAgent { after: 3 }).await).await.expect("a connection");
    assert_eq!(agent.messages.next().await, Err(Lost::Broken(Broken::NotAuthentic)));
    assert_eq!(agent.messages.next().await, Err(Lost::Broken(Broken::NotAuthentic)), "nothing is believed after it");
}
