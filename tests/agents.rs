//! Agent mode with the real binary: a rendezvous and agents that know nothing but its URL and each other's names.
//!
//! The measured times are what a user waits for. They are printed, and each has a limit.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

#[path = "agents/changes.rs"]
mod changes;
#[path = "agents/clocks.rs"]
mod clocks;
#[path = "agents/clones.rs"]
mod clones;
#[path = "agents/closed.rs"]
mod closed;
#[path = "agents/cut_off.rs"]
mod cut_off;
#[path = "agents/decisions.rs"]
mod decisions;
#[path = "agents/doctor.rs"]
mod doctor;
#[path = "agents/ends.rs"]
mod ends;
#[path = "agents/events.rs"]
mod events;
#[path = "agents/explain.rs"]
mod explain;
#[path = "agents/files.rs"]
mod files;
#[path = "agents/full.rs"]
mod full;
#[path = "agents/intercepted.rs"]
mod intercepted;
#[path = "agents/interrupted.rs"]
mod interrupted;
mod lab;
#[path = "agents/names.rs"]
mod names;
#[path = "agents/operator.rs"]
mod operator;
#[path = "agents/power.rs"]
mod power;
#[path = "agents/preshared.rs"]
mod preshared;
#[path = "agents/relayed.rs"]
mod relayed;
#[path = "agents/rendezvous.rs"]
mod rendezvous;
#[path = "agents/restarts.rs"]
mod restarts;
#[path = "agents/restored.rs"]
mod restored;
#[path = "agents/rotation.rs"]
mod rotation;
#[path = "agents/several.rs"]
mod several;
#[path = "agents/silent.rs"]
mod silent;
#[path = "agents/sixteen.rs"]
mod sixteen;
#[path = "agents/strangers.rs"]
mod strangers;
#[path = "agents/trust.rs"]
mod trust;
#[path = "agents/upgrades.rs"]
mod upgrades;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lab::agents::befriend;
use lab::{Agent, Host, SHORTLY, inside, within};
use serde_json::Value;

/// The errors by which Linux reports "administratively prohibited": EHOSTUNREACH for IPv4, and EACCES for IPv6.
const PROHIBITED: [i32; 2] = [113, 13];
/// How long a connect waits that is not refused.
const CONNECT: Duration = Duration::from_secs(2);

/// The time in seconds since 1970.
fn unix_seconds() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// What became of a TCP connect, and how long it took.
fn connect(from: &Host, address: &str, port: u16) -> (std::io::Result<()>, Duration) {
    let target: SocketAddr = (address.parse::<std::net::IpAddr>().expect("an address"), port).into();
    inside(from, || {
        let began = Instant::now();
        let result = TcpStream::connect_timeout(&target, CONNECT).map(drop);
        (result, began.elapsed())
    })
}

/// Requires that a connect fails at once with an error that says "not allowed", not with a timeout. A busy machine may
/// keep a program waiting, so the fastest of three has to keep the limit.
#[track_caller]
fn is_refused_at_once(from: &Host, address: &str, port: u16) {
    let mut fastest = CONNECT;
    for _ in 0..3 {
        let (result, took) = connect(from, address, port);
        let error = result.expect_err("a refusal").raw_os_error();
        let is_prohibited = error.is_some_and(|error| PROHIBITED.contains(&error));
        assert!(is_prohibited, "{address} port {port}: {error:?} after {took:?}");
        fastest = fastest.min(took);
    }
    eprintln!("{} to {address} port {port}: refused after {fastest:?}", from.name());
    assert!(fastest < Duration::from_millis(10), "{fastest:?}");
}

/// Waits until `from` gets the page of the agent at `address`.
#[track_caller]
fn gets_page(from: &Agent, address: &str) {
    within(SHORTLY, "the page", || (from.curls(address).stdout == "hello").then_some(()));
}

/// Counts packets that arrive at a host: those that an nft expression matches, from its creation on.
struct Counter(Host);

impl Counter {
    #[track_caller]
    fn new(host: &Host, matching: &str) -> Counter {
        host.exec("nft add table inet counted");
        host.exec(["nft", "add chain inet counted input { type filter hook input priority 0; }"]);
        host.exec(format!("nft add rule inet counted input {matching} counter"));
        Counter(host.clone())
    }

    #[track_caller]
    fn packets(&self) -> u64 {
        let json: Value = serde_json::from_str(&self.0.exec("nft -j list table inet counted")).expect("JSON of nft");
        let rules = json["nftables"].as_array().expect("a list");
        let expressions = rules.iter().filter_map(|entry| entry["rule"]["expr"].as_array()).flatten();
        expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).next().expect("the counter")
    }
}
