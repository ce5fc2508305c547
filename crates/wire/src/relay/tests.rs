//! The layouts byte by byte, and bytes that do not fit any of them.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Malformed;
use crate::signed::PublicKey;
use crate::vectors::bytes;

const KEY: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
const NONCE: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
const COOKIE: &str = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf";

fn key() -> PublicKey {
    PublicKey(bytes(KEY).try_into().expect("32 bytes"))
}

fn sixteen(hex: &str) -> [u8; 16] {
    bytes(hex).try_into().expect("16 bytes")
}

fn channel() -> Channel {
    Channel::new(0x01_02_03).expect("a channel")
}

/// One request of each kind with its bytes.
fn requests(envelope: &[u8]) -> Vec<(Request<'_>, Vec<u8>)> {
    let hex = data_encoding::HEXLOWER.encode(envelope);
    let (identity, nonce, cookie, token) =
        (key(), sixteen(NONCE), sixteen(COOKIE), *b"\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7");
    vec![
        (Request::Hello { identity, nonce }, bytes(&format!("81010000 {KEY} {NONCE} {}", "00".repeat(108)))),
        (Request::Bind { identity, nonce, cookie, envelope }, bytes(&format!("83010000 {KEY} {NONCE} {COOKIE} {hex}"))),
        (
            Request::Open { token, request: *b"12345678", permit: envelope },
            bytes(&format!("85010000 b0b1b2b3b4b5b6b7 3132333435363738 {hex}")),
        ),
        (Request::Close { channel: channel(), token }, bytes("87010000 00010203 b0b1b2b3b4b5b6b7")),
    ]
}

/// One reply of each kind with its bytes.
fn replies() -> Vec<(Reply, Vec<u8>)> {
    let bound = |observed: &str| Bound {
        nonce: sixteen(NONCE),
        token: *b"\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7",
        observed: observed.parse::<SocketAddr>().expect("an address"),
        lifetime: Duration::from_secs(60),
        rate: 0x0102,
        daily: 0x0304,
        daily_left: 0x0506,
    };
    let rest = "003c 0000000000000102 0000000000000304 0000000000000506";
    vec![
        (
            Reply::Challenge { nonce: sixteen(NONCE), cookie: sixteen(COOKIE) },
            bytes(&format!("82010000 {NONCE} {COOKIE}")),
        ),
        (
            Reply::Bound(bound("192.0.2.1:443")),
            bytes(&format!("84010000 {NONCE} b0b1b2b3b4b5b6b7 00000000000000000000ffffc0000201 01bb {rest}")),
        ),
        (
            Reply::Bound(bound("[2001:db8::1]:443")),
            bytes(&format!("84010000 {NONCE} b0b1b2b3b4b5b6b7 20010db8000000000000000000000001 01bb {rest}")),
        ),
        (
            Reply::Opened {
                request: *b"12345678",
                channel: channel(),
                peer: key(),
                valid_for: Duration::from_secs(0x0001_0203),
            },
            bytes(&format!("86010000 3132333435363738 00010203 {KEY} 00010203")),
        ),
        (Reply::Unbound { echo: *b"\x41\x01\x02\x03\x04\0\0\0" }, bytes("88010000 4101020304000000")),
        (
            Reply::Refused { answers: sixteen(NONCE), reason: Reason::TakenBack, wait: Duration::from_secs(258) },
            bytes(&format!("89010000 {NONCE} 0900 0102")),
        ),
    ]
}

#[test]
fn every_message_has_the_bytes_of_its_layout() {
    let envelope = [0x5a; 100];
    for (request, bytes) in requests(&envelope) {
        assert_eq!(request.datagram(), bytes);
        assert_eq!(Request::parse(&bytes), Ok(request));
        assert_eq!((kind(&bytes), Reply::parse(&bytes)), (Kind::Control, Err(Malformed)));
    }
    for (reply, bytes) in replies() {
        assert_eq!(reply.datagram(), bytes);
        assert_eq!(Reply::parse(&bytes), Ok(reply));
        assert_eq!((kind(&bytes), Request::parse(&bytes)), (Kind::Control, Err(Malformed)));
    }
}

#[test]
fn no_reply_is_longer_than_the_shortest_message_that_it_answers() {
    let reply = |message: u8| {
        let found = replies().into_iter().find(|(_, bytes)| bytes[0] == 0x80 | message);
        found.expect("a reply").1.len()
    };
    let least = |message: u8| {
        (0..=MAX_CONTROL_LEN)
            .find(|len| {
                let mut datagram = vec![1; *len];
                datagram.splice(..4.min(*len), bytes("80010000").into_iter().take(*len)).for_each(drop);
                if let Some(first) = datagram.first_mut() {
                    *first |= message;
                }
                if message == 7 && *len >= 8 {
                    datagram[4] = 0;
                }
                Request::parse(&datagram).is_ok()
            })
            .expect("a length")
    };
    assert!(reply(2) <= least(1), "hello and challenge");
    assert!(reply(4) <= least(3) && reply(9) <= least(3), "bind, bound and refused");
    assert!(reply(6) <= least(5) && reply(9) <= least(5), "open, opened and refused");
    assert!(reply(8) <= least(7), "close and unbound");
    assert_eq!(reply(8), UNBOUND_LEN);
    assert_eq!([1, 3, 5, 7].map(least), [160, 72, 72, 16]);
}

#[test]
fn a_message_has_its_length_and_its_version() {
    let envelope = [0x5a; 100];
    for (request, bytes) in requests(&envelope) {
        let mut wrong = bytes.clone();
        wrong[1] = 2;
        assert_eq!(Request::parse(&wrong), Err(Malformed));
        if matches!(request, Request::Hello { .. } | Request::Close { .. }) {
            assert_eq!(Request::parse(&bytes[..bytes.len() - 1]), Err(Malformed));
            assert_eq!(Request::parse(&[&bytes[..], &[0]].concat()), Err(Malformed));
        }
        // What is reserved is not looked at.
        let mut later = bytes.clone();
        later[2..4].fill(7);
        assert_eq!(Request::parse(&later), Ok(request));
    }
    for (_, bytes) in replies() {
        for len in 0..bytes.len() {
            assert_eq!(Reply::parse(&bytes[..len]), Err(Malformed));
        }
        assert_eq!(Reply::parse(&[&bytes[..], &[0]].concat()), Err(Malformed));
    }
    let long = vec![1; MAX_CONTROL_LEN - 68];
    let bind = Request::Bind { identity: key(), nonce: [1; 16], cookie: [2; 16], envelope: &long }.datagram();
    assert_eq!(bind.len(), MAX_CONTROL_LEN);
    assert!(Request::parse(&bind).is_ok());
    assert_eq!(Request::parse(&[&bind[..], &[0]].concat()), Err(Malformed));
}

#[test]
fn a_channel_has_24_bits_and_is_not_0() {
    assert_eq!(Channel::new(0), None);
    assert_eq!(Channel::new(1 << 24), None);
    assert_eq!(Channel::new(Channel::MAX).map(Channel::head), Some([0x41, 0xff, 0xff, 0xff]));
    assert_eq!(open_data(&bytes("41010203 04000000")), Some((channel(), &[4, 0, 0, 0][..])));
    assert_eq!(open_data(&bytes("41010203")), Some((channel(), &[][..])));
    for hex in ["", "410102", "41000000 04", "40010203 04", "42010203 04", "81010203 04", "04000000 04"] {
        assert_eq!(open_data(&bytes(hex)), None, "{hex}");
    }
    // The byte before a close's channel is 0.
    assert_eq!(Request::parse(&bytes("87010000 01010203 b0b1b2b3b4b5b6b7")), Err(Malformed));
    assert_eq!(Request::parse(&bytes("87010000 00000000 b0b1b2b3b4b5b6b7")), Err(Malformed));
}

#[test]
fn the_first_byte_tells_the_relay_from_its_neighbours() {
    for first in 0..=u8::MAX {
        let expected = match first {
            0x41 => Kind::Data,
            0x80..=0xbf => Kind::Control,
            _ => Kind::Other,
        };
        assert_eq!(kind(&[first, 0, 0, 0]), expected, "{first:#x}");
    }
    assert_eq!(kind(&[]), Kind::Other);
    for datagram in [bytes("04000000 01"), bytes("0001000c 2112a442")] {
        assert_eq!(kind(&datagram), Kind::Other);
    }
    use crate::wireguard::{Kind as Protocol, kind as protocol};
    assert_eq!(protocol(&bytes("41000001")), Protocol::Relayed);
    assert_eq!(protocol(&bytes("81010000")), Protocol::RelayControl);
}

#[test]
fn a_reason_has_a_code_and_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::word).into();
    assert_eq!(words.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        let reply = Reply::Refused { answers: [0; 16], reason, wait: Duration::ZERO };
        assert_eq!(Reply::parse(&reply.datagram()), Ok(reply));
    }
    let mut later = Reply::Refused { answers: [0; 16], reason: Reason::NotHere, wait: Duration::ZERO }.datagram();
    for code in [0, 11, 255] {
        later[20] = code;
        assert!(matches!(Reply::parse(&later), Ok(Reply::Refused { reason: Reason::Unknown, .. })));
    }
}

proptest! {
    /// What parses is written in the same bytes, but for what is reserved.
    #[test]
    fn any_bytes_are_survived(first in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let datagram = [&[first, VERSION, 0, 0], &rest[..]].concat();
        if let Ok(request) = Request::parse(&datagram) {
            let is_hello = matches!(request, Request::Hello { .. });
            prop_assert_eq!(&request.datagram()[..52.min(datagram.len())], &datagram[..52.min(datagram.len())]);
            prop_assert!(is_hello || request.datagram() == datagram);
        }
        if let Ok(reply) = Reply::parse(&datagram) {
            prop_assert_eq!(Reply::parse(&reply.datagram()), Ok(reply));
        }
        let _ = open_data(&datagram);
    }
}
