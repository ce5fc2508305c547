//! Every state of a relation, in both directions: who decides, and why.

use overlay_wire::signed::{Grant, PublicKey, Record, Request, Revoke, SecretKey, Share, Signed};
use zeroize::Zeroizing;

use super::*;
use crate::agent::trust::{Asked, Pending, PresharedKey, sample};

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn key(byte: u8) -> PublicKey {
    secret(byte).public()
}

const ME: u8 = 1;
const PEER: u8 = 2;

fn scopes(texts: &[&str]) -> ScopeList {
    ScopeList(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn grant(by: u8, allow: &[&str], expires: Option<u64>) -> Signed<Grant> {
    let grant = Grant {
        network: key(9),
        issuer: key(by),
        subject: key(3 - by),
        sequence: 1,
        issued: NOW - HOUR,
        expires,
        allow: scopes(allow),
        request: None,
    };
    Signed::sign(grant, &secret(by)).expect("a good grant")
}

fn revoke(by: u8) -> Word {
    let (issuer, subject) = (key(by), key(3 - by));
    let revoke = Revoke { network: key(9), issuer, subject, sequence: 2, issued: NOW - HOUR };
    Word::Revoke(Signed::sign(revoke, &secret(by)).expect("a good revoke"))
}

fn request(from: u8, want: &[&str], expires: u64) -> Signed<Request> {
    let request = Request {
        network: key(9),
        from: key(from),
        to: key(3 - from),
        id: [7; 16],
        issued: NOW - HOUR,
        expires,
        reason: String::new(),
        want: scopes(want),
        grant: grant(from, &[], None).bytes().to_vec(),
        psk_share: Share([7; 32]),
    };
    Signed::sign(request, &secret(from)).expect("a good request")
}

fn record() -> Signed<Record> {
    sample::record(key(9), &secret(PEER), NOW - HOUR, |record| record.name = "bob".to_owned())
}

fn closed() -> Relation {
    Relation { record: Some(record()), ..Relation::new(key(PEER)) }
}

fn asking(mine: &[&str], expires: u64) -> Relation {
    let asked = Some(Asked { request: request(ME, &[], expires) });
    Relation { mine: Some(Word::Grant(grant(ME, mine, None))), asked, ..closed() }
}

fn pending(want: &[&str], expires: u64) -> Relation {
    Relation { pending: Some(Pending { request: request(PEER, want, expires), record: record() }), ..closed() }
}

fn open(mine: &[&str], theirs: &[&str]) -> Relation {
    Relation {
        mine: Some(Word::Grant(grant(ME, mine, None))),
        theirs: Some(Word::Grant(grant(PEER, theirs, None))),
        preshared_key: Some(PresharedKey(Zeroizing::new([7; 32]))),
        ..closed()
    }
}

fn judged(relation: Option<&Relation>, at: Side, what: &str) -> Judgement {
    case(relation, at, what, None).judge()
}

fn case<'a>(relation: Option<&'a Relation>, at: Side, what: &str, beforehand: Option<&'a ScopeList>) -> Case<'a> {
    let opening = Opening::parse(what).expect("an opening");
    Case {
        me: "alice",
        peer: "bob",
        opening,
        at,
        relation,
        beforehand,
        is_pinned: false,
        is_held: false,
        now: NOW.into(),
    }
}

#[test]
fn without_a_tunnel_the_side_decides_that_has_said_nothing_or_no() {
    let expired = |by| Some(Word::Grant(grant(by, &["any"], Some(NOW))));
    let granted = |by| Some(Word::Grant(grant(by, &["any"], None)));
    let over = Relation { pending: None, ..pending(&[], NOW) };
    let cases = [
        (None, Side::Here, Reason::Unknown),
        (Some(closed()), Side::Here, Reason::NoGrant),
        (Some(over), Side::Here, Reason::NoGrant),
        (Some(pending(&[], NOW)), Side::Here, Reason::NoGrant),
        (Some(pending(&[], NOW + 1)), Side::Here, Reason::Pending),
        (Some(asking(&["any"], NOW + 1)), Side::There, Reason::Asked),
        (Some(asking(&["any"], NOW)), Side::There, Reason::NoGrant),
        (Some(Relation { mine: Some(revoke(ME)), ..open(&[], &["any"]) }), Side::Here, Reason::Revoked),
        (Some(Relation { theirs: Some(revoke(PEER)), ..open(&["any"], &[]) }), Side::There, Reason::Revoked),
        (Some(Relation { theirs: Some(revoke(PEER)), ..asking(&[], NOW + 1) }), Side::There, Reason::Asked),
        (Some(Relation { mine: expired(ME), ..open(&[], &["any"]) }), Side::Here, Reason::Expired),
        (Some(Relation { theirs: expired(PEER), ..open(&["any"], &[]) }), Side::There, Reason::Expired),
        (Some(Relation { mine: granted(ME), theirs: granted(PEER), ..closed() }), Side::Here, Reason::NoTunnel),
    ];
    for (relation, side, reason) in cases {
        // Without a tunnel, neither side can open anything.
        for at in [Side::Here, Side::There] {
            let judgement = judged(relation.as_ref(), at, "tcp/22");
            assert_eq!((judgement.side, judgement.reason), (side, reason), "{relation:?}");
            assert_eq!(judgement.verdict(), Verdict::Refused);
            assert!(!relation.as_ref().is_some_and(|relation| relation.is_open(NOW)));
        }
    }
}

#[test]
fn with_a_tunnel_the_grant_decides_of_the_side_at_which_it_is_opened() {
    let relation = open(&["tcp/22", "udp/8000-8010"], &["icmp", "tcp"]);
    let cases = [
        (Side::Here, "tcp/22", Some("tcp/22")),
        (Side::Here, "udp/8005", Some("udp/8000-8010")),
        (Side::Here, "tcp/23", None),
        (Side::Here, "icmp", None),
        (Side::There, "icmp", Some("icmp")),
        (Side::There, "tcp/23", Some("tcp")),
        (Side::There, "udp/8005", None),
        (Side::There, "47", None),
    ];
    for (at, what, rule) in cases {
        let judgement = judged(Some(&relation), at, what);
        assert_eq!((judgement.side, judgement.rule.as_deref()), (at, rule), "{what}");
        let verdict = if rule.is_some() { Verdict::Allowed } else { Verdict::Refused };
        assert_eq!(judgement.verdict(), verdict, "{what}");
    }
    assert_eq!(judged(Some(&open(&[], &["any"])), Side::There, "47").rule.as_deref(), Some("any"));
}

#[test]
fn trust_that_was_given_beforehand_waits_for_the_peer() {
    let allow = scopes(&["tcp/22"]);
    for relation in [None, Some(closed()), Some(Relation { mine: Some(revoke(ME)), ..closed() })] {
        let judgement = case(relation.as_ref(), Side::Here, "tcp/22", Some(&allow)).judge();
        assert_eq!((judgement.side, judgement.reason), (Side::There, Reason::Beforehand));
    }
}

#[test]
fn each_answer_says_why_and_what_to_type() {
    let party = |name: &str, is_self| Party { name: name.to_owned(), identity: None, is_self };
    let shown = |relation: Option<&Relation>, at, what: &str, is_pinned| {
        let case = Case { is_pinned, ..case(relation, at, what, None) };
        let explained = case.explain(party("alice", true), party("bob", false));
        format!("{}\nhint: {}", explained.why, explained.hint.unwrap_or("-".to_owned()))
    };
    let both = open(&["icmp"], &[]);
    let expired = Relation { mine: Some(Word::Grant(grant(ME, &[], Some(NOW - HOUR / 2)))), ..open(&[], &[]) };
    let theirs_expired = Relation { theirs: Some(Word::Grant(grant(PEER, &[], Some(NOW)))), ..open(&[], &[]) };
    let cases = [
        ("listed", shown(Some(&both), Side::Here, "icmp", false)),
        ("not listed here", shown(Some(&both), Side::Here, "tcp/22", false)),
        ("not listed here, pinned", shown(Some(&both), Side::Here, "tcp/22", true)),
        ("not listed there", shown(Some(&both), Side::There, "tcp/22", false)),
        ("held", {
            let case = Case { is_held: true, ..case(Some(&both), Side::There, "icmp", None) };
            let explained = case.explain(party("alice", true), party("bob", false));
            format!("{}\nhint: {}", explained.why, explained.hint.unwrap_or("-".to_owned()))
        }),
        ("unknown", shown(None, Side::There, "tcp/22", false)),
        ("pending", shown(Some(&pending(&["tcp"], NOW + 1)), Side::Here, "tcp/22", false)),
        ("pending, wants less", shown(Some(&pending(&[], NOW + 1)), Side::Here, "tcp/22", false)),
        ("asked", shown(Some(&asking(&[], NOW + 1)), Side::There, "tcp/22", false)),
        ("expired here", shown(Some(&expired), Side::There, "tcp/22", false)),
        ("expired there", shown(Some(&theirs_expired), Side::Here, "tcp/22", false)),
        ("revoked", shown(Some(&Relation { mine: Some(revoke(ME)), ..closed() }), Side::Here, "tcp/22", false)),
    ];
    for (name, text) in cases {
        overlay_golden::golden(name, text);
    }
}
