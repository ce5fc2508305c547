//! The functions that section 5.4 of the WireGuard paper names, spelled as there: HASH, MAC, HMAC, KDF, AEAD, XAEAD,
//! DH.
//!
//! They are based on blake2, chacha20poly1305 and x25519-dalek, and use nothing of the session engine in the node. So
//! an error there cannot hide behind the same error here.

use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, XChaCha20Poly1305};
use x25519_dalek::{PublicKey, StaticSecret};

/// A hash, a chaining key or a symmetric key.
pub(crate) type Bytes32 = [u8; 32];

/// HASH of the concatenated parts.
pub(crate) fn hash(parts: &[&[u8]]) -> Bytes32 {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// MAC: keyed BLAKE2s with 16 bytes of output.
pub(crate) fn mac(key: &[u8], input: &[u8]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("keys here are 16 or 32 bytes long");
    mac.update(input);
    mac.finalize().into_bytes().into()
}

/// HMAC with BLAKE2s (RFC 2104), which is not the keyed BLAKE2s of [`mac`].
fn hmac(key: &Bytes32, parts: &[&[u8]]) -> Bytes32 {
    const BLOCK: usize = 64;
    let pad = |byte: u8| -> [u8; BLOCK] {
        let mut block = [byte; BLOCK];
        for (padded, key) in block.iter_mut().zip(key) {
            *padded ^= key;
        }
        block
    };
    let (inner, outer) = (pad(0x36), pad(0x5c));
    let mut input: Vec<&[u8]> = vec![&inner];
    input.extend(parts);
    hash(&[&outer, &hash(&input)])
}

/// KDF with `N` outputs.
pub(crate) fn kdf<const N: usize>(key: &Bytes32, input: &[u8]) -> [Bytes32; N] {
    let secret = hmac(key, &[input]);
    let mut outputs = [[0; 32]; N];
    for index in 0..N {
        let previous: &[u8] = if index == 0 { &[] } else { &outputs[index - 1] };
        outputs[index] = hmac(&secret, &[previous, &[index as u8 + 1]]);
    }
    outputs
}

/// AEAD: ChaCha20-Poly1305 with the counter as its nonce.
pub(crate) fn seal(key: &Bytes32, counter: u64, plaintext: &[u8], authenticated: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: plaintext, aad: authenticated };
    ChaCha20Poly1305::new(key.into()).encrypt(&nonce(counter).into(), payload).expect("no plaintext here is too long")
}

/// The inverse of [`seal`]. `None` if the tag does not match.
pub(crate) fn open(key: &Bytes32, counter: u64, sealed: &[u8], authenticated: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg: sealed, aad: authenticated };
    ChaCha20Poly1305::new(key.into()).decrypt(&nonce(counter).into(), payload).ok()
}

/// XAEAD: XChaCha20-Poly1305 with a random nonce.
pub(crate) fn seal_with_nonce(key: &Bytes32, nonce: &[u8; 24], plaintext: &[u8], authenticated: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: plaintext, aad: authenticated };
    XChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), payload).expect("no plaintext here is too long")
}

/// The inverse of [`seal_with_nonce`].
pub(crate) fn open_with_nonce(key: &Bytes32, nonce: &[u8; 24], sealed: &[u8], authenticated: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg: sealed, aad: authenticated };
    XChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), payload).ok()
}

/// DH of a private key and a public key.
pub(crate) fn dh(private: &Bytes32, public: &Bytes32) -> Bytes32 {
    StaticSecret::from(*private).diffie_hellman(&PublicKey::from(*public)).to_bytes()
}

/// The public key for a private key.
pub(crate) fn public_key(private: &Bytes32) -> Bytes32 {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// The nonce: 32 zero bits and 64 bits of counter, little-endian.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7693 appendix B: BLAKE2s-256 of "abc".
    #[test]
    fn hash_is_blake2s_256() {
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb, 0x45, 0x2f, 0x37, 0x45,
            0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c, 0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(hash(&[b"a", b"bc"]), expected);
    }

    /// RFC 7748 section 6.1.
    #[test]
    fn dh_is_x25519() {
        let hex = |text: &str| -> Bytes32 {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
        };
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob_public = public_key(&hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(bob_public, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(dh(&alice, &bob_public), hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }
}
