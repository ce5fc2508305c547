//! Under load a stranger gets a cookie, which is worth something from one address for two minutes; and what a node does with
//! the cookies that it gets.

use std::net::SocketAddr;

use overlay_core::{Instant, Joins, Node, NodeConfig, Output, UdpTrain, Via};
use overlay_sim::initiator::{Initiator, Refused, Timestamp};
use overlay_sim::{Kind, World, millis, seconds};
use zeroize::Zeroizing;

use crate::{COOKIE_REPLY, RESPONSE, called_by_alice, elsewhere};

#[test]
fn under_load_a_stranger_gets_a_cookie_that_is_not_longer_than_the_question() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    world.load(alice);
    let pending = carol.initiate();
    let answers = world.ask(carol.address, alice, &pending.message);
    let [reply] = &answers[..] else { panic!("{} answers", answers.len()) };
    assert!(reply[0] == COOKIE_REPLY && reply.len() <= pending.message.len());
    assert_eq!(world.drops(alice)["handshake_cookie"], 1);
    assert_eq!(world.stats(alice).cookies_sent.value(), 1);

    // The shortest handshake message is a response: also longer than the cookie.
    let mut response = pending.message[..92].to_vec();
    response[0] = RESPONSE;
    carol.initiator.sign(&mut response, None);
    let answers = world.ask(carol.address, alice, &response);
    assert!(answers.len() == 1 && answers[0].len() <= 92);
    // A wrong mac1 gets nothing, load or not.
    response[90 - 30] ^= 1;
    assert!(world.ask(carol.address, alice, &response).is_empty());

    // With the cookie it passes.
    let cookie = carol.initiator.cookie(&pending.message, reply).expect("a cookie for carol");
    let mut again = carol.initiate();
    carol.initiator.sign(&mut again.message, Some(&cookie));
    let answers = world.ask(carol.address, alice, &again.message);
    assert!(carol.initiator.complete(&again, &answers[0]).is_ok());
}

/// A cookie goes to a sender that is not known yet, and the node looks up no routes for strangers. It answers an IPv4 sender from the
/// address that was asked, by any interface. A link-local address means nothing without its interface, so that is kept.
#[test]
fn a_cookie_leaves_from_where_it_was_asked_for_and_names_no_interface_of_ipv4() {
    let now = Instant::from_start(seconds(1));
    let config = NodeConfig {
        private_key: Some(Zeroizing::new([1; 32])),
        addresses: vec!["10.64.0.1".parse().expect("an address")],
        forward: false,
        mtu: 1420,
        max_mtu: 1420,
        joins: Joins::NOTHING,
        seed: [7; 32],
        wall_anchor: None,
    };
    let mut node = Node::new(config, now);
    let mut stranger = Initiator::new([9; 32], node.public_key().expect("it has a key").0, 1);
    let message = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
    let mut ask = |source: &str, local: Option<(&str, u32)>| {
        let local = local.map(|(address, interface)| (address.parse().expect("an address"), interface));
        let source = source.parse().expect("an endpoint");
        let train =
            UdpTrain { contents: &message, stride: message.len(), source, via: Via { local, ..Via::ANY }, ecn: 0 };
        node.handle_udp(&train, now);
        let sent = node.poll_outputs().filter_map(|output| match output {
            Output::Transmit(transmit) => Some((transmit.contents[0], transmit.via.local)),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    for number in 0..256 {
        assert!(ask(&format!("198.18.0.{number}:1000"), None).is_empty(), "the {number}th is within the allowance");
    }
    for (source, to, from) in [
        ("198.18.1.1:1000", Some(("192.0.2.1", 3)), Some(("192.0.2.1", 0))),
        ("198.18.1.1:1000", Some(("192.0.2.1", 0)), Some(("192.0.2.1", 0))),
        ("[fe80::9%3]:1000", Some(("fe80::1", 3)), Some(("fe80::1", 3))),
        ("198.18.1.1:1000", None, None),
    ] {
        let from = from.map(|(address, interface): (&str, u32)| (address.parse().expect("an address"), interface));
        assert_eq!(ask(source, to), [(COOKIE_REPLY, from)], "asked at {to:?}");
    }
}

#[test]
fn a_cookie_is_worth_nothing_from_another_address_or_to_another_message() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    world.load(alice);
    let pending = carol.initiate();
    let reply = world.ask(carol.address, alice, &pending.message).remove(0);
    let cookie = carol.initiator.cookie(&pending.message, &reply).expect("a cookie for carol");
    let mut again = carol.initiate();
    assert_eq!(carol.initiator.cookie(&again.message, &reply), Err(Refused::Index));
    carol.initiator.sign(&mut again.message, Some(&cookie));
    assert_eq!(world.ask(elsewhere(), alice, &again.message)[0][0], COOKIE_REPLY);
    let mut damaged = again.message.clone();
    damaged[147] ^= 1;
    assert_eq!(world.ask(carol.address, alice, &damaged)[0][0], COOKIE_REPLY);
    assert_eq!(world.ask(carol.address, alice, &again.message)[0][0], RESPONSE);
}

#[test]
fn a_cookie_that_is_four_minutes_old_is_worth_nothing() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    world.load(alice);
    let cookie = world.cookie(&mut carol);
    world.run_for(seconds(240));
    world.load(alice);
    let mut again = carol.initiate();
    carol.initiator.sign(&mut again.message, Some(&cookie));
    assert_eq!(world.ask(carol.address, alice, &again.message)[0][0], COOKIE_REPLY);
}

#[test]
fn the_load_of_one_second_is_forgotten_in_the_next() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    for _ in 0..3 {
        world.load(alice);
        let pending = carol.initiate();
        assert_eq!(world.ask(carol.address, alice, &pending.message)[0][0], COOKIE_REPLY);
        world.run_for(seconds(1));
        let pending = carol.initiate();
        assert_eq!(world.ask(carol.address, alice, &pending.message)[0][0], RESPONSE);
        world.run_for(seconds(1));
    }
}

#[test]
fn under_load_one_source_with_a_cookie_gets_five_handshakes_at_once_and_twenty_a_second() {
    let mut world = World::new(7);
    let alice = world.host();
    world.load(alice);
    let source = elsewhere();
    let (stranger, mut message) = world.stranger(alice, 8);
    world.prove(&stranger, source, alice, &mut message);
    for _ in 0..20 {
        assert!(world.ask(source, alice, &message).is_empty());
    }
    assert_eq!(world.drops(alice)["handshake_rate"], 15);
    assert_eq!(world.drops(alice)["handshake_unknown_peer"], 256 + 5);

    // A different port is the same source. A different address is not.
    let other_port = SocketAddr::new(source.ip(), 667);
    assert!(world.ask(other_port, alice, &message).is_empty());
    assert_eq!(world.drops(alice)["handshake_rate"], 16);

    // Spread over the rest of the second: one every 50 ms.
    let before = world.drops(alice)["handshake_unknown_peer"];
    for _ in 0..90 {
        world.run_for(millis(10));
        world.ask(source, alice, &message);
    }
    let passed = world.drops(alice)["handshake_unknown_peer"] - before;
    assert!((17..=18).contains(&passed), "{passed} within 0.9 s");
}

#[test]
fn two_nodes_meet_while_one_of_them_is_flooded() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let flood = world.stranger(bob, 9).1;
    let mut began = world.now();
    while world.received(bob).is_empty() && world.now().since(began) < seconds(20) {
        for n in 0..50u8 {
            world.inject(SocketAddr::from(([198, 18, 0, n], 1_000)), bob, &flood);
        }
        world.run_for(millis(10));
        if world.count(alice, Kind::Initiation) == 0 && world.stats(bob).cookies_sent.value() > 100 {
            began = world.now();
            world.send(alice, world.v4(alice, bob).udp(b"hello"));
        }
    }
    assert!(world.stats(bob).cookies_sent.value() > 1_000);
    assert_eq!(world.received(bob).len(), 1, "after {:?}", world.now().since(began));
    assert!(world.now().since(began) < seconds(11), "with a cookie, in the next attempt");
}

#[test]
fn a_node_that_got_a_cookie_proves_its_address_in_the_next_attempt() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (_, initiation) = called_by_alice(&mut world, alice, &mut carol);
    let cookie = [5; 16];
    assert!(!carol.initiator.proves(&initiation, &cookie));
    let reply = carol.initiator.cookie_reply(&initiation, cookie);
    assert!(world.ask(carol.address, alice, &reply).is_empty(), "it waits for its next attempt");
    world.run_for(seconds(6));
    let again = world.take_mail(carol.address).remove(0);
    assert!(carol.initiator.proves(&again, &cookie));
}

#[test]
fn a_cookie_reply_never_moves_the_endpoint() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (_, initiation) = called_by_alice(&mut world, alice, &mut carol);
    world.forget();
    let reply = carol.initiator.cookie_reply(&initiation, [5; 16]);
    world.inject(elsewhere(), alice, &reply);
    assert!(world.events(alice).is_empty());
    world.run_for(seconds(6));
    assert!(world.take_mail(elsewhere()).is_empty());
    assert_eq!(world.take_mail(carol.address).len(), 1);
}

#[test]
fn a_forged_cookie_reply_is_dropped() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (_, initiation) = called_by_alice(&mut world, alice, &mut carol);
    let good = carol.initiator.cookie_reply(&initiation, [5; 16]);
    for at in 4..64 {
        let mut forged = good.clone();
        forged[at] ^= 1;
        world.inject(elsewhere(), alice, &forged);
    }
    world.run_for(seconds(6));
    let again = world.take_mail(carol.address).remove(0);
    assert!(!carol.initiator.proves(&again, &[5; 16]));
    assert_eq!(world.drops(alice).values().sum::<u64>(), 60, "{:?}", world.drops(alice));
}
