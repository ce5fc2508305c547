//! The Noise handshake NN and the sealing of messages. Only this file knows `snow`.
//!
//! An NN handshake needs 32 random bytes at each end: the secret of its ephemeral key. They come from outside and are used
//! once. The library's own source of randomness is not compiled in.

use std::fmt;
use std::sync::Arc;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use zeroize::Zeroizing;

use super::{Broken, MAX_FRAME_LEN, SEAL_LEN};
use crate::protocol::MAX_MESSAGE_LEN;

const PATTERN: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
/// Keeps this handshake apart from any other use of the same pattern.
const PROLOGUE: &[u8] = b"overlay channel 1";
/// The longest message of the handshake: an ephemeral key and an empty sealed payload.
const MAX_HANDSHAKE_LEN: usize = 32 + SEAL_LEN;

/// The Noise handshake inside the channel, while it is not finished. It proves nothing about the other end: that is what
/// [`Client`](super::Client) and [`Server`](super::Server) are for, which exchange an `auth` after it. Alone it is of use to
/// a program that plays an end which lies.
pub struct Handshake(Box<HandshakeState>);

impl Handshake {
    /// Starts as the end that speaks first. `random` must never be used again.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn initiator(random: &[u8; 32]) -> Result<Self, Broken> {
        let state = with_builder(random, |builder| builder.build_initiator())?;
        Ok(Self(Box::new(state)))
    }

    /// Starts as the end that waits. `random` must never be used again.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn responder(random: &[u8; 32]) -> Result<Self, Broken> {
        let state = with_builder(random, |builder| builder.build_responder())?;
        Ok(Self(Box::new(state)))
    }

    /// Writes our message.
    ///
    /// # Errors
    /// [`Broken::Over`] if it is not our turn.
    pub fn write(&mut self) -> Result<Vec<u8>, Broken> {
        let mut message = [0; MAX_HANDSHAKE_LEN];
        let len = self.0.write_message(&[], &mut message).map_err(|_| Broken::Over)?;
        Ok(message[..len].to_vec())
    }

    /// Reads the other end's message, which has no payload.
    ///
    /// # Errors
    /// [`Broken::Malformed`].
    pub fn read(&mut self, message: &[u8]) -> Result<(), Broken> {
        let mut payload = [0; MAX_HANDSHAKE_LEN];
        if message.len() > MAX_HANDSHAKE_LEN {
            return Err(Broken::Malformed);
        }
        match self.0.read_message(message, &mut payload) {
            Ok(0) => Ok(()),
            _ => Err(Broken::Malformed),
        }
    }

    /// Ends a handshake whose two messages have passed. Returns also its hash, which no other handshake has.
    ///
    /// # Errors
    /// [`Broken::Over`] if they have not.
    pub fn finish(self) -> Result<(Sealer, Opener, [u8; 32]), Broken> {
        let hash = self.0.get_handshake_hash().try_into().map_err(|_| Broken::Over)?;
        let noise = Arc::new(self.0.into_stateless_transport_mode().map_err(|_| Broken::Over)?);
        Ok((Sealer { noise: noise.clone(), next: Some(0) }, Opener { noise, next: Some(0) }, hash))
    }
}

fn with_builder(
    random: &[u8; 32],
    build: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
) -> Result<HandshakeState, Broken> {
    let parameters: NoiseParams = PATTERN.parse().map_err(|_| Broken::Over)?;
    let resolver = Box::new(Given(Zeroizing::new(*random)));
    Builder::with_resolver(parameters, resolver).prologue(PROLOGUE).and_then(build).map_err(|_| Broken::Over)
}

/// Seals messages, each under the next number.
pub struct Sealer {
    noise: Arc<StatelessTransportState>,
    /// `None` once all numbers are used.
    next: Option<u64>,
}

impl Sealer {
    /// Seals a message of at most [`MAX_MESSAGE_LEN`] bytes.
    ///
    /// # Errors
    /// [`Broken::TooLong`], or [`Broken::Over`] after 2^64 messages.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, Broken> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(Broken::TooLong);
        }
        let number = self.next.ok_or(Broken::Over)?;
        self.next = number.checked_add(1);
        let mut sealed = vec![0; message.len() + SEAL_LEN];
        self.noise.write_message(number, message, &mut sealed).map_err(|_| Broken::Over)?;
        Ok(sealed)
    }
}

/// Opens messages, which must arrive in their order.
pub struct Opener {
    noise: Arc<StatelessTransportState>,
    /// `None` after the first message that could not be opened.
    next: Option<u64>,
}

impl Opener {
    /// Opens the next message.
    ///
    /// # Errors
    /// [`Broken::TooLong`] or [`Broken::NotAuthentic`], and from then on always [`Broken::Over`].
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        let number = self.next.take().ok_or(Broken::Over)?;
        if sealed.len() > MAX_FRAME_LEN {
            return Err(Broken::TooLong);
        }
        let mut message = vec![0; sealed.len()];
        let len = self.noise.read_message(number, sealed, &mut message).map_err(|_| Broken::NotAuthentic)?;
        message.truncate(len);
        self.next = number.checked_add(1);
        Ok(message)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// The library's algorithms, and the randomness that we were given.
struct Given(Zeroizing<[u8; 32]>);

impl CryptoResolver for Given {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its bytes out once.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().ok_or(snow::Error::Rng)?;
        if to.len() != bytes.len() {
            return Err(snow::Error::Rng);
        }
        to.copy_from_slice(&*bytes);
        Ok(())
    }
}
