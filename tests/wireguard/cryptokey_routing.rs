//! One table decides both to which peer a packet goes and from which peer it may come.

use std::net::UdpSocket;
use std::time::Duration;

use super::device::{Key, Program, no_ping, one_ping};
use super::worlds::{A_PORT, Apart, B_PORT, Wire};
use crate::lab::{A, B, Host, Outside, Pings, SHORTLY, inside, within};

/// Whether a datagram that `from` sends through the tunnel arrives at `to`, whose address is `address`.
fn arrives(from: &Host, to: &Host, address: &str) -> bool {
    let receiver = inside(to, || UdpSocket::bind("[::]:1111")).expect("a port of the receiver");
    receiver.set_read_timeout(Some(Duration::from_secs(1))).expect("our own socket");
    let sender = inside(from, || UdpSocket::bind("[::]:0")).expect("a port of the sender");
    let address = if address.contains(':') { address.to_owned() } else { format!("::ffff:{address}") };
    sender.send_to(b"X", format!("[{address}]:1111")).expect("a datagram");
    matches!(receiver.recv(&mut [0; 2]), Ok(1))
}

#[test]
fn a_source_that_a_more_specific_prefix_gives_to_another_peer_is_dropped() {
    let Some(world) = Apart::new("reverse path") else { return };
    for outside in [Outside::V4, Outside::V6] {
        world.join(outside);
        let (a, b) = (&world.two.a, &world.two.b);
        b.device.set(&format!("listen-port {B_PORT}"));
        one_ping(&b.host, A.v4);
        a.device.set(&format!("peer {} allowed-ips 10.77.0.0/24,fd77::/64", b.key.public));
        for address in [A.v4, A.v6] {
            assert!(arrives(&b.host, &a.host, address), "{address}: the wide prefix covers its sender");
        }
        let other = Key::new(&a.host, "other");
        a.device.set(&format!("peer {} allowed-ips {}", other.public, B.allowed().join(",")));
        b.device.set("listen-port 9997");
        for address in [A.v4, A.v6] {
            assert!(!arrives(&b.host, &a.host, address), "{address}: its sender belongs to another peer");
        }
        // But it was authentic, so the endpoint follows it.
        let endpoint = if outside == Outside::V4 { "127.0.0.1:9997" } else { "[::1]:9997" };
        assert_eq!(a.device.endpoint_of(&b.key), endpoint);
        // Removing the narrow prefix gives the address back to the wide one.
        a.device.set(&format!("peer {} remove", other.public));
        for address in [A.v4, A.v6] {
            assert!(arrives(&b.host, &a.host, address), "{address}: the wide prefix covers its sender again");
        }
    }
}

#[test]
fn a_source_that_no_peer_or_another_peer_owns_is_dropped() {
    let Some(world) = Wire::new("spoofed") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    // `b` sends from an address that `a` does not allow to it, although `a` could answer.
    b.device.address("10.77.0.9/32");
    let ping = format!("ping -n -c 1 -W 1 -I 10.77.0.9 {}", A.v4);
    assert_ne!(b.host.run(&ping).code, 0);
    a.device.set(&format!("peer {} allowed-ips {},10.77.0.9/32", b.key.public, B.allowed().join(",")));
    assert_eq!(b.host.run(&ping).code, 0, "allowed, the same ping is answered");
    // When it moves to a different peer, only that peer may use it.
    let other = Key::new(&a.host, "other");
    a.device.set(&format!("peer {} allowed-ips 10.77.0.9/32", other.public));
    assert_ne!(b.host.run(&ping).code, 0);
    one_ping(&b.host, A.v4);
}

/// The kernel's module does this. The sending program gets the error at once, without a timeout.
#[test]
fn a_destination_without_a_peer_is_unreachable_at_once() {
    if Program::under_test().is_excused("it drops such packets in silence") {
        return;
    }
    let Some(world) = Wire::new("unreachable") else { return };
    let (a, b) = (&world.two.a, &world.two.b);
    let refused = |address: &str| {
        let said = a.host.run(format!("ping -n -c 1 -W 2 {address}"));
        let is_told = said.stdout.contains("nreachable");
        assert!(said.code != 0, "{}", said.stdout);
        is_told
    };
    // An address in the interface's subnet without a peer, then one whose peer has no known endpoint.
    for address in ["10.77.0.200", "fd77::200"] {
        assert!(refused(address), "{address} has no peer");
    }
    for address in [B.v4, B.v6] {
        assert!(refused(address), "{address} has a peer without an endpoint");
    }
    world.two.endpoints(&A.endpoint(Outside::V4, A_PORT), &B.endpoint(Outside::V4, B_PORT));
    one_ping(&a.host, B.v4);
    b.device.set(&format!("peer {} remove", a.key.public));
    assert!(!refused(B.v4), "`a` cannot know that its peer forgot it");
}

/// `c` reaches `a` through `b`, which does NAT. The error "unreachable" finds its way back through the NAT.
#[test]
fn unreachable_finds_its_way_back_through_a_nat() {
    if Program::under_test().is_excused("it drops such packets in silence") {
        return;
    }
    let Some(world) = Wire::new("unreachable, NAT") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    let c = world.pair.lab.host("c");
    world.pair.lab.link(&c, &b.host, &["10.9.0.2/24"], &["10.9.0.1/24"]);
    c.ip("route add 10.77.0.0/24 via 10.9.0.1");
    b.host.exec("sysctl -qw net.ipv4.ip_forward=1");
    b.host.exec("iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -d 10.77.0.0/24 -j MASQUERADE");
    one_ping(&c, A.v4);
    b.device.set(&format!("peer {} remove", a.key.public));
    let said = c.run(format!("ping -n -c 1 -W 2 {}", A.v4)).stdout;
    assert!(said.contains("nreachable"), "{said}");
}

/// A change to one peer leaves the sessions of others alone: no handshake, no lost packet.
#[test]
fn changes_to_other_peers_disturb_nobody() {
    let Some(world) = Wire::new("undisturbed") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let pings = Pings::new(200, Duration::from_millis(10)).start(&a.host, B.v4);
    let before = b.device.latest_handshake(&a.key);
    let others: Vec<_> = (0..8).map(|number| Key::new(&a.host, &format!("other-{number}"))).collect();
    let mut changes = 0;
    within(SHORTLY, "the pings", || {
        for (number, other) in others.iter().enumerate() {
            a.device.set(&format!("peer {} allowed-ips 10.80.{number}.0/24 endpoint 10.1.0.2:1", other.public));
            changes += 1;
        }
        a.device.set(&others.iter().map(|other| format!("peer {} remove ", other.public)).collect::<String>());
        // Also a change that sets what the peer already has.
        a.device.set(&format!("peer {} allowed-ips {}", b.key.public, B.allowed().join(",")));
        pings.is_finished().then_some(())
    });
    assert!(changes > 8);
    pings.are_answered();
    assert_eq!(b.device.latest_handshake(&a.key), before);
    b.device.set(&format!("peer {} remove", a.key.public));
    no_ping(&a.host, B.v4);
}
