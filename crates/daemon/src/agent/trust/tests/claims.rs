//! Agents that claim what belongs to others: a tunnel key must be one peer's alone, or the data plane has no answer to
//! whose it is.

use super::*;

/// Mallory, who claims the tunnel key of this agent.
fn claims_key_of(agent: &Agent) -> Agent {
    let keys = agent.record.tunnel_keys.clone();
    let mut mallory = Agent::new(4);
    mallory.change_record(|record| record.tunnel_keys = keys);
    mallory
}

#[test]
fn a_tunnel_key_that_is_pinned_for_a_peer_is_refused_from_a_different_one() {
    let (alice, mut bob) = friends();
    let mut mallory = claims_key_of(&alice);
    mallory.ask(&bob, &[], &[], START);
    let request = mallory.mail().remove(0);
    assert_eq!(bob.receive(&mallory, &request, START), Err(Refusal::KeyTaken));
}

#[test]
fn our_own_tunnel_key_is_refused_from_a_peer() {
    let mut bob = Agent::new(3);
    let mut mallory = claims_key_of(&bob);
    mallory.ask(&bob, &[], &[], START);
    let request = mallory.mail().remove(0);
    assert_eq!(bob.receive(&mallory, &request, START), Err(Refusal::KeyTaken));
    let record = mallory.record.clone();
    let what = (String::new(), ScopeList::default(), Terms::default());
    let own = bob.record.clone();
    let chance = bob.chance();
    assert_eq!(bob.book.ask(&record, &own, what, START, chance).err(), Some(Impossible::KeyTaken));
    assert_eq!(bob.book.relations().count(), 0, "nothing was kept");
}

#[test]
fn a_key_that_a_peer_took_while_a_request_waited_is_not_approved_for_the_asker() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    let mut mallory = claims_key_of(&alice);
    mallory.ask(&bob, &[], &[], START);
    deliver(&mut mallory, &mut bob, START);
    alice.ask(&bob, &[], &[], START);
    deliver(&mut alice, &mut bob, START);
    bob.approve(&alice, Terms::default(), START).expect("her own key");
    assert_eq!(bob.approve(&mallory, Terms::default(), START).err(), Some(Impossible::KeyTaken));
    let is_trusted = |bob: &Agent, peer: &Agent| bob.book.relation(&peer.book.me()).expect("known").is_open(START);
    assert!(is_trusted(&bob, &alice) && !is_trusted(&bob, &mallory));
    assert_eq!(bob.book.pending(START).count(), 1, "the request is not lost");
}

#[test]
fn a_trusted_peer_cannot_take_the_key_of_a_different_one() {
    let (mut alice, mut bob) = friends();
    let mut carol = Agent::new(5);
    carol.ask(&bob, &[], &[], START);
    deliver(&mut carol, &mut bob, START);
    bob.approve(&carol, Terms::default(), START).expect("asked");
    let before = carol.record.tunnel_keys.clone();
    for taken in [&alice.record.tunnel_keys, &bob.record.tunnel_keys] {
        let taken = taken.clone();
        carol.change_record(|record| record.tunnel_keys = taken);
        assert_eq!(bob.book.on_record(carol.record.clone(), START).err(), Some(Refusal::KeyTaken));
    }
    let pinned = bob.book.relation(&carol.book.me()).and_then(|relation| relation.record.clone()).expect("pinned");
    assert_eq!(pinned.tunnel_keys, before.clone(), "the old one stays");
    // Neither by an approval.
    carol.change_record(|record| record.tunnel_keys = before);
    alice.ask(&carol, &["icmp"], &[], START + 1);
    let request = alice.mail().remove(0);
    let own = carol.record.clone();
    let chance = carol.chance();
    let me = alice.book.me();
    let any = Some(Automatic::Within(scopes(&["any"])));
    let effects = carol.book.on_letter(&me, &request, &own, any, START + 1, chance);
    carol.note(effects.expect("a good request"));
    carol.change_record(|record| record.tunnel_keys = vec![TunnelKey([2; 32])]);
    let Letter::Approval { approval, .. } = carol.mail().remove(0) else { panic!("an approval") };
    let letter = Letter::Approval { approval, record: carol.record.bytes().to_vec().into() };
    assert_eq!(alice.receive(&carol, &letter, START + 1), Err(Refusal::KeyTaken), "it is hers");
}
