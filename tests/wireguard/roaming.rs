//! A peer's endpoint is where it was last heard from, and only an authentic packet can tell where that is.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::capture;
use super::device::one_ping;
use super::worlds::{A_PORT, Apart, B_PORT, Wire};
use crate::lab::{A, B, Outside, SHORTLY, inside, within};

#[test]
fn an_endpoint_follows_address_and_port_over_both_families() {
    let Some(world) = Apart::new("roaming") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), format!("127.0.0.1:{A_PORT}"));

    world.middle.ip("-4 address delete 127.0.0.1/8 dev lo");
    world.middle.ip("-4 address add 127.212.121.99/8 dev lo");
    a.device.set("listen-port 9999");
    a.knows_at(&b.key, &format!("127.0.0.1:{B_PORT}"));
    one_ping(&a.host, B.v6);
    assert_eq!(b.device.endpoint_of(&a.key), "127.212.121.99:9999");

    a.device.set("listen-port 9998");
    a.knows_at(&b.key, &format!("[::1]:{B_PORT}"));
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), "[::1]:9998");

    // Back to the first family, started by the side that has followed so far.
    b.device.set("listen-port 9997");
    b.knows_at(&a.key, "127.212.121.99:9998");
    one_ping(&b.host, A.v4);
    assert_eq!(a.device.endpoint_of(&b.key), "127.212.121.99:9997");
}

/// What a thief can send who sees every datagram: all of them again, truncated, modified, and invented ones.
#[test]
fn an_endpoint_follows_nothing_but_an_authenticated_packet() {
    for outside in [Outside::V4, Outside::V6] {
        let Some(world) = Wire::new("thief") else { return };
        let (a, b) = (&world.two.a, &world.two.b);
        let capture =
            capture::start(&world.pair.b, &world.pair.b.link_to(&world.pair.a), &format!("udp port {A_PORT}"));
        world.join(outside);
        one_ping(&a.host, B.v4);
        let wanted = A.endpoint(outside, A_PORT);
        assert_eq!(b.device.endpoint_of(&a.key), wanted);
        // An initiation, the ping, and a response or anything else that `a` sent.
        let seen = within(SHORTLY, "the datagrams of a session", || {
            let seen = capture.datagrams_from(A_PORT);
            (seen.len() >= 2).then_some(seen)
        });
        assert!(seen.iter().any(|datagram| datagram[0] == 4), "there is data among it");

        // From an address that `b` can answer, but a different port than that of `a`.
        let thief = inside(&world.pair.a, || UdpSocket::bind(("::".parse::<std::net::IpAddr>().expect("one"), 40_000)));
        let thief = thief.expect("a socket of our own");
        let victim: SocketAddr = B.endpoint(outside, B_PORT).parse().expect("an endpoint");
        let victim = mapped(victim);
        let mut sent = 0;
        for datagram in &seen {
            let mut changed = datagram.clone();
            *changed.last_mut().expect("no datagram is empty") ^= 1;
            // This changes the counter of a data message to an unused one.
            let mut later = datagram.clone();
            later[9] ^= 0x10;
            for forged in [&datagram[..], &datagram[..datagram.len() - 1], &datagram[..20], &changed, &later] {
                thief.send_to(forged, victim).expect("a datagram");
                sent += 1;
            }
        }
        for made_up in [&[0_u8; 148][..], &[4, 0, 0, 0, 1, 2, 3, 4], b"a stranger", &[1; 1400]] {
            thief.send_to(made_up, victim).expect("a datagram");
            sent += 1;
        }
        // All of them have arrived, and an honest ping after them was answered. So all of them were processed.
        within(SHORTLY, "the thief's datagrams to arrive", || {
            (capture.datagrams_from(40_000).len() == sent).then_some(())
        });
        one_ping(&b.host, A.v4);
        assert_eq!(b.device.endpoint_of(&a.key), wanted, "{outside:?}");
        // `a` itself may send from anywhere.
        a.device.set("listen-port 40001");
        one_ping(&a.host, B.v4);
        assert_eq!(b.device.endpoint_of(&a.key), A.endpoint(outside, 40_001));
        drop(thief);
    }
}

/// An IPv4 address in the form for a dual-stack socket.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

/// Nothing has come from the new endpoint yet. The next packet goes there, and none goes to the old one.
#[test]
fn an_endpoint_that_is_set_is_used_from_the_next_packet_on() {
    let Some(world) = Wire::new("set endpoint") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    a.knows_at(&b.key, &B.endpoint(Outside::V6, B_PORT));
    assert_eq!(a.device.endpoint_of(&b.key), B.endpoint(Outside::V6, B_PORT));
    one_ping(&a.host, B.v4);
    assert_eq!(b.device.endpoint_of(&a.key), A.endpoint(Outside::V6, A_PORT), "the same session, another way");
    let before = a.device.latest_handshake(&b.key);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(a.device.latest_handshake(&b.key), before);
}
