//! Control frames: the messages that two overlay nodes exchange inside a session.
//!
//! A frame is a whole inner packet: IPv6 and UDP between two fixed link-local addresses with a hop limit of 1. A stock
//! WireGuard peer does not have these addresses, does not list them in allowed IPs and does not forward them, so it
//! silently drops a frame. Above UDP stand TLVs: a 16-bit type, a 16-bit length and the value. The top bit of the type
//! marks a TLV as critical: a receiver that does not know it must not act on the frame. All other unknown TLVs are
//! skipped. This is how frames are extended: the length of a known value never changes, and new information goes into a
//! TLV of its own.
//!
//! A frame carries exactly one message. Padding TLVs may stand around it, and up to three zero bytes may stand at the
//! end, where no TLV fits.
//!
//! Left out: verifying the checksum and the hop limit of a frame, because it came out of a session and was
//! authenticated; and deciding whether to believe the peer, which is up to the node.

mod paths;

use std::net::Ipv6Addr;

use crate::Malformed;
use crate::checksum;
use crate::ip::{IPV6_HEADER_LEN, Packet, UDP};
use paths::{CANDIDATES_HEADER_LEN, PATH_PROBE_LEN};
pub use paths::{CandidateList, MAX_CANDIDATES, Observed};

/// The source address of every frame: "overlay", 1.
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6f76, 0x6572, 0x6c61, 0x7901);
/// The destination address of every frame: "overlay", 2.
const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6f76, 0x6572, 0x6c61, 0x7902);
/// The source port and the destination port: "ov".
const PORT: u16 = 0x6f76;
/// A hop limit of 1 makes routers drop a frame instead of forwarding it.
const HOP_LIMIT: u8 = 1;

const UDP_HEADER_LEN: usize = 8;
/// Length of the headers in front of the TLVs, in bytes.
const HEADERS_LEN: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN;
/// Length of a TLV's type and length fields, in bytes.
const TLV_HEADER_LEN: usize = 4;

/// The bit of a TLV's type that makes a receiver refuse the frame if it does not know the TLV.
const CRITICAL: u16 = 0x8000;
const PADDING: u16 = 0;
const HELLO: u16 = CRITICAL | 1;
const HELLO_REPLY: u16 = CRITICAL | 2;
const PROBE: u16 = CRITICAL | 3;
const PROBE_REPLY: u16 = CRITICAL | 4;
const FRAGMENT: u16 = CRITICAL | 5;
const WORD: u16 = CRITICAL | 6;
const PATH_PROBE: u16 = CRITICAL | 7;
const PATH_REPLY: u16 = CRITICAL | 8;
const CANDIDATES: u16 = CRITICAL | 9;
const PARCEL: u16 = CRITICAL | 10;

const HELLO_LEN: usize = 8;
const PROBE_LEN: usize = 4;
const PROBE_REPLY_LEN: usize = 6;
/// Length of the fields in front of a fragment's bytes in its value.
const FRAGMENT_HEADER_LEN: usize = 8;

/// The length of a probe without padding, in bytes. This is the shortest probe.
pub const MIN_PROBE_LEN: usize = HEADERS_LEN + TLV_HEADER_LEN + PROBE_LEN;

/// How many bytes a fragment frame adds to the bytes it carries.
pub const FRAGMENT_OVERHEAD: usize = HEADERS_LEN + TLV_HEADER_LEN + FRAGMENT_HEADER_LEN;

/// The longest word in bytes. A frame with it fits every path.
pub const MAX_WORD_LEN: usize = 1_024;

/// The longest parcel in bytes: sealed endpoints, and the key of a third agent. A frame with it fits every path, too.
pub const MAX_PARCEL_LEN: usize = 1_072;

/// The longest hello, or answer to a hello or a probe, in bytes. A buffer of this size has room
/// for each of them.
pub const MAX_MESSAGE_LEN: usize = HEADERS_LEN + TLV_HEADER_LEN + HELLO_LEN;

/// The message in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Says that the sender is an overlay node. The receiver answers with [`Frame::HelloReply`].
    Hello {
        /// A number that the reply repeats.
        nonce: u32,
        /// The abilities of the sender.
        understands: Abilities,
        /// The MTU of the sender's interface in bytes. Any value is valid.
        mtu: u16,
    },
    /// Answers a [`Frame::Hello`]: the sender is an overlay node too.
    HelloReply {
        /// The nonce of the hello.
        nonce: u32,
        /// The abilities of the node that answers.
        understands: Abilities,
        /// The MTU of that node's interface in bytes. Any value is valid.
        mtu: u16,
    },
    /// Asks whether a packet as long as this one arrives. The receiver answers with [`Frame::ProbeReply`].
    Probe {
        /// A number that the reply repeats.
        id: u32,
        /// The inner length of the whole frame in bytes, at least [`MIN_PROBE_LEN`]. A frame to be written is padded to
        /// this length, and a smaller value is raised to the minimum. In a parsed frame it is the length that arrived.
        size: u16,
    },
    /// Answers a [`Frame::Probe`]: the probe arrived.
    ProbeReply {
        /// The id of the probe.
        id: u32,
        /// The inner length in bytes with which the probe arrived.
        size: u16,
    },
    /// Carries a part of a packet that is too long for the path.
    Fragment {
        /// A number that all fragments of one packet share.
        id: u32,
        /// The position of these bytes, counted in bytes from the start of the packet.
        offset: u16,
        /// The packet's length in bytes. This fragment does not reach beyond it.
        total: u16,
        /// The fragment's bytes, at least one.
        bytes: &'a [u8],
    },
    /// Carries what control on the sender's side says to control on the receiver's. A newer word replaces an older one.
    Word {
        /// At least one byte and at most [`MAX_WORD_LEN`]. The node does not read them.
        bytes: &'a [u8],
    },
    /// Carries something that control on one side hands to control on the other for a third agent, or on its behalf.
    Parcel {
        /// At least one byte and at most [`MAX_PARCEL_LEN`]. The node does not read them.
        bytes: &'a [u8],
    },
    /// Asks whether this pair of addresses works. The receiver answers with [`Frame::PathReply`], back over the same pair.
    PathProbe {
        /// A number that the reply repeats.
        id: u32,
        /// How many datagrams the sender has sent over this pair, this one included. It wraps.
        sent: u32,
        /// The sender's number of the pair.
        pair: u8,
    },
    /// Answers a [`Frame::PathProbe`].
    PathReply {
        /// The id of the probe.
        id: u32,
        /// How many datagrams of the pair have arrived, the probe included. It wraps.
        received: u32,
        /// Where the probe came from.
        observed: Observed,
    },
    /// All addresses at which the sender may be reached. A list replaces the one before.
    Candidates {
        /// Counts the sender's lists. From 1.
        revision: u32,
        /// The newest list of the receiver to whose addresses the sender has sent openers. 0: none yet. The receiver may
        /// probe once this is its newest list.
        seen: u32,
        /// At most [`MAX_CANDIDATES`] addresses, the best one first.
        list: CandidateList<'a>,
    },
}

/// The abilities of a node, one bit each. Bits that have no name here are kept but mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities(pub u16);

impl Abilities {
    /// The node can reassemble fragments ([`Frame::Fragment`]).
    pub const FRAGMENTS: Self = Self(1);
    /// The node hands words to its control ([`Frame::Word`]).
    pub const WORDS: Self = Self(2);
    /// The node finds paths: [`Frame::PathProbe`], [`Frame::Candidates`].
    pub const PATHS: Self = Self(4);
    /// The node hands parcels to its control ([`Frame::Parcel`]).
    pub const PARCELS: Self = Self(8);

    /// The abilities of both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether `self` has all the abilities in `others`.
    pub fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The reason why a frame is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not a frame, its lengths contradict each other, or it does not have exactly one message.
    Malformed,
    /// It has a critical TLV that we do not know. The sender is newer than we are.
    UnknownCritical,
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Whether the addresses and ports of an inner packet are those of a control frame. No other packet has them. This is
/// checked for every packet that comes out of a session. Whether the frame is valid is left to [`Frame::parse`].
#[inline]
pub fn is_control(packet: &[u8]) -> bool {
    /// Both addresses and both ports, which are adjacent in the packet.
    const ENDS: [u8; 36] = {
        let mut ends = [0; 36];
        let (source, destination) = (SOURCE.octets(), DESTINATION.octets());
        let mut at = 0;
        while at < 16 {
            ends[at] = source[at];
            ends[at + 16] = destination[at];
            at += 1;
        }
        let [high, low] = PORT.to_be_bytes();
        [ends[32], ends[33], ends[34], ends[35]] = [high, low, high, low];
        ends
    };
    let Some(headers) = packet.first_chunk::<HEADERS_LEN>() else { return false };
    headers[0] >> 4 == 6 && headers[8..44] == ENDS && headers[6] == UDP
}

impl<'a> Frame<'a> {
    /// Parses the frame at the start of `packet`. Bytes after its total length (WireGuard's padding) are cut off.
    ///
    /// # Errors
    /// Returns the first reason of [`Refused`] found from front to back.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Refused> {
        if !is_control(packet) {
            return Err(Refused::Malformed);
        }
        let packet = Packet::parse(packet)?.bytes();
        // `is_control` checked that both headers are present, but the packet's length field may claim less.
        let udp_len = packet.get(IPV6_HEADER_LEN + 4..IPV6_HEADER_LEN + 6).ok_or(Malformed)?;
        if usize::from(u16_at(udp_len, 0)) != packet.len() - IPV6_HEADER_LEN {
            return Err(Refused::Malformed);
        }
        let mut rest = packet.get(HEADERS_LEN..).ok_or(Malformed)?;
        let mut message = None;
        while rest.len() >= TLV_HEADER_LEN {
            let (kind, len) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
            let value = rest.get(TLV_HEADER_LEN..TLV_HEADER_LEN + len).ok_or(Malformed)?;
            rest = &rest[TLV_HEADER_LEN + len..];
            match Self::read(kind, value, packet.len())? {
                Some(_) if message.is_some() => return Err(Refused::Malformed),
                Some(read) => message = Some(read),
                None if kind & CRITICAL != 0 => return Err(Refused::UnknownCritical),
                None => {}
            }
        }
        match message {
            Some(message) if rest.iter().all(|byte| *byte == 0) => Ok(message),
            _ => Err(Refused::Malformed),
        }
    }

    /// Whether the frame is a question. A node sends such a frame whether or not it hears the receiver.
    pub fn is_question(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::Probe { .. } | Self::PathProbe { .. } | Self::Candidates { .. })
    }

    /// The message in a TLV. `None` if the TLV is padding or unknown.
    fn read(kind: u16, value: &'a [u8], packet_len: usize) -> Result<Option<Self>, Malformed> {
        let wanted = match kind {
            HELLO | HELLO_REPLY => HELLO_LEN,
            PROBE => PROBE_LEN,
            PROBE_REPLY => PROBE_REPLY_LEN,
            FRAGMENT => value.len().max(FRAGMENT_HEADER_LEN + 1),
            WORD if (1..=MAX_WORD_LEN).contains(&value.len()) => return Ok(Some(Self::Word { bytes: value })),
            PARCEL if (1..=MAX_PARCEL_LEN).contains(&value.len()) => return Ok(Some(Self::Parcel { bytes: value })),
            WORD | PARCEL => return Err(Malformed),
            PATH_PROBE if value.len() == PATH_PROBE_LEN => return paths::read_probe(value).map(Some),
            PATH_REPLY if value.len() == PATH_PROBE_LEN => return paths::read_reply(value).map(Some),
            CANDIDATES => return paths::read_candidates(value).map(Some),
            PATH_PROBE | PATH_REPLY => return Err(Malformed),
            _ => return Ok(None),
        };
        if value.len() != wanted {
            return Err(Malformed);
        }
        let id = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
        Ok(Some(match kind {
            HELLO => Self::Hello { nonce: id, understands: Abilities(u16_at(value, 4)), mtu: u16_at(value, 6) },
            HELLO_REPLY => {
                Self::HelloReply { nonce: id, understands: Abilities(u16_at(value, 4)), mtu: u16_at(value, 6) }
            }
            // An IPv6 packet can be 65,575 bytes long. No path carries that.
            PROBE => Self::Probe { id, size: u16::try_from(packet_len).map_err(|_| Malformed)? },
            PROBE_REPLY => Self::ProbeReply { id, size: u16_at(value, 4) },
            _ => {
                let (offset, total, bytes) = (u16_at(value, 4), u16_at(value, 6), &value[FRAGMENT_HEADER_LEN..]);
                if usize::from(offset) + bytes.len() > usize::from(total) {
                    return Err(Malformed);
                }
                Self::Fragment { id, offset, total, bytes }
            }
        }))
    }

    /// The frame's length in bytes, as [`Frame::write`] writes it.
    #[expect(clippy::len_without_is_empty, reason = "a frame has headers, it is never empty")]
    pub fn len(&self) -> usize {
        match *self {
            Self::Hello { .. } | Self::HelloReply { .. } => HEADERS_LEN + TLV_HEADER_LEN + HELLO_LEN,
            Self::Probe { size, .. } => usize::from(size).max(MIN_PROBE_LEN),
            Self::ProbeReply { .. } => HEADERS_LEN + TLV_HEADER_LEN + PROBE_REPLY_LEN,
            Self::Fragment { bytes, .. } => FRAGMENT_OVERHEAD + bytes.len(),
            Self::Word { bytes } | Self::Parcel { bytes } => HEADERS_LEN + TLV_HEADER_LEN + bytes.len(),
            Self::PathProbe { .. } | Self::PathReply { .. } => HEADERS_LEN + TLV_HEADER_LEN + PATH_PROBE_LEN,
            Self::Candidates { list, .. } => HEADERS_LEN + TLV_HEADER_LEN + CANDIDATES_HEADER_LEN + list.bytes().len(),
        }
    }

    /// Writes the frame as a whole inner packet to the front of `out`, and returns its length in bytes.
    ///
    /// # Panics
    /// Panics if `out` is shorter than [`Frame::len`], or if a fragment's bytes do not fit in a packet.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let len = self.len();
        let out = &mut out[..len];
        let (headers, mut payload) = out.split_at_mut(HEADERS_LEN);
        match *self {
            Self::Hello { nonce, understands, mtu } => {
                let value = put_tlv(&mut payload, HELLO, HELLO_LEN);
                put_u32_and_two(value, nonce, understands.0, mtu);
            }
            Self::HelloReply { nonce, understands, mtu } => {
                let value = put_tlv(&mut payload, HELLO_REPLY, HELLO_LEN);
                put_u32_and_two(value, nonce, understands.0, mtu);
            }
            Self::Probe { id, .. } => {
                put_tlv(&mut payload, PROBE, PROBE_LEN).copy_from_slice(&id.to_be_bytes());
                if let Some(padding) = payload.len().checked_sub(TLV_HEADER_LEN) {
                    put_tlv(&mut payload, PADDING, padding).fill(0);
                }
                payload.fill(0);
            }
            Self::ProbeReply { id, size } => {
                let value = put_tlv(&mut payload, PROBE_REPLY, PROBE_REPLY_LEN);
                value[..4].copy_from_slice(&id.to_be_bytes());
                value[4..].copy_from_slice(&size.to_be_bytes());
            }
            Self::Fragment { id, offset, total, bytes } => {
                let value = put_tlv(&mut payload, FRAGMENT, FRAGMENT_HEADER_LEN + bytes.len());
                let (header, room) = value.split_at_mut(FRAGMENT_HEADER_LEN);
                put_u32_and_two(header, id, offset, total);
                room.copy_from_slice(bytes);
            }
            Self::Word { bytes } => put_tlv(&mut payload, WORD, bytes.len()).copy_from_slice(bytes),
            Self::Parcel { bytes } => put_tlv(&mut payload, PARCEL, bytes.len()).copy_from_slice(bytes),
            Self::PathProbe { id, sent, pair } => {
                paths::write_probe(put_tlv(&mut payload, PATH_PROBE, PATH_PROBE_LEN), id, sent, pair);
            }
            Self::PathReply { id, received, observed } => {
                paths::write_reply(put_tlv(&mut payload, PATH_REPLY, PATH_PROBE_LEN), id, received, observed);
            }
            Self::Candidates { revision, seen, list } => {
                let value = put_tlv(&mut payload, CANDIDATES, CANDIDATES_HEADER_LEN + list.bytes().len());
                value[..4].copy_from_slice(&revision.to_be_bytes());
                value[4..8].copy_from_slice(&seen.to_be_bytes());
                value[CANDIDATES_HEADER_LEN..].copy_from_slice(list.bytes());
            }
        }
        write_headers(headers, len - IPV6_HEADER_LEN);
        let sum = checksum::pseudo_v6(SOURCE, DESTINATION, UDP, len - IPV6_HEADER_LEN);
        let checksum = checksum::finish_nonzero(sum + checksum::sum(&out[IPV6_HEADER_LEN..]));
        out[IPV6_HEADER_LEN + 6..HEADERS_LEN].copy_from_slice(&checksum.to_be_bytes());
        len
    }
}

/// Writes both headers, with a UDP checksum of zero. `len` is the length of UDP and its payload in bytes.
fn write_headers(headers: &mut [u8], len: usize) {
    let len = u16::try_from(len).expect("no frame is longer than a packet").to_be_bytes();
    headers[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    headers[4..6].copy_from_slice(&len);
    headers[6..8].copy_from_slice(&[UDP, HOP_LIMIT]);
    headers[8..24].copy_from_slice(&SOURCE.octets());
    headers[24..40].copy_from_slice(&DESTINATION.octets());
    headers[40..42].copy_from_slice(&PORT.to_be_bytes());
    headers[42..44].copy_from_slice(&PORT.to_be_bytes());
    headers[44..46].copy_from_slice(&len);
    headers[46..].fill(0);
}

/// Writes type and length to the front of `rest`, leaves in it what follows the value, and returns the space for the
/// value.
fn put_tlv<'r>(rest: &mut &'r mut [u8], kind: u16, len: usize) -> &'r mut [u8] {
    let (tlv, behind) = std::mem::take(rest).split_at_mut(TLV_HEADER_LEN + len);
    *rest = behind;
    let (header, value) = tlv.split_at_mut(TLV_HEADER_LEN);
    header[..2].copy_from_slice(&kind.to_be_bytes());
    // If `len` exceeds 16 bits, writing the headers panics.
    header[2..].copy_from_slice(&(len as u16).to_be_bytes());
    value
}

fn put_u32_and_two(value: &mut [u8], first: u32, second: u16, third: u16) {
    value[..4].copy_from_slice(&first.to_be_bytes());
    value[4..6].copy_from_slice(&second.to_be_bytes());
    value[6..8].copy_from_slice(&third.to_be_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
