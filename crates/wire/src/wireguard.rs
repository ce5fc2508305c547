//! WireGuard's messages: types, lengths, and the fields that are read before any key is used.
//!
//! A datagram's [`kind`] is decided first, because one UDP port carries more than WireGuard. [`Message::parse`] then
//! checks type and length, which is all an unauthenticated datagram is believed; the rest belongs to the session.
//!
//! Field layout: the WireGuard paper, section 5.4. All numbers are little-endian.

use crate::Malformed;

/// Length of a handshake initiation in bytes.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response in bytes.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in bytes.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes in front of a data message's ciphertext: type, receiver index, counter.
pub const DATA_HEADER_LEN: usize = 16;
/// Length of the authentication tag behind the ciphertext, in bytes.
pub const TAG_LEN: usize = 16;
/// What a data message adds to the packet inside, padding apart, in bytes.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Packets are padded with zeros to a multiple of this, in bytes.
pub const PADDING: usize = 16;

/// Message type of a handshake initiation.
pub const INITIATION: u8 = 1;
/// Message type of a handshake response.
pub const RESPONSE: u8 = 2;
/// Message type of a cookie reply.
pub const COOKIE_REPLY: u8 = 3;
/// Message type of data.
pub const DATA: u8 = 4;

/// Where mac1 begins in an initiation, in bytes; it ends the part that it covers.
pub const INITIATION_MAC1: usize = 116;
/// Where mac2 begins in an initiation, in bytes.
pub const INITIATION_MAC2: usize = 132;
/// Where mac1 begins in a response, in bytes; it ends the part that it covers.
pub const RESPONSE_MAC1: usize = 60;
/// Where mac2 begins in a response, in bytes.
pub const RESPONSE_MAC2: usize = 76;

/// What a datagram is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins as a WireGuard message does. Its length is not checked yet.
    WireGuard,
    /// Begins as a STUN message does (RFC 8489 section 5).
    Stun,
    /// None of the protocols of our port.
    Unknown,
}

/// What a datagram that came to our port is. WireGuard goes first: a STUN success response begins with 01 as well,
/// but its second byte is 01.
#[inline]
pub fn kind(datagram: &[u8]) -> Kind {
    const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    match datagram {
        [INITIATION..=DATA, 0, 0, 0, ..] => Kind::WireGuard,
        [0x00..=0x3f, _, _, _, a, b, c, d, ..] if [*a, *b, *c, *d] == STUN_MAGIC_COOKIE => Kind::Stun,
        _ => Kind::Unknown,
    }
}

/// A message whose length is right for its type. Nothing in it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message of a handshake: the whole of it, [`INITIATION_LEN`] bytes.
    Initiation(&'a [u8]),
    /// The second message of a handshake.
    Response {
        /// Our index, from the initiation that this answers.
        receiver: u32,
        /// The whole message, [`RESPONSE_LEN`] bytes.
        bytes: &'a [u8],
    },
    /// The answer of a responder under load.
    CookieReply {
        /// Our index, from the message that this answers.
        receiver: u32,
        /// The whole message, [`COOKIE_REPLY_LEN`] bytes.
        bytes: &'a [u8],
    },
    /// One encrypted packet, or a keepalive.
    Data {
        /// Our index of the session.
        receiver: u32,
        /// The nonce: each is used once in a session.
        counter: u64,
        /// Ciphertext and tag: at least [`TAG_LEN`] bytes, exactly that many for a keepalive.
        sealed: &'a [u8],
    },
}

impl<'a> Message<'a> {
    /// Reads a datagram's type and indices.
    ///
    /// # Errors
    /// [`Malformed`] when it is no WireGuard message, or its length is not that of its type. Data is at least
    /// [`DATA_OVERHEAD`] bytes long; that its ciphertext is a multiple of 16 is not asked, since not everybody pads.
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

/// An index of a message whose length was checked.
fn index_at(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

/// The length to which a packet of `len` bytes is padded before it is sealed: a multiple of 16, but no longer than
/// `mtu`, and never shorter than the packet. An empty packet, the keepalive, stays empty.
#[inline]
pub fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING).min(mtu).max(len)
}

#[cfg(test)]
mod tests;
