//! Letters that a rendezvous shows as what they are not, or replays.

use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::{FromServer, Push, Slot};
use overlay_wire::signed::{Request, Revoke};

use super::*;
use crate::rogue::outsider::{endpoints, grant, request, seal_message, seal_slot};
use crate::rogue::signing::{sign_unchecked, unsigned};
use crate::rogue::{now, random};

/// How often old letters are shown again.
const REPLAYS: usize = 1_000;

/// An envelope of any kind as a letter of any kind.
type Shown<'a> = (&'a str, &'a str, Letter);

#[test]
fn a_letter_that_is_shown_as_a_different_kind_is_refused() {
    let Some(scene) = Scene::new("swapped kinds") else { return };
    let (bobs, alice) = (scene.bobs_secret(), scene.record_of(&scene.alice_key));
    let bytes = |bytes: &[u8]| bytes.to_vec().into();
    let record = bytes(scene.record_of(&scene.bob_key).bytes());
    let sequence = now().unix + 1;
    // All of it is signed by bob, and newer than anything that alice has seen of him.
    let granted = grant(&alice, &bobs, sequence);
    let asked = request(&alice, &bobs, "any");
    let revoke =
        Revoke { network: alice.network, issuer: scene.bob_key, subject: scene.alice_key, sequence, issued: sequence };
    let revoke = Signed::sign(revoke, &bobs).expect("a good revoke");
    let attacks: [Shown<'_>; 8] = [
        ("a request as a grant", "malformed", Letter::Grant { grant: bytes(asked.bytes()) }),
        ("a request as a revoke", "malformed", Letter::Revoke { revoke: bytes(asked.bytes()) }),
        // It has all fields of a revoke. Only the kind under its signature differs.
        ("a grant as a revoke", "malformed", Letter::Revoke { revoke: bytes(granted.bytes()) }),
        ("a revoke as a grant", "malformed", Letter::Grant { grant: bytes(revoke.bytes()) }),
        (
            "a grant as a request",
            "malformed",
            Letter::Request { request: bytes(granted.bytes()), record: record.clone() },
        ),
        (
            "a request as an approval",
            "malformed",
            Letter::Approval { approval: bytes(asked.bytes()), record: record.clone() },
        ),
        (
            "a request without a record",
            "malformed",
            Letter::Request { request: bytes(asked.bytes()), record: bytes(b"") },
        ),
        ("a grant as endpoints", "malformed", Letter::Endpoints { endpoints: bytes(granted.bytes()) }),
    ];
    let attack = scene.attack();
    let push = |push: Push| scene.rogue.push(&scene.alice_key, push);
    for (what, reason, letter) in attacks {
        // The rendezvous itself can seal this for alice in bob's name.
        let slot = if matches!(letter, Letter::Endpoints { .. }) { Slot::Endpoints } else { Slot::Word };
        if !matches!(letter, Letter::Request { .. } | Letter::Approval { .. }) {
            let sealed = seal_slot(&alice, &scene.bob_key, slot, &letter);
            attack
                .is_refused(what, reason, 1, || push(Push::Slot { from: scene.bob_key, slot, sealed: sealed.into() }));
        }
        if slot == Slot::Word {
            let message = random();
            let sealed = seal_message(&alice, &scene.bob_key, &message, &letter);
            let sealed = sealed.into();
            attack.is_refused(what, reason, 1, || push(Push::Message { from: scene.bob_key, message, sealed }));
        }
    }
    // A letter in one slot is not one in the other, a slot is not a message, and a letter of bob is not one of somebody else.
    let letter = Letter::Grant { grant: bytes(granted.bytes()) };
    let sealed = seal_slot(&alice, &scene.bob_key, Slot::Word, &letter);
    attack.is_refused("the other slot", "sealed", 1, || {
        push(Push::Slot { from: scene.bob_key, slot: Slot::Endpoints, sealed: sealed.clone().into() });
    });
    attack.is_refused("a slot as a message", "sealed", 1, || {
        push(Push::Message { from: scene.bob_key, message: random(), sealed: sealed.clone().into() });
    });
    let mallory = scene.rogue.join("mallory").identity();
    let message = random();
    let sealed = seal_message(&alice, &mallory, &message, &letter);
    attack.is_refused("bob's grant as a letter of mallory", "not_ours", 1, || {
        push(Push::Message { from: mallory, message, sealed: sealed.into() });
    });
    attack.was_in_vain();
    // The same grant as what it is arrives.
    let sealed = seal_slot(&alice, &scene.bob_key, Slot::Word, &letter);
    push(Push::Slot { from: scene.bob_key, slot: Slot::Word, sealed: sealed.into() });
    within(SHORTLY, "bob's grant", || {
        (scene.alice.peer("bob")["opens"] == Value::from(&[][..] as &[Value])).then_some(())
    });
}

#[test]
fn a_request_with_a_record_that_lies_waits_for_no_decision() {
    let Some(scene) = Scene::new("lying requests") else { return };
    let mallory = scene.rogue.join("mallory");
    let (alice, bob) = (scene.record_of(&scene.alice_key), scene.record_of(&scene.bob_key));
    let asked = request(&alice, &mallory.key, "any");
    let record = |change: &dyn Fn(&mut Record)| {
        let mut record = Record { sequence: mallory.record.sequence + 1, ..mallory.record.clone().into_value() };
        change(&mut record);
        sign_unchecked(&record, &mallory.key)
    };
    let hour = 3_600_000;
    let far = |record: &mut Record| (record.issued, record.fresh_until) = (now().unix + hour, now().unix + 2 * hour);
    let old = Request { issued: now().unix - 2 * hour, expires: now().unix - hour, ..asked.clone().into_value() };
    let attacks = [
        ("bob's address", "address", asked.bytes().to_vec(), record(&|record| record.ipv4 = bob.ipv4)),
        ("bob's tunnel key", "key_taken", asked.bytes().to_vec(), {
            record(&|record| record.tunnel_keys.clone_from(&bob.tunnel_keys))
        }),
        ("bob's record", "not_ours", asked.bytes().to_vec(), bob.bytes().to_vec()),
        ("a record from the future", "future", asked.bytes().to_vec(), record(&far)),
        ("no signature", "malformed", unsigned(&*asked), mallory.record.bytes().to_vec()),
        ("an expired request", "expired", sign_unchecked(&old, &mallory.key), mallory.record.bytes().to_vec()),
    ];
    let attack = scene.attack();
    let from = mallory.identity();
    let push = |request: Vec<u8>, record: Vec<u8>| {
        let (message, letter) = (random(), Letter::Request { request: request.into(), record: record.into() });
        let sealed = seal_message(&alice, &from, &message, &letter).into();
        scene.rogue.push(&scene.alice_key, Push::Message { from, message, sealed });
    };
    for (what, reason, request, record) in attacks {
        attack.is_refused(what, reason, 1, || push(request, record));
        assert_eq!(scene.alice.ask("pending")["requests"], Value::from(&[][..] as &[Value]), "{what}");
    }
    attack.was_in_vain();
    push(asked.bytes().to_vec(), mallory.record.bytes().to_vec());
    scene.alice.is_asked_by("mallory");
}

#[test]
fn a_thousand_replays_of_old_requests_and_grants_after_untrust_change_nothing() {
    let Some(scene) = Scene::new("replays") else { return };
    let (alice, bob) = (&scene.alice, &scene.bob);
    // More letters of bob: a changed grant, and a request of his own that alice answers by herself.
    bob.ask("approve alice --allow icmp --allow tcp/8000");
    within(SHORTLY, "bob's new grant", || {
        alice.peer("bob")["opens"].as_array().is_some_and(|opens| opens.len() == 2).then_some(())
    });
    bob.ask("handshake alice --want icmp --allow icmp");
    within(SHORTLY, "bob's request", || (of_bob(&scene).len() >= 4).then_some(()));
    bob.sees("alice", "trusted");
    settled(alice);
    alice.ask("untrust bob");
    bob.sees("alice", "untrusted");
    settled(alice);
    assert_eq!(tunnels_of(alice), Value::from(&[][..] as &[Value]));

    // Alice has the newest endpoints. They are shown again with each connection, so they are not a replay. The grant in the
    // other slot is older than that of bob's request.
    let is_list = |push: &Push| matches!(push, Push::Slot { slot: Slot::Endpoints, .. });
    let mut letters = of_bob(&scene);
    let list = letters.iter().rposition(is_list).map(|at| letters.remove(at)).expect("endpoints of bob");
    let record = scene.record_of(&scene.alice_key);
    let former = endpoints(&record, &scene.bobs_secret(), 1, &[]).into();
    letters.push(Push::Slot { from: scene.bob_key, slot: Slot::Endpoints, sealed: former });
    let kinds = letters.iter().map(|push| match push {
        Push::Message { .. } => "message",
        Push::Slot { slot: Slot::Word, .. } => "word",
        _ => "endpoints",
    });
    let kinds: std::collections::BTreeSet<_> = kinds.collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["endpoints", "message", "word"]);
    let sent = bob.daemon().status()["counters"]["initiations_sent"].clone();
    let attack = Attack {
        scene: &scene,
        files: files_of(alice),
        known: known_to(alice),
        tunnels: tunnels_of(alice),
        pings: None,
    };
    attack.is_refused("replays", "replayed", REPLAYS as u64, || {
        for push in letters.iter().cycle().take(REPLAYS) {
            for push in [push, &list] {
                scene.rogue.push(&scene.alice_key, push.clone());
            }
        }
    });
    assert_eq!(alice.peer("bob")["state"], "untrusted");
    assert_eq!(bob.daemon().status()["counters"]["initiations_sent"], sent);
    assert_ne!(alice.host.run(format!("ping -n -q -c 1 -W 1 {}", bob.v4())).code, 0);
    // What bob asks anew is shown to a person.
    bob.ask("handshake alice --want icmp");
    alice.is_asked_by("bob");
}

/// The letters of bob that alice was told.
fn of_bob(scene: &Scene) -> Vec<Push> {
    let push = |message| match message {
        FromServer::Push(push @ (Push::Message { from, .. } | Push::Slot { from, .. })) if from == scene.bob_key => {
            Some(push)
        }
        _ => None,
    };
    scene.rogue.told(&scene.alice_key).into_iter().filter_map(push).collect()
}
