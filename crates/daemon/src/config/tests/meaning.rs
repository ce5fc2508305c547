//! Configs that are right, and what they mean.

use std::net::SocketAddr;

use overlay_core::{Joins, Protocol, Rule};

use super::*;

#[test]
fn every_key_is_read_as_it_is_meant() {
    let config = accepted(&format!(
        r#"
[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24", "fd00:77::1/64", "10.78.0.1"]
listen_port = 0
mtu = 1420
forward = true
fwmark = 0x77
table = 1000
dns = "off"
guard = "strict"

[[peer]]
name = "bob"
public_key = "{BOB}"
preshared_key_file = "bob.psk"
endpoint = "[2001:db8::7]:51820"
allowed_ips = ["10.77.0.2/32", "fd00:77::2", "0.0.0.0/0"]
persistent_keepalive = 25
allow = ["icmp", "tcp/22", "udp/8000-8010", "47", "58"]

[[peer]]
public_key = "{CAROL}"
endpoint = "carol.example.net.:443"
allowed_ips = []
allow = []

[metrics]
listen = "127.0.0.1:9586"

[tuning]
udp_gso = "off"
tun_offload = "on"
scheduling = "realtime"
mtu_discovery = "off"
"#
    ));

    let Interface { name, private_key, addresses, listen_port, mtu, forward, fwmark, table, dns, guard } =
        &config.interface;
    assert_eq!((name.as_str(), *listen_port, *forward), ("overlay0", 0, true));
    assert!(private_key.is_some() && public_key_of(&config) == OWN_PUBLIC);
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.77.0.1/24", "fd00:77::1/64", "10.78.0.1/32"]);
    assert_eq!((*mtu, *fwmark, *table, *dns), (Mtu::Fixed(1420), Some(0x77), Table::Number(1000), Dns::Off));
    assert_eq!(*guard, Guard::Strict);

    let [bob, carol] = config.peers.as_slice() else { panic!("two peers") };
    assert_eq!(bob.name.as_deref(), Some("bob"));
    assert_eq!(keys::encode_public(&bob.public_key), BOB);
    assert_eq!(bob.preshared_key.as_ref().map(|key| keys::encode_secret(key).to_string()).as_deref(), Some(PRESHARED));
    assert_eq!(bob.endpoint, Some(Endpoint::Address("[2001:db8::7]:51820".parse::<SocketAddr>().unwrap())));
    let shown: Vec<_> = bob.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.77.0.2/32", "fd00:77::2/128", "0.0.0.0/0"]);
    assert_eq!(bob.persistent_keepalive, Some(25));
    let rule = |protocol, ports| Rule { protocol, ports };
    let rules = [
        rule(Protocol::Icmp, None),
        rule(Protocol::Tcp, Some(22..=22)),
        rule(Protocol::Udp, Some(8000..=8010)),
        rule(Protocol::Number(47), None),
        rule(Protocol::Icmp, None),
    ];
    assert_eq!(bob.allow.as_deref(), Some(rules.as_slice()));
    assert_eq!(carol.name, None);
    assert_eq!(carol.endpoint, Some(Endpoint::Name { host: "carol.example.net".to_owned(), port: 443 }));
    assert_eq!(carol.allow.as_deref(), Some([].as_slice()));

    assert_eq!(config.metrics, Some("127.0.0.1:9586".parse().unwrap()));
    let tuning = Tuning {
        udp_gso: Switch::Off,
        tun_offload: Switch::On,
        scheduling: Scheduling::Realtime,
        mtu_discovery: MtuDiscovery::Off,
    };
    assert_eq!(config.tuning, tuning);
    assert!(!bob.mtu_discovery && !bob.to_core().mtu_discovery);
}

#[test]
fn what_is_left_out_has_the_defaults_of_wireguard() {
    let text = format!(
        "[interface]\nprivate_key_file = \"own.key\"\naddresses = [\"10.77.0.1/24\"]\n\
         [[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\n"
    );
    let config = accepted(&text);
    assert_eq!(config.interface.name, "lab", "that of the file");
    assert_eq!(config.interface.listen_port, 51820);
    assert_eq!(
        (config.interface.mtu, config.interface.table, config.interface.dns, config.interface.guard),
        (Mtu::Auto, Table::Auto, Dns::Auto, Guard::Auto)
    );
    assert_eq!((config.interface.forward, config.interface.fwmark), (false, None));
    assert_eq!((config.metrics, config.tuning), (None, Tuning::default()));
    let peer = &config.peers[0];
    assert!(peer.mtu_discovery && peer.to_core().mtu_discovery);
    assert_eq!((&peer.name, &peer.endpoint, peer.persistent_keepalive), (&None, &None, None));
    assert!(peer.preshared_key.is_none() && peer.allow.is_none(), "no secret, and everything allowed");
    assert!(config.warnings().is_empty());
}

#[test]
fn zero_switches_a_number_off() {
    let config = accepted(&format!(
        "{INTERFACE}fwmark = 0\n\
         [[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\npersistent_keepalive = 0\n"
    ));
    assert_eq!((config.interface.fwmark, config.peers[0].persistent_keepalive), (None, None));
}

#[test]
fn the_node_gets_what_the_config_says() {
    let config = accepted(&format!(
        "{INTERFACE}forward = true\n\
         [[peer]]\npublic_key = \"{BOB}\"\npreshared_key_file = \"bob.psk\"\nendpoint = \"bob.example.net:51820\"\n\
         allowed_ips = [\"10.77.0.2/32\"]\npersistent_keepalive = 25\nallow = [\"icmp\"]\n"
    ));
    let node = config.to_node(MtuRange { start: 1400, max: 1440 }, Joins::NOTHING, [7; 32]);
    assert_eq!(node.addresses, ["10.77.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((node.mtu, node.max_mtu, node.forward, node.seed), (1400, 1440, true, [7; 32]));
    assert_eq!(*keys::encode_secret(&node.private_key.expect("a key")), OWN);

    let peer = config.peers[0].to_core();
    assert_eq!(peer.endpoint, None, "a name is not an address: its addresses are told when they are known");
    assert_eq!(peer.persistent_keepalive, Some(Duration::from_secs(25)));
    assert_eq!(peer.preshared_key.map(|key| keys::encode_secret(&key).to_string()).as_deref(), Some(PRESHARED));
    assert_eq!(peer.allow, Some(vec![Rule { protocol: Protocol::Icmp, ports: None }]));
}

#[test]
fn a_literal_endpoint_is_where_the_node_begins() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    assert_eq!(config.peers[0].to_core().endpoint, Some("203.0.113.7:51820".parse().unwrap()));
}

#[test]
fn a_longer_prefix_inside_a_shorter_one_is_fine() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.0/16\"]\n\n\
         [[peer]]\npublic_key = \"{CAROL}\"\nallowed_ips = [\"10.77.3.0/24\"]"
    )));
    assert!(config.warnings().is_empty());
}

#[test]
fn a_route_over_an_endpoint_is_left_to_whoever_marks_or_routes() {
    let peer = format!(
        "[[peer]]\npublic_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"203.0.113.0/24\"]\n"
    );
    let warned = |text: &str| !accepted(text).warnings().is_empty();
    assert!(warned(&format!("{INTERFACE}{peer}")), "the host's own routes decide");
    assert!(!warned(&format!("{INTERFACE}fwmark = 7\n{peer}")));
    assert!(!warned(&format!("{INTERFACE}table = \"off\"\n{peer}")));
    accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"0.0.0.0/0\", \"::/0\"]"
    )));
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_endpoint() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"[::ffff:203.0.113.7]:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    assert_eq!(config.peers[0].endpoint, Some(Endpoint::Address("203.0.113.7:51820".parse().unwrap())));
}

#[test]
fn ten_thousand_peers_are_read_in_a_moment() {
    let mut text = INTERFACE.to_owned();
    for number in 0..10_000u32 {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let address = std::net::Ipv4Addr::from(0x0a80_0000 + number);
        let key = keys::encode_public(&PeerKey(key));
        text += &format!(
            "[[peer]]\nname = \"p{number}\"\npublic_key = \"{key}\"\n\
             endpoint = \"203.0.113.7:{}\"\nallowed_ips = [\"{address}/32\"]\n",
            number + 1
        );
    }
    let started = std::time::Instant::now();
    assert_eq!(accepted(&text).peers.len(), 10_000);
    // It takes a tenth of a second; comparing each with each would take minutes.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
