//! What people and programs read.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use overlay_daemon::netcheck::{Dropped, Report};
use overlay_golden::golden;
use overlay_wire::signed::SecretKey;
use serde_json::json;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn family_of(standing: Standing, servers: &[(&str, Outcome)]) -> FamilyReport {
    FamilyReport {
        standing,
        mapped: Vec::new(),
        mapping: Mapping::Unknown,
        filtering: Filtering::Unknown,
        servers: servers.iter().map(|(server, outcome)| (address(server), *outcome)).collect(),
    }
}

fn asked(host: &str, addresses: &[&str], error: Option<&str>) -> Asked {
    Asked {
        server: Server { host: host.to_owned(), port: 3478 },
        addresses: addresses.iter().map(|text| address(text)).collect(),
        error: error.map(str::to_owned),
    }
}

/// IPv4 behind a NAT, and IPv6 without a route.
fn found() -> Checked {
    let mapped = address("203.0.113.7:40000");
    let answered = |micros| Outcome::Answered { mapped, round_trip: Duration::from_micros(micros) };
    let v4 = FamilyReport {
        mapped: vec![mapped],
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ..family_of(
            Standing::Works,
            &[("192.0.2.1:3478", answered(23_100)), ("198.51.100.1:3478", Outcome::Refused { code: 420 })],
        )
    };
    let v6 = family_of(Standing::Unreachable, &[("[2001:db8::1]:3478", Outcome::Unreachable)]);
    Checked {
        report: Report { v4, v6 },
        servers: vec![
            asked("stun.example.org", &["192.0.2.1:3478", "[2001:db8::1]:3478"], None),
            asked("198.51.100.1", &["198.51.100.1:3478"], None),
            asked("nowhere.example.org", &[], Some("failed to lookup\x1b[31m")),
        ],
        dropped: Dropped::default(),
    }
}

fn blocked() -> Checked {
    Checked {
        report: Report {
            v4: family_of(Standing::Silent, &[("192.0.2.1:3478", Outcome::Silent)]),
            v6: family_of(Standing::Untried, &[]),
        },
        servers: vec![asked("192.0.2.1", &["192.0.2.1:3478"], None)],
        dropped: Dropped::default(),
    }
}

#[test]
fn the_answer_comes_first_and_then_each_server() {
    golden("behind a NAT", text(&found()));
    golden("UDP is blocked", text(&blocked()));
}

#[test]
fn json_has_every_family_and_every_server() {
    let found = serde_json::to_value(shown(&found())).expect("JSON");
    let unreachable = json!({ "address": "[2001:db8::1]:3478", "state": "unreachable" });
    let answered = json!({
        "address": "192.0.2.1:3478", "state": "answered", "mapped": "203.0.113.7:40000", "round_trip_ms": 23.1,
    });
    let refused = json!({ "address": "198.51.100.1:3478", "state": "refused", "code": 420 });
    let expected = json!({
        "schema": "overlay.netcheck.v1",
        "udp": true,
        "mapping": "endpoint_independent",
        "filtering": "address_and_port_dependent",
        "ipv4": {
            "state": "works",
            "mapped": ["203.0.113.7:40000"],
            "mapping": "endpoint_independent",
            "filtering": "address_and_port_dependent",
        },
        "ipv6": { "state": "unreachable", "mapped": [], "mapping": "unknown", "filtering": "unknown" },
        "servers": [
            { "host": "stun.example.org", "port": 3478, "addresses": [answered, unreachable] },
            { "host": "198.51.100.1", "port": 3478, "addresses": [refused] },
            { "host": "nowhere.example.org", "port": 3478, "error": "failed to lookup\u{1b}[31m", "addresses": [] },
        ],
    });
    assert_eq!(found, expected);
    let blocked = serde_json::to_value(shown(&blocked())).expect("JSON");
    assert_eq!((&blocked["udp"], &blocked["ipv6"]["state"]), (&json!(false), &json!("untried")));
    let nothing = Report { v4: family_of(Standing::Untried, &[]), v6: family_of(Standing::Untried, &[]) };
    let nothing = Checked { report: nothing, servers: Vec::new(), dropped: Dropped::default() };
    assert_eq!(serde_json::to_value(shown(&nothing)).expect("JSON").get("udp"), None);
}

#[test]
fn without_servers_every_rendezvous_of_the_config_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lab.toml");
    let of = |text: &str| {
        std::fs::write(&path, text).expect("our own folder");
        servers(&Netcheck { config: Some(path.display().to_string()), server: Vec::new() })
    };
    let [one, two, net] = [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]).public());
    let agent = format!(
        "[interface]\nname = \"lab\"\n[agent]\nname = \"alice\"\nnetwork = \"lab\"\n\
         rendezvous = [\"https://rv.example:7447#{one}.{net}\", \"https://[2001:db8::1]:7448#{two}.{net}\"]\n"
    );
    let server = |host: &str, port| Server { host: host.to_owned(), port };
    let expected = vec![server("rv.example", 7447), server("2001:db8::1", 7448)];
    assert_eq!(of(&agent).map_err(|failure| failure.error), Ok(expected));

    let fixed = "[interface]\nname = \"lab\"\naddresses = [\"10.77.0.1/24\"]\nprivate_key_file = \"lab.key\"\n";
    let key = folder.path().join("lab.key");
    std::fs::write(&key, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").expect("our own folder");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    let failure = of(fixed).expect_err("no rendezvous");
    assert_eq!(
        (failure.code, failure.hint.as_deref()),
        (ExitKind::Config, Some("overlay netcheck --server HOST:PORT"))
    );
}

#[test]
fn more_servers_than_a_check_asks_are_refused() {
    let given = |count: usize| {
        let server = (1..=count).map(|n| Server { host: "192.0.2.1".to_owned(), port: n as u16 }).collect();
        servers(&Netcheck { config: None, server })
    };
    assert_eq!(given(MAX_SERVERS).map(|servers| servers.len()).map_err(|failure| failure.code), Ok(MAX_SERVERS));
    assert_eq!(given(MAX_SERVERS + 1).map_err(|failure| failure.code), Err(ExitKind::Usage));
}
