//! Datagrams on the outer wire that are not valid messages, or are modified, repeated or invented messages.

use super::bytes::{Ends, ends};
use super::siege::{CAROL, Counts, MALLORY, Siege};
use crate::lab::A;

/// The first counter that is refused. A counter from here on ends the session (REJECT_AFTER_MESSAGES).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
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

#[test]
fn messages_of_every_length_but_their_own_are_dropped() {
    let Some(mut siege) = Siege::of_two("lengths") else { return };
    let mut mallory = siege.attacker(MALLORY);

    let data = mallory.session.seal(&packet(0));
    let whole_lengths = [(mallory.initiate().message, 148), (message_of(2, 92), 92), (message_of(3, 64), 64)];
    for (message, len) in &whole_lengths {
        assert_eq!(message.len(), *len);
        let longer = (len + 1..len + 40).map(|len| [&message[..], &[0; 40]].concat()[..len].to_vec());
        let cut: Vec<_> = (0..*len).map(|len| message[..len].to_vec()).chain(longer).collect();
        let reasons = cut.iter().map(|cut| if cut.len() < 4 { "inbound_unknown" } else { "inbound_length" });
        let dropped = tally(reasons);
        let outcome = siege.strike(&mut mallory, &cut);
        outcome.is("cut or longer", &[], &dropped);
        assert_eq!(outcome.answers.len(), 0, "silence");
    }

    let cut: Vec<_> = (0..data.len()).map(|len| data[..len].to_vec()).collect();
    let dropped = tally((0..data.len()).map(|len| match len {
        0..4 => "inbound_unknown",
        4..32 => "inbound_length",
        _ => "forged",
    }));
    let outcome = siege.strike(&mut mallory, &cut);
    outcome.is("data cut", &[], &dropped);
    assert_eq!(outcome.answers.len(), 0, "silence");
    let longer: Vec<_> = (1..40).map(|len| [&data[..], &vec![0; len]].concat()).collect();
    siege.strike(&mut mallory, &longer).is("data with more", &[], &[("forged", 39)]);

    // Neither the cut nor the extended messages had any effect: the whole ones still work.
    siege.strike(&mut mallory, &[data]).is("whole", &[packet(0)], &[]);
    let outcome = siege.strike(&mut mallory, &[whole_lengths[0].0.clone()]);
    outcome.is("whole", &[], &[]);
    assert_eq!(outcome.answers.len(), 1, "a response");
}

/// A message of this type and length, filled with zeros.
fn message_of(kind: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = kind;
    message
}

#[test]
fn every_first_byte_but_four_and_every_reserved_byte_but_zero_is_dropped() {
    let Some(mut siege) = Siege::of_two("types") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let data = mallory.session.seal(&packet(0));
    let bent = |at: usize, byte: u8| {
        let mut message = data.clone();
        message[at] = byte;
        message
    };
    let kinds: Vec<_> = (0..=255).filter(|kind| *kind != 4).map(|kind| bent(0, kind)).collect();
    let outcome = siege.strike(&mut mallory, &kinds);
    outcome.is("types", &[], &[("inbound_unknown", 252), ("inbound_length", 3)]);
    assert_eq!(outcome.answers.len(), 0, "silence");
    for at in 1..4 {
        let reserved: Vec<_> = (1..=255).map(|byte| bent(at, byte)).collect();
        let outcome = siege.strike(&mut mallory, &reserved);
        outcome.is("reserved", &[], &[("inbound_unknown", 255)]);
        assert_eq!(outcome.answers.len(), 0, "silence");
    }
    // A STUN binding request, as an example of a different protocol on the same port.
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    stun.extend([7; 12]);
    siege.strike(&mut mallory, &[stun]).is("STUN", &[], &[("inbound_unknown", 1)]);
    siege.strike(&mut mallory, &[data]).is("as it was sealed", &[packet(0)], &[]);
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

#[test]
fn counters_at_the_end_of_their_range_are_refused_and_end_nothing() {
    let Some(mut siege) = Siege::of_two("counters") else { return };
    let mut mallory = siege.attacker(MALLORY);
    assert_eq!(REJECT_AFTER_MESSAGES, 0xffff_ffff_ffff_dfff, "2^64 - 2^13 - 1");

    // All of these are authentic. Three counters near 2^64 would be enough to make a counting window wrap.
    let at = |session: &overlay_sim::initiator::Session, counter| session.seal_as_is(counter, &packet(0));
    for counters in [
        vec![u64::MAX],
        vec![u64::MAX - 2, u64::MAX - 1, u64::MAX],
        vec![REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, REJECT_AFTER_MESSAGES + (1 << 12)],
    ] {
        let messages: Vec<_> = counters.iter().map(|counter| at(&mallory.session, *counter)).collect();
        let outcome = siege.strike(&mut mallory, &messages);
        outcome.is("too high", &[], &[("counter_exhausted", messages.len() as u64)]);
        assert_eq!(outcome.answers.len(), 0, "silence");
    }
    // A keepalive counts as data too. The counter is refused before the tag is checked, so a forgery is counted the
    // same way.
    let keepalive = mallory.session.seal_as_is(u64::MAX, &[]);
    let mut forged = at(&mallory.session, u64::MAX);
    forged[20] ^= 1;
    siege.strike(&mut mallory, &[keepalive, forged]).is("too high", &[], &[("counter_exhausted", 2)]);

    // The last counter is accepted. It moves the window to the end of the range, where only a few counters are left.
    // Each of them works once.
    let last = at(&mallory.session, REJECT_AFTER_MESSAGES - 1);
    let before = mallory.session.next_counter;
    mallory.session.next_counter = REJECT_AFTER_MESSAGES - 500;
    siege.strike(&mut mallory, std::slice::from_ref(&last)).is("the last", &[packet(0)], &[]);
    let old = at(&mallory.session, before);
    siege.strike(&mut mallory, &[last, old]).is("behind the window", &[], &[("replay", 2)]);
    let first_beyond = at(&mallory.session, REJECT_AFTER_MESSAGES);
    siege.strike(&mut mallory, &[first_beyond]).is("too high", &[], &[("counter_exhausted", 1)]);
}

#[test]
fn a_forged_message_with_a_high_counter_does_not_move_the_window() {
    let Some(mut siege) = Siege::of_two("window") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let forged: Vec<_> = [1 << 20, 1 << 40, 1 << 63, REJECT_AFTER_MESSAGES - 1]
        .into_iter()
        .map(|counter| {
            let mut message = mallory.session.seal_as_is(counter, &packet(0));
            *message.last_mut().expect("a tag") ^= 1;
            message
        })
        .collect();
    siege.strike(&mut mallory, &forged).is("forged", &[], &[("forged", 4)]);
    let counted: Counts = siege.outcome(&mut mallory).dropped;
    assert_eq!(counted, Counts::new(), "the next counters are small, and taken");
}
