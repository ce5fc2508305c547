//! Packets that would configure the victim, sent through the tunnel by a peer that may use any address. None of them
//! reaches the kernel, whatever the allowlist, the routing table and the program that configured the peer say.

use std::net::UdpSocket;

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use serde_json::Value;

use super::bytes::{Ends, ends, with};
use super::siege::{Attacker, MALLORY, Siege};
use super::wire::{Wire, inside};
use crate::lab::{A, Host, Outside, Pair, SHORTLY, installed, within};

const ROUTER_ADVERTISEMENT: u8 = 134;
/// The offset of the hop limit in an IPv6 header. Neighbour discovery is accepted only if it is 255.
const HOP_LIMIT: usize = 7;

/// A router advertisement with a default route, an on-link prefix and an MTU.
fn router_advertisement(ends: Ends) -> Vec<u8> {
    let lifetime = [64, 0, 0x07, 0x08];
    let timers = [0; 8];
    let mut prefix = vec![3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0];
    prefix.extend([0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mtu = [5, 1, 0, 0, 0, 0, 0x05, 0x14];
    let body = [&timers[..], &prefix, &mtu].concat();
    with(ends.icmp(ROUTER_ADVERTISEMENT, 0, lifetime, &body), HOP_LIMIT, &[255])
}

/// The effects of a router advertisement on a host: routes, addresses and the IPv6 MTU of its tunnel interface.
fn configured_by_routers(host: &Host) -> String {
    let interface = host.interface();
    let routes = host.ip("-6 route show table all proto ra");
    let kernel = host.ip(&format!("-6 route show dev {interface} proto kernel"));
    let prefixes: String = kernel.lines().filter(|line| line.contains("2001:db8:bad")).collect();
    let addresses = host.ip(&format!("-6 -o address show dev {interface} dynamic"));
    let mtu = host.exec(format!("sysctl -n net.ipv6.conf.{interface}.mtu"));
    let mtu = if mtu.trim() == "1300" { "MTU 1300" } else { "" };
    format!("{routes}{prefixes}{addresses}{mtu}")
}

#[test]
fn a_router_advertisement_from_a_peer_configures_nothing() {
    for (allow, table) in
        [("", ""), ("allow = [\"icmp\"]\n", ""), ("", "table = \"off\""), ("allow = [\"icmp\"]\n", "table = \"off\"")]
    {
        let peer = MALLORY.peer_toml(&["10.77.0.2/32", "::/0"]) + allow;
        let Some(mut siege) = Siege::begin("router advertisement", Outside::V4, table, &[peer]) else { return };
        let mut mallory = siege.attacker(MALLORY);
        let what = format!("`{allow}` `{table}`");
        let advertisement = router_advertisement(ends("fe80::9", A.v6));
        // A kernel ignores a source that is not link-local. This one is dropped because of its type.
        let by_type = router_advertisement(ends("fd78::9", A.v6));
        let messages = mallory.seal(&[advertisement, by_type]);
        let outcome = siege.strike(&mut mallory, &messages);
        assert_eq!(configured_by_routers(&siege.pair.a), "", "{what}");
        outcome.is(&what, &[], &[("host_configuration", 2)]);
    }
}

#[test]
fn a_router_advertisement_from_a_peer_that_wg_made_configures_nothing() {
    if !installed("router advertisement to overlay wg", &["tcpdump"]) {
        return;
    }
    let Some(pair) = Pair::new("router advertisement to overlay wg") else { return };
    let host = &pair.a;
    let interface = host.interface().to_owned();
    let wg = host.start(host.overlay_command(format!("wg {interface} --foreground")), "overlay wg");
    within(SHORTLY, "the interface", || (host.run(["wg", "show", &interface]).code == 0).then_some(()));
    let key = MALLORY.public_key();
    host.exec(format!(
        "wg set {interface} listen-port 51820 private-key {} peer {key} allowed-ips 10.77.0.2/32,::/0",
        host.private_key_file().display()
    ));
    for address in A.inner() {
        host.ip(&format!("address add {address} dev {interface} nodad"));
    }
    host.ip(&format!("link set {interface} up"));
    assert_believes_nothing(host);
    let mut wire = Wire::open(&pair.b, 0, A.endpoint(Outside::V4, 51820).parse().expect("an endpoint"));
    let mut session = within(SHORTLY, "a session", || Attacker::call(MALLORY, host.public_key(), &mut wire));
    let before = dropped(host);
    wire.send(&session.seal(&router_advertisement(ends("fe80::9", A.v6))));
    within(SHORTLY, "the drop or the route", || {
        (dropped(host) > before || !configured_by_routers(host).is_empty()).then_some(())
    });
    assert_eq!(configured_by_routers(host), "");
    // For sources, WireGuard's rule applies: a link-local source passes if ::/0 belongs to the peer.
    let program = inside(host, || UdpSocket::bind("[::]:7000")).expect("a port of the victim");
    program.set_read_timeout(Some(SHORTLY)).expect("a time is set");
    wire.send(&session.seal(&ends("fe80::9", A.v6).udp(4660, 7000, b"hello")));
    let mut buffer = [0; 16];
    let (len, _) = program.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..len], b"hello");
    drop(wg);
}

/// How many packets a host's `overlay wg` has dropped because they would configure a host.
fn dropped(host: &Host) -> u64 {
    let said = host.overlay(format!("status {} --json", host.interface())).succeeded("overlay status");
    let status: Value = serde_json::from_str(&said).expect("JSON");
    status["drops"]["host_configuration"].as_u64().unwrap_or_default()
}

#[test]
fn what_configures_hosts_does_not_leave_for_a_peer_either() {
    let Some(mut siege) = Siege::of_two("outbound advertisement") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let before = siege.overlay.dropped("host_configuration");
    let host = &siege.pair.a;
    let router = inside(host, || socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))).expect("root");
    let peer = std::net::SocketAddr::new(MALLORY.v6.parse().expect("an address"), 0);
    // The kernel writes the IP header and the checksum.
    for kind in [133, ROUTER_ADVERTISEMENT, 135, 136, 137] {
        let sent = sendto(&router, &[kind, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], SendFlags::empty(), &peer);
        assert_eq!(sent, Ok(16));
    }
    let program = inside(host, || UdpSocket::bind("0.0.0.0:68")).expect("a port of the victim");
    program.send_to(b"discover", (MALLORY.v4, 67)).expect("a route into the tunnel");
    program.send_to(b"an ordinary one", (MALLORY.v4, 6767)).expect("a route into the tunnel");
    loop {
        let heard = mallory.hear();
        assert!(!heard.windows(8).any(|bytes| bytes == b"discover"), "{heard:02x?}");
        assert!(heard[0] >> 4 == 4, "nothing of ICMPv6: {heard:02x?}");
        if heard.windows(15).any(|bytes| bytes == b"an ordinary one") {
            break;
        }
    }
    assert_eq!(siege.overlay.dropped("host_configuration") - before, 6);
}

/// Checks that the kernel neither accepts configuration from a host's tunnel interface nor sends any through it.
#[track_caller]
fn assert_believes_nothing(host: &Host) {
    let [v4, v6] = ["ipv4", "ipv6"].map(|family| format!("net.{family}.conf.{}", host.interface()));
    for key in [
        format!("{v6}.accept_ra"),
        format!("{v6}.autoconf"),
        format!("{v6}.accept_redirects"),
        format!("{v4}.accept_redirects"),
        format!("{v4}.send_redirects"),
    ] {
        assert_eq!(host.exec(format!("sysctl -n {key}")).trim(), "0", "{key}");
    }
}

#[test]
fn our_interface_takes_no_configuration_from_its_link() {
    let Some(pair) = Pair::new("sysctls") else { return };
    let host = &pair.a;
    let forwarding = |interface: &str| {
        ["ipv4", "ipv6"].map(|family| host.exec(format!("sysctl -n net.{family}.conf.{interface}.forwarding")))
    };
    host.exec("sysctl -qw net.ipv4.conf.default.forwarding=1 net.ipv4.conf.default.send_redirects=1");
    let _up = host.overlay_up(&pair.config_of_a(Outside::V4));
    let interface = host.interface();
    assert_believes_nothing(host);
    assert_eq!(forwarding(interface), forwarding("default"), "as the host has it");
}
