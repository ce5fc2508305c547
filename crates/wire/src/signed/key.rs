//! Ed25519 keys: the identities of agents, networks and rendezvous.
//!
//! The text of a public key is base32 (RFC 4648) in lower case without padding: 52 characters, of which the last can only
//! be `a` or `q`. A key has exactly one text.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::refused::Refused;
use crate::x25519::is_reduced;

/// The number of characters in the text of a key.
pub const KEY_TEXT_LEN: usize = 52;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 symbols make an encoding")
});

/// A public key. Whether it is a good one shows when it is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl PublicKey {
    /// Verifies a signature over a message, strictly: weak keys and signatures that a different verifier might
    /// judge differently are refused.
    ///
    /// # Errors
    /// [`Refused::WeakKey`] or [`Refused::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Refused> {
        let key = self.verifying_key()?;
        key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| Refused::BadSignature)
    }

    /// Checks that it is a point in its only encoding, and not one of the points for which anybody can sign.
    ///
    /// # Errors
    /// [`Refused::WeakKey`].
    pub fn check(&self) -> Result<(), Refused> {
        self.verifying_key().map(drop)
    }

    fn verifying_key(&self) -> Result<VerifyingKey, Refused> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| Refused::WeakKey)?;
        if key.is_weak() || !is_reduced(&self.0) { Err(Refused::WeakKey) } else { Ok(key) }
    }

    /// The first `len` characters of the text.
    pub fn prefix(&self, len: usize) -> String {
        let mut text = self.to_string();
        text.truncate(len);
        text
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a text that is not the text of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a key: a key is {KEY_TEXT_LEN} characters from a to z and 2 to 7")
    }
}

impl std::error::Error for NotAKey {}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = BASE32.decode(text.as_bytes()).map_err(|_| NotAKey)?;
        bytes.try_into().map(Self).map_err(|_| NotAKey)
    }
}

/// A secret key. It is erased from memory when it is dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes the key from its 32 secret bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret bytes, to be written to a file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret key of {}", self.public())
    }
}
