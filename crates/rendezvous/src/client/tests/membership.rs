//! Proof of membership, as the client takes it.

use std::time::Duration;

use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, Signed};

use super::alone::{Alone, refused};
use crate::client::{Event, Output, Task};
use crate::protocol::{Call, Code, Reply, Verb};
use crate::scene::{START, agent, network_secret, rendezvous_secret, secret};

fn good() -> Membership {
    Membership {
        network: network_secret().public(),
        rendezvous: rendezvous_secret().public(),
        identity: agent(1),
        issued: START,
        expires: START + MAX_MEMBERSHIP,
    }
}

fn answer(bytes: &[u8]) -> Reply {
    Reply::Membership { membership: bytes.to_vec().into() }
}

/// Asks, and returns the id of the call.
fn ask(alone: &mut Alone) -> u32 {
    alone.client.ask_membership(rendezvous_secret().public(), alone.now);
    let calls = alone.calls();
    let [Call { id, verb: Verb::Membership }] = calls[..] else { panic!("{calls:?}") };
    id
}

#[test]
fn a_good_one_is_told() {
    let mut alone = Alone::welcomed();
    let id = ask(&mut alone);
    let signed = Signed::sign(good(), &rendezvous_secret()).expect("a good one");
    alone.answer(id, answer(signed.bytes()));
    assert_eq!(alone.events(), [Event::Membership(Box::new(signed))]);
    assert_eq!(alone.client.distrusted(), 0);
}

#[test]
fn one_of_somebody_else_or_about_somebody_else_is_refused() {
    let mut alone = Alone::welcomed();
    let other = secret(7);
    let lies = [
        Signed::sign(Membership { identity: agent(2), ..good() }, &rendezvous_secret()).expect("signed"),
        Signed::sign(Membership { network: agent(2), ..good() }, &rendezvous_secret()).expect("signed"),
        Signed::sign(Membership { rendezvous: other.public(), ..good() }, &other).expect("signed"),
    ];
    let lies = lies.iter().map(|lie| lie.bytes().to_vec()).chain([Vec::new(), vec![0x83, 1]]);
    let mut count = 0;
    for lie in lies {
        let id = ask(&mut alone);
        alone.answer(id, answer(&lie));
        assert_eq!(alone.events(), [Event::Refused { subject: Task::Membership, code: Code::Malformed }]);
        count += 1;
        assert_eq!(alone.client.distrusted(), count);
    }
}

#[test]
fn it_is_asked_again_after_a_lost_connection_once_registered() {
    let mut alone = Alone::welcomed();
    let id = ask(&mut alone);
    alone.answer(id, refused(Code::Later));
    alone.client.lost(alone.now);
    assert_eq!(alone.outputs(), [Output::Event(Event::Offline)]);
    alone.now.monotonic += Duration::from_secs(60);
    alone.connect();
    alone.welcome();
    let calls = alone.calls();
    let [Call { id, verb: Verb::Register { .. } }] = calls[..] else { panic!("registering comes first: {calls:?}") };
    alone.answer(id, Reply::Done);
    let is_asked = |output: &Output| matches!(output, Output::Send(Call { verb: Verb::Membership, .. }));
    assert!(alone.outputs().iter().any(is_asked));
}

/// The release before this one would close the connection because of a verb that it does not know.
#[test]
fn a_rendezvous_of_the_release_before_is_never_asked() {
    let mut alone = Alone::welcomed();
    alone.client.lost(alone.now);
    alone.outputs();
    alone.now.monotonic += Duration::from_secs(60);
    alone.connect_in(1);
    alone.welcome();
    let calls = alone.calls();
    alone.answer(calls[0].id, Reply::Done);
    alone.events();
    alone.client.ask_membership(rendezvous_secret().public(), alone.now);
    assert_eq!(alone.outputs(), []);
    assert!(alone.client.deadline() > alone.now.monotonic, "and it is not waited for");
}
