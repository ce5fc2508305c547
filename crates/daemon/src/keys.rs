//! Keys as people handle them: 44 characters of base64 in a file with mode 0600, as the stock `wg` tool writes them.
//!
//! A key that cannot be read is refused with its exact reason, and the reason never holds a character of the key.
//! Left out: what a key is used for (`overlay_core`), and which file holds it (`config`).

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_core::PeerKey;
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Characters of a key in base64: 43 and one `=`.
pub const ENCODED_LENGTH: usize = 44;

/// The X25519 tunnel key of this host. Wiped from memory when dropped, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// A new key from the operating system's generator, clamped as the `wg` tool does.
    pub fn generate() -> Self {
        let mut bytes = random_bytes();
        clamp(&mut bytes);
        Self(bytes)
    }

    /// The key in `text`, which holds nothing else but white space around it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text)?;
        if *bytes == [0; 32] {
            return Err(KeyError::AllZero);
        }
        Ok(Self(bytes))
    }

    /// The key of these bytes, clamped as the kernel does; `None` for all zero, which means none everywhere in WireGuard.
    pub fn from_bytes(mut bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        if *bytes == [0; 32] {
            return None;
        }
        clamp(&mut bytes);
        Some(Self(bytes))
    }

    /// The same, with the bits as they are: a key file may hold one that is not clamped, and is shown as it is.
    pub(crate) fn from_unclamped(bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        (*bytes != [0; 32]).then_some(Self(bytes))
    }

    /// The key in base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// The key's 32 bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// The public key that belongs to it: what peers write in their configs.
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

/// A new preshared key from the operating system's generator.
pub fn generate_preshared() -> Zeroizing<[u8; 32]> {
    random_bytes()
}

/// 32 secret bytes in base64.
pub fn encode_secret(bytes: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// A public key in base64, as peers write it.
pub fn encode_public(key: &PeerKey) -> String {
    STANDARD.encode(key.0)
}

/// The preshared key in `text`. All zero is a key here; for WireGuard it means none.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn decode_preshared(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    decode(text)
}

/// A peer's public key.
///
/// # Errors
/// The first thing that is wrong with it; [`KeyError::LowOrder`] for a point of small order, with which every shared
/// secret would be zero and known to all.
pub fn decode_public(text: &str) -> Result<PeerKey, KeyError> {
    let key = PeerKey(*decode(text)?);
    if key.is_low_order() { Err(KeyError::LowOrder) } else { Ok(key) }
}

/// Why a text is no key. Positions count characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Nothing but white space.
    Empty,
    /// 64 hexadecimal digits: the form of WireGuard's socket protocol, not of its configs.
    Hexadecimal,
    /// A `-` or `_` at this position: base64 for URLs.
    UrlAlphabet(usize),
    /// A character at this position that base64 does not have.
    Alphabet(usize),
    /// This many characters instead of 44.
    Length(usize),
    /// 44 characters that do not end in exactly one `=`, so that they are not 32 bytes.
    Padding,
    /// The last character holds bits beyond the 32nd byte: one of the characters was mistyped.
    TrailingBits,
    /// A private key of 32 zero bytes.
    AllZero,
    /// A public key that is a point of small order.
    LowOrder,
}

impl fmt::Display for KeyError {
    /// Continues a sentence that has the key as its subject: "the key in `a.key`" + "is empty".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Hexadecimal => f.write_str("is written in hexadecimal; a key is 44 characters of base64"),
            Self::UrlAlphabet(at) => {
                write!(f, "has a character of base64url at position {at}; `+` and `/` stand where it has `-` and `_`")
            }
            Self::Alphabet(at) => write!(f, "has a character at position {at} that base64 does not have"),
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

/// What the system said, without the number that `io::Error` adds to it.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_owned(),
    }
}

/// 32 bytes of base64, in the one canonical form that `wg` accepts too.
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
    // The library asks for room for 33 bytes, what 44 characters could be.
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
