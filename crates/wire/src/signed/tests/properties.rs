//! Any valid value can be signed and opened, and nobody but the signer can change a bit of it.

use std::net::SocketAddr;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::super::*;
use super::good::{self, NOW, key, signed};
use super::shown;

fn sequence() -> impl Strategy<Value = u64> {
    prop_oneof![1..=u64::MAX, 1..300u64]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..=u64::MAX - good::LONGEST, 0..300u64, Just(NOW)]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?".prop_filter("reserved", |name| check_name(name).is_ok())
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    btree_set("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", 0..=MAX_TAGS).prop_map(|tags| tags.into_iter().collect())
}

fn scopes() -> impl Strategy<Value = ScopeList> {
    let ports =
        (1..=u16::MAX, 0..=u16::MAX).prop_map(|(first, more)| format!("{first}-{}", first.saturating_add(more)));
    let scope = prop_oneof![
        Just("any".to_owned()),
        Just("icmp".to_owned()),
        ports.prop_map(|ports| format!("tcp/{ports}")),
        (1..=u16::MAX).prop_map(|port| format!("udp/{port}")),
        (61..=255u8).prop_map(|number| number.to_string()),
    ];
    vec(scope, 0..=MAX_SCOPES).prop_map(ScopeList)
}

fn x25519() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>().prop_map(|mut key| {
        key[31] &= 0x7f;
        key
    })
}

/// An object of any kind, its bounds included, as its kind and its envelope.
fn objects() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    prop_oneof![
        networks(),
        records(),
        grants(),
        requests(),
        endpoints(),
        lifetimes(),
        tokens(),
        relays(),
        auths(),
        (sequence(), time(), name(), any::<[u8; 16]>()).prop_flat_map(|(sequence, issued, name, nonce)| {
            let alice = good::alice();
            let revoke = Revoke { sequence, issued, ..good::revoke() };
            let release = Release { sequence, issued, name, ..good::release() };
            let bind = Bind { nonce, ..good::bind() };
            prop_oneof![
                Just((Kind::Revoke, signed(revoke, &alice))),
                Just((Kind::Release, signed(release, &alice))),
                Just((Kind::Bind, signed(bind, &good::token_key()))),
            ]
        }),
    ]
}

fn networks() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let url = "https://[a-z0-9.-]{1,60}(:[0-9]{1,5})?";
    let places = vec((url, 1..99u8), 0..=8);
    (sequence(), time(), name(), places, 10..=11u8, 8..=24u8, any::<bool>()).prop_map(
        |(sequence, issued, name, places, first, prefix, is_closed)| {
            let rendezvous =
                places.into_iter().map(|(url, seed)| Rendezvous { url, key: key(seed).public() }).collect();
            let pool = Pool::new([first, 0, 0, 0].into(), prefix).expect("a pool");
            let network = Network { sequence, issued, name, pool, rendezvous, is_closed, ..good::network_object() };
            (Kind::Network, signed(network, &good::network()))
        },
    )
}

fn records() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let service = (name(), any::<bool>(), 1..=u16::MAX, ".{0,16}").prop_map(|(name, is_tcp, port, text)| Service {
        name,
        transport: if is_tcp { Transport::Tcp } else { Transport::Udp },
        port,
        text,
    });
    let times = (sequence(), time(), 0..=MAX_FRESH);
    let tunnel = btree_set(x25519(), 1..=2).prop_map(|keys| keys.into_iter().map(TunnelKey).collect::<Vec<_>>());
    let xwing = (vec(any::<u8>(), XWING_KEY_LEN - 32), x25519()).prop_map(|(mut key, end)| {
        key.extend(end);
        key
    });
    let keys = (tunnel, x25519(), option::of(xwing));
    let visibility = prop_oneof![Just(Visibility::Hidden), Just(Visibility::Members), Just(Visibility::Public)];
    let rest = (option::of(any::<[u8; 4]>()), visibility, any::<u64>());
    (times, keys, rest, tags(), vec(service, 0..=MAX_SERVICES), any::<bool>()).prop_map(
        |((sequence, issued, age), keys, (ipv4, visibility, abilities), tags, services, is_attested)| {
            let record = Record {
                sequence,
                issued,
                fresh_until: issued + age,
                ipv4,
                tunnel_keys: keys.0,
                mailbox_x25519: keys.1,
                mailbox_xwing: keys.2,
                tags,
                services,
                visibility,
                abilities: Abilities(abilities),
                attestation: (is_attested).then(good::attestation),
                ..good::record()
            };
            (Kind::Record, signed(record, &good::alice()))
        },
    )
}

fn grants() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    (sequence(), time(), option::of(1..=good::LONGEST), scopes(), option::of(any::<[u8; 16]>())).prop_map(
        |(sequence, issued, age, allow, request)| {
            let expires = age.map(|age| issued + age);
            let grant = Grant { sequence, issued, expires, allow, request, ..good::grant() };
            (Kind::Grant, signed(grant, &good::alice()))
        },
    )
}

fn requests() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let reason = "\\PC{0,64}|[\\x00-\\x7f]{0,256}";
    (any::<[u8; 16]>(), time(), 1..=MAX_REQUEST_LIFETIME, reason, scopes(), any::<[u8; 32]>(), any::<bool>()).prop_map(
        |(id, issued, age, reason, scopes, share, is_answer)| {
            let psk_share = Share(share);
            if is_answer {
                let grant = Grant { request: Some(id), allow: scopes, ..good::answer() };
                let grant = signed(grant, &good::bob());
                let approval = Approval { request: id, grant, psk_share, ..good::approval() };
                return (Kind::Approval, signed(approval, &good::bob()));
            }
            let grant = signed(Grant { allow: scopes.clone(), ..good::grant() }, &good::alice());
            let request = Request {
                id,
                issued,
                expires: issued + age,
                reason,
                want: scopes,
                grant,
                psk_share,
                ..good::request()
            };
            (Kind::Request, signed(request, &good::alice()))
        },
    )
}

fn endpoints() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let place = any::<SocketAddr>().prop_map(Place::from).prop_filter("sendable", |place| place.address().is_some());
    (sequence(), time(), vec(place, 0..=MAX_ENDPOINTS), any::<bool>()).prop_map(
        |(sequence, issued, places, is_relayed)| {
            let relays = if is_relayed { good::relayed_endpoints().relays } else { None };
            (
                Kind::Endpoints,
                signed(Endpoints { sequence, issued, places, relays, ..good::endpoints() }, &good::alice()),
            )
        },
    )
}

fn lifetimes() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    (time(), 1..=good::LONGEST, 1..=7 * 24 * 3_600 * 1_000u64, any::<bool>()).prop_map(
        |(issued, age, week, is_permit)| {
            if is_permit {
                let permit = Permit { issued, expires: issued + age, ..good::permit() };
                return (Kind::Permit, signed(permit, &good::alice()));
            }
            let membership = Membership { issued, expires: issued + week, ..good::membership() };
            (Kind::Membership, signed(membership, &good::rendezvous()))
        },
    )
}

fn relays() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let lowest = (0..=MAX_LOWEST, 0..u64::MAX - 1, 1..u64::MAX);
    (lowest, sequence(), time(), 1..=MAX_RELAY_PERMIT, any::<[u8; 16]>(), any::<bool>(), any::<bool>()).prop_map(
        |((count, lowest, above), sequence, issued, age, bytes, is_permit, is_member)| {
            if is_permit {
                let permit = RelayPermit { sequence, issued, expires: issued + age, ..good::relay_permit() };
                return (Kind::RelayPermit, signed(permit, &good::alice()));
            }
            let named = good::full_relay_bind().lowest_of.into_iter().take(count);
            let bind = RelayBind {
                nonce: bytes,
                epoch: sequence,
                lowest,
                lowest_of: named.map(|of| Lowest { sequence: lowest.saturating_add(above), ..of }).collect(),
                membership: good::relay_bind().membership.filter(|_| is_member),
                ..good::relay_bind()
            };
            (Kind::RelayBind, signed(bind, &good::alice()))
        },
    )
}

fn tokens() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    (time(), 1..=good::LONGEST, any::<u32>(), any::<bool>(), option::of(name()), tags()).prop_map(
        |(issued, age, uses, is_ephemeral, name, tags)| {
            let token = Token { issued, expires: issued + age, uses, is_ephemeral, name, tags, ..good::token() };
            (Kind::Token, signed(token, &good::network()))
        },
    )
}

fn auths() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    (vec(any::<u16>(), 1..=8), any::<u64>(), any::<[u8; 32]>(), time(), any::<bool>()).prop_map(
        |(versions, epoch, hash, issued, is_server)| {
            let (role, signer) = match is_server {
                true => (Role::Server, good::rendezvous()),
                false => (Role::Client, good::alice()),
            };
            (Kind::Auth, signed(Auth { role, versions, epoch, hash, issued, ..good::auth() }, &signer))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The strategies sign the value, and signing refuses what others would refuse.
    #[test]
    fn what_is_valid_is_signed_and_opened((kind, envelope) in objects()) {
        prop_assert!(shown::open(kind, &envelope).is_ok());
    }

    #[test]
    fn a_flipped_bit_is_refused((kind, envelope) in objects(), bit in any::<prop::sample::Index>()) {
        let mut envelope = envelope;
        let bit = bit.index(envelope.len() * 8);
        envelope[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(shown::open(kind, &envelope).is_err());
    }

    #[test]
    fn a_piece_of_an_envelope_is_refused((kind, envelope) in objects(), end in any::<prop::sample::Index>()) {
        prop_assert!(shown::open(kind, &envelope[..end.index(envelope.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            prop_assert!(shown::open(kind, &bytes).is_err());
        }
    }
}
