//! Signed objects: what is signed can be opened, and anything else is refused under its own name.

use std::net::Ipv4Addr;

use super::*;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn record() -> Record {
    Record {
        network: key(1).public(),
        identity: key(2).public(),
        sequence: 1,
        issued: 1_000,
        fresh_until: 2_000,
        name: "alice".to_owned(),
        ipv4: None,
        tunnel_keys: vec![record::TunnelKey([9; 32])],
        mailbox_x25519: [8; 32],
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    }
}

#[test]
fn what_is_signed_can_be_opened_and_keeps_its_bytes() {
    let full = Record {
        ipv4: Some([10, 64, 1, 2]),
        mailbox_xwing: Some(vec![7; XWING_KEY_LEN]),
        tags: (0..16).map(|n| format!("{:a<31}{n:x}", "")).collect(),
        services: (0..16)
            .map(|n| Service {
                name: "a-service-with-the-longest-name0".to_owned(),
                transport: Transport::Tcp,
                port: 65_000 + n,
                text: "x".repeat(64),
            })
            .collect(),
        ..record()
    };
    for value in [record(), full] {
        let signed = Signed::sign(value, &key(2)).expect("a good record");
        let opened = Signed::<Record>::open(signed.bytes()).expect("what was signed");
        assert_eq!(opened, signed);
    }
}

#[test]
fn addresses_follow_from_keys() {
    let pool = Pool::new(Ipv4Addr::new(10, 64, 0, 0), 16).expect("a pool");
    let (network, identity) = (key(1).public(), key(2).public());
    assert_eq!(ipv6_address(&network, &identity).octets()[..4], network_prefix(&network).octets()[..4]);
    for i in 0..1_000 {
        assert!(pool.has_host(ipv4_candidate(&pool, &identity, i)));
    }
    assert!(!pool.has_host(Ipv4Addr::new(10, 64, 0, 0)) && !pool.has_host(Ipv4Addr::new(10, 64, 255, 255)));
    assert!(!pool.has_host(Ipv4Addr::new(10, 65, 0, 1)));
}
