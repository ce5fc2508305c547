//! Handshakes that are forged, repeated, too many, or from someone else.
//!
//! A sender that proves nothing gets no answer at all. The one exception is the cookie reply of a daemon under load,
//! which is shorter than the message that it answers.

use std::fs;
use std::net::UdpSocket;
use std::thread;

use overlay_sim::initiator::{Initiator, Refused, Timestamp};

use super::bytes::ends;
use super::siege::{Attacker, BETWEEN_INITIATIONS, CAROL, MALLORY, STRANGER, Siege};
use super::wire::{Wire, inside};
use crate::lab::{A, B, Outside, SHORTLY, within};

const COOKIE_REPLY_LEN: usize = 64;

/// The message with this byte flipped, and with valid MACs for the result.
fn signed_again(noise: &Initiator, message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] ^= 0x01;
    noise.sign(&mut message, None);
    message
}

/// How many datagrams answer this one.
#[track_caller]
fn answers(siege: &mut Siege, attacker: &mut Attacker, message: &[u8]) -> usize {
    siege.strike(attacker, &[message.to_vec()]).answers.len()
}

#[test]
fn a_handshake_that_proves_nothing_is_met_with_silence() {
    let Some(mut siege) = Siege::of_two("silence") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let mut carols = CAROL.noise(siege.key());
    let newest = Timestamp::from_unix_seconds(1_800_000_000);
    // These come long enough after her earlier initiation, so that none of them is refused as too early.
    let honest = mallory.initiate().message;
    let flipped = |at: usize| {
        let mut message = honest.clone();
        message[at] ^= 0x80;
        message
    };
    let of_type = |kind: u8, len: usize, receiver_at: usize, receiver: u32| {
        let mut message = vec![0x77; len];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message[receiver_at..receiver_at + 4].copy_from_slice(&receiver.to_le_bytes());
        message
    };
    let response_for = |receiver: u32| {
        let mut message = of_type(2, 92, 8, receiver);
        mallory.noise.sign(&mut message, None);
        message
    };
    let index = mallory.session.peer_index;

    let mut attacks: Vec<(&str, &str, Vec<Vec<u8>>)> = vec![
        ("handshake_mac", "for a different key", vec![MALLORY.noise([0x44; 32]).initiate(newest, 1).message]),
        ("handshake_mac", "mac1 flipped", (116..132).map(flipped).collect()),
        ("handshake_mac", "anything under mac1 flipped", (4..116).map(flipped).collect()),
        ("handshake_mac", "of noise", vec![of_type(1, 148, 4, 1), of_type(2, 92, 8, index)]),
        ("handshake_unknown_peer", "of a stranger", vec![STRANGER.noise(siege.key()).initiate(newest, 1).message]),
        ("unknown_receiver", "a response to nobody", vec![response_for(0), response_for(index ^ 0x8000_0000)]),
        ("handshake_forged", "a response to nothing", vec![response_for(index)]),
        ("unknown_receiver", "a cookie for nobody", vec![of_type(3, 64, 4, 0)]),
        ("handshake_forged", "a cookie for nothing", vec![of_type(3, 64, 4, index)]),
    ];
    // The ephemeral key, the static key and the timestamp, and their tags. If one of them is wrong, nothing else is
    // accepted. The top bit of an X25519 key has no meaning, but it is hashed.
    let forged = (8..116).map(|at| signed_again(&mallory.noise, &honest, at));
    attacks.push(("handshake_forged", "each part flipped and signed again", forged.collect()));
    let mut low_order = honest.clone();
    low_order[8..40].fill(0);
    mallory.noise.sign(&mut low_order, None);
    attacks.push(("handshake_forged", "an ephemeral key of low order", vec![low_order]));

    // Everything comes from a socket that the victim does not know, as single datagrams and as trains.
    let mut elsewhere = siege.wire();
    for (reason, what, messages) in attacks {
        messages.iter().for_each(|message| elsewhere.send(message));
        siege.outcome(&mut mallory).is(what, &[], &[(reason, messages.len() as u64)]);
        assert_eq!(elsewhere.receive_now(), None, "{what}: silence");
        if messages.iter().all(|message| message.len() == messages[0].len()) {
            elsewhere.send_train(&messages);
            siege.outcome(&mut mallory).is(what, &[], &[(reason, messages.len() as u64)]);
            assert_eq!(elsewhere.receive_now(), None, "{what}: silence");
        }
    }
    // An honest initiation is answered there, although the other socket has just been heard.
    let pending = carols.initiate(newest, 2);
    elsewhere.send(&pending.message);
    let response = elsewhere.receive();
    let session = carols.complete(&pending, &response).expect("a response for Carol");
    let mut carol = Attacker::new(CAROL, carols, session, elsewhere);
    siege.is_alive(&mut carol);
    mallory.wire.send(&honest);
    assert_eq!(mallory.wire.receive().len(), 92);
}

#[test]
fn an_initiation_that_is_sent_again_or_is_no_newer_is_dropped_in_silence() {
    let Some(mut siege) = Siege::of_two("old initiations") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let pending = mallory.initiate();
    let outcome = siege.strike(&mut mallory, std::slice::from_ref(&pending.message));
    assert_eq!((outcome.answers.len(), outcome.dropped.len()), (1, 0));
    let session = mallory.noise.complete(&pending, &outcome.answers[0]).expect("a response");

    let newer = mallory.initiate();
    mallory.wire.send(&newer.message);
    let newer = mallory.noise.complete(&newer, &mallory.wire.receive()).expect("a response");
    thread::sleep(BETWEEN_INITIATIONS);
    let same = mallory.initiate();
    assert_eq!(answers(&mut siege, &mut mallory, &same.message), 1);
    thread::sleep(BETWEEN_INITIATIONS);
    // Messages that were already accepted, then fresh keys with timestamps that are not newer.
    let timed = |mallory: &mut Attacker, timestamp| mallory.noise.initiate(timestamp, 0x77).message;
    let old = vec![
        pending.message.clone(),
        same.message.clone(),
        timed(&mut mallory, Timestamp::ZERO),
        timed(&mut mallory, Timestamp::from_unix_seconds(1)),
        timed(&mut mallory, Timestamp::from_unix_seconds(1_700_000_001)),
        timed(&mut mallory, Timestamp::from_unix_seconds(1_700_000_004)),
    ];
    let mut elsewhere = siege.wire();
    for message in &old {
        elsewhere.send(message);
        let outcome = siege.strike(&mut mallory, std::slice::from_ref(message));
        outcome.is("no newer", &[], &[("handshake_replay", 2)]);
        assert_eq!(outcome.answers.len(), 0, "silence");
        assert_eq!(elsewhere.receive_now(), None, "silence");
    }
    // The sessions that were established in between still work.
    for session in [session, newer] {
        mallory.session = session;
        siege.is_alive(&mut mallory);
    }

    // The newest possible timestamp may be used once. It locks out its own peer, and no other.
    let mut carol = siege.attacker(CAROL);
    thread::sleep(BETWEEN_INITIATIONS);
    let last = carol.noise.initiate(Timestamp::NEWEST, 0x99);
    carol.wire.send(&last.message);
    let response = carol.wire.receive();
    carol.session = carol.noise.complete(&last, &response).expect("a response");
    siege.is_alive(&mut carol);
    let another = carol.initiate();
    let again = carol.noise.initiate(Timestamp::NEWEST, 0x9a).message;
    let outcome = siege.strike(&mut carol, &[another.message, again]);
    outcome.is("after the newest", &[], &[("handshake_replay", 2)]);
    let honest = mallory.initiate().message;
    assert_eq!(answers(&mut siege, &mut mallory, &honest), 1);
}

#[test]
fn under_a_flood_of_handshakes_strangers_get_cookies_and_peers_get_through() {
    let Some(mut siege) = Siege::of_two("flood") else { return };
    let (mut mallory, mut carol) = (siege.attacker(MALLORY), siege.attacker(CAROL));
    let mut stranger = STRANGER.noise(siege.key());
    let cookies_sent = |siege: &Siege| siege.overlay.status()["counters"]["cookies_sent"].as_u64().expect("a number");
    assert_eq!(cookies_sent(&siege), 0);

    // More than 256 a second, from a stranger who does not prove any address.
    let flood: Vec<_> =
        (0..1000).map(|n| stranger.initiate(Timestamp::from_unix_seconds(n), n as u32).message).collect();
    let mut source = siege.wire();
    flood.iter().for_each(|message| source.send(message));
    let outcome = siege.outcome(&mut mallory);
    assert_eq!((outcome.delivered.len(), outcome.answers.len()), (0, 0), "the session did not notice");
    let cookies = outcome.dropped["handshake_cookie"];
    let looked_at = outcome.dropped["handshake_unknown_peer"];
    assert_eq!((outcome.dropped.len(), cookies + looked_at), (2, 1000), "{:?}", outcome.dropped);
    assert!(cookies > 0 && looked_at >= 200, "{:?}", outcome.dropped);
    assert_eq!(cookies_sent(&siege), cookies);
    let answers: Vec<_> = std::iter::from_fn(|| source.receive_now()).collect();
    assert_eq!(answers.len() as u64, cookies, "a cookie each, and nothing else");
    for answer in &answers {
        assert_eq!((answer.len(), &answer[..4]), (COOKIE_REPLY_LEN, &[3, 0, 0, 0][..]), "shorter than 148 bytes");
        let index = u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]);
        assert!(stranger.cookie(&flood[index as usize], answer).is_ok(), "made for that question");
    }

    // Unsolicited responses are requests of 92 bytes, and they count as load as well.
    let mut response = vec![0x77; 92];
    response[..4].copy_from_slice(&[2, 0, 0, 0]);
    stranger.sign(&mut response, None);
    let responses = vec![response; 600];
    responses.iter().for_each(|message| source.send(message));
    let outcome = siege.outcome(&mut mallory);
    let counted = |reason: &str| outcome.dropped.get(reason).copied().unwrap_or(0);
    assert_eq!(counted("handshake_cookie") + counted("unknown_receiver"), 600, "{:?}", outcome.dropped);
    assert!(counted("handshake_cookie") > 0);
    let answers: Vec<_> = std::iter::from_fn(|| source.receive_now()).collect();
    assert_eq!(answers.len() as u64, counted("handshake_cookie"));
    assert!(answers.iter().all(|answer| answer.len() == COOKIE_REPLY_LEN));

    // A peer that comes now is asked to prove its address, does so, and is accepted. Load is measured over one second,
    // so on a slow machine it is created again.
    let question = within(SHORTLY, "a cookie for a peer", || {
        flood[..300].iter().for_each(|message| source.send(message));
        let question = carol.initiate().message;
        carol.wire.send(&question);
        let answer = carol.wire.receive();
        (answer.len() == COOKIE_REPLY_LEN).then_some((question, answer))
    });
    let cookie = carol.noise.cookie(&question.0, &question.1).expect("a cookie for Carol");
    let mut with_cookie = carol.initiate();
    carol.noise.sign(&mut with_cookie.message, Some(&cookie));
    carol.wire.send(&with_cookie.message);
    let response = carol.wire.receive();
    carol.session = carol.noise.complete(&with_cookie, &response).expect("a response, under load or not");
    siege.outcome(&mut mallory);
    siege.is_alive(&mut carol);

    // A sender that has proved its address is still limited: a burst of five.
    let dropped = within(SHORTLY, "the limit of a source", || {
        while source.receive_now().is_some() {}
        flood[..300].iter().for_each(|message| source.send(message));
        siege.outcome(&mut mallory);
        let answer = std::iter::from_fn(|| source.receive_now()).last()?;
        let asked = &flood[u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]) as usize];
        let cookie = stranger.cookie(asked, &answer).expect("a cookie for that question");
        let mut proven = flood[..40].to_vec();
        proven.iter_mut().for_each(|message| stranger.sign(message, Some(&cookie)));
        source.send_train(&proven);
        let outcome = siege.outcome(&mut mallory);
        assert_eq!(source.receive_now(), None, "silence");
        outcome.dropped.contains_key("handshake_rate").then_some(outcome.dropped)
    });
    let (limited, looked_at) = (dropped["handshake_rate"], dropped["handshake_unknown_peer"]);
    // Carol's messages came from the same address.
    assert!(dropped.len() == 2 && limited + looked_at == 40 && (1..=5).contains(&looked_at), "{dropped:?}");
    siege.is_alive(&mut mallory);
}

#[test]
fn a_daemon_that_began_the_handshake_takes_one_response_and_only_a_good_one() {
    let endpoint = format!("endpoint = \"{}\"\n", B.endpoint(Outside::V4, 4000));
    let peers = [MALLORY.own_peer_toml() + &endpoint, CAROL.own_peer_toml()];
    let Some(mut siege) = Siege::begin("responses", Outside::V4, "", &peers) else { return };
    // Carol checks what was delivered, since Mallory has no session yet.
    let mut carol = siege.attacker(CAROL);
    let mut wire = siege.wire_on(4000);
    let mut noise = MALLORY.noise(siege.key());
    let program = inside(&siege.pair.a, || UdpSocket::bind("0.0.0.0:0")).expect("a port of the victim");
    program.send_to(b"8 bytes.", (MALLORY.v4, 9)).expect("a route into the tunnel");

    let initiation = wire.receive();
    let index = initiation[4..8].to_vec();
    let (response, session, _) = noise.answer(&initiation, 0x0100_0000).expect("an initiation for Mallory");
    let mut forged: Vec<_> = (12..60).map(|at| signed_again(&noise, &response, at)).collect();
    let wrong_secret = MALLORY.noise(siege.key()).with_preshared_key([9; 32]).answer(&initiation, 5);
    forged.push(wrong_secret.expect("the initiation does not depend on it").0);
    let strangers = STRANGER.noise(siege.key());
    assert_eq!(strangers.cookie(&initiation, &[0; 64]), Err(Refused::Length), "no cookie");
    let mut cookie = noise.cookie_reply(&initiation, [7; 16]);
    *cookie.last_mut().expect("64 bytes") ^= 1;
    forged.push(cookie);
    let unsigned: Vec<_> = (4..76).map(|at| flip(&response, at)).collect();

    let strike = |siege: &mut Siege, carol: &mut Attacker, wire: &Wire, messages: &[Vec<u8>]| {
        messages.iter().for_each(|message| wire.send(message));
        siege.outcome(carol)
    };
    let outcome = strike(&mut siege, &mut carol, &wire, &forged);
    outcome.is("forged", &[], &[("handshake_forged", forged.len() as u64)]);
    let outcome = strike(&mut siege, &mut carol, &wire, &unsigned);
    outcome.is("not signed", &[], &[("handshake_mac", unsigned.len() as u64)]);
    // The same from a different address. The data of the future session does not belong to any session yet.
    let mut elsewhere = siege.wire();
    forged.iter().for_each(|message| elsewhere.send(message));
    elsewhere.send(&session.seal_as_is(0, &ends(MALLORY.v4, A.v4).udp(1, 2, b"early")));
    let outcome = siege.outcome(&mut carol);
    assert_eq!(outcome.dropped["handshake_forged"], forged.len() as u64);
    assert_eq!(outcome.delivered.len(), 0);
    assert_eq!(elsewhere.receive_now(), None, "silence");
    assert_eq!(wire.receive_now(), None, "and patience: it is not asked again for a forgery");

    // The good response establishes the session, and what the program sent was kept for it.
    wire.send(&response);
    let first = session.open(&wire.receive()).expect("data of the new session");
    assert_eq!(first.plaintext[28..36], *b"8 bytes.");
    assert_eq!(initiation[4..8], index);
    let mut mallory = Attacker::new(MALLORY, noise, session, wire);
    siege.is_alive(&mut mallory);
    let again = vec![response.clone(); 3];
    let outcome = siege.strike(&mut mallory, &again);
    outcome.is("the good one, and again", &[], &[("handshake_forged", 3)]);
    assert_eq!(outcome.answers.len(), 0, "silence");
}

fn flip(message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] ^= 0x01;
    message
}

#[test]
fn an_old_initiation_moves_no_peer_after_an_orderly_restart() {
    let Some(mut siege) = Siege::of_two("replay, restart") else { return };
    let mut mallory = siege.attacker(MALLORY);
    let old = mallory.initiate().message;
    assert_eq!(answers(&mut siege, &mut mallory, &old), 1);
    let mut elsewhere = siege.wire();
    let Siege { overlay, pair, .. } = siege;
    let config = fs::read_to_string(overlay.config()).expect("the config of the victim");
    overlay.stop();
    let overlay = pair.a.overlay_up(&config);
    elsewhere.send(&old);
    within(SHORTLY, "the replay to be dropped", || (overlay.dropped("handshake_replay") == 1).then_some(()));
    assert_eq!(elsewhere.receive_now(), None);
    // A killed daemon hands over nothing. Then the first initiation counts, as in WireGuard.
    overlay.kill9();
    let _overlay = pair.a.overlay_up(&config);
    elsewhere.send(&old);
    elsewhere.receive();
}
