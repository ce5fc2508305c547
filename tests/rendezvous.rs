//! Agents and a rendezvous over loopback: the server, the client's connector, and what stands between them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs servers and connects to them")]

#[path = "rendezvous/between.rs"]
mod between;
#[path = "rendezvous/names.rs"]
mod names;
#[path = "rendezvous/program.rs"]
mod program;
#[path = "rendezvous/refused.rs"]
mod refused;
#[path = "rendezvous/relaying.rs"]
mod relaying;
#[path = "rendezvous/running.rs"]
mod running;

use std::time::{Duration, Instant};

use overlay_daemon::agent::connection::{ConnectError, Connection, Lost, Target, connect};
use overlay_rendezvous::channel::Refusal;
use overlay_rendezvous::protocol::{Call, Code, FromServer, Push, Reply, VERSION, Verb};
use overlay_server::{End, Limits};
use overlay_wire::signed::{Abilities, Network, Record, Signed, TunnelKey, Visibility};

use running::{Running, answer_to, key, limits};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_hello_is_welcome() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&server.target()).await.expect("a connection");
    assert_eq!((agent.peer.rendezvous, agent.version), (server.setup.rendezvous, VERSION));
    let reply = answer_to(&mut agent, 7, Verb::Hello).await;
    let Reply::Welcome { network, record, seen_from, .. } = reply else { panic!("not a welcome: {reply:?}") };
    let network = Signed::<Network>::open(&network).expect("a signed network object");
    assert_eq!(network.network, server.setup.url.network);
    assert_eq!((network.name.as_str(), network.rendezvous[0].url.clone()), ("lab", server.setup.url.url()));
    assert_eq!((record, &seen_from[..]), (None, &[127, 0, 0, 1][..]));
    let reply = answer_to(&mut agent, 8, Verb::Ping).await;
    assert!(matches!(reply, Reply::Revision { time, .. } if time > 1_700_000_000_000), "{reply:?}");
    agent.calls.close().await;
    server.counts(End::Closed, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_the_url_is_named_within_two_seconds() {
    let server = Running::start(Limits::default()).await;
    let began = Instant::now();
    let mut target = server.target();
    target.rendezvous.rendezvous = key(9).public();
    let error = connect(&target).await.expect_err("a different key");
    assert!(
        matches!(error, ConnectError::WrongRendezvous { offered } if offered == Some(server.setup.rendezvous)),
        "{error}"
    );
    let mut target = server.target();
    target.rendezvous.network = key(9).public();
    let error = connect(&target).await.expect_err("a different network");
    assert!(matches!(error, ConnectError::BadAuth(Refusal::WrongNetwork)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_checked_only_where_there_are_roots() {
    let server = Running::start(Limits::default()).await;
    let roots = server.state_file("certificate.pem");
    let target = Target { ca_file: Some(roots), ..server.target() };
    connect(&target).await.expect("its own certificate is the root");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_told_to_reconnect_when_the_rendezvous_ends() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&server.target()).await.expect("a connection");
    let stats = server.setup.stats.clone();
    server.end().await;
    let message = agent.messages.next().await;
    assert!(matches!(message, Ok(FromServer::Push(Push::Reconnect { wait })) if wait < 30_000), "{message:?}");
    assert!(matches!(agent.messages.next().await, Err(Lost::Closed(_))));
    assert_eq!(stats.ended(End::Shutdown), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_survive_a_restart() {
    let mut server = Running::start(Limits::default()).await;
    let first = server.setup.url.clone();
    let target = server.target();
    server = server.restart().await;
    assert_eq!((server.setup.url.rendezvous, server.setup.url.network), (first.rendezvous, first.network));
    let mut moved = target;
    moved.rendezvous.port = server.setup.url.port;
    connect(&moved).await.expect("the same rendezvous");
}

/// A record of this agent, as it would sign it.
fn record(server: &Running, sequence: u64, ipv4: Option<[u8; 4]>) -> Vec<u8> {
    let unix =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let record = Record {
        network: server.setup.url.network,
        identity: key(3).public(),
        sequence,
        issued: unix,
        fresh_until: unix + 3_600_000,
        name: "alice".to_owned(),
        ipv4,
        tunnel_keys: vec![TunnelKey([9; 32])],
        mailbox_x25519: [8; 32],
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    };
    Signed::sign(record, &key(3)).expect("a good record").bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_registers_survives_a_restart() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&server.target()).await.expect("a connection");
    let reply = answer_to(&mut agent, 1, Verb::Register { record: record(&server, 1, None).into() }).await;
    let Reply::Refused { code: Code::Ipv4, ipv4: Some(free), .. } = reply else { panic!("no address: {reply:?}") };
    let ours = record(&server, 2, Some(free));
    let reply = answer_to(&mut agent, 2, Verb::Register { record: ours.clone().into() }).await;
    assert_eq!(reply, Reply::Done);

    let server = server.restart().await;
    let mut agent = connect(&server.target()).await.expect("a connection");
    let reply = answer_to(&mut agent, 1, Verb::Hello).await;
    let Reply::Welcome { record: Some(kept), .. } = reply else { panic!("forgotten: {reply:?}") };
    assert_eq!(&kept[..], ours);
}
