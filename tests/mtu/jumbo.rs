//! Links of 9000 bytes: they are used without configuration, and peers behind smaller links do not suffer from that.

use std::time::{Duration, Instant};

use super::road::{FAR, FOUND, LONGEST_STALL, Road, Router, SHORT_STALL, wait_for_route};
use super::streams::{Stream, fetch};
use crate::lab::services::{self, random_file};
use crate::lab::{A, Host, Lab, Outside, within};

/// The inner MTU of a jumbo frame over IPv4.
const JUMBO: u16 = 8_940;
const LEAST_RATIO: f64 = 1.5;

/// The rate of a stream in bits per second, after a short warm-up.
#[track_caller]
fn rate(road: &Road) -> f64 {
    let stream = Stream::start(&road.a, &road.b, FAR.v4);
    stream.progresses_by(32 << 20);
    let (began, before) = (Instant::now(), stream.bytes());
    let took = within(Duration::from_secs(5), "the end of a second", || {
        Some(began.elapsed()).filter(|took| *took >= Duration::from_secs(1))
    });
    (stream.bytes() - before) as f64 * 8.0 / took.as_secs_f64()
}

#[test]
fn rate_at_9000_is_at_least_one_and_a_half_times_that_at_1500() {
    let Some(jumbo) = Road::new("jumbo", 9000) else { return };
    let Some(ethernet) = Road::new("ethernet", 1500) else { return };
    let mut daemons = Vec::new();
    for (road, mtu) in [(&jumbo, JUMBO), (&ethernet, 1440)] {
        daemons.push(road.up(Outside::V4));
        let began = Instant::now();
        road.a.reaches(FAR.v4);
        for host in [&road.a, &road.b] {
            road.found_by(host, began, FOUND, |found| found == mtu);
        }
        wait_for_route(&road.a, FAR.v4, mtu);
    }
    // Both roads exist at the same time, and are measured alternately.
    let mut ratios: Vec<_> = (0..5)
        .map(|_| {
            let (at_1500, at_9000) = (rate(&ethernet), rate(&jumbo));
            eprintln!("{:.0} Mbit/s at 1500, {:.0} at 9000", at_1500 / 1e6, at_9000 / 1e6);
            at_9000 / at_1500
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    eprintln!("ratios {ratios:.2?}");
    assert!(ratios[2] >= LEAST_RATIO, "{ratios:?}");
}

#[test]
fn bulk_traffic_uses_jumbo_frames_and_a_second_peer_behind_1500_is_not_hurt() {
    let Some(lab) = Lab::new("two peers") else { return };
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.host(name));
    let near = lab.router("near");
    lab.link(&a, &b, &["10.2.0.1/24"], &["10.2.0.2/24"]);
    lab.link(&a, &near, &["10.3.0.1/24"], &["10.3.0.254/24"]);
    lab.link(&near, &c, &["10.4.0.254/24"], &["10.4.0.2/24"]);
    a.ip("route add 10.4.0.0/24 via 10.3.0.254");
    c.ip("route add 10.3.0.0/24 via 10.4.0.254");
    for (host, other, mtu) in [(&a, &b, 9000), (&a, &near, 9000), (&near, &c, 1500)] {
        for (end, other) in [(host, other), (other, host)] {
            end.ip(&format!("link set {} mtu {mtu}", end.link_to(other)));
            end.offloads_off(other);
        }
    }
    let config = |host: &Host, inner: &str| host.interface_toml(&[&format!("{inner}/24")]);
    let peer = |host: &Host, inner: &str, outer: &str| {
        host.peer_toml(Some(&format!("{outer}:51820")), &[&format!("{inner}/32")])
    };
    let (on_b, on_c) = ("10.77.0.2", "10.77.0.3");
    let _daemons = [
        b.overlay_up(&(config(&b, on_b) + &peer(&a, A.v4, "10.2.0.1"))),
        c.overlay_up(&(config(&c, on_c) + &peer(&a, A.v4, "10.3.0.1"))),
        a.overlay_up(&(config(&a, A.v4) + &peer(&b, on_b, "10.2.0.2") + &peer(&c, on_c, "10.4.0.2"))),
    ];
    for address in [on_b, on_c] {
        a.reaches(address);
    }
    wait_for_route(&a, on_b, JUMBO);
    wait_for_route(&a, on_c, 1440);

    // Bulk data to one peer, and at the same time files both ways with the other.
    let segment_of = |stream: &str| {
        let said = a.exec(format!("ss -Htin dst {stream}"));
        said.split("mss:").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok()).unwrap_or_else(|| {
            panic!("no mss in {said}");
        })
    };
    let bulk = Stream::start(&a, &b, on_b);
    bulk.progresses_by(64 << 20);
    assert!(segment_of(on_b) > 8_800, "{}", segment_of(on_b));
    let files = [&a, &c].map(|host| random_file(host, "served", 16 << 20));
    let _http = [&a, &c].map(|host| services::http_server(host, host.dir()));
    for (from, address, file) in [(&a, on_c, &files[1]), (&c, A.v4, &files[0])] {
        let fetched = fetch(from, address, file);
        eprintln!("{} beside the bulk: {:.0} Mbit/s, {fetched:?}", from.name(), fetched.rate());
        assert!(fetched.longest_pause < SHORT_STALL, "{fetched:?}");
    }
    bulk.progresses_by(1 << 20);
}

#[test]
fn a_wide_link_to_a_narrow_silent_hop_starts_too_long_and_is_not_stuck() {
    let Some(road) = Road::new("wide", 9000) else { return };
    road.narrow(1500, Router::IsSilent);
    let _daemons = road.up(Outside::V6);
    let (a, b) = (&road.a, &road.b);
    let file = random_file(b, "served", 16 << 20);
    let _http = services::http_server(b, b.dir());
    // At once, before anything has been found.
    a.reaches(FAR.v4);
    let fetched = fetch(a, FAR.v4, &file);
    eprintln!("{fetched:?}");
    assert!(fetched.longest_pause < LONGEST_STALL, "{fetched:?}");
}
