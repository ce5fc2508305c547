//! Sealing: what only the recipient's mailbox keys open (HPKE, RFC 9180, base mode).
//!
//! ```text
//! sealed = suite (1 byte) || encapsulated key || ciphertext
//! suite  = 1: DHKEM(X25519, HKDF-SHA256)    2: X-Wing, the hybrid of X25519 and ML-KEM-768
//!          both with HKDF-SHA256 and ChaCha20-Poly1305
//! info   = "overlay mbox 1" || network || recipient
//! aad    = sender || label
//! ```
//!
//! The sender seals with X-Wing where the recipient's record has such a key. Base mode proves no sender: what is inside is
//! signed. The label is the id of a message, or the word of a slot, so that a registry cannot show one as the other.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256, XWing};
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use overlay_wire::Malformed;
use overlay_wire::signed::{PublicKey, Record};
use zeroize::Zeroizing;

const X25519: u8 = 1;
const XWING: u8 = 2;
/// How much longer what is sealed without X-Wing is than what is inside: the suite, the encapsulated key, and the tag.
pub const SHORT_OVERHEAD: usize = 1 + 32 + 16;
/// The length of the secret of mailbox keys in bytes: 32 for each suite.
pub const SECRET_LEN: usize = 64;

/// The keys that open what others seal for us.
pub struct MailboxKeys {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    x25519: <X25519HkdfSha256 as Kem>::PrivateKey,
    xwing: <XWing as Kem>::PrivateKey,
}

/// The sender, the recipient and the label of what is sealed.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// The network's key.
    pub network: &'a PublicKey,
    /// The agent that seals.
    pub sender: &'a PublicKey,
    /// The agent that may open.
    pub recipient: &'a PublicKey,
    /// The id of the message, or the word of the slot.
    pub label: &'a [u8],
}

impl Heading<'_> {
    fn info(&self) -> Vec<u8> {
        [&b"overlay mbox 1"[..], &self.network.0, &self.recipient.0].concat()
    }

    fn aad(&self) -> Vec<u8> {
        [&self.sender.0[..], self.label].concat()
    }
}

impl MailboxKeys {
    /// Makes the keys from [`SECRET_LEN`] random bytes.
    ///
    /// # Errors
    /// None for any random bytes.
    pub fn from_secret(secret: &[u8; SECRET_LEN]) -> Result<Self, Malformed> {
        let (x25519, xwing) = secret.split_at(32);
        Ok(Self {
            secret: Zeroizing::new(*secret),
            x25519: Deserializable::from_bytes(x25519).map_err(|_| Malformed)?,
            xwing: Deserializable::from_bytes(xwing).map_err(|_| Malformed)?,
        })
    }

    /// The secret, to be written to a file.
    pub fn secret(&self) -> &[u8; SECRET_LEN] {
        &self.secret
    }

    /// The X25519 key for [`Record::mailbox_x25519`].
    pub fn public_x25519(&self) -> [u8; 32] {
        X25519HkdfSha256::sk_to_pk(&self.x25519).to_bytes().into()
    }

    /// The X-Wing key for [`Record::mailbox_xwing`].
    pub fn public_xwing(&self) -> Vec<u8> {
        XWing::sk_to_pk(&self.xwing).to_bytes().to_vec()
    }

    /// Opens what was sealed under this heading.
    ///
    /// # Errors
    /// [`Malformed`]: it was not sealed for these keys, or not under this heading.
    pub fn open(&self, heading: Heading<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        match sealed.split_first().ok_or(Malformed)? {
            (&X25519, rest) => open::<X25519HkdfSha256>(&self.x25519, heading, rest),
            (&XWING, rest) => open::<XWing>(&self.xwing, heading, rest),
            _ => Err(Malformed),
        }
    }
}

/// Seals for the owner of a record.
///
/// # Errors
/// [`Malformed`] if the record's mailbox key is not one.
pub fn seal(
    to: &Record,
    heading: Heading<'_>,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, Malformed> {
    match &to.mailbox_xwing {
        Some(key) => seal_by::<XWing>(XWING, key, heading, plaintext, rng),
        None => seal_by::<X25519HkdfSha256>(X25519, &to.mailbox_x25519, heading, plaintext, rng),
    }
}

/// Seals with X25519 whatever the record has: for what is short, and secret for a short time.
///
/// # Errors
/// As [`seal`].
pub fn seal_short(
    to: &Record,
    heading: Heading<'_>,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, Malformed> {
    seal_by::<X25519HkdfSha256>(X25519, &to.mailbox_x25519, heading, plaintext, rng)
}

fn seal_by<K: Kem>(
    suite: u8,
    key: &[u8],
    heading: Heading<'_>,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, Malformed> {
    let key = K::PublicKey::from_bytes(key).map_err(|_| Malformed)?;
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
        &OpModeS::Base,
        &key,
        &heading.info(),
        plaintext,
        &heading.aad(),
        rng,
    )
    .map_err(|_| Malformed)?;
    Ok([&[suite][..], &encapsulated.to_bytes(), &ciphertext].concat())
}

fn open<K: Kem>(key: &K::PrivateKey, heading: Heading<'_>, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let (encapsulated, ciphertext) = bytes.split_at_checked(K::EncappedKey::size()).ok_or(Malformed)?;
    let encapsulated = K::EncappedKey::from_bytes(encapsulated).map_err(|_| Malformed)?;
    single_shot_open::<ChaCha20Poly1305, HkdfSha256, K>(
        &OpModeR::Base,
        key,
        &encapsulated,
        &heading.info(),
        ciphertext,
        &heading.aad(),
    )
    .map(Zeroizing::new)
    .map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
