//! Forged reports by an attacker who can guess a flow do not change an MTU that was found.

use std::time::{Duration, Instant};

use super::road::{FAR, FOUND, Road, SHORT_STALL, around, mtu};
use super::streams::Stream;
use crate::lab::services::PYTHON;
use crate::lab::{A, Host, Outside, Process, SHORTLY, within};

const TOO_BIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mtu/too_big.py");

/// The forged MTU over IPv4. The kernel accepts it, and it is smaller than the MTU with which any search begins.
const FORGED: u16 = 1_000;

fn outer(outside: Outside) -> (&'static str, &'static str) {
    match outside {
        Outside::V4 => (A.outer_v4, FAR.outer_v4),
        Outside::V6 => (A.outer_v6, FAR.outer_v6),
    }
}

/// Starts the forger on the first router of the road, which sees the datagrams that pass.
fn forger(near: &Host, outside: Outside, mtu: u16, kind: &str) -> Process {
    let (victim, peer) = outer(outside);
    near.spawn(format!("{PYTHON} {TOO_BIG} {victim} {peer} 51820 {mtu} {kind}"))
}

/// Checks eight times, half a second apart, that a stream's MTU has not become smaller.
#[track_caller]
fn nothing_changes(road: &Road, stream: &Stream, truth: u16) {
    for _ in 0..8 {
        let began = Instant::now();
        within(SHORTLY, "half a second", || (began.elapsed() > Duration::from_millis(500)).then_some(()));
        let known = mtu(&road.a);
        assert_eq!((&known["mtu"], &known["path_mtu"]["state"]), (&truth.into(), &"found".into()), "{known:#}");
    }
    let pause = stream.take_longest_pause();
    eprintln!("the stream stood still for {pause:?}");
    assert!(pause < SHORT_STALL, "{pause:?}");
}

#[track_caller]
fn is_not_believed(outside: Outside) {
    let Some(road) = Road::new("forged", 1500) else { return };
    let truth = 1500 - around(outside);
    // The forged report is already there when the search begins.
    let forged = if outside == Outside::V4 { FORGED } else { 1280 };
    let valid = forger(&road.near, outside, forged, "valid");
    let _on_b = road.b.overlay_up(&road.config_of_b(outside));
    let _on_a = road.a.overlay_up(&road.config_of_a(outside));
    let began = Instant::now();
    road.a.reaches(FAR.v4);
    for host in [&road.a, &road.b] {
        let found = road.found_by(host, began, FOUND, |_| true);
        eprintln!("{found:?} on {}", host.name());
        assert_eq!(found.mtu, truth);
    }
    // The forgery is a good one: the kernel accepts it.
    let (_, peer) = outer(outside);
    let route = road.a.ip(&format!("route get {peer}"));
    assert!(route.contains(&format!("mtu {forged}")), "{route}");

    let stream = Stream::start(&road.a, &road.b, FAR.v4);
    stream.progresses_by(1 << 20);
    stream.take_longest_pause();
    nothing_changes(&road, &stream, truth);
    drop(valid);

    let mut mangled = forger(&road.near, outside, 0, "mangled");
    nothing_changes(&road, &stream, truth);
    let ended = mangled.ended();
    assert!(ended.is_none(), "nothing was forged any more: {ended:?}");
    stream.progresses_by(1 << 20);
}

#[test]
fn too_big_from_a_forger_and_mangled_changes_nothing_over_ipv4() {
    is_not_believed(Outside::V4);
}

#[test]
fn too_big_from_a_forger_and_mangled_changes_nothing_over_ipv6() {
    is_not_believed(Outside::V6);
}
