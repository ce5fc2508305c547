//! WireGuard's messages: types, lengths, and the fields that are read before any key is used.
//!
//! A datagram's [`kind`] is decided first, because one UDP port carries more than WireGuard. [`Message::parse`] then
//! checks type and length. An unauthenticated datagram is trusted for nothing more. The rest belongs to the session.
//!
//! Section 5.4 of the WireGuard paper defines the fields. All numbers are little-endian.

use crate::{Malformed, stun};

/// Length of a handshake initiation in bytes.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response in bytes.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in bytes.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of a data message's header in bytes: type, receiver index, counter.
pub const DATA_HEADER_LEN: usize = 16;
/// Length of the authentication tag behind the ciphertext, in bytes.
pub const TAG_LEN: usize = 16;
/// How many bytes a data message adds to the packet inside, not counting padding.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Packets are padded with zeros to a multiple of this many bytes.
pub const PADDING: usize = 16;

/// Message type of a handshake initiation.
pub const INITIATION: u8 = 1;
/// Message type of a handshake response.
pub const RESPONSE: u8 = 2;
/// Message type of a cookie reply.
pub const COOKIE_REPLY: u8 = 3;
/// Message type of data.
pub const DATA: u8 = 4;

/// Where mac1 begins in an initiation, in bytes. It covers everything before it.
pub const INITIATION_MAC1: usize = 116;
/// Where mac2 begins in an initiation, in bytes.
pub const INITIATION_MAC2: usize = 132;
/// Where mac1 begins in a response, in bytes. It covers everything before it.
pub const RESPONSE_MAC1: usize = 60;
/// Where mac2 begins in a response, in bytes.
pub const RESPONSE_MAC2: usize = 76;

/// The protocol of a datagram, judged by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins like a WireGuard message. Its length has not been checked yet.
    WireGuard,
    /// Begins like a STUN message (RFC 8489 section 5).
    Stun,
    /// Begins like data that came through a relay ([`crate::relay`]).
    Relayed,
    /// Begins like a message between a relay and those it serves.
    RelayControl,
    /// A protocol that does not belong on our port.
    Unknown,
}

/// The protocol of a datagram that came to our port. WireGuard is tested first. A STUN success response also begins
/// with 01, but its second byte is 01 where WireGuard's is 0.
#[inline]
pub fn kind(datagram: &[u8]) -> Kind {
    match datagram {
        [INITIATION..=DATA, 0, 0, 0, ..] => Kind::WireGuard,
        [0x00..=0x3f, _, _, _, a, b, c, d, ..] if [*a, *b, *c, *d] == stun::MAGIC_COOKIE => Kind::Stun,
        [0x40..=0x7f, ..] => Kind::Relayed,
        [0x80..=0xbf, ..] => Kind::RelayControl,
        _ => Kind::Unknown,
    }
}

/// A message with the right length for its type. Nothing in it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message of a handshake. The whole message is [`INITIATION_LEN`] bytes long.
    Initiation(&'a [u8]),
    /// The second message of a handshake.
    Response {
        /// Our index, taken from the initiation that this message answers.
        receiver: u32,
        /// The whole message, [`RESPONSE_LEN`] bytes.
        bytes: &'a [u8],
    },
    /// The answer of a responder that is under load.
    CookieReply {
        /// Our index, taken from the message that this one answers.
        receiver: u32,
        /// The whole message, [`COOKIE_REPLY_LEN`] bytes.
        bytes: &'a [u8],
    },
    /// One encrypted packet, or a keepalive.
    Data {
        /// Our index for the session.
        receiver: u32,
        /// The nonce, which is used only once in a session.
        counter: u64,
        /// Ciphertext and tag: at least [`TAG_LEN`] bytes, and exactly that many for a keepalive.
        sealed: &'a [u8],
    },
}

impl<'a> Message<'a> {
    /// Reads a datagram's type and indices.
    ///
    /// # Errors
    /// Returns [`Malformed`] if it is not a WireGuard message, or if its length does not match its type. Data must be
    /// at least [`DATA_OVERHEAD`] bytes long. Its ciphertext need not be a multiple of 16, since not every
    /// implementation pads.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if kind(datagram) != Kind::WireGuard {
            return Err(Malformed);
        }
        match (datagram[0], datagram.len()) {
            (DATA, _) => {
                let (header, sealed) = datagram.split_first_chunk::<DATA_HEADER_LEN>().ok_or(Malformed)?;
                if sealed.len() < TAG_LEN {
                    return Err(Malformed);
                }
                let [_, _, _, _, r0, r1, r2, r3, counter @ ..] = *header;
                Ok(Self::Data {
                    receiver: u32::from_le_bytes([r0, r1, r2, r3]),
                    counter: u64::from_le_bytes(counter),
                    sealed,
                })
            }
            (INITIATION, INITIATION_LEN) => Ok(Self::Initiation(datagram)),
            (RESPONSE, RESPONSE_LEN) => Ok(Self::Response { receiver: index_at(datagram, 8), bytes: datagram }),
            (COOKIE_REPLY, COOKIE_REPLY_LEN) => {
                Ok(Self::CookieReply { receiver: index_at(datagram, 4), bytes: datagram })
            }
            _ => Err(Malformed),
        }
    }
}

/// Reads an index from a message whose length has been checked.
fn index_at(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

/// The length to which a packet of `len` bytes is padded before it is sealed: a multiple of 16, but at most `mtu` and
/// at least `len`. An empty packet (a keepalive) stays empty.
#[inline]
pub fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING).min(mtu).max(len)
}

#[cfg(test)]
mod tests;
