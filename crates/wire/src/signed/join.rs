//! The text that the operator of a network hands out: a token and its secret half.
//!
//! ```text
//! text = "overlay-join-1." || base64url( secret: 32 bytes || envelope of kind token )       no padding
//! ```
//!
//! The holder of the text may join, so it is a secret. What is shown to a rendezvous is an [`Attestation`], which is good for
//! one identity only.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::envelope::{MAX_ENVELOPE_LEN, Signed};
use super::key::{PublicKey, SecretKey};
use super::member::{Attestation, Bind, Token};
use super::refused::Refused;

const PREFIX: &str = "overlay-join-1.";
const SECRET_LEN: usize = 32;
/// The longest text in bytes.
pub const MAX_JOIN_TEXT_LEN: usize = PREFIX.len() + (SECRET_LEN + MAX_ENVELOPE_LEN).div_ceil(3) * 4;

/// A token with its secret half.
#[derive(Debug)]
pub struct JoinToken {
    token: Signed<Token>,
    secret: SecretKey,
}

/// Why a text is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadJoinToken {
    /// It does not begin like one, or has characters that none has.
    Text,
    /// Its end is missing, or it was changed.
    Damaged,
    /// The object in it is refused.
    Object(Refused),
}

impl fmt::Display for BadJoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => write!(f, "a join token begins with `{PREFIX}` and has letters, digits, - and _ after it"),
            Self::Damaged => f.write_str("its end is missing, or it was changed"),
            Self::Object(refused) => write!(f, "the token in it is refused: {refused}"),
        }
    }
}

impl std::error::Error for BadJoinToken {}

impl JoinToken {
    /// Joins a token with its secret half.
    ///
    /// # Errors
    /// [`BadJoinToken::Damaged`] if the two do not belong together.
    pub fn new(token: Signed<Token>, secret: SecretKey) -> Result<Self, BadJoinToken> {
        if secret.public() == token.token { Ok(Self { token, secret }) } else { Err(BadJoinToken::Damaged) }
    }

    /// Reads the text.
    ///
    /// # Errors
    /// See [`BadJoinToken`]. An error shows nothing of the text.
    pub fn parse(text: &str) -> Result<Self, BadJoinToken> {
        let encoded =
            text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_JOIN_TEXT_LEN).ok_or(BadJoinToken::Text)?;
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !encoded.bytes().all(is_known) {
            return Err(BadJoinToken::Text);
        }
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| BadJoinToken::Damaged)?);
        let (secret, envelope) = bytes.split_first_chunk::<SECRET_LEN>().ok_or(BadJoinToken::Damaged)?;
        let token = Signed::<Token>::open(envelope).map_err(|refused| match refused {
            Refused::BadSignature => BadJoinToken::Damaged,
            refused => BadJoinToken::Object(refused),
        })?;
        Self::new(token, SecretKey::from_bytes(secret))
    }

    /// The text, which is secret.
    pub fn text(&self) -> Zeroizing<String> {
        let secret = self.secret.to_bytes();
        let bytes = Zeroizing::new([&*secret, self.token.bytes()].concat());
        let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Zeroizing::new(format!("{PREFIX}{}", &*encoded))
    }

    /// The token without its secret half.
    pub fn token(&self) -> &Signed<Token> {
        &self.token
    }

    /// Uses the token for one identity. `nonce` is a random number.
    ///
    /// # Errors
    /// [`Refused`] if the identity is a weak key.
    pub fn attest(&self, identity: &PublicKey, nonce: [u8; 16]) -> Result<Attestation, Refused> {
        let bind = Bind { network: self.token.network, token: self.token.token, identity: *identity, nonce };
        let bind = Signed::sign(bind, &self.secret)?;
        Ok(Attestation { token: self.token.bytes().to_vec(), bind: bind.bytes().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: [u8; 32] = [1; 32];
    const SECRET: [u8; 32] = [2; 32];

    fn join() -> JoinToken {
        let (network, secret) = (SecretKey::from_bytes(&NETWORK), SecretKey::from_bytes(&SECRET));
        let token = Token {
            network: network.public(),
            token: secret.public(),
            issued: 1_000,
            expires: 2_000,
            uses: 1,
            is_ephemeral: false,
            name: Some("carol".to_owned()),
            tags: vec!["ops".to_owned()],
        };
        JoinToken::new(Signed::sign(token, &network).expect("a good token"), secret).expect("its secret")
    }

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let text = join().text();
        assert!(text.len() <= MAX_JOIN_TEXT_LEN);
        let read = JoinToken::parse(&text).expect("our own text");
        assert_eq!(read.token().bytes(), join().token().bytes());
        assert_eq!(*read.text(), *text);
    }

    #[test]
    fn a_text_that_was_changed_or_cut_is_refused() {
        let text = join().text();
        for at in PREFIX.len()..text.len() {
            let changed: String =
                text.char_indices().map(|(i, c)| if i == at { if c == 'A' { 'B' } else { 'A' } } else { c }).collect();
            assert!(JoinToken::parse(&changed).is_err(), "character {at}");
            assert!(JoinToken::parse(&text[..at]).is_err(), "cut at {at}");
        }
        for (text, expected) in [
            ("", BadJoinToken::Text),
            ("overlay-join-2.AAAA", BadJoinToken::Text),
            ("overlay-join-1.", BadJoinToken::Damaged),
            ("overlay-join-1.AA=", BadJoinToken::Text),
            ("overlay-join-1.AA\u{1b}", BadJoinToken::Text),
        ] {
            assert_eq!(JoinToken::parse(text).map(drop), Err(expected), "{text:?}");
        }
        let long = format!("{PREFIX}{}", "A".repeat(MAX_JOIN_TEXT_LEN));
        assert_eq!(JoinToken::parse(&long).map(drop), Err(BadJoinToken::Text));
    }

    #[test]
    fn an_attestation_is_good_for_its_identity_and_network_alone() {
        let (one, other) = (SecretKey::from_bytes(&[3; 32]).public(), SecretKey::from_bytes(&[4; 32]).public());
        let join = join();
        let attestation = join.attest(&one, [7; 16]).expect("a good identity");
        let network = join.token().network;
        assert_eq!(attestation.token(&network, &one).map(|token| token.tags.clone()), Ok(vec!["ops".to_owned()]));
        assert_eq!(attestation.token(&network, &other).map(drop), Err(Refused::BadPart));
        assert_eq!(attestation.token(&other, &one).map(drop), Err(Refused::BadPart));
        // Nothing that travels holds the secret.
        let travels = [attestation.token, attestation.bind].concat();
        assert!(!travels.windows(SECRET_LEN).any(|part| part == SECRET));
    }
}
