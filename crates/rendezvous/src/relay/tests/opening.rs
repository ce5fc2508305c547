//! How a channel is opened, by whom, and how it ends.

use overlay_wire::relay::{Reason, Reply, Request};
use overlay_wire::signed::{RelayPermit, Signed};

use super::*;
use crate::relay::bindings::MAX_CLOSED;

/// Agents 1 and 2, who are bound, with their tokens.
fn pair(relay: &mut Relay) -> [[u8; 8]; 2] {
    [1, 2].map(|n| bound(relay, n, at(0)).token)
}

fn close(relay: &mut Relay, n: u8, token: [u8; 8], channel: Channel, now: Now) {
    let answer = ask(relay, leg(n), &Request::Close { channel, token }, now);
    let [(to, Reply::Unbound { echo })] = answer[..] else { panic!("{answer:?}") };
    assert_eq!((to, echo[4..].to_vec()), (leg(n), channel.number().to_be_bytes().to_vec()));
}

#[test]
fn both_ends_are_told_of_a_channel() {
    let mut relay = relay(Limits::default());
    let [token, other] = pair(&mut relay);
    let answer = open(&mut relay, leg(1), token, permit(2, 1, 1).bytes(), at(0));
    let [(to, Reply::Opened { request, channel, peer, valid_for }), notice] = answer[..] else { panic!("{answer:?}") };
    assert_eq!((to, request, peer, valid_for.as_secs()), (leg(1), *b"12345678", identity(2), 86_400));
    // What proves to the other end that the relay says so is its token.
    assert_eq!(notice, (leg(2), Reply::Opened { request: other, channel, peer: identity(1), valid_for }));
    // Asked again, for example because the answer was lost: the same channel.
    assert_eq!(open(&mut relay, leg(1), token, permit(2, 1, 1).bytes(), at(0)), answer);
    assert_eq!(opened(&mut relay, 1, token, 2, 7, at(0)), channel);
    assert_eq!((relay.channels(), relay.stats().opened), (1, 1));
    // The other way round it is a different one.
    assert_ne!(opened(&mut relay, 2, other, 1, 1, at(0)), channel);
}

#[test]
fn every_reason_to_refuse_an_open_has_its_name() {
    let mut relay = relay(Limits::default());
    let [token, _] = pair(&mut relay);
    let good = || permit(2, 1, 1).into_value();
    let sign = |permit: RelayPermit| Signed::sign(permit, &key(2)).expect("a good permit").bytes().to_vec();
    let mut forged = sign(good());
    *forged.last_mut().expect("not empty") ^= 1;
    for (envelope, reason) in [
        (vec![0; 60], Reason::BadObject),
        (forged, Reason::BadObject),
        (sign(RelayPermit { relay: identity(9), ..good() }), Reason::WrongRelay),
        (sign(RelayPermit { subject: identity(3), ..good() }), Reason::NotYours),
        (sign(RelayPermit { network: identity(9), ..good() }), Reason::NotYours),
        (sign(RelayPermit { issued: START - 2, expires: START, ..good() }), Reason::Expired),
        (sign(RelayPermit { issued: START + DAY, expires: START + 2 * DAY, ..good() }), Reason::Expired),
        (permit(3, 1, 1).bytes().to_vec(), Reason::NotHere),
    ] {
        assert_eq!(refusal(&open(&mut relay, leg(1), token, &envelope, at(0))), reason);
    }
    assert_eq!(relay.channels(), 0);
    // The token says who asks, and only from that agent's address.
    for (from, token) in [(leg(2), token), (leg(1), [0; 8])] {
        let answer = open(&mut relay, from, token, permit(2, 1, 1).bytes(), at(0));
        assert!(matches!(answer[..], [(to, Reply::Unbound { .. })] if to == from), "{answer:?}");
    }
}

#[test]
fn what_the_issuer_closes_stays_closed_until_a_newer_permit() {
    let mut relay = relay(Limits::default());
    let [token, other] = pair(&mut relay);
    let channel = opened(&mut relay, 1, token, 2, 5, at(0));
    close(&mut relay, 2, other, channel, at(0));
    assert_eq!((relay.channels(), relay.stats().closed), (0, 1));
    for sequence in [1, 5] {
        let answer = open(&mut relay, leg(1), token, permit(2, 1, sequence).bytes(), at(0));
        assert_eq!(refusal(&answer), Reason::TakenBack);
    }
    // The issuer's next bind does not open it, whatever it leaves out.
    bound(&mut relay, 2, at(1));
    assert_eq!(refusal(&open(&mut relay, leg(1), token, permit(2, 1, 5).bytes(), at(1))), Reason::TakenBack);
    opened(&mut relay, 1, token, 2, 6, at(1));
}

#[test]
fn what_the_opener_closes_it_may_open_again() {
    let mut relay = relay(Limits::default());
    let [token, _] = pair(&mut relay);
    let channel = opened(&mut relay, 1, token, 2, 5, at(0));
    close(&mut relay, 1, token, channel, at(0));
    // Said twice, the answer is the same.
    close(&mut relay, 1, token, channel, at(0));
    assert_eq!(relay.stats().closed, 1);
    opened(&mut relay, 1, token, 2, 5, at(0));
}

#[test]
fn nobody_closes_a_channel_of_others() {
    let mut relay = relay(Limits::default());
    let [token, _] = pair(&mut relay);
    let third = bound(&mut relay, 3, at(0)).token;
    let channel = opened(&mut relay, 1, token, 2, 5, at(0));
    close(&mut relay, 3, third, channel, at(0));
    // Nor with the token of an end from a different address.
    close(&mut relay, 3, token, channel, at(0));
    assert_eq!(relay.channels(), 1);
}

#[test]
fn a_bind_takes_permits_back() {
    let mut relay = relay(Limits::default());
    let [token, _] = pair(&mut relay);
    let third = bound(&mut relay, 3, at(0)).token;
    opened(&mut relay, 1, token, 2, 5, at(0));
    opened(&mut relay, 3, third, 2, 5, at(0));
    // One subject first, then everybody.
    bound_as(&mut relay, 2, leg(2), at(1), |bind| bind.lowest_of = vec![lowest(1, 6)]);
    assert_eq!((relay.channels(), relay.stats().withdrawn), (1, 1));
    assert_eq!(refusal(&open(&mut relay, leg(1), token, permit(2, 1, 5).bytes(), at(1))), Reason::TakenBack);
    opened(&mut relay, 1, token, 2, 6, at(1));
    bound_as(&mut relay, 2, leg(2), at(2), |bind| bind.lowest = 7);
    assert_eq!((relay.channels(), relay.stats().withdrawn), (0, 3));
    opened(&mut relay, 3, third, 2, 7, at(2));
}

#[test]
fn a_channel_ends_with_its_permit_and_with_either_binding() {
    let mut relay = relay(Limits::default());
    let [token, _] = pair(&mut relay);
    let mut short = permit(2, 1, 1).into_value();
    short.expires = START + 30_000;
    let short = Signed::sign(short, &key(2)).expect("a good permit");
    assert_eq!(open(&mut relay, leg(1), token, short.bytes(), at(0)).len(), 2);
    relay.handle_timeout(at(29_000));
    assert_eq!(relay.channels(), 1);
    relay.handle_timeout(at(31_000));
    assert_eq!((relay.channels(), relay.stats().withdrawn), (0, 1));
    // A newer permit prolongs it.
    assert_eq!(open(&mut relay, leg(1), token, permit(2, 1, 2).bytes(), at(31_000)).len(), 2);
    bound(&mut relay, 1, at(50_000));
    relay.handle_timeout(at(61_000));
    assert_eq!((relay.bindings(), relay.channels()), (1, 0), "agent 2 is gone");
}

#[test]
fn channels_are_bounded_for_each_agent_and_for_all() {
    let mut relay = relay(Limits { channels_of_agent: 2, channels: 3, ..Limits::default() });
    let tokens = [1, 2, 3, 4].map(|n| bound(&mut relay, n, at(0)).token);
    for to in [2, 3] {
        opened(&mut relay, 1, tokens[0], to, 1, at(0));
    }
    assert_eq!(refusal(&open(&mut relay, leg(1), tokens[0], permit(4, 1, 1).bytes(), at(0))), Reason::Full);
    // What others open to it does not count as its own.
    opened(&mut relay, 2, tokens[1], 1, 1, at(0));
    assert_eq!(refusal(&open(&mut relay, leg(3), tokens[2], permit(1, 3, 1).bytes(), at(0))), Reason::Full);
    assert_eq!(relay.channels(), 3);
    let channel = opened(&mut relay, 1, tokens[0], 2, 1, at(0));
    close(&mut relay, 1, tokens[0], channel, at(0));
    opened(&mut relay, 3, tokens[2], 1, 1, at(0));
}

#[test]
fn one_agent_cannot_make_the_relay_verify_without_end() {
    let mut relay = relay(Limits::default());
    let [token, other] = pair(&mut relay);
    let mut ask = || refusal(&open(&mut relay, leg(1), token, &[0; 60], at(0)));
    let reasons: Vec<_> = (0..1_100).map(|_| ask()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::BadObject).count(), 1_024);
    assert_eq!(reasons.last(), Some(&Reason::TooOften));
    opened(&mut relay, 2, other, 1, 1, at(0));
}

#[test]
fn a_full_memory_of_closed_channels_closes_more_and_opens_nothing() {
    let mut relay = relay(Limits::default());
    let issuer = bound(&mut relay, 250, at(0)).token;
    let subjects: Vec<u8> = (1..=MAX_CLOSED as u8 + 1).collect();
    for n in &subjects {
        let token = bound(&mut relay, *n, at(0)).token;
        let channel = opened(&mut relay, *n, token, 250, 5, at(0));
        close(&mut relay, 250, issuer, channel, at(0));
    }
    for n in &subjects {
        let token = bound(&mut relay, *n, at(1)).token;
        assert_eq!(refusal(&open(&mut relay, leg(*n), token, permit(250, *n, 5).bytes(), at(1))), Reason::TakenBack);
    }
    let token = bound(&mut relay, 100, at(1)).token;
    assert_eq!(refusal(&open(&mut relay, leg(100), token, permit(250, 100, 5).bytes(), at(1))), Reason::TakenBack);
    opened(&mut relay, 100, token, 250, 6, at(1));
}

#[test]
fn agents_of_two_networks_never_meet() {
    let mut relay = open_relay(Limits::default());
    let elsewhere = |bind: &mut overlay_wire::signed::RelayBind| {
        (bind.network, bind.membership) = (identity(210), None);
    };
    let token = bound(&mut relay, 1, at(0)).token;
    bound_as(&mut relay, 2, leg(2), at(0), elsewhere);
    assert_eq!(refusal(&open(&mut relay, leg(1), token, permit(2, 1, 1).bytes(), at(0))), Reason::NotHere);
    // One key in two networks is two parties.
    bound_as(&mut relay, 1, leg(3), at(1), elsewhere);
    assert_eq!(relay.bindings(), 3);
}
