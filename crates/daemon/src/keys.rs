//! Keys as users handle them: 44 characters of base64 in a file with mode 0600, in the format of the stock `wg` tool.
//!
//! An invalid key is refused with the exact reason, which never contains a character of the key. Left out: what a key
//! is used for (`overlay_core`), and which file contains it (`config`).

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_core::PeerKey;
use overlay_wire::signed::SecretKey;
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Characters of a key in base64: 43 and one `=`.
pub const ENCODED_LENGTH: usize = 44;

/// The X25519 tunnel key of this host. Wiped from memory when dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// Generates a key with the operating system's generator, clamped like the `wg` tool does.
    pub fn generate() -> Self {
        let mut bytes = random_bytes();
        clamp(&mut bytes);
        Self(bytes)
    }

    /// Parses the key in `text`, which may have only white space around it.
    ///
    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text)?;
        if *bytes == [0; 32] {
            return Err(KeyError::AllZero);
        }
        Ok(Self(bytes))
    }

    /// Creates a key from bytes and clamps it like the kernel does. Returns `None` for all zero, which means "no key"
    /// in WireGuard.
    pub fn from_bytes(mut bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        if *bytes == [0; 32] {
            return None;
        }
        clamp(&mut bytes);
        Some(Self(bytes))
    }

    /// The same without clamping: a key file may contain an unclamped key, which is shown unchanged.
    pub(crate) fn from_unclamped(bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        (*bytes != [0; 32]).then_some(Self(bytes))
    }

    /// Returns the key in base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// Returns the 32 bytes of the key.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// Returns the public key, which peers write in their configs.
    pub fn public(&self) -> PeerKey {
        PeerKey(PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }
}

fn clamp(key: &mut [u8; 32]) {
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// Generates a preshared key with the operating system's generator.
pub fn generate_preshared() -> Zeroizing<[u8; 32]> {
    random_bytes()
}

/// Encodes 32 secret bytes in base64.
pub fn encode_secret(bytes: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// Encodes a public key in base64, as peers write it.
pub fn encode_public(key: &PeerKey) -> String {
    STANDARD.encode(key.0)
}

/// Parses the preshared key in `text`. All zero is accepted here, although it means "no key" in WireGuard.
///
/// # Errors
/// The first thing that is wrong with the text.
pub fn decode_preshared(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    decode(text)
}

/// Parses a peer's public key.
///
/// # Errors
/// The first thing that is wrong with the text. [`KeyError::LowOrder`] for a point of small order, with which every
/// shared secret would be zero and therefore known to everybody.
pub fn decode_public(text: &str) -> Result<PeerKey, KeyError> {
    let key = PeerKey(*decode(text)?);
    if key.is_low_order() { Err(KeyError::LowOrder) } else { Ok(key) }
}

/// Generates the secret key of an identity with the operating system's generator.
pub fn generate_identity() -> SecretKey {
    SecretKey::from_bytes(&random_bytes())
}

/// Parses the secret key of an identity, as `identity.key` in a state folder holds it.
///
/// # Errors
/// The first thing that is wrong with the text.
pub fn decode_identity(text: &str) -> Result<SecretKey, KeyError> {
    let bytes = decode(text)?;
    if *bytes == [0; 32] { Err(KeyError::AllZero) } else { Ok(SecretKey::from_bytes(&bytes)) }
}

/// Why a text is not a valid key. Positions count characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The text is empty or white space.
    Empty,
    /// The text is 64 hexadecimal digits: the format of WireGuard's UAPI, not of its configs.
    Hexadecimal,
    /// There is a `-` or `_` at this position: base64 for URLs.
    UrlAlphabet(usize),
    /// The character at this position does not occur in base64.
    Alphabet(usize),
    /// The text has this many characters instead of 44.
    Length(usize),
    /// The text has 44 characters but does not end in exactly one `=`, so it does not encode 32 bytes.
    Padding,
    /// The last character has bits beyond the 32nd byte: one of the characters was mistyped.
    TrailingBits,
    /// The private key is 32 zero bytes.
    AllZero,
    /// The public key is a point of small order.
    LowOrder,
}

impl fmt::Display for KeyError {
    /// Continues a sentence whose subject is the key: "the key in `a.key`" + "is empty".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Hexadecimal => f.write_str("is written in hexadecimal; a key is 44 characters of base64"),
            Self::UrlAlphabet(at) => {
                write!(f, "has a character of base64url at position {at}; a key has `+` and `/` instead of `-` and `_`")
            }
            Self::Alphabet(at) => write!(f, "has a character at position {at} that is not base64"),
            Self::Length(1) => f.write_str("has 1 character; a key has 44"),
            Self::Length(length) => write!(f, "has {length} characters; a key has 44"),
            Self::Padding => f.write_str("has 44 characters but is not 32 bytes; a key ends in exactly one `=`"),
            Self::TrailingBits => f.write_str("cannot be 32 bytes: a character was mistyped or is missing"),
            Self::AllZero => f.write_str("is all zero"),
            Self::LowOrder => {
                f.write_str("is a low-order point: the secrets derived from it would be known to everybody")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// Returns the text of an error, without the number that `io::Error` appends.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_owned(),
    }
}

/// Decodes 32 bytes of base64, in the one canonical form that `wg` accepts too.
fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text = text.trim();
    let length = text.chars().count();
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if length == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(KeyError::Hexadecimal);
    }
    if let Some((at, found)) = text.chars().enumerate().find(|(_, c)| !is_base64(*c)) {
        return Err(if matches!(found, '-' | '_') {
            KeyError::UrlAlphabet(at + 1)
        } else {
            KeyError::Alphabet(at + 1)
        });
    }
    if length != ENCODED_LENGTH {
        return Err(KeyError::Length(length));
    }
    if !text.ends_with('=') || text[..ENCODED_LENGTH - 1].contains('=') {
        return Err(KeyError::Padding);
    }
    // The library demands room for 33 bytes, the most that 44 characters could encode.
    let mut bytes = Zeroizing::new([0; 33]);
    match STANDARD.decode_slice(text, bytes.as_mut_slice()) {
        Ok(32) => {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&bytes[..32]);
            Ok(key)
        }
        _ => Err(KeyError::TrailingBits),
    }
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')
}

fn random_bytes() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(bytes.as_mut_slice());
    bytes
}

#[cfg(test)]
mod tests;
