//! The ledger: what an agent keeps for itself at a rendezvous, sealed to itself.
//!
//! For each peer it holds the latest word that the agent has said to it, a grant or a revoke. An agent whose state is older,
//! because a backup was restored, learns from it what it has taken back since.
//!
//! ```text
//! root   = HKDF-SHA256( ikm = secret of the identity, salt = "overlay ledger v1", info = network || identity )
//! label  = HMAC-SHA256( key of labels, subject ), the first 16 bytes
//! nonce  = HMAC-SHA256( key of nonces, label || letter ), the first 12 bytes
//! sealed = 1 || nonce || ChaCha20-Poly1305( key of sealing, nonce, letter, aad = network || identity || label )
//! ```
//!
//! * The keys follow from the identity. The keys of the mailbox change each month, and a restored state has the ones before.
//! * A label is the same for the same peer, so that an entry is replaced. It tells the rendezvous nothing about the peer.
//! * The nonce follows from what is sealed. A virtual machine that is rolled back may draw the same random bytes twice, and
//!   this is where that happens. The same letter is the same bytes, so what is kept already need not be written again.
//!
//! Left out: completeness. A rendezvous can withhold an entry, or show an older one.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use overlay_wire::Malformed;
use overlay_wire::signed::{Grant, PublicKey, Revoke, SecretKey, Signed};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::letter::Letter;
use crate::protocol::{Label, MAX_ENTRY_LEN};

/// The only form there is.
const FORM: u8 = 1;
const NONCE_LEN: usize = 12;

/// What one agent said last to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnWord {
    /// It granted something.
    Grant(Signed<Grant>),
    /// It took that back.
    Revoke(Signed<Revoke>),
}

impl OwnWord {
    /// The peer.
    pub fn subject(&self) -> &PublicKey {
        match self {
            Self::Grant(grant) => &grant.subject,
            Self::Revoke(revoke) => &revoke.subject,
        }
    }

    /// Its place in the order of words to this peer.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Grant(grant) => grant.sequence,
            Self::Revoke(revoke) => revoke.sequence,
        }
    }

    /// The letter that carries it.
    pub fn letter(&self) -> Letter {
        match self {
            Self::Grant(grant) => Letter::Grant { grant: grant.bytes().to_vec().into() },
            Self::Revoke(revoke) => Letter::Revoke { revoke: revoke.bytes().to_vec().into() },
        }
    }

    /// Reads the word of this agent from a letter, which only its own key can have signed.
    ///
    /// # Errors
    /// [`Malformed`]: it is not a word, not of this agent, or not of this network.
    pub fn read(letter: &Letter, network: &PublicKey, identity: &PublicKey) -> Result<Self, Malformed> {
        let (word, of) = match letter {
            Letter::Grant { grant } => {
                let grant = Signed::<Grant>::open(grant).map_err(|_| Malformed)?;
                let of = (grant.network, grant.issuer);
                (Self::Grant(grant), of)
            }
            Letter::Revoke { revoke } => {
                let revoke = Signed::<Revoke>::open(revoke).map_err(|_| Malformed)?;
                let of = (revoke.network, revoke.issuer);
                (Self::Revoke(revoke), of)
            }
            _ => return Err(Malformed),
        };
        if of == (*network, *identity) { Ok(word) } else { Err(Malformed) }
    }
}

/// The keys of one agent's ledger.
pub struct LedgerKeys {
    network: PublicKey,
    identity: PublicKey,
    labels: Zeroizing<[u8; 32]>,
    nonces: Zeroizing<[u8; 32]>,
    sealing: Zeroizing<[u8; 32]>,
}

impl LedgerKeys {
    /// The keys that follow from an identity.
    pub fn new(network: PublicKey, identity: &SecretKey) -> Self {
        let public = identity.public();
        let root = Hkdf::<Sha256>::new(Some(b"overlay ledger v1"), &identity.to_bytes()[..]);
        let key = |purpose: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            // 32 bytes are never too many.
            let _ = root.expand(&[purpose, &network.0, &public.0].concat(), &mut *key);
            key
        };
        let (labels, nonces, sealing) = (key(b"labels"), key(b"nonces"), key(b"sealing"));
        Self { network, identity: public, labels, nonces, sealing }
    }

    /// The label of a peer's entry.
    pub fn label(&self, subject: &PublicKey) -> Label {
        keyed(&self.labels, &subject.0)
    }

    /// Seals a word. `None`: it is longer than an entry may be.
    pub fn seal(&self, word: &OwnWord) -> Option<(Label, Vec<u8>)> {
        let label = self.label(word.subject());
        let letter = word.letter().write();
        let nonce: [u8; NONCE_LEN] = keyed(&self.nonces, &Zeroizing::new([&label, &letter[..]].concat()));
        let payload = Payload { msg: &letter, aad: &self.aad(&label) };
        let ciphertext = self.cipher().encrypt(Nonce::from_slice(&nonce), payload).ok()?;
        let sealed = [&[FORM][..], &nonce, &ciphertext].concat();
        (sealed.len() <= MAX_ENTRY_LEN).then_some((label, sealed))
    }

    /// Opens an entry that a rendezvous shows under this label.
    ///
    /// # Errors
    /// [`Malformed`]: this agent has not sealed it, or not for this label.
    pub fn open(&self, label: &Label, sealed: &[u8]) -> Result<OwnWord, Malformed> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(Malformed)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN).ok_or(Malformed)?;
        let payload = Payload { msg: ciphertext, aad: &self.aad(label) };
        let opened = self.cipher().decrypt(Nonce::from_slice(nonce), payload).map_err(|_| Malformed)?;
        let word = OwnWord::read(&Letter::read(&Zeroizing::new(opened))?, &self.network, &self.identity)?;
        if self.label(word.subject()) == *label { Ok(word) } else { Err(Malformed) }
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(Key::from_slice(&self.sealing[..]))
    }

    fn aad(&self, label: &Label) -> Vec<u8> {
        [&self.network.0[..], &self.identity.0, label].concat()
    }
}

/// The first bytes of an HMAC-SHA256, which is what the extraction of HKDF is (RFC 5869 section 2.2).
fn keyed<const N: usize>(key: &[u8; 32], data: &[u8]) -> [u8; N] {
    let (mac, _) = Hkdf::<Sha256>::extract(Some(key), data);
    let mut first = [0; N];
    first.copy_from_slice(&mac[..N]);
    first
}

#[cfg(test)]
mod tests;
