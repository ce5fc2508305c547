//! What an agent sends to a relay.

use super::{Channel, channel_of, control_head, open_control, take};
use crate::Malformed;
use crate::signed::PublicKey;

/// Length of a hello in bytes. It is longer than the challenge that answers it.
pub const HELLO_LEN: usize = 160;

const HELLO: u8 = 1;
const BIND: u8 = 3;
const OPEN: u8 = 5;
const CLOSE: u8 = 7;
/// The shortest bind in bytes: as long as a `bound`. A `refused` is shorter.
const MIN_BIND_LEN: usize = 72;
/// The shortest open in bytes. An `opened` and a `refused` are shorter.
const MIN_OPEN_LEN: usize = 72;

/// A message of an agent. Nothing in it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The wish to be bound. Behind it are zeros up to [`HELLO_LEN`].
    ///
    /// ```text
    /// 4 identity (32) | 36 nonce (16) | 52 zeros (108)
    /// ```
    Hello {
        /// The agent.
        identity: PublicKey,
        /// A random number.
        nonce: [u8; 16],
    },
    /// The proof that an agent is at the address that the cookie was made for.
    ///
    /// ```text
    /// 4 identity (32) | 36 nonce (16) | 52 cookie (16) | 68 envelope of a relay_bind
    /// ```
    Bind {
        /// The agent, as in the envelope.
        identity: PublicKey,
        /// The number of its hello, as in the envelope.
        nonce: [u8; 16],
        /// The relay's cookie, as in the envelope.
        cookie: [u8; 16],
        /// The envelope of a `relay_bind`.
        envelope: &'a [u8],
    },
    /// The wish for a channel to the agent that signed the permit.
    ///
    /// ```text
    /// 4 token (8) | 12 request (8) | 20 envelope of a relay_permit
    /// ```
    Open {
        /// What the relay said in its bound.
        token: [u8; 8],
        /// A random number, which the answer repeats.
        request: [u8; 8],
        /// The envelope of a `relay_permit`.
        permit: &'a [u8],
    },
    /// The end of a channel, for both ends.
    ///
    /// ```text
    /// 4 zero (1), channel (3) | 8 token (8)
    /// ```
    Close {
        /// The channel.
        channel: Channel,
        /// What the relay said in its bound.
        token: [u8; 8],
    },
}

impl<'a> Request<'a> {
    /// Reads a message of an agent.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one, or does not have its length.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(datagram).ok_or(Malformed)
    }

    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (message, mut rest) = open_control(datagram)?;
        let rest = &mut rest;
        match (message, datagram.len()) {
            (HELLO, HELLO_LEN) => Some(Self::Hello { identity: PublicKey(take(rest)?), nonce: take(rest)? }),
            (BIND, MIN_BIND_LEN..) => Some(Self::Bind {
                identity: PublicKey(take(rest)?),
                nonce: take(rest)?,
                cookie: take(rest)?,
                envelope: rest,
            }),
            (OPEN, MIN_OPEN_LEN..) => Some(Self::Open { token: take(rest)?, request: take(rest)?, permit: rest }),
            (CLOSE, 16) => Some(Self::Close { channel: channel_of(take(rest)?)?, token: take(rest)? }),
            _ => None,
        }
    }

    /// The datagram.
    pub fn datagram(&self) -> Vec<u8> {
        let with = |message, parts: &[&[u8]]| [&control_head(message)[..], &parts.concat()].concat();
        match self {
            Self::Hello { identity, nonce } => {
                let mut datagram = with(HELLO, &[&identity.0, nonce]);
                datagram.resize(HELLO_LEN, 0);
                datagram
            }
            Self::Bind { identity, nonce, cookie, envelope } => with(BIND, &[&identity.0, nonce, cookie, envelope]),
            Self::Open { token, request, permit } => with(OPEN, &[token, request, permit]),
            Self::Close { channel, token } => with(CLOSE, &[&channel.number().to_be_bytes(), token]),
        }
    }
}
