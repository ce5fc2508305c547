//! A flood of twenty thousand initiations a second from spoofed addresses, each with a valid mac1.
//!
//! The effect of the flood is compared with the same generator against a closed port, alternating within one run. All of
//! them share one machine, so the generator and the kernels on the path take their share of the CPU in both cases.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overlay_sim::initiator::Timestamp;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use super::bytes::Ends;
use super::siege::STRANGER;
use crate::lab::crowd::Crowd;
use crate::lab::streams::Load;
use crate::lab::{A, B, Host, Outside, Overlay, Pair, inside, installed};

/// Initiations per second.
const RATE: u64 = 20_000;
const PORT: u16 = 51820;
const CLOSED_PORT: u16 = 51821;
/// The spoofed source addresses: 10.200.0.0/16, which is routed to the attacker.
const SPOOFED: u32 = 0x0ac8_0000;
/// How many times the stream is measured against each port, and for how many seconds. The share that one round keeps
/// varies by 0.08, so the mean of sixteen is known to 0.02.
const ROUNDS: usize = 16;
const SECONDS: u32 = 2;
/// How many new peers come during the flood, and how far apart.
const NEWCOMERS: u32 = 60;
const APART: Duration = Duration::from_millis(300);

/// The promised limits.
const KEPT: f64 = 0.70;
const NEWCOMER_WITHIN: Duration = Duration::from_secs(6);
const GROWTH: u64 = 8 << 20;
const ANSWERED: f64 = 0.45;

#[test]
fn rate_under_a_flood_of_spoofed_initiations_streams_flow_newcomers_get_in_and_nothing_grows() {
    if !installed("a flood", &["iperf3"]) {
        return;
    }
    let Some(pair) = Pair::new("a flood") else { return };
    let victim: SocketAddr = A.endpoint(Outside::V4, PORT).parse().expect("an address and a port");
    let mut newcomers = Crowd::new(NEWCOMERS, victim, pair.a.public_key(), &[Ipv4Addr::new(10, 1, 0, 2)]);
    let peers = newcomers.peers_toml(Ipv4Addr::new(10, 88, 0, 1));
    // The answers have a route, and end at the attacker.
    pair.a.ip("route add 10.200.0.0/16 via 10.1.0.2");
    let on_a = pair.a.overlay_up(&(pair.config_of_a(Outside::V4) + &peers));
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    pair.a.reaches(B.v4);
    count_payload(&pair.a);

    let flood = messages(&pair);
    let stream = || Load {
        sender: &pair.b,
        address: B.v4,
        port: 5201,
        receiver: &pair.a,
        streams: 1,
        seconds: SECONDS,
        interval: Duration::from_millis(500),
        congestion_control: None,
    };
    let under = |port: u16, act: &mut dyn FnMut()| {
        let generator = Generator { target: SocketAddr::new(victim.ip(), port), messages: &flood };
        let rate = generator.during(&pair.b, act);
        assert!(rate >= 0.95 * RATE as f64, "the generator sent {rate:.0} a second");
    };
    let rate_under = |port: u16| {
        let mut rate = 0.0;
        under(port, &mut || rate = stream().start().finish().rate());
        rate
    };
    // Lets buffers grow with a first stream, so that this does not count as growth by the flood.
    rate_under(CLOSED_PORT);
    let before = Memory::of(&on_a);
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| [rate_under(CLOSED_PORT), rate_under(PORT)]).collect();
    let mut took = Vec::new();
    under(PORT, &mut || took = newcomers.call(&pair.b, APART, Duration::from_secs(60)));
    let after = Memory::of(&on_a);
    let (asked, answered) = (payload(&pair.a, "asked"), payload(&pair.a, "answered"));

    let shares: Vec<f64> = rounds.iter().map(|[closed, open]| open / closed).collect();
    let kept = shares.iter().sum::<f64>() / ROUNDS as f64;
    let late = NEWCOMERS as usize - took.iter().filter(|took| **took <= NEWCOMER_WITHIN).count();
    let share = answered as f64 / asked as f64;
    let grown = after.peak.saturating_sub(before.resident);
    let gbits = |port: usize| rounds.iter().map(|round| round[port]).sum::<f64>() / ROUNDS as f64 / 1e9;
    eprintln!(
        "stream {:.2} of {:.2} Gb/s, kept {kept:.2} {shares:.2?}; newcomers in after {:?} (median) to {:?}, {late} of \
         {NEWCOMERS} late; {asked} bytes asked, {answered} answered: {share:.3}; memory grew by {} KiB at most",
        gbits(1),
        gbits(0),
        took.get(took.len() / 2),
        took.last(),
        grown / 1024,
    );
    assert!(kept >= KEPT, "the stream kept {kept:.3}");
    assert!(late as f64 <= 0.05 * f64::from(NEWCOMERS), "{late} of {NEWCOMERS} came too late: {took:?}");
    assert!(grown <= GROWTH, "memory grew by {grown} bytes");
    assert!(asked > 10 * RATE * 148 && share < ANSWERED, "{answered} bytes for {asked}");
    let status = on_a.status();
    let drops = &status["drops"];
    assert!(drops["handshake_cookie"].as_u64() > Some(RATE), "the flood was met with cookies: {drops:#}");
    pair.a.reaches(B.v4);
}

/// Distinct initiations from a stranger, with valid MACs for the victim.
fn messages(pair: &Pair) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let key = STANDARD.decode(pair.a.public_key()).expect("base64").try_into().expect("32 bytes");
    let mut stranger = STRANGER.noise(key);
    (0..256).map(|n| stranger.initiate(Timestamp::from_unix_seconds(n), n as u32).message).collect()
}

/// Sends initiations from spoofed addresses.
struct Generator<'a> {
    target: SocketAddr,
    messages: &'a [Vec<u8>],
}

impl Generator<'_> {
    /// Floods while `act` runs. Returns how many initiations a second were sent.
    fn during(&self, host: &Host, act: &mut dyn FnMut()) -> f64 {
        let raw = inside(host, || {
            // The kernel lets us write the IP header on this socket.
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
        });
        let raw = raw.expect("we are root");
        let (is_over, sent, began) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let due = (began.elapsed().as_secs_f64() * RATE as f64) as u64;
                    for number in sent.load(Ordering::Relaxed)..due {
                        self.send(&raw, number);
                        sent.store(number + 1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_micros(500));
                }
            });
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            is_over.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    }

    fn send(&self, raw: &OwnedFd, number: u64) {
        // Every source differs from the previous one, and none repeats soon.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let source = Ipv4Addr::from(SPOOFED | (scattered >> 48) as u32);
        let message = &self.messages[number as usize % self.messages.len()];
        let ports = [1024 | (scattered >> 32) as u16, self.target.port()];
        let mut datagram = Vec::with_capacity(8 + message.len());
        datagram.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        datagram.extend((8 + message.len() as u16).to_be_bytes());
        // Without a checksum, which IPv4 allows.
        datagram.extend([0, 0]);
        datagram.extend(message);
        let packet = Ends { source: IpAddr::V4(source), destination: self.target.ip() }.ip(17, &datagram);
        // A full queue is not a reason to stop.
        let _ = sendto(raw, &packet, SendFlags::empty(), &self.target);
    }
}

/// Counts the bytes of the flood, and of the answers to it.
fn count_payload(victim: &Host) {
    let rules = format!(
        "add table inet flood
         add counter inet flood asked
         add counter inet flood answered
         add chain inet flood in {{ type filter hook input priority -300; }}
         add chain inet flood out {{ type filter hook output priority -300; }}
         add rule inet flood in ip saddr 10.200.0.0/16 udp dport {PORT} counter name asked
         add rule inet flood out ip daddr 10.200.0.0/16 udp sport {PORT} counter name answered\n"
    );
    let file = victim.write("flood.nft", rules);
    victim.exec(format!("nft -f {}", file.display()));
}

/// Bytes of UDP payload according to a counter.
fn payload(victim: &Host, counter: &str) -> u64 {
    const HEADERS: u64 = 20 + 8;
    let json = victim.exec(format!("nft -j list counter inet flood {counter}"));
    let json: serde_json::Value = serde_json::from_str(&json).expect("nft -j writes JSON");
    let counter = &json["nftables"][1]["counter"];
    let number = |key: &str| counter[key].as_u64().unwrap_or_else(|| panic!("no {key} in {json}"));
    number("bytes") - HEADERS * number("packets")
}

/// The memory that a daemon holds, and its peak.
struct Memory {
    resident: u64,
    peak: u64,
}

impl Memory {
    fn of(daemon: &Overlay) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
        let read = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the kernel");
            1024 * line
                .trim_start_matches(':')
                .split_whitespace()
                .next()
                .expect("a number")
                .parse::<u64>()
                .expect("KiB")
        };
        Memory { resident: read("VmRSS"), peak: read("VmHWM") }
    }
}
