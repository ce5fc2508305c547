//! The exact text that users see.

use std::collections::BTreeMap;
use std::path::PathBuf;

use overlay_daemon::host::{GuardState, HostState};
use overlay_daemon::view::{MtuLimit, PathMtuState, PathMtuStatus, ProbedBy};
use overlay_golden::golden;

use super::*;

fn peer(name: Option<&str>, key: &str, allowed_ips: &[&str]) -> PeerStatus {
    PeerStatus {
        name: name.map(str::to_owned),
        public_key: key.to_owned(),
        endpoint: None,
        path: None,
        endpoint_name: None,
        allowed_ips: allowed_ips.iter().map(|prefix| prefix.parse().expect("a prefix")).collect(),
        state: PeerState::NoEndpoint,
        latest_handshake: None,
        latest_handshake_age_seconds: None,
        received_bytes: 0,
        sent_bytes: 0,
        received_packets: 0,
        sent_packets: 0,
        received_wire_bytes: 0,
        sent_wire_bytes: 0,
        handshakes: 0,
        persistent_keepalive: None,
        allow: None,
        drops: 0,
        path_mtu: None,
    }
}

fn status_of(peers: Vec<PeerStatus>, drops: &[(&str, u64)]) -> Status {
    Status {
        schema: Status::SCHEMA.into(),
        version: "0.1.0".into(),
        interface: InterfaceStatus {
            name: "overlay0".to_owned(),
            public_key: Some("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".to_owned()),
            addresses: vec!["10.77.0.1/24".parse().expect("a prefix"), "fd00::1/64".parse().expect("a prefix")],
            mtu: 1420,
            max_mtu: 1440,
            listen_port: 51820,
            fwmark: None,
            forward: false,
            config: PathBuf::from("/etc/overlay/overlay0.toml"),
            uptime_seconds: 192,
        },
        peers,
        drops: drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        counters: BTreeMap::new(),
        queues: BTreeMap::new(),
        offloads: BTreeMap::new(),
        host: None,
        friend_parcels: BTreeMap::new(),
        lan_announcements: BTreeMap::new(),
        names: None,
        warnings: Vec::new(),
    }
}

#[test]
fn the_interface_stands_above_its_peers() {
    let connected = PeerStatus {
        endpoint: Some("203.0.113.7:51820".parse().expect("an address and a port")),
        path: Some(PathKind::Direct),
        state: PeerState::Connected,
        latest_handshake_age_seconds: Some(12),
        received_bytes: 1_258_291,
        sent_bytes: 3_500,
        allow: Some(["icmp", "tcp/22", "tcp/8000-8010", "udp"].map(str::to_owned).into()),
        ..peer(Some("bob"), "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", &["10.77.0.2/32"])
    };
    let resolving = PeerStatus {
        endpoint_name: Some("carol.example.net:51820".to_owned()),
        allow: Some(Vec::new()),
        ..peer(Some("carol"), "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=", &["10.77.0.3/32", "fd00::3/128"])
    };
    let many = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
    let silent = PeerStatus {
        endpoint: Some("[2001:db8::4]:51820".parse().expect("an address and a port")),
        path: Some(PathKind::Relay),
        endpoint_name: Some("dave.example.net:51820".to_owned()),
        state: PeerState::Suspect,
        latest_handshake_age_seconds: Some(45),
        ..peer(Some("dave"), "4gkZ5iKnTPYgX9YyrQhzJ6nEt6B2TjXIJDDOXJ5rjns=", &["10.77.0.4/32"])
    };
    let nameless = peer(None, "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", &many);
    let drops = [("forged", 2), ("outbound_no_peer", 31), ("replay", 0)];
    golden("overlay status", status(&status_of(vec![connected, resolving, silent, nameless], &drops)));
}

#[test]
fn without_peers_and_drops_it_says_so_or_nothing() {
    golden("overlay status", status(&status_of(vec![], &[("forged", 0)])));
}

#[test]
fn what_the_kernel_dropped_and_which_offloads_are_missing_is_said_only_then() {
    let mut shown = status_of(vec![], &[]);
    let name = |name: &str| name.to_owned();
    shown.counters = [("tun_queue_dropped", 0), ("udp_receive_overflow", 3)].map(|(n, v)| (name(n), v)).into();
    let states = [
        ("tun_tcp", OffloadState::FallenBack),
        ("tun_udp", OffloadState::Unavailable),
        ("udp_coalescing", OffloadState::On),
        ("udp_segmentation", OffloadState::Off),
    ];
    shown.offloads = states.map(|(n, state)| (name(n), state)).into();
    golden("overlay status", status(&shown));

    shown.counters.insert(name("tun_queue_dropped"), 7);
    golden("both ways", status(&shown));
}

#[test]
fn what_was_put_back_and_what_the_guard_dropped_is_said_only_then() {
    let counts = |rows: &[(&str, u64)]| rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let host = HostStatus {
        state: HostState::Intact,
        restored: counts(&[("rule", 0), ("nft_table", 0)]),
        guard: GuardState::On,
        guard_drops: counts(&[("weak_host", 0), ("outside_tunnel", 0)]),
        own_interfaces: vec!["docker0".to_owned()],
        warnings: Vec::new(),
    };
    let mut shown = status_of(vec![], &[]);
    shown.host = Some(host.clone());
    golden("nothing to say", status(&shown));
    shown.host = Some(HostStatus {
        state: HostState::Incomplete,
        restored: counts(&[("rule", 2), ("address", 1), ("route", 0)]),
        guard_drops: counts(&[("weak_host", 7), ("outside_tunnel", 3)]),
        warnings: vec!["nft is not installed".to_owned(), "another thing".to_owned()],
        ..host
    });
    golden("overlay status", status(&shown));
}

#[test]
fn paths_that_carry_less_than_the_interface_promises_are_a_warning() {
    let narrow = |name: &str, mtu: u16, is_narrow: bool| PeerStatus {
        path_mtu: Some(PathMtuStatus {
            mtu,
            state: PathMtuState::Found,
            probed_by: ProbedBy::ControlFrames,
            limit: MtuLimit::Path,
            since: 1_700_000_000,
            configured: 1420,
            is_narrow,
        }),
        ..peer(Some(name), "k", &[])
    };
    let lines = |peers: Vec<PeerStatus>| {
        status(&status_of(peers, &[])).lines().filter(|line| line.starts_with("warning ")).count()
    };
    let bob = || vec![narrow("bob", 1228, true)];
    let many = ["bob", "carol", "dave", "erin", "frank"].map(|name| narrow(name, 1228, true));
    assert_eq!((lines(vec![narrow("bob", 1440, false)]), lines(bob()), lines(many.to_vec())), (0, 1, 1));
    golden("one", status(&status_of(bob(), &[])));
    golden("many", status(&status_of(many.into(), &[])));
}
