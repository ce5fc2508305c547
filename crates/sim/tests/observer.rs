//! What a peer, a router or the local kernel can see of a node, if the paper or the kernel's WireGuard defines it:
//! traffic classes, congestion marks, ICMP codes, which messages move an endpoint, and that loops end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_sim::packet::Ends;
use overlay_sim::{HostId, HostOptions, Kind, World, millis, seconds};

/// AF41, the class that the kernel gives to handshakes.
const HANDSHAKE_CLASS: u8 = 0x88;
const MARKS: [u8; 4] = [0, 1, 2, 3];
const CE: u8 = 3;

fn elsewhere(number: u16) -> SocketAddr {
    (Ipv4Addr::new(198, 51, 100, 66), 6_000 + number).into()
}

/// The packet with these ECN bits, and a correct checksum for IPv4.
fn marked(mut packet: Vec<u8>, ecn: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | ecn << 4;
        return packet;
    }
    packet[1] = packet[1] & 0xfc | ecn;
    packet[10..12].fill(0);
    let sum = overlay_wire::checksum::finish(overlay_wire::checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn handshakes_have_the_class_that_the_kernel_gives_them_and_nothing_else_has_one() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.ping(alice, bob);
    world.ping6(bob, alice);
    // The application's own traffic class stays inside the tunnel.
    let mut precious = world.v4(alice, bob).udp(b"expedited");
    precious[1] = 0xb8;
    world.send(alice, marked(precious, 0));
    world.run_for(seconds(200));
    let classes: BTreeMap<_, BTreeSet<_>> = world.sent().iter().fold(BTreeMap::new(), |mut classes, sent| {
        classes.entry(sent.kind()).or_insert_with(BTreeSet::new).insert(sent.traffic_class);
        classes
    });
    let expected =
        [(Kind::Initiation, HANDSHAKE_CLASS), (Kind::Response, HANDSHAKE_CLASS), (Kind::Data, 0), (Kind::Keepalive, 0)];
    assert_eq!(classes, expected.map(|(kind, class)| (kind, BTreeSet::from([class]))).into());
}

#[test]
fn a_congestion_mark_goes_out_with_the_datagram_also_of_what_waited_for_the_handshake() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    for round in 0..2 {
        for ends in [world.v4(alice, bob), world.v6(alice, bob)] {
            for mark in MARKS {
                world.send(alice, marked(ends.udp(&[round; 40]), mark));
            }
        }
        world.run_for(seconds(1));
    }
    let sent: Vec<_> = world.sent_by(alice, Kind::Data).map(|sent| sent.traffic_class).collect();
    assert_eq!(sent, MARKS.repeat(4));
    let received: Vec<_> = world.received(bob).iter().map(|it| mark_of(&it.packet)).collect();
    assert_eq!(received, MARKS.repeat(4));
}

fn mark_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 6 { packet[1] >> 4 & 3 } else { packet[1] & 3 }
}

#[test]
fn a_congestion_mark_of_the_way_comes_in_and_who_does_not_know_marks_is_not_troubled() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let mut session = world.connect(&mut carol);
    let v4 = world.from_outsider(&carol);
    let v6 = Ends { source: carol.inner[1], destination: world.v6(alice, alice).source };
    for ends in [v4, v6] {
        world.forget();
        for mark in MARKS {
            let message = session.seal(&marked(ends.udp(b"through a full queue"), mark));
            world.inject_marked(carol.address, alice, &message, CE);
        }
        let received: Vec<_> = world.received(alice).iter().map(|it| it.packet.clone()).collect();
        let expected = MARKS.map(|mark| if mark == 0 { 0 } else { CE });
        assert_eq!(received, expected.map(|mark| marked(ends.udp(b"through a full queue"), mark)));
    }
    // A keepalive is not a packet, so its mark has no effect. A mark for "no congestion" removes nothing.
    world.inject_marked(carol.address, alice, &session.seal(&[]), CE);
    let plain = marked(v4.udp(b"through an empty queue"), 0);
    world.forget();
    for ecn in [0, 1, 2] {
        world.inject_marked(carol.address, alice, &session.seal(&plain), ecn);
    }
    assert!(world.received(alice).len() == 3 && world.received(alice).iter().all(|it| it.packet == plain));
    assert_eq!(world.drops(alice), BTreeMap::new());
}

/// Type and code of the ICMP errors that were delivered to a host's kernel.
fn icmp_errors(world: &World, host: HostId) -> Vec<(u8, u8)> {
    let at = |packet: &[u8]| if packet[0] >> 4 == 4 { 20 } else { 40 };
    world.received(host).iter().map(|it| (it.packet[at(&it.packet)], it.packet[at(&it.packet) + 1])).collect()
}

#[test]
fn what_no_peer_has_and_what_a_peer_without_endpoint_has_is_unreachable_as_the_kernel_says_it() {
    const HOST_UNREACHABLE_V4: (u8, u8) = (3, 1);
    const ADDRESS_UNREACHABLE_V6: (u8, u8) = (1, 3);
    let mut world = World::new(7);
    let (alice, bob, nobody) = (world.host(), world.host(), world.host());
    world.set_peer(alice, bob, |peer| peer.endpoint = None);
    for (to, reason) in [(nobody, "outbound_no_peer"), (bob, "outbound_no_endpoint")] {
        world.forget();
        world.send(alice, world.v4(alice, to).udp(b"anybody there"));
        world.send(alice, world.v6(alice, to).udp(b"anybody there"));
        assert_eq!(icmp_errors(&world, alice), [HOST_UNREACHABLE_V4, ADDRESS_UNREACHABLE_V6]);
        assert_eq!(world.drops(alice)[reason], 2);
    }
    assert!(world.sent().is_empty());
}

#[test]
fn any_authenticated_message_moves_the_endpoint() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let mut session = world.connect(&mut carol);
    let packet = world.from_outsider(&carol).udp(b"here I am");
    let foreign = Ends { source: Ipv4Addr::new(10, 99, 0, 1).into(), ..world.from_outsider(&carol) };
    world.run_for(seconds(1));
    let initiation = carol.initiate();
    let messages = [
        ("a keepalive", session.seal(&[])),
        ("data", session.seal(&packet)),
        // The packet is refused, but it proves where the peer is.
        ("data that may not enter", session.seal(&foreign.udp(b"not mine"))),
        ("an initiation", initiation.message.clone()),
    ];
    for (number, (what, message)) in (0..).zip(&messages) {
        world.inject(elsewhere(number), alice, message);
        assert_eq!(world.last_endpoint(alice, carol.key()), Some(elsewhere(number)), "{what}");
    }
    // The same messages again, from different addresses, prove nothing.
    for (number, (what, message)) in (100..).zip(&messages) {
        world.inject(elsewhere(number), alice, message);
        assert_eq!(world.last_endpoint(alice, carol.key()), Some(elsewhere(3)), "{what}, replayed");
    }
}

#[test]
fn a_response_moves_the_endpoint_to_where_it_came_from() {
    let mut world = World::new(7);
    let alice = world.host();
    let called: SocketAddr = "203.0.113.200:51820".parse().expect("an address");
    let mut carol = world.outsider_with(alice, |peer| peer.endpoint = Some(called));
    let reply = world.from_outsider(&carol).reversed();
    world.send(alice, reply.udp(b"where are you"));
    world.run_for(seconds(0));
    let mail = world.take_mail(called);
    let [initiation] = &mail[..] else { panic!("{} messages", mail.len()) };
    let (response, session, _) = carol.initiator.answer(initiation, 9).expect("an initiation for carol");
    world.inject(elsewhere(1), alice, &response);
    assert_eq!(world.last_endpoint(alice, carol.key()), Some(elsewhere(1)));
    world.run_for(seconds(0));
    let mail = world.take_mail(elsewhere(1));
    assert!(session.open(&mail[0]).is_ok(), "and what waited goes there");
}

#[test]
fn a_loop_ends_where_it_begins() {
    for is_v6 in [false, true] {
        let mut world = World::new(7);
        let alice = world.host_with(HostOptions { knows_addresses: false, ..HostOptions::default() });
        let bob = world.host();
        let endpoint = world.outer(bob)[usize::from(is_v6)];
        // Everything is routed to bob, including the path to bob.
        world.set_peer(alice, bob, |peer| {
            peer.endpoint = Some(endpoint);
            peer.allowed_ips = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix")).to_vec();
        });
        world.set_peer(bob, alice, |_| {});
        world.ping(alice, bob);
        world.forget();
        let from: IpAddr = if is_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::new(192, 0, 2, 1).into() };
        let ends = Ends::new(from, endpoint.ip());
        let mut looped = 0;
        // Everything that alice sends is routed back into the tunnel at once.
        let mut go_round = |world: &mut World| {
            world.run_for(seconds(0));
            while looped < world.sent().len() {
                let sent = &world.sent()[looped];
                looped += 1;
                assert!(looped < 2_000, "it goes on and on");
                if sent.from == alice {
                    let packet = ends.udp_between(51_820, endpoint.port(), &sent.bytes);
                    world.send(alice, packet);
                }
            }
        };
        // Pings for an hour, so that the loop includes handshakes.
        for _ in 0..360 {
            world.send_ping(alice, world.v4(alice, bob));
            for _ in 0..200 {
                go_round(&mut world);
                world.run_for(millis(50));
            }
        }
        let sent = world.sent().iter().filter(|sent| sent.from == alice).count() as u64;
        assert_eq!(world.drops(alice), BTreeMap::from([("outbound_loop", sent)]), "each once, and no more");
        // Packets of other programs to that address and port are not ours.
        world.forget();
        for payload in
            [&b"a question"[..], &[4, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 9, 9, 9, 9]]
        {
            world.send(alice, ends.udp_between(5_000, endpoint.port(), payload));
        }
        world.run_for(seconds(0));
        assert_eq!(world.count(alice, Kind::Data), 3);
    }
}
