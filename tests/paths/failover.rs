//! A direct path that dies in different ways, under a ping of 100 a second: the longest gap that its sender sees.
//!
//! One run of each fault belongs to every test run. `make nats` makes twenty of each, at two round trips.

use std::time::{Duration, Instant};

use overlay_sim::nat::Kind;

use crate::lab::Apart;

/// How long a gap may be: the median of many, the 95th percentile, and the longest of all.
const MEDIAN: Duration = Duration::from_millis(600);
const P95: Duration = Duration::from_secs(1);
pub(super) const WORST: Duration = Duration::from_secs(3);
/// How long a direct path may take.
pub(super) const DIRECT: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Both,
    Towards,
    From,
    Forgotten,
    Moved,
}

impl Fault {
    /// Lets it happen.
    pub(super) fn begin(self, apart: &Apart) {
        let [alice, bob] = [0, 1].map(|at| apart.sites[at].outside());
        let drop = |from, to| {
            let router = &apart.internet.core()[1];
            let family = if apart.sites[0].outside().is_ipv4() { "ip" } else { "ip6" };
            router.exec("nft add table inet broken");
            router.exec(["nft", "add chain inet broken forward { type filter hook forward priority 0; }"]);
            router.exec(format!("nft add rule inet broken forward {family} saddr {from} {family} daddr {to} drop"));
        };
        match self {
            Self::Both => {
                drop(alice, bob);
                drop(bob, alice);
            }
            Self::Towards => drop(alice, bob),
            Self::From => drop(bob, alice),
            Self::Forgotten => apart.sites[1].forget(),
            Self::Moved => {
                let (host, device) = (&apart.alice.host, apart.alice.host.link_to(apart.sites[0].router()));
                host.ip(&format!("address del 192.168.1.2/24 dev {device}"));
                host.ip(&format!("address add 192.168.1.99/24 dev {device}"));
                host.ip(&format!("route replace default via 192.168.1.1 dev {device}"));
            }
        }
    }

    /// Takes it back.
    pub(super) fn end(self, apart: &Apart) {
        match self {
            Self::Both | Self::Towards | Self::From => {
                apart.internet.core()[1].exec("nft delete table inet broken");
            }
            Self::Forgotten => {}
            Self::Moved => {
                let (host, device) = (&apart.alice.host, apart.alice.host.link_to(apart.sites[0].router()));
                host.ip(&format!("address del 192.168.1.99/24 dev {device}"));
                host.ip(&format!("address add 192.168.1.2/24 dev {device}"));
                host.ip(&format!("route replace default via 192.168.1.1 dev {device}"));
            }
        }
    }
}

/// The longest gap in a ping around the fault, once both reach each other directly.
#[track_caller]
fn gap(apart: &mut Apart, fault: Fault) -> Duration {
    apart.restart(Duration::ZERO);
    let address = apart.bob.v6();
    let pings = apart.alice.host.spawn(format!("ping -D -i 0.01 {address}"));
    apart.are_direct_within(DIRECT);
    std::thread::sleep(Duration::from_secs(2));
    let before = answers(&pings.stdout()).len();
    fault.begin(apart);
    std::thread::sleep(Duration::from_secs(5));
    let all = answers(&pings.stdout());
    let until = Instant::now();
    fault.end(apart);
    drop(pings);
    assert!(until.elapsed() < Duration::from_secs(5), "the machine was too slow to measure");
    longest_gap(&all[before.saturating_sub(10)..])
}

/// The longest time between two of these.
pub(super) fn longest_gap(answers: &[Duration]) -> Duration {
    answers.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(Duration::MAX)
}

/// When the answers came, as `ping -D` prints it.
pub(super) fn answers(printed: &str) -> Vec<Duration> {
    let at = |line: &str| {
        let seconds: f64 = line.strip_prefix('[')?.split(']').next()?.parse().ok()?;
        line.contains("bytes from").then(|| Duration::from_secs_f64(seconds))
    };
    printed.lines().filter_map(at).collect()
}

/// Asserts that this many runs at each round trip are within the bounds.
#[track_caller]
fn within_bounds(fault: Fault, runs: usize, round_trips: &[u64]) {
    let Some(mut apart) = Apart::new(&format!("gap {fault:?}"), [Kind::Moderate, Kind::Moderate]) else { return };
    for round_trip in round_trips {
        let _delays = apart.slow(Duration::from_millis(*round_trip));
        let mut gaps: Vec<_> = (0..runs).map(|_| gap(&mut apart, fault)).collect();
        gaps.sort_unstable();
        let [median, p95, worst] = [gaps[runs / 2], gaps[(runs * 95).div_ceil(100) - 1], gaps[runs - 1]];
        eprintln!("{fault:?} at {round_trip} ms, {runs} runs: median {median:?}, p95 {p95:?}, worst {worst:?}");
        assert!(worst <= WORST, "{worst:?}");
        if runs > 1 {
            assert!(median <= MEDIAN && p95 <= P95, "{median:?} {p95:?}");
        }
    }
}

#[test]
fn a_path_that_dies_in_both_directions_is_left() {
    within_bounds(Fault::Both, 1, &[20]);
}

#[test]
fn a_path_that_dies_towards_the_peer_is_left() {
    within_bounds(Fault::Towards, 1, &[20]);
}

#[test]
fn a_path_that_dies_from_the_peer_is_left() {
    within_bounds(Fault::From, 1, &[20]);
}

#[test]
fn a_router_that_forgets_is_noticed() {
    within_bounds(Fault::Forgotten, 1, &[20]);
}

#[test]
fn a_host_that_moves_is_followed() {
    within_bounds(Fault::Moved, 1, &[20]);
}

#[test]
fn nats_gap_of_both_directions() {
    within_bounds(Fault::Both, 20, &[20, 80]);
}

#[test]
fn nats_gap_towards_the_peer() {
    within_bounds(Fault::Towards, 20, &[20, 80]);
}

#[test]
fn nats_gap_from_the_peer() {
    within_bounds(Fault::From, 20, &[20, 80]);
}

#[test]
fn nats_gap_of_forgotten_mappings() {
    within_bounds(Fault::Forgotten, 20, &[20, 80]);
}

#[test]
fn nats_gap_of_a_new_address() {
    within_bounds(Fault::Moved, 20, &[20, 80]);
}
