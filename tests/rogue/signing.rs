//! Envelopes that `Signed::sign` would refuse to make, and the keys of real agents.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use overlay_rendezvous::protocol::encode;
use overlay_wire::signed::{Object, SecretKey};

use crate::lab::Host;

/// Signs any value, as an agent could whose program was changed.
pub fn sign_unchecked<T: Object>(value: &T, key: &SecretKey) -> Vec<u8> {
    let payload = encode(value);
    let message = [b"overlay/1 ", T::KIND.word().as_bytes(), &[0], &payload].concat();
    let signature = SigningKey::from_bytes(&key.to_bytes()).sign(&message);
    envelope(&payload, &signature.to_bytes())
}

/// A value under a signature of zeros.
pub fn unsigned<T: Object>(value: &T) -> Vec<u8> {
    envelope(&encode(value), &[0; 64])
}

/// The identity of an agent that runs on a host, read from its state folder.
#[track_caller]
pub fn identity_of(host: &Host) -> SecretKey {
    let path = host.dir().join("state/lab/identity.key");
    let text = std::fs::read_to_string(&path).expect("the agent's key");
    let bytes = BASE64_STANDARD.decode(text.trim()).expect("base64");
    SecretKey::from_bytes(&bytes.try_into().expect("32 bytes"))
}

/// CBOR: an array of the version, the payload, and the signature.
fn envelope(payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("a short payload");
    let head: &[u8] = match len {
        0..24 => &[0x40 | len as u8],
        24..256 => &[0x58, len as u8],
        _ => &[0x59, (len >> 8) as u8, len as u8],
    };
    [&[0x83, 0x01], head, payload, &[0x58, 0x40], signature].concat()
}
