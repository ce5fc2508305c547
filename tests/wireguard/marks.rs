//! Marks on packets: congestion marks inside and outside, and the firewall mark that keeps a tunnel's own datagrams out
//! of the tunnel.

use std::time::Duration;

use super::device::{Program, no_ping, one_ping};
use super::worlds::{A_PORT, B_PORT, Wire};
use crate::lab::{A, B, Host, Outside, Pings, SHORTLY, within};

/// Counts packets that arrive at `b` by their mark, outside and inside.
const COUNTERS: &str = "table inet marks {
    counter out_not { }
    counter out_ect0 { }
    counter out_ect1 { }
    counter out_ce { }
    counter in_not { }
    counter in_ect0 { }
    counter in_ect1 { }
    counter in_ce { }
    chain in { type filter hook input priority 0;
        udp dport PORT ip ecn not-ect counter name out_not
        udp dport PORT ip ecn ect0 counter name out_ect0
        udp dport PORT ip ecn ect1 counter name out_ect1
        udp dport PORT ip ecn ce counter name out_ce
        udp dport PORT ip6 ecn not-ect counter name out_not
        udp dport PORT ip6 ecn ect0 counter name out_ect0
        udp dport PORT ip6 ecn ect1 counter name out_ect1
        udp dport PORT ip6 ecn ce counter name out_ce
        iifname INNER icmp type echo-request ip ecn not-ect counter name in_not
        iifname INNER icmp type echo-request ip ecn ect0 counter name in_ect0
        iifname INNER icmp type echo-request ip ecn ect1 counter name in_ect1
        iifname INNER icmp type echo-request ip ecn ce counter name in_ce
        iifname INNER icmpv6 type echo-request ip6 ecn not-ect counter name in_not
        iifname INNER icmpv6 type echo-request ip6 ecn ect0 counter name in_ect0
        iifname INNER icmpv6 type echo-request ip6 ecn ect1 counter name in_ect1
        iifname INNER icmpv6 type echo-request ip6 ecn ce counter name in_ce
    }
}";

/// Marks every ECN-capable datagram on the way to `b`, like a congested router.
const CONGESTED: &str = "table inet congested { chain out { type filter hook output priority 0;
        udp dport PORT ip ecn != not-ect ip ecn set ce
        udp dport PORT ip6 ecn != not-ect ip6 ecn set ce
    }
}";

fn nft(host: &Host, rules: &str, interface: &str) {
    let file = host.write("rules.nft", rules.replace("PORT", &B_PORT.to_string()).replace("INNER", interface));
    host.exec(format!("nft -f {}", file.display()));
}

fn count(host: &Host, counter: &str) -> u64 {
    let said = host.exec(format!("nft list counter inet marks {counter}"));
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").expect("a counter counts packets");
    words[at + 1].parse().expect("a number")
}

#[test]
fn congestion_marks_cross_the_tunnel_both_ways() {
    if Program::under_test().is_excused("it marks nothing outside and reads no mark there") {
        return;
    }
    for outside in [Outside::V4, Outside::V6] {
        let Some(world) = Wire::new("ecn") else { return };
        world.join(outside);
        let (a, b) = (&world.two.a, &world.two.b);
        one_ping(&a.host, B.v4);
        let ten = |address: &str, ecn: u8| a.host.exec(format!("ping -n -q -c 10 -i 0.01 -W 4 -Q {ecn} {address}"));
        nft(&b.host, COUNTERS, b.device.name());
        for address in [B.v4, B.v6] {
            let before = ["out_not", "out_ect0", "out_ect1", "out_ce", "in_not", "in_ect0", "in_ect1", "in_ce"]
                .map(|name| count(&b.host, name));
            // Not ECN-capable, and both code points for ECN-capable.
            for ecn in [0, 1, 2] {
                ten(address, ecn);
            }
            let now = |at: usize, name: &str| count(&b.host, name) - before[at];
            for (at, name) in [(4, "in_not"), (5, "in_ect0"), (6, "in_ect1")] {
                assert_eq!(now(at, name), 10, "{name}, {address}, {outside:?}");
            }
            assert_eq!((now(1, "out_ect0"), now(2, "out_ect1")), (10, 10), "outside as inside, {address}, {outside:?}");
            assert_eq!(now(7, "in_ce") + now(3, "out_ce"), 0);
        }
        nft(&a.host, CONGESTED, "");
        for address in [B.v4, B.v6] {
            let (not, ect0, ce) = (count(&b.host, "in_not"), count(&b.host, "in_ect0"), count(&b.host, "in_ce"));
            ten(address, 2);
            ten(address, 0);
            assert_eq!(count(&b.host, "in_ce") - ce, 10, "a mark made outside comes in, {address}, {outside:?}");
            assert_eq!(count(&b.host, "in_ect0"), ect0);
            assert_eq!(count(&b.host, "in_not") - not, 10, "what is not capable is not marked");
        }
    }
}

/// What wg-quick does for a default route, done by hand, while the wire has a default route of the other family too.
#[test]
fn a_firewall_mark_keeps_the_tunnel_out_of_the_tunnel() {
    let Some(world) = Wire::new("fwmark") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    a.host.ip("-6 address add fc00::9/96 dev to-b nodad");
    a.host.ip("-6 route add default via fc00::1");
    b.device.address("192.168.99.7/32");
    b.device.address("abab::1111/128");
    a.device.set(&format!("fwmark 51820 peer {} allowed-ips 0.0.0.0/0,::/0", b.key.public));
    for family in ["-4", "-6"] {
        a.host.ip(&format!("{family} route add default dev {} table 51820", a.device.name()));
        a.host.ip(&format!("{family} rule add not fwmark 51820 table 51820"));
        a.host.ip(&format!("{family} rule add table main suppress_prefixlength 0"));
    }
    // The wire's own route is gone. Only a marked packet finds the route, in a table of its own.
    a.host.ip("-4 route add 10.1.0.0/24 dev to-b table 200");
    a.host.ip("-4 route delete 10.1.0.0/24 dev to-b");
    a.host.ip("-4 rule add fwmark 51820 table 200");
    for address in ["192.168.99.7", "abab::1111", B.v4, B.v6] {
        Pings::new(50, Duration::from_millis(5)).are_answered(&a.host, address);
    }
    // A new mark while it runs: the rule does not match it, so datagrams are routed into the tunnel. Then the first
    // mark again.
    a.device.set("fwmark 51821");
    assert_eq!(a.device.show("fwmark"), "0xca6d");
    no_ping(&a.host, "192.168.99.7");
    a.device.set("fwmark 51820");
    a.host.reaches("192.168.99.7");
    // The same after its sockets were recreated.
    a.device.set("listen-port 10009");
    a.host.reaches("192.168.99.7");
    assert_eq!(b.device.endpoint_of(&a.key), format!("{}:10009", A.outer_v4));
}

/// A program bound to the interface, and packets that are routed again because they were marked.
#[test]
fn packets_that_are_bound_or_marked_by_others_pass() {
    let Some(world) = Wire::new("bound") else { return };
    world.join(Outside::V4);
    let (a, _) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let bound = format!("ping -n -I {} -c 1 -W 4 {}", a.device.name(), B.v4);
    a.host.exec(&bound);
    a.host.exec("iptables -t mangle -I OUTPUT -j MARK --set-xmark 1");
    one_ping(&a.host, B.v4);
    a.host.exec(&bound);
}

/// Every datagram of the tunnel carries the mark, including handshakes, on both sockets.
#[test]
fn every_datagram_of_a_marked_device_is_marked() {
    for outside in [Outside::V4, Outside::V6] {
        let Some(world) = Wire::new("marked") else { return };
        let (a, b) = (&world.two.a, &world.two.b);
        a.device.set("fwmark 0x77");
        let rules = "table inet marked {
            counter marked { }
            counter others { }
            chain out {
                type filter hook output priority 0;
                udp sport PORT meta mark 0x77 counter name marked
                udp sport PORT meta mark != 0x77 counter name others
            }
        }";
        let file = a.host.write("marked.nft", rules.replace("PORT", &A_PORT.to_string()));
        a.host.exec(format!("nft -f {}", file.display()));
        world.join(outside);
        one_ping(&b.host, A.v4);
        one_ping(&a.host, B.v6);
        let packets = |counter: &str| {
            let said = a.host.exec(format!("nft list counter inet marked {counter}"));
            said.contains("packets 0 ")
        };
        within(SHORTLY, "marked datagrams", || (!packets("marked")).then_some(()));
        assert!(packets("others"), "unmarked datagrams, {outside:?}");
    }
}
