//! What a rendezvous answers to a registration, and what it shows of agents without trust.

use overlay_rendezvous::protocol::{Code, FromServer, Push, Reply, Verb};
use overlay_wire::signed::Record;

use super::own::{connects_again, registers_again, welcome_with};
use super::*;
use crate::rogue::answered;
use crate::rogue::signing::{identity_of, sign_unchecked};

/// What alice registers once the rendezvous has answered her first registration like this.
#[track_caller]
fn registered_after(scene: &Scene, reply: Reply) -> Signed<Record> {
    let alice = scene.alice_key;
    let mut left = Some(reply);
    scene.rogue.filter(move |told| match told.asked {
        Some(Verb::Hello) if *told.to == alice => welcome_with(&told, None),
        Some(Verb::Register { .. }) if *told.to == alice => match left.take() {
            Some(reply) => answered(&told.message, reply),
            None => vec![told.message],
        },
        _ => vec![told.message],
    });
    registers_again(scene);
    scene.rogue.be_honest();
    // What she makes of it is there once she is answered on the next connection.
    connects_again(scene);
    scene.alice.is_registered("alice");
    scene.record_of(&alice)
}

#[test]
fn an_older_record_of_ours_does_not_make_us_sign_a_newer_one() {
    let Some(scene) = Scene::new("too old") else { return };
    let own = scene.record_of(&scene.alice_key);
    let older = Record { sequence: own.sequence - 1, ..own.clone().into_value() };
    let older = sign_unchecked(&older, &identity_of(&scene.alice.host));
    let attack = scene.attack();
    let record = Some(older.into());
    let last = registered_after(&scene, Reply::Refused { code: Code::TooOld, ipv4: None, record, wait: None });
    assert_eq!(last.bytes(), own.bytes(), "alice has signed a new record: {last:?}");
    attack.was_in_vain();
}

#[test]
fn an_address_that_does_not_follow_from_our_key_is_not_taken() {
    let Some(scene) = Scene::new("foreign address") else { return };
    let own = scene.record_of(&scene.alice_key);
    let bobs = scene.record_of(&scene.bob_key).ipv4;
    let attack = scene.attack();
    let last = registered_after(&scene, Reply::Refused { code: Code::Ipv4, ipv4: bobs, record: None, wait: None });
    assert_eq!(last.ipv4, own.ipv4, "{last:?}");
    attack.was_in_vain();
}

#[test]
fn our_own_tunnel_key_in_a_record_of_a_peer_is_refused() {
    let Some(scene) = Scene::new("own tunnel key") else { return };
    let mallory = scene.trusted("mallory", "icmp");
    let record = Record {
        sequence: mallory.record.sequence + 1,
        tunnel_keys: scene.record_of(&scene.alice_key).tunnel_keys.clone(),
        ..mallory.record.clone().into_value()
    };
    let attack = scene.attack();
    attack.is_refused("our own tunnel key", "key_taken", 1, || {
        scene.rogue.show(&scene.alice_key, sign_unchecked(&record, &mallory.key));
    });
    attack.was_in_vain();
}

#[test]
fn an_older_request_does_not_replace_one_that_waits() {
    let Some(scene) = Scene::new("older request") else { return };
    let alice = scene.record_of(&scene.alice_key);
    let mut mallory = scene.rogue.join("mallory");
    let wants = |want: &str| {
        within(SHORTLY, want, || (scene.alice.is_asked_by("mallory")["want"][0] == want).then_some(()));
    };
    mallory.ask(&alice, "any");
    wants("any");
    mallory.ask(&alice, "icmp");
    wants("icmp");
    settled(&scene.alice);
    let is_of_mallory = |push: &Push| matches!(push, Push::Message { from, .. } if *from == mallory.identity());
    let mut messages = scene.rogue.told(&scene.alice_key).into_iter().filter_map(|message| match message {
        FromServer::Push(push) if is_of_mallory(&push) => Some(push),
        _ => None,
    });
    let first = messages.next().expect("the first request");
    let attack = scene.attack();
    attack.is_refused("the first request", "replayed", 1, || scene.rogue.push(&scene.alice_key, first));
    attack.was_in_vain();
}
