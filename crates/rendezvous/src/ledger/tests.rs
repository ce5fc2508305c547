//! Labels and sealing, and what a rendezvous can show in their place.

use overlay_wire::signed::{MAX_SCOPES, ScopeList};

use super::*;

const NETWORK: PublicKey = PublicKey([9; 32]);

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn keys(byte: u8) -> LedgerKeys {
    LedgerKeys::new(network(), &secret(byte))
}

fn network() -> PublicKey {
    secret(9).public()
}

fn revoke(issuer: u8, subject: u8, sequence: u64) -> OwnWord {
    let revoke = Revoke {
        network: network(),
        issuer: secret(issuer).public(),
        subject: secret(subject).public(),
        sequence,
        issued: sequence,
    };
    OwnWord::Revoke(Signed::sign(revoke, &secret(issuer)).expect("a good revoke"))
}

fn grant(issuer: u8, subject: u8, allow: ScopeList) -> OwnWord {
    let grant = Grant {
        network: network(),
        issuer: secret(issuer).public(),
        subject: secret(subject).public(),
        sequence: u64::MAX,
        issued: u64::MAX >> 12,
        expires: Some(u64::MAX >> 11),
        allow,
        request: Some([7; 16]),
    };
    OwnWord::Grant(Signed::sign(grant, &secret(issuer)).expect("a good grant"))
}

#[test]
fn an_entry_is_opened_by_its_agent_under_its_label_alone() {
    let word = revoke(1, 2, 7);
    let (label, sealed) = keys(1).seal(&word).expect("a short word");
    assert_eq!(keys(1).open(&label, &sealed), Ok(word));
    assert_eq!(keys(3).open(&label, &sealed), Err(Malformed), "a different agent");
    let elsewhere = LedgerKeys::new(NETWORK, &secret(1));
    assert_eq!(elsewhere.open(&label, &sealed), Err(Malformed), "a different network");
    let other = keys(1).label(&secret(3).public());
    assert_eq!(keys(1).open(&other, &sealed), Err(Malformed), "the label of a different peer");
}

#[test]
fn a_label_is_the_same_for_a_peer_and_tells_nothing_about_it() {
    let (bob, carol) = (secret(2).public(), secret(3).public());
    assert_eq!(keys(1).label(&bob), keys(1).label(&bob));
    assert_ne!(keys(1).label(&bob), keys(1).label(&carol));
    assert_ne!(keys(1).label(&bob), keys(4).label(&bob), "two agents with one peer");
    assert_ne!(keys(1).label(&bob), LedgerKeys::new(NETWORK, &secret(1)).label(&bob), "two networks");
    assert_ne!(keys(1).label(&bob)[..], bob.0[..16]);
}

#[test]
fn the_same_word_is_the_same_bytes_and_two_words_never_share_a_nonce() {
    let sealed = |sequence| keys(1).seal(&revoke(1, 2, sequence)).expect("a short word").1;
    assert_eq!(sealed(7), sealed(7));
    assert_ne!(sealed(7)[1..1 + NONCE_LEN], sealed(8)[1..1 + NONCE_LEN]);
    let other = keys(1).seal(&revoke(1, 3, 7)).expect("a short word").1;
    assert_ne!(sealed(7)[1..1 + NONCE_LEN], other[1..1 + NONCE_LEN]);
}

#[test]
fn every_changed_byte_and_every_length_is_refused() {
    let (label, sealed) = keys(1).seal(&revoke(1, 2, 7)).expect("a short word");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(keys(1).open(&label, &changed), Err(Malformed), "byte {at}");
        assert_eq!(keys(1).open(&label, &sealed[..at]), Err(Malformed), "cut at {at}");
    }
    assert_eq!(keys(1).open(&label, &[&sealed[..], &[0]].concat()), Err(Malformed));
    assert_eq!(keys(1).open(&label, &[]), Err(Malformed));
}

#[test]
fn the_longest_word_fits_an_entry() {
    let word = grant(1, 2, ScopeList(vec!["tcp/65534-65535".to_owned(); MAX_SCOPES]));
    let (label, sealed) = keys(1).seal(&word).expect("the longest list there is");
    assert_eq!(keys(1).open(&label, &sealed), Ok(word));
}

/// The secret of the identity makes the keys, so only a fault of this program could seal these.
#[test]
fn a_word_of_somebody_else_is_no_entry_of_ours() {
    let foreign = revoke(2, 3, 7);
    let (label, sealed) = keys(1).seal(&foreign).expect("a short word");
    assert_eq!(keys(1).open(&label, &sealed), Err(Malformed));
    let endpoints = Letter::Endpoints { endpoints: Vec::new().into() };
    assert_eq!(OwnWord::read(&endpoints, &network(), &secret(1).public()), Err(Malformed));
}
