//! What a stranger without an accepted key can send to the port: damaged messages, forgeries, floods. Nothing is
//! answered that should not be, nothing is delivered, no endpoint moves, and everything is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay_core::{Command, Instant, Joins, Node, NodeConfig, Output, UdpTrain, Via};
use overlay_sim::initiator::{Initiator, Refused, Timestamp};
use overlay_sim::{HostId, Kind, Outsider, World, millis, minutes, seconds};
use zeroize::Zeroizing;

const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;

fn elsewhere() -> SocketAddr {
    "198.51.100.66:666".parse().expect("an address")
}

/// A host and its peer with a session, and one genuine message of each type that they exchanged.
fn genuine() -> (World, HostId, HostId, Vec<Vec<u8>>) {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.ping(alice, bob);
    let initiation = world.sent_by(alice, Kind::Initiation).next().expect("an initiation").bytes.clone();
    let response = world.sent_by(bob, Kind::Response).next().expect("a response").bytes.clone();
    let data = world.sent_by(alice, Kind::Data).next().expect("data").bytes.clone();
    let mut cookie = initiation[..64].to_vec();
    cookie[0] = COOKIE_REPLY;
    world.forget();
    (world, alice, bob, vec![initiation, response, cookie, data])
}

/// Checks that nothing happened: no packet, no event, no datagram. The session still works in both directions.
fn assert_untouched(world: &mut World, alice: HostId, bob: HostId) {
    assert!(world.received(alice).is_empty() && world.received(bob).is_empty());
    assert!(world.events(alice).is_empty() && world.events(bob).is_empty());
    assert!(world.sent().is_empty(), "{}", world.sent()[0]);
    assert_eq!(world.ping(alice, bob), Some(millis(20)));
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
    assert_eq!(world.handshakes(alice, bob), 1);
}

#[test]
fn messages_cut_at_every_length_up_to_200_are_refused() {
    let (mut world, alice, bob, messages) = genuine();
    let mut injected = 0;
    for message in &messages {
        for len in 0..=200 {
            let mut cut = message.clone();
            cut.resize(len, 0xa5);
            if len != message.len() {
                world.inject(elsewhere(), bob, &cut);
                injected += 1;
            }
        }
    }
    let drops = world.drops(bob);
    assert_eq!(drops.values().sum::<u64>(), injected);
    // Fewer than four bytes have no message type. Data has at least 32 bytes.
    assert_eq!(drops["inbound_unknown"], 4 * 4);
    let data_len = messages[3].len();
    assert!(data_len <= 200);
    // The counter was already used, and it is checked before the tag.
    assert_eq!(drops["replay"], 200 - 31 - 1);
    assert_untouched(&mut world, alice, bob);
}

#[test]
fn oversized_messages_are_refused() {
    let (mut world, alice, bob, messages) = genuine();
    let lengths = [201, 512, 1_420, 1_500, 1_501, 2_048, 9_000, 65_000, 65_507];
    for message in &messages {
        for len in lengths {
            let mut long = message.clone();
            long.resize(len, 0);
            world.inject(elsewhere(), bob, &long);
        }
    }
    let drops = world.drops(bob);
    assert_eq!(drops["inbound_length"], 3 * lengths.len() as u64);
    assert_eq!(drops.values().sum::<u64>(), 4 * lengths.len() as u64);
    assert_untouched(&mut world, alice, bob);
}

#[test]
fn every_first_byte_and_every_reserved_byte_is_survived() {
    let (mut world, alice, bob, messages) = genuine();
    let mut injected = 0;
    for message in &messages {
        for first in 0..=255 {
            let mut changed = message.clone();
            changed[0] = first;
            if changed != *message {
                world.inject(elsewhere(), bob, &changed);
                injected += 1;
            }
        }
        for at in 1..4 {
            let mut changed = message.clone();
            changed[at] = 1;
            world.inject(elsewhere(), bob, &changed);
            injected += 1;
        }
    }
    let drops = world.drops(bob);
    assert_eq!(drops.values().sum::<u64>(), injected);
    assert!(drops["inbound_unknown"] >= 4 * (252 + 3), "{drops:?}");
    assert_untouched(&mut world, alice, bob);
}

#[test]
fn stun_and_other_protocols_are_unknown_for_now() {
    let (mut world, alice, bob, _) = genuine();
    let binding_request = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    world.inject(elsewhere(), bob, &binding_request);
    world.inject(elsewhere(), bob, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(world.drops(bob), BTreeMap::from([("inbound_unknown", 2)]));
    assert_untouched(&mut world, alice, bob);
}

#[test]
fn a_data_message_with_any_byte_changed_is_dropped() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let mut session = world.connect(&mut carol);
    let packet = world.from_outsider(&carol).udp(b"untouched");
    world.forget();
    let message = session.seal(&packet);
    for at in 0..message.len() {
        let mut forged = message.clone();
        forged[at] ^= 0x40;
        world.inject(elsewhere(), alice, &forged);
    }
    let drops = world.drops(alice);
    assert_eq!(drops.values().sum::<u64>(), message.len() as u64, "{drops:?}");
    // Four bytes of type, four of the index, and the tag covers the rest. One byte makes the counter too large.
    assert_eq!(drops["inbound_unknown"], 4);
    assert!(drops["forged"] >= message.len() as u64 - 4 - 4 - 1, "{drops:?}");
    assert!(world.received(alice).is_empty() && world.events(alice).is_empty());
    world.inject(carol.address, alice, &message);
    assert_eq!(world.received(alice).len(), 1, "the counter was not used up by the forgeries");
}

#[test]
fn an_initiation_with_any_byte_changed_is_refused_even_with_a_good_mac1() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let good = carol.initiate();
    // Index and mac2 may have any value. Everything else is protected.
    for at in (0..148).filter(|at| !(4..8).contains(at) && *at < 132) {
        world.run_for(millis(21));
        let mut forged = good.message.clone();
        forged[at] ^= 0x40;
        assert!(world.ask(elsewhere(), alice, &forged).is_empty(), "byte {at}");
        if (8..116).contains(&at) {
            carol.initiator.sign(&mut forged, None);
            assert!(world.ask(elsewhere(), alice, &forged).is_empty(), "byte {at}, signed again");
        }
    }
    assert!(world.events(alice).is_empty());
    assert_eq!(world.stats(alice).initiations_received.value(), 0);
    let drops: Vec<_> = world.drops(alice).into_keys().collect();
    assert_eq!(drops, ["handshake_forged", "handshake_mac", "inbound_unknown"]);
    assert_eq!(world.ask(carol.address, alice, &good.message).len(), 1, "the timestamp was not used up");
}

#[test]
fn a_response_with_any_byte_changed_is_refused_and_the_good_one_is_still_taken() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (_, initiation) = called_by_alice(&mut world, alice, &mut carol);
    let (good, session, _) = carol.initiator.answer(&initiation, 77).expect("an initiation for carol");
    for at in 0..76 {
        let mut forged = good.clone();
        forged[at] ^= 0x40;
        assert!(world.ask(elsewhere(), alice, &forged).is_empty(), "byte {at}");
        if (4..60).contains(&at) {
            carol.initiator.sign(&mut forged, None);
            // The responder's index is the only field that only mac1 covers.
            if !(4..8).contains(&at) {
                assert!(world.ask(elsewhere(), alice, &forged).is_empty(), "byte {at}, signed again");
            }
        }
    }
    assert_eq!(world.last_endpoint(alice, carol.key()), Some(carol.address), "a forgery moved it");
    let answers = world.ask(carol.address, alice, &good);
    assert!(session.open(&answers[0]).is_ok());
}

/// Alice wants to send to carol: her initiation, and a session from an earlier handshake that carol started.
fn called_by_alice(
    world: &mut World,
    alice: HostId,
    carol: &mut Outsider,
) -> (overlay_sim::initiator::Session, Vec<u8>) {
    let session = world.connect(carol);
    world.run_for(seconds(200));
    world.take_mail(carol.address);
    world.send(alice, world.from_outsider(carol).reversed().udp(b"for carol"));
    world.run_for(seconds(0));
    let mail = world.take_mail(carol.address);
    assert_eq!(mail.len(), 1);
    (session, mail[0].clone())
}

#[test]
fn the_hand_written_responder_is_called_and_served_like_any_other() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    let (_, initiation) = called_by_alice(&mut world, alice, &mut carol);
    let (response, session, _) = carol.initiator.answer(&initiation, 77).expect("an initiation for carol");
    let answers = world.ask(carol.address, alice, &response);
    let opened = session.open(answers.last().expect("what had waited")).expect("data for carol");
    let packet = world.from_outsider(&carol).reversed().udp(b"for carol");
    assert_eq!(opened.plaintext[..packet.len()], packet);
}

#[test]
fn a_stranger_gets_no_answer() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let mut stranger = Initiator::new([9; 32], world.key(alice).0, 1);
    let message = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
    assert!(world.ask(elsewhere(), alice, &message).is_empty());
    assert_eq!(world.drops(alice), BTreeMap::from([("handshake_unknown_peer", 1)]));
    // A stranger that uses the wrong public key for us fails even earlier.
    let mut confused = Initiator::new([9; 32], world.key(bob).0, 1);
    let message = confused.initiate(Timestamp::from_unix_seconds(1), 1).message;
    assert!(world.ask(elsewhere(), alice, &message).is_empty());
    assert_eq!(world.drops(alice)["handshake_mac"], 1);
}

/// Uses up alice's handshake allowance of this second with initiations of strangers from many addresses.
fn load(world: &mut World, alice: HostId) {
    let mut stranger = Initiator::new([9; 32], world.key(alice).0, 1);
    let message = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
    for n in 0..256u16 {
        let source = SocketAddr::from(([198, 18, (n >> 8) as u8, n as u8], 1_000));
        assert!(world.ask(source, alice, &message).is_empty(), "the {n}th is within the allowance");
    }
}

#[test]
fn under_load_a_stranger_gets_a_cookie_that_is_not_longer_than_the_question() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    load(&mut world, alice);
    let pending = carol.initiate();
    let answers = world.ask(carol.address, alice, &pending.message);
    let [reply] = &answers[..] else { panic!("{} answers", answers.len()) };
    assert!(reply[0] == COOKIE_REPLY && reply.len() <= pending.message.len());
    assert_eq!(world.drops(alice)["handshake_cookie"], 1);
    assert_eq!(world.stats(alice).cookies_sent.value(), 1);

    // A response is the shortest handshake message, and even it is longer than the cookie reply.
    let mut response = pending.message[..92].to_vec();
    response[0] = RESPONSE;
    carol.initiator.sign(&mut response, None);
    let answers = world.ask(carol.address, alice, &response);
    assert!(answers.len() == 1 && answers[0].len() <= 92);
    // A message with a wrong mac1 gets no answer, with or without load.
    response[90 - 30] ^= 1;
    assert!(world.ask(carol.address, alice, &response).is_empty());

    // With the cookie it is accepted.
    let cookie = carol.initiator.cookie(&pending.message, reply).expect("a cookie for carol");
    let mut again = carol.initiate();
    carol.initiator.sign(&mut again.message, Some(&cookie));
    let answers = world.ask(carol.address, alice, &again.message);
    assert!(carol.initiator.complete(&again, &answers[0]).is_ok());
}

/// At this point the peer is not known yet, and the routing table is not consulted for strangers. An answer over IPv4
/// leaves from the address that was asked, by whatever interface leads to the sender. A link-local address has no
/// meaning without its interface, so it keeps it.
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
        let train = UdpTrain { contents: &message, stride: message.len(), source, via: Via { local }, ecn: 0 };
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
    load(&mut world, alice);
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
    load(&mut world, alice);
    let pending = carol.initiate();
    let reply = world.ask(carol.address, alice, &pending.message).remove(0);
    let cookie = carol.initiator.cookie(&pending.message, &reply).expect("a cookie for carol");
    world.run_for(seconds(240));
    load(&mut world, alice);
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
        load(&mut world, alice);
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
    load(&mut world, alice);
    let source = elsewhere();
    let mut stranger = Initiator::new([8; 32], world.key(alice).0, 1);
    let mut message = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
    let reply = world.ask(source, alice, &message).remove(0);
    let cookie = stranger.cookie(&message, &reply).expect("a cookie for the stranger");
    stranger.sign(&mut message, Some(&cookie));
    for _ in 0..20 {
        assert!(world.ask(source, alice, &message).is_empty());
    }
    assert_eq!(world.drops(alice)["handshake_rate"], 15);
    assert_eq!(world.drops(alice)["handshake_unknown_peer"], 256 + 5);

    // A different port counts as the same source. A different address does not.
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
    let mut stranger = Initiator::new([9; 32], world.key(bob).0, 1);
    let flood = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
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

/// Anyone can claim to be a peer in an initiation. If replay state for that peer exists, its work is done only once:
/// the result stays for the nine minutes after which keys are zeroed.
#[test]
fn a_forged_initiation_leaves_nothing_but_the_memory_of_replays() {
    for was_there in [false, true] {
        let mut world = World::new(7);
        let alice = world.host();
        let mut carol = world.outsider(alice);
        let mut old = carol.initiate();
        if was_there {
            world.connect(&mut carol);
            world.run_for(seconds(1));
            old = carol.initiate();
            assert_eq!(world.ask(carol.address, alice, &old.message).len(), 1);
            // This makes alice forget her sessions.
            for is_up in [false, true] {
                world.command(alice, Command::SetUp(is_up)).expect("always possible");
            }
        }
        world.run_for(minutes(20));
        let before = world.wakeups(alice);
        for _ in 0..100 {
            let mut forged = carol.initiate().message;
            forged[100] ^= 0x40;
            carol.initiator.sign(&mut forged, None);
            world.inject(elsewhere(), alice, &forged);
        }
        world.run_for(minutes(20));
        assert_eq!(world.drops(alice), BTreeMap::from([("handshake_forged", 100)]));
        assert_eq!(world.wakeups(alice) - before, u64::from(was_there), "was there: {was_there}");
        assert_eq!(
            world.ask(elsewhere(), alice, &old.message).len(),
            usize::from(!was_there),
            "was there: {was_there}"
        );
    }
}

#[test]
fn a_forgery_moves_no_endpoint_and_wakes_nobody() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.run_for(seconds(15));
    let data = world.sent_by(bob, Kind::Data).next().expect("data").bytes.clone();
    world.forget();
    let (wakeups, stats) = (world.wakeups(alice), world.peer_stats(alice, world.key(bob)).received_wire_bytes.value());
    for n in 0..1_000u16 {
        let mut forged = data.clone();
        forged[8..10].copy_from_slice(&(n + 1_000).to_le_bytes());
        world.inject(elsewhere(), alice, &forged);
        world.run_for(millis(10));
    }
    assert_eq!(world.drops(alice), BTreeMap::from([("forged", 1_000)]));
    assert!(world.sent().is_empty() && world.events(alice).is_empty());
    assert_eq!(world.wakeups(alice), wakeups);
    assert_eq!(world.peer_stats(alice, world.key(bob)).received_wire_bytes.value(), stats);
}
