//! A stock WireGuard peer at the end of the road. It does not know control frames, but its host answers echoes.

use std::time::{Duration, Instant};

use super::road::{FAR, FOUND_SLOWLY, Road, Router, SHORT_STALL, around};
use super::streams::fetch;
use crate::lab::services::{self, random_file};
use crate::lab::stock::StockConfig;
use crate::lab::{self, A, Outside, Pings, Stock};

#[track_caller]
fn found_by_echoes(stock: Stock, middle: u16, router: Router, outside: Outside) {
    if !lab::installed("a stock peer", &[stock.program()]) {
        return;
    }
    let Some(road) = Road::new("stock", 1500) else { return };
    let (a, b) = (&road.a, &road.b);
    road.narrow(middle, router);
    let (inner, allowed) = (FAR.inner(), A.allowed());
    let _theirs = stock.up(
        b,
        &StockConfig {
            addresses: &[&inner[0], &inner[1]],
            peer: a,
            endpoint: Some(&A.endpoint(outside, 51820)),
            allowed_ips: &[&allowed[0], &allowed[1]],
            preshared_key_file: None,
        },
    );
    let truth = middle - around(outside);
    let files = [a, b].map(|host| random_file(host, "served", 4 << 20));
    let _http = [a, b].map(|host| services::http_server(host, host.dir()));
    let _ours = a.overlay_up(&road.config_of_a(outside));
    let began = Instant::now();
    a.reaches(FAR.v4);
    // The first large packet starts the search.
    Pings::new(1, Duration::from_millis(20)).of(1_000).are_answered(a, FAR.v4);
    let found = road.found_by(a, began, FOUND_SLOWLY, |_| true);
    eprintln!("{stock:?} behind {middle}, {router:?}, {outside:?}: {found:?}");
    assert_eq!(found.by, "echoes");
    // The answer counts. wireguard-go pads it to a multiple of 16, so behind 1400 over IPv4, 1328 comes back and 1340
    // would not.
    assert!((truth - 16..=truth).contains(&found.mtu), "{found:?} of {truth}");
    // The stock peer has an MTU of 1420 and does not search. Our end of its TCP connections keeps their segments small
    // enough.
    assert!(b.exec(format!("cat /sys/class/net/{}/mtu", b.interface())).starts_with("1420"));
    for (from, address, file) in
        [(a, FAR.v4, &files[1]), (b, A.v4, &files[0]), (b, A.v6, &files[0]), (a, FAR.v6, &files[1])]
    {
        let fetched = fetch(from, address, file);
        assert!(fetched.longest_pause < SHORT_STALL, "{fetched:?}");
    }
}

#[test]
fn a_wireguard_go_behind_1400_is_found_by_echoes_past_a_silent_router_over_ipv4() {
    found_by_echoes(Stock::WireGuardGo, 1400, Router::IsSilent, Outside::V4);
}

#[test]
fn a_wireguard_go_behind_1500_is_found_by_echoes_over_ipv6() {
    found_by_echoes(Stock::WireGuardGo, 1500, Router::Says, Outside::V6);
}

#[test]
fn a_boringtun_behind_1420_is_found_by_echoes_past_a_silent_router_over_ipv6() {
    found_by_echoes(Stock::BoringTun, 1420, Router::IsSilent, Outside::V6);
}

#[test]
fn a_gotatun_behind_1368_is_found_by_echoes_over_ipv4() {
    found_by_echoes(Stock::GotaTun, 1368, Router::Says, Outside::V4);
}
