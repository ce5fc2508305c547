//! We are WireGuard on the wire. Three independent implementations are our peers. Either side starts the session, with
//! and without a preshared key, over IPv4 and over IPv6.
#![allow(clippy::disallowed_methods, reason = "real time is what this is about")]

mod lab;

use std::time::{Duration, Instant};

use lab::services::{random_file, sha256, tcp_transfer};
use lab::stock::{StockConfig, StockPeer};
use lab::{A, B, Outside, Overlay, Pair, Pings, Stock};

/// The side that knows the other's endpoint, and so sends the first handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    We,
    They,
}

/// One combination to test.
#[derive(Clone, Copy, Debug)]
struct Case {
    stock: Stock,
    first: First,
    preshared_key: bool,
    outside: Outside,
}

/// A running case: our daemon on host `a`, the other implementation on `b`.
struct Standing {
    case: Case,
    ours: Overlay,
    _theirs: StockPeer,
    pair: Pair,
}

#[test]
fn boringtun_carries_pings_and_64_mib_of_tcp() {
    exchange(Stock::BoringTun);
}

#[test]
fn gotatun_carries_pings_and_64_mib_of_tcp() {
    exchange(Stock::GotaTun);
}

#[test]
fn wireguard_go_carries_pings_and_64_mib_of_tcp() {
    exchange(Stock::WireGuardGo);
}

/// 260 pings, one a second. This includes the second rekeying (120 s and 240 s after the first handshake).
#[test]
fn no_ping_is_lost_in_260_s_across_two_rekeys_with_any_of_them() {
    const PINGS: u64 = 260;
    let name = "two rekeys";
    if !lab::installed(name, &Stock::ALL.map(Stock::program)) {
        return;
    }
    let began = Instant::now();
    let cases: Vec<_> = Stock::ALL.into_iter().flat_map(Case::all).collect();
    assert_eq!(cases.len(), 24);
    let start = |case: &Case| {
        let standing = case.up(name)?;
        standing.start_the_session();
        let ping = standing.starter().spawn(format!("ping -n -i 1 -c {PINGS} -W 5 {}", standing.far_address()));
        Some((standing, ping))
    };
    // Several cases start at a time, since most of that time is spent waiting for `ip` and for programs.
    let standing: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> =
            cases.chunks(4).map(|some| scope.spawn(|| some.iter().filter_map(start).collect())).collect();
        starting.into_iter().flat_map(|thread| -> Vec<_> { thread.join().expect("every case comes up") }).collect()
    });
    if standing.is_empty() {
        return;
    }
    assert_eq!(standing.len(), cases.len());
    eprintln!("all of them stand after {:?}", began.elapsed());

    let mut lossy = Vec::new();
    for (case, ping) in standing {
        let said = ping.finish_within(Duration::from_secs(PINGS + 20));
        if !said.stdout.contains(&format!("{PINGS} packets transmitted, {PINGS} received, 0% packet loss")) {
            lossy.push(format!("{:?}\n{}", case.case, missing(&said.stdout, PINGS)));
        }
        let handshakes = case.ours.peer(&case.pair.b)["handshakes"].as_u64().expect("a number");
        assert!(handshakes >= 3, "{:?}: the session was made {handshakes} times, not anew twice", case.case);
    }
    assert!(lossy.is_empty(), "{}", lossy.join("\n"));
}

/// Sessions of some engines are reported to go deaf in one direction after a while. So this runs pings and TCP both
/// ways for ten minutes, which is five sessions.
#[test]
fn soak_ten_minutes_both_ways_against_each_of_them() {
    const SECONDS: u64 = 600;
    const PINGS: u16 = 6_000;
    let name = "soak";
    let stocks = Stock::ALL;
    if !lab::installed(name, &stocks.map(Stock::program)) {
        return;
    }
    let cases = stocks.into_iter().flat_map(Case::all);
    let cases = cases.filter(|case| !case.preshared_key && case.outside == Outside::V4);
    let mut running = Vec::new();
    for case in cases {
        let Some(standing) = case.up(name) else { return };
        standing.start_the_session();
        let Pair { a, b, .. } = &standing.pair;
        let pings =
            [(a, B.v4), (b, A.v4)].map(|(from, to)| Pings::new(PINGS, Duration::from_millis(100)).start(from, to));
        let server = b.spawn("iperf3 -s");
        b.wait_for_listener(5201);
        // In small blocks: a burst of 128 KiB overflows the receive buffer of wireguard-go, and pings are lost with it.
        let stream = a.spawn(format!("iperf3 -J -i 1 -t {SECONDS} -b 2M -l 4K --bidir -c {}", B.v4));
        running.push((standing, pings, server, stream));
    }
    assert_eq!(running.len(), 6);
    for (standing, pings, _server, stream) in running {
        let case = standing.case;
        for ping in pings {
            let answered = ping.finish();
            assert!(answered.is_ok(), "{case:?}: {answered:?}");
        }
        let report = stream.succeed_within(Duration::from_secs(60));
        let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 -J writes JSON");
        let bytes = ["sum_received", "sum_received_bidir_reverse"].map(|direction| {
            let bytes = report["end"][direction]["bytes"].as_u64().expect("a number");
            assert!(bytes > SECONDS * 200_000, "{case:?}: {bytes} bytes in {SECONDS} s, {direction}");
            bytes
        });
        let handshakes = standing.ours.peer(&standing.pair.b)["handshakes"].as_u64().expect("a number");
        assert!(handshakes >= 5, "{case:?}: {handshakes} handshakes");
        println!("{case:?}: 2 x {PINGS} pings, none lost; {bytes:?} bytes; {handshakes} handshakes");
    }
}

fn exchange(stock: Stock) {
    let name = format!("{stock:?}");
    if !lab::installed(&name, &[stock.program(), "socat"]) {
        return;
    }
    for case in Case::all(stock) {
        let Some(standing) = case.up(&name) else { return };
        standing.start_the_session();
        let Pair { a, b, .. } = &standing.pair;
        for (from, address) in [(a, B.v4), (a, B.v6), (b, A.v4), (b, A.v6)] {
            let answered = Pings::new(5, Duration::from_millis(20)).start(from, address).finish();
            assert!(answered.is_ok(), "{case:?}: {answered:?}");
        }
        let file = random_file(a, "file", 64 << 20);
        let sum = sha256(&file);
        assert_eq!(tcp_transfer(a, b, B.v4, &file), sum, "{case:?}: from us to them");
        assert_eq!(tcp_transfer(b, a, A.v6, &file), sum, "{case:?}: from them to us");
        let peer = standing.ours.peer(b);
        for direction in ["received_bytes", "sent_bytes"] {
            assert!(peer[direction].as_u64().is_some_and(|bytes| bytes > 64 << 20), "{case:?}: {peer:#}");
        }
        standing.ours.stop();
    }
}

impl Case {
    fn all(stock: Stock) -> impl Iterator<Item = Case> {
        let firsts = [First::We, First::They].into_iter();
        let with_keys = firsts.flat_map(|first| [false, true].map(|preshared_key| (first, preshared_key)));
        with_keys.flat_map(move |(first, preshared_key)| {
            [Outside::V4, Outside::V6].map(|outside| Case { stock, first, preshared_key, outside })
        })
    }

    /// Starts both daemons, before any packet is sent. `None` if this machine cannot.
    fn up(self, name: &str) -> Option<Standing> {
        let pair = Pair::new(name)?;
        let (a, b) = (&pair.a, &pair.b);
        let mut config =
            if self.first == First::We { pair.config_of_a(self.outside) } else { pair.config_of_a_waiting() };
        let mut preshared_key_file = None;
        if self.preshared_key {
            let file = a.write_secret("psk", &a.exec("wg genpsk"));
            config += &format!("preshared_key_file = \"{}\"\n", file.display());
            preshared_key_file = Some(file);
        }
        let (addresses, allowed) = (B.inner(), A.allowed());
        let endpoint = A.endpoint(self.outside, 51820);
        let theirs = self.stock.up(
            b,
            &StockConfig {
                addresses: &[&addresses[0], &addresses[1]],
                peer: a,
                endpoint: (self.first == First::They).then_some(endpoint.as_str()),
                allowed_ips: &[&allowed[0], &allowed[1]],
                preshared_key_file: preshared_key_file.as_deref(),
            },
        );
        let ours = a.overlay_up(&config);
        Some(Standing { case: self, ours, _theirs: theirs, pair })
    }
}

impl Standing {
    /// The host that knows the other's endpoint.
    fn starter(&self) -> &lab::Host {
        if self.case.first == First::We { &self.pair.a } else { &self.pair.b }
    }

    /// The virtual IP of the other host.
    fn far_address(&self) -> &'static str {
        if self.case.first == First::We { B.v4 } else { A.v4 }
    }

    /// Pings once from the side that can start, and checks that the session began as the case requires.
    fn start_the_session(&self) {
        self.starter().reaches(self.far_address());
        let peer = self.ours.peer(&self.pair.b);
        let expected = B.endpoint(self.case.outside, 51820);
        assert_eq!(peer["endpoint"], expected, "{:?}: they are where they were configured or heard", self.case);
    }
}

/// The sequence numbers that are missing in a ping's output.
fn missing(output: &str, pings: u64) -> String {
    let lost: Vec<_> = (1..=pings).filter(|number| !output.contains(&format!("icmp_seq={number} "))).collect();
    let summary = output.lines().find(|line| line.contains("packets transmitted")).unwrap_or("no summary");
    format!("{summary}; lost: {lost:?}")
}
