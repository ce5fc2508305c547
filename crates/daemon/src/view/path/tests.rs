//! What follows from the facts of the node.

use overlay_golden::golden;
use serde_json::json;

use super::*;
use crate::view::tests::{bob, view};

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

/// A pair that was probed, and not answered.
fn pair(kind: core::PathKind, remote: &str) -> PairReport {
    PairReport {
        local: None,
        remote: remote.parse().expect("an address and a port"),
        kind,
        channel: None,
        state: core::PairState::Failed,
        is_primary: false,
        is_mirror: false,
        is_named: true,
        round_trip: None,
        loss: (None, None),
        probes: (9, 0),
        tried: Some(at(95)),
        proven: None,
    }
}

/// A pair that works.
fn proven(kind: core::PathKind, remote: &str) -> PairReport {
    PairReport {
        state: core::PairState::Proven,
        round_trip: Some(Duration::from_micros(12_345)),
        loss: (Some(0.1), None),
        probes: (40, 36),
        tried: Some(at(100)),
        proven: Some(at(99)),
        ..pair(kind, remote)
    }
}

/// A peer that is reached through a relay. Its one direct pair was not answered.
fn relayed() -> PathsReport {
    let relay = PairReport { is_primary: true, ..proven(core::PathKind::Relay, "192.0.2.1:7447") };
    PathsReport {
        pairs: vec![relay, pair(core::PathKind::Direct, "203.0.113.7:51820")],
        since: Some(at(70)),
        next_try: Some(at(130)),
        is_active: true,
        has_heard_list: true,
        told: vec!["198.51.100.2:51820".parse().expect("an address and a port")],
        ..PathsReport::default()
    }
}

#[test]
fn every_reason_follows_from_facts_and_has_a_sentence() {
    let direct = |state| PairReport { state, ..pair(core::PathKind::Direct, "203.0.113.7:51820") };
    let with = |pairs: &[PairReport]| {
        let relay = relayed().pairs.swap_remove(0);
        PathsReport { pairs: [&[relay], pairs].concat(), ..relayed() }
    };
    let idle = || with(&[direct(core::PairState::Idle)]);
    let works = || proven(core::PathKind::Direct, "203.0.113.7:51820");
    let cases = [
        (PathsReport { scope: CandidateScope::Relay, ..relayed() }, NotDirect::RelayOnly),
        (with(&[works()]), NotDirect::NotBetter),
        (PathsReport { is_trying: true, ..relayed() }, NotDirect::Trying),
        (PathsReport { is_active: false, ..idle() }, NotDirect::Asleep),
        (PathsReport { has_heard_list: false, ..with(&[]) }, NotDirect::NotTold),
        (with(&[]), NotDirect::NothingToTry),
        (idle(), NotDirect::NotTriedYet),
        (with(&[PairReport { state: core::PairState::Failed, ..works() }]), NotDirect::Lost),
        (PathsReport { told: Vec::new(), ..relayed() }, NotDirect::NothingToTell),
        (relayed(), NotDirect::Unanswered),
    ];
    for (report, reason) in cases {
        assert_eq!(NotDirect::of(&report, PeerState::Connected), Some(reason), "{report:?}");
    }
    assert_eq!(NotDirect::of(&relayed(), PeerState::Handshaking), Some(NotDirect::NoSession));
    let used = PathsReport { pairs: vec![PairReport { is_primary: true, ..works() }], ..relayed() };
    assert_eq!(NotDirect::of(&used, PeerState::Connected), None);

    let named = NotDirect::ALL.map(|reason| {
        assert_eq!(serde_json::to_value(reason).expect("plain data"), reason.name());
        format!("{}: {}", reason.name(), reason.message())
    });
    golden("why not direct", named.join("\n"));
}

#[test]
fn the_path_in_use_stands_at_the_top_too() {
    let view = view([bob()]);
    let state = view.table().read();
    let peer = state.peers()[0];
    let told = serde_json::to_value(PathStatus::of(peer, &relayed(), at(100))).expect("plain data");
    assert_eq!(told["schema"], "overlay.path.v1");
    assert_eq!((&told["peer"], &told["primary"]["remote"]), (&json!("bob"), &json!("192.0.2.1:7447")));
    assert_eq!((&told["primary"]["kind"], &told["primary"]["rtt_ms"]), (&json!("relay"), &json!(12.345)));
    assert_eq!((&told["primary"]["loss"], &told["primary"]["loss_to_peer"]), (&json!(0.1), &json!(0.1)));
    assert!(told["primary"].get("loss_from_peer").is_none());
    for field in ["rtt_ms", "loss", "since"] {
        assert!(told[field].is_number() && told[field] == told["primary"][field], "{field}: {told:#}");
    }
    assert_eq!((&told["next_try_seconds"], &told["primary"]["proven_ms_ago"]), (&json!(30), &json!(1_000)));
    assert_eq!(told["pairs"][0], told["primary"]);
    assert_eq!((&told["pairs"][1]["state"], &told["pairs"][1]["probes_sent"]), (&json!("failed"), &json!(9)));
    assert!(told["pairs"][1].get("since").is_none());
    assert_eq!(told["why_not_direct"]["reason"], "no_session", "bob is not connected");

    let nothing = serde_json::to_value(PathStatus::of(peer, &PathsReport::default(), at(100))).expect("plain data");
    for field in ["primary", "rtt_ms", "loss", "since", "next_try_seconds"] {
        assert!(nothing.get(field).is_none(), "{field}: {nothing:#}");
    }
}

#[test]
fn loss_of_both_directions_is_that_of_the_round_trip() {
    let both = PairReport { loss: (Some(0.1), Some(0.5)), ..proven(core::PathKind::Direct, "203.0.113.7:51820") };
    assert_eq!(PairStatus::of(&both, None, at(100)).loss, 0.55);
    let unknown = PairReport { loss: (None, None), ..both };
    assert_eq!(PairStatus::of(&unknown, None, at(100)).loss, 0.0);
}
