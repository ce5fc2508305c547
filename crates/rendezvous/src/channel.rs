//! The channel between an agent and a rendezvous: Noise, and a signed object from each end.
//!
//! ```text
//! client                      server
//!   -> e                               Noise_NN_25519_ChaChaPoly_BLAKE2s
//!   <- e, ee
//!   <- [ auth of the server ]          sealed, like everything that follows
//!   -> [ auth of the client ]
//!   <- [ verdict ]                     one byte, 0: welcome
//! ```
//!
//! Noise NN alone proves nothing about the other end. So each end signs an `auth` over the hash of this very handshake, its
//! role, the network and the rendezvous. The hash differs at the two ends of an interceptor, and between two connections. A
//! relayed auth and a replayed one are refused for that reason.
//!
//! The server signs first. The client names itself only to the rendezvous that it has pinned, so an interceptor learns
//! neither a name nor a key. TLS may be around all this. Nothing here depends on it.
//!
//! Randomness and the time come from outside. The state machines are [`Client`] and [`Server`]: `begin` starts one, `handle`
//! takes the other end's messages one by one, and the last [`Step`] has the [`Channel`]. After an error, the connection has
//! to be closed.

mod client;
mod noise;
mod pinned;
mod server;
#[cfg(test)]
mod tests;

use overlay_wire::signed::{Auth, PublicKey, Role, SecretKey, Signed};

use crate::protocol::MAX_MESSAGE_LEN;

pub use client::{Client, ClientSide};
pub use noise::{Handshake, Opener, Sealer};
pub use pinned::{DEFAULT_PORT, NotPinned, Pinned, parse_url};
pub use server::{Server, ServerSide};

/// The bytes that sealing adds to a message.
pub const SEAL_LEN: usize = 16;
/// The longest sealed message in bytes.
pub const MAX_FRAME_LEN: usize = MAX_MESSAGE_LEN + SEAL_LEN;
/// The protocol versions that we speak, the newest first: this one, and that of the release before.
pub const VERSIONS: &[u16] = &[3, 2, 1];
/// The verdict on a client that is welcome.
const WELCOME: u8 = 0;

/// What came of a message of the handshake.
#[derive(Debug, Default)]
pub struct Step {
    /// Messages for the other end, in this order.
    pub send: Vec<Vec<u8>>,
    /// The channel, once it is established.
    pub channel: Option<Channel>,
}

impl Step {
    fn send(messages: impl Into<Vec<Vec<u8>>>) -> Self {
        Self { send: messages.into(), channel: None }
    }
}

/// An established channel. Messages arrive in the order in which they were sealed, or not at all.
#[derive(Debug)]
pub struct Channel {
    /// What the other end says of itself.
    pub peer: Signed<Auth>,
    /// The newest protocol version that both ends speak.
    pub version: u16,
    /// Seals what we send.
    pub sealer: Sealer,
    /// Opens what we receive.
    pub opener: Opener,
}

impl Channel {
    /// Seals a message of at most [`MAX_MESSAGE_LEN`] bytes.
    ///
    /// # Errors
    /// See [`Sealer::seal`].
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, Broken> {
        self.sealer.seal(message)
    }

    /// Opens the next message.
    ///
    /// # Errors
    /// See [`Opener::open`].
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        self.opener.open(sealed)
    }
}

/// Why a channel is not established, or cannot be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A message is longer than [`MAX_MESSAGE_LEN`], or [`MAX_FRAME_LEN`] sealed.
    TooLong,
    /// A message of the handshake does not have the form of one.
    Malformed,
    /// A message was not sealed by the other end, or one before it was lost, repeated or changed.
    NotAuthentic,
    /// We refuse the auth of the other end.
    Auth(Refusal),
    /// The rendezvous refuses ours. `None`: for a reason that we do not know.
    Denied(Option<Refusal>),
    /// There was an error before, or the handshake is over.
    Over,
}

impl Broken {
    /// The reason as one word, for counters and for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::NotAuthentic => "not_authentic",
            Self::Auth(refusal) => refusal.code(),
            Self::Denied(_) => "denied",
            Self::Over => "over",
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(Some(refusal)) => write!(f, "denied: {}", refusal.code()),
            _ => f.write_str(self.code()),
        }
    }
}

impl std::error::Error for Broken {}

/// Why an auth is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// It is not a signed object of its kind, or it contradicts itself.
    BadObject = 1,
    /// It is that of the same end: our own, or one like it.
    WrongRole = 2,
    /// It was signed for a different connection: it is relayed or replayed.
    Relayed = 3,
    /// It names a different rendezvous.
    WrongRendezvous = 4,
    /// It names a different network.
    WrongNetwork = 5,
    /// There is no protocol version that both ends speak.
    UnknownVersion = 6,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::BadObject,
        Self::WrongRole,
        Self::Relayed,
        Self::WrongRendezvous,
        Self::WrongNetwork,
        Self::UnknownVersion,
    ];

    /// The reason as one word, for counters and for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadObject => "bad_object",
            Self::WrongRole => "wrong_role",
            Self::Relayed => "relayed",
            Self::WrongRendezvous => "wrong_rendezvous",
            Self::WrongNetwork => "wrong_network",
            Self::UnknownVersion => "unknown_version",
        }
    }

    fn of_verdict(verdict: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == verdict)
    }
}

/// The end of a handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub reason: Broken,
    /// A last message for the other end, which tells it why. After it the connection is closed.
    pub farewell: Option<Vec<u8>>,
    /// The rendezvous key that the other end has proved to have, if that is not the pinned one.
    pub offered: Option<PublicKey>,
}

impl From<Broken> for Failed {
    fn from(reason: Broken) -> Self {
        Self { reason, farewell: None, offered: None }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// What an auth must say: who it is from, and that it is meant for this connection.
struct Expected<'a> {
    role: Role,
    network: &'a PublicKey,
    rendezvous: &'a PublicKey,
    hash: &'a [u8; 32],
    /// What we speak.
    versions: &'a [u16],
}

impl Expected<'_> {
    /// Checks an auth. Returns it with the newest version that both ends speak, or why it is refused with the key that
    /// signed it for this connection.
    fn check(&self, bytes: &[u8]) -> Result<(Signed<Auth>, u16), (Refusal, Option<PublicKey>)> {
        let auth = Signed::<Auth>::open(bytes).map_err(|_| (Refusal::BadObject, None))?;
        if auth.role != self.role {
            return Err((Refusal::WrongRole, None));
        }
        if auth.role == Role::Server && auth.identity != auth.rendezvous {
            return Err((Refusal::BadObject, None));
        }
        if auth.hash != *self.hash {
            return Err((Refusal::Relayed, None));
        }
        if auth.rendezvous != *self.rendezvous {
            return Err((Refusal::WrongRendezvous, Some(auth.rendezvous)));
        }
        if auth.network != *self.network {
            return Err((Refusal::WrongNetwork, None));
        }
        let version = self.versions.iter().copied().find(|version| auth.versions.contains(version));
        let version = version.ok_or((Refusal::UnknownVersion, None))?;
        Ok((auth, version))
    }
}

/// Signs our own auth.
fn signed(auth: Auth, key: &SecretKey) -> Vec<u8> {
    Signed::sign(auth, key).map(|auth| auth.bytes().to_vec()).unwrap_or_default()
}
