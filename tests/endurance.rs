//! Effects that appear only under sustained load: whether many streams share a tunnel fairly, whether traffic stalls,
//! and whether memory grows.
#![allow(clippy::disallowed_methods, reason = "real time is what this is about")]

mod lab;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lab::streams::{Arrived, BBR_SETTLES, Load};
use lab::world::Addresses;
use lab::{A, B, Host, Outside, Overlay, Pair};

const A_SECOND: Duration = Duration::from_secs(1);

/// BBR measures a stream's shortest round trip again every ten seconds, even once it has settled. A stream that measures
/// while a queue is full has ten times its share until the next time. One run in ten has such a stream (benches/README.md),
/// so there are up to three runs. An unfair tunnel is unfair in each of them.
#[test]
fn rate_sixty_four_streams_share_fairly_and_none_stalls() {
    const SECONDS: u32 = 36;
    const RUNS: u32 = 3;
    if !lab::installed("64 streams", &["iperf3"]) {
        return;
    }
    let Some(pair) = Pair::new("64 streams") else { return };
    let _daemons = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let is_fair = (0..RUNS).any(|run| {
        let arrived = Load { interval: A_SECOND / 10, ..load(&pair.b, B, &pair.a, SECONDS) }.start().finish();
        let settled = arrived.after(BBR_SETTLES);
        let index = settled.jain_index();
        eprintln!("run {run}, {}, settled {index:.3}: {:?}", summary(&arrived), settled.totals());
        assert_eq!(settled.totals().len(), 64);
        let stall = arrived.longest_stall();
        assert!(stall < A_SECOND, "nothing arrived for {stall:?}");
        index >= 0.9
    });
    assert!(is_fair, "Jain's index was below 0.9 in each of {RUNS} runs");
}

/// Ten minutes across five sessions, with 64 streams in each direction. A daemon's memory may grow only in the first
/// minute, while buffers grow to the size of the largest train and flows, sessions and handshakes occur for the first
/// time.
#[test]
fn soak_ten_minutes_of_full_load_keep_memory_flat() {
    const SECONDS: u32 = 600;
    /// How much more memory the last five minutes may take than the first minute: two percent and an allocator's pages.
    const SLACK: u64 = 512 << 10;
    if !lab::installed("full load", &["iperf3"]) {
        return;
    }
    let Some(pair) = Pair::new("full load") else { return };
    let (on_a, on_b) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let mut streams = [
        ("a to b", load(&pair.a, A, &pair.b, SECONDS).start()),
        ("b to a", load(&pair.b, B, &pair.a, SECONDS).start()),
    ];

    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < Duration::from_secs(SECONDS.into()) && !streams.iter_mut().any(|(_, one)| one.have_ended())
    {
        samples.push((began.elapsed(), [&on_a, &on_b].map(resident)));
        thread::sleep(A_SECOND);
    }

    for (way, one) in streams {
        let arrived = one.finish();
        eprintln!("{way}: {}", summary(&arrived));
        let stall = arrived.longest_stall();
        assert!(stall < A_SECOND, "{way}: nothing arrived for {stall:?}");
    }
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let most = |from: u64, to: u64| {
            let span = Duration::from_secs(from)..Duration::from_secs(to);
            samples.iter().filter(|(when, _)| span.contains(when)).map(|(_, held)| held[at]).max().expect("a sample")
        };
        let (first, last) = (most(0, 60), most(300, 600));
        eprintln!("{name}: {first} bytes at most in the first minute, {last} in the last five");
        assert!(last <= first + SLACK, "{name} grew from {first} to {last} bytes");
    }
    for (daemon, peer) in [(&on_a, &pair.b), (&on_b, &pair.a)] {
        let handshakes = daemon.peer(peer)["handshakes"].as_u64().expect("a number");
        assert!(handshakes >= 5, "{handshakes} handshakes: the sessions were not made anew");
    }
}

/// Sixty-four streams through the tunnel.
fn load<'a>(sender: &'a Host, own: Addresses, receiver: &'a Host, seconds: u32) -> Load<'a> {
    Load {
        sender,
        address: own.v4,
        port: 5201,
        receiver,
        streams: 64,
        seconds,
        interval: A_SECOND,
        congestion_control: None,
    }
}

fn summary(arrived: &Arrived) -> String {
    format!(
        "{:.2} Gb/s, Jain's index {:.3}, longest stall {:?}, longest silence of one {:?}",
        arrived.rate() / 1e9,
        arrived.jain_index(),
        arrived.longest_stall(),
        arrived.longest_silence_of_one(),
    )
}

/// The daemon's resident memory in bytes (`/proc/PID/status`).
fn resident(daemon: &Overlay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a process has memory") * 1024
}
