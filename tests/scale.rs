//! Ten thousand configured peers: how long `overlay up` takes, what idle peers cost, how much memory each takes, and
//! that all of them get connected when they call at once.
//!
//! The limits are the promised ones. `make bench` measures the same with the optimised binary and reports the margins.
#![allow(clippy::disallowed_methods, reason = "real time is what this is about")]

mod lab;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use lab::crowd::Crowd;
use lab::{A, AT_LENGTH, Host, Outside, Overlay, Pair, SHORTLY, within};

const PEERS: u32 = 10_000;
const ADDRESSES: u32 = 256;
const PORT: u16 = 51820;
/// The first inner address. The others follow it.
const FIRST_INNER: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 0);
/// The outer addresses: 10.2.0.0/24, all on the other host.
const FIRST_OUTER: u32 = 0x0a02_0000;

/// The promised limits.
const UP: Duration = Duration::from_secs(3);
const IDLE: f64 = 0.02;
const PEER_BYTES: u64 = 16 << 10;
const ALL_IN: Duration = Duration::from_secs(60);

/// Ticks per second in /proc, which the kernel never changes.
const USER_HZ: f64 = 100.0;

#[test]
fn rate_ten_thousand_peers_come_up_idle_and_shake_hands_all_at_once() {
    let Some(pair) = Pair::new("ten thousand peers") else { return };
    pair.a.ip("route add 10.2.0.0/24 via 10.1.0.2");
    pair.b.ip("route add local 10.2.0.0/24 dev lo");
    let daemon: SocketAddr = A.endpoint(Outside::V4, PORT).parse().expect("an address and a port");
    let sources: Vec<_> = (0..ADDRESSES).map(|number| Ipv4Addr::from(FIRST_OUTER + number)).collect();
    let mut crowd = Crowd::new(PEERS, daemon, pair.a.public_key(), &sources);
    let interface = pair.a.interface_toml(&["10.64.0.1/32"]);

    // The memory of a daemon without peers.
    let alone = pair.a.overlay_up(&interface);
    let empty = resident(&alone);
    assert_eq!(alone.stop().code, 0);

    let (up, ready) = up(&pair.a, &(interface + &crowd.peers_toml(FIRST_INNER)));
    let routes = pair.a.ip(&format!("route show dev {}", pair.a.interface())).lines().count();
    assert_eq!(routes, PEERS as usize, "every peer has a route");
    let (idle, full) = (idle_cores(&up), resident(&up));
    let weight = full.saturating_sub(empty) / u64::from(PEERS);

    // They were connected to the daemon before its restart, and all of them notice it.
    let began = Instant::now();
    let took = crowd.call(&pair.b, Duration::ZERO, 2 * ALL_IN);
    let all_in = began.elapsed();
    let completed = || up.status()["counters"]["handshakes_completed"].as_u64();
    let weight_in_session = resident(&up).saturating_sub(empty) / u64::from(PEERS);
    eprintln!(
        "up in {ready:?}, {:.2} % of a core idle, {weight} bytes for each peer; {} in after {all_in:?} with {} \
         initiations, {} cookies; then {weight_in_session} bytes for each",
        100.0 * idle,
        took.len(),
        crowd.initiations(),
        up.status()["counters"]["cookies_sent"],
    );
    assert_eq!(took.len(), PEERS as usize, "{:?}", up.status()["drops"]);
    assert!(all_in <= ALL_IN, "{all_in:?}");
    within(SHORTLY, "the last keepalives", || (completed()? >= u64::from(PEERS)).then_some(()));
    assert!(ready <= UP, "`overlay up` took {ready:?}");
    assert!(idle <= IDLE, "{idle:.3} of a core while nothing happens");
    assert!(
        weight.max(weight_in_session) <= PEER_BYTES,
        "{weight} bytes for each peer, {weight_in_session} in session"
    );
}

/// Starts a daemon. Returns how long it took until it told the service manager that it is ready.
fn up(host: &Host, config: &str) -> (Overlay, Duration) {
    let path = host.write("overlay.toml", config);
    let socket = host.dir().join("notify.sock");
    let notify = UnixDatagram::bind(&socket).expect("a socket in the lab's folder");
    notify.set_read_timeout(Some(AT_LENGTH)).expect("a timeout");
    let mut command = host.overlay_command(format!("up {}", path.display()));
    command.env("NOTIFY_SOCKET", &socket);
    let began = Instant::now();
    let ready = thread::spawn(move || {
        let mut message = [0; 1024];
        let len = notify.recv(&mut message).expect("the daemon says something");
        assert!(message[..len].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&message[..len]));
        began.elapsed()
    });
    let overlay = Overlay::from_command(host, command);
    (overlay, ready.join().expect("it is ready"))
}

/// The share of one core that a daemon uses while nothing happens.
fn idle_cores(daemon: &Overlay) -> f64 {
    const WATCHED: Duration = Duration::from_secs(8);
    // The daemon may still be answering a status request.
    thread::sleep(Duration::from_secs(1));
    let before = ticks(daemon);
    thread::sleep(WATCHED);
    (ticks(daemon) - before) as f64 / USER_HZ / WATCHED.as_secs_f64()
}

/// The CPU time used so far, in the kernel's ticks.
fn ticks(daemon: &Overlay) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon runs");
    // The name may contain anything. Behind it, utime and stime are fields 12 and 13.
    let rest = stat.rsplit_once(')').expect("a name").1;
    rest.split_whitespace().skip(11).take(2).map(|number| number.parse::<u64>().expect("a number")).sum()
}

fn resident(daemon: &Overlay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a process has memory") * 1024
}
