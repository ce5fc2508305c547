//! Which of its own addresses a device answers from: the one that the peer sent to, as long as it has that address and
//! the route is the same.

use super::device::{Device, Key, Program, one_ping};
use super::worlds::{A_PORT, B_PORT, Side, Two};
use crate::lab::{A, B, Host, Lab, SHORTLY, within};

/// Two hosts whose wire has no addresses yet, with a device on each.
struct Bare {
    two: Two,
    lab: Lab,
}

impl Bare {
    fn new(name: &str) -> Option<Bare> {
        let lab = Lab::new(name)?;
        let [a, b] = ["a", "b"].map(|name| lab.host(name));
        lab.link(&a, &b, &[], &[]);
        for host in [&a, &b] {
            // Answers take different paths than requests.
            host.exec("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
        }
        a.exec("sysctl -qw net.ipv4.conf.to-b.promote_secondaries=1 net.ipv4.conf.to-b.rp_filter=0");
        b.exec("sysctl -qw net.ipv4.conf.to-a.rp_filter=0");
        let two = Two::configure(Device::start(&a), Key::of(&a), Device::start(&b), Key::of(&b));
        Some(Bare { two, lab })
    }
}

/// The reason why the reference is not tested over IPv4.
const NO_LONGER: &str =
    "a source that is gone was EINVAL when it was written, which it waits for; this kernel says ENETUNREACH";

fn add(host: &Host, address: &str, link: &str) {
    let nodad = if address.contains(':') { "nodad" } else { "" };
    host.ip(&format!("address add {address} dev {link} {nodad}"));
}

/// Connects the two hosts with a second wire, whose ends are named `other` and have no addresses.
fn second_wire(a: &Host, b: &Host) {
    a.ip(&format!("link add other type veth peer name other netns {}", b.namespace()));
    for host in [a, b] {
        host.exec("sysctl -qw net.ipv4.conf.other.rp_filter=0");
        host.ip("link set other up");
    }
}

#[test]
fn an_address_that_disappears_is_replaced_by_the_next_one() {
    let Some(Bare { two, lab: _lab }) = Bare::new("sticky, gone") else { return };
    let (a, b) = (&two.a, &two.b);
    for (family, old, new, far) in [
        ("v4", "10.0.0.1/24", "10.0.0.10/24", "10.0.0.2/24"),
        ("v6", "fd00:aa::1/96", "fd00:aa::10/96", "fd00:aa::2/96"),
    ] {
        if family == "v4" && Program::under_test().is_excused(NO_LONGER) {
            continue;
        }
        let bare = |address: &str| address.split('/').next().expect("an address").to_owned();
        let endpoint = |address: &str, port: u16| match family {
            "v4" => format!("{}:{port}", bare(address)),
            _ => format!("[{}]:{port}", bare(address)),
        };
        add(&a.host, old, "to-b");
        add(&b.host, far, "to-a");
        a.knows_at(&b.key, &endpoint(far, B_PORT));
        one_ping(&a.host, B.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint(old, A_PORT));
        add(&a.host, new, "to-b");
        one_ping(&a.host, B.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint(old, A_PORT), "a second address changes nothing");
        a.host.ip(&format!("address delete {old} dev to-b"));
        one_ping(&a.host, B.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint(new, A_PORT));
        one_ping(&b.host, A.v4);
    }
}

#[test]
fn an_answer_comes_from_the_address_that_was_written_to() {
    let Some(Bare { two, lab: _lab }) = Bare::new("sticky, answers") else { return };
    let (a, b) = (&two.a, &two.b);
    for address in ["10.0.0.1/24", "10.0.0.2/24", "fd00:aa::1/96", "fd00:aa::2/96"] {
        add(&a.host, address, "to-b");
    }
    for address in ["10.0.0.3/24", "fd00:aa::3/96"] {
        add(&b.host, address, "to-a");
    }
    for endpoint in ["10.0.0.1", "[fd00:aa::1]", "10.0.0.2", "[fd00:aa::2]", "10.0.0.1"] {
        let endpoint = format!("{endpoint}:{A_PORT}");
        b.knows_at(&a.key, &endpoint);
        one_ping(&b.host, A.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint, "it would have moved with an answer from elsewhere");
        // Packets that it sends on its own also come from there.
        one_ping(&a.host, B.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint);
    }
}

#[test]
fn an_answer_comes_from_an_address_of_another_interface() {
    let Some(Bare { two, lab: _lab }) = Bare::new("sticky, far side") else { return };
    let (a, b) = (&two.a, &two.b);
    add(&a.host, "10.0.0.1/24", "to-b");
    add(&b.host, "10.0.0.3/24", "to-a");
    add(&a.host, "fd00:aa::1/96", "to-b");
    add(&b.host, "fd00:aa::3/96", "to-a");
    // Behind the host, not on the link to its peer.
    a.host.ip("link add inside type bridge");
    a.host.ip("link set inside up");
    add(&a.host, "10.50.0.1/24", "inside");
    add(&a.host, "fd00:50::1/96", "inside");
    b.host.ip("route add 10.50.0.0/24 dev to-a");
    b.host.ip("route add fd00:50::/96 via fd00:aa::1");
    for endpoint in ["10.50.0.1", "[fd00:50::1]"] {
        let endpoint = format!("{endpoint}:{A_PORT}");
        b.knows_at(&a.key, &endpoint);
        one_ping(&b.host, A.v4);
        assert_eq!(b.device.endpoint_of(&a.key), endpoint);
    }
}

#[test]
fn a_route_that_takes_precedence_takes_its_source_along() {
    let Some(Bare { two, lab }) = Bare::new("sticky, route") else { return };
    let (a, b) = (&two.a, &two.b);
    second_wire(&a.host, &b.host);
    add(&a.host, "10.0.0.1/24", "to-b");
    add(&b.host, "10.0.0.2/24", "to-a");
    add(&a.host, "10.0.0.3/24", "other");
    a.host.ip("route flush dev to-b");
    a.host.ip("route flush dev other");
    a.host.ip("route add 10.0.0.0/24 dev to-b src 10.0.0.1 metric 2");
    a.knows_at(&b.key, &format!("10.0.0.2:{B_PORT}"));
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), format!("10.0.0.1:{A_PORT}"));
    a.host.ip("route add 10.0.0.0/24 dev other src 10.0.0.3 metric 1");
    // The program notices a new route a moment later. Earlier packets take the old path and are answered too.
    is_soon_seen_at(a, b, "10.0.0.3");
    // When the route and its address are withdrawn, it switches back. The address that `b` sends to stays the source as
    // long as it exists.
    a.host.ip("route delete 10.0.0.0/24 dev other src 10.0.0.3 metric 1");
    a.host.ip("address delete 10.0.0.3/24 dev other");
    is_soon_seen_at(a, b, "10.0.0.1");
    drop(lab);
}

/// An interface goes down with all its addresses, and a different wire leads to the same peer.
#[test]
fn an_interface_that_goes_down_takes_its_source_along() {
    let Some(Bare { two, lab: _lab }) = Bare::new("sticky, down") else { return };
    let (a, b) = (&two.a, &two.b);
    second_wire(&a.host, &b.host);
    b.host.ip("link set lo up");
    add(&b.host, "10.9.9.9/32", "lo");
    add(&a.host, "10.0.1.1/24", "to-b");
    add(&b.host, "10.0.1.2/24", "to-a");
    add(&a.host, "10.0.2.1/24", "other");
    add(&b.host, "10.0.2.2/24", "other");
    a.host.ip("route add 10.9.9.9 via 10.0.1.2 metric 1");
    a.host.ip("route add 10.9.9.9 via 10.0.2.2 metric 2");
    a.knows_at(&b.key, &format!("10.9.9.9:{B_PORT}"));
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), format!("10.0.1.1:{A_PORT}"));
    a.host.ip("link set to-b down");
    a.host.reaches(B.v4);
    is_soon_seen_at(a, b, "10.0.2.1");
}

/// Waits until `a` sends from this address. Every ping before that must be answered too.
#[track_caller]
fn is_soon_seen_at(a: &Side, b: &Side, source: &str) {
    within(SHORTLY, &format!("{source} to be used"), || {
        one_ping(&a.host, B.v4);
        (b.device.endpoint_of(&a.key) == format!("{source}:{A_PORT}")).then_some(())
    });
}
