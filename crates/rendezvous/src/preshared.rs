//! The preshared key of a tunnel, from the secret shares that two agents exchanged.
//!
//! ```text
//! key  = HKDF-SHA256( ikm = lower share || higher share, salt, info )
//! salt = SHA-256( lower envelope || higher envelope )
//! info = "overlay psk v1" || lower identity || higher identity
//! ```
//!
//! *Lower* and *higher* are the two agents in the order of their identities. Each envelope is the request or the approval
//! that carried the share. Each travelled sealed to the other agent: with X-Wing if that agent's record has a key for it,
//! else with X25519 alone. If one of them travelled with X-Wing, traffic that is recorded today stays secret even if
//! X25519 is broken later. Authentication stays X25519 and Ed25519.

use std::fmt;

use hkdf::Hkdf;
use overlay_wire::signed::{PublicKey, Share};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What one side contributes.
#[derive(Clone, Copy)]
pub struct Half<'a> {
    /// The agent that contributes it.
    pub identity: &'a PublicKey,
    /// Its share.
    pub share: &'a Share,
    /// The envelope that carried the share.
    pub envelope: &'a [u8],
}

impl fmt::Debug for Half<'_> {
    /// The envelope holds the share, so neither is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let envelope = format_args!("{} bytes", self.envelope.len());
        f.debug_struct("Half").field("identity", self.identity).field("envelope", &envelope).finish()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_share_nor_the_envelope_of_a_half_is_printed() {
        let (identity, share) = (PublicKey([7; 32]), Share([9; 32]));
        let half = Half { identity: &identity, share: &share, envelope: &[9; 40] };
        assert_eq!(format!("{half:?}"), format!("Half {{ identity: {identity:?}, envelope: 40 bytes }}"));
    }
}
