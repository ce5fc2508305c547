//! Datagrams on the outer wire that are not valid messages, or are modified, repeated or invented messages.

use super::bytes::{Ends, ends};
use super::siege::{CAROL, MALLORY, Siege};
use crate::lab::A;

/// The longest UDP datagram over IPv4, in bytes.
const LONGEST: usize = 65_507;

fn from_mallory() -> Ends {
    ends(MALLORY.v4, A.v4)
}

/// An honest packet, identified by its number. The message around it is 80 bytes long, unlike any other message type.
fn packet(number: u8) -> Vec<u8> {
    from_mallory().udp(4660, 7000, &[number; 20])
}

/// How often each reason occurs.
fn tally<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, u64)> {
    let mut tally = std::collections::BTreeMap::new();
    for reason in reasons {
        *tally.entry(reason).or_default() += 1;
    }
    tally.into_iter().collect()
}

/// A message of this type and length, and zeros.
fn message_of(kind: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = kind;
    message
}

#[test]
fn a_message_with_any_byte_changed_is_dropped_and_moves_nothing() {
    let Some(mut siege) = Siege::of_two("tampered") else { return };
    let mut mallory = siege.attacker(MALLORY);
    // A counter that flipping one bit cannot turn into a used one.
    mallory.session.next_counter = 0x55;
    let honest = mallory.session.seal(&packet(1));
    let heard = |siege: &Siege| siege.peer(MALLORY)["received_wire_bytes"].as_u64().expect("a number");
    let before = heard(&siege);

    // From a different socket, to which a forged message must not move the endpoint.
    let mut elsewhere = siege.wire();
    let mut expected = Vec::new();
    for at in 0..honest.len() {
        for flip in [0x01, 0x80] {
            let mut message = honest.clone();
            message[at] ^= flip;
            elsewhere.send(&message);
            expected.push(match at {
                0..4 => "inbound_unknown",
                4..8 => "unknown_receiver",
                _ => "forged",
            });
        }
    }
    siege.talks_to(&mut mallory);
    let outcome = siege.outcome(&mut mallory);
    outcome.is("every byte", &[], &tally(expected));
    assert_eq!(outcome.answers.len(), 0, "silence");
    assert_eq!(elsewhere.receive_now(), None);
    assert_eq!(heard(&siege) - before, 32 + 48, "nothing but the ping was heard");

    // A tag of zeros, once without and once with ciphertext.
    let mut made_up = honest[..16].to_vec();
    made_up.extend([0; 16]);
    let zero_tag = [&honest[..honest.len() - 16], &[0; 16]].concat();
    siege.strike(&mut mallory, &[made_up, zero_tag]).is("made up", &[], &[("forged", 2)]);

    // The unmodified message is accepted from there too. The endpoint follows it, and then comes back.
    elsewhere.send(&honest);
    std::mem::swap(&mut mallory.wire, &mut elsewhere);
    siege.talks_to(&mut mallory);
    std::mem::swap(&mut mallory.wire, &mut elsewhere);
    siege.outcome(&mut mallory).is("honest", &[packet(1)], &[]);
    siege.talks_to(&mut mallory);
}

#[test]
fn a_datagram_of_65507_bytes_is_no_more_than_any_other() {
    let Some(mut siege) = Siege::of_two("oversized") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let index = mallory.session.peer_index.to_le_bytes();
    let mut forged = message_of(4, LONGEST);
    forged[4..8].copy_from_slice(&index);
    forged[8..16].copy_from_slice(&mallory.session.next_counter.to_le_bytes());
    let long = [message_of(1, LONGEST), message_of(2, LONGEST), message_of(3, LONGEST), forged, vec![0xff; LONGEST]];
    let outcome = siege.strike(&mut mallory, &long);
    outcome.is("long", &[], &[("inbound_length", 3), ("forged", 1), ("inbound_unknown", 1)]);
    assert_eq!(outcome.answers.len(), 0, "silence");

    // As in WireGuard, the peer itself may send one: it is an authentic packet like any other.
    let most = vec![0x5a; LONGEST - 32 - 28];
    let packet = from_mallory().udp(4660, 7000, &most);
    let message = mallory.session.seal_as_is(mallory.session.next_counter, &packet);
    mallory.session.next_counter += 1;
    assert_eq!(message.len(), LONGEST);
    siege.strike(&mut mallory, &[message]).is("authentic", &[packet], &[]);
}

#[test]
fn a_receiver_index_that_names_no_session_is_unknown() {
    let Some(mut siege) = Siege::of_two("receivers") else { return };
    let (mut mallory, carol) = (siege.attacker(MALLORY), siege.attacker(CAROL));
    let own = mallory.session.peer_index;
    let others: Vec<u32> = (0..32).map(|bit| own ^ 1 << bit).chain([0, 1, u32::MAX]).collect();
    let messages: Vec<_> = others
        .iter()
        .map(|index| {
            let mut message = mallory.session.seal(&packet(0));
            message[4..8].copy_from_slice(&index.to_le_bytes());
            message
        })
        .collect();
    let outcome = siege.strike(&mut mallory, &messages);
    outcome.is("unknown", &[], &[("unknown_receiver", others.len() as u64)]);
    assert_eq!(outcome.answers.len(), 0, "silence");

    // Carol's receiver index is known, but Mallory does not have her key.
    let mut message = mallory.session.seal(&packet(0));
    message[4..8].copy_from_slice(&carol.session.peer_index.to_le_bytes());
    siege.strike(&mut mallory, &[message]).is("another's", &[], &[("forged", 1)]);
}

#[test]
fn data_that_is_sent_again_is_dropped() {
    let Some(mut siege) = Siege::of_two("replay") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let packets: Vec<_> = (0..64).map(packet).collect();
    let messages = mallory.seal(&packets);

    // In reverse order first: messages that were overtaken are still accepted.
    let backwards = |all: &[Vec<u8>]| all.iter().rev().cloned().collect::<Vec<_>>();
    siege.strike(&mut mallory, &backwards(&messages)).is("overtaken", &backwards(&packets), &[]);
    for _ in 0..2 {
        let outcome = siege.strike(&mut mallory, &messages);
        outcome.is("again", &[], &[("replay", 64)]);
        assert_eq!(outcome.answers.len(), 0, "silence");
    }
    let outcome = siege.strike_as_train(&mut mallory, &messages);
    outcome.is("again, as a train", &[], &[("replay", 64)]);

    // From a different address they do not move the endpoint either.
    let elsewhere = siege.wire();
    elsewhere.send(&messages[0]);
    elsewhere.send(messages.last().expect("64 of them"));
    siege.talks_to(&mut mallory);
    siege.outcome(&mut mallory).is("from elsewhere", &[], &[("replay", 2)]);

    // A message that was held back while the window moved on is too old, although it was never received.
    let kept_back = mallory.session.seal(&packet(100));
    mallory.session.next_counter += 10_000;
    siege.is_alive(&mut mallory);
    siege.strike(&mut mallory, &[kept_back]).is("kept back", &[], &[("replay", 1)]);

    // A new session has its own counters. Replays in the old session are still detected.
    let old = mallory.session.clone();
    let pending = mallory.initiate();
    mallory.wire.send(&pending.message);
    let response = mallory.wire.receive();
    mallory.session = mallory.noise.complete(&pending, &response).expect("a response");
    siege.is_alive(&mut mallory);
    siege.strike(&mut mallory, &messages).is("of the old session", &[], &[("replay", 64)]);
    let late = old.seal_as_is(old.next_counter, &packet(101));
    siege.strike(&mut mallory, std::slice::from_ref(&late)).is("late", &[packet(101)], &[]);
    siege.strike(&mut mallory, &[late]).is("late, and again", &[], &[("replay", 1)]);
}
