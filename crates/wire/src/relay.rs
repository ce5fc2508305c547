//! The relay's protocol: datagrams for others behind four bytes, and the messages by which an agent gets that service.
//!
//! A relay shares its UDP port with WireGuard and STUN, so the first byte decides ([`kind`]):
//!
//! | first byte | what it is |
//! |---|---|
//! | `01xxxxxx` | relay data. `xxxxxx` is the version, [`VERSION`] |
//! | `10kkkkkk` | relay control. `kkkkkk` is the message |
//! | anything else | not the relay's |
//!
//! Relay data is a head of four bytes and the datagram, unchanged. The channel has the same number on both legs, so a relay
//! sends on whole trains byte for byte:
//!
//! ```text
//! 0x41 | channel, 24 bits | datagram
//! ```
//!
//! Control messages begin with `10kkkkkk`, the version, and two bytes that are 0 and not looked at. Numbers are
//! big-endian. [`Request`] and [`Reply`] show what follows, byte by byte.
//!
//! | message | from | length | answered by |
//! |---|---|---|---|
//! | 1 hello | agent | 160 | challenge |
//! | 2 challenge | relay | 36 | bind |
//! | 3 bind | agent | 72 to 1,200 | bound or refused |
//! | 4 bound | relay | 72 | |
//! | 5 open | agent | 72 to 1,200 | opened or refused |
//! | 6 opened | relay, to both ends | 52 | |
//! | 7 close | agent | 16 | unbound |
//! | 8 unbound | relay | 12 | hello, at most once a second |
//! | 9 refused | relay | 24 | |
//!
//! **No message of a relay is longer than the one that it answers**, so nobody can use it to send more to a victim than he
//! sends himself. That is why a hello is padded, and why the others have a least length.
//!
//! Left out: who may bind and open, and for how long. `rendezvous/relay` decides that.

mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use reply::{Bound, Reason, Reply};
pub use request::{HELLO_LEN, Request};

/// The version of data and of control messages.
pub const VERSION: u8 = 1;
/// Length of the head of relay data in bytes.
pub const DATA_HEAD_LEN: usize = 4;
/// The longest control message in bytes. Every path carries it in one packet.
pub const MAX_CONTROL_LEN: usize = 1_200;
/// How many bytes an `unbound` repeats of what it refuses.
pub const ECHO_LEN: usize = 8;
/// Length of an `unbound` in bytes. Shorter datagrams are never answered.
pub const UNBOUND_LEN: usize = CONTROL_HEAD_LEN + ECHO_LEN;

/// Length of the head of a control message in bytes.
const CONTROL_HEAD_LEN: usize = 4;
const DATA: u8 = 0b0100_0000;
const CONTROL: u8 = 0b1000_0000;
const TOP_BITS: u8 = 0b1100_0000;

/// Whether a datagram is a relay's, judged by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A datagram for the other end of a channel.
    Data,
    /// A message to or from the relay itself.
    Control,
    /// A different protocol, or an unknown version of data.
    Other,
}

/// The kind of a datagram.
#[inline]
pub fn kind(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(first) if *first == DATA | VERSION => Kind::Data,
        Some(first) if first & TOP_BITS == CONTROL => Kind::Control,
        _ => Kind::Other,
    }
}

/// A channel between two agents at one relay: a number of 24 bits, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u32);

impl Channel {
    /// The highest number.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The channel with this number. `None`: 0, or more than 24 bits.
    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The head of its data.
    #[inline]
    pub fn head(self) -> [u8; DATA_HEAD_LEN] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [DATA | VERSION, a, b, c]
    }
}

/// The channel of relay data, and the datagram inside. `None`: it is not relay data, or its channel is 0.
#[inline]
pub fn open_data(datagram: &[u8]) -> Option<(Channel, &[u8])> {
    let ([first, a, b, c], inside) = datagram.split_first_chunk::<DATA_HEAD_LEN>()?;
    if *first != DATA | VERSION {
        return None;
    }
    Some((Channel::new(u32::from_be_bytes([0, *a, *b, *c]))?, inside))
}

/// The number of a control message, and what follows its head. `None`: it is not one, or not of this version.
fn open_control(datagram: &[u8]) -> Option<(u8, &[u8])> {
    if datagram.len() > MAX_CONTROL_LEN {
        return None;
    }
    match datagram {
        [first, VERSION, _, _, body @ ..] if first & TOP_BITS == CONTROL => Some((first & !TOP_BITS, body)),
        _ => None,
    }
}

/// The head of a control message.
fn control_head(message: u8) -> Vec<u8> {
    vec![CONTROL | message, VERSION, 0, 0]
}

/// The channel in four bytes of a control message.
fn channel_of(bytes: [u8; 4]) -> Option<Channel> {
    Channel::new(u32::from_be_bytes(bytes))
}

/// Takes the first `N` bytes off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}
