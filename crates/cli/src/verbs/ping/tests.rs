//! The target that an argument refers to, and the text for each probe.

use std::time::Duration;

use overlay_daemon::ping::Answer;
use overlay_golden::golden;

use super::*;
use crate::output::rendered;

/// Two peers: bob with a network and a single address behind it, and router with only 10.0.0.0/8.
fn status() -> Status {
    let peer = |name: &str, key: &str, allowed: [&str; 2]| {
        serde_json::json!({
            "name": name, "public_key": key, "allowed_ips": allowed, "state": "idle", "received_bytes": 0,
            "sent_bytes": 0, "received_packets": 0, "sent_packets": 0, "received_wire_bytes": 0, "sent_wire_bytes": 0,
            "handshakes": 0, "drops": 0,
        })
    };
    let status = serde_json::json!({
        "schema": "overlay.status.v1", "version": "0.1.0", "drops": {}, "counters": {},
        "interface": {
            "name": "overlay0", "public_key": "k", "addresses": ["10.77.0.1/24"], "mtu": 1420, "listen_port": 51820,
            "forward": false, "config": "a.toml", "uptime_seconds": 1,
        },
        "peers": [
            peer("bob", "bobs-key", ["192.168.7.0/24", "10.77.0.2/32"]),
            peer("router", "routers-key", ["10.0.0.0/8", "172.16.0.0/12"]),
        ],
    });
    serde_json::from_value(status).expect("a status")
}

fn at(ip: &str, peer: &str) -> Target {
    Target { ip: ip.parse().expect("an address"), peer: peer.to_owned() }
}

#[test]
fn a_name_and_a_key_stand_for_the_first_single_address() {
    assert_eq!(target("bob", &status()).expect("known"), at("10.77.0.2", "bob"));
    assert_eq!(target("bobs-key", &status()).expect("known"), at("10.77.0.2", "bob"));
}

#[test]
fn an_address_belongs_to_the_most_specific_peer() {
    assert_eq!(target("10.77.0.2", &status()).expect("an address"), at("10.77.0.2", "bob"));
    assert_eq!(target("10.77.0.3", &status()).expect("an address"), at("10.77.0.3", "router"));
}

#[test]
fn an_address_that_no_peer_owns_is_not_asked() {
    let failure = target("192.0.2.1", &status()).expect_err("nobody's");
    assert_eq!((failure.code, &failure.cause), (ExitKind::NotFound, &None));
    golden("ping 192.0.2.1", rendered(&failure, false));

    let mut status = status();
    status.peers.truncate(1);
    let failure = target("10.77.0.1", &status).expect_err("our own");
    assert_eq!(failure.code, ExitKind::NotFound);
    golden("ping 10.77.0.1", rendered(&failure, false));
}

#[test]
fn without_any_answer_it_says_how_things_stand_with_the_peer() {
    let mut status = status();
    let says_why = |status: &Status| {
        let failure = no_answer(&at("10.77.0.2", "bob"), status);
        assert_eq!(failure.code, ExitKind::Timeout);
        golden(status.peers[0].state.name(), rendered(&failure, false));
    };
    says_why(&status);
    let bob = &mut status.peers[0];
    (bob.state, bob.latest_handshake_age_seconds) = (PeerState::Unreachable, Some(192));
    says_why(&status);
    status.peers[0].state = PeerState::Suspect;
    says_why(&status);
    status.peers[0].state = PeerState::Connected;
    says_why(&status);
}

#[test]
fn a_peer_that_cannot_be_asked_is_not_found() {
    let failure = target("bbo", &status()).expect_err("unknown");
    assert_eq!(failure.code, ExitKind::NotFound);
    golden("ping bbo", rendered(&failure, false));

    let failure = target("router", &status()).expect_err("networks only");
    assert_eq!(failure.code, ExitKind::NotFound);
    golden("ping router", rendered(&failure, false));
}

#[test]
fn each_probe_is_a_line_and_the_summary_another() {
    let bob = at("10.77.0.2", "bob");
    let answer = Answer { round_trip: Duration::from_micros(412), ttl: Some(64) };
    let answered = Probe { sequence: 1, answer: Some(answer) };
    let lost = Probe { sequence: 2, answer: None };
    golden("answered", text(&bob, &answered, None));
    golden("lost", text(&bob, &lost, None));
    assert_eq!(
        serde_json::to_string(&line(&bob, &answered)).expect("plain data"),
        r#"{"schema":"overlay.ping.v1","event":"answer","ip":"10.77.0.2","peer":"bob","sequence":1,"round_trip_ms":0.412,"ttl":64}"#
    );
    assert_eq!(
        serde_json::to_string(&line(&bob, &lost)).expect("plain data"),
        r#"{"schema":"overlay.ping.v1","event":"loss","ip":"10.77.0.2","peer":"bob","sequence":2}"#
    );

    let mut summary = Summary::default();
    summary.add(&lost);
    golden("one lost", summary_text(&summary));
    summary.add(&answered);
    golden("one lost, one answered", summary_text(&summary));
}

#[test]
fn with_until_direct_each_answer_says_over_which_path_it_came() {
    let bob = at("10.77.0.2", "bob");
    let answer = Answer { round_trip: Duration::from_micros(412), ttl: Some(64) };
    let answered = Probe { sequence: 1, answer: Some(answer) };
    let path = |kind: &str, remote: &str| -> PairStatus {
        let path = serde_json::json!({
            "kind": kind, "remote": remote, "state": "proven", "is_primary": true, "is_mirror": false, "is_named": true,
            "loss": 0.0, "probes_sent": 3, "probes_answered": 2,
        });
        serde_json::from_value(path).expect("a pair")
    };
    let paths = [path("relay", "192.0.2.1:7447"), path("direct", "198.51.100.2:51820")];
    golden("answered", paths.each_ref().map(|path| text(&bob, &answered, Some(path))).join("\n"));
    assert_eq!(
        serde_json::to_string(&line(&bob, &answered).over(Some(&paths[0]))).expect("plain data"),
        r#"{"schema":"overlay.ping.v1","event":"answer","ip":"10.77.0.2","peer":"bob","sequence":1,"round_trip_ms":0.412,"ttl":64,"path":"relay","remote":"192.0.2.1:7447"}"#
    );
}
