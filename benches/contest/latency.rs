//! A small request and its response: how much a tunnel slows down two programs that wait for each other.
//!
//! Each exchange is one hundred bytes in each direction, with one request in flight at a time, over UDP and over TCP.
//! The same two programs on the same two hosts use, in turn, the bare wire, a copier without cryptography, and overlay,
//! in many short runs. The requirement is about the ratio to the copier within a round: both include the system calls
//! and wake-ups that no tunnel in user space can avoid.
//!
//! Client and server are this program itself, started inside the namespaces.
#![allow(clippy::disallowed_types, reason = "sockets as any program has them")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::copier;
use super::series::{median, percentile};
use crate::lab::{A, B, Host, Outside, Pair, Process};

/// The arguments that make this program a server or a client.
const SERVER: &str = "echo-server";
const CLIENT: &str = "echo-client";

/// Length of a request, and of a response, in bytes.
const MESSAGE_LEN: usize = 100;
const PORT: u16 = 7007;
/// The inner addresses of the copiers' tunnel.
const COPIER_A: &str = "10.78.0.1";
const COPIER_B: &str = "10.78.0.2";
/// How many exchanges precede the ones that count, and how many count, in one run.
const WARM_UP: usize = 200;
const EXCHANGES: usize = 2_000;
/// A response that has not come back after this time is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any run.
const LIMIT: Duration = Duration::from_secs(60);
/// The largest acceptable ratio of the time over overlay to that over the copier.
const ASKED_RATIO: f64 = 1.4;

/// The results and the requirement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyFigures {
    /// Length of a request, and of a response.
    pub(crate) message_bytes: usize,
    pub(crate) rounds: u32,
    pub(crate) exchanges_per_round: usize,
    pub(crate) udp: ProtocolFigures,
    pub(crate) tcp: ProtocolFigures,
    /// The largest acceptable `ratio` for both protocols.
    pub(crate) asked_ratio: f64,
}

/// The results for one protocol.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProtocolFigures {
    /// The bare wire, for comparison.
    pub(crate) veth: RoundTrip,
    pub(crate) copier: RoundTrip,
    pub(crate) overlay: RoundTrip,
    /// Overlay's p50 divided by the copier's within each round, and then the median over the rounds.
    pub(crate) ratio: f64,
    /// The smallest and the largest ratio of a round.
    pub(crate) ratio_range: [f64; 2],
}

/// The time from a request to its response, in one run or as medians over the rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrip {
    pub(crate) p50_microseconds: f64,
    pub(crate) p99_microseconds: f64,
    /// Requests without a response, over all rounds.
    pub(crate) lost: usize,
}

/// Measures for this many rounds of about two seconds each.
///
/// # Panics
/// Panics if the lab or one of the daemons does not start.
pub(crate) fn measure(rounds: u32) -> LatencyFigures {
    let pair = Pair::new("latency").expect("`main` has asked whether this machine can run a lab");
    let _daemons = pair.up(Outside::V4);
    let _copiers = [
        copier::start(&pair.a, B.outer_v4, &format!("{COPIER_A}/24")),
        copier::start(&pair.b, A.outer_v4, &format!("{COPIER_B}/24")),
    ];
    let _server = start(&pair.b, &[SERVER]);
    pair.b.wait_for_listener(PORT);
    for far in PATHS {
        pair.a.reaches(far);
    }

    let mut runs = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (protocol, runs) in PROTOCOLS.iter().zip(&mut runs) {
            runs.push(one_of_each(&pair.a, protocol, round));
        }
    }
    let [udp, tcp] = runs.map(|runs| ProtocolFigures::of(&runs));
    let exchanges_per_round = EXCHANGES;
    LatencyFigures { message_bytes: MESSAGE_LEN, rounds, exchanges_per_round, udp, tcp, asked_ratio: ASKED_RATIO }
}

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
/// The addresses that the client sends to: on the wire, in the copiers' tunnel, and in overlay's.
const PATHS: [&str; 3] = [B.outer_v4, COPIER_B, B.v4];

/// Runs once over each of [`PATHS`]. The first one changes with each round.
fn one_of_each(client: &Host, protocol: &str, round: u32) -> [RoundTrip; 3] {
    let mut runs = [None; 3];
    for turn in 0..PATHS.len() {
        let at = (turn + round as usize) % PATHS.len();
        let output = start(client, &[CLIENT, protocol, &format!("{}:{PORT}", PATHS[at])]).succeed_within(LIMIT);
        runs[at] = Some(serde_json::from_str(&output).expect("what this program itself has written"));
    }
    runs.map(|run| run.expect("each path had its turn"))
}

impl ProtocolFigures {
    fn of(rounds: &[[RoundTrip; 3]]) -> Self {
        let [veth, copier, overlay] = [0, 1, 2].map(|path| RoundTrip::middle(rounds.iter().map(|runs| runs[path])));
        let mut ratios: Vec<_> =
            rounds.iter().map(|[_, copier, overlay]| overlay.p50_microseconds / copier.p50_microseconds).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio_range = [ratios[0], ratios[ratios.len() - 1]];
        Self { veth, copier, overlay, ratio: median(ratios).unwrap_or(f64::NAN), ratio_range }
    }
}

impl RoundTrip {
    fn middle(runs: impl Iterator<Item = RoundTrip> + Clone) -> Self {
        let of = |figure: fn(RoundTrip) -> f64| median(runs.clone().map(figure).collect()).unwrap_or(f64::NAN);
        Self {
            p50_microseconds: of(|run| run.p50_microseconds),
            p99_microseconds: of(|run| run.p99_microseconds),
            lost: runs.map(|run| run.lost).sum(),
        }
    }
}

/// Starts this program inside a host's namespace in one of its other roles.
fn start(host: &Host, part: &[&str]) -> Process {
    let program = std::env::current_exe().expect("this program has a path").to_string_lossy().into_owned();
    host.spawn(&[&[&*program], part].concat()[..])
}

/// Runs this program in a different role if its first argument names one. Otherwise returns `None`.
pub(crate) fn play(arguments: &[String]) -> Option<io::Result<()>> {
    let (part, arguments) = arguments.split_first()?;
    match part.as_str() {
        copier::PART => Some(copier::run(arguments)),
        SERVER => Some(answer()),
        CLIENT => Some(ask(arguments)),
        _ => None,
    }
}

/// Echoes everything, over both protocols, until it is killed.
fn answer() -> io::Result<()> {
    let datagrams = UdpSocket::bind(("0.0.0.0", PORT))?;
    thread::spawn(move || {
        let mut message = [0; MESSAGE_LEN];
        while let Ok((len, client)) = datagrams.recv_from(&mut message) {
            // If the response cannot be sent, it is lost, and the client counts that.
            let _ = datagrams.send_to(&message[..len], client);
        }
    });
    for stream in TcpListener::bind(("0.0.0.0", PORT))?.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE_LEN];
        while stream.read_exact(&mut message).and_then(|()| stream.write_all(&message)).is_ok() {}
    }
    Ok(())
}

/// Takes `udp|tcp ADDRESS:PORT`, sends requests, and writes the results to standard output.
fn ask(arguments: &[String]) -> io::Result<()> {
    let [protocol, server] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let server: SocketAddr = server.parse().map_err(io::Error::other)?;
    let found = if protocol == "udp" { ask_by_udp(server)? } else { ask_by_tcp(server)? };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

fn ask_by_udp(server: SocketAddr) -> io::Result<RoundTrip> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    exchange(|message| {
        socket.send(message)?;
        loop {
            let mut response = [0; MESSAGE_LEN];
            socket.recv(&mut response)?;
            // This is a late response to a request that was given up.
            if response == *message {
                return Ok(());
            }
        }
    })
}

fn ask_by_tcp(server: SocketAddr) -> io::Result<RoundTrip> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    exchange(|message| {
        stream.write_all(message)?;
        stream.read_exact(message)
    })
}

/// Makes the exchanges one after another, each with a message of its own.
fn exchange(mut one: impl FnMut(&mut [u8; MESSAGE_LEN]) -> io::Result<()>) -> io::Result<RoundTrip> {
    let (mut times, mut lost) = (Vec::with_capacity(EXCHANGES), 0);
    let mut message = [0x5a; MESSAGE_LEN];
    for number in 0..(WARM_UP + EXCHANGES) as u64 {
        message[..8].copy_from_slice(&number.to_le_bytes());
        let asked = Instant::now();
        match one(&mut message) {
            Ok(()) if number >= WARM_UP as u64 => times.push(asked.elapsed().as_secs_f64() * 1e6),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => lost += 1,
            Err(error) => return Err(error),
        }
    }
    let mut share = |share| percentile(&mut times, share).ok_or(io::ErrorKind::TimedOut);
    Ok(RoundTrip { p50_microseconds: share(0.5)?, p99_microseconds: share(0.99)?, lost })
}
