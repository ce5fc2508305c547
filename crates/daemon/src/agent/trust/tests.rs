//! Two agents, and what makes a tunnel between them: each test delivers letters as a mailbox would, or does not.

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{PublicKey, Record, Revoke, ScopeList, SecretKey, Signed, TunnelKey};

use super::*;

mod by_mail;
mod claims;
mod restored;
mod strangers;

const DAY: u64 = 24 * 3_600 * 1_000;
const START: u64 = 1_700_000_000_000;

/// One agent: its book, its record, and the letters that it has sent.
struct Agent {
    book: Book,
    record: Signed<Record>,
    sent: Vec<(PublicKey, Letter)>,
    byte: u8,
    chance: u8,
}

fn network() -> PublicKey {
    SecretKey::from_bytes(&[1; 32]).public()
}

impl Agent {
    fn new(byte: u8) -> Self {
        let key = SecretKey::from_bytes(&[byte; 32]);
        let record = sample::record(network(), &key, START, |_| {});
        let book = Book::new(network(), key, record.tunnel_keys.clone(), []);
        Self { book, record, sent: Vec::new(), byte, chance: byte }
    }

    fn chance(&mut self) -> Chance {
        self.chance = self.chance.wrapping_add(16);
        Chance { id: [self.chance; 16], share: [self.chance; 32] }
    }

    /// Replaces the record by a newer one that differs.
    fn change_record(&mut self, change: impl FnOnce(&mut Record)) {
        let mut record = Record::clone(&self.record);
        record.sequence += 1;
        change(&mut record);
        let key = SecretKey::from_bytes(&[self.byte; 32]);
        self.record = Signed::sign(record, &key).expect("a good record");
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, letter, .. } | Effect::Keep { to, letter } => self.sent.push((to, letter)),
                Effect::Changed(_) | Effect::Asked(_) => {}
            }
        }
    }

    fn ask(&mut self, peer: &Agent, want: &[&str], allow: &[&str], now: u64) {
        let chance = self.chance();
        let terms = Terms { allow: Some(scopes(allow)), expires: None };
        let (own, peer) = (self.record.clone(), peer.record.clone());
        let effects = self.book.ask(&peer, &own, ("please".to_owned(), scopes(want), terms), now, chance);
        self.note(effects.expect("possible"));
    }

    fn approve(&mut self, peer: &Agent, terms: Terms, now: u64) -> Result<(), Impossible> {
        let (chance, own) = (self.chance(), self.record.clone());
        let effects = self.book.approve(&peer.book.me(), &own, terms, now, chance)?;
        self.note(effects);
        Ok(())
    }

    fn untrust(&mut self, peer: &Agent, now: u64) {
        let effects = self.book.untrust(&peer.book.me(), now).expect("trusted");
        self.note(effects);
    }

    fn receive(&mut self, from: &Agent, letter: &Letter, now: u64) -> Result<(), Refusal> {
        self.receive_with(from, letter, None, now)
    }

    fn receive_with(
        &mut self,
        from: &Agent,
        letter: &Letter,
        automatic: Option<Automatic>,
        now: u64,
    ) -> Result<(), Refusal> {
        let (chance, own) = (self.chance(), self.record.clone());
        let effects = self.book.on_letter(&from.book.me(), letter, &own, automatic, now, chance)?;
        self.note(effects);
        Ok(())
    }

    /// The letters sent since the last call.
    fn mail(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, letter)| letter).collect()
    }

    /// What the peer may open here, what may be opened there, and the key.
    fn tunnel(&self, now: u64) -> Option<(Vec<String>, Vec<String>, [u8; 32])> {
        self.book.open(now).next().map(|open| (open.allow.0.clone(), open.opens.0.clone(), *open.preshared_key.0))
    }
}

fn scopes(texts: &[&str]) -> ScopeList {
    ScopeList(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn deliver(from: &mut Agent, to: &mut Agent, now: u64) {
    for letter in from.mail() {
        to.receive(from, &letter, now).expect("a good letter");
    }
}

/// Alice has asked for tcp/8000, and bob has approved.
fn friends() -> (Agent, Agent) {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &[], START);
    deliver(&mut alice, &mut bob, START);
    bob.approve(&alice, Terms::default(), START).expect("she asked");
    deliver(&mut bob, &mut alice, START);
    (alice, bob)
}

#[test]
fn a_request_and_its_approval_make_a_tunnel_and_nothing_less_does() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &["icmp"], START);
    assert_eq!((alice.tunnel(START), bob.tunnel(START)), (None, None));
    deliver(&mut alice, &mut bob, START);
    assert_eq!(bob.book.pending(START).count(), 1);
    assert_eq!((alice.tunnel(START), bob.tunnel(START)), (None, None));
    bob.approve(&alice, Terms::default(), START).expect("she asked");
    let (allow, opens, key) = bob.tunnel(START).expect("he holds both grants");
    assert_eq!((allow, opens), (vec!["tcp/8000".to_owned()], vec!["icmp".to_owned()]));
    assert_eq!(alice.tunnel(START), None, "she does not know yet");
    deliver(&mut bob, &mut alice, START);
    let same = (vec!["icmp".to_owned()], vec!["tcp/8000".to_owned()], key);
    assert_eq!(alice.tunnel(START), Some(same));
}

#[test]
fn requests_that_cross_approve_each_other_with_what_each_gave() {
    for alice_first in [true, false] {
        let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
        alice.ask(&bob, &["any"], &["icmp"], START);
        bob.ask(&alice, &["any"], &["tcp/22"], START);
        if alice_first {
            deliver(&mut alice, &mut bob, START);
            deliver(&mut bob, &mut alice, START);
        } else {
            deliver(&mut bob, &mut alice, START);
            deliver(&mut alice, &mut bob, START);
        }
        let (allow, opens, key) = alice.tunnel(START).expect("both have asked");
        assert_eq!((allow, opens), (vec!["icmp".to_owned()], vec!["tcp/22".to_owned()]));
        assert_eq!(bob.tunnel(START).map(|(.., key)| key), Some(key));
        assert!(alice.mail().is_empty() && bob.mail().is_empty(), "no approval is needed");
    }
}

#[test]
fn one_may_ask_back_instead_of_approving() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["any"], &["icmp"], START);
    deliver(&mut alice, &mut bob, START);
    bob.ask(&alice, &[], &["tcp/22"], START);
    deliver(&mut bob, &mut alice, START);
    let (alices, bobs) = (alice.tunnel(START).expect("open"), bob.tunnel(START).expect("open"));
    assert_eq!((alices.0, alices.1, alices.2), (bobs.1, bobs.0, bobs.2));
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_the_key_stays() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &[], START);
    let request = alice.mail().remove(0);
    bob.receive(&alice, &request, START).expect("new");
    bob.approve(&alice, Terms::default(), START).expect("she asked");
    let (approval, key) = (bob.mail().remove(0), bob.tunnel(START).expect("open").2);
    for _ in 0..3 {
        bob.receive(&alice, &request, START + DAY).expect("the same request");
        assert_eq!(bob.mail(), std::slice::from_ref(&approval));
    }
    alice.receive(&bob, &approval, START).expect("asked for");
    assert_eq!(alice.receive(&bob, &approval, START), Err(Refusal::Replayed));
    assert_eq!(alice.tunnel(START).expect("open").2, key);
    alice.ask(&bob, &["tcp/8000"], &[], START + 1);
    assert_eq!(alice.mail().len(), 1, "a new request, as the first one was answered");
}

#[test]
fn what_was_taken_back_stays_so_whatever_is_replayed() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000"], &[], START);
    let request = alice.mail().remove(0);
    bob.receive(&alice, &request, START).expect("new");
    bob.approve(&alice, Terms::default(), START).expect("she asked");
    let approval = bob.mail().remove(0);
    alice.receive(&bob, &approval, START).expect("asked for");

    bob.untrust(&alice, START + 5);
    let revoke = bob.mail().remove(0);
    assert_eq!(bob.tunnel(START + 5), None, "at once");
    assert!(alice.tunnel(START + 5).is_some(), "she does not know yet");
    alice.receive(&bob, &revoke, START + 5).expect("bob's word");
    assert_eq!(alice.tunnel(START + 5), None);

    let any = Some(Automatic::Within(scopes(&["any"])));
    assert_eq!(bob.receive_with(&alice, &request, any.clone(), START + 6), Err(Refusal::Replayed));
    assert_eq!(alice.receive(&bob, &approval, START + 6), Err(Refusal::Replayed));
    assert_eq!(alice.receive(&bob, &revoke, START + 6), Err(Refusal::Replayed));
    // A new request is not approved by the config, since a person has said no.
    alice.ask(&bob, &["tcp/8000"], &[], START + 7);
    let request = alice.mail().remove(0);
    bob.receive_with(&alice, &request, any, START + 7).expect("a new request");
    assert_eq!((bob.tunnel(START + 7), bob.book.pending(START + 7).count()), (None, 1));
    bob.approve(&alice, Terms::default(), START + 8).expect("she asked");
    deliver(&mut bob, &mut alice, START + 8);
    assert!(alice.tunnel(START + 8).is_some() && bob.tunnel(START + 8).is_some());
}

#[test]
fn a_changed_scope_keeps_the_key() {
    let (mut alice, mut bob) = friends();
    let key = bob.tunnel(START).expect("open").2;
    let terms = Terms { allow: Some(scopes(&["icmp"])), expires: Some(START + DAY) };
    bob.approve(&alice, terms, START + 1).expect("trusted");
    deliver(&mut bob, &mut alice, START + 1);
    assert_eq!(alice.tunnel(START + 2), Some((Vec::new(), vec!["icmp".to_owned()], key)));
    assert_eq!(alice.book.next_expiry(START + 2), Some(START + DAY));
    assert_eq!((alice.tunnel(START + DAY), bob.tunnel(START + DAY)), (None, None), "to the millisecond");
}

#[test]
fn an_agent_that_lost_its_state_is_healed_if_it_wants_no_more() {
    let (_, mut bob) = friends();
    let mut alice = Agent::new(2);
    alice.ask(&bob, &["tcp/8000"], &[], START + 10);
    deliver(&mut alice, &mut bob, START + 10);
    deliver(&mut bob, &mut alice, START + 10);
    assert_eq!(alice.tunnel(START + 10).expect("open").2, bob.tunnel(START + 10).expect("open").2);

    let mut alice = Agent::new(2);
    alice.ask(&bob, &["tcp/22"], &[], START + 20);
    deliver(&mut alice, &mut bob, START + 20);
    assert_eq!(bob.book.pending(START + 20).count(), 1, "it wants more, so a person decides");
    assert!(bob.tunnel(START + 20).is_some(), "what stands goes on meanwhile");
}

#[test]
fn letters_that_are_not_what_they_claim_are_refused_by_name() {
    let (mut alice, mut bob, mut mallory) = (Agent::new(2), Agent::new(3), Agent::new(4));
    alice.ask(&bob, &["any"], &[], START);
    let request = alice.mail().remove(0);
    assert_eq!(bob.receive(&mallory, &request, START), Err(Refusal::NotOurs), "sealed by a different sender");
    assert_eq!(mallory.receive(&alice, &request, START), Err(Refusal::NotOurs), "for bob");
    assert_eq!(bob.receive(&bob_of(&bob), &request, START), Err(Refusal::Ourselves));
    assert_eq!(bob.receive(&alice, &request, START - DAY), Err(Refusal::Future));
    assert_eq!(bob.receive(&alice, &request, START + 40 * DAY), Err(Refusal::Expired));
    let Letter::Request { request: envelope, record } = &request else { panic!("a request") };
    let as_grant = Letter::Grant { grant: envelope.clone() };
    assert_eq!(bob.receive(&alice, &as_grant, START), Err(Refusal::Malformed), "a request is no grant");
    let with_others = Letter::Request { request: envelope.clone(), record: mallory.record.bytes().to_vec().into() };
    assert_eq!(bob.receive(&alice, &with_others, START), Err(Refusal::NotOurs), "a different agent's record");
    let cut = Letter::Request { request: envelope[1..].to_vec().into(), record: record.clone() };
    assert_eq!(bob.receive(&alice, &cut, START), Err(Refusal::Malformed));
    assert_eq!(bob.book.relations().count(), 0, "nothing was kept");

    // An approval that nobody asked for.
    mallory.ask(&bob, &[], &[], START);
    deliver(&mut mallory, &mut bob, START);
    bob.approve(&mallory, Terms::default(), START).expect("asked");
    let approval = bob.mail().remove(0);
    assert_eq!(alice.receive(&bob, &approval, START), Err(Refusal::NotOurs));
}

/// An agent with bob's key.
fn bob_of(bob: &Agent) -> Agent {
    let copy = Agent::new(3);
    assert_eq!(copy.book.me(), bob.book.me());
    copy
}

#[test]
fn what_is_approved_by_the_config_is_what_was_wanted_and_no_more_than_the_config_says() {
    let (mut alice, mut bob) = (Agent::new(2), Agent::new(3));
    alice.ask(&bob, &["tcp/8000", "tcp/22", "udp"], &[], START);
    let request = alice.mail().remove(0);
    let most = Some(Automatic::Within(scopes(&["tcp/8000-8010", "udp/53", "icmp"])));
    bob.receive_with(&alice, &request, most, START).expect("a request");
    assert_eq!(bob.tunnel(START).expect("approved").0, ["tcp/8000", "udp/53"]);
}

#[test]
fn an_ipv4_address_stays_with_the_first_peer_that_has_it() {
    let mut bob = Agent::new(3);
    for (byte, expected) in [(2, Some([10, 64, 0, 9])), (4, None), (2, Some([10, 64, 0, 9]))] {
        let mut peer = Agent::new(byte);
        peer.change_record(|record| record.ipv4 = Some([10, 64, 0, 9]));
        peer.ask(&bob, &[], &[], START + u64::from(byte));
        let request = peer.mail().remove(0);
        let _ = bob.receive_with(&peer, &request, Some(Automatic::Within(scopes(&[]))), START);
        bob.book.settle_ipv4(&peer.book.me());
        assert_eq!(bob.book.relation(&peer.book.me()).expect("known").ipv4, expected, "{byte}");
    }
}
