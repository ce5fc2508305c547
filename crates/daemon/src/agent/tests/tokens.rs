//! Join tokens: in this agent's record, and as a reason to approve others.

use super::*;

#[tokio::test]
async fn the_record_shows_the_token_from_the_next_start_on() {
    let home = Home::new().await;
    let bob = home.open();
    assert_eq!(bob.record.attestation, None);
    bob.state.set_record(&bob.record).expect("written, as if it was registered");
    let before = bob.record.sequence;
    let attestation = token::sample::token(|_| {}).attest(&bob.book.me(), [1; 16]).expect("a good key");
    bob.state.set_attestation(&attestation).expect("written");
    drop(bob);
    let bob = home.open();
    assert_eq!(bob.record.attestation.as_ref(), Some(&attestation));
    assert!(bob.record.sequence > before, "it is signed anew");
    assert_eq!(bob.record.attested_tags(), ["ops"]);
    let is_current = |attestation| own::is_current(&bob.record, &bob.config, &bob.keys, attestation, unix_now());
    assert!(is_current(Some(&attestation)) && !is_current(None));
}

#[tokio::test]
async fn a_token_for_a_different_name_is_left_out_of_the_record() {
    let home = Home::new().await;
    let bob = home.open();
    let token = token::sample::token(|token| token.name = Some("carol".to_owned()));
    bob.state.set_attestation(&token.attest(&bob.book.me(), [1; 16]).expect("a good key")).expect("written");
    drop(bob);
    assert_eq!(home.open().record.attestation, None);
}

#[tokio::test]
async fn a_running_agent_takes_a_token_that_is_bound_to_it() {
    let home = Home::new().await;
    let mut bob = home.open();
    let join = |token: &JoinToken, identity: PublicKey| {
        AgentRequest::Join(join::bind(token, &identity.to_string()).expect("a good key"))
    };
    let me = bob.book.me();
    let refused = |bob: &mut Agent, request| ask(bob, request).expect("at once").expect_err("refused").code;
    let other = Peer::new(2, "alice", &bob).me();
    let good = token::sample::token(|_| {});
    assert_eq!(refused(&mut bob, join(&good, other)), ExitKind::Refused, "bound to a different agent");
    let expired = token::sample::token(|token| token.expires = token.issued + 1);
    assert_eq!(refused(&mut bob, join(&expired, me)), ExitKind::Usage);
    assert_eq!(refused(&mut bob, AgentRequest::Join(Default::default())), ExitKind::Refused, "nothing");
    assert_eq!(bob.record.attestation, None);

    let before = bob.record.sequence;
    let answer = ask(&mut bob, join(&good, me)).expect("at once").expect("taken");
    assert_eq!(answer, AgentReply::Joined(request::Joined { tags: vec!["ops".to_owned()] }));
    assert!(bob.record.sequence > before && bob.record.attested_tags() == ["ops"]);
    drop(bob);
    assert_eq!(home.open().record.attested_tags(), ["ops"], "it is on disk");
}

/// An agent whose network vouches for these tags.
fn attested(byte: u8, name: &str, of: &Agent, tags: &[&str]) -> Peer {
    let token = token::sample::token(|token| token.tags = tags.iter().map(|&tag| tag.to_owned()).collect());
    let mut peer = Peer::new(byte, name, of);
    peer.change(|record, me| record.attestation = Some(token.attest(&me, [1; 16]).expect("a good key")));
    peer
}

/// An agent that is registered and approves the tag `ops`, without a connection.
async fn approving_ops() -> (Home, Agent) {
    let mut home = Home::new().await;
    home.config.auto_approve = vec![Approved::Tag("ops".to_owned())];
    home.config.allow = ScopeList(vec!["tcp/22".to_owned()]);
    let mut bob = home.open();
    bob.meetings.assume_registered();
    (home, bob)
}

/// Answers the only question to the rendezvous. Returns whether there was one.
fn shows(bob: &mut Agent, record: Option<&Signed<Record>>) -> bool {
    let Some(query) = bob.queries.keys().next().copied() else { return false };
    bob.on_found(query, record.cloned().into_iter().collect(), None);
    bob.settle(NOTHING);
    true
}

#[tokio::test]
async fn an_attested_tag_approves_within_what_the_config_allows() {
    let (_home, mut bob) = approving_ops().await;
    let mut alice = attested(2, "alice", &bob, &["eu", "ops"]);
    alice.wants(&mut bob, &["tcp/22", "tcp/443"]);
    assert!(!is_open(&bob, &alice), "the rendezvous is asked first");
    let record = alice.record.clone();
    assert!(shows(&mut bob, Some(&record)) && is_open(&bob, &alice));
    let grant = bob.book.relation(&alice.me()).and_then(|it| it.mine.as_ref()?.grant()).expect("granted");
    assert_eq!(grant.allow.0, ["tcp/22"]);
    assert_eq!(bob.log.last(&alice.me()).and_then(|decision| decision.rule).as_deref(), Some("auto_approve"));

    // What a person has taken back is not given again.
    decide(&mut bob, untrust(alice.me())).expect("she is trusted");
    alice.wants(&mut bob, &["tcp/22"]);
    assert!(!shows(&mut bob, Some(&record)) && !is_open(&bob, &alice));
    assert_eq!(bob.book.pending(unix_now()).count(), 1);
}

#[tokio::test]
async fn an_approval_by_tag_that_a_person_has_overtaken_changes_nothing() {
    let (_home, mut bob) = approving_ops().await;
    let mut alice = attested(2, "alice", &bob, &["ops"]);
    alice.wants(&mut bob, &["tcp/22"]);
    decide(&mut bob, untrust(alice.me())).expect("refused meanwhile");
    let record = alice.record.clone();
    assert!(shows(&mut bob, Some(&record)) && !is_open(&bob, &alice));
}

#[tokio::test]
async fn a_tag_that_the_rendezvous_does_not_show_leaves_the_request_pending() {
    let (_home, mut bob) = approving_ops().await;
    let mut alice = attested(2, "alice", &bob, &["ops"]);
    let mut bare = alice.record.clone().into_value();
    bare.attestation = None;
    let bare = Signed::sign(bare, &alice.key).expect("a good record");
    let other = attested(4, "other", &bob, &["ops"]).record;
    // The record that is registered has no token, or nothing is registered, or it is the record of a different agent.
    for registered in [Some(&bare), None, Some(&other)] {
        alice.wants(&mut bob, &["tcp/22"]);
        assert!(shows(&mut bob, registered), "asked again with each letter");
        assert!(!is_open(&bob, &alice));
        assert_eq!(bob.book.pending(unix_now()).count(), 1);
    }
    // One question at a time.
    alice.wants(&mut bob, &["tcp/22"]);
    alice.wants(&mut bob, &["tcp/22"]);
    assert_eq!(bob.asked.len(), 1);
}

#[tokio::test]
async fn a_request_with_a_tag_that_was_not_confirmed_is_asked_about_again() {
    let (home, mut bob) = approving_ops().await;
    let mut alice = attested(2, "alice", &bob, &["ops"]);
    alice.wants(&mut bob, &["tcp/22"]);
    drop(bob);
    // The first answer was lost with the daemon.
    let mut bob = home.open();
    bob.meetings.assume_registered();
    bob.confirm_waiting();
    let record = alice.record.clone();
    assert!(shows(&mut bob, Some(&record)) && is_open(&bob, &alice));
    bob.confirm_waiting();
    assert!(bob.asked.is_empty());

    // Many that ask leave room for the questions of people, and each has its turn.
    let mut waiting = BTreeSet::new();
    for byte in 10..40 {
        let mut peer = attested(byte, &format!("agent-{byte}"), &bob, &["ops"]);
        waiting.insert(peer.me());
        peer.wants(&mut bob, &["tcp/22"]);
        assert!(bob.asked.len() <= 16);
    }
    for round in 0..2 {
        while shows(&mut bob, None) {}
        bob.confirm_waiting();
        assert_eq!(bob.asked.len(), 16, "round {round}");
        for asked in bob.confirming() {
            waiting.remove(&asked);
        }
    }
    assert!(waiting.is_empty(), "{waiting:?} have had no turn");
}

#[tokio::test]
async fn a_tag_that_nobody_vouches_for_is_not_even_looked_for() {
    let (_home, mut bob) = approving_ops().await;
    let mut claims = Peer::new(2, "claims", &bob);
    claims.change(|record, _| record.tags = vec!["ops".to_owned()]);
    let different = attested(4, "different", &bob, &["eu"]);
    let mut count = 0;
    for mut peer in [claims, different] {
        peer.asks(&mut bob);
        count += 1;
        assert!(bob.asked.is_empty() && !is_open(&bob, &peer), "{}", peer.record.name);
        assert_eq!(bob.book.pending(unix_now()).count(), count, "{}", peer.record.name);
    }
    // An attestation that belongs to a different agent makes the record itself bad.
    let stolen = attested(5, "owner", &bob, &["ops"]).record.attestation.clone();
    let key = SecretKey::from_bytes(&[6; 32]);
    let thief = Record { identity: key.public(), attestation: stolen, ..bob.record.clone().into_value() };
    assert_eq!(Signed::sign(thief, &key).err(), Some(Refused::BadPart));
}
