//! The preshared key of two agents: what it protects, that it is WireGuard's, and what it survives.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use overlay_sim::initiator::{Initiator, Session, Timestamp};
use overlay_sim::packet::Ends;
use overlay_sim::recorded::Broken;

use super::*;
use crate::lab::services::{random_file, sha256, tcp_transfer};
use crate::lab::{Agents, Frames, Pings, StateFolder, Stock, installed};

/// The outer addresses of the two agents, and the port of their daemons.
const ALICE: &str = "10.1.0.2";
const BOB: &str = "10.2.0.2";
const PORT: u16 = 51820;

/// Two agents that trust each other in everything, and what is on their disks.
struct Friends {
    alice: Agent,
    bob: Agent,
    folders: [StateFolder; 2],
    identities: [String; 2],
    virtual_ips: [String; 2],
}

impl Friends {
    #[track_caller]
    fn new(world: &mut Agents) -> Friends {
        let (alice, bob) = world.two();
        befriend(&alice, "--want any --allow any", &bob, "");
        let virtual_ips = [alice.v4(), bob.v4()];
        alice.host.reaches(&virtual_ips[1]);
        let folders = [&alice, &bob].map(StateFolder::of);
        let identities = [&alice, &bob].map(|agent| agent.ask("agents")["identity"].as_str().expect("a key").into());
        Friends { alice, bob, folders, identities, virtual_ips }
    }

    /// The preshared key, which is the same on both disks.
    #[track_caller]
    fn preshared_key(&self) -> [u8; 32] {
        let [alices, bobs] = [0, 1].map(|side| self.preshared_key_of(side).expect("a preshared key"));
        assert_eq!(alices, bobs);
        alices
    }

    /// The former preshared keys on both disks.
    fn former_preshared_keys(&self) -> [Option<[u8; 32]>; 2] {
        [0, 1].map(|side| self.folders[side].peer(&self.identities[1 - side])?.former_preshared_key())
    }

    /// The preshared key on the disk of one side.
    fn preshared_key_of(&self, side: usize) -> Option<[u8; 32]> {
        self.folders[side].peer(&self.identities[1 - side])?.preshared_key()
    }
}

#[test]
fn a_recording_and_all_keys_of_x25519_show_nothing_without_the_preshared_key() {
    let name = "preshared key, recorded";
    if !installed(name, &["tcpdump"]) {
        return;
    }
    let Some(mut world) = Agents::new(name) else { return };
    let mut friends = Friends::new(&mut world);
    let preshared_key = friends.preshared_key();
    friends.bob.kill9();

    // The hand-written peer takes bob's place.
    let host = &friends.bob.host;
    let frames = Frames::start(host, &host.link_to(&world.router), "", &format!("udp port {PORT}"));
    let (private, _) = friends.folders[1].tunnel_key();
    let (_, alices) = friends.folders[0].tunnel_key();
    let mut initiator = Initiator::new(private, alices, 1).with_preshared_key(preshared_key);
    let socket = inside(host, || UdpSocket::bind((BOB, PORT))).expect("bob's port is free");
    socket.connect((ALICE, PORT)).expect("a route");
    socket.set_read_timeout(Some(SHORTLY)).expect("a time is set");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let pending = initiator.initiate(Timestamp::from_unix_seconds(now + 60), 0x77);
    socket.send(&pending.message).expect("a datagram");
    let mut session: Session = receive(&socket, |message| initiator.complete(&pending, message).ok());
    let [alice, bob] = friends.virtual_ips.clone().map(|address| address.parse::<IpAddr>().expect("an address"));
    let ping = Ends::new(bob, alice).echo_request(7, 1, b"a secret");
    socket.send(&session.seal(&ping)).expect("a datagram");
    let pong = receive(&socket, |message| {
        let packet = session.open(message).ok()?.plaintext;
        packet.windows(8).any(|bytes| bytes == b"a secret").then_some(packet)
    });
    assert_eq!((pong[9], pong[20]), (1, 0), "an echo reply of alice's kernel");

    // All that follows is from the capture and from bob's X25519 keys.
    let broken = Broken { initiator: private, ephemeral: pending.ephemeral_private(), responder: alices };
    let (from_alice, from_bob): (Vec<_>, Vec<_>) = within(SHORTLY, "the capture", || {
        let datagrams = frames.datagrams();
        let of = |source| datagrams.iter().filter(|it| it.source == at(source)).map(|it| it.contents.clone()).collect();
        let (from_alice, from_bob): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (of(ALICE), of(BOB));
        (from_alice.iter().any(|it| it[0] == 4) && from_bob.iter().any(|it| it[0] == 4))
            .then_some((from_alice, from_bob))
    });
    let initiation = from_bob.iter().find(|message| message[0] == 1).expect("an initiation");
    let response = from_alice.iter().find(|message| message[0] == 2).expect("a response");
    let shows_the_secret = |key: &[u8; 32]| {
        let [bobs, alices] = broken.session(initiation, response, key).expect("these are the keys of the handshake");
        let is_in = |session: &Session, messages: &[Vec<u8>]| {
            let opened = messages.iter().filter_map(|message| session.open(message).ok());
            opened.filter(|opened| opened.plaintext.windows(8).any(|bytes| bytes == b"a secret")).count()
        };
        [is_in(&alices, &from_bob), is_in(&bobs, &from_alice)]
    };
    assert_eq!(shows_the_secret(&preshared_key), [1, 1]);
    assert_eq!(shows_the_secret(&[0; 32]), [0, 0], "without a preshared key");
    let mut nearly = preshared_key;
    nearly[31] ^= 1;
    assert_eq!(shows_the_secret(&nearly), [0, 0], "one bit of it is wrong");
}

/// Receives datagrams until one is what is looked for.
#[track_caller]
fn receive<T>(socket: &UdpSocket, is_it: impl Fn(&[u8]) -> Option<T>) -> T {
    let mut message = [0; 2048];
    loop {
        let len = socket.recv(&mut message).expect("an answer of alice");
        if let Some(found) = is_it(&message[..len]) {
            return found;
        }
    }
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), PORT)
}

#[test]
fn wireguard_go_talks_to_an_agent_with_the_keys_of_a_state_folder() {
    let name = "state folder, wireguard-go";
    if !installed(name, &[Stock::WireGuardGo.program(), "socat"]) {
        return;
    }
    let Some(mut world) = Agents::new(name) else { return };
    let mut friends = Friends::new(&mut world);
    let preshared_key = friends.preshared_key();
    friends.bob.kill9();
    // Alice forgets the timestamps of bob's daemon, which counts leap seconds. wireguard-go does not, and is 27 s behind it.
    friends.alice.kill9();
    friends.alice.start();

    // wireguard-go takes bob's place, at first without the preshared key.
    let host = friends.bob.host.clone();
    let (private, _) = friends.folders[1].tunnel_key();
    let (_, alices) = friends.folders[0].tunnel_key();
    let key_file = host.write_secret("tunnel.key", &BASE64_STANDARD.encode(private));
    let (alices, [to_alice, to_bob]) = (BASE64_STANDARD.encode(alices), &friends.virtual_ips);
    let line = format!(
        "wg set {} listen-port {PORT} private-key {} peer {alices} allowed-ips {to_alice}/32 endpoint {ALICE}:{PORT}",
        host.interface(),
        key_file.display()
    );
    let _bob = Stock::WireGuardGo.up_with(&host, &line, &[&format!("{to_bob}/32")]);
    host.ip(&format!("route add {to_alice}/32 dev {}", host.interface()));
    let pings = host.run(format!("ping -n -q -c 4 -i 0.5 -W 1 {to_alice}"));
    assert!(pings.stdout.contains(" 0 received"), "{}", pings.stdout);

    let key_file = host.write_secret("preshared.key", &BASE64_STANDARD.encode(preshared_key));
    let line = format!("wg set {} peer {alices} preshared-key {}", host.interface(), key_file.display());
    host.exec(line);
    host.reaches(to_alice);
    friends.alice.host.reaches(to_bob);
    let file = random_file(&host, "file", 4 << 20);
    let sum = sha256(&file);
    assert_eq!(tcp_transfer(&host, &friends.alice.host, to_alice, &file), sum);
    assert_eq!(tcp_transfer(&friends.alice.host, &host, to_bob, &file), sum);

    // Alice starts anew, and has only what is on her disk.
    friends.alice.kill9();
    friends.alice.start();
    friends.alice.host.reaches(to_bob);
    host.reaches(to_alice);
}

#[test]
fn the_preshared_key_survives_a_new_scope_a_new_tunnel_key_and_restarts() {
    let Some(mut world) = Agents::new("preshared key, kept") else { return };
    let mut friends = Friends::new(&mut world);
    let preshared_key = friends.preshared_key();
    let [to_alice, to_bob] = friends.virtual_ips.clone();

    friends.bob.ask("approve alice --allow icmp --allow tcp/8000");
    let opens = || friends.alice.peer("bob")["opens"].as_array().map(Vec::len);
    within(SHORTLY, "alice to learn it", || (opens() == Some(2)).then_some(()));
    assert_eq!(friends.preshared_key(), preshared_key, "a new scope");

    // A request of an agent that is trusted already, and wants no more, makes a new key on both sides.
    friends.alice.ask("handshake bob --want icmp --allow any");
    within(SHORTLY, "a new key", || (friends.preshared_key_of(0) != Some(preshared_key)).then_some(()));
    within(SHORTLY, "the same key", || (friends.preshared_key_of(0) == friends.preshared_key_of(1)).then_some(()));
    let replaced = friends.preshared_key();
    assert_ne!(replaced, preshared_key);

    friends.bob.kill9();
    let (_, former) = friends.folders[1].tunnel_key();
    friends.folders[1].replace_tunnel_key();
    assert_ne!(friends.folders[1].tunnel_key().1, former);
    friends.bob.start();
    friends.alice.host.reaches(&to_bob);
    friends.bob.host.reaches(&to_alice);
    assert_eq!(friends.preshared_key(), replaced, "a new tunnel key");

    for agent in [&mut friends.alice, &mut friends.bob] {
        agent.kill9();
        agent.start();
    }
    friends.alice.host.reaches(&to_bob);
    assert_eq!(friends.preshared_key(), replaced, "a restart");
}

/// Starts an agent anew, which ends its sessions, and waits until both reach each other.
#[track_caller]
fn rekey(agent: &mut Agent, host: &Host, peer: &str) {
    agent.kill9();
    agent.start();
    host.reaches_within(TURNS, peer);
}

/// How long two agents need at most to find the preshared key that both have: four attempts.
const TURNS: Duration = Duration::from_secs(25);

#[test]
fn a_key_that_is_replaced_while_the_mailbox_dies_leaves_the_tunnel_alive() {
    let Some(mut world) = Agents::new("replaced key") else { return };
    let mut friends = Friends::new(&mut world);
    let former = friends.preshared_key();
    let [to_alice, to_bob] = friends.virtual_ips.clone();
    friends.bob.ask("approve alice --allow icmp");
    friends.alice.ask("handshake bob --want any --allow any");
    friends.bob.is_asked_by("alice");
    // The relay ends with the rendezvous, and what it had not forwarded is lost.
    friends.alice.verb("ping bob --until-direct -i 0.2").succeeded("overlay ping --until-direct");
    world.kill();
    friends.bob.ask("approve alice");
    assert_ne!(friends.preshared_key_of(1), Some(former), "bob made a new key");
    assert_eq!(friends.preshared_key_of(0), Some(former), "the approval does not arrive");
    assert_eq!(friends.former_preshared_keys(), [None, Some(former)]);

    // The session goes on.
    Pings::new(20, Duration::from_millis(100)).are_answered(&friends.alice.host, &to_bob);
    let (alice, bob) = (friends.alice.host.clone(), friends.bob.host.clone());
    rekey(&mut friends.bob, &alice, &to_bob);
    rekey(&mut friends.alice, &bob, &to_alice);
    rekey(&mut friends.bob, &bob, &to_alice);
    assert_eq!(friends.former_preshared_keys(), [None, Some(former)], "nothing was proven");

    // The approval arrives, and the next handshake proves the new key.
    world.start();
    friends.bob.kill9();
    friends.alice.kill9();
    friends.bob.start();
    friends.alice.start();
    within(SHORTLY, "the approval", || (friends.preshared_key_of(0) != Some(former)).then_some(()));
    assert_ne!(friends.preshared_key(), former);
    rekey(&mut friends.bob, &alice, &to_bob);
    within(SHORTLY, "the former key to be erased", || (friends.former_preshared_keys() == [None; 2]).then_some(()));
    bob.reaches(&to_alice);
}
