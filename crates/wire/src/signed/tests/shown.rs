//! The fields of objects as JSON, by the names of the fields, for the vectors. Bytes are hex.

use serde_json::{Value, json};

use super::super::*;

/// Opens an envelope as an object of `kind`, and shows its fields.
pub(super) fn open(kind: Kind, bytes: &[u8]) -> Result<Value, Refused> {
    fn fields<T: Object + Shown>(bytes: &[u8]) -> Result<Value, Refused> {
        Signed::<T>::open(bytes).map(|signed| signed.shown())
    }
    match kind {
        Kind::Network => fields::<Network>(bytes),
        Kind::Record => fields::<Record>(bytes),
        Kind::Grant => fields::<Grant>(bytes),
        Kind::Revoke => fields::<Revoke>(bytes),
        Kind::Request => fields::<Request>(bytes),
        Kind::Approval => fields::<Approval>(bytes),
        Kind::Endpoints => fields::<Endpoints>(bytes),
        Kind::Permit => fields::<Permit>(bytes),
        Kind::Token => fields::<Token>(bytes),
        Kind::Membership => fields::<Membership>(bytes),
        Kind::Release => fields::<Release>(bytes),
        Kind::Auth => fields::<Auth>(bytes),
        Kind::Bind => fields::<Bind>(bytes),
        Kind::RelayBind => fields::<RelayBind>(bytes),
        Kind::RelayPermit => fields::<RelayPermit>(bytes),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn key(key: &PublicKey) -> String {
    hex(&key.0)
}

fn relay_row(place: &RelayPlace) -> Value {
    json!([hex(&place.addresses), hex(&place.permit)])
}

trait Shown {
    fn shown(&self) -> Value;
}

/// Shows every field. The pattern names them all, so a field that is added must be added here.
macro_rules! shown {
    ($kind:ident { $($field:ident: $value:expr),* $(,)? }) => {
        impl Shown for $kind {
            fn shown(&self) -> Value {
                let Self { $($field),* } = self;
                let mut fields = serde_json::Map::new();
                $(
                    let value = json!($value);
                    if !value.is_null() {
                        fields.insert(stringify!($field).to_owned(), value);
                    }
                )*
                Value::Object(fields)
            }
        }
    };
}

shown!(Network {
    network: key(network),
    sequence: sequence,
    issued: issued,
    name: name,
    pool: [json!(hex(&pool.address().octets())), json!(pool.prefix_len())],
    rendezvous: rendezvous.iter().map(|place| [place.url.clone(), key(&place.key)]).collect::<Vec<_>>(),
    is_closed: is_closed,
});
shown!(Record {
    network: key(network),
    identity: key(identity),
    sequence: sequence,
    issued: issued,
    fresh_until: fresh_until,
    name: name,
    ipv4: ipv4.map(|address| hex(&address)),
    tunnel_keys: tunnel_keys.iter().map(|key| hex(&key.0)).collect::<Vec<_>>(),
    mailbox_x25519: hex(mailbox_x25519),
    mailbox_xwing: mailbox_xwing.as_ref().map(|key| hex(key)),
    tags: tags,
    services: services.iter().map(service).collect::<Vec<_>>(),
    visibility: *visibility as u8,
    abilities: abilities.0,
    attestation: attestation.as_ref().map(|parts| [hex(&parts.token), hex(&parts.bind)]),
});
shown!(Grant {
    network: key(network),
    issuer: key(issuer),
    subject: key(subject),
    sequence: sequence,
    issued: issued,
    expires: expires,
    allow: allow.0,
    request: request.map(|id| hex(&id)),
});
shown!(Revoke {
    network: key(network),
    issuer: key(issuer),
    subject: key(subject),
    sequence: sequence,
    issued: issued,
});
shown!(Request {
    network: key(network),
    from: key(from),
    to: key(to),
    id: hex(id),
    issued: issued,
    expires: expires,
    reason: reason,
    want: want.0,
    grant: hex(grant),
    psk_share: hex(&psk_share.0),
});
shown!(Approval {
    network: key(network),
    from: key(from),
    to: key(to),
    request: hex(request),
    grant: hex(grant),
    psk_share: hex(&psk_share.0),
});
shown!(Endpoints {
    network: key(network),
    from: key(from),
    to: key(to),
    sequence: sequence,
    issued: issued,
    places: places.iter().map(place).collect::<Vec<_>>(),
    relays: relays.as_ref().map(|relays| relays.iter().map(relay_row).collect::<Vec<_>>()),
});
shown!(Permit { network: key(network), issuer: key(issuer), subject: key(subject), issued: issued, expires: expires });
shown!(Token {
    network: key(network),
    token: key(token),
    issued: issued,
    expires: expires,
    uses: uses,
    is_ephemeral: is_ephemeral,
    name: name,
    tags: tags,
});
shown!(Membership {
    network: key(network),
    rendezvous: key(rendezvous),
    identity: key(identity),
    issued: issued,
    expires: expires,
});
shown!(Release { network: key(network), identity: key(identity), sequence: sequence, issued: issued, name: name });
shown!(Auth {
    role: *role as u8,
    versions: versions,
    network: key(network),
    rendezvous: key(rendezvous),
    identity: key(identity),
    epoch: epoch,
    hash: hex(hash),
    issued: issued,
});
shown!(Bind { network: key(network), token: key(token), identity: key(identity), nonce: hex(nonce) });
shown!(RelayBind {
    network: key(network),
    relay: key(relay),
    identity: key(identity),
    nonce: hex(nonce),
    cookie: hex(cookie),
    epoch: epoch,
    lowest: lowest,
    lowest_of: lowest_of.iter().map(|of| json!([key(&of.subject), of.sequence])).collect::<Vec<_>>(),
    membership: membership.as_ref().map(|envelope| hex(envelope)),
});
shown!(RelayPermit {
    network: key(network),
    relay: key(relay),
    issuer: key(issuer),
    subject: key(subject),
    sequence: sequence,
    issued: issued,
    expires: expires,
});

fn service(service: &Service) -> Value {
    let number = match service.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    json!([service.name, number, service.port, service.text])
}

fn place(place: &Place) -> Value {
    let address = place.address().expect("a place that was checked");
    let bytes = match address.ip() {
        std::net::IpAddr::V4(ip) => hex(&ip.octets()),
        std::net::IpAddr::V6(ip) => hex(&ip.octets()),
    };
    json!([bytes, address.port()])
}
