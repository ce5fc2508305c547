//! What a peer can change at will, such as where it is and what it says of its MTU, costs probes and news at a bounded pace.

use overlay_core::{Event, PathMtuState};
use overlay_sim::{Scene, millis, seconds};
use overlay_wire::control::{Abilities, Frame};

use crate::control_peer::{Frames, scene};

#[test]
fn a_peer_that_forges_where_it_is_has_no_large_probe_sent_to_each_of_these_places() {
    let places = ["198.51.100.1:53", "198.51.100.2:53"].map(|place| place.parse().expect("an address"));
    let mut scene = scene();
    scene.hello(9_000);
    scene.world.run_for(seconds(5));
    scene.world.forget();
    for count in 0..1_000 {
        let keepalive = scene.session.seal(&[]);
        scene.world.inject(places[count % 2], scene.alice, &keepalive);
        scene.world.run_for(millis(1));
    }
    assert!(scene.large() <= 2, "{} for 1,000 keepalives", scene.large());
    // All at once.
    scene.world.forget();
    for count in 0..2_000 {
        let keepalive = scene.session.seal(&[]);
        scene.world.inject(places[count % 2], scene.alice, &keepalive);
    }
    scene.world.run_for(millis(900));
    assert!(scene.large() <= 3, "{} for 2,000 keepalives", scene.large());
    // A peer that has really moved is found at its new place.
    scene.world.inject(scene.carol.address, scene.alice, &scene.session.seal(&[]));
    scene.world.take_mail(scene.carol.address);
    let probes = scene.probes(2_000);
    assert!(!probes.is_empty(), "it is probed");
}

#[test]
fn a_peer_that_says_something_else_in_every_hello_is_not_probed_for_each() {
    let mut scene = scene();
    let before = scene.large();
    for count in 0..1_000u16 {
        let understands = if count % 2 == 0 { Abilities::FRAGMENTS } else { Abilities::default() };
        scene.send_frame(Frame::Hello { nonce: 7, understands, mtu: 1_300 + count % 7 });
        scene.world.run_for(millis(1));
    }
    let large = scene.large() - before;
    assert!(large <= 2, "{large} for 1,000 hellos");
}

#[test]
fn a_hello_that_alternates_is_followed_once_a_second_and_the_last_word_counts() {
    let mut scene = scene();
    let answer = |scene: &mut Scene, millis| {
        let probes = scene.probes(millis);
        for (id, size) in &probes {
            scene.send_frame(Frame::ProbeReply { id: *id, size: *size });
        }
        probes
    };
    scene.hello(1_300);
    for _ in 0..2_000 {
        answer(&mut scene, 1);
    }
    assert_eq!(scene.known().map(|known| known.mtu), Some(1_300));
    scene.world.forget();
    let (mut probes, mut bytes) = (0, 0);
    for turn in 0..10_000 {
        // Every hello is answered, at once.
        assert!(!scene.hello([1_400, 1_300][turn % 2]).is_empty());
        for (_, size) in answer(&mut scene, 1) {
            (probes, bytes) = (probes + 1, bytes + usize::from(size));
        }
    }
    let facts = scene.count_events(|event| matches!(event, Event::PathMtu(..)));
    assert!((8..=16).contains(&facts), "{facts} in 10 s");
    assert!(probes <= 100 && bytes <= 10_000 * 60, "{probes} probes of {bytes} bytes for as many hellos");
    scene.hello(1_400);
    for _ in 0..2_500 {
        answer(&mut scene, 1);
    }
    assert_eq!(scene.known().map(|known| (known.mtu, known.state)), Some((1_400, PathMtuState::Found)));
}

#[test]
fn a_peer_that_flaps_between_two_addresses_is_news_once_a_second_and_the_last_place_counts() {
    let mut scene = scene();
    scene.world.run_for(seconds(5));
    scene.world.forget();
    let places = [scene.carol.address, "198.51.100.9:1000".parse().expect("an address")];
    for turn in 0..10_001 {
        let message = scene.session.seal(&[]);
        scene.world.inject(places[turn % 2], scene.alice, &message);
        scene.world.run_for(millis(1));
    }
    let facts = scene.count_events(|event| matches!(event, Event::EndpointChanged(..)));
    assert!((8..=16).contains(&facts), "{facts} in 10 s, of which five at once");
    let facts = scene.count_events(|event| matches!(event, Event::PathMtu(..)));
    assert!(facts <= 16, "{facts} in 10 s");
    scene.world.run_for(seconds(1));
    assert_eq!(scene.world.last_endpoint(scene.alice, scene.carol.key()), Some(places[0]));
}

#[test]
fn a_peer_that_moves_back_and_forth_within_a_second_is_known_to_be_where_it_is() {
    let mut scene = scene();
    scene.world.run_for(seconds(5));
    let home = scene.carol.address;
    // More moves than are told at once.
    for turn in 0..9 {
        let away = format!("198.51.100.{}:1000", turn + 1).parse().expect("an address");
        for place in [away, home] {
            let message = scene.session.seal(&[]);
            scene.world.inject(place, scene.alice, &message);
        }
    }
    scene.world.run_for(millis(1_001));
    assert_eq!(scene.world.last_endpoint(scene.alice, scene.carol.key()), Some(home));
}

#[test]
fn a_peer_that_shakes_hands_fifty_times_a_second_is_news_once_a_second() {
    let mut scene = scene();
    scene.world.run_for(seconds(5));
    scene.world.forget();
    for _ in 0..250 {
        scene.world.run_for(millis(20));
        scene.session = scene.world.connect(&mut scene.carol);
    }
    let facts = scene.count_events(|event| matches!(event, Event::HandshakeCompleted(..)));
    assert!((4..=11).contains(&facts), "{facts} in 5 s, of which five at once");
    let last = scene.world.now();
    scene.world.run_for(millis(1_001));
    let events = scene.world.events(scene.alice);
    let latest = events.iter().rev().find_map(|(_, event)| match event {
        Event::HandshakeCompleted(_, at) => Some(*at),
        _ => None,
    });
    assert_eq!(latest, Some(last), "the last one is told, with its own date");
}
