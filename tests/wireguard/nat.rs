//! A device behind a NAT that forgets an idle flow after two seconds: persistent keepalives keep it reachable.

use std::time::Duration;

use super::device::{Device, Key, no_ping, one_ping};
use super::worlds::{A_PORT, B_PORT, Two};
use crate::lab::{A, B, Host, Lab, SHORTLY, installed, within};

/// `a` is behind the router, `b` is not.
struct Natted {
    two: Two,
    router: Host,
    _lab: Lab,
}

impl Natted {
    fn new(name: &str) -> Option<Natted> {
        if !installed(name, &["conntrack", "iptables"]) {
            return None;
        }
        let lab = Lab::new(name)?;
        let [a, b] = ["a", "b"].map(|name| lab.host(name));
        let router = lab.router("r");
        lab.link(&a, &router, &["192.168.1.100/24"], &["192.168.1.1/24"]);
        lab.link(&b, &router, &["10.0.0.100/24"], &["10.0.0.1/24"]);
        a.ip("route add default via 192.168.1.1");
        router.exec("iptables -t nat -A POSTROUTING -s 192.168.1.0/24 -d 10.0.0.0/24 -j SNAT --to 10.0.0.1");
        router.exec(
            "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=2 net.netfilter.nf_conntrack_udp_timeout_stream=2",
        );
        let (on_a, on_b) = (Device::start(&a), Device::start(&b));
        let two = Two::configure(on_a, Key::of(&a), on_b, Key::of(&b));
        two.a.knows_at(&two.b.key, &format!("10.0.0.100:{B_PORT}"));
        Some(Natted { two, router, _lab: lab })
    }

    /// How many flows the router knows.
    fn flows(&self) -> usize {
        let said = self.router.run("conntrack -L -p udp").stdout;
        said.lines().filter(|line| line.contains(&format!("dport={B_PORT}"))).count()
    }
}

#[test]
fn an_idle_peer_behind_a_nat_stays_reachable_with_persistent_keepalive() {
    let Some(world) = Natted::new("NAT, keepalive") else { return };
    let (a, b) = (&world.two.a, &world.two.b);
    a.device.set(&format!("peer {} persistent-keepalive 1", b.key.public));
    one_ping(&a.host, B.v4);
    one_ping(&b.host, A.v4);
    assert_eq!(b.device.endpoint_of(&a.key), format!("10.0.0.1:{A_PORT}"));
    // This is longer than the router remembers, and a flow exists at every moment of it.
    for _ in 0..25 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(world.flows(), 1);
    }
    one_ping(&b.host, A.v4);
}

#[test]
fn an_idle_peer_behind_a_nat_is_out_of_reach_without_until_it_speaks() {
    let Some(world) = Natted::new("NAT, none") else { return };
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    within(SHORTLY, "the router to forget", || (world.flows() == 0).then_some(()));
    no_ping(&b.host, A.v4);
    one_ping(&a.host, B.v4);
    one_ping(&b.host, A.v4);
}

/// The keepalive takes effect when it is set, starts a handshake if there is no session, and ends when it is cleared.
#[test]
fn persistent_keepalive_begins_and_ends_when_it_is_set() {
    let Some(world) = Natted::new("keepalive set") else { return };
    let (a, b) = (&world.two.a, &world.two.b);
    assert_eq!(a.device.transfer(&b.key), (0, 0), "nothing is sent that nothing asks for");
    a.device.set(&format!("peer {} persistent-keepalive 1", b.key.public));
    within(Duration::from_secs(4), "a handshake", || (b.device.latest_handshake(&a.key) != 0).then_some(()));
    one_ping(&b.host, A.v4);
    a.device.set(&format!("peer {} persistent-keepalive 0", b.key.public));
    within(SHORTLY, "the router to forget", || (world.flows() == 0).then_some(()));
    no_ping(&b.host, A.v4);
}

/// A new address behind the NAT, and a new port in front of it. The peer follows without a handshake.
#[test]
fn a_nat_that_maps_anew_is_followed_within_a_session() {
    let Some(world) = Natted::new("NAT, anew") else { return };
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let handshake = b.device.latest_handshake(&a.key);
    world.router.exec("iptables -t nat -F POSTROUTING");
    world.router.exec(
        "iptables -t nat -A POSTROUTING -p udp -s 192.168.1.0/24 -d 10.0.0.0/24 -j SNAT --to 10.0.0.1:30000-30000",
    );
    world.router.exec("conntrack -F");
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), "10.0.0.1:30000");
    one_ping(&b.host, A.v4);
    assert_eq!(b.device.latest_handshake(&a.key), handshake);
}
