//! The preshared key of a tunnel, from the secret shares that two agents exchanged.
//!
//! ```text
//! key  = HKDF-SHA256( ikm = lower share || higher share, salt, info )
//! salt = SHA-256( lower envelope || higher envelope )
//! info = "overlay psk v1" || lower identity || higher identity
//! ```
//!
//! *Lower* and *higher* are the two agents in the order of their identities. Each envelope is the request or the approval
//! that carried the share. Both travelled sealed with X-Wing, so traffic that is recorded today stays secret even if
//! X25519 is broken later. Authentication stays X25519 and Ed25519.

use hkdf::Hkdf;
use overlay_wire::signed::{PublicKey, Share};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What one side contributes.
#[derive(Clone, Copy, Debug)]
pub struct Half<'a> {
    /// The agent that contributes it.
    pub identity: &'a PublicKey,
    /// Its share.
    pub share: &'a Share,
    /// The envelope that carried the share.
    pub envelope: &'a [u8],
}

/// Makes the preshared key. The order of the halves does not matter.
pub fn preshared_key(one: Half<'_>, other: Half<'_>) -> Zeroizing<[u8; 32]> {
    let (lower, higher) = if one.identity < other.identity { (one, other) } else { (other, one) };
    let secret = Zeroizing::new([lower.share.0, higher.share.0].concat());
    let salt = Sha256::new().chain_update(lower.envelope).chain_update(higher.envelope).finalize();
    let info = [&b"overlay psk v1"[..], &lower.identity.0, &higher.identity.0].concat();
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are never too many.
    let _ = Hkdf::<Sha256>::new(Some(&salt), &secret).expand(&info, &mut *key);
    key
}
