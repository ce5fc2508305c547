//! The handshake between honest ends, and every way in which one that is not honest is refused.

use std::sync::Arc;

use super::noise::Handshake;
use super::*;
use crate::protocol::VERSION;

fn key(byte: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::from_bytes(&[byte; 32]))
}

fn network() -> PublicKey {
    key(1).public()
}

fn rendezvous() -> Arc<SecretKey> {
    key(2)
}

fn client_side() -> ClientSide {
    ClientSide { network: network(), rendezvous: rendezvous().public(), identity: key(3), epoch: 7, now: 1_000 }
}

fn server_side() -> ServerSide {
    ServerSide { network: network(), key: rendezvous(), now: 2_000, versions: VERSIONS }
}

fn client(random: u8) -> (Client, Vec<u8>) {
    Client::begin(client_side(), &[random; 32]).expect("a handshake")
}

fn server(random: u8) -> Server {
    Server::begin(server_side(), &[random; 32]).expect("a handshake")
}

/// Carries messages between the two until both are done.
fn established() -> (Channel, Channel) {
    let ((mut client, first), mut server) = (client(10), server(20));
    let mut to_client = server.handle(&first).expect("a good message").send;
    loop {
        let step = client.handle(&to_client.remove(0)).expect("a good message");
        if let Some(of_client) = step.channel {
            unreachable!("the server is first: {of_client:?}");
        }
        if let [auth] = &step.send[..] {
            let step = server.handle(auth).expect("a good auth");
            let of_client = client.handle(&step.send[0]).expect("a verdict").channel.expect("the client's channel");
            return (of_client, step.channel.expect("the server's channel"));
        }
    }
}

/// A server that finishes the Noise handshake honestly and then sends `auth` of the hash.
fn against_client(auth: impl FnOnce([u8; 32]) -> Vec<u8>) -> Failed {
    let (mut client, first) = client(10);
    let mut noise = Handshake::responder(&[21; 32]).expect("a handshake");
    noise.read(&first).expect("the client's message");
    client.handle(&noise.write().expect("ours")).expect("a good message");
    let (mut sealer, _, hash) = noise.finish().expect("a finished handshake");
    client.handle(&sealer.seal(&auth(hash)).expect("sealed")).expect_err("a bad auth")
}

/// A client that finishes the Noise handshake honestly and then sends `auth` of the hash. Returns also the verdict.
fn against_server(auth: impl FnOnce([u8; 32]) -> Vec<u8>) -> (Failed, Vec<u8>) {
    let mut server = server(20);
    let mut noise = Handshake::initiator(&[11; 32]).expect("a handshake");
    let step = server.handle(&noise.write().expect("ours")).expect("a good message");
    noise.read(&step.send[0]).expect("the server's message");
    let (mut sealer, mut opener, hash) = noise.finish().expect("a finished handshake");
    opener.open(&step.send[1]).expect("the server's auth");
    let failed = server.handle(&sealer.seal(&auth(hash)).expect("sealed")).expect_err("a bad auth");
    let verdict = opener.open(failed.farewell.as_ref().expect("it says why")).expect("a verdict");
    (failed, verdict)
}

fn auth_of_server(hash: [u8; 32]) -> Auth {
    Auth {
        role: Role::Server,
        versions: vec![VERSION],
        network: network(),
        rendezvous: rendezvous().public(),
        identity: rendezvous().public(),
        epoch: 0,
        hash,
        issued: 0,
    }
}

fn auth_of_client(hash: [u8; 32]) -> Auth {
    Auth { role: Role::Client, identity: key(3).public(), ..auth_of_server(hash) }
}

/// The bytes come from an implementation in Python, written from the Noise specification (revision 34) alone.
#[test]
fn the_noise_handshake_has_the_bytes_of_the_specification() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut client = Handshake::initiator(&[10; 32]).expect("a handshake");
    let mut server = Handshake::responder(&[20; 32]).expect("a handshake");
    let first = client.write().expect("a message");
    assert_eq!(hex(&first), "f77ff4b10788bfdca62ca0bb160d427cf5762d85f2b5cad6807ec9c3febbde09");
    server.read(&first).expect("a good message");
    let second = server.write().expect("a message");
    assert_eq!(
        hex(&second),
        "18a6f8c1a7fddf22bd410138f79f7298cd38d1d0a542d4266d556be8609d886240c2e2eeda9ef7e76a00448d7c20d643"
    );
    client.read(&second).expect("a good message");
    let (mut to_server, mut from_server, hash) = client.finish().expect("finished");
    let (mut to_client, _, same_hash) = server.finish().expect("finished");
    assert_eq!(hex(&hash), "3123be0464e9cd6d2dd53aadff6b070b188e522d1c4088219ed906ec7a5c9799");
    assert_eq!(hash, same_hash);
    let sealed = to_server.seal(b"from the client").expect("sealed");
    assert_eq!(hex(&sealed), "d8ee2854957894599c4a159bb1bf7cb87721961001ccdadd237eed6a9a43d0");
    assert_eq!(hex(&to_server.seal(b"").expect("sealed")), "fdc53e5f7e9878c7d3001b39fac72b89");
    let sealed = to_client.seal(b"from the server").expect("sealed");
    assert_eq!(hex(&sealed), "e6d26cb031522c528eaa3d498a36a4ae97daa208546f0b81593674620fefa1");
    assert_eq!(from_server.open(&sealed).as_deref(), Ok(&b"from the server"[..]));
}

#[test]
fn both_ends_learn_who_the_other_one_is_and_talk() {
    let (mut client, mut server) = established();
    assert_eq!((server.peer.identity, server.peer.epoch, server.peer.issued), (key(3).public(), 7, 1_000));
    assert_eq!((client.peer.rendezvous, client.peer.issued), (rendezvous().public(), 2_000));
    assert_eq!((client.version, server.version), (VERSION, VERSION));
    for len in [0, 1, MAX_MESSAGE_LEN] {
        let message = vec![9; len];
        let sealed = client.seal(&message).expect("sealed");
        assert_eq!(sealed.len(), len + SEAL_LEN);
        assert_eq!(server.open(&sealed), Ok(message.clone()));
        let sealed = server.seal(&message).expect("sealed");
        assert_eq!(client.open(&sealed), Ok(message));
    }
    assert_eq!(client.seal(&[0; MAX_MESSAGE_LEN + 1]), Err(Broken::TooLong));
    assert_eq!(server.open(&[0; MAX_FRAME_LEN + 1]), Err(Broken::TooLong));
}

/// The first release spoke version 1 alone.
#[test]
fn both_ends_talk_in_the_newest_version_that_both_speak() {
    assert_eq!(VERSIONS, [VERSION, VERSION - 1, VERSION - 2], "this version, and those of the releases before");
    let mut former = Server::begin(ServerSide { versions: &[1], ..server_side() }, &[20; 32]).expect("a handshake");
    let (mut client, first) = client(10);
    let step = former.handle(&first).expect("a good message");
    client.handle(&step.send[0]).expect("a good message");
    let ours = client.handle(&step.send[1]).expect("a good auth").send;
    let step = former.handle(&ours[0]).expect("it knows one of our versions");
    assert_eq!(step.channel.expect("the channel of the former rendezvous").version, 1);
    assert_eq!(client.handle(&step.send[0]).expect("a verdict").channel.expect("ours").version, 1);

    // A former agent at our rendezvous.
    let mut server = server(20);
    let mut noise = Handshake::initiator(&[11; 32]).expect("a handshake");
    let step = server.handle(&noise.write().expect("ours")).expect("a good message");
    noise.read(&step.send[0]).expect("the server's message");
    let (mut sealer, _, hash) = noise.finish().expect("a finished handshake");
    let auth = signed(Auth { versions: vec![1], ..auth_of_client(hash) }, &key(3));
    let step = server.handle(&sealer.seal(&auth).expect("sealed")).expect("a good auth");
    assert_eq!(step.channel.expect("the channel").version, 1);
}

#[test]
fn a_message_that_was_changed_lost_or_injected_ends_the_channel() {
    type Interference = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let cases: [Interference; 5] = [
        |mut sealed| {
            sealed[0][3] ^= 1;
            sealed
        },
        |sealed| vec![sealed[0].clone(), sealed[0].clone()],
        |sealed| vec![sealed[1].clone()],
        |sealed| vec![sealed[0].clone(), vec![0; 40], sealed[1].clone()],
        |sealed| vec![Vec::new(), sealed[0].clone()],
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let (mut client, mut server) = established();
        let sealed: Vec<_> = [b"one", b"two"].iter().map(|text| client.seal(*text).expect("sealed")).collect();
        let opened: Vec<_> = case(sealed).iter().map(|sealed| server.open(sealed)).collect();
        assert!(opened.contains(&Err(Broken::NotAuthentic)), "case {number}: {opened:?}");
        let good = client.seal(b"three").expect("sealed");
        assert_eq!(server.open(&good), Err(Broken::Over), "case {number}: nothing is opened after it");
    }
}

#[test]
fn the_client_refuses_every_auth_but_that_of_its_rendezvous() {
    let stranger = key(9);
    let own = |auth: Auth| signed(auth, &rendezvous());
    let of = |refusal| Broken::Auth(refusal);
    let refused = |auth: &dyn Fn([u8; 32]) -> Vec<u8>| against_client(auth).reason;

    assert_eq!(refused(&|hash| own(Auth { hash: [0; 32], ..auth_of_server(hash) })), of(Refusal::Relayed));
    let reflected = |hash| signed(auth_of_client(hash), &key(3));
    assert_eq!(refused(&reflected), of(Refusal::WrongRole));
    let other_network = |hash| own(Auth { network: stranger.public(), ..auth_of_server(hash) });
    assert_eq!(refused(&other_network), of(Refusal::WrongNetwork));
    let newer = |hash| own(Auth { versions: vec![VERSION + 1, 9_000], ..auth_of_server(hash) });
    assert_eq!(refused(&newer), of(Refusal::UnknownVersion));
    let both = |hash| own(Auth { identity: stranger.public(), ..auth_of_server(hash) });
    assert_eq!(refused(&both), of(Refusal::BadObject));
    assert_eq!(refused(&|_| b"garbage".to_vec()), of(Refusal::BadObject));
    let forged = |hash| {
        let mut bytes = own(auth_of_server(hash));
        *bytes.last_mut().expect("a signature") ^= 1;
        bytes
    };
    assert_eq!(refused(&forged), of(Refusal::BadObject));

    // A rendezvous with a different key is told to people by the key that it has.
    let failed = against_client(|hash| {
        let public = stranger.public();
        signed(Auth { rendezvous: public, identity: public, ..auth_of_server(hash) }, &stranger)
    });
    assert_eq!((failed.reason, failed.offered), (of(Refusal::WrongRendezvous), Some(stranger.public())));
    assert_eq!(failed.farewell, None, "a server that is refused is told nothing");
}

#[test]
fn the_server_refuses_every_auth_not_meant_for_it() {
    let own = |auth: Auth| signed(auth, &key(3));
    let stranger = key(9).public();
    type Signs<'a> = &'a dyn Fn([u8; 32]) -> Vec<u8>;
    let cases: [(Refusal, Signs<'_>); 7] = [
        (Refusal::Relayed, &|hash| own(Auth { hash: [0; 32], ..auth_of_client(hash) })),
        (Refusal::WrongRole, &|hash| signed(auth_of_server(hash), &rendezvous())),
        (Refusal::WrongNetwork, &|hash| own(Auth { network: stranger, ..auth_of_client(hash) })),
        (Refusal::WrongRendezvous, &|hash| own(Auth { rendezvous: stranger, ..auth_of_client(hash) })),
        (Refusal::UnknownVersion, &|hash| own(Auth { versions: vec![0], ..auth_of_client(hash) })),
        (Refusal::BadObject, &|_| Vec::new()),
        (Refusal::BadObject, &|hash| {
            let mut bytes = own(auth_of_client(hash));
            bytes[20] ^= 1;
            bytes
        }),
    ];
    for (refusal, auth) in cases {
        let (failed, verdict) = against_server(auth);
        assert_eq!(failed.reason, Broken::Auth(refusal));
        assert_eq!(failed.reason.code(), refusal.code());
        assert_eq!(Refusal::of_verdict(verdict[0]), Some(refusal), "the client is told");
    }
}

#[test]
fn a_client_that_is_denied_learns_why() {
    let (mut client, first) = client(10);
    let mut server = server(20);
    let step = server.handle(&first).expect("a good message");
    client.handle(&step.send[0]).expect("a good message");
    let auth = client.handle(&step.send[1]).expect("the pinned rendezvous").send.remove(0);
    // The server has moved to a different network in the meantime.
    server.side.network = key(9).public();
    let farewell = server.handle(&auth).expect_err("a different network").farewell.expect("it says why");
    let denied = client.handle(&farewell).expect_err("denied");
    assert_eq!(denied.reason, Broken::Denied(Some(Refusal::WrongNetwork)));
    assert_eq!(denied.to_string(), "denied: wrong_network");
    assert_eq!(client.handle(&farewell).expect_err("it is over").reason, Broken::Over);
}

/// Two handshakes, one with each end, and each end's auth is forwarded to the other one.
#[test]
fn a_man_in_the_middle_is_refused_on_both_sides() {
    let ((mut client, first), mut server) = (client(10), server(20));
    // Towards the client.
    let mut as_server = Handshake::responder(&[30; 32]).expect("a handshake");
    as_server.read(&first).expect("the client's message");
    client.handle(&as_server.write().expect("ours")).expect("a good message");
    let (mut to_client, _, hash_with_client) = as_server.finish().expect("finished");
    // Towards the server.
    let mut as_client = Handshake::initiator(&[31; 32]).expect("a handshake");
    let step = server.handle(&as_client.write().expect("ours")).expect("a good message");
    as_client.read(&step.send[0]).expect("the server's message");
    let (mut to_server, mut from_server, hash_with_server) = as_client.finish().expect("finished");
    assert_ne!(hash_with_client, hash_with_server);

    let auth = from_server.open(&step.send[1]).expect("the server's auth");
    let refused = client.handle(&to_client.seal(&auth).expect("sealed")).expect_err("the client sees through it");
    assert_eq!(refused.reason, Broken::Auth(Refusal::Relayed));

    // The client has said nothing of itself. A careless one would have signed this.
    let auth = signed(auth_of_client(hash_with_client), &key(3));
    let refused = server.handle(&to_server.seal(&auth).expect("sealed")).expect_err("the server sees through it");
    assert_eq!(refused.reason, Broken::Auth(Refusal::Relayed));
}

#[test]
fn what_was_recorded_opens_no_second_connection() {
    let ((mut client, first), mut recorded) = (client(10), server(20));
    let step = recorded.handle(&first).expect("a good message");
    client.handle(&step.send[0]).expect("a good message");
    let auth = client.handle(&step.send[1]).expect("a good auth").send.remove(0);
    assert!(recorded.handle(&auth).is_ok());

    let mut server = server(22);
    server.handle(&first).expect("a Noise message looks like any other");
    assert_eq!(server.handle(&auth).expect_err("sealed for a different server").reason, Broken::NotAuthentic);
}

#[test]
fn garbage_ends_a_handshake_in_each_of_its_states() {
    for garbage in [&[][..], &[0; 31], &[0; 33], &[0xff; 48], &[0; 70_000]] {
        let mut server = server(20);
        assert_eq!(server.handle(garbage).expect_err("garbage").reason, Broken::Malformed, "{}", garbage.len());
        assert_eq!(server.handle(garbage).expect_err("garbage").reason, Broken::Over);
        let (mut client, first) = client(10);
        assert_eq!(client.handle(garbage).expect_err("garbage").reason, Broken::Malformed, "{}", garbage.len());

        let mut server = super::tests::server(20);
        server.handle(&first).expect("a good message");
        let reason = server.handle(garbage).expect_err("garbage").reason;
        assert!(matches!(reason, Broken::NotAuthentic | Broken::TooLong), "{reason:?}");
    }
}

#[test]
fn every_reason_has_a_code_and_a_number_of_its_own() {
    let codes: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
    assert_eq!(codes.len(), Refusal::ALL.len());
    for refusal in Refusal::ALL {
        assert_ne!(refusal as u8, WELCOME);
        assert_eq!(Refusal::of_verdict(refusal as u8), Some(refusal));
    }
    assert_eq!(Refusal::of_verdict(200), None);
}

#[test]
fn a_url_pins_both_keys_or_is_refused_with_the_reason() {
    let keys = format!("{}.{}", rendezvous().public(), network());
    for (text, host, port) in [
        (format!("https://rv.example.net:7447#{keys}"), "rv.example.net", 7447),
        (format!("https://192.0.2.1/#{keys}"), "192.0.2.1", DEFAULT_PORT),
        (format!("https://[2001:db8::1]:65535#{keys}"), "2001:db8::1", 65_535),
    ] {
        let pinned: Pinned = text.parse().expect("a good URL");
        assert_eq!((pinned.host.as_str(), pinned.port), (host, port));
        assert_eq!((pinned.rendezvous, pinned.network), (rendezvous().public(), network()));
        assert_eq!(pinned.to_string().parse(), Ok(pinned));
    }
    let half = rendezvous().public();
    for (text, reason) in [
        (format!("http://a:1#{keys}"), NotPinned::Scheme),
        ("https://a:1".to_owned(), NotPinned::NoKeys),
        (format!("https://a:1#{half}"), NotPinned::Keys),
        (format!("https://a:1#{half}.{half}x"), NotPinned::Keys),
        (format!("https://:1#{keys}"), NotPinned::Host),
        (format!("https://a b:1#{keys}"), NotPinned::Host),
        (format!("https://[a]:1#{keys}"), NotPinned::Host),
        (format!("https://a:0#{keys}"), NotPinned::Port),
        (format!("https://a:+1#{keys}"), NotPinned::Port),
        (format!("https://[::1]1#{keys}"), NotPinned::Port),
        (format!("https://a:1/x#{keys}"), NotPinned::Path),
        (format!("https://u@a:1#{keys}"), NotPinned::Path),
    ] {
        assert_eq!(text.parse::<Pinned>(), Err(reason), "{text}");
    }
}
