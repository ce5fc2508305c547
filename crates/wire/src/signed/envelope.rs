//! The envelope around every signed object.
//!
//! ```text
//! envelope  = CBOR [ 1, payload: bstr, signature: bstr(64) ]
//! signature = Ed25519( "overlay/1 " || kind || 0x00 || payload )
//! ```
//!
//! The signature does not cover the few bytes around the payload. They have exactly one form, so that nobody but the
//! signer can make different bytes of the same object. Those would look like a fork of its sequence, or like a clone.

use minicbor::decode::Decoder;
use minicbor::encode::{Encode, Encoder};
use zeroize::Zeroizing;

use super::form;
use super::key::{PublicKey, SecretKey};
use super::refused::Refused;

/// The longest envelope of any kind, in bytes.
pub const MAX_ENVELOPE_LEN: usize = 4_096 + ENVELOPE_OVERHEAD;
/// The bytes of an envelope around its payload, at most: array, version, two lengths, signature.
const ENVELOPE_OVERHEAD: usize = 1 + 1 + 3 + 2 + 64;
const VERSION: u8 = 1;

/// What an object is. The signature covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A network: its name, its IPv4 pool and its rendezvous.
    Network,
    /// An agent: its name, its keys and what it offers.
    Record,
    /// What one agent lets another open.
    Grant,
    /// The end of a grant.
    Revoke,
    /// A wish to be trusted, with what the asker grants.
    Request,
    /// The answer to a request.
    Approval,
    /// Where an agent can be reached, for one other agent.
    Endpoints,
    /// The right to send somebody messages.
    Permit,
    /// The right to join a closed network.
    Token,
    /// That an agent is a member, as relays ask.
    Membership,
    /// That an agent gives up its name.
    Release,
    /// The identity of one end of a connection.
    Auth,
    /// That a token is used for one identity.
    Bind,
    /// Where an agent is, for a relay.
    RelayBind,
    /// The right to send somebody datagrams through a relay.
    RelayPermit,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::Network,
        Self::Record,
        Self::Grant,
        Self::Revoke,
        Self::Request,
        Self::Approval,
        Self::Endpoints,
        Self::Permit,
        Self::Token,
        Self::Membership,
        Self::Release,
        Self::Auth,
        Self::Bind,
        Self::RelayBind,
        Self::RelayPermit,
    ];

    /// The word that is signed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Record => "record",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::Request => "request",
            Self::Approval => "approval",
            Self::Endpoints => "endpoints",
            Self::Permit => "permit",
            Self::Token => "token",
            Self::Membership => "membership",
            Self::Release => "release",
            Self::Auth => "auth",
            Self::Bind => "bind",
            Self::RelayBind => "relay_bind",
            Self::RelayPermit => "relay_permit",
        }
    }

    fn signed_bytes(self, payload: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([b"overlay/1 ", self.word().as_bytes(), &[0], payload].concat())
    }
}

/// The parts of an envelope. Nothing is verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The signed CBOR map.
    pub payload: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; 64],
}

impl<'a> Envelope<'a> {
    /// Splits `bytes`, which must be exactly one envelope.
    ///
    /// # Errors
    /// [`Refused::TooLong`] or [`Refused::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_ENVELOPE_LEN {
            return Err(Refused::TooLong);
        }
        let mut decoder = Decoder::new(bytes);
        if decoder.array()? != Some(3) || decoder.u8()? != VERSION {
            return Err(Refused::Malformed);
        }
        let payload = decoder.bytes()?;
        let signature = decoder.bytes()?.try_into().map_err(|_| Refused::Malformed)?;
        let envelope = Self { payload, signature };
        if *Self::write(payload, signature) == *bytes { Ok(envelope) } else { Err(Refused::Malformed) }
    }

    fn write(payload: &[u8], signature: &[u8; 64]) -> Zeroizing<Vec<u8>> {
        let mut encoder = Encoder::new(Vec::with_capacity(payload.len() + ENVELOPE_OVERHEAD));
        encoder
            .array(3)
            .and_then(|encoder| encoder.u8(VERSION))
            .and_then(|encoder| encoder.bytes(payload))
            .and_then(|encoder| encoder.bytes(signature))
            .expect("a Vec takes every write");
        Zeroizing::new(encoder.into_writer())
    }
}

/// An object that can be signed.
pub trait Object: Encode<()> + for<'b> minicbor::Decode<'b, ()> {
    /// What it is.
    const KIND: Kind;
    /// The longest payload in bytes.
    const MAX_LEN: usize = 2_048;

    /// The key that must have signed it.
    fn signer(&self) -> &PublicKey;

    /// The Ed25519 keys in it. None may be weak.
    fn keys(&self) -> Vec<&PublicKey>;

    /// Checks every field that the type does not, apart from [`Self::keys`].
    ///
    /// # Errors
    /// Returns the first reason found.
    fn check(&self) -> Result<(), Refused>;
}

/// An object whose signature and fields were checked, with the bytes it came in. The bytes may hold a secret, so they are
/// erased from memory when it is dropped, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<T> {
    bytes: Zeroizing<Vec<u8>>,
    value: T,
}

impl<T: std::fmt::Debug> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signed").field(&self.value).finish()
    }
}

impl<T: Object> Signed<T> {
    /// Checks an envelope.
    ///
    /// # Errors
    /// Returns the first reason found: form, fields, signature.
    pub fn open(bytes: &[u8]) -> Result<Self, Refused> {
        let envelope = Envelope::parse(bytes)?;
        if envelope.payload.len() > T::MAX_LEN {
            return Err(Refused::TooLong);
        }
        form::check(envelope.payload)?;
        let value: T = minicbor::decode(envelope.payload)?;
        form::check_decoded(envelope.payload, &encode(&value)?)?;
        value.signer().verify(&T::KIND.signed_bytes(envelope.payload), envelope.signature)?;
        check(&value)?;
        Ok(Self { bytes: bytes.to_vec().into(), value })
    }

    /// Signs an object of our own.
    ///
    /// # Errors
    /// Returns the reason why others would refuse it.
    pub fn sign(value: T, key: &SecretKey) -> Result<Self, Refused> {
        check(&value)?;
        let payload = encode(&value)?;
        if payload.len() > T::MAX_LEN {
            return Err(Refused::TooLong);
        }
        if *value.signer() != key.public() {
            return Err(Refused::BadSignature);
        }
        let bytes = Envelope::write(&payload, &key.sign(&T::KIND.signed_bytes(&payload)));
        Ok(Self { bytes, value })
    }

    /// The envelope.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The object without its envelope.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

fn check<T: Object>(value: &T) -> Result<(), Refused> {
    value.keys().into_iter().try_for_each(PublicKey::check)?;
    value.check()
}

/// The payload. It has room enough from the start, so that a `Vec` that grows leaves no copy of a secret behind.
fn encode<T: Object>(value: &T) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut payload = Zeroizing::new(Vec::with_capacity(MAX_ENVELOPE_LEN));
    minicbor::encode(value, &mut *payload).map_err(|_| Refused::Malformed)?;
    Ok(payload)
}
