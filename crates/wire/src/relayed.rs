//! A datagram on its way through a relay: four bytes in front of it name the channel, and the rest is what the sender sent.
//!
//! ```text
//! 01vvvvvv | channel, 24 bits | the datagram
//! ```
//!
//! `v` is the version, 0. The number of a channel is the same on both legs, so a relay forwards the bytes as they came.

use std::fmt;

/// The length of what stands in front of a datagram.
pub const HEADER_LEN: usize = 4;

/// The first byte: data, in version 0.
const DATA: u8 = 0x40;

/// Names a channel of a relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u32);

impl Channel {
    /// The channel with this number. `None` if it has more than 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= 0x00ff_ffff { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What stands in front of a datagram in this channel.
    #[inline]
    pub const fn header(self) -> [u8; HEADER_LEN] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [DATA, a, b, c]
    }

    /// Splits a datagram that came through a relay. `None` if it is something else, or of a version that we do not know.
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        match bytes {
            [DATA, a, b, c, datagram @ ..] => Some((Self(u32::from_be_bytes([0, *a, *b, *c])), datagram)),
            _ => None,
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {:06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_stands_in_front_of_the_datagram() {
        let channel = Channel::new(0x0a_0b0c).expect("24 bits");
        assert_eq!(channel.header(), [0x40, 0x0a, 0x0b, 0x0c]);
        assert_eq!(Channel::split(&[0x40, 0x0a, 0x0b, 0x0c, 4, 0, 0, 0]), Some((channel, &[4, 0, 0, 0][..])));
        assert_eq!(Channel::split(&[0x40, 0, 0, 1]), Channel::new(1).map(|channel| (channel, &[][..])));
        assert_eq!(Channel::new(0x0100_0000), None);
    }

    #[test]
    fn other_bytes_are_not_relayed() {
        for bytes in [&[][..], &[0x40, 1, 2], &[0x41, 1, 2, 3, 4], &[0x80, 1, 2, 3, 4], &[4, 0, 0, 0]] {
            assert_eq!(Channel::split(bytes), None, "{bytes:?}");
        }
    }
}
