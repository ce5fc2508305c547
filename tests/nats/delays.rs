//! The forwarder that delays: its figures, measured by `ping` and by plain sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::lab::{Attachment, Delay, Delays, End, Host, Internet, Lab, Plain, Way};

/// How many datagrams of [`LENGTH`] bytes make 100 Mb/s for a second.
const RATE: usize = 8_700;
/// Their length: packets of 1,428 bytes.
const LENGTH: usize = 1_400;

/// A host at either end of the Internet, with a forwarder in the middle.
struct Fixture {
    hosts: [Host; 2],
    ends: [Attachment; 2],
    delays: Delays,
    _lab: Lab,
}

impl Fixture {
    fn new(name: &str) -> Option<Fixture> {
        let lab = Lab::new(name)?;
        let internet = Internet::new(&lab);
        let hosts = ["west", "east"].map(|name| lab.host(name));
        let ends = [internet.attach(&lab, &hosts[0], End::West), internet.attach(&lab, &hosts[1], End::East)];
        let [first, middle, last, _] = internet.core();
        let delays = Delays::between(middle, first, last);
        hosts[0].reaches(&ends[1].v4.to_string());
        hosts[0].reaches(&ends[1].v6.to_string());
        Some(Fixture { hosts, ends, delays, _lab: lab })
    }

    /// The median of twenty round trips in milliseconds, as `ping` measures them.
    fn round_trip(&self, address: &str) -> f64 {
        let said = self.hosts[0].exec(format!("ping -n -c 20 -i 0.05 {address}"));
        let times = said.lines().filter_map(|line| line.split_once("time=")?.1.strip_suffix(" ms")?.parse().ok());
        let mut times: Vec<f64> = times.collect();
        assert_eq!(times.len(), 20, "{said}");
        times.sort_by(f64::total_cmp);
        times[10]
    }

    /// A plain socket on each host.
    fn sockets(&self) -> [Plain; 2] {
        [0, 1].map(|index| Plain::open(&self.hosts[index], SocketAddr::new(self.ends[index].v4.into(), 20_000)))
    }
}

#[test]
fn rate_a_round_trip_takes_what_was_set_within_a_tenth() {
    let Some(fixture) = Fixture::new("delays") else { return };
    let [v4, v6] = [fixture.ends[1].v4.to_string(), fixture.ends[1].v6.to_string()];
    assert!(fixture.round_trip(&v4) < 2.0);
    for wanted in [20.0, 80.0] {
        fixture.delays.set_round_trip(Duration::from_secs_f64(wanted / 1_000.0));
        for address in [&v4, &v6] {
            let found = fixture.round_trip(address);
            assert!((wanted..wanted * 1.1).contains(&found), "{found} ms instead of {wanted} ms");
        }
    }
    let Fixture { hosts, delays, .. } = &fixture;
    delays.set(Way::There, Delay { latency: Duration::from_millis(30), ..Delay::default() });
    delays.set(Way::Back, Delay::default());
    let found = fixture.round_trip(&v4);
    assert!((30.0..33.0).contains(&found), "{found} ms instead of 30 ms in one direction");
    let host = hosts[0].clone();
    drop(fixture.delays);
    host.reaches(&v4);
}

#[test]
fn rate_jitter_and_loss_are_those_of_one_direction() {
    let Some(fixture) = Fixture::new("jitter and loss") else { return };
    let [west, east] = fixture.sockets();
    fixture.delays.set(Way::There, Delay { jitter: Duration::from_millis(20), loss: 0.2, ..Delay::default() });
    for number in 0..1_000_u16 {
        west.send(east.address(), &number.to_be_bytes());
        if number % 50 == 49 {
            let _ = west.hear(Duration::from_millis(5));
        }
    }
    let mut arrived = Vec::new();
    while let Some(heard) = east.hear(Duration::from_millis(500)) {
        arrived.push(heard.contents);
    }
    assert!((750..850).contains(&arrived.len()), "{} of 1,000 at 20 % loss", arrived.len());
    assert!(arrived.is_sorted(), "jitter keeps the order");
    assert!(fixture.delays.crossed(Way::There).lost >= 150);
    assert_eq!(fixture.delays.crossed(Way::Back).lost, 0);
}

#[test]
fn rate_nothing_is_lost_at_100_megabits_per_second() {
    let Some(fixture) = Fixture::new("rate of delays") else { return };
    let [west, east] = fixture.sockets();
    fixture.delays.set_round_trip(Duration::from_millis(80));
    let before = fixture.delays.crossed(Way::There);
    let began = Instant::now();
    for number in 0..RATE {
        west.send(east.address(), &[7; LENGTH]);
        // Ten datagrams at a time, at the rate of a wire.
        let due = Duration::from_secs_f64(number as f64 / RATE as f64);
        if number % 10 == 9 {
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    let took = began.elapsed();
    let mut arrived = 0;
    while arrived < RATE && east.hear(Duration::from_secs(1)).is_some() {
        arrived += 1;
    }
    let after = fixture.delays.crossed(Way::There);
    assert_eq!((arrived, after.overflowed, after.lost), (RATE, before.overflowed, before.lost), "sent in {took:?}");
}
