//! What an agent keeps for itself, at a rendezvous that withholds it, changes it or does not know of it.

use overlay_rendezvous::protocol::{Code, Entry, FromServer, Reply, Verb};

use super::*;
use crate::lab::state_folder::StateFolder;
use crate::rogue::{Told, answered};

/// By when a peer that asks again has a tunnel.
const HEALED: Duration = Duration::from_secs(10);
/// How long a rendezvous is given to do harm.
const A_WHILE: Duration = Duration::from_secs(4);

/// What the answer to a question for entries becomes, for one agent.
fn entries_become(told: Told<'_>, agent: PublicKey, change: impl FnOnce(Vec<Entry>) -> Vec<Entry>) -> Vec<FromServer> {
    match (&told.message, told.asked) {
        (FromServer::Answer(answer), Some(Verb::Entries { .. })) if *told.to == agent => {
            let Reply::Entries { entries, next } = answer.reply.clone() else { return vec![told.message] };
            answered(&told.message, Reply::Entries { entries: change(entries), next })
        }
        _ => vec![told.message],
    }
}

/// A state of alice in which she trusts bob, and alice after she has taken that back.
#[track_caller]
fn untrusted(scene: &Scene) -> StateFolder {
    let yesterday = StateFolder::copy(&scene.alice, &scene.alice.host.dir().join("yesterday"));
    let count = |scene: &Scene| scene.rogue.calls(&scene.alice_key).iter().filter(|call| is_put(&call.verb)).count();
    let before = (count(scene), scene.rogue.records(&scene.alice_key).len());
    scene.alice.ask("untrust bob");
    let is_done = |is_it: &dyn Fn(&Verb) -> bool| {
        let calls = scene.rogue.calls(&scene.alice_key);
        let last = calls.iter().rev().find(|call| is_it(&call.verb)).map(|call| call.id);
        let is_answer = |told: FromServer| match told {
            FromServer::Answer(answer) => Some(answer.id) == last && answer.reply == Reply::Done,
            FromServer::Push(_) => false,
        };
        scene.rogue.told(&scene.alice_key).into_iter().any(is_answer)
    };
    within(SHORTLY, "the revoke to be kept, and a new record with it", || {
        let is_new = count(scene) > before.0 && scene.rogue.records(&scene.alice_key).len() > before.1;
        (is_new && is_done(&is_put) && is_done(&|verb| matches!(verb, Verb::Register { .. }))).then_some(())
    });
    yesterday
}

fn is_put(verb: &Verb) -> bool {
    matches!(verb, Verb::PutEntry { .. })
}

/// Restores that state, and waits until the rendezvous has taken alice's new record.
#[track_caller]
fn restore(scene: &mut Scene, state: &StateFolder) {
    scene.alice.kill9();
    scene.alice.restore(state);
    scene.alice.start();
    within(SHORTLY, "alice to be connected", || (scene.alice.ask("agents")["rendezvous"] == "connected").then_some(()));
}

#[track_caller]
fn pings(scene: &Scene) -> bool {
    let ping = |from: &Agent, to: &Agent| from.host.run(format!("ping -n -q -c 1 -W 1 {}", to.v4())).code == 0;
    ping(&scene.alice, &scene.bob) || ping(&scene.bob, &scene.alice)
}

/// Alice is held, says so, and opens nothing until a person says that her state counts.
#[track_caller]
fn is_held_until_a_person_confirms(scene: &Scene, why: &str) {
    let held = within(SHORTLY, "alice to say why", || {
        scene.alice.ask("agents")["held"].as_str().filter(|held| held.contains(why)).map(str::to_owned)
    });
    eprintln!("held: {held}");
    std::thread::sleep(A_WHILE);
    assert_eq!(scene.alice.peer("bob")["state"], "held");
    assert!(!pings(scene), "a restored grant was open");
    let warnings = scene.alice.daemon().status()["warnings"].to_string();
    assert!(warnings.contains("overlay trust confirm"), "{warnings}");
    let refused = scene.alice.verb("approve bob --allow any");
    assert_eq!(refused.code, 7, "{}", refused.stderr);
    assert!(refused.stderr.contains("overlay trust confirm"), "{}", refused.stderr);
    let explained: Value =
        serde_json::from_str(&scene.alice.verb("explain bob alice icmp --json").stdout).expect("JSON");
    assert_eq!((&explained["verdict"], &explained["reason"]), (&"refused".into(), &"held".into()));
    assert_eq!(scene.alice.ask("trust confirm")["peers"][0], "bob");
    assert_eq!(scene.alice.ask("agents")["held"], Value::Null);
    assert_eq!(scene.alice.peer("bob")["state"], "trusted");
    assert_eq!(scene.alice.verb("trust confirm").code, 9, "once");
}

#[test]
fn a_ledger_that_is_withheld_opens_nothing() {
    let Some(mut scene) = Scene::new("withheld") else { return };
    let yesterday = untrusted(&scene);
    let alice = scene.alice_key;
    scene.rogue.filter(move |told| entries_become(told, alice, |_| Vec::new()));
    restore(&mut scene, &yesterday);
    is_held_until_a_person_confirms(&scene, "has all that was said since");
}

#[test]
fn a_ledger_that_is_never_shown_opens_nothing_and_silences_nobody_who_is_up_to_date() {
    let Some(mut scene) = Scene::new("never shown") else { return };
    let alice = scene.alice_key;
    let swallow = move |told: Told<'_>| match told.asked {
        Some(Verb::Entries { .. }) if *told.to == alice => Vec::new(),
        _ => vec![told.message],
    };
    scene.rogue.filter(swallow);
    // She is up to date: her tunnel is there at once, and her letters go out after a while.
    scene.alice.kill9();
    scene.alice.start();
    scene.alice.host.reaches(&scene.bob.v4());
    scene.alice.ask("approve bob --allow icmp --allow tcp/8000");
    within(SHORTLY, "bob to hear of it", || (scene.bob.peer("alice")["opens"][1] == "tcp/8000").then_some(()));
    let refuse = move |told: Told<'_>| match told.asked {
        Some(Verb::Entries { .. }) if *told.to == alice => {
            answered(&told.message, Reply::Refused { code: Code::NotAMember, ipv4: None, record: None, wait: None })
        }
        _ => vec![told.message],
    };
    scene.rogue.be_honest();
    let yesterday = untrusted(&scene);
    scene.rogue.filter(refuse);
    restore(&mut scene, &yesterday);
    is_held_until_a_person_confirms(&scene, "has all that was said since");
}

#[test]
fn entries_that_are_not_ours_bring_nothing_back_and_take_nothing_away() {
    let Some(mut scene) = Scene::new("foreign entries") else { return };
    let (alice, bob) = (scene.alice_key, scene.bob_key);
    let entries_of = |scene: &Scene, agent: &PublicKey| {
        let put = |call: overlay_rendezvous::protocol::Call| match call.verb {
            Verb::PutEntry { label, sealed } => Some(Entry { label, sealed }),
            _ => None,
        };
        scene.rogue.calls(agent).into_iter().filter_map(put).collect::<Vec<_>>()
    };
    let (granted, of_bob) = (entries_of(&scene, &alice), entries_of(&scene, &bob));
    assert!(!granted.is_empty() && !of_bob.is_empty());
    let yesterday = untrusted(&scene);
    let revoked = entries_of(&scene, &alice).pop().expect("the revoke");
    assert_eq!(granted[0].label, revoked.label, "one entry for one peer");

    // To an agent that has the revoke, an older entry says nothing.
    let older = granted.last().expect("a grant").clone();
    let shown = older.clone();
    scene.rogue.filter(move |told| entries_become(told, alice, |_| vec![shown.clone()]));
    scene.alice.kill9();
    scene.alice.start();
    settled(&scene.alice);
    assert_eq!(scene.alice.peer("bob")["state"], "untrusted");
    // A restored one opens nothing because of entries of somebody else, or damaged ones.
    let damaged = Entry { label: revoked.label, sealed: vec![1; 200].into() };
    let swapped = Entry { label: [0xff; 16], sealed: revoked.sealed.clone() };
    for lie in [vec![of_bob[0].clone()], vec![damaged], vec![older, swapped]] {
        scene.rogue.filter(move |told| entries_become(told, alice, |_| lie.clone()));
        restore(&mut scene, &yesterday);
        within(SHORTLY, "alice to be held", || {
            scene.alice.ask("agents")["held"]
                .as_str()
                .is_some_and(|held| held.contains("has all that was said since"))
                .then_some(())
        });
        assert!(!pings(&scene), "a restored grant was open");
        // What she has learned is on disk, so nothing is lost when the rendezvous tells the truth.
        scene.rogue.be_honest();
        scene.alice.kill9();
        scene.alice.start();
        scene.alice.sees("bob", "untrusted");
        assert_eq!(scene.alice.ask("agents")["held"], Value::Null);
    }
}

/// The release before this one spoke version 1, and ended the connection for a verb that it did not know.
#[test]
fn a_rendezvous_of_the_release_before_keeps_no_ledger() {
    let Some(mut scene) = Scene::speaking("former rendezvous", &[1]) else { return };
    let yesterday = StateFolder::copy(&scene.alice, &scene.alice.host.dir().join("yesterday"));
    let before = scene.rogue.records(&scene.alice_key).len();
    scene.alice.ask("untrust bob");
    scene.bob.sees("alice", "untrusted");
    within(SHORTLY, "a new record", || (scene.rogue.records(&scene.alice_key).len() > before).then_some(()));
    settled(&scene.alice);
    restore(&mut scene, &yesterday);
    let held = scene.alice.ask("agents")["held"].clone();
    assert!(held.as_str().is_some_and(|held| held.contains("does not say")), "{held}");
    scene.alice.kill9();
    scene.alice.start();
    is_held_until_a_person_confirms(&scene, "does not say");
    for agent in [scene.alice_key, scene.bob_key] {
        let calls = scene.rogue.calls(&agent);
        assert!(
            !calls.iter().any(|call| matches!(call.verb, Verb::Entries { .. } | Verb::PutEntry { .. })),
            "{calls:?}"
        );
    }
}

/// Without a ledger a person has to ask again. His peer says what his highest word was. A clock that is further behind meets no
/// strangers, and alice is one.
#[test]
fn a_peer_that_lost_its_state_and_has_a_slower_clock_heals_without_a_ledger_when_a_person_asks() {
    let Some(mut scene) = Scene::speaking("low sequence", &[1]) else { return };
    for (what, verb) in
        [("asks", "handshake alice --want icmp --allow icmp"), ("asks again", "handshake alice --allow any")]
    {
        scene.bob.kill9();
        scene.bob.lose_trust();
        if !scene.bob.start_at("-5m") {
            return;
        }
        scene.bob.is_registered("bob");
        scene.bob.ask(verb);
        let met = std::time::Instant::now();
        scene.bob.sees_within(HEALED, "alice", "trusted");
        scene.bob.host.reaches_within(HEALED.saturating_sub(met.elapsed()), &scene.alice.v4());
        scene.alice.host.reaches_within(HEALED.saturating_sub(met.elapsed()), &scene.bob.v4());
        eprintln!("bob, whose clock is behind, {what}: healed after {:.2?}", met.elapsed());
        assert_eq!(scene.alice.ask("pending")["requests"], Value::from(Vec::<Value>::new()), "nobody is asked");
        assert!(refused_by(&scene.alice)["replayed"] > 0, "his first request was too low");
    }
    // What he takes back counts, too, although his clock is behind.
    scene.bob.ask("untrust alice");
    scene.alice.sees_within(HEALED, "bob", "untrusted");
}
