//! Words that come back after a state was restored or lost, or that are refused because a clock is slower.

use overlay_rendezvous::ledger::OwnWord;

use super::*;

/// What an agent keeps of its latest word to another.
fn kept(of: &Agent, peer: &Agent) -> OwnWord {
    of.book.own_word(&peer.book.me()).expect("a word")
}

/// An agent as it was before it knew anybody, with a record that it makes at this time.
fn emptied(agent: &Agent) -> Agent {
    let mut empty = Agent::new(agent.byte);
    empty.record = agent.record.clone();
    empty.chance = agent.chance;
    empty
}

/// The book of an agent as its disk holds it now.
fn saved(agent: &Agent) -> Vec<Relation> {
    agent.book.relations().cloned().collect()
}

fn restored(agent: &Agent, relations: Vec<Relation>) -> Agent {
    let mut old = emptied(agent);
    let key = SecretKey::from_bytes(&[agent.byte; 32]);
    old.book = Book::new(network(), key, agent.record.tunnel_keys.clone(), relations);
    old
}

/// `to` refuses letters of `from` as replays, and returns the word that it has.
fn refuses(to: &mut Agent, from: &mut Agent, now: u64) -> Letter {
    let mut returned = None;
    for letter in from.mail() {
        assert_eq!(to.receive(from, &letter, now), Err(Refusal::Replayed));
        returned = returned.or(to.book.to_return(&from.book.me(), &letter));
    }
    returned.expect("the highest word")
}

#[test]
fn a_revoke_that_is_newer_than_the_state_counts_and_an_older_word_does_not() {
    let (alice, mut bob) = friends();
    let before = saved(&bob);
    let granted = kept(&bob, &alice);
    bob.untrust(&alice, START + DAY);
    let revoked = kept(&bob, &alice);

    let mut old = restored(&bob, before);
    assert!(old.tunnel(START + DAY).is_some());
    assert_eq!(old.book.learn(granted.clone()).len(), 0, "it is known");
    assert_eq!(old.book.learn(revoked).len(), 1);
    assert_eq!(old.tunnel(START + DAY), None);
    assert_eq!(old.book.learn(granted).len(), 0, "an older word says nothing");
    assert_eq!(kept(&old, &alice), kept(&bob, &alice));
    // Neither an earlier letter of alice nor the config brings it back. Both may be as old as the state.
    let mut asks = restored(&alice, saved(&alice));
    asks.ask(&old, &["tcp/8000"], &[], START + 2 * DAY);
    let request = asks.mail().remove(0);
    let terms = Automatic::Terms(Terms { allow: Some(scopes(&["any"])), expires: None });
    old.receive_with(&asks, &request, Some(terms.clone()), START + 2 * DAY).expect("a request");
    assert_eq!((old.tunnel(START + 2 * DAY), old.book.pending(START + 2 * DAY).count()), (None, 1));
    assert_eq!(old.book.lift_withdrawal(&alice.book.me()).len(), 1, "a person reads the config again");
    old.receive_with(&asks, &request, Some(terms), START + 2 * DAY).expect("a request");
    assert!(old.tunnel(START + 2 * DAY).is_some());
}

#[test]
fn a_grant_that_is_newer_than_the_state_makes_a_tunnel_again_without_a_person() {
    let (mut alice, bob) = friends();
    let now = START + DAY;
    let word = kept(&bob, &alice);
    let mut lost = emptied(&bob);
    assert_eq!(lost.book.learn(word).len(), 1);
    assert_eq!(lost.book.behind(), [alice.book.me()]);
    // Her record has to be seen first, whatever the clock says.
    let nobody = Chance { id: [9; 16], share: [9; 32] };
    assert_eq!(lost.book.ask_again(&alice.book.me(), &bob.record, now.into(), nobody).len(), 0);
    lost.book.on_record(alice.record.clone(), START - DAY).expect("she was trusted");
    let chance = lost.chance();
    let own = lost.record.clone();
    let effects = lost.book.ask_again(&alice.book.me(), &own, now.into(), chance);
    lost.note(effects);
    assert!(lost.book.behind().is_empty());
    deliver(&mut lost, &mut alice, now);
    assert_eq!(alice.book.pending(now).count(), 0, "she answers by herself");
    // Her answer is from the future for a slow clock, and answers this very request.
    deliver(&mut alice, &mut lost, START - DAY);
    let (alices, losts) = (alice.tunnel(now).expect("open"), lost.tunnel(now).expect("open"));
    assert_eq!((&alices.0, &alices.1, alices.2), (&losts.1, &losts.0, losts.2));
    assert_eq!((losts.0, losts.1), (vec!["tcp/8000".to_owned()], Vec::new()), "what both had granted");
}

#[test]
fn a_request_whose_sequence_is_too_low_is_signed_anew_above_the_one_that_is_returned() {
    let (mut alice, bob) = friends();
    let slow = START - DAY;
    let mut lost = emptied(&bob);
    lost.ask(&alice, &[], &["tcp/8000"], slow);
    lost.book.note_decided(alice.book.me());
    let returned = refuses(&mut alice, &mut lost, START);
    lost.receive(&alice, &returned, slow).expect("our own word");
    deliver(&mut lost, &mut alice, START);
    deliver(&mut alice, &mut lost, slow);
    assert_eq!(alice.tunnel(START).expect("open").2, lost.tunnel(slow).expect("open").2);
    // The same word once more says nothing, and is not returned in turn.
    assert_eq!(lost.receive(&alice, &returned, slow), Err(Refusal::Unasked));
    assert_eq!(lost.book.to_return(&alice.book.me(), &returned), None);
}

#[test]
fn a_revoke_whose_sequence_is_too_low_is_signed_anew() {
    let (mut alice, mut bob) = friends();
    let before = saved(&bob);
    let later = Terms { allow: Some(scopes(&["any"])), expires: None };
    bob.approve(&alice, later, START + DAY).expect("she is trusted");
    deliver(&mut bob, &mut alice, START + DAY);
    // His state is the one from before, and his clock is behind.
    let mut old = restored(&bob, before);
    old.untrust(&alice, START + 1);
    let returned = refuses(&mut alice, &mut old, START + DAY);
    old.receive(&alice, &returned, START + 1).expect("our own word");
    deliver(&mut old, &mut alice, START + DAY);
    assert_eq!((old.tunnel(START + DAY), alice.tunnel(START + DAY)), (None, None));
}

#[test]
fn a_peer_that_returns_a_word_can_narrow_and_end_a_restored_grant_and_not_widen_it() {
    let narrow = Terms { allow: Some(scopes(&["icmp"])), expires: None };
    let wide = Terms { allow: Some(scopes(&["any"])), expires: None };
    let both = Terms { allow: Some(scopes(&["icmp", "tcp/8000"])), expires: None };
    for (since, expected) in [(&narrow, &["icmp"][..]), (&wide, &["icmp", "tcp/8000"])] {
        let (mut alice, mut bob) = friends();
        bob.approve(&alice, both.clone(), START + 1).expect("she is trusted");
        deliver(&mut bob, &mut alice, START + 1);
        let before = saved(&bob);
        bob.approve(&alice, since.clone(), START + DAY).expect("she is trusted");
        deliver(&mut bob, &mut alice, START + DAY);
        let mut old = restored(&bob, before);
        let repeated = old.book.repeat(&bob.record, Moment::from(START + 2));
        old.note(repeated);
        let returned = refuses(&mut alice, &mut old, START + DAY);
        old.receive(&alice, &returned, START + DAY).expect("our own word");
        assert_eq!(old.tunnel(START + DAY).expect("open").0, expected);
        deliver(&mut old, &mut alice, START + DAY);
        deliver(&mut alice, &mut old, START + DAY);
        let (alices, olds) = (alice.tunnel(START + DAY).expect("open"), old.tunnel(START + DAY).expect("open"));
        assert_eq!((&alices.1[..], &olds.0[..]), (&olds.0[..], &alices.1[..]), "both know the same");
        assert_eq!(alices.2, olds.2);
    }

    let (mut alice, mut bob) = friends();
    let before = saved(&bob);
    bob.untrust(&alice, START + DAY);
    deliver(&mut bob, &mut alice, START + DAY);
    for is_decided in [false, true] {
        let mut old = restored(&bob, before.clone());
        let repeated = old.book.repeat(&bob.record, Moment::from(START + 2));
        old.note(repeated);
        if is_decided {
            old.book.note_decided(alice.book.me());
        }
        let returned = refuses(&mut alice, &mut old, START + DAY);
        old.receive(&alice, &returned, START + DAY).expect("our own word");
        assert_eq!(
            old.tunnel(START + DAY).is_some(),
            is_decided,
            "a person's decision is newer than what a peer returns"
        );
    }
}

#[test]
fn a_word_that_is_not_ours_or_not_for_this_peer_is_not_returned() {
    let (mut alice, bob) = friends();
    let mut carol = Agent::new(4);
    carol.ask(&alice, &[], &[], START);
    deliver(&mut carol, &mut alice, START);
    let of_bob = kept(&bob, &alice).letter();
    assert_eq!(alice.receive(&carol, &of_bob, START), Err(Refusal::NotOurs), "bob's word to alice, from carol");
    let of_alice = Letter::Grant { grant: kept(&alice, &bob).letter().write().to_vec().into() };
    assert_eq!(alice.receive(&bob, &of_alice, START), Err(Refusal::Malformed));
    let to_bob = kept(&alice, &bob).letter();
    assert_eq!(alice.receive(&carol, &to_bob, START), Err(Refusal::NotOurs), "alice's word to bob, from carol");
    assert_eq!(alice.receive(&bob, &to_bob, START), Err(Refusal::Unasked), "it is known");
}
