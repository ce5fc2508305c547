//! What the controls of two nodes say to each other inside a session.

use overlay_core::{Command, Event, PeerTag};
use overlay_sim::{HostOptions, Scene, millis, seconds};
use overlay_wire::control::{Abilities, Frame};

fn scene() -> Scene {
    Scene::with(HostOptions::default(), |peer| peer.mtu_discovery = true)
}

fn frame(frame: Frame<'_>) -> Vec<u8> {
    let mut packet = vec![0; frame.len()];
    frame.write(&mut packet);
    packet
}

fn hello(scene: &mut Scene, understands: Abilities) {
    let message = scene.session.seal(&frame(Frame::Hello { nonce: 7, understands, mtu: 1_420 }));
    scene.world.ask(scene.carol.address, scene.alice, &message);
}

/// Gives alice a command about carol, and returns what the frames that reach carol hold.
fn sent(scene: &mut Scene, command: impl FnOnce(PeerTag) -> Command) -> Vec<Vec<u8>> {
    scene.world.take_mail(scene.carol.address);
    let carol = scene.world.tag(scene.alice, scene.carol.key());
    scene.world.command(scene.alice, command(carol)).expect("she is there");
    scene.world.run_for(millis(50));
    let mail = scene.world.take_mail(scene.carol.address);
    let opened = mail.iter().filter_map(|message| scene.session.open(message).ok());
    let held = opened.filter_map(|opened| match Frame::parse(&opened.plaintext) {
        Ok(Frame::Word { bytes } | Frame::Parcel { bytes }) => Some(bytes.to_vec()),
        _ => None,
    });
    held.collect()
}

fn said(scene: &mut Scene, word: &[u8]) -> Vec<Vec<u8>> {
    sent(scene, |carol| Command::SayWord(carol, word.into()))
}

fn handed(scene: &mut Scene, parcel: &[u8]) -> Vec<Vec<u8>> {
    sent(scene, |carol| Command::SendParcel(carol, parcel.into()))
}

#[test]
fn a_word_goes_to_a_peer_that_hands_it_on_and_to_no_other() {
    let mut scene = scene();
    assert!(said(&mut scene, b"word").is_empty(), "it is not known what carol is");
    hello(&mut scene, Abilities::FRAGMENTS);
    assert!(said(&mut scene, b"word").is_empty(), "she knows no words");
    hello(&mut scene, Abilities::WORDS);
    assert_eq!(said(&mut scene, b"word"), [b"word"]);
    assert!(said(&mut scene, b"").is_empty());
    assert!(said(&mut scene, &[7; 1_025]).is_empty(), "too long");
    assert_eq!(said(&mut scene, &[7; 1_024]), [[7; 1_024]]);
}

#[test]
fn control_hears_a_few_words_a_second_and_the_rest_is_counted() {
    let mut scene = scene();
    let heard = |scene: &Scene| {
        let events = scene.world.events(scene.alice).iter();
        events.filter(|(_, event)| matches!(event, Event::Word(_, word) if **word == *b"word")).count()
    };
    let word = frame(Frame::Word { bytes: b"word" });
    for round in 1..=2 {
        for _ in 0..10 {
            let message = scene.session.seal(&word);
            scene.world.inject(scene.carol.address, scene.alice, &message);
        }
        assert_eq!(heard(&scene), round * 4);
        assert_eq!(scene.drops().get("control_flood").copied(), Some(round as u64 * 6));
        scene.world.run_for(seconds(1));
    }
}

#[test]
fn a_parcel_goes_to_a_peer_unless_it_is_known_not_to_take_it() {
    let mut scene = scene();
    assert_eq!(handed(&mut scene, b"parcel"), [b"parcel"], "it is not known what carol is");
    hello(&mut scene, Abilities::WORDS);
    assert!(handed(&mut scene, b"parcel").is_empty(), "she takes none");
    hello(&mut scene, Abilities::PARCELS);
    assert_eq!(handed(&mut scene, &[7; 1_072]), [[7; 1_072]]);
    assert!(handed(&mut scene, &[7; 1_073]).is_empty(), "too long");
}

#[test]
fn control_gets_a_few_parcels_a_second_and_the_rest_is_counted() {
    let mut scene = scene();
    let parcel = frame(Frame::Parcel { bytes: b"parcel" });
    for _ in 0..40 {
        let message = scene.session.seal(&parcel);
        scene.world.inject(scene.carol.address, scene.alice, &message);
    }
    let events = scene.world.events(scene.alice).iter();
    let taken = events.filter(|(_, event)| matches!(event, Event::Parcel(_, parcel) if **parcel == *b"parcel"));
    assert_eq!((taken.count(), scene.drops().get("control_flood").copied()), (32, Some(8)));
}
