//! What agents may cost us that we never answered, and what their letters change.

use super::*;

const MONTH: u64 = 31 * DAY;

/// The key of one of many strangers.
fn stranger(number: usize) -> SecretKey {
    let mut seed = [200; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(&seed)
}

/// A stranger's request to bob.
fn request_of(number: usize, bob: &Agent, now: u64) -> (PublicKey, Letter) {
    let key = stranger(number);
    let mut tunnel_key = TunnelKey(key.public().0);
    tunnel_key.0[31] &= 0x7f;
    let record = Record { identity: key.public(), tunnel_keys: vec![tunnel_key], ..Record::clone(&bob.record) };
    let record = Signed::sign(record, &key).expect("a good record");
    let me = key.public();
    let mut book = Book::new(network(), key, vec![tunnel_key], []);
    let what = (String::new(), ScopeList::default(), Terms::default());
    let chance = Chance { id: [7; 16], share: [7; 32] };
    let effects = book.ask(&bob.record, &record, what, now, chance).expect("possible");
    let letter = effects.into_iter().find_map(|effect| match effect {
        Effect::Send { letter, .. } => Some(letter),
        _ => None,
    });
    (me, letter.expect("a request"))
}

fn receive(bob: &mut Agent, (from, letter): &(PublicKey, Letter), now: u64) -> Result<Vec<Effect>, Refusal> {
    let (chance, own) = (bob.chance(), bob.record.clone());
    bob.book.on_letter(from, letter, &own, None, now, chance)
}

#[test]
fn strangers_are_bounded_and_cost_those_we_know_nothing() {
    let (mut alice, mut bob) = friends();
    for number in 0..MAX_STRANGERS {
        let request = request_of(number, &bob, START);
        receive(&mut bob, &request, START).expect("there is room");
    }
    let one_more = request_of(MAX_STRANGERS, &bob, START);
    assert_eq!(receive(&mut bob, &one_more, START).err(), Some(Refusal::Full));
    // A friend's request is not a stranger's.
    alice.ask(&bob, &["any"], &[], START + 1);
    deliver(&mut alice, &mut bob, START + 1);
    assert_eq!(bob.book.pending(START + 1).count(), MAX_STRANGERS + 1);
    // One that takes its request back is still a stranger, so the number of files is bounded, too.
    let key = stranger(0);
    let (me, subject) = (key.public(), bob.book.me());
    let revoke = Revoke { network: network(), issuer: me, subject, sequence: START + 2, issued: START + 2 };
    let revoke = Signed::sign(revoke, &key).expect("a good revoke").bytes().to_vec().into();
    receive(&mut bob, &(me, Letter::Revoke { revoke }), START + 2).expect("its own word");
    assert_eq!(receive(&mut bob, &one_more, START + 2).err(), Some(Refusal::Full));

    assert_eq!(bob.book.forget(START + 3), []);
    assert_eq!(bob.book.forget(START + MONTH).len(), MAX_STRANGERS);
    assert!(bob.book.relation(&alice.book.me()).is_some_and(|relation| relation.is_open(START + MONTH)));
    let late = request_of(MAX_STRANGERS, &bob, START + MONTH);
    receive(&mut bob, &late, START + MONTH).expect("there is room again");
}

#[test]
fn a_request_that_waits_is_replaced_by_a_newer_one_alone() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["any"], &[], START);
    let older = alice.mail().remove(0);
    alice.ask(&bob, &["tcp/443"], &[], START + 1);
    let newer = alice.mail().remove(0);
    bob.receive(&alice, &newer, START + 1).expect("a request");
    assert_eq!(bob.receive(&alice, &older, START + 1), Err(Refusal::Replayed));
    bob.receive(&alice, &newer, START + 1).expect("the same once more");
    let wanted: Vec<_> = bob.book.pending(START + 1).map(|pending| pending.request.want.clone()).collect();
    assert_eq!(wanted, [scopes(&["tcp/443"])]);
    let me = alice.book.me();
    let effects = receive(&mut bob, &(me, newer), START + 2).expect("the same once more");
    assert!(effects.is_empty(), "nothing is written, and nobody is told twice");
}

#[test]
fn a_refused_request_takes_nothing_from_a_trusted_peer() {
    let (mut alice, mut bob) = friends();
    alice.ask(&bob, &["any"], &[], START + 1);
    deliver(&mut alice, &mut bob, START + 1);
    let effects = bob.book.reject(&alice.book.me(), START + 2).expect("it waits");
    bob.note(effects);
    assert_eq!(bob.book.pending(START + 2).count(), 0);
    assert_eq!(bob.tunnel(START + 2).expect("still trusted").0, ["tcp/8000"]);
    assert!(bob.mail().is_empty());
    assert_eq!(bob.book.reject(&alice.book.me(), START + 3).err(), Some(Impossible::NothingAsked));
}

#[test]
fn a_refused_stranger_is_not_approved_by_the_config_but_one_that_the_config_pins_is() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &[], START);
    deliver(&mut alice, &mut bob, START);
    let effects = bob.book.reject(&alice.book.me(), START + 1).expect("it waits");
    bob.note(effects);
    assert!(
        bob.book.relation(&alice.book.me()).is_some_and(|relation| relation.newest_record().is_some()),
        "a mailbox"
    );
    deliver(&mut bob, &mut alice, START + 1);
    alice.ask(&bob, &["tcp/8000"], &[], START + 2);
    let request = alice.mail().remove(0);
    let within = Automatic::Within(scopes(&["any"]));
    bob.receive_with(&alice, &request, Some(within), START + 2).expect("a request");
    assert_eq!(bob.tunnel(START + 2), None);
    let terms = Terms { allow: Some(scopes(&["icmp"])), expires: None };
    bob.receive_with(&alice, &request, Some(Automatic::Terms(terms)), START + 2).expect("the same request");
    assert_eq!(bob.tunnel(START + 2).expect("the config says so").0, ["icmp"]);
}

#[test]
fn what_the_config_says_now_replaces_what_it_granted_before() {
    let (_, mut bob) = friends();
    let mut alice = Agent::new(2);
    alice.ask(&bob, &["tcp/8000"], &[], START + 1);
    let request = alice.mail().remove(0);
    let terms = Terms { allow: Some(scopes(&["icmp"])), expires: None };
    bob.receive_with(&alice, &request, Some(Automatic::Terms(terms)), START + 1).expect("a request");
    assert_eq!(bob.tunnel(START + 1).expect("open").0, ["icmp"]);
}

#[test]
fn a_late_approval_changes_what_a_trusted_peer_has_and_tells_a_stranger_s_request_expired() {
    let (mut alice, mut bob) = friends();
    let mut mallory = Agent::new(4);
    alice.ask(&bob, &["any"], &[], START + 1);
    deliver(&mut alice, &mut bob, START + 1);
    mallory.ask(&bob, &["any"], &[], START + 1);
    deliver(&mut mallory, &mut bob, START + 1);
    let later = START + MONTH;
    assert_eq!(bob.approve(&mallory, Terms::default(), later).err(), Some(Impossible::Expired));
    let terms = Terms { allow: Some(scopes(&["icmp"])), expires: None };
    bob.approve(&alice, terms, later).expect("she is trusted");
    assert_eq!(bob.tunnel(later).expect("open").0, ["icmp"]);
}

#[test]
fn an_approval_that_cannot_be_signed_keeps_the_request() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &[], START);
    deliver(&mut alice, &mut bob, START);
    let terms = Terms { allow: Some(scopes(&["no right"])), expires: None };
    assert_eq!(bob.approve(&alice, terms, START).err(), Some(Impossible::BadValue));
    assert_eq!(bob.book.pending(START).count(), 1);
}

#[test]
fn no_secret_is_printed() {
    let (_, bob) = friends();
    let key = bob.tunnel(START).expect("open").2;
    let printed = format!("{:?}", bob.book.relations().collect::<Vec<_>>());
    assert!(printed.contains("PresharedKey(redacted)"));
    assert!(!printed.contains(&format!("{key:?}")), "{printed}");
}
