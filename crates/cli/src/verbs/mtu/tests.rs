//! The exact text that users see, and the JSON.

use overlay_golden::golden;
use serde_json::json;

use super::*;
use crate::output::rendered;

/// Four peers: bob's path is narrow, carol's is wide, nothing is known about dave's, and a peer without a name still
/// has its initial value.
fn status() -> Status {
    let path = |mtu: u16, state: &str, probed_by: &str, limit: &str, since: u64| {
        json!({
            "mtu": mtu, "state": state, "probed_by": probed_by, "limit": limit, "since": since, "configured": 1420,
            "is_narrow": mtu < 1420,
        })
    };
    let peer = |name: Option<&str>, key: &str, path_mtu: Option<serde_json::Value>| {
        let mut peer = json!({
            "public_key": key, "allowed_ips": ["10.77.0.2/32"], "state": "idle", "received_bytes": 0, "sent_bytes": 0,
            "received_packets": 0, "sent_packets": 0, "received_wire_bytes": 0, "sent_wire_bytes": 0, "handshakes": 0,
            "drops": 0,
        });
        if let Some(name) = name {
            peer["name"] = name.into();
        }
        if let Some(path_mtu) = path_mtu {
            peer["path_mtu"] = path_mtu;
        }
        peer
    };
    let status = json!({
        "schema": "overlay.status.v1", "version": "0.1.0", "drops": {}, "counters": {},
        "interface": {
            "name": "overlay0", "public_key": "k", "addresses": ["10.77.0.1/24"], "mtu": 1420, "max_mtu": 1440,
            "listen_port": 51820, "forward": false, "config": "a.toml", "uptime_seconds": 1,
        },
        "peers": [
            peer(Some("bob"), "bobs-key", Some(path(1228, "found", "control_frames", "path", 988))),
            peer(Some("carol"), "carols-key", Some(path(1440, "searching", "echoes", "interface", 1000))),
            peer(Some("dave"), "daves-key", None),
            peer(None, "nobodys-key", Some(path(1420, "assumed", "nothing", "path", 880))),
        ],
    });
    serde_json::from_value(status).expect("a status")
}

#[test]
fn every_peer_has_a_line() {
    let status = status();
    golden("overlay mtu", text(&status, &status.peers.iter().collect::<Vec<_>>(), 1000));
}

#[test]
fn without_peers_it_says_so() {
    golden("overlay mtu", text(&status(), &[], 0));
}

#[test]
fn json_has_what_is_in_force_and_what_was_told() {
    let status = status();
    let all: Vec<_> = status.peers.iter().collect();
    let answer = serde_json::to_value(answer(&status, &all)).expect("plain data");
    assert_eq!(answer["schema"], "overlay.mtu.v1");
    assert_eq!(answer["interface"], json!({ "name": "overlay0", "mtu": 1420, "max_mtu": 1440 }));
    assert_eq!(
        answer["peers"][0],
        json!({
            "name": "bob", "public_key": "bobs-key", "mtu": 1228,
            "path_mtu": {
                "mtu": 1228, "state": "found", "probed_by": "control_frames", "limit": "path", "since": 988,
                "configured": 1420, "is_narrow": true,
            },
        })
    );
    assert_eq!(answer["peers"][2], json!({ "name": "dave", "public_key": "daves-key", "mtu": 1420 }));
}

#[test]
fn each_limit_has_words_of_its_own() {
    let words = ["interface", "peer", "host", "path"].map(|limit| {
        let path = json!({
            "mtu": 1380, "state": "found", "probed_by": "control_frames", "limit": limit, "since": 1, "configured": 1420,
            "is_narrow": false,
        });
        super::limit(&serde_json::from_value(path).expect("a path"))
    });
    golden("interface, peer, host, path", words.join("\n"));
}

#[test]
fn a_peer_goes_by_its_name_its_key_and_its_addresses() {
    let status = status();
    for argument in ["bob", "bobs-key"] {
        assert_eq!(peers::find(argument, &status).expect("known").public_key, "bobs-key", "{argument}");
    }
    assert!(peers::find("10.77.0.2", &status).is_ok());
    let failure = peers::find("eve", &status).expect_err("unknown");
    assert_eq!(failure.code.exit_code(), 6);
    golden("overlay mtu eve", rendered(&failure, false));
}
