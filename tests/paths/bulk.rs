//! Long streams of TCP: one that moves from a direct path to the relay and back, and what the relay costs.

use std::time::{Duration, Instant};

use overlay_sim::nat::Kind;
use serde_json::Value;

use super::failover::Fault;
use crate::lab::apart::way;
use crate::lab::{Agent, Apart, Delay, Delays, Way, within};

/// How much longer a round trip through the relay takes.
const RELAY_SLOWER: Duration = Duration::from_millis(60);
/// How much is sent at least, at this rate, and for how long.
const GIB: u64 = 1 << 30;
const RATE: &str = "300M";
const SECONDS: u64 = 120;
/// The longest time in which nothing may arrive.
const STALL: Duration = Duration::from_secs(1);
/// How long the direct path is broken.
const BROKEN: Duration = Duration::from_secs(8);
/// How long a direct path may take, also after a round that has failed.
const DIRECT: Duration = Duration::from_secs(90);

/// How many packets both have dropped as replays, and how many bytes they have sent twice.
fn replays_and_mirrored(agents: [&Agent; 2]) -> (u64, u64) {
    let counts = agents.map(|agent| {
        let status: Value = serde_json::from_str(&agent.verb("status --json").stdout).expect("JSON");
        let count = |value: &Value| value.as_u64().expect("a number");
        (count(&status["drops"]["replay"]), count(&status["counters"]["mirrored_bytes"]))
    });
    (counts.iter().map(|count| count.0).sum(), counts.iter().map(|count| count.1).sum())
}

#[test]
fn nats_bulk_moves_to_the_relay_and_back() {
    let Some(mut apart) = Apart::new("bulk", [Kind::Moderate, Kind::Moderate]) else { return };
    apart.restart(Duration::ZERO);
    // What the relay sends to either agent takes longer.
    let core = apart.internet.core();
    let late = Delays::between(&core[2], &apart.world.router, &core[3]);
    late.set(Way::There, Delay { latency: RELAY_SLOWER / 2, ..Delay::default() });
    let _ping = apart.alice.host.spawn(format!("ping -i 0.2 {}", apart.bob.v6()));
    apart.are_direct_within(DIRECT);

    let address = apart.bob.v6();
    let _server = apart.bob.host.spawn("iperf3 -s -1");
    apart.bob.host.wait_for_listener(5_201);
    // Its receiver reports the intervals.
    let stream = apart.alice.host.spawn(format!("iperf3 -J -R -c {address} -b {RATE} -t {SECONDS} -i 0.1"));
    std::thread::sleep(Duration::from_secs(5));
    Fault::Both.begin(&apart);
    let broken = Instant::now();
    within(Duration::from_secs(3), "the relay", || {
        (way(&apart.bob, "alice").as_deref() == Some("relay")).then_some(())
    });
    std::thread::sleep(BROKEN.saturating_sub(broken.elapsed()));
    // What was mirrored has arrived twice, and was dropped once.
    let before = replays_and_mirrored([&apart.alice, &apart.bob]);
    Fault::Both.end(&apart);
    apart.are_direct_within(DIRECT);
    eprintln!("direct again after {:.1?}", broken.elapsed().saturating_sub(BROKEN));
    std::thread::sleep(Duration::from_secs(2));
    let after = replays_and_mirrored([&apart.alice, &apart.bob]);

    let report: Value =
        serde_json::from_str(&stream.succeed_within(Duration::from_secs(SECONDS + 30))).expect("iperf3 -J writes JSON");
    let intervals = report["intervals"].as_array().expect("intervals");
    let mut arrived: Vec<_> = intervals
        .iter()
        .filter(|interval| interval["sum"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0))
        .filter_map(|interval| interval["sum"]["start"].as_f64())
        .collect();
    arrived.push(SECONDS as f64);
    let stall = arrived.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    let bytes = report["end"]["sum_received"]["bytes"].as_u64().expect("a number of bytes");
    let (replays, mirrored) = (after.0 - before.0, after.1 - before.1);
    eprintln!(
        "{bytes} bytes, longest stall {stall:.1} s; since the fault has ended: {replays} replays, {mirrored} bytes mirrored"
    );
    assert!(bytes >= GIB, "{bytes} bytes");
    assert!(stall <= STALL.as_secs_f64(), "{stall} s");
    assert_eq!(replays, 0, "packets dropped as replays after a planned move, with {mirrored} bytes mirrored");
}

/// How much more CPU a relayed stream may cost, in percent.
const MORE: f64 = 5.0;
/// How much is sent to measure it, how often, over each kind of path.
const MEASURED: &str = "512M";
const ROUNDS: usize = 7;

/// The CPU seconds that both daemons have used.
fn used(apart: &Apart) -> f64 {
    let of = |agent: &Agent| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.daemon().pid())).expect("it runs");
        let fields: Vec<_> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    };
    of(&apart.alice) + of(&apart.bob)
}

#[test]
fn nats_bulk_costs_the_daemon_no_more_through_a_relay() {
    let Some(mut apart) = Apart::new("relay cost", [Kind::Moderate, Kind::Moderate]) else { return };
    apart.restart(Duration::ZERO);
    let address = apart.bob.v6();
    apart.alice.host.reaches(&address);
    let _ping = apart.alice.host.spawn(format!("ping -i 0.2 {address}"));
    let mut cost = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let is_relayed = round % 2 == 1;
        if is_relayed {
            Fault::Both.begin(&apart);
            let both = |apart: &Apart| [way(&apart.alice, "bob"), way(&apart.bob, "alice")];
            within(DIRECT, "the relay", || {
                both(&apart).iter().all(|way| way.as_deref() == Some("relay")).then_some(())
            });
        } else {
            apart.restart(Duration::ZERO);
            apart.are_direct_within(DIRECT);
        }
        let _server = apart.bob.host.spawn("iperf3 -s -1");
        apart.bob.host.wait_for_listener(5_201);
        let before = used(&apart);
        let stream = apart.alice.host.spawn(format!("iperf3 -c {address} -n {MEASURED} -b {RATE}"));
        stream.succeed_within(Duration::from_secs(120));
        cost[usize::from(is_relayed)].push(used(&apart) - before);
        if is_relayed {
            Fault::Both.end(&apart);
        }
    }
    cost.iter_mut().for_each(|all| all.sort_by(f64::total_cmp));
    let [direct, relayed] = cost.map(|all| all[ROUNDS / 2]);
    let more = 100.0 * (relayed / direct - 1.0);
    eprintln!("{MEASURED} cost {direct:.2} s of CPU directly and {relayed:.2} s through the relay: {more:+.1} %");
    assert!(more <= MORE, "{more:+.1} %");
}
