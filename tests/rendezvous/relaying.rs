//! A rendezvous relays for the agents that are registered there.

use std::io::{BufRead as _, BufReader};
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_os::udp::{BindOptions, ReceiveBatch, Transmit, UdpSocket};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{Client, Config, Event};

use super::program::{line_and_end, serve};
use super::*;

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Now { unix: unix.as_millis() as u64, monotonic: overlay_os::clock::boottime() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_bound_with_what_the_rendezvous_has_signed() {
    let server = Running::start(Limits::default()).await;
    let (relay, address) = server.setup.relay.expect("it relays");
    assert_eq!(address, server.address(), "the same number on UDP");
    let mut agent = connect(&server.target()).await.expect("a connection");
    let reply = answer_to(&mut agent, 1, Verb::Register { record: record(&server, 1, None).into() }).await;
    let Reply::Refused { ipv4: Some(free), .. } = reply else { panic!("no address: {reply:?}") };
    let ours = record(&server, 2, Some(free));
    assert_eq!(answer_to(&mut agent, 2, Verb::Register { record: ours.into() }).await, Reply::Done);
    let reply = answer_to(&mut agent, 3, Verb::Membership).await;
    let Reply::Membership { membership } = reply else { panic!("no membership: {reply:?}") };

    let config = Config {
        network: server.setup.url.network,
        relay,
        identity: std::sync::Arc::new(key(3)),
        membership: Some(membership.to_vec()),
        seed: [9; 32],
    };
    let event = tokio::task::spawn_blocking(move || first_event(Client::new(config), address)).await;
    let Event::Bound(bound) = event.expect("no panic") else { panic!("not bound") };
    assert!(bound.observed.ip().is_loopback() && bound.lifetime.as_secs() == 60);
    let counters = overlay_server::relay::families().count();
    assert!(counters > 20, "each has a name");
    server.end().await;
}

/// What a client is told first by the relay at this address.
fn first_event(mut client: Client, relay: std::net::SocketAddr) -> Event {
    let options = BindOptions {
        port: 0,
        fwmark: None,
        receive_buffer: 1 << 20,
        send_buffer: 1 << 20,
        segmentation: true,
        coalescing: true,
    };
    let socket = UdpSocket::bind_at([127, 0, 0, 1].into(), &options).expect("a free port");
    let mut batch = ReceiveBatch::new(4);
    let began = Instant::now();
    loop {
        client.handle_timeout(now());
        while let Some(datagram) = client.poll_transmit() {
            let transmit = Transmit { dont_fragment: true, ..Transmit::to(relay, &datagram, datagram.len()) };
            socket.send(&transmit).expect("the kernel takes it");
        }
        socket.receive(&mut batch, 4).expect("a socket that can be read");
        for received in batch.iter_mut() {
            client.handle_datagram(received.contents, now());
        }
        if let Some(event) = client.poll_event() {
            return event;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nothing has come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ready(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn a_new_process_takes_the_relay_over_with_its_key_and_port() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut old = serve(state.path(), &["--json"]);
    let mut line = String::new();
    BufReader::new(old.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let first = ready(&line);
    assert!(first["relay"]["key"].is_string() && first["relay"]["address"].is_string(), "{first}");
    let (line, _) = line_and_end(serve(state.path(), &["--json", "--replace"]));
    assert_eq!((&ready(&line)["relay"], &ready(&line)["url"]), (&first["relay"], &first["url"]));
    assert!(old.wait().expect("our own child").success());
}

#[test]
fn a_rendezvous_relays_elsewhere_or_not_at_all() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let (line, _) = line_and_end(serve(state.path(), &["--json", "--no-relay"]));
    assert!(ready(&line).get("relay").is_none(), "{line}");
    assert!(!state.path().join("rendezvous/lab/relay.key").exists(), "it needs no key");
    let taken = std::net::UdpSocket::bind("127.0.0.2:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let refused = serve(state.path(), &["--udp", &address]).wait_with_output().expect("it ends");
    assert_eq!(refused.status.code(), Some(9));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains(&format!("error: cannot relay on UDP {address}\ncause: the port is in use\n")), "{text}");
    drop(taken);
    let (line, _) = line_and_end(serve(state.path(), &["--json", "--udp", &address]));
    assert_eq!(ready(&line)["relay"]["address"], address);
}
