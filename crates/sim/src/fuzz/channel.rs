//! The handshake between an agent and a rendezvous, whose messages anybody can send or change.

use std::sync::Arc;

use overlay_rendezvous::channel::{Channel, Client, ClientSide, Pinned, Server, ServerSide, VERSIONS};
use overlay_rendezvous::protocol::{Call, FromServer, decode, encode};
use overlay_wire::signed::SecretKey;

use super::Input;

/// The first byte of the input says what is called: a server with messages of a stranger, both ends with somebody between
/// them, the parsers of messages, or that of URLs.
pub fn channel(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => stranger(&mut input),
        1 => between(&mut input),
        2 => messages(&data[1.min(data.len())..]),
        _ => url(&data[1.min(data.len())..]),
    }
}

/// A stranger that has no key never gets a channel.
fn stranger(input: &mut Input<'_>) {
    let (mut server, mut client, _) = ends();
    while !input.is_empty() {
        let len = usize::from(input.word());
        let message = input.take(len);
        for step in [server.handle(message), client.handle(message)] {
            assert!(step.ok().and_then(|step| step.channel).is_none(), "a stranger was welcome");
        }
    }
}

/// Each message is carried, and one byte of it may be changed. An end whose message was changed gets no channel.
fn between(input: &mut Input<'_>) {
    let (mut server, mut client, first) = ends();
    let mut to_server = vec![first];
    let mut was_changed = false;
    let (mut of_client, mut of_server): (Option<Channel>, Option<Channel>) = (None, None);
    while !to_server.is_empty() {
        let mut to_client = Vec::new();
        for mut message in to_server.drain(..) {
            was_changed |= change(&mut message, input);
            let Ok(step) = server.handle(&message) else { return };
            to_client.extend(step.send);
            of_server = of_server.or(step.channel);
            assert!(!(was_changed && of_server.is_some()), "the server was deceived");
        }
        for mut message in to_client {
            was_changed |= change(&mut message, input);
            let Ok(step) = client.handle(&message) else { return };
            to_server.extend(step.send);
            of_client = of_client.or(step.channel);
            assert!(!(was_changed && of_client.is_some()), "the client was deceived");
        }
    }
    let (Some(mut of_client), Some(mut of_server)) = (of_client, of_server) else { return };
    let text = input.take(64);
    let mut sealed = of_client.seal(text).expect("short");
    let was_changed = change(&mut sealed, input);
    match of_server.open(&sealed) {
        Ok(opened) => assert!(!was_changed && opened == text),
        Err(_) => assert!(was_changed),
    }
}

/// Changes a byte of the message if the next byte of the input is odd, and returns whether it did.
fn change(message: &mut [u8], input: &mut Input<'_>) -> bool {
    if input.byte() & 1 == 0 || message.is_empty() {
        return false;
    }
    let place = usize::from(input.word()) % message.len();
    let bits = input.byte();
    message[place] ^= bits;
    bits != 0
}

/// What can be decoded is decoded again from what it is encoded as.
fn messages(data: &[u8]) {
    if let Ok(call) = decode::<Call>(data) {
        assert_eq!(decode::<Call>(&encode(&call)), Ok(call));
    }
    if let Ok(message) = decode::<FromServer>(data) {
        assert_eq!(decode::<FromServer>(&encode(&message)), Ok(message));
    }
}

fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(pinned) = text.parse::<Pinned>() {
        assert_eq!(pinned.to_string().parse(), Ok(pinned));
    }
}

fn ends() -> (Server, Client, Vec<u8>) {
    let key = |byte| SecretKey::from_bytes(&[byte; 32]);
    let (network, rendezvous) = (key(1).public(), Arc::new(key(2)));
    let side = ClientSide { network, rendezvous: rendezvous.public(), identity: Arc::new(key(3)), epoch: 0, now: 0 };
    let (client, first) = Client::begin(side, &[4; 32]).expect("a handshake");
    let server = Server::begin(ServerSide { network, key: rendezvous, now: 0, versions: VERSIONS }, &[5; 32])
        .expect("a handshake");
    (server, client, first)
}
