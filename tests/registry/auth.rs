//! The proof of identity that opens a connection, relayed from a different connection or replayed: that of the rendezvous,
//! and that of an agent.

use std::sync::Arc;

use overlay_rendezvous::channel::{Broken, Handshake, Refusal, Server, ServerSide, VERSIONS};
use overlay_wire::signed::{Auth, Role, Signed};

use super::*;
use crate::rogue::{now, random, secret};

/// The longest time until an agent connects again, and a little more.
const RECONNECT: Duration = Duration::from_secs(45);

#[test]
fn a_proof_of_the_rendezvous_that_was_made_for_a_different_connection_is_refused() {
    let Some(scene) = Scene::new("relayed auth") else { return };
    let rogue = &scene.rogue;
    let relayed = rogue.auth_of_a_different_connection();
    let own = rogue.auth_of(&scene.alice_key).expect("alice has connected");
    let (stranger, template) = (secret(), Auth::clone(&relayed));
    let by_stranger = move |hash| {
        let key = stranger.public();
        let auth = Auth { rendezvous: key, identity: key, hash, ..template.clone() };
        Signed::sign(auth, &stranger).expect("a good auth").bytes().to_vec()
    };
    let counted = |reason: &str| refused_by(&scene.alice).get(reason).copied().unwrap_or_default();
    let attack = scene.attack();

    let bytes = relayed.bytes().to_vec();
    rogue.greet_with(move |_| bytes.clone());
    rogue.bounce(&scene.alice_key);
    within(RECONNECT, "the relayed auth", || (counted("relayed") > 0).then_some(()));
    let cause = scene.alice.ask("agents")["rendezvous"].to_string();
    assert!(cause.contains("somebody between us and the rendezvous"), "{cause}");
    // She comes back by herself, and is shown the same once more, then her own auth, and then one with a different key.
    let before = counted("relayed");
    within(RECONNECT, "the replayed auth", || (counted("relayed") > before).then_some(()));
    rogue.greet_with(move |_| own.bytes().to_vec());
    within(RECONNECT, "her own auth", || (counted("wrong_role") > 0).then_some(()));
    rogue.greet_with(by_stranger);
    within(RECONNECT, "a different key", || (counted("wrong_rendezvous") > 0).then_some(()));
    let (shown, said) = rogue.deceived();
    assert!(shown >= 4, "{shown}");
    assert_eq!(said, 0, "alice said something to a server that had proved nothing");
    let reasons: Vec<_> = refused_by(&scene.alice).into_keys().collect();
    assert_eq!(reasons, ["relayed", "wrong_rendezvous", "wrong_role"]);
    rogue.be_honest();
    let arrivals = rogue.arrivals();
    within(RECONNECT, "alice to connect", || (rogue.arrivals() > arrivals).then_some(()));
    attack.was_in_vain();
}

#[test]
fn a_proof_of_an_agent_that_a_rendezvous_has_seen_opens_no_connection_in_its_name() {
    let Some(scene) = Scene::new("replayed auth") else { return };
    let seen = scene.rogue.auth_of(&scene.alice_key).expect("alice has connected");
    assert_eq!(seen.role, Role::Client);
    // A different rendezvous with the same keys, or the same one, to which the auth is relayed or replayed.
    let side = ServerSide {
        network: scene.rogue.url.network,
        key: Arc::clone(&scene.rogue.key),
        now: now().unix,
        versions: VERSIONS,
    };
    let mut server = Server::begin(side, &random()).expect("a handshake");
    let mut noise = Handshake::initiator(&random()).expect("a handshake");
    let answer = server.handle(&noise.write().expect("our turn")).expect("a Noise message").send;
    noise.read(&answer[0]).expect("its answer");
    let (mut sealer, ..) = noise.finish().expect("both messages have passed");
    let failed = server.handle(&sealer.seal(seen.bytes()).expect("a short message")).expect_err("a replay");
    assert_eq!(failed.reason, Broken::Auth(Refusal::Relayed));
}
