//! Signed objects: what is signed can be opened, and anything else is refused under its own name.

mod cbor;
mod good;
mod hostile;
mod keys;
mod properties;
mod shown;
mod vectors;

use std::net::{Ipv4Addr, SocketAddr};

use good::{alice, key, network, record};

use super::*;

#[test]
fn what_is_signed_can_be_opened_and_keeps_its_bytes() {
    for value in [record(), good::full_record()] {
        let signed = Signed::sign(value, &alice()).expect("a good record");
        let opened = Signed::<Record>::open(signed.bytes()).expect("what was signed");
        assert_eq!(opened, signed);
    }
}

#[test]
fn nothing_is_signed_with_a_key_that_the_object_does_not_name() {
    assert_eq!(Signed::sign(record(), &key(9)).err(), Some(Refused::BadSignature));
}

#[test]
fn what_others_would_refuse_is_not_signed() {
    let nameless = Record { name: String::new(), ..record() };
    assert_eq!(Signed::sign(nameless, &alice()).err(), Some(Refused::BadName));
    let weak = Release { network: PublicKey([0; 32]), ..good::release() };
    assert_eq!(Signed::sign(weak, &alice()).err(), Some(Refused::WeakKey));
    // Everything at its bound, and an attestation of as many tags: more than a record may hold.
    let tags = good::full_record().tags;
    let token = good::signed(Token { tags, ..good::token() }, &network());
    let attestation = Some(Attestation { token, ..good::attestation() });
    let too_long = Record { attestation, ..good::full_record() };
    assert_eq!(Signed::sign(too_long, &alice()).err(), Some(Refused::TooLong));
}

#[test]
fn only_a_token_that_is_bound_to_the_agent_attests_its_tags() {
    let sign = |record| Signed::sign(record, &alice());
    let rich = good::rich_record();
    assert_eq!(sign(rich.clone()).expect("a good record").attested_tags(), good::token().tags);
    assert!(!good::token().tags.is_empty() && rich.tags != good::token().tags, "claims do not matter");
    let bare = sign(Record { attestation: None, ..rich.clone() }).expect("a good record");
    assert!(bare.attested_tags().is_empty());
    // A record with an attestation for somebody else is no record.
    for token in [
        Token { name: Some("carol".to_owned()), ..good::token() },
        Token { network: good::bob().public(), ..good::token() },
        Token { token: good::bob().public(), ..good::token() },
    ] {
        let key = if token.network == network().public() { network() } else { good::bob() };
        let attestation = Some(Attestation { token: good::signed(token, &key), ..good::attestation() });
        assert_eq!(sign(Record { attestation, ..rich.clone() }).err(), Some(Refused::BadPart));
    }
    let bind = good::signed(Bind { identity: good::bob().public(), ..good::bind() }, &good::token_key());
    let attestation = Some(Attestation { bind, ..good::attestation() });
    assert_eq!(sign(Record { attestation, ..rich }).err(), Some(Refused::BadPart));
}

#[test]
fn a_payload_may_be_as_long_as_its_kind_allows() {
    let grant = hostile::padded(Kind::Grant, &good::signed(good::grant(), &alice()), 2_048);
    assert!(Signed::<Grant>::open(&grant).is_ok());
    let record = hostile::padded(Kind::Record, &good::signed(record(), &alice()), 4_096);
    assert_eq!(record.len(), MAX_ENVELOPE_LEN);
    assert!(Signed::<Record>::open(&record).is_ok());
}

#[test]
fn the_largest_request_fits() {
    let list = ScopeList(vec!["tcp/65534-65535".to_owned(); MAX_SCOPES]);
    let grant = Grant { allow: list.clone(), request: Some([1; 16]), expires: Some(u64::MAX), ..good::grant() };
    let grant = Signed::sign(grant, &alice()).expect("a good grant").bytes().to_vec();
    let request = Request { want: list, reason: "x".repeat(MAX_REASON_LEN), grant, ..good::request() };
    assert!(Signed::sign(request, &alice()).is_ok());
}

#[test]
fn a_secret_is_not_shown() {
    let request = Signed::sign(Request { psk_share: Share([0xab; 32]), ..good::request() }, &alice()).expect("good");
    let text = format!("{request:?}");
    assert!(text.contains("psk_share: share") && !text.contains("171"), "{text}");
    assert!(!format!("{:?}", alice()).contains("2, 2, 2"));
}

#[test]
fn addresses_follow_from_keys() {
    let pool = good::pool();
    let (network, identity) = (network().public(), alice().public());
    assert_eq!(ipv6_address(&network, &identity).octets()[..4], network_prefix(&network).octets()[..4]);
    for i in 0..1_000 {
        assert!(pool.has_host(ipv4_candidate(&pool, &identity, i)));
    }
    assert!(!pool.has_host(Ipv4Addr::new(10, 64, 0, 0)) && !pool.has_host(Ipv4Addr::new(10, 64, 255, 255)));
    assert!(!pool.has_host(Ipv4Addr::new(10, 65, 0, 1)));
}

#[test]
fn a_place_has_one_form() {
    let place = |text: &str| Place::from(text.parse::<SocketAddr>().expect("an address"));
    assert_eq!(place("[::ffff:192.0.2.1]:7").address(), "192.0.2.1:7".parse().ok());
    for text in ["0.0.0.0:7", "255.255.255.255:7", "224.0.0.1:7", "[::]:7", "[ff02::1]:7", "192.0.2.1:0"] {
        assert_eq!(place(text).address(), None, "{text}");
    }
}

#[test]
fn a_scope_covers_what_it_contains() {
    let scope = |text| Scope::parse(text).expect("a scope");
    for (wide, narrow) in [
        ("any", "tcp/22"),
        ("any", "any"),
        ("tcp", "tcp/1-65535"),
        ("tcp/1-9", "tcp/2-9"),
        ("6", "tcp"),
        ("58", "icmp"),
    ] {
        assert!(scope(wide).covers(&scope(narrow)), "{wide} covers {narrow}");
    }
    for (one, other) in [("tcp", "any"), ("tcp", "udp"), ("tcp/1-9", "tcp"), ("tcp/2-9", "tcp/1-9"), ("47", "50")] {
        assert!(!scope(one).covers(&scope(other)), "{one} does not cover {other}");
    }
}

#[test]
fn only_scopes_are_scopes() {
    for text in [
        "",
        "/",
        "tcp/",
        "/22",
        "tcp/0",
        "tcp/65536",
        "tcp/22-",
        "tcp/-22",
        "tcp/9-8",
        "tcp/022",
        "tcp/+22",
        "tcp/ 22",
        " tcp",
        "TCP",
        "any/1",
        "icmp/8",
        "6/22",
        "0",
        "43",
        "44",
        "60",
        "256",
        "047",
        "-1",
        "tcp/1-2-3",
        "tcp/1/2",
        "٤",
    ] {
        assert_eq!(Scope::parse(text), Err(BadScope), "{text:?}");
    }
}
