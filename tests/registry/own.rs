//! What a rendezvous says of an agent's own record.

use overlay_rendezvous::protocol::{Code, FromServer, Reply, Verb};
use overlay_wire::signed::{Network, Pool, Record};

use super::*;
use crate::rogue::signing::sign_unchecked;
use crate::rogue::{Told, answered, secret};

/// The answer to `hello` with a different record, or none.
pub(crate) fn welcome_with(told: &Told<'_>, own: Option<&[u8]>) -> Vec<FromServer> {
    let FromServer::Answer(answer) = &told.message else { return Vec::new() };
    let Reply::Welcome { network, epoch, seen_from, .. } = answer.reply.clone() else { return Vec::new() };
    let record = own.map(|own| own.to_vec().into());
    answered(&told.message, Reply::Welcome { network, record, epoch, seen_from, relay: None })
}

/// Makes alice connect again, and waits until she has registered again, because the rendezvous shows her no record of hers.
#[track_caller]
pub(crate) fn registers_again(scene: &Scene) {
    let before = scene.rogue.records(&scene.alice_key).len();
    scene.rogue.bounce(&scene.alice_key);
    within(SHORTLY, "alice to register", || (scene.rogue.records(&scene.alice_key).len() > before).then_some(()));
}

#[test]
fn a_network_object_that_is_older_or_forked_is_not_believed() {
    let Some(scene) = Scene::new("network object") else { return };
    let (alice, known) = (scene.alice_key, &scene.rogue.network);
    let pool = Pool::new([10, 98, 0, 0].into(), 16).expect("a pool");
    let changed = |sequence| Network { sequence, pool, ..known.clone().into_value() };
    let newest = Signed::sign(changed(known.sequence + 1), &scene.rogue.network_key).expect("a good network");
    let attack = scene.attack();
    for (what, reason, sequence) in
        [("an older one", "rolled_back", known.sequence - 1), ("a fork", "forked", known.sequence)]
    {
        let network = Signed::sign(changed(sequence), &scene.rogue.network_key).expect("a good network");
        scene.rogue.filter(move |told| welcome_to(&told, &alice, network.bytes()));
        attack.is_refused(what, reason, 1, || connects_again(&scene));
    }
    attack.was_in_vain();
    // The newest one arrives, and its pool with it.
    scene.rogue.filter(move |told| welcome_to(&told, &alice, newest.bytes()));
    let before = files_of(&scene.alice);
    connects_again(&scene);
    within(SHORTLY, "the newest network", || (files_of(&scene.alice) != before).then_some(()));
}

/// What an agent is told, with a different network object in the answer to its `hello`.
fn welcome_to(told: &Told<'_>, agent: &PublicKey, network: &[u8]) -> Vec<FromServer> {
    match (&told.message, told.asked) {
        (FromServer::Answer(answer), Some(Verb::Hello)) if told.to == agent => {
            let Reply::Welcome { record, epoch, seen_from, .. } = answer.reply.clone() else { return Vec::new() };
            let network = network.to_vec().into();
            answered(&told.message, Reply::Welcome { network, record, epoch, seen_from, relay: None })
        }
        _ => vec![told.message.clone()],
    }
}

/// Makes alice connect again, and waits until she does.
#[track_caller]
pub(crate) fn connects_again(scene: &Scene) {
    let arrivals = scene.rogue.arrivals();
    scene.rogue.bounce(&scene.alice_key);
    within(SHORTLY, "alice to connect", || (scene.rogue.arrivals() > arrivals).then_some(()));
}

#[test]
fn a_record_of_ours_that_we_did_not_sign_is_not_believed() {
    let Some(scene) = Scene::new("own record") else { return };
    let (alice, stranger) = (scene.alice_key, secret());
    let own = scene.record_of(&alice);
    let newer = Record { sequence: own.sequence + 1_000_000, name: "alicia".to_owned(), ..own.clone().into_value() };
    let forged = sign_unchecked(&newer, &stranger);
    let foreign = sign_unchecked(&Record { identity: stranger.public(), ..newer }, &stranger);
    let attack = scene.attack();

    // In the answer to hello. Alice registers her own one then.
    for (record, reason) in [(&forged, "bad_signature"), (&foreign, "not_ours")] {
        let record = record.clone();
        scene.rogue.filter(move |told| match told.asked {
            Some(Verb::Hello) if *told.to == alice => welcome_with(&told, Some(&record)),
            _ => vec![told.message],
        });
        attack.is_refused("a welcome", reason, 1, || registers_again(&scene));
    }
    // As a change of an agent that alice watches, which she herself is not.
    attack.is_refused("a forged push", "bad_signature", 1, || scene.rogue.show(&alice, &forged[..]));
    attack.is_refused("her own record", "not_watched", 1, || scene.rogue.show(&alice, own.bytes()));
    // As the newer record that makes hers too old.
    for (record, reason) in [(forged, "bad_signature"), (foreign, "not_ours")] {
        scene.rogue.filter(move |told| match told.asked {
            Some(Verb::Hello) if *told.to == alice => welcome_with(&told, None),
            Some(Verb::Register { .. }) if *told.to == alice => {
                let record = Some(record.clone().into());
                answered(&told.message, Reply::Refused { code: Code::TooOld, ipv4: None, record, wait: None })
            }
            _ => vec![told.message],
        });
        attack.is_refused("too old", reason, 1, || registers_again(&scene));
    }
    let last = scene.record_of(&alice);
    assert_eq!(last.bytes(), own.bytes(), "alice has signed a record because of it: {last:?}");
    attack.was_in_vain();
}

#[test]
fn a_lie_about_a_clone_silences_nobody() {
    let Some(scene) = Scene::new("clone") else { return };
    let (alice, stranger) = (scene.alice_key, secret());
    let own = scene.record_of(&alice);
    let with = |sequence| Record { sequence, ..own.clone().into_value() };
    let key = crate::rogue::signing::identity_of(&scene.alice.host);
    let is_stopped = || scene.alice.ask("agents")["rendezvous"].as_str().is_some_and(|it| it.starts_with("key_clone"));
    let shows = |record: Vec<u8>| {
        scene.rogue.filter(move |told| match told.asked {
            Some(Verb::Hello) if *told.to == alice => welcome_with(&told, Some(&record)),
            _ => vec![told.message],
        });
        connects_again(&scene);
    };
    let attack = scene.attack();
    let newer = own.sequence + 1_000;
    for lie in [
        sign_unchecked(&with(own.sequence - 1), &key),
        own.bytes().to_vec(),
        sign_unchecked(&with(newer), &stranger),
        sign_unchecked(&Record { identity: stranger.public(), ..with(newer) }, &stranger),
    ] {
        shows(lie);
        settled(&scene.alice);
        assert!(!is_stopped());
    }
    attack.was_in_vain();
    // Only what alice's key has signed is believed.
    shows(sign_unchecked(&with(newer), &key));
    within(SHORTLY, "alice to stop", || is_stopped().then_some(()));
    let ping = format!("ping -n -q -c 1 -W 1 {}", scene.bob.v4());
    assert_ne!(scene.alice.host.run(ping).code, 0);
}
