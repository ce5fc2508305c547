//! Messages of every type that are cut, too long, or of a kind that nobody knows.

use std::collections::BTreeMap;

use overlay_sim::{HostId, Kind, World, millis};

use crate::{COOKIE_REPLY, elsewhere};

/// A host and its peer with a session, and one genuine message of each type that was spoken between them.
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

/// Nothing came of it: no packet, no event, no datagram, and the session works in both directions.
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
    // Fewer than four bytes, or none at all, have no type; data is at least 32 bytes long.
    assert_eq!(drops["inbound_unknown"], 4 * 4);
    let data_len = messages[3].len();
    assert!(data_len <= 200);
    // Three types have one length each; data that is too short for a tag has none.
    assert_eq!(drops["inbound_length"], 3 * (200 - 4) + 28);
    // Its counter was used, which is looked at before the tag.
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
        for (at, byte) in (1..4).flat_map(|at| (1..=255).map(move |byte| (at, byte))) {
            let mut changed = message.clone();
            changed[at] = byte;
            world.inject(elsewhere(), bob, &changed);
            injected += 1;
        }
    }
    let drops = world.drops(bob);
    assert_eq!(drops.values().sum::<u64>(), injected);
    assert!(drops["inbound_unknown"] >= 4 * (252 + 3 * 255), "{drops:?}");
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
