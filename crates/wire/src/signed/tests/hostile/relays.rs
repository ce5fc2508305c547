//! Endpoints with relays that must be refused.

use super::*;

/// The bytes of an address in a row: 198.51.100.9, port 7447.
const ADDRESS: [u8; 6] = [198, 51, 100, 9, 29, 23];

pub(super) fn add_all(all: &mut Vec<Hostile>) {
    let mut value = |note, rows: Vec<Cbor>| {
        add(all, Kind::Endpoints, note, changed(endpoints(), &alice(), 6, Cbor::Array(rows)), Refused::BadValue);
    };
    let at = |relay: SecretKey| row(&ADDRESS, RelayPermit { relay: relay.public(), ..relay_permit() }, &alice());
    value("an empty list of relays", Vec::new());
    value("three relays", vec![at(rendezvous()), at(key(5)), at(key(6))]);
    value("one relay twice", vec![at(rendezvous()), at(rendezvous())]);
    for (note, addresses) in [
        ("a relay without an address", &[][..]),
        ("a relay with half an address", &[198, 51, 100, 9]),
        ("a relay with two IPv4 addresses", &[198, 51, 100, 9, 1, 1, 198, 51, 100, 8, 1, 1]),
        ("a relay on port 0", &[198, 51, 100, 9, 0, 0]),
        ("a relay at a multicast address", &[224, 0, 0, 1, 1, 1]),
    ] {
        value(note, vec![row(addresses, relay_permit(), &alice())]);
    }

    let mut part = |note, row: Cbor| {
        let envelope = changed(endpoints(), &alice(), 6, Cbor::Array(vec![row]));
        add(all, Kind::Endpoints, note, envelope, Refused::BadPart);
    };
    let bytes = |permit| Cbor::Array(vec![Cbor::Bytes(ADDRESS.to_vec()), Cbor::Bytes(permit)]);
    part("a relay without a permit", bytes(Vec::new()));
    part("a permit for letters", bytes(signed(permit(), &alice())));
    let theirs = RelayPermit { issuer: bob().public(), subject: alice().public(), ..relay_permit() };
    part("a permit of the reader", row(&ADDRESS, theirs, &bob()));
    let away = key(6).public();
    part("a permit for somebody else", row(&ADDRESS, RelayPermit { subject: away, ..relay_permit() }, &alice()));
    part("a permit in a different network", row(&ADDRESS, RelayPermit { network: away, ..relay_permit() }, &alice()));

    let three = Cbor::Array(vec![Cbor::Bytes(ADDRESS.to_vec()), Cbor::Bytes(Vec::new()), Cbor::Number(0)]);
    let envelope = changed(endpoints(), &alice(), 6, Cbor::Array(vec![three]));
    add(all, Kind::Endpoints, "a relay of three parts", envelope, Refused::Malformed);
}

fn row(addresses: &[u8], permit: RelayPermit, issuer: &SecretKey) -> Cbor {
    Cbor::Array(vec![Cbor::Bytes(addresses.to_vec()), Cbor::Bytes(signed(permit, issuer))])
}
