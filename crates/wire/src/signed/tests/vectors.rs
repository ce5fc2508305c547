//! The golden vectors in `tests/vectors/objects.json`, which a program in a different language verifies, and the seeds of
//! the fuzz target. `OVERLAY_BLESS=1` writes both.
#![allow(clippy::disallowed_methods, reason = "reads and writes files of the source tree")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::*;
use super::cbor::{Cbor, payload, sign};
use super::good::*;
use super::shown::{hex, open};
use super::{hostile, keys};

const HOW: &str = "written by crates/wire, verified by verify.py; bytes are hex; docs/objects.md describes them";

fn good() -> Vec<(Kind, &'static str, Vec<u8>)> {
    let unknown = payload(&signed(grant(), &alice())).with(127, Cbor::raw(b"\xa1\x00\x82\xf5\x81\x61x"));
    let server = Auth { role: Role::Server, identity: rendezvous().public(), epoch: 0, ..auth() };
    let relayed = Endpoints { places: Vec::new(), ..endpoints() };
    let closed = Grant { allow: ScopeList::default(), sequence: u64::MAX, ..grant() };
    let any_name = Token { name: None, tags: Vec::new(), uses: 0, is_ephemeral: false, ..token() };
    let plain = Network { rendezvous: Vec::new(), is_closed: false, ..network_object() };
    let stranger = RelayBind { lowest: 0, lowest_of: Vec::new(), membership: None, ..relay_bind() };
    vec![
        (Kind::Network, "closed, with one rendezvous", signed(network_object(), &network())),
        (Kind::Network, "open, without a rendezvous", signed(plain, &network())),
        (Kind::Record, "without all that may be missing", signed(record(), &alice())),
        (Kind::Record, "with everything", signed(rich_record(), &alice())),
        (Kind::Record, "every list and text at its bound", signed(full_record(), &alice())),
        (Kind::Grant, "until it is revoked", signed(grant(), &alice())),
        (Kind::Grant, "answers only, with the highest sequence", signed(closed, &alice())),
        (Kind::Grant, "for a request, until a time", signed(answer(), &bob())),
        (Kind::Grant, "an unknown key below 128", sign(Kind::Grant, &unknown.bytes(), &alice())),
        (Kind::Revoke, "", signed(revoke(), &alice())),
        (Kind::Request, "", signed(request(), &alice())),
        (Kind::Approval, "", signed(approval(), &bob())),
        (Kind::Endpoints, "IPv4 and IPv6", signed(endpoints(), &alice())),
        (Kind::Endpoints, "neither an address nor a relay", signed(relayed, &alice())),
        (Kind::Permit, "", signed(permit(), &alice())),
        (Kind::Token, "for one name and one use", signed(token(), &network())),
        (Kind::Token, "for any name and any number of uses", signed(any_name, &network())),
        (Kind::Membership, "", signed(membership(), &rendezvous())),
        (Kind::Release, "", signed(release(), &alice())),
        (Kind::Auth, "an agent", signed(auth(), &alice())),
        (Kind::Auth, "a rendezvous", signed(server, &rendezvous())),
        (Kind::Bind, "", signed(bind(), &token_key())),
        (Kind::RelayBind, "a member, with a permit that is not valid any more", signed(relay_bind(), &alice())),
        (Kind::RelayBind, "at an open relay", signed(stranger, &alice())),
        (Kind::RelayBind, "every list at its bound", signed(full_relay_bind(), &alice())),
        (Kind::RelayPermit, "", signed(relay_permit(), &alice())),
        (Kind::Endpoints, "with two relays", signed(relayed_endpoints(), &alice())),
    ]
}

fn vectors() -> Value {
    let good: Vec<_> = good()
        .into_iter()
        .map(|(kind, note, envelope)| {
            let fields = open(kind, &envelope).unwrap_or_else(|refused| panic!("{kind:?}, {note}: {refused}"));
            json!({ "kind": kind.word(), "note": note, "envelope": hex(&envelope), "fields": fields })
        })
        .collect();
    let bad: Vec<_> = hostile::all()
        .into_iter()
        .map(|hostile::Hostile { kind, note, envelope, refused }| {
            json!({ "kind": kind.word(), "note": note, "envelope": hex(&envelope), "refused": refused.code() })
        })
        .collect();
    let key_texts: Vec<_> = (1..=6)
        .map(|byte| {
            let key = key(byte);
            json!({ "secret": hex(&*key.to_bytes()), "public": hex(&key.public().0), "text": key.public().to_string() })
        })
        .collect();
    let pools = [
        pool(),
        Pool::new([172, 20, 0, 0].into(), 14).expect("a pool"),
        Pool::new([10, 1, 2, 0].into(), 24).expect("one"),
    ];
    let addresses: Vec<_> = [(network(), alice()), (network(), bob()), (key(6), alice())]
        .iter()
        .zip(pools)
        .map(|((network, identity), pool)| {
            let (network, identity) = (network.public(), identity.public());
            let candidates: Vec<_> = (0..8).map(|i| ipv4_candidate(&pool, &identity, i).to_string()).collect();
            json!({
                "network": network.to_string(),
                "identity": identity.to_string(),
                "network_prefix": format!("{}/32", network_prefix(&network)),
                "ipv6": ipv6_address(&network, &identity).to_string(),
                "pool": format!("{}/{}", pool.address(), pool.prefix_len()),
                "ipv4_candidates": candidates,
            })
        })
        .collect();
    json!({
        "about": HOW,
        "keys": key_texts,
        "not_keys": keys::bad_texts(),
        "addresses": addresses,
        "good": good,
        "bad": bad,
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_committed_vectors_are_those_that_this_code_makes() {
    let text = serde_json::to_string_pretty(&vectors()).expect("JSON") + "\n";
    let path = root().join("tests/vectors/objects.json");
    if std::env::var_os("OVERLAY_BLESS").is_some() {
        fs::write(&path, &text).expect("our own file");
    }
    assert!(fs::read_to_string(&path).is_ok_and(|found| found == text), "write objects.json with OVERLAY_BLESS=1");
}

#[test]
fn the_committed_seeds_of_the_fuzz_target_are_the_good_vectors() {
    let folder = root().join("fuzz/corpus/objects");
    for (at, (kind, _, envelope)) in good().into_iter().enumerate() {
        let path = folder.join(format!("good-{at:02}-{}", kind.word()));
        if std::env::var_os("OVERLAY_BLESS").is_some() {
            fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &envelope)).expect("our own file");
        }
        let is_written = fs::read(&path).is_ok_and(|found| found == envelope);
        assert!(is_written, "write {} with OVERLAY_BLESS=1", path.display());
    }
}

#[test]
fn every_kind_has_a_good_vector_and_every_reason_a_bad_one() {
    let kinds: HashSet<_> = good().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, Kind::ALL.into());
    let words: HashSet<_> = Kind::ALL.into_iter().map(Kind::word).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    let bad = hostile::all();
    let reasons: HashSet<_> = bad.iter().map(|hostile| hostile.refused).collect();
    let all = [
        Refused::Malformed,
        Refused::TooLong,
        Refused::UnknownKey,
        Refused::BadSignature,
        Refused::WeakKey,
        Refused::BadName,
        Refused::BadScope,
        Refused::BadValue,
        Refused::BadPart,
    ];
    assert_eq!(reasons, all.into());
    let different: HashSet<_> = bad.iter().map(|hostile| &hostile.envelope).collect();
    assert_eq!(different.len(), bad.len(), "two bad vectors are the same");
}

#[test]
fn every_bad_vector_is_refused_for_its_reason() {
    let wrong: Vec<_> = hostile::all()
        .into_iter()
        .filter(|hostile| open(hostile.kind, &hostile.envelope).err() != Some(hostile.refused))
        .map(|hostile| (hostile.kind, hostile.note, hostile.refused, open(hostile.kind, &hostile.envelope).err()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_object_opens_as_a_different_kind() {
    for (kind, note, envelope) in good() {
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            assert!(open(other, &envelope).is_err(), "{kind:?}, {note}, opens as {other:?}");
        }
    }
}

#[test]
fn no_bit_of_an_envelope_can_be_flipped() {
    for (kind, note, mut envelope) in good().into_iter().filter(|(.., envelope)| envelope.len() < 600) {
        for at in 0..envelope.len() * 8 {
            envelope[at / 8] ^= 1 << (at % 8);
            assert!(open(kind, &envelope).is_err(), "{kind:?}, {note}, with bit {at} flipped");
            envelope[at / 8] ^= 1 << (at % 8);
        }
    }
}
