//! A peer that moves makes its node say something about the path, in the middle of a message: the message stays what it was, and
//! holds nothing of anybody else's.

use std::net::SocketAddr;

use overlay_core::{Event, PathMtuState};
use overlay_sim::initiator::Session;
use overlay_sim::{HostId, HostOptions, Outsider, World, millis, seconds};
use overlay_wire::control::{Abilities, Frame};

fn written(frame: Frame<'_>) -> Vec<u8> {
    let mut packet = vec![0; frame.len()];
    frame.write(&mut packet);
    packet
}

struct Roam {
    world: World,
    alice: HostId,
    mallory: Outsider,
    session: Session,
    bob: Outsider,
    from_bob: Session,
}

/// The daemon's default over IPv4 Ethernet: 1420 assumed, 1440 at most. Mallory is an overlay node whose path was found.
fn roam() -> Roam {
    let mut world = World::new(11);
    let options = HostOptions { mtu: 1_420, max_mtu: 1_440, mtu_discovery: true, ..HostOptions::default() };
    let alice = world.host_with(options);
    let mut mallory = world.outsider_with(alice, |peer| peer.mtu_discovery = true);
    let mut bob = world.outsider(alice);
    let mut session = world.connect(&mut mallory);
    let from_bob = world.connect(&mut bob);
    world.take_mail(mallory.address);
    let hello = session.seal(&written(Frame::Hello { nonce: 7, understands: Abilities::FRAGMENTS, mtu: 1_440 }));
    world.inject(mallory.address, alice, &hello);
    for _ in 0..100 {
        world.run_for(millis(50));
        for message in world.take_mail(mallory.address) {
            let Ok(opened) = session.open(&message) else { continue };
            if let Ok(Frame::Probe { id, size }) = Frame::parse(&opened.plaintext) {
                let reply = session.seal(&written(Frame::ProbeReply { id, size }));
                world.inject(mallory.address, alice, &reply);
            }
        }
    }
    let found = world.events(alice).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(_, known) => Some((known.mtu, known.state)),
        _ => None,
    });
    assert_eq!(found, Some((1_440, PathMtuState::Found)));
    // Something large goes to mallory: the answer to a request of hers, say.
    let large = world.from_outsider(&mallory).reversed().udp(&[0x11; 1_440 - 28]);
    world.send(alice, large);
    Roam { world, alice, mallory, session, bob, from_bob }
}

/// Bob sends alice what is nobody else's business.
fn secret(scene: &mut Roam) {
    let packet = scene.world.from_outsider(&scene.bob).udp(&b"SECRET".repeat(230));
    let train: Vec<_> = (0..4).map(|_| scene.from_bob.seal(&packet)).collect();
    let train: Vec<_> = train.iter().map(Vec::as_slice).collect();
    scene.world.inject_train(scene.bob.address, scene.alice, &train);
}

#[test]
fn the_response_to_a_peer_that_moved_holds_nothing_of_others() {
    let mut scene = roam();
    secret(&mut scene);
    let elsewhere: SocketAddr = "198.51.100.66:7".parse().unwrap();
    let pending = scene.mallory.initiate();
    let answers = scene.world.ask(elsewhere, scene.alice, &pending.message);
    let text: Vec<_> = answers.iter().map(|answer| String::from_utf8_lossy(answer).into_owned()).collect();
    assert!(!text.iter().any(|text| text.contains("SECRET")), "in clear on the wire: {text:?}");
    assert!(scene.mallory.initiator.complete(&pending, &answers[0]).is_ok());
}

#[test]
fn a_packet_of_a_peer_that_moved_is_what_it_sent() {
    let mut scene = roam();
    secret(&mut scene);
    // One "too big" over IPv4 with a quote of 128 bytes is this long. Behind as much filler lies a second packet.
    const ERROR: usize = 20 + 8 + 128;
    const LEN: usize = ERROR + 28;
    let ends = scene.world.from_outsider(&scene.mallory);
    let mut inner = ends.ip(17, &[0; LEN - 20]);
    inner[20..28].copy_from_slice(&[0x12, 0x34, 0x56, 0x78, 0, (LEN - 20) as u8, 0, 0]);
    inner.truncate(28);
    let mut outer = ends.udp(&[0; LEN - 28]);
    outer[ERROR..].copy_from_slice(&inner);
    let message = scene.session.seal(&outer);
    scene.world.forget();
    scene.world.inject("198.51.100.66:7".parse().unwrap(), scene.alice, &message);
    let received: Vec<_> = scene.world.received(scene.alice).iter().map(|received| &received.packet).collect();
    for packet in &received {
        let text = String::from_utf8_lossy(packet);
        assert!(!text.contains("SECRET"), "bob's bytes in a packet of mallory's: {text:?}");
    }
    assert!(received.contains(&&outer), "what she sent arrives");
}

#[test]
fn a_peer_that_moves_does_not_end_the_node() {
    let mut scene = roam();
    // A different peer at the same endpoint fills more of the arena than was ever used. The initiation comes last.
    let elsewhere: SocketAddr = "198.51.100.66:7".parse().unwrap();
    let large = scene.world.from_outsider(&scene.bob).udp(&[0x22; 1_400 - 28]);
    let mut train: Vec<_> = (0..40).map(|_| scene.from_bob.seal(&large)).collect();
    train.push(scene.mallory.initiate().message);
    let train: Vec<_> = train.iter().map(Vec::as_slice).collect();
    scene.world.inject_train(elsewhere, scene.alice, &train);
}

#[test]
fn the_first_packet_after_a_move_arrives() {
    for begins_anew in [true, false] {
        let mut world = World::new(11);
        let options = HostOptions { mtu: 1_420, max_mtu: 1_440, mtu_discovery: true, ..HostOptions::default() };
        let (alice, bob) = (world.host_with(options.clone()), world.host_with(options));
        world.introduce(alice, bob);
        world.set_peer(alice, bob, |_| {});
        world.set_peer(bob, alice, |_| {});
        world.ping(bob, alice).expect("an answer");
        let large = world.v4(alice, bob).udp(&[0x5a; 1_440 - 28]);
        for _ in 0..100 {
            world.send(alice, large.clone());
            world.run_for(millis(50));
        }
        world.roam(bob, &["198.51.100.7:4242"]);
        if begins_anew {
            // As a laptop that slept, or an app that was started again.
            world.restart(bob);
        }
        world.forget();
        let hello = world.v4(bob, alice).udp(b"I am somewhere else now, and this is my first packet");
        world.send(bob, hello.clone());
        world.run_for(seconds(2));
        let arrived = world.received(alice).iter().any(|received| received.packet == hello);
        assert!(arrived, "{begins_anew}: {:?}", world.drops(alice));
    }
}
