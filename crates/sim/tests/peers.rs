//! Commands at run time: what they change, and what they must leave alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use overlay_core::{Command, CommandError, PeerConfig, PeerKey, Protocol, Rule};
use overlay_sim::initiator::{Initiator, Timestamp};
use overlay_sim::packet::Ends;
use overlay_sim::{HostOptions, Kind, World, millis, minutes, seconds};
use zeroize::Zeroizing;

#[test]
fn a_removed_peer_is_neither_heard_nor_spoken_to() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(5)));
    world.ping(alice, bob);
    world.send(bob, world.v4(bob, alice).udp(b"to be answered by a keepalive"));
    world.run_for(seconds(1));
    world.remove_peer(alice, world.key(bob));
    world.forget();
    for _ in 0..60 {
        world.send_ping(alice, world.v4(alice, bob));
        world.send_ping(bob, world.v4(bob, alice));
        world.run_for(seconds(10));
    }
    assert_eq!(world.sent().iter().filter(|sent| sent.from == alice).count(), 0);
    assert!(world.received(bob).is_empty());
    let drops: Vec<_> = world.drops(alice).into_keys().collect();
    assert_eq!(drops, ["handshake_unknown_peer", "outbound_no_peer", "unknown_receiver"]);
    let tag = world.tag_for(alice, world.key(bob));
    assert_eq!(world.command(alice, Command::RemovePeer(tag)), Err(CommandError::UnknownPeer));
}

#[test]
fn a_peer_that_is_removed_while_it_is_called_is_not_called_again() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(12));
    world.remove_peer(alice, world.key(bob));
    world.forget();
    world.run_for(minutes(10));
    assert!(world.sent().is_empty());
}

#[test]
fn a_peer_that_comes_back_begins_anew() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.remove_peer(alice, world.key(bob));
    world.run_for(seconds(1));
    world.set_peer(alice, bob, |_| {});
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}

#[test]
fn a_change_of_anything_keeps_the_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.set_peer(alice, bob, |_| {});
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(100)));
    world.set_peer(alice, bob, |peer| peer.allowed_ips.push("10.99.0.0/16".parse().expect("a prefix")));
    let v6 = world.outer(bob)[1];
    world.set_peer(alice, bob, |peer| peer.endpoint = Some(v6));
    world.set_peer(alice, bob, |peer| peer.allow = Some(Vec::new()));
    world.set_peer(alice, bob, |peer| peer.preshared_key = Some(Zeroizing::new([9; 32])));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.count(alice, Kind::Initiation), 1);
}

#[test]
fn a_learned_endpoint_outlives_a_change_that_names_none() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.roam(bob, &["198.51.100.7:4242"]);
    world.ping(bob, alice);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(100)));
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
}

#[test]
fn a_name_that_resolves_anew_does_not_disturb_a_living_session() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    let elsewhere: SocketAddr = "198.51.100.7:4242".parse().expect("an address");
    world.resolve(alice, world.key(bob), &[elsewhere]).expect("bob is a peer");
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    // Without a session, the new address is where the peer is called.
    world.run_for(minutes(10));
    world.roam(bob, &["198.51.100.7:4242"]);
    world.resolve(alice, world.key(bob), &[elsewhere]).expect("bob is a peer");
    assert_eq!(world.ping(alice, bob), Some(millis(40)));
    let nobody = PeerKey([7; 32]);
    assert_eq!(world.resolve(alice, nobody, &[elsewhere]), Err(CommandError::UnknownPeer));
}

#[test]
fn a_name_that_resolves_anew_is_where_the_next_attempt_goes() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.roam(bob, &["198.51.100.7:4242"]);
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    world.run_for(seconds(12));
    let resolved = world.outer(bob)[0];
    world.resolve(alice, world.key(bob), &[resolved]).expect("bob is a peer");
    assert!(world.run_until(seconds(6), |world| !world.received(bob).is_empty()));
}

#[test]
fn an_inner_address_moves_to_the_peer_that_was_given_it_last() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let carol = world.host();
    world.introduce(alice, carol);
    let shared = "10.99.0.1/32".parse().expect("a prefix");
    world.set_peer(alice, bob, |peer| peer.allowed_ips.push(shared));
    world.set_peer(alice, carol, |peer| peer.allowed_ips.push(shared));
    let ends = Ends::new(world.v4(alice, bob).source, Ipv4Addr::new(10, 99, 0, 1));
    world.send(alice, ends.udp(b"for carol"));
    world.run_for(seconds(1));
    assert_eq!((world.handshakes(alice, bob), world.handshakes(alice, carol)), (0, 1));
}

/// The points of small order on Curve25519 and its twist, including their unreduced encodings.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn a_peer_with_a_low_order_public_key_is_never_called() {
    let mut world = World::new(7);
    let alice = world.host();
    let ends = Ends::new(world.v4(alice, alice).source, Ipv4Addr::new(10, 99, 0, 1));
    for (text, top_bit) in LOW_ORDER.into_iter().flat_map(|text| [(text, 0), (text, 0x80)]) {
        let mut key: [u8; 32] =
            std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"));
        // The highest bit is not part of the number.
        key[31] |= top_bit;
        let config = PeerConfig {
            endpoint: Some("192.0.2.9:51820".parse().expect("an address")),
            allowed_ips: vec!["10.99.0.1/32".parse().expect("a prefix")],
            persistent_keepalive: Some(seconds(1)),
            ..PeerConfig::of(PeerKey(key))
        };
        world.configure(alice, config).expect("it is taken, as in WireGuard");
        world.send(alice, ends.udp(b"for nobody"));
        world.run_for(seconds(10));
    }
    assert!(world.sent().is_empty());
    assert_eq!(world.drops(alice), BTreeMap::from([("outbound_no_key", 14)]));
}

#[test]
fn who_calls_with_a_low_order_public_key_gets_no_answer() {
    let mut world = World::new(7);
    let alice = world.host();
    let elsewhere = "198.51.100.66:6".parse().expect("an address");
    for first in [0, 1] {
        let mut key = [0; 32];
        key[0] = first;
        world.configure(alice, PeerConfig::of(PeerKey(key))).expect("it is taken, as in WireGuard");
        let mut anybody = Initiator::of_low_order(key, world.key(alice).0, 7);
        let pending = anybody.initiate(Timestamp::from_unix_seconds(1_700_000_000), 1);
        assert!(world.ask(elsewhere, alice, &pending.message).is_empty(), "an answer to anybody");
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("handshake_low_order", 2)]));
}

#[test]
fn our_own_key_is_refused_as_a_peer() {
    let mut world = World::new(7);
    let alice = world.host();
    let own = world.key(alice);
    assert_eq!(world.configure(alice, PeerConfig::of(own)), Err(CommandError::OwnKey));
}

#[test]
fn a_refused_peer_leaves_everything_as_it_was() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let allowed_ips = vec!["10.77.0.2/32".parse().expect("a prefix")];
    let refused = PeerConfig { allowed_ips, ..PeerConfig::of(world.key(alice)) };
    assert_eq!(world.configure(alice, refused), Err(CommandError::OwnKey));
    assert_eq!(world.ping(alice, bob), Some(millis(40)), "bob's address is still bob's");
}

#[test]
fn receiver_indices_of_a_thousand_peers_are_unique_and_tell_nothing() {
    let mut world = World::new(7);
    let alice = world.host_with(HostOptions { knows_addresses: false, ..HostOptions::default() });
    let mut public_key = [9; 32];
    for n in 0..1_000u16 {
        public_key[..2].copy_from_slice(&n.to_be_bytes());
        let inner = IpAddr::from([10, 80, (n >> 8) as u8, n as u8]);
        let endpoint = SocketAddr::from(([203, 0, 113, 1], 1_000 + n));
        let config = PeerConfig {
            endpoint: Some(endpoint),
            allowed_ips: vec![inner.into()],
            ..PeerConfig::of(PeerKey(public_key))
        };
        world.configure(alice, config).expect("not of low order");
        world.send(
            alice,
            Ends::new(Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::from([10, 80, (n >> 8) as u8, n as u8])).udp(b"x"),
        );
    }
    let index = |bytes: &[u8]| u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) >> 8;
    let indices: Vec<_> = world.sent_by(alice, Kind::Initiation).map(|sent| index(&sent.bytes)).collect();
    assert_eq!(indices.len(), 1_000);
    assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), 1_000, "unique");
    // The indices are spread over the whole range.
    let mut sixteenths = [0; 16];
    indices.iter().for_each(|index| sixteenths[(index >> 20) as usize] += 1);
    assert!(sixteenths.iter().all(|count| (30..100).contains(count)), "{sixteenths:?}");
    let rises = indices.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((400..600).contains(&rises), "{rises}");
}

#[test]
fn what_a_peer_may_open_is_asked_at_the_node() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    let ssh = Rule { protocol: Protocol::Tcp, ports: Some(22..=22) };
    world.set_peer(alice, bob, |_| {});
    world.set_peer(bob, alice, |peer| peer.allow = Some(vec![ssh]));
    let ends = world.v4(alice, bob);
    world.send(alice, ends.tcp_syn(1_000, 22, 1_000));
    world.send(alice, ends.tcp_syn(1_000, 23, 1_000));
    world.send(alice, ends.udp_between(1_000, 22, b"not TCP"));
    world.send(alice, ends.echo_request(1, 1, b"not TCP either"));
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 1);
    assert_eq!(world.drops(bob), BTreeMap::from([("not_allowed", 3)]));
    assert_eq!(world.peer_stats(bob, world.key(alice)).drops.value(), 3);

    // Bob opens the flow and alice answers. Her answer does not count as an opening.
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
    world.send(bob, ends.reversed().udp_between(53, 5_353, b"question"));
    world.send(alice, ends.udp_between(5_353, 53, b"answer"));
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 3, "{:?}", world.drops(bob));

    // Nothing is listed, so only answers are allowed.
    world.set_peer(bob, alice, |peer| peer.allow = Some(Vec::new()));
    world.send(alice, ends.tcp_syn(1_001, 22, 1_000));
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 3);
}
