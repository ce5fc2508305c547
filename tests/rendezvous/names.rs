//! Names at the rendezvous: first come by key, and what is not a name is refused, although its owner signs it.

use ring::signature::Ed25519KeyPair;

use super::*;

/// A record with any text for a name, as an agent could sign it that does not use our code.
fn named(server: &Running, name: &str) -> Vec<u8> {
    let good = record(server, 1, None);
    // An envelope: an array of 1, the payload, and the signature with two bytes before it.
    let (head, signature) = (good.len() - record_len(&good) - 66, good.len() - 66);
    let payload = &good[head..signature];
    let alice = text_item("alice");
    let at = payload.windows(alice.len()).position(|window| window == alice).expect("the name of the record");
    let payload = [&payload[..at], &text_item(name), &payload[at + alice.len()..]].concat();
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a seed");
    let signature = key.sign(&[b"overlay/1 record\0", &payload[..]].concat());
    [&[0x83, 1][..], &bytes_head(payload.len()), &payload, &[0x58, 64], signature.as_ref()].concat()
}

/// The length of the payload that an envelope begins with.
fn record_len(envelope: &[u8]) -> usize {
    match envelope {
        [0x83, 1, 0x58, length, ..] => usize::from(*length),
        [0x83, 1, 0x59, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => panic!("not an envelope"),
    }
}

/// What stands before so many bytes in CBOR.
fn bytes_head(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(length) => vec![0x58, length],
        Err(_) => vec![0x59, (length >> 8) as u8, length as u8],
    }
}

/// A text as CBOR has it.
fn text_item(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    let head = if length < 24 { vec![0x60 | length] } else { vec![0x78, length] };
    [&head, text.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_name_is_refused_from_an_agent_that_signs_it_all_the_same() {
    let server = Running::start(Limits::default()).await;
    let mut agent = connect(&server.target()).await.expect("a connection");
    answer_to(&mut agent, 1, Verb::Hello).await;
    let long = "a".repeat(33);
    let bad = [
        "",
        "Alice",
        "ALICE",
        "-alice",
        "alice-",
        "al ice",
        "al_ice",
        "alice.lab",
        "ålice",
        "alice\0",
        "\x1b[2J",
        "123",
        "xn--alice",
        "localhost",
        "dns",
        "me",
        "overlay",
        "rendezvous",
        &long,
    ];
    for (id, name) in (2..).zip(bad) {
        let reply = answer_to(&mut agent, id, Verb::Register { record: named(&server, name).into() }).await;
        let is_refused = matches!(reply, Reply::Refused { code: Code::Malformed, ipv4: None, .. });
        assert!(is_refused, "{name:?}: {reply:?}");
        // More than 20 writes at once would be too many.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The same signature on a name is not refused for its name.
    for (id, name) in [(100, "alice"), (101, "a"), (102, &long[1..])] {
        let reply = answer_to(&mut agent, id, Verb::Register { record: named(&server, name).into() }).await;
        assert!(matches!(reply, Reply::Refused { code: Code::Ipv4, ipv4: Some(_), .. }), "{name:?}: {reply:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
