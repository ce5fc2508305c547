//! A small request and its response: what a tunnel adds to the time in which two programs that wait for each other get on.
//!
//! One hundred bytes there, one hundred back, one request under way at any time, over UDP and over TCP. The same two
//! programs, on the same two hosts, in turn over the bare wire, over a copier without cryptography and over overlay, many
//! short runs of each. What is asked is asked of the ratio to the copier within a round: the system calls and wake-ups that
//! no tunnel in user space can do without are in both.
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

/// The words by which this program knows that it is to be one of the two.
const SERVER: &str = "echo-server";
const CLIENT: &str = "echo-client";

/// Bytes of a request, and of a response.
const MESSAGE_LEN: usize = 100;
const PORT: u16 = 7007;
/// Inside the copiers' tunnel.
const COPIER_A: &str = "10.78.0.1";
const COPIER_B: &str = "10.78.0.2";
/// Exchanges before those that count, and those that count, in one run.
const WARM_UP: usize = 200;
const EXCHANGES: usize = 2_000;
/// What has not come back by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// No run takes as long.
const LIMIT: Duration = Duration::from_secs(60);
/// How many times as long as over the copier an exchange over overlay may take.
const ASKED_RATIO: f64 = 1.4;

/// What came of it, and what is asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyFigures {
    /// Of a request, and of a response.
    pub(crate) message_bytes: usize,
    pub(crate) rounds: u32,
    pub(crate) exchanges_per_round: usize,
    pub(crate) udp: ProtocolFigures,
    pub(crate) tcp: ProtocolFigures,
    /// The most that `ratio` may be, of either.
    pub(crate) asked_ratio: f64,
}

/// What one protocol met.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProtocolFigures {
    /// The wire by itself, for orientation.
    pub(crate) veth: RoundTrip,
    pub(crate) copier: RoundTrip,
    pub(crate) overlay: RoundTrip,
    /// Overlay's p50 over the copier's, taken within each round: the median over the rounds.
    pub(crate) ratio: f64,
    /// The smallest and the largest of the rounds.
    pub(crate) ratio_range: [f64; 2],
}

/// The time from a request to its response: of one run, or the medians over the rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrip {
    pub(crate) p50_microseconds: f64,
    pub(crate) p99_microseconds: f64,
    /// Requests without a response, in all rounds.
    pub(crate) lost: usize,
}

/// Measures it in so many rounds, of about two seconds each.
///
/// # Panics
/// If the lab or one of the daemons does not come up.
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
/// What the client sends to: the wire, the copiers' tunnel, overlay's.
const PATHS: [&str; 3] = [B.outer_v4, COPIER_B, B.v4];

/// A run over each of [`PATHS`]; who is first moves on with the rounds.
fn one_of_each(client: &Host, protocol: &str, round: u32) -> [RoundTrip; 3] {
    let mut runs = [None; 3];
    for turn in 0..PATHS.len() {
        let at = (turn + round as usize) % PATHS.len();
        let said = start(client, &[CLIENT, protocol, &format!("{}:{PORT}", PATHS[at])]).succeed_within(LIMIT);
        runs[at] = Some(serde_json::from_str(&said).expect("what this program itself has written"));
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

/// Starts this program inside a host's namespace as one of its own parts.
fn start(host: &Host, part: &[&str]) -> Process {
    let program = std::env::current_exe().expect("this program has a path").to_string_lossy().into_owned();
    host.spawn(&[&[&*program], part].concat()[..])
}

/// What this program does instead of measuring when its first argument names a part of it; `None` when it does not.
pub(crate) fn play(arguments: &[String]) -> Option<io::Result<()>> {
    let (part, arguments) = arguments.split_first()?;
    match part.as_str() {
        copier::PART => Some(copier::run(arguments)),
        SERVER => Some(answer()),
        CLIENT => Some(ask(arguments)),
        _ => None,
    }
}

/// Gives back whatever comes, over both protocols, until it is killed.
fn answer() -> io::Result<()> {
    let datagrams = UdpSocket::bind(("0.0.0.0", PORT))?;
    thread::spawn(move || {
        let mut message = [0; MESSAGE_LEN];
        while let Ok((len, client)) = datagrams.recv_from(&mut message) {
            // One that does not go out is lost, and the client counts it.
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

/// `udp|tcp ADDRESS:PORT`: asks again and again, and writes what it found to standard output.
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
            // The late response to one that was given up is not the one that is waited for.
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

/// One exchange after the other, each with a message of its own.
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
