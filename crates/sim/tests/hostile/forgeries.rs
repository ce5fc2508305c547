//! Messages with a changed byte, messages of strangers, and initiations that only name a peer.

use std::collections::BTreeMap;

use overlay_core::Command;
use overlay_sim::initiator::{Initiator, Timestamp};
use overlay_sim::{Kind, World, millis, minutes, seconds};

use crate::{called_by_alice, elsewhere};

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
    // The four bytes of the type, those of the index, and the tag for all the rest; one byte of the counter is high.
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
    // Index and mac2 may be anything; all else is protected.
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
            // The responder's index is the one field that nothing covers but mac1.
            if !(4..8).contains(&at) {
                assert!(world.ask(elsewhere(), alice, &forged).is_empty(), "byte {at}, signed again");
            }
        }
    }
    assert_eq!(world.last_endpoint(alice, carol.key()), Some(carol.address), "a forgery moved it");
    let answers = world.ask(carol.address, alice, &good);
    assert!(session.open(&answers[0]).is_ok());
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
    let (_, message) = world.stranger(alice, 9);
    assert!(world.ask(elsewhere(), alice, &message).is_empty());
    assert_eq!(world.drops(alice), BTreeMap::from([("handshake_unknown_peer", 1)]));
    // One who knows the wrong key of ours does not even get that far.
    let mut confused = Initiator::new([9; 32], world.key(bob).0, 1);
    let message = confused.initiate(Timestamp::from_unix_seconds(1), 1).message;
    assert!(world.ask(elsewhere(), alice, &message).is_empty());
    assert_eq!(world.drops(alice)["handshake_mac"], 1);
}

/// Anybody can name a peer. Where replays of one are remembered the work of that is done once: what it is done in stays, for the
/// nine minutes after which keys are zeroed.
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
            // Sessions are forgotten.
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
