//! One good object of each kind. The keys are the same every time.

use std::net::Ipv4Addr;

use super::super::*;

/// When everything was signed.
pub(super) const NOW: u64 = 1_800_000_000_000;
/// The longest lifetime of objects that are valid for any time, as the tests make them.
pub(super) const LONGEST: u64 = 365 * DAY;
const DAY: u64 = 24 * 3_600 * 1_000;

pub(super) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

pub(super) fn network() -> SecretKey {
    key(1)
}

pub(super) fn alice() -> SecretKey {
    key(2)
}

pub(super) fn bob() -> SecretKey {
    key(3)
}

pub(super) fn rendezvous() -> SecretKey {
    key(4)
}

pub(super) fn token_key() -> SecretKey {
    key(5)
}

/// The envelope of a good object.
pub(super) fn signed<T: Object>(value: T, key: &SecretKey) -> Vec<u8> {
    Signed::sign(value, key).expect("a good object").bytes().to_vec()
}

pub(super) fn pool() -> Pool {
    Pool::new(Ipv4Addr::new(10, 64, 0, 0), 16).expect("a pool")
}

pub(super) fn network_object() -> Network {
    Network {
        network: network().public(),
        sequence: NOW,
        issued: NOW,
        name: "lab".to_owned(),
        pool: pool(),
        rendezvous: vec![Rendezvous { url: "https://rv.example:8443".to_owned(), key: rendezvous().public() }],
        is_closed: true,
    }
}

/// A record with nothing that can be left out.
pub(super) fn record() -> Record {
    Record {
        network: network().public(),
        identity: alice().public(),
        sequence: NOW,
        issued: NOW,
        fresh_until: NOW + DAY,
        name: "alice".to_owned(),
        ipv4: None,
        tunnel_keys: vec![TunnelKey([9; 32])],
        mailbox_x25519: [8; 32],
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    }
}

pub(super) fn service() -> Service {
    Service { name: "http".to_owned(), transport: Transport::Tcp, port: 80, text: "reports, \"daily\"".to_owned() }
}

pub(super) fn attestation() -> Attestation {
    Attestation { token: signed(token(), &network()), bind: signed(bind(), &token_key()) }
}

/// A record with everything.
pub(super) fn rich_record() -> Record {
    Record {
        ipv4: Some([10, 64, 1, 2]),
        tunnel_keys: vec![TunnelKey([9; 32]), TunnelKey([10; 32])],
        mailbox_xwing: Some(vec![7; XWING_KEY_LEN]),
        tags: vec!["gpu".to_owned(), "80".to_owned()],
        services: vec![service(), Service { name: "dns".to_owned(), transport: Transport::Udp, port: 53, ..service() }],
        visibility: Visibility::Public,
        abilities: Abilities(u64::MAX),
        attestation: Some(attestation()),
        ..record()
    }
}

/// A record with everything at its bound, but for the attestation.
pub(super) fn full_record() -> Record {
    Record {
        fresh_until: NOW + MAX_FRESH,
        ipv4: Some([10, 64, 1, 2]),
        tunnel_keys: vec![TunnelKey([9; 32]), TunnelKey([10; 32])],
        mailbox_xwing: Some(vec![7; XWING_KEY_LEN]),
        tags: (0..MAX_TAGS).map(|n| format!("{:a<31}{n:x}", "")).collect(),
        services: (0..MAX_SERVICES)
            .map(|n| Service {
                name: "a-service-with-the-longest-name0".to_owned(),
                transport: Transport::Tcp,
                port: 65_000 + n as u16,
                text: "x".repeat(64),
            })
            .collect(),
        visibility: Visibility::Hidden,
        ..record()
    }
}

pub(super) fn grant() -> Grant {
    Grant {
        network: network().public(),
        issuer: alice().public(),
        subject: bob().public(),
        sequence: NOW,
        issued: NOW,
        expires: None,
        allow: ScopeList(["tcp/443", "udp/6000-6010", "icmp"].map(str::to_owned).to_vec()),
        request: None,
    }
}

pub(super) fn revoke() -> Revoke {
    Revoke {
        network: network().public(),
        issuer: alice().public(),
        subject: bob().public(),
        sequence: NOW + 1,
        issued: NOW,
    }
}

pub(super) fn request() -> Request {
    Request {
        network: network().public(),
        from: alice().public(),
        to: bob().public(),
        id: [0x11; 16],
        issued: NOW,
        expires: NOW + MAX_REQUEST_LIFETIME,
        reason: "the nightly report, naïvely".to_owned(),
        want: ScopeList(vec!["any".to_owned()]),
        grant: signed(Grant { allow: ScopeList::default(), ..grant() }, &alice()),
        psk_share: Share([0x22; 32]),
    }
}

/// The grant of the approval: bob's, for alice's request.
pub(super) fn answer() -> Grant {
    Grant {
        issuer: bob().public(),
        subject: alice().public(),
        expires: Some(NOW + DAY),
        request: Some([0x11; 16]),
        ..grant()
    }
}

pub(super) fn approval() -> Approval {
    Approval {
        network: network().public(),
        from: bob().public(),
        to: alice().public(),
        request: [0x11; 16],
        grant: signed(answer(), &bob()),
        psk_share: Share([0x33; 32]),
    }
}

pub(super) fn endpoints() -> Endpoints {
    let places = ["192.0.2.1:51820", "[2001:db8::1]:443"];
    Endpoints {
        network: network().public(),
        from: alice().public(),
        to: bob().public(),
        sequence: NOW,
        issued: NOW,
        places: places.iter().map(|place| Place::from(place.parse::<std::net::SocketAddr>().expect("one"))).collect(),
        relays: None,
    }
}

/// A relay at these addresses, with a permit of alice for bob.
pub(super) fn relay_place(addresses: &[&str], relay: SecretKey) -> RelayPlace {
    let permit = RelayPermit { relay: relay.public(), ..relay_permit() };
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().expect("one")).collect();
    RelayPlace::new(&addresses, &Signed::sign(permit, &alice()).expect("a good permit")).expect("an address")
}

/// Endpoints with two relays.
pub(super) fn relayed_endpoints() -> Endpoints {
    let home = relay_place(&["[2001:db8::9]:7447", "198.51.100.9:7447"], rendezvous());
    let spare = relay_place(&["198.51.100.10:443"], key(6));
    Endpoints { relays: Some(vec![home, spare]), ..endpoints() }
}

pub(super) fn permit() -> Permit {
    Permit {
        network: network().public(),
        issuer: alice().public(),
        subject: bob().public(),
        issued: NOW,
        expires: NOW + 90 * DAY,
    }
}

pub(super) fn token() -> Token {
    Token {
        network: network().public(),
        token: token_key().public(),
        issued: NOW,
        expires: NOW + DAY,
        uses: 1,
        is_ephemeral: true,
        name: Some("alice".to_owned()),
        tags: vec!["ci".to_owned()],
    }
}

pub(super) fn membership() -> Membership {
    Membership {
        network: network().public(),
        rendezvous: rendezvous().public(),
        identity: alice().public(),
        issued: NOW,
        expires: NOW + 7 * DAY,
    }
}

pub(super) fn release() -> Release {
    Release {
        network: network().public(),
        identity: alice().public(),
        sequence: NOW + 2,
        issued: NOW,
        name: "alice".to_owned(),
    }
}

pub(super) fn auth() -> Auth {
    Auth {
        role: Role::Client,
        versions: vec![2, 1],
        network: network().public(),
        rendezvous: rendezvous().public(),
        identity: alice().public(),
        epoch: 0x0123_4567_89ab_cdef,
        hash: [0x44; 32],
        issued: NOW,
    }
}

pub(super) fn bind() -> Bind {
    Bind { network: network().public(), token: token_key().public(), identity: alice().public(), nonce: [0x55; 16] }
}

pub(super) fn relay() -> SecretKey {
    key(6)
}

/// A bind with everything.
pub(super) fn relay_bind() -> RelayBind {
    RelayBind {
        network: network().public(),
        relay: relay().public(),
        identity: alice().public(),
        nonce: [0x66; 16],
        cookie: [0x77; 16],
        epoch: NOW,
        lowest: NOW - 2,
        lowest_of: vec![Lowest { subject: bob().public(), sequence: NOW }],
        membership: Some(signed(membership(), &rendezvous())),
    }
}

pub(super) fn relay_permit() -> RelayPermit {
    RelayPermit {
        network: network().public(),
        relay: relay().public(),
        issuer: alice().public(),
        subject: bob().public(),
        sequence: NOW,
        issued: NOW,
        expires: NOW + MAX_RELAY_PERMIT,
    }
}

/// The longest bind.
pub(super) fn full_relay_bind() -> RelayBind {
    let lowest_of = (10..).take(MAX_LOWEST).map(|byte| Lowest { subject: key(byte).public(), sequence: u64::MAX });
    RelayBind { epoch: u64::MAX, lowest_of: lowest_of.collect(), ..relay_bind() }
}
