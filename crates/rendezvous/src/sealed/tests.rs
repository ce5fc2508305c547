//! What is sealed is opened by its recipient, under its heading, and in no other way.

use std::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};
use overlay_wire::signed::{Abilities, PublicKey, Record, SecretKey, Share, TunnelKey, Visibility, XWING_KEY_LEN};

use super::*;
use crate::preshared::{Half, preshared_key};

/// Bytes that a test can repeat.
struct Counter(u8);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

fn key(byte: u8) -> PublicKey {
    SecretKey::from_bytes(&[byte; 32]).public()
}

fn record_of(keys: &MailboxKeys, is_post_quantum: bool) -> Record {
    Record {
        network: key(1),
        identity: key(2),
        sequence: 1,
        issued: 1,
        fresh_until: 2,
        name: "bob".to_owned(),
        ipv4: None,
        tunnel_keys: vec![TunnelKey([9; 32])],
        mailbox_x25519: keys.public_x25519(),
        mailbox_xwing: is_post_quantum.then(|| keys.public_xwing()),
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    }
}

#[test]
fn only_the_recipient_opens_and_only_under_the_same_heading() {
    let keys = MailboxKeys::from_secret(&[7; SECRET_LEN]).expect("any bytes");
    let others = MailboxKeys::from_secret(&[8; SECRET_LEN]).expect("any bytes");
    assert_eq!(keys.public_xwing().len(), XWING_KEY_LEN);
    let (network, alice, bob) = (key(1), key(3), key(2));
    let heading = Heading { network: &network, sender: &alice, recipient: &bob, label: b"1" };
    for is_post_quantum in [false, true] {
        let record = record_of(&keys, is_post_quantum);
        let sealed = seal(&record, heading, b"hello", &mut Counter(1)).expect("a good key");
        assert_eq!(keys.open(heading, &sealed).expect("for bob").as_slice(), b"hello");
        assert!(others.open(heading, &sealed).is_err());
        for wrong in [
            Heading { network: &alice, ..heading },
            Heading { sender: &bob, ..heading },
            Heading { recipient: &alice, ..heading },
            Heading { label: b"2", ..heading },
        ] {
            assert!(keys.open(wrong, &sealed).is_err(), "{wrong:?}");
        }
        for at in [0, 1, 40, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(heading, &changed).is_err(), "byte {at}");
        }
        for len in 0..sealed.len() {
            assert!(keys.open(heading, &sealed[..len]).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn both_ends_make_the_same_preshared_key_and_everything_counts() {
    let (alice, bob) = (key(3), key(2));
    let (one, other) = (Share([1; 32]), Share([2; 32]));
    let halves = [
        Half { identity: &alice, share: &one, envelope: b"request" },
        Half { identity: &bob, share: &other, envelope: b"approval" },
    ];
    let made = preshared_key(halves[0], halves[1]);
    assert_eq!(made, preshared_key(halves[1], halves[0]));
    for different in [
        Half { share: &other, ..halves[0] },
        Half { envelope: b"request 2", ..halves[0] },
        Half { identity: &key(4), ..halves[0] },
    ] {
        assert_ne!(made, preshared_key(different, halves[1]));
    }
}
