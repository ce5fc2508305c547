//! Ten thousand configured peers, or as many as requested: how long `overlay up` takes, what idle peers cost, and how
//! much memory each further peer takes.
//!
//! Every peer has its own key and one address. The interface has no prefix that covers these addresses, so each needs a
//! route. There are two kinds: peers that we wait for, and peers with a known endpoint that nothing is sent to. Neither
//! kind exchanges anything, like most of ten thousand peers at any moment. The cost of a session is measured with fewer
//! peers, all of which complete a handshake.
#![allow(clippy::disallowed_types, reason = "the peers' end is a socket and keys, as anyone has them")]

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use overlay_sim::initiator::{Initiator, Timestamp};
use overlay_wire::wireguard::Message;
use rand_core::OsRng;
use serde::Serialize;
use x25519_dalek::{PublicKey, StaticSecret};

use super::cpu::Spent;
use super::memory;
use super::namespace::inside;
use super::series::median;
use crate::lab::{Host, Lab, Process};

/// One in this many peers completes a handshake.
const PEERS_A_SESSION: u32 = 10;
/// The number of peers for which the requirements apply.
pub(crate) const PEERS: u32 = 10_000;
/// The time between two handshakes. Below 256 a second, the daemon does not ask for cookies.
const BETWEEN_HANDSHAKES: Duration = Duration::from_millis(5);
/// How many times each config is started. The median counts.
const STARTS: usize = 3;
/// How long a daemon takes to settle after its start.
const SETTLE: Duration = Duration::from_secs(2);
/// The endpoint of the peers, in TEST-NET-3. There is a route to it, but no answer.
const ENDPOINT: &str = "203.0.113.7:51820";

/// The port on which the daemon listens by default.
const LISTEN_PORT: u16 = 51820;

/// The requirements.
const ASKED_UP_SECONDS: f64 = 3.0;
const ASKED_IDLE_CORES: f64 = 0.02;
const ASKED_ONE_PEER_BYTES: u64 = 20_000_000;
const ASKED_FURTHER_PEER_BYTES: f64 = 16.0 * 1024.0;

/// The results and the requirements.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScaleFigures {
    pub(crate) peers: u32,
    /// The memory of a daemon with one peer, at rest.
    pub(crate) one_peer_resident_bytes: u64,
    /// Peers without an endpoint.
    pub(crate) waited_for: Crowd,
    /// Peers with an endpoint and without persistent keepalives.
    pub(crate) with_endpoints: Crowd,
    /// The number of peers that completed a handshake, and the memory that each session adds to a waiting peer.
    pub(crate) sessions: u32,
    pub(crate) session_bytes: f64,
    pub(crate) asked_up_seconds: f64,
    pub(crate) asked_idle_cores: f64,
    pub(crate) asked_one_peer_bytes: u64,
    pub(crate) asked_further_peer_bytes: f64,
}

/// The results of a daemon with all peers of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Crowd {
    /// From the start of `overlay up` until the interface is up and `overlay status` has answered.
    pub(crate) up_seconds: f64,
    /// The part of that for `overlay status`, with all peers in its answer.
    pub(crate) status_seconds: f64,
    /// The share of one core that it uses while nothing happens.
    pub(crate) idle_cores: f64,
    /// The memory at rest, before and after the first status request.
    pub(crate) resident_bytes: u64,
    pub(crate) resident_after_status_bytes: u64,
    /// The memory that each further peer adds, by the larger of the two values.
    pub(crate) further_peer_bytes: f64,
}

/// Measures everything with `peers` peers. With [`PEERS`] of them this takes about two minutes. An idle daemon is
/// watched for `idle`.
///
/// # Panics
/// Panics if the lab or the daemon does not start.
pub(crate) fn measure(peers: u32, idle: Duration) -> ScaleFigures {
    let lab = Lab::new("scale").expect("`main` has asked whether this machine can run a lab");
    let host = lab.host("hub");
    host.ip("link add wire type veth peer name far");
    host.ip("address add 10.1.0.1/24 dev wire");
    host.ip("link set wire up");
    host.ip("link set far up");
    host.ip("route add 203.0.113.0/24 via 10.1.0.2");
    let secrets: Vec<_> = (0..peers).map(|_| StaticSecret::random_from_rng(OsRng)).collect();
    let keys: Vec<_> =
        secrets.iter().map(|secret| BASE64_STANDARD.encode(PublicKey::from(secret).as_bytes())).collect();

    let sessions = peers.div_ceil(PEERS_A_SESSION);
    let one_peer_resident_bytes = Up::start(&host, &config(&host, &keys[..1], None)).at_rest();
    let crowd = |endpoint| Crowd::of(&host, &config(&host, &keys, endpoint), one_peer_resident_bytes, idle);
    ScaleFigures {
        peers,
        one_peer_resident_bytes,
        waited_for: crowd(None),
        with_endpoints: crowd(Some(ENDPOINT)),
        sessions,
        session_bytes: session_bytes(&host, &keys[..sessions as usize], &secrets),
        asked_up_seconds: ASKED_UP_SECONDS,
        asked_idle_cores: ASKED_IDLE_CORES,
        asked_one_peer_bytes: ASKED_ONE_PEER_BYTES,
        asked_further_peer_bytes: ASKED_FURTHER_PEER_BYTES,
    }
}

/// The memory that a session adds to a peer.
fn session_bytes(host: &Host, keys: &[String], secrets: &[StaticSecret]) -> f64 {
    let up = Up::start(host, &config(host, keys, None));
    let before = up.at_rest();
    thread::scope(|scope| inside(scope, host, || shake_hands(host, &secrets[..keys.len()])).join())
        .expect("every peer is answered");
    up.at_rest().saturating_sub(before) as f64 / keys.len() as f64
}

/// Makes every peer call the daemon, from one socket, and confirm the session with an empty message.
fn shake_hands(host: &Host, secrets: &[StaticSecret]) {
    let daemon = BASE64_STANDARD.decode(host.public_key()).expect("base64");
    let daemon: [u8; 32] = daemon.try_into().expect("a key of 32 bytes");
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    socket.connect(("127.0.0.1", LISTEN_PORT)).expect("loopback is up");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    for (number, secret) in (1..).zip(secrets) {
        let mut peer = Initiator::new(secret.to_bytes(), daemon, number.into());
        let pending = peer.initiate(Timestamp::from_unix_seconds(1), number);
        socket.send(&pending.message).expect("loopback takes it");
        let response = response(&socket).unwrap_or_else(|error| panic!("peer {number} has no answer: {error}"));
        let mut session = peer.complete(&pending, &response).expect("a response");
        socket.send(&session.seal(&[])).expect("loopback takes it");
        thread::sleep(BETWEEN_HANDSHAKES);
    }
}

/// The next response to an initiation. Data messages may come before it, because the daemon sends to peers that already
/// have a session.
fn response(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 2_048];
    loop {
        let len = socket.recv(&mut buffer)?;
        if let Ok(Message::Response { .. }) = Message::parse(&buffer[..len]) {
            return Ok(buffer[..len].to_vec());
        }
    }
}

fn config(host: &Host, keys: &[String], endpoint: Option<&str>) -> String {
    let mut config = host.interface_toml(&["10.64.0.1/32"]);
    let first = Ipv4Addr::new(10, 65, 0, 0).to_bits();
    for (number, key) in (0..).zip(keys) {
        let address = Ipv4Addr::from(first + number);
        let _ = write!(config, "\n[[peer]]\nname = \"p{number}\"\npublic_key = \"{key}\"\n");
        let _ = writeln!(config, "allowed_ips = [\"{address}/32\"]");
        if let Some(endpoint) = endpoint {
            let _ = writeln!(config, "endpoint = \"{endpoint}\"");
        }
    }
    config
}

impl Crowd {
    fn of(host: &Host, config: &str, one_peer: u64, idle: Duration) -> Self {
        let (mut ups, mut statuses) = (Vec::new(), Vec::new());
        let mut last = None;
        for _ in 0..STARTS {
            drop(last.take());
            let up = Up::start(host, config);
            let resident = up.at_rest();
            let idle_cores = up.idle_cores(idle);
            let status = up.status();
            ups.push((up.ready + status).as_secs_f64());
            statuses.push(status.as_secs_f64());
            last = Some((up, resident, idle_cores));
        }
        let Some((up, resident_bytes, idle_cores)) = last else { unreachable!("it was started") };
        let resident_after_status_bytes = up.at_rest();
        let larger = resident_bytes.max(resident_after_status_bytes);
        let further_peers = config.matches("[[peer]]").count() as u32 - 1;
        Self {
            up_seconds: median(ups).unwrap_or(f64::NAN),
            status_seconds: median(statuses).unwrap_or(f64::NAN),
            idle_cores,
            resident_bytes,
            resident_after_status_bytes,
            further_peer_bytes: larger.saturating_sub(one_peer) as f64 / f64::from(further_peers),
        }
    }
}

/// A running daemon. Dropping it kills it.
struct Up<'a> {
    host: &'a Host,
    process: Process,
    /// The time from its start until it told the service manager that it is ready.
    ready: Duration,
}

impl<'a> Up<'a> {
    fn start(host: &'a Host, config: &str) -> Self {
        let path = host.write("overlay.toml", config);
        let socket = host.dir().join("notify.sock");
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).expect("a socket in the lab's folder");
        notify.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        let mut command = host.overlay_command(format!("up {}", path.display()));
        command.env("NOTIFY_SOCKET", &socket);
        let began = Instant::now();
        let process = host.start(command, "overlay up");
        let mut message = [0; 1024];
        let len = notify.recv(&mut message).unwrap_or_else(|error| panic!("not ready: {error}\n{}", process.stderr()));
        let ready = began.elapsed();
        assert!(message[..len].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&message[..len]));
        let link = host.ip(&format!("-o link show dev {}", host.interface()));
        assert!(link.contains(",UP"), "{link}");
        let routes = host.ip(&format!("route show dev {}", host.interface())).lines().count();
        assert_eq!(routes, config.matches("[[peer]]").count(), "every peer has a route");
        Self { host, process, ready }
    }

    /// Its memory after it has settled.
    fn at_rest(&self) -> u64 {
        thread::sleep(SETTLE);
        memory::resident(&[self.process.pid()])
    }

    fn idle_cores(&self, span: Duration) -> f64 {
        let before = Spent::now(&[self.process.pid()]);
        thread::sleep(span);
        before.until(Spent::now(&[self.process.pid()])).processes / span.as_secs_f64()
    }

    /// How long `overlay status` takes.
    fn status(&self) -> Duration {
        let began = Instant::now();
        self.host.overlay("status --json").succeeded("overlay status");
        began.elapsed()
    }
}
