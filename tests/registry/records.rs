//! Records that a rendezvous forges, replays, or shows under a name that is not theirs.

use overlay_rendezvous::protocol::{Push, Reply, Verb};
use overlay_wire::signed::{PublicKey, Record, Signed, TunnelKey, ipv4_candidate};

use super::*;
use crate::rogue::signing::{sign_unchecked, unsigned};
use crate::rogue::{answered, now, secret};

/// One hour in milliseconds.
const HOUR: u64 = 3_600_000;

#[test]
fn no_record_that_is_forged_or_replayed_replaces_a_pinned_one() {
    let Some(scene) = Scene::new("forged records") else { return };
    let mallory = scene.trusted("mallory", "icmp");
    let (bobs, stranger, time) = (scene.bobs_secret(), secret(), now().unix);
    let pinned = scene.record_of(&scene.bob_key);
    // What bob might sign next, with a tunnel key that is not his.
    let next = |change: &dyn Fn(&mut Record)| {
        let mut record = Record {
            sequence: pinned.sequence + 1,
            tunnel_keys: vec![TunnelKey([9; 32])],
            ..pinned.clone().into_value()
        };
        change(&mut record);
        record
    };
    let whole = sign_unchecked(&next(&|_| {}), &bobs);
    let by_bob = |change: &dyn Fn(&mut Record)| sign_unchecked(&next(change), &bobs);
    let weak = PublicKey(std::array::from_fn(|at| u8::from(at == 0)));
    let taken = Record {
        sequence: mallory.record.sequence + 1,
        tunnel_keys: pinned.tunnel_keys.clone(),
        ..mallory.record.clone().into_value()
    };
    let far = |record: &mut Record| {
        record.issued = time + 11 * 60_000;
        record.fresh_until = record.issued + HOUR;
    };
    let old = |record: &mut Record| {
        record.issued = time - 2 * HOUR;
        record.fresh_until = time - HOUR;
    };
    let misplaced = |record: &mut Record| {
        let network = &scene.rogue.network;
        let candidates = |i| ipv4_candidate(&network.pool, &scene.bob_key, i).octets();
        record.ipv4 = (1..=u8::MAX).map(|host| [10, 99, 99, host]).find(|host| (0..64).all(|i| candidates(i) != *host));
    };
    let attacks: [(&str, &str, Vec<u8>); 17] = [
        ("not an object", "malformed", b"not an object".to_vec()),
        ("a record that is cut off", "malformed", whole[..whole.len() - 1].to_vec()),
        ("a record of a different kind", "malformed", scene.rogue.network.bytes().to_vec()),
        ("a record without a signature", "bad_signature", unsigned(&next(&|_| {}))),
        ("a record signed by a stranger", "bad_signature", sign_unchecked(&next(&|_| {}), &stranger)),
        ("a changed record", "bad_signature", changed(&whole)),
        ("a weak identity", "weak_key", sign_unchecked(&next(&|record| record.identity = weak), &stranger)),
        ("a weak tunnel key", "weak_key", by_bob(&|record| record.tunnel_keys = vec![TunnelKey([0; 32])])),
        ("a different network", "wrong_network", by_bob(&|record| record.network = stranger.public())),
        ("a name that is not one", "bad_name", by_bob(&|record| record.name = "Bob!".to_owned())),
        ("fresh for longer than allowed", "bad_value", by_bob(&|record| record.fresh_until = time + 900 * HOUR)),
        ("an expired record", "expired", by_bob(&old)),
        ("a record from the future", "future", by_bob(&far)),
        ("a rolled back record", "rolled_back", by_bob(&|record| record.sequence = pinned.sequence - 1)),
        ("a fork", "forked", by_bob(&|record| record.sequence = pinned.sequence)),
        ("an address of a different agent", "address", by_bob(&misplaced)),
        ("bob's tunnel key in a record of mallory", "key_taken", sign_unchecked(&taken, &mallory.key)),
    ];
    let attack = scene.attack();
    for (what, reason, record) in attacks {
        attack.is_refused(what, reason, 1, || scene.rogue.show(&scene.alice_key, record));
    }
    attack.is_refused("a stranger's record", "not_watched", 1, || {
        let record = sign_unchecked(&Record { identity: stranger.public(), ..next(&|_| {}) }, &stranger);
        scene.rogue.show(&scene.alice_key, record);
    });
    // The pinned record itself is no news, and nothing to refuse.
    scene.rogue.show(&scene.alice_key, pinned.bytes());
    attack.is_refused("all of it once more", "rolled_back", 1, || {
        scene.rogue.show(&scene.alice_key, by_bob(&|record| record.sequence = 1));
    });
    attack.was_in_vain();

    // What bob does sign arrives.
    let honest = Record {
        sequence: pinned.sequence + 1,
        tags: vec!["moved".to_owned()],
        tunnel_keys: pinned.tunnel_keys.clone(),
        ..pinned.clone().into_value()
    };
    scene.rogue.show(&scene.alice_key, sign_unchecked(&honest, &bobs));
    within(SHORTLY, "bob's new record", || {
        (scene.alice.ask("whois bob")["agents"][0]["tags"][0] == "moved").then_some(())
    });
}

/// A signed record in which one byte of the name was changed.
fn changed(record: &[u8]) -> Vec<u8> {
    let mut changed = record.to_vec();
    let at = changed.windows(4).position(|four| four == b"\x63bob").expect("the name in CBOR");
    changed[at + 3] = b'c';
    changed
}

#[test]
fn a_different_key_under_a_trusted_name_is_reported_and_not_followed() {
    let Some(scene) = Scene::new("a trusted name") else { return };
    let mallory = scene.rogue.join("mallory");
    let impostor =
        Record { sequence: mallory.record.sequence + 1, name: "bob".to_owned(), ..mallory.record.clone().into_value() };
    let impostor = Signed::sign(impostor, &mallory.key).expect("a good record");
    let (bytes, alice) = (impostor.bytes().to_vec(), scene.alice_key);
    scene.rogue.filter(move |told| match told.asked {
        Some(Verb::Find { .. }) if *told.to == alice => {
            answered(&told.message, Reply::Found { records: vec![bytes.clone().into()], next: None })
        }
        _ => vec![told.message],
    });
    let attack = scene.attack();
    let bob = scene.bob_key.to_string();
    attack.is_refused("the impostor's record", "not_watched", 1, || {
        scene.rogue.show(&scene.alice_key, impostor.bytes());
    });
    attack.is_refused("the impostor's record as that of bob", "other_key", 1, || {
        let found = scene.alice.ask("find bob");
        // What the rendezvous says is shown as what it is: an agent that is not trusted.
        assert_eq!(found["agents"][0]["identity"], mallory.identity().to_string(), "{found:#}");
        assert_eq!(found["agents"][0]["state"], "unknown", "{found:#}");
    });
    assert!(scene.alice.daemon().log().contains("a different key for the name of a trusted agent"));
    // The name leads to bob, in each verb that takes one.
    assert_eq!(scene.alice.ask("whois bob")["agents"][0]["identity"], *bob);
    assert_eq!(scene.alice.verb("ip bob").succeeded("overlay ip bob").trim(), scene.bob.v4());
    attack.was_in_vain();
    let asked = scene.alice.ask("handshake bob --want icmp");
    assert_eq!(asked["identity"], *bob, "{asked:#}");
    let is_to_mallory = |verb: &Verb| matches!(verb, Verb::Send { to, .. } if *to == mallory.identity());
    assert!(!scene.rogue.calls(&scene.alice_key).iter().any(|call| is_to_mallory(&call.verb)));
    // A name with the beginning of a key finds nobody else.
    let finished = scene.alice.verb(format!("handshake carol@{}", &bob[..16]));
    assert_eq!(finished.code, 6, "{}", finished.stderr);
}

#[test]
fn what_is_found_is_judged_like_what_is_pushed() {
    let Some(scene) = Scene::new("found records") else { return };
    // Carol and the rendezvous work together: she signs whatever it shows.
    let carol = scene.rogue.join("carol");
    let (alice, bobs, time) = (scene.alice_key, scene.record_of(&scene.bob_key), now().unix);
    let signed = |change: &dyn Fn(&mut Record)| {
        let mut record = Record { sequence: carol.record.sequence + 1, ..carol.record.clone().into_value() };
        change(&mut record);
        sign_unchecked(&record, &carol.key)
    };
    let attacks = [
        ("expired", signed(&|record| (record.issued, record.fresh_until) = (time - 2 * HOUR, time - HOUR))),
        ("future", signed(&|record| (record.issued, record.fresh_until) = (time + HOUR, time + 2 * HOUR))),
        ("address", signed(&|record| record.ipv4 = bobs.ipv4)),
        ("key_taken", signed(&|record| record.tunnel_keys = bobs.tunnel_keys.clone())),
        ("bad_signature", unsigned(&*carol.record)),
        ("not_asked", bobs.bytes().to_vec()),
    ];
    let attack = scene.attack();
    for (reason, record) in attacks {
        scene.rogue.filter(move |told| match told.asked {
            Some(Verb::Find { .. }) if *told.to == alice => {
                answered(&told.message, Reply::Found { records: vec![record.clone().into()], next: None })
            }
            _ => vec![told.message],
        });
        attack.is_refused("a record that was found", reason, 1, || {
            assert_eq!(scene.alice.ask("find carol")["agents"], Value::from(&[][..] as &[Value]), "{reason}");
        });
        // Nobody of that name can be asked, so nothing is pinned.
        let finished = scene.alice.verb("handshake carol");
        assert_eq!(finished.code, 6, "{reason}: {}", finished.stderr);
        attack.has_changed_nothing(reason);
    }
    attack.was_in_vain();
    scene.rogue.be_honest();
    assert_eq!(scene.alice.ask("handshake carol")["identity"], carol.identity().to_string());
}

#[test]
fn what_is_pushed_of_agents_that_nobody_watches_is_counted_and_dropped() {
    let Some(scene) = Scene::new("not watched") else { return };
    let stranger = secret().public();
    let attack = scene.attack();
    let pushes = [
        Push::Slot { from: stranger, slot: Slot::Word, sealed: vec![1; 100].into() },
        Push::Presence { identity: stranger, is_present: true },
    ];
    for push in pushes {
        attack.is_refused("a push", "not_watched", 1, || scene.rogue.push(&scene.alice_key, push.clone()));
    }
    let long = Push::Slot { from: scene.bob_key, slot: Slot::Word, sealed: vec![1; 1_025].into() };
    attack.is_refused("a long slot", "too_long", 1, || scene.rogue.push(&scene.alice_key, long));
    attack.was_in_vain();
}
