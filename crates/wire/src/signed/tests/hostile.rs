//! Envelopes that must be refused, each with the only reason that fits.

mod relays;

use super::super::*;
use super::cbor::{Cbor, envelope, head, payload, sign, signature};
use super::good::*;

/// An envelope that must be refused.
pub(super) struct Hostile {
    pub(super) kind: Kind,
    pub(super) note: &'static str,
    pub(super) envelope: Vec<u8>,
    pub(super) refused: Refused,
}

/// All of them.
pub(super) fn all() -> Vec<Hostile> {
    let mut all = Vec::new();
    envelopes(&mut all);
    forms(&mut all);
    types(&mut all);
    signatures(&mut all);
    keys(&mut all);
    names(&mut all);
    scopes(&mut all);
    values(&mut all);
    lists(&mut all);
    parts(&mut all);
    relays::add_all(&mut all);
    all
}

/// The point of order 1, for which everybody can sign.
pub(super) const WEAK: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 1;
    point
};

fn add(all: &mut Vec<Hostile>, kind: Kind, note: &'static str, envelope: Vec<u8>, refused: Refused) {
    all.push(Hostile { kind, note, envelope, refused });
}

fn grant_envelope() -> Vec<u8> {
    signed(grant(), &alice())
}

fn envelopes(all: &mut Vec<Hostile>) {
    let good = grant_envelope();
    let parts = Envelope::parse(&good).expect("our own");
    let (payload, signature) = (parts.payload, parts.signature);
    let with_header = |header: &[&[u8]]| [&header.concat(), payload, &[0x58, 64], signature].concat();
    let len = payload.len() as u16;
    let mut add = |note, envelope, refused| add(all, Kind::Grant, note, envelope, refused);
    add("no bytes", Vec::new(), Refused::Malformed);
    add("without its last byte", good[..good.len() - 1].to_vec(), Refused::Malformed);
    add("a byte behind the envelope", [&good[..], &[0]].concat(), Refused::Malformed);
    add("an array of four", [&[0x84], &good[1..], &[0]].concat(), Refused::Malformed);
    add("an array of two", [&[0x82, 1], &Cbor::Bytes(payload.to_vec()).bytes()[..]].concat(), Refused::Malformed);
    add("an array without a length", [&[0x9f], &good[1..], &[0xff]].concat(), Refused::Malformed);
    add("the length of the array in two bytes", [&[0x98, 3], &good[1..]].concat(), Refused::Malformed);
    add("a tag around the envelope", [&[0xd9, 0xd9, 0xf7], &good[..]].concat(), Refused::Malformed);
    add("version 2", [&[0x83, 2], &good[2..]].concat(), Refused::Malformed);
    add("the version in two bytes", [&[0x83, 0x18, 1], &good[2..]].concat(), Refused::Malformed);
    let long = u32::from(len).to_be_bytes();
    add("the length of the payload in four bytes", with_header(&[&[0x83, 1, 0x5a], &long]), Refused::Malformed);
    let text = with_header(&[&[0x83, 1, 0x79], &len.to_be_bytes()]);
    add("the payload as text", text, Refused::Malformed);
    let chunks = [&[0x83, 1, 0x5f], &good[2..good.len() - 66], &[0xff, 0x58, 64], signature].concat();
    add("the payload in chunks", chunks, Refused::Malformed);
    add("a signature of 63 bytes", envelope(payload, &signature[..63]), Refused::Malformed);
    add("a signature of 65 bytes", envelope(payload, &[&signature[..], &[0]].concat()), Refused::Malformed);
    add("longer than any envelope", vec![0; MAX_ENVELOPE_LEN + 1], Refused::TooLong);
    add("a payload of 2,049 bytes", padded(Kind::Grant, &good, 2_049), Refused::TooLong);
    let record = padded(Kind::Record, &signed(record(), &alice()), 4_097);
    self::add(all, Kind::Record, "a payload of 4,097 bytes", record, Refused::TooLong);
}

/// An object of alice with an unknown value that makes its payload this long.
pub(super) fn padded(kind: Kind, good: &[u8], len: usize) -> Vec<u8> {
    let filled = |len| payload(good).with(127, Cbor::Bytes(vec![0; len])).bytes();
    let most = len / 2;
    let payload = filled(most + len - filled(most).len());
    assert_eq!(payload.len(), len);
    sign(kind, &payload, &alice())
}

fn forms(all: &mut Vec<Hostile>) {
    let grant = payload(&grant_envelope());
    // Entries 0 to 5: network, issuer, subject, sequence, issued, allow.
    let entries = |order: &[usize]| [head(5, order.len() as u64), grant.entries(order.iter().copied())].concat();
    let mut add = |note, payload: Vec<u8>, refused| {
        add(all, Kind::Grant, note, sign(Kind::Grant, &payload, &alice()), refused);
    };
    let mut malformed = |note, payload| add(note, payload, Refused::Malformed);
    malformed("no payload", Vec::new());
    malformed("keys in the wrong order", entries(&[1, 0, 2, 3, 4, 5]));
    malformed("a key twice", entries(&[0, 1, 2, 3, 3, 4, 5]));
    malformed("a map without a length", [&[0xbf], &entries(&[0, 1, 2, 3, 4, 5])[1..], &[0xff]].concat());
    malformed("the length of the map in two bytes", [&[0xb8, 6], &entries(&[0, 1, 2, 3, 4, 5])[1..]].concat());
    malformed("a map that claims 2^64-1 entries", [&[0xbb], &[0xff; 8][..], &grant.bytes()[1..]].concat());
    malformed("a byte behind the map", [grant.bytes(), vec![0]].concat());
    malformed("an array in place of the map", Cbor::Array(vec![Cbor::raw(&grant.bytes())]).bytes());
    malformed("a tag around the map", [&[0xc1], &grant.bytes()[..]].concat());
    let key_as_text = [&[0xa7], &grant.bytes()[1..], &[0x61, b'x', 0]].concat();
    malformed("a text as a key", key_as_text);
    malformed("a negative key", [&[0xa7, 0x20, 0], &grant.bytes()[1..]].concat());
    malformed("a key in two bytes", [&[0xa6, 0x18, 0], &grant.bytes()[2..]].concat());
    let with = |key, bytes: &[u8]| grant.clone().with(key, Cbor::raw(bytes)).bytes();
    malformed("null in place of an optional value", with(5, &[0xf6]));
    malformed("undefined in place of an optional value", with(7, &[0xf7]));
    malformed("null under an unknown key", with(100, &[0xf6]));
    malformed("a negative number under an unknown key", with(100, &[0x20]));
    malformed("a floating point number under an unknown key", with(100, &[0xf9, 0x3c, 0]));
    malformed("a tag under an unknown key", with(100, &[0xc1, 0]));
    malformed("a simple value under an unknown key", with(100, &[0xe0]));
    malformed("a number in too many bytes under an unknown key", with(100, &[0x18, 23]));
    malformed("a text in chunks under an unknown key", with(100, &[0x7f, 0x61, b'x', 0xff]));
    malformed("a text that is not UTF-8 under an unknown key", with(100, &[0x62, 0xc3, 0x28]));
    malformed("a surrogate in a text under an unknown key", with(100, &[0x63, 0xed, 0xa0, 0x80]));
    malformed("five levels under an unknown key", with(100, &[0x81, 0x81, 0x81, 0x81, 0]));
    malformed("a thousand levels under an unknown key", with(100, &[[0x81; 1_000].to_vec(), vec![0]].concat()));
    malformed("a sequence in too many bytes", with(3, &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1]));
    malformed("the length of a key in three bytes", with(0, &[&[0x59, 0, 32], &network().public().0[..]].concat()));
    malformed("the length of a list in two bytes", with(6, &[0x98, 1, 0x63, b't', b'c', b'p']));
    malformed("a list without a length", with(6, &[0x9f, 0x63, b't', b'c', b'p', 0xff]));
    malformed("a list that claims 2^32 entries", with(6, &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0]));
    add("a key that must be known", with(128, &[0]), Refused::UnknownKey);
    add("a key that must be known, inside an unknown value", with(100, &[0xa1, 0x18, 128, 0]), Refused::UnknownKey);
}

fn types(all: &mut Vec<Hostile>) {
    let grant = payload(&grant_envelope());
    let rich = payload(&signed(rich_record(), &alice()));
    let network_object = payload(&signed(network_object(), &network()));
    let endpoints = payload(&signed(endpoints(), &alice()));
    let auth = payload(&signed(auth(), &alice()));
    let token = payload(&signed(token(), &network()));
    let relay_bind = payload(&signed(relay_bind(), &alice()));
    let mut add = |kind, note, payload: Cbor| {
        let key = if matches!(kind, Kind::Network | Kind::Token) { network() } else { alice() };
        add(all, kind, note, sign(kind, &payload.bytes(), &key), Refused::Malformed);
    };
    add(Kind::Grant, "without its sequence", grant.clone().without(3));
    add(Kind::Grant, "without its scopes", grant.clone().without(6));
    add(Kind::Grant, "a sequence as text", grant.clone().with(3, Cbor::text("1")));
    add(Kind::Grant, "a sequence as a truth value", grant.clone().with(3, Cbor::Bool(true)));
    add(Kind::Grant, "a key of 31 bytes", grant.clone().with(2, Cbor::Bytes(vec![1; 31])));
    add(Kind::Grant, "a key as an array of numbers", grant.clone().with(2, Cbor::Array(vec![Cbor::Number(1); 32])));
    add(Kind::Grant, "a request's number of 15 bytes", grant.clone().with(7, Cbor::Bytes(vec![1; 15])));
    add(Kind::Grant, "one scope without a list", grant.clone().with(6, Cbor::text("tcp")));
    add(Kind::Grant, "a scope as bytes", grant.with(6, Cbor::Array(vec![Cbor::Bytes(b"tcp".to_vec())])));
    let service = |parts: &[Cbor]| rich.clone().with(11, Cbor::Array(vec![Cbor::Array(parts.to_vec())]));
    let parts = [Cbor::text("http"), Cbor::Number(6), Cbor::Number(80), Cbor::text(""), Cbor::Number(0)];
    add(Kind::Record, "a service of five parts", service(&parts));
    add(Kind::Record, "a service of three parts", service(&parts[..3]));
    let [name, _, _, text, _] = &parts;
    let with = |transport, port| service(&[name.clone(), Cbor::Number(transport), Cbor::Number(port), text.clone()]);
    add(Kind::Record, "a service over an unknown protocol", with(1, 80));
    add(Kind::Record, "a service on port 65,536", with(6, 65_536));
    add(Kind::Record, "a service as a map", rich.clone().with(11, Cbor::Array(vec![Cbor::Map(Vec::new())])));
    add(Kind::Record, "an IPv4 address of 5 bytes", rich.clone().with(6, Cbor::Bytes(vec![10, 64, 0, 1, 1])));
    add(Kind::Record, "an unknown visibility", rich.clone().with(12, Cbor::Number(3)));
    add(Kind::Record, "an attestation of one part", rich.clone().with(14, Cbor::Array(vec![Cbor::Bytes(Vec::new())])));
    let attestation = attestation();
    let bytes = [attestation.token, attestation.bind, Vec::new()].map(Cbor::Bytes).to_vec();
    add(Kind::Record, "an attestation of three parts", rich.with(14, Cbor::Array(bytes)));
    let pool = |parts: &[Cbor]| network_object.clone().with(4, Cbor::Array(parts.to_vec()));
    let octets = Cbor::Bytes(vec![10, 64, 0, 0]);
    add(Kind::Network, "a pool of three parts", pool(&[octets.clone(), Cbor::Number(16), Cbor::Number(0)]));
    add(Kind::Network, "a prefix of 256 bits", pool(&[octets, Cbor::Number(256)]));
    add(Kind::Network, "a number as a truth value", network_object.with(6, Cbor::Number(1)));
    let place = [Cbor::Bytes(vec![192, 0, 2, 1]), Cbor::Number(1), Cbor::Number(1)];
    add(Kind::Endpoints, "a place of three parts", endpoints.with(5, Cbor::Array(vec![Cbor::Array(place.to_vec())])));
    add(Kind::Auth, "an unknown role", auth.with(0, Cbor::Number(2)));
    add(Kind::Token, "2^32 uses", token.with(4, Cbor::Number(1 << 32)));
    add(Kind::RelayBind, "without its epoch", relay_bind.clone().without(5));
    add(Kind::RelayBind, "a cookie of 17 bytes", relay_bind.clone().with(4, Cbor::Bytes(vec![1; 17])));
    let lowest = [Cbor::Bytes(bob().public().0.to_vec()), Cbor::Number(NOW), Cbor::Number(0)];
    add(Kind::RelayBind, "a subject of three parts", {
        relay_bind.with(7, Cbor::Array(vec![Cbor::Array(lowest.to_vec())]))
    });
}

fn signatures(all: &mut Vec<Hostile>) {
    let payload = payload(&grant_envelope()).bytes();
    let good = signature(Kind::Grant, &payload, &alice());
    let mut add = |kind, note, payload: &[u8], signature: &[u8], refused| {
        add(all, kind, note, envelope(payload, signature), refused);
    };
    let other = signature(Kind::Grant, &payload, &bob());
    add(Kind::Grant, "signed by a different key", &payload, &other, Refused::BadSignature);
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    add(Kind::Grant, "one bit of the signature differs", &payload, &flipped, Refused::BadSignature);
    add(Kind::Grant, "the signature plus the order of the group", &payload, &plus_order(&good), Refused::BadSignature);
    add(Kind::Grant, "a signature of zeros", &payload, &[0; 64], Refused::BadSignature);
    let revoke = self::payload(&signed(revoke(), &alice())).bytes();
    let as_revoke = signature(Kind::Revoke, &payload, &alice());
    add(Kind::Grant, "signed as a revoke", &payload, &as_revoke, Refused::BadSignature);
    let as_permit = signature(Kind::Permit, &revoke, &alice());
    add(Kind::Revoke, "signed as a permit", &revoke, &as_permit, Refused::BadSignature);
    let bind = self::payload(&signed(relay_bind(), &alice())).bytes();
    let as_bind = signature(Kind::Bind, &bind, &alice());
    add(Kind::RelayBind, "signed as the bind of a token", &bind, &as_bind, Refused::BadSignature);
    let permit = self::payload(&signed(relay_permit(), &alice())).bytes();
    let by_subject = signature(Kind::RelayPermit, &permit, &bob());
    add(Kind::RelayPermit, "signed by its subject", &permit, &by_subject, Refused::BadSignature);
    let bare = alice().sign(&payload).to_vec();
    add(Kind::Grant, "signed without its kind", &payload, &bare, Refused::BadSignature);
    // With R the point of order 1 and S = 0, a lax verifier takes this signature for any message.
    let by_anybody = [&WEAK[..], &[0; 32]].concat();
    let weak = |key: [u8; 32]| Cbor::read(&payload).with(1, Cbor::Bytes(key.to_vec())).bytes();
    add(Kind::Grant, "signed by a point of order 1", &weak(WEAK), &by_anybody, Refused::WeakKey);
    add(Kind::Grant, "signed by a point of order 4", &weak([0; 32]), &by_anybody, Refused::WeakKey);
    add(Kind::Grant, "signed by what is not a point", &weak([2; 32]), &by_anybody, Refused::WeakKey);
    add(Kind::Grant, "signed by a second encoding of a point", &weak(second_encoding()), &good, Refused::WeakKey);
}

/// A point with a y of 3, written as 3 + 2^255 - 19. It is not of small order.
pub(super) fn second_encoding() -> [u8; 32] {
    let mut point = [0xff; 32];
    (point[0], point[31]) = (0xed + 3, 0x7f);
    point
}

/// The signature with the order of the group added to S, which gives the same point.
fn plus_order(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in sum[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry as u8;
        carry >>= 8;
    }
    sum
}

/// Signs the payload of a good object with one value changed.
fn changed<T: Object>(good: T, signer: &SecretKey, key: u64, value: Cbor) -> Vec<u8> {
    let payload = payload(&signed(good, signer)).with(key, value);
    sign(T::KIND, &payload.bytes(), signer)
}

fn keys(all: &mut Vec<Hostile>) {
    let weak = || Cbor::Bytes(WEAK.to_vec());
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::WeakKey);
    add(Kind::Grant, "a network of order 1", changed(grant(), &alice(), 0, weak()));
    add(Kind::Grant, "a subject of order 1", changed(grant(), &alice(), 2, weak()));
    let second = || Cbor::Bytes(second_encoding().to_vec());
    add(Kind::Grant, "a subject in a second encoding", changed(grant(), &alice(), 2, second()));
    add(Kind::Membership, "a member that is not a point", {
        changed(membership(), &rendezvous(), 2, Cbor::Bytes(vec![2; 32]))
    });
    add(Kind::RelayPermit, "a relay of order 1", changed(relay_permit(), &alice(), 1, weak()));
    let lowest = Cbor::Array(vec![Cbor::Array(vec![weak(), Cbor::Number(NOW)])]);
    add(Kind::RelayBind, "a subject of order 1", changed(relay_bind(), &alice(), 7, lowest));
    let place = Cbor::Array(vec![Cbor::text("https://rv.example"), weak()]);
    add(Kind::Network, "a rendezvous of order 1", changed(network_object(), &network(), 5, Cbor::Array(vec![place])));
    let x25519 = |last: u8| Cbor::Bytes([&[0; 31][..], &[last]].concat());
    let tunnel = Cbor::Array(vec![x25519(0)]);
    add(Kind::Record, "a tunnel key of zeros", changed(record(), &alice(), 7, tunnel));
    add(Kind::Record, "a mailbox key of zeros, with the top bit", changed(record(), &alice(), 8, x25519(0x80)));
    let xwing = Cbor::Bytes([vec![7; XWING_KEY_LEN - 32], vec![0; 32]].concat());
    add(Kind::Record, "an X-Wing key that ends in zeros", changed(record(), &alice(), 9, xwing));
}

fn names(all: &mut Vec<Hostile>) {
    for (note, name) in [
        ("an empty name", ""),
        ("a name of 33 characters", "a-name-of-thirty-three-characters"),
        ("a name with a capital letter", "Alice"),
        ("a name with a dot", "alice.lab"),
        ("a name with a letter that is not ASCII", "аlice"),
        ("a name that begins with a hyphen", "-alice"),
        ("a name of digits", "1234"),
        ("a name that begins with xn--", "xn--alice"),
        ("a reserved name", "localhost"),
    ] {
        add(all, Kind::Record, note, changed(record(), &alice(), 5, Cbor::text(name)), Refused::BadName);
    }
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::BadName);
    add(Kind::Release, "a name that ends with a hyphen", changed(release(), &alice(), 4, Cbor::text("alice-")));
    add(Kind::Network, "a reserved name", changed(network_object(), &network(), 3, Cbor::text("overlay")));
    add(Kind::Token, "a name with a NUL", changed(token(), &network(), 6, Cbor::text("alice\0")));
    let tags = || Cbor::Array(vec![Cbor::text("a_b")]);
    add(Kind::Token, "a tag with an underscore", changed(token(), &network(), 7, tags()));
    add(Kind::Record, "a tag with an underscore", changed(record(), &alice(), 10, tags()));
    let service = Cbor::Array(vec![Cbor::text("web server"), Cbor::Number(6), Cbor::Number(80), Cbor::text("")]);
    add(Kind::Record, "a service with a space", changed(record(), &alice(), 11, Cbor::Array(vec![service])));
}

fn scopes(all: &mut Vec<Hostile>) {
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::BadScope);
    let list = |scope: &str| Cbor::Array(vec![Cbor::text(scope)]);
    for (note, scope) in [
        ("an empty scope", ""),
        ("a scope with port 0", "tcp/0"),
        ("a scope with ports from high to low", "tcp/9-8"),
        ("a scope in capital letters", "TCP/22"),
        ("a scope with a leading zero", "tcp/022"),
        ("a scope of an extension header", "44"),
        ("a scope of ICMP with a port", "icmp/8"),
    ] {
        add(Kind::Grant, note, changed(grant(), &alice(), 6, list(scope)));
    }
    let many = Cbor::Array(vec![Cbor::text("tcp"); MAX_SCOPES + 1]);
    add(Kind::Grant, "33 scopes", changed(grant(), &alice(), 6, many));
    add(Kind::Request, "a wish that is not a scope", changed(request(), &alice(), 7, list("everything")));
}

fn values(all: &mut Vec<Hostile>) {
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::BadValue);
    let number = Cbor::Number;
    let key = |key: SecretKey| Cbor::Bytes(key.public().0.to_vec());
    add(Kind::Network, "sequence 0", changed(network_object(), &network(), 1, number(0)));
    add(Kind::Record, "sequence 0", changed(record(), &alice(), 2, number(0)));
    add(Kind::Grant, "sequence 0", changed(grant(), &alice(), 3, number(0)));
    add(Kind::Revoke, "sequence 0", changed(revoke(), &alice(), 3, number(0)));
    add(Kind::Endpoints, "sequence 0", changed(endpoints(), &alice(), 3, number(0)));
    add(Kind::Release, "sequence 0", changed(release(), &alice(), 2, number(0)));
    add(Kind::Grant, "it ends when it was signed", changed(grant(), &alice(), 5, number(NOW)));
    add(Kind::Grant, "to its issuer", changed(grant(), &alice(), 2, key(alice())));
    add(Kind::Revoke, "to its issuer", changed(revoke(), &alice(), 2, key(alice())));
    add(Kind::Permit, "to its issuer", changed(permit(), &alice(), 2, key(alice())));
    add(Kind::Endpoints, "for their sender", changed(endpoints(), &alice(), 2, key(alice())));
    add(Kind::Record, "fresh for more than 7 days", changed(record(), &alice(), 4, number(NOW + MAX_FRESH + 1)));
    add(Kind::Record, "fresh until before it was signed", changed(record(), &alice(), 4, number(NOW - 1)));
    let lifetime = number(NOW + MAX_REQUEST_LIFETIME + 1);
    add(Kind::Request, "for more than 30 days", changed(request(), &alice(), 5, lifetime));
    add(Kind::Request, "it ends before it was signed", changed(request(), &alice(), 5, number(NOW - 1)));
    let reason = Cbor::Text("x".repeat(MAX_REASON_LEN + 1));
    add(Kind::Request, "a reason of 257 bytes", changed(request(), &alice(), 6, reason));
    let week = 7 * 24 * 3_600 * 1_000;
    add(Kind::Membership, "for more than 7 days", changed(membership(), &rendezvous(), 4, number(NOW + week + 1)));
    add(Kind::Membership, "it ends when it was signed", changed(membership(), &rendezvous(), 4, number(NOW)));
    add(Kind::Permit, "it ends when it was signed", changed(permit(), &alice(), 4, number(NOW)));
    add(Kind::Token, "it ends when it was signed", changed(token(), &network(), 3, number(NOW)));
    add(Kind::RelayPermit, "sequence 0", changed(relay_permit(), &alice(), 4, number(0)));
    add(Kind::RelayPermit, "to its issuer", changed(relay_permit(), &alice(), 3, key(alice())));
    let lifetime = number(NOW + MAX_RELAY_PERMIT + 1);
    add(Kind::RelayPermit, "for more than 30 days", changed(relay_permit(), &alice(), 6, lifetime));
    add(Kind::RelayPermit, "it ends when it was signed", changed(relay_permit(), &alice(), 6, number(NOW)));
    add(Kind::RelayBind, "epoch 0", changed(relay_bind(), &alice(), 5, number(0)));
    let lowest = |subject, sequence| Cbor::Array(vec![Cbor::Array(vec![key(subject), number(sequence)])]);
    add(Kind::RelayBind, "a subject that is the agent", changed(relay_bind(), &alice(), 7, lowest(alice(), NOW)));
    add(
        Kind::RelayBind,
        "a subject without a higher bound",
        changed(relay_bind(), &alice(), 7, lowest(bob(), NOW - 2)),
    );
    let pool = |octets: [u8; 4], len| Cbor::Array(vec![Cbor::Bytes(octets.to_vec()), number(len)]);
    for (note, pool) in [
        ("a pool of 25 bits", pool([10, 64, 0, 0], 25)),
        ("a pool of 7 bits", pool([10, 0, 0, 0], 7)),
        ("a pool of 255 bits", pool([10, 64, 0, 0], 255)),
        ("a pool with bits behind its prefix", pool([10, 64, 0, 1], 16)),
        ("a pool of multicast addresses", pool([224, 0, 0, 0], 8)),
        ("a pool of loopback addresses", pool([127, 0, 0, 0], 8)),
        ("a pool of addresses that begin with 0", pool([0, 0, 0, 0], 8)),
    ] {
        add(Kind::Network, note, changed(network_object(), &network(), 4, pool));
    }
    for (note, url) in [
        ("a URL without TLS", "http://rv.example"),
        ("a URL without a host", "https://"),
        ("a URL with a user", "https://user@rv.example"),
        ("a URL with a fragment", "https://rv.example#key"),
        ("a URL with a space", "https://rv.example/a b"),
        ("a URL that is not ASCII", "https://rv.exämple"),
    ] {
        let list = Cbor::Array(vec![Cbor::Array(vec![Cbor::text(url), key(rendezvous())])]);
        add(Kind::Network, note, changed(network_object(), &network(), 5, list));
    }
    let long = format!("https://{}", "a".repeat(121));
    let list = Cbor::Array(vec![Cbor::Array(vec![Cbor::text(&long), key(rendezvous())])]);
    add(Kind::Network, "a URL of 129 bytes", changed(network_object(), &network(), 5, list));
    let place = |ip: &str, port| {
        let bytes = match ip.parse().expect("an address") {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Cbor::Array(vec![Cbor::Array(vec![Cbor::Bytes(bytes), number(port)])])
    };
    for (note, places) in [
        ("port 0", place("192.0.2.1", 0)),
        ("an unspecified address", place("0.0.0.0", 1)),
        ("an unspecified IPv6 address", place("::", 1)),
        ("a multicast address", place("224.0.0.1", 1)),
        ("an IPv6 multicast address", place("ff02::1", 1)),
        ("the broadcast address", place("255.255.255.255", 1)),
        ("an IPv4 address in an IPv6 address", place("::ffff:192.0.2.1", 1)),
        ("an address of five bytes", Cbor::Array(vec![Cbor::Array(vec![Cbor::Bytes(vec![1; 5]), number(1)])])),
    ] {
        add(Kind::Endpoints, note, changed(endpoints(), &alice(), 5, places));
    }
}

fn lists(all: &mut Vec<Hostile>) {
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::BadValue);
    let array = |len: usize, value: &Cbor| Cbor::Array(vec![value.clone(); len]);
    let tags = |len| Cbor::Array((0..len).map(|n| Cbor::Text(format!("t{n}"))).collect());
    let x25519 = |len| Cbor::Array((0..len).map(|n| Cbor::Bytes(vec![n + 9; 32])).collect());
    let record = |key, value| changed(record(), &alice(), key, value);
    add(Kind::Record, "without a tunnel key", record(7, x25519(0)));
    add(Kind::Record, "three tunnel keys", record(7, x25519(3)));
    add(Kind::Record, "one tunnel key twice", record(7, array(2, &Cbor::Bytes(vec![9; 32]))));
    add(Kind::Record, "a tunnel key with the top bit", record(7, array(1, &Cbor::Bytes(vec![0x89; 32]))));
    let above = second_encoding();
    add(Kind::Record, "a mailbox key of 2^255 - 16", record(8, Cbor::Bytes(above.to_vec())));
    add(Kind::Record, "an X-Wing key of 1,215 bytes", record(9, Cbor::Bytes(vec![7; XWING_KEY_LEN - 1])));
    add(Kind::Record, "17 tags", record(10, tags(MAX_TAGS + 1)));
    add(Kind::Record, "one tag twice", record(10, array(2, &Cbor::text("gpu"))));
    let service =
        |port, text: &str| Cbor::Array(vec![Cbor::text("http"), Cbor::Number(6), Cbor::Number(port), Cbor::text(text)]);
    add(Kind::Record, "17 services", record(11, array(MAX_SERVICES + 1, &service(80, ""))));
    add(Kind::Record, "a service on port 0", record(11, array(1, &service(0, ""))));
    add(Kind::Record, "a service's text of 65 bytes", record(11, array(1, &service(80, &"x".repeat(65)))));
    add(Kind::Token, "17 tags", changed(token(), &network(), 7, tags(MAX_TAGS + 1)));
    add(Kind::Token, "one tag twice", changed(token(), &network(), 7, array(2, &Cbor::text("ci"))));
    let place = Cbor::Array(vec![Cbor::Bytes(vec![192, 0, 2, 1]), Cbor::Number(1)]);
    add(Kind::Endpoints, "17 places", changed(endpoints(), &alice(), 5, array(MAX_ENDPOINTS + 1, &place)));
    let url = Cbor::text("https://rv.example");
    let rendezvous = Cbor::Array(vec![url, Cbor::Bytes(rendezvous().public().0.to_vec())]);
    add(Kind::Network, "nine rendezvous", changed(network_object(), &network(), 5, array(9, &rendezvous)));
    let lowest = |byte| Cbor::Array(vec![Cbor::Bytes(key(byte).public().0.to_vec()), Cbor::Number(NOW)]);
    let subjects = |count| Cbor::Array((10..).take(count).map(lowest).collect());
    add(Kind::RelayBind, "13 subjects", changed(relay_bind(), &alice(), 7, subjects(MAX_LOWEST + 1)));
    let twice = Cbor::Array(vec![lowest(3), lowest(3)]);
    add(Kind::RelayBind, "one subject twice", changed(relay_bind(), &alice(), 7, twice));
    add(Kind::Auth, "without a version", changed(auth(), &alice(), 1, Cbor::Array(Vec::new())));
    add(Kind::Auth, "nine versions", changed(auth(), &alice(), 1, array(9, &Cbor::Number(1))));
}

fn parts(all: &mut Vec<Hostile>) {
    let mut add = |kind, note, envelope| add(all, kind, note, envelope, Refused::BadPart);
    let bytes = |envelope: Vec<u8>| Cbor::Bytes(envelope);
    let asked = |grant: Vec<u8>| changed(request(), &alice(), 8, bytes(grant));
    add(Kind::Request, "no grant", asked(Vec::new()));
    add(Kind::Request, "a revoke in place of the grant", asked(signed(revoke(), &alice())));
    add(Kind::Request, "the grant of a different issuer", asked(signed(answer(), &bob())));
    let to = |subject: SecretKey| Grant { subject: subject.public(), ..grant() };
    add(Kind::Request, "a grant to somebody else", asked(signed(to(key(6)), &alice())));
    let elsewhere = Grant { network: key(6).public(), ..grant() };
    add(Kind::Request, "a grant in a different network", asked(signed(elsewhere, &alice())));
    let mut forged = signed(grant(), &alice());
    *forged.last_mut().expect("not empty") ^= 1;
    add(Kind::Request, "a grant with a bad signature", asked(forged));
    let approved = |grant: Grant| changed(approval(), &bob(), 4, bytes(signed(grant, &bob())));
    add(Kind::Approval, "a grant that answers no request", approved(Grant { request: None, ..answer() }));
    add(
        Kind::Approval,
        "a grant that answers a different request",
        approved(Grant { request: Some([0x12; 16]), ..answer() }),
    );
    let attested =
        |token: Vec<u8>, bind: Vec<u8>| changed(record(), &alice(), 14, Cbor::Array(vec![bytes(token), bytes(bind)]));
    let good = attestation();
    let bound = |identity: SecretKey| signed(Bind { identity: identity.public(), ..bind() }, &token_key());
    add(Kind::Record, "an attestation for somebody else", attested(good.token.clone(), bound(bob())));
    let own = Token { network: alice().public(), ..token() };
    add(Kind::Record, "a token that the agent signed itself", attested(signed(own, &alice()), good.bind.clone()));
    let second = Token { token: key(6).public(), ..token() };
    add(Kind::Record, "a token that the bind does not name", attested(signed(second, &network()), good.bind.clone()));
    let elsewhere = signed(Bind { network: key(6).public(), ..bind() }, &token_key());
    add(Kind::Record, "a bind in a different network", attested(good.token.clone(), elsewhere));
    let named = Token { name: Some("carol".to_owned()), ..token() };
    add(Kind::Record, "a token for a different name", attested(signed(named, &network()), good.bind.clone()));
    add(Kind::Record, "the parts in the wrong order", attested(good.bind, good.token));
    let member = |envelope| changed(relay_bind(), &alice(), 8, bytes(envelope));
    add(Kind::RelayBind, "a permit in place of the membership", member(signed(permit(), &alice())));
    let of = |value: Membership| signed(value, &rendezvous());
    let somebody = Membership { identity: bob().public(), ..membership() };
    add(Kind::RelayBind, "the membership of somebody else", member(of(somebody)));
    let elsewhere = Membership { network: key(6).public(), ..membership() };
    add(Kind::RelayBind, "a membership in a different network", member(of(elsewhere)));
}
