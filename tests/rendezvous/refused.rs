//! What does not behave as an agent does is cut off, and counted under its name.

use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use overlay_rendezvous::channel::{Broken, Client, ClientSide};
use overlay_rendezvous::protocol::Find;
use overlay_wire::signed::{Service, Transport};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn tcp(server: &Running) -> TcpStream {
    TcpStream::connect(server.address()).await.expect("a connection")
}

async fn tls(tcp: TcpStream, roots: &Path) -> TlsStream<TcpStream> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_file(roots).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS")
}

/// Opens a WebSocket without a channel.
pub(crate) async fn websocket(stream: TcpStream, roots: &Path, path: &str) -> Result<Socket, Error> {
    let stream = tls(stream, roots).await;
    tokio_tungstenite::client_async(format!("wss://127.0.0.1{path}"), stream).await.map(|(socket, _)| socket)
}

async fn socket(server: &Running) -> Socket {
    let roots = server.state_file("certificate.pem");
    websocket(tcp(server).await, &roots, "/v1/control").await.expect("a WebSocket")
}

/// Waits for the end of a connection, whatever comes before it.
async fn ended(mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_or_not_a_websocket_is_cut_off() {
    let server = Running::start(Limits::default()).await;
    let roots = server.state_file("certificate.pem");
    let mut plain = tcp(&server).await;
    plain.write_all(b"GET /v1/control HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    server.counts(End::Tls, 1).await;
    let _ = plain.read_to_end(&mut Vec::new()).await;

    let mut stream = tls(tcp(&server).await, &roots).await;
    stream.write_all(b"what a rendezvous does not speak\r\n\r\n").await.expect("sent");
    server.counts(End::WebSocket, 1).await;

    let error = websocket(tcp(&server).await, &roots, "/other").await.expect_err("a different path");
    assert!(error.to_string().contains("404"), "{error}");
    server.counts(End::WebSocket, 2).await;

    let mut text = socket(&server).await;
    text.send(Message::text("hello")).await.expect("sent");
    server.counts(End::WebSocket, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_the_handshake_is_cut_off() {
    let server = Running::start(Limits::default()).await;
    let mut garbage = socket(&server).await;
    garbage.send(Message::binary(vec![7; 100])).await.expect("sent");
    server.counts(End::Channel(Broken::Malformed), 1).await;
    ended(garbage).await;

    let mut long = socket(&server).await;
    let _ = long.send(Message::binary(vec![7; 20_000])).await;
    server.counts(End::WebSocket, 1).await;

    // A Noise message looks like any 32 bytes. What is sealed does not.
    let mut sealed = socket(&server).await;
    sealed.send(Message::binary(vec![7; 32])).await.expect("sent");
    sealed.send(Message::binary(vec![7; 300])).await.expect("sent");
    server.counts(End::Channel(Broken::NotAuthentic), 1).await;
    ended(sealed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_wherever_they_stop() {
    let server = Running::start(limits()).await;
    let roots = server.state_file("certificate.pem");
    let silent = tcp(&server).await;
    let mut half = tls(tcp(&server).await, &roots).await;
    half.write_all(b"GET /v1/control HTTP/1.1\r\n").await.expect("sent");
    let upgraded = socket(&server).await;
    server.counts(End::HandshakeDeadline, 3).await;
    drop((silent, half, upgraded));

    let agent = connect(&server.target()).await.expect("a connection");
    server.counts(End::Idle, 1).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_of_the_websocket_do_not_keep_a_silent_agent() {
    let server = Running::start(limits()).await;
    let (mut socket, _) = shaken(&server).await;
    loop {
        if socket.send(Message::Ping(Vec::new().into())).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.counts(End::Idle, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_a_call_ends_the_connection() {
    let server = Running::start(Limits::default()).await;
    let (mut socket, mut channel) = shaken(&server).await;
    socket.send(Message::binary(channel.seal(b"not a call").expect("sealed"))).await.expect("sent");
    server.counts(End::MalformedCall, 1).await;
    ended(socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_sealed_for_a_different_connection_is_cut_off() {
    let server = Running::start(Limits::default()).await;
    let (mut socket, mut client) = begun(&server, key(3)).await;
    let (mut other, mut other_client) = begun(&server, key(3)).await;
    let (auth, _) = (answer(&mut socket, &mut client).await, answer(&mut other, &mut other_client).await);
    other.send(Message::binary(auth)).await.expect("sent");
    server.counts(End::Channel(Broken::NotAuthentic), 1).await;
}

/// It calls as often as it may, and no more: otherwise it is not read either. So it asks for the longest answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_is_cut_off() {
    let server = Running::start(Limits { out_queue: 64 * 1024, ..Limits::default() }).await;
    for agent in 10..14 {
        register_long(&server, agent).await;
    }
    let mut agent = connect(&server.target()).await.expect("a connection");
    let began = Instant::now();
    for id in 0.. {
        if agent.calls.send(&Call { id, verb: Verb::Find { by: Find::All, after: None } }).await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it is never cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.counts(End::OutQueueFull, 1).await;
}

/// Registers a record that is nearly as long as one may be, and that everybody finds.
async fn register_long(server: &Running, byte: u8) {
    let target = Target { identity: Arc::new(key(byte)), ..server.target() };
    let mut agent = connect(&target).await.expect("a connection");
    let service = |port| Service { name: format!("s{port}"), transport: Transport::Tcp, port, text: "x".repeat(64) };
    let short = Signed::<Record>::open(&record(server, 1, None)).expect("a good record").into_value();
    let long = Record {
        identity: key(byte).public(),
        name: format!("long{byte}"),
        services: (1..=16).map(service).collect(),
        visibility: Visibility::Public,
        ..short
    };
    let verb = |record: Record| {
        let signed = Signed::sign(record, &key(byte)).expect("a good record");
        Verb::Register { record: signed.bytes().to_vec().into() }
    };
    let reply = answer_to(&mut agent, 1, verb(long.clone())).await;
    let Reply::Refused { ipv4, .. } = reply else { panic!("no address: {reply:?}") };
    assert_eq!(answer_to(&mut agent, 2, verb(Record { ipv4, sequence: 2, ..long })).await, Reply::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_no_more_connections_than_its_share() {
    let server = Running::start(Limits { connections_per_address: 2, ..Limits::default() }).await;
    let agent = |byte| Target { identity: Arc::new(key(byte)), ..server.target() };
    let first = connect(&agent(30)).await.expect("the first");
    let _second = connect(&agent(31)).await.expect("the second");
    let error = connect(&agent(32)).await.expect_err("one too many");
    // It is reset, before or after the agent has begun with TLS.
    assert!(matches!(error.code(), "not_a_rendezvous" | "unreachable"), "{error}");
    assert_eq!(server.setup.stats.refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    drop(first);
    server.counts(End::Closed, 1).await;
    connect(&agent(33)).await.expect("there is room again");
}

/// A WebSocket on which the client's first message was sent.
async fn begun(server: &Running, identity: overlay_wire::signed::SecretKey) -> (Socket, Client) {
    let mut socket = socket(server).await;
    let url = &server.setup.url;
    let side =
        ClientSide { network: url.network, rendezvous: url.rendezvous, identity: Arc::new(identity), epoch: 0, now: 0 };
    let mut random = [0; 32];
    overlay_os::random::fill(&mut random).expect("randomness");
    let (client, first) = Client::begin(side, &random).expect("a handshake");
    socket.send(Message::binary(first)).await.expect("sent");
    (socket, client)
}

/// What the client says to the server's two messages.
async fn answer(socket: &mut Socket, client: &mut Client) -> Vec<u8> {
    loop {
        let Some(Ok(Message::Binary(message))) = socket.next().await else { panic!("no message") };
        let step = client.handle(&message).expect("an honest server");
        if let Some(auth) = step.send.into_iter().next() {
            return auth;
        }
    }
}

/// A WebSocket and an established channel.
async fn shaken(server: &Running) -> (Socket, overlay_rendezvous::channel::Channel) {
    let (mut socket, mut client) = begun(server, key(3)).await;
    let auth = answer(&mut socket, &mut client).await;
    socket.send(Message::binary(auth)).await.expect("sent");
    let Some(Ok(Message::Binary(verdict))) = socket.next().await else { panic!("no verdict") };
    let channel = client.handle(&verdict).expect("welcome").channel.expect("a channel");
    (socket, channel)
}
