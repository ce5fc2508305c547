//! What programs learn that ask for the path MTU.

use std::time::Instant;

use super::road::{FAR, FOUND_SLOWLY, Road, Router, SHORT_STALL, mtu, wait_for_route};
use super::streams::fetch;
use crate::lab::services::{self, random_file};
use crate::lab::{self, A, Host, Outside};

/// Length of the ICMP and IP headers around the payload of a `ping`.
const PING_OVERHEAD: [(&str, u16); 2] = [(FAR.v4, 28), (FAR.v6, 48)];

/// Checks that an unfragmented packet of exactly `mtu` bytes is answered, and that one more byte is refused with that
/// size.
#[track_caller]
fn ping_learns(from: &Host, mtu: u16) {
    for (address, around) in PING_OVERHEAD {
        let ping = |len: u16| from.run(format!("ping -n -M do -c 1 -W 2 -s {} {address}", len - around));
        let longest = ping(mtu);
        assert_eq!(longest.code, 0, "{mtu} bytes to {address}: {longest:?}");
        let longer = ping(mtu + 1);
        assert_ne!(longer.code, 0, "{} bytes to {address}: {longer:?}", mtu + 1);
        // The kernel itself knows: nothing was sent.
        let said = format!("{}{}", longer.stdout, longer.stderr);
        assert!(said.contains(&format!("mtu={mtu}")) || said.contains(&format!("mtu: {mtu}")), "{said}");
    }
}

/// Checks that `tracepath` ends at the peer and reports this size.
#[track_caller]
fn tracepath_learns(from: &Host, mtu: u16) {
    for (address, _) in PING_OVERHEAD {
        let said = from.exec(format!("tracepath -n {address}"));
        let resume = said.lines().find(|line| line.contains("Resume:")).unwrap_or_else(|| panic!("{said}"));
        assert!(resume.contains(&format!("pmtu {mtu} ")) && resume.contains("hops 1"), "to {address}: {said}");
    }
}

#[test]
fn ping_and_tracepath_report_the_size_that_was_found() {
    if !lab::installed("tracepath", &["tracepath"]) {
        return;
    }
    for (middle, router, outside) in [
        (1500, Router::Says, Outside::V4),
        (1400, Router::IsSilent, Outside::V6),
        (1492, Router::IsSilent, Outside::V4),
    ] {
        let Some(road) = Road::new("sizes", 1500) else { return };
        road.narrow(middle, router);
        let _daemons = road.up(outside);
        let began = Instant::now();
        road.a.reaches(FAR.v4);
        let found = road.found_by(&road.a, began, FOUND_SLOWLY, |_| true);
        wait_for_route(&road.a, FAR.v4, found.mtu);
        ping_learns(&road.a, found.mtu);
        tracepath_learns(&road.a, found.mtu);
    }
}

#[test]
fn below_1280_ipv4_is_told_the_size_and_ipv6_1280() {
    let Some(road) = Road::new("sizes", 1500) else { return };
    road.narrow(1280, Router::IsSilent);
    let _daemons = road.up(Outside::V6);
    let began = Instant::now();
    road.a.reaches(FAR.v4);
    let found = road.found_by(&road.a, began, FOUND_SLOWLY, |_| true);
    assert_eq!(found.mtu, 1200);
    road.found_by(&road.b, began, FOUND_SLOWLY, |_| true);
    wait_for_route(&road.a, FAR.v4, found.mtu);
    let ping = |address: &str, len: u16| road.a.run(format!("ping -n -M do -c 1 -W 2 -s {len} {address}"));
    assert_eq!(ping(FAR.v4, 1200 - 28).code, 0);
    let refused = ping(FAR.v4, 1201 - 28);
    assert!(refused.code != 0 && format!("{refused:?}").contains("1200"), "{refused:?}");
    // A packet of IPv6's minimum MTU, in two fragments each way.
    let longest = ping(FAR.v6, 1280 - 48);
    assert_eq!(longest.code, 0, "{longest:?}");
    let refused = ping(FAR.v6, 1281 - 48);
    assert!(refused.code != 0 && format!("{refused:?}").contains("1280"), "{refused:?}");
    road.b.exec(format!("ping -n -M do -c 3 -i 0.1 -W 2 -s {} {}", 1280 - 48, A.v6));
}

#[test]
fn ways_that_differ_are_found_each() {
    let Some(road) = Road::new("differ", 1500) else { return };
    let (a, b) = (&road.a, &road.b);
    road.narrow_towards_b(1400);
    let files = [a, b].map(|host| random_file(host, "served", 8 << 20));
    let _http = [a, b].map(|host| services::http_server(host, host.dir()));
    let _daemons = road.up(Outside::V4);
    let began = Instant::now();
    a.reaches(FAR.v4);
    // What `b` sends longer is a reason for `a` to search once more, and no more than that.
    road.found_by(b, began, FOUND_SLOWLY, |mtu| mtu == 1440);
    road.found_by(a, began, FOUND_SLOWLY, |mtu| mtu == 1340);
    for (from, address, file) in [(a, FAR.v4, &files[1]), (b, A.v4, &files[0]), (b, A.v6, &files[0])] {
        let fetched = fetch(from, address, file);
        assert!(fetched.longest_pause < SHORT_STALL, "{fetched:?}");
    }
    assert_eq!([mtu(a)["mtu"].clone(), mtu(b)["mtu"].clone()], [1340, 1440]);
}

#[test]
fn where_routes_are_left_alone_senders_are_told_by_icmp() {
    let Some(road) = Road::new("untouched", 1500) else { return };
    let (a, b) = (&road.a, &road.b);
    road.narrow(1400, Router::IsSilent);
    let files = [a, b].map(|host| random_file(host, "served", 8 << 20));
    let _http = [a, b].map(|host| services::http_server(host, host.dir()));
    let untouched = |config: String| config.replacen("[[peer]]", "table = \"off\"\n\n[[peer]]", 1);
    let _daemons = [
        a.overlay_up(&untouched(road.config_of_a(Outside::V4))),
        b.overlay_up(&untouched(road.config_of_b(Outside::V4))),
    ];
    let began = Instant::now();
    a.reaches(FAR.v4);
    for host in [a, b] {
        road.found_by(host, began, FOUND_SLOWLY, |mtu| mtu == 1340);
        assert!(!host.ip("route show").contains("1340"), "no route of ours says so");
    }
    for (from, address, file) in
        [(a, FAR.v4, &files[1]), (b, A.v4, &files[0]), (a, FAR.v6, &files[1]), (b, A.v6, &files[0])]
    {
        let fetched = fetch(from, address, file);
        assert!(fetched.longest_pause < SHORT_STALL, "{fetched:?}");
    }
    for (address, around) in PING_OVERHEAD {
        let ping = || a.run(format!("ping -n -M do -c 1 -W 2 -s {} {address}", 1341 - around));
        assert_ne!(ping().code, 0);
        wait_for_route(a, address, 1340);
        let said = format!("{:?}", ping());
        assert!(said.contains("mtu=1340") || said.contains("mtu: 1340"), "{said}");
    }
}

/// The problem that all of this solves, and proof that these roads have it.
#[test]
fn without_the_search_the_same_road_answers_pings_and_hangs() {
    let Some(road) = Road::new("black hole", 1500) else { return };
    let (a, b) = (&road.a, &road.b);
    road.narrow(1400, Router::IsSilent);
    random_file(b, "served", 1 << 20);
    let _http = services::http_server(b, b.dir());
    let without = |config: String| config + "\n[tuning]\nmtu_discovery = \"off\"\n";
    let _daemons =
        [a.overlay_up(&without(road.config_of_a(Outside::V4))), b.overlay_up(&without(road.config_of_b(Outside::V4)))];
    a.reaches(FAR.v4);
    let url = format!("http://{}:{}/served", FAR.v4, services::HTTP);
    let said = a.run(format!("curl -sS --noproxy * --max-time 4 -o /dev/null {url}"));
    assert_eq!(said.code, 28, "a timeout: {said:?}");
    let known = mtu(a);
    assert!(known["mtu"] == 1420 && known["path_mtu"].is_null(), "{known:#}");
    a.reaches(FAR.v4);
}
