//! Control frames: what two overlay nodes say to each other inside a session.
//!
//! A frame is a whole inner packet, IPv6 and UDP between two fixed link-local addresses with a hop limit of 1. A stock
//! WireGuard peer has nobody at these addresses, accepts them from nobody and forwards them nowhere: it drops a frame in
//! silence. Above UDP stand TLVs: a type of 16 bits, a length of 16 bits, the value. The top bit of the type says that
//! who does not know it must not act on the frame; every other unknown one is skipped. That is how frames grow: a value
//! that is known has one length for ever, and what is new is a TLV of its own beside it.
//!
//! A frame carries exactly one message. Padding may stand around it, and up to three zeros at the end where no TLV fits.
//!
//! Left out: verifying the checksum and the hop limit of a frame, which came out of a session and was authenticated; and
//! whether its peer may be believed, which the node knows.

use std::net::Ipv6Addr;

use crate::Malformed;
use crate::checksum;
use crate::ip::{IPV6_HEADER_LEN, Packet, UDP};

/// From where every frame comes: "overlay", 1.
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6f76, 0x6572, 0x6c61, 0x7901);
/// To where every frame goes: "overlay", 2.
const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6f76, 0x6572, 0x6c61, 0x7902);
/// Both UDP ports: "ov".
const PORT: u16 = 0x6f76;
/// Nobody forwards a frame.
const HOP_LIMIT: u8 = 1;

const UDP_HEADER_LEN: usize = 8;
/// Length of what is in front of the TLVs, in bytes.
const HEADERS_LEN: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN;
/// Length of what is in front of a value, in bytes.
const TLV_HEADER_LEN: usize = 4;

/// Whoever does not know this TLV refuses the frame.
const CRITICAL: u16 = 0x8000;
const PADDING: u16 = 0;
const HELLO: u16 = CRITICAL | 1;
const HELLO_REPLY: u16 = CRITICAL | 2;
const PROBE: u16 = CRITICAL | 3;
const PROBE_REPLY: u16 = CRITICAL | 4;
const FRAGMENT: u16 = CRITICAL | 5;

const HELLO_LEN: usize = 8;
const PROBE_LEN: usize = 4;
const PROBE_REPLY_LEN: usize = 6;
/// Length of what is in front of a fragment's bytes in its value.
const FRAGMENT_HEADER_LEN: usize = 8;

/// The length of a probe without padding, in bytes: none is smaller.
pub const MIN_PROBE_LEN: usize = HEADERS_LEN + TLV_HEADER_LEN + PROBE_LEN;

/// What a fragment frame adds to the bytes it carries, in bytes.
pub const FRAGMENT_OVERHEAD: usize = HEADERS_LEN + TLV_HEADER_LEN + FRAGMENT_HEADER_LEN;

/// The longest frame without padding and without a fragment's bytes: enough room for every message but a probe and a
/// fragment.
pub const MAX_MESSAGE_LEN: usize = HEADERS_LEN + TLV_HEADER_LEN + HELLO_LEN;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The sender is an overlay node. It is answered with [`Frame::HelloReply`].
    Hello {
        /// The answer repeats it.
        nonce: u32,
        /// What the sender understands.
        understands: Abilities,
        /// The MTU of the sender's interface in bytes, any number.
        mtu: u16,
    },
    /// So is the one that was asked.
    HelloReply {
        /// That of the hello.
        nonce: u32,
        /// What the sender of the answer understands.
        understands: Abilities,
        /// The MTU of its interface in bytes, any number.
        mtu: u16,
    },
    /// Asks whether a packet as long as this one arrives. It is answered with [`Frame::ProbeReply`].
    Probe {
        /// The answer repeats it.
        id: u32,
        /// The inner length of the whole frame in bytes, at least [`MIN_PROBE_LEN`]: what it is padded to when it is
        /// written, and what has arrived when it was parsed. A smaller one is written as that.
        size: u16,
    },
    /// It does.
    ProbeReply {
        /// That of the probe.
        id: u32,
        /// The probe's inner length in bytes as it arrived.
        size: u16,
    },
    /// A part of a packet that is too long for the path.
    Fragment {
        /// The same in all fragments of a packet.
        id: u32,
        /// Where the bytes belong, in bytes from the start of the packet.
        offset: u16,
        /// The packet's length in bytes. The bytes of this fragment end at it or before.
        total: u16,
        /// At least one.
        bytes: &'a [u8],
    },
}

/// What a node understands, one bit each. Bits that are not named here are kept, and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities(pub u16);

impl Abilities {
    /// It puts fragments together ([`Frame::Fragment`]).
    pub const FRAGMENTS: Self = Self(1);

    /// Whether all of `others` are among them.
    pub fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// Why a frame is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no frame, or lengths contradict each other, or it has no message or more than one.
    Malformed,
    /// It says something that must be understood, and is not: the sender is newer than we are.
    UnknownCritical,
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Whether an inner packet is a control frame by its addresses and ports, which no other packet has. Asked for every
/// packet that comes out of a session; whether it can be read is for [`Frame::parse`] to say.
#[inline]
pub fn is_control(packet: &[u8]) -> bool {
    /// Both addresses and both ports, which lie side by side.
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
    /// Reads the frame that `packet` begins with. What follows its total length (WireGuard's padding) is cut off.
    ///
    /// # Errors
    /// See [`Refused`]: the first reason that is met from the front to the back.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Refused> {
        if !is_control(packet) {
            return Err(Refused::Malformed);
        }
        let packet = Packet::parse(packet)?.bytes();
        // `is_control` saw that both headers are there, but the packet may claim to be shorter.
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

    /// The message in a TLV. `None`: it is padding, or unknown.
    fn read(kind: u16, value: &'a [u8], packet_len: usize) -> Result<Option<Self>, Malformed> {
        let wanted = match kind {
            HELLO | HELLO_REPLY => HELLO_LEN,
            PROBE => PROBE_LEN,
            PROBE_REPLY => PROBE_REPLY_LEN,
            FRAGMENT => value.len().max(FRAGMENT_HEADER_LEN + 1),
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
            // IPv6 and its payload may be 65,575 bytes long, which no path carries.
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

    /// How long the frame is as [`Frame::write`] writes it, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame has headers, it is never empty")]
    pub fn len(&self) -> usize {
        match *self {
            Self::Hello { .. } | Self::HelloReply { .. } => HEADERS_LEN + TLV_HEADER_LEN + HELLO_LEN,
            Self::Probe { size, .. } => usize::from(size).max(MIN_PROBE_LEN),
            Self::ProbeReply { .. } => HEADERS_LEN + TLV_HEADER_LEN + PROBE_REPLY_LEN,
            Self::Fragment { bytes, .. } => FRAGMENT_OVERHEAD + bytes.len(),
        }
    }

    /// Writes the frame as a whole inner packet to the front of `out`, and says how long it is in bytes.
    ///
    /// # Panics
    /// When `out` is shorter than [`Frame::len`], or a fragment's bytes are longer than a packet can be.
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
        }
        write_headers(headers, len - IPV6_HEADER_LEN);
        let sum = checksum::pseudo_v6(SOURCE, DESTINATION, UDP, len - IPV6_HEADER_LEN);
        let checksum = checksum::finish_nonzero(sum + checksum::sum(&out[IPV6_HEADER_LEN..]));
        out[IPV6_HEADER_LEN + 6..HEADERS_LEN].copy_from_slice(&checksum.to_be_bytes());
        len
    }
}

/// Writes both headers, the UDP checksum zero. `len` is that of UDP and its payload in bytes.
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

/// Writes type and length to the front of `rest`, leaves what is behind the value, and gives the room for that.
fn put_tlv<'r>(rest: &mut &'r mut [u8], kind: u16, len: usize) -> &'r mut [u8] {
    let (tlv, behind) = std::mem::take(rest).split_at_mut(TLV_HEADER_LEN + len);
    *rest = behind;
    let (header, value) = tlv.split_at_mut(TLV_HEADER_LEN);
    header[..2].copy_from_slice(&kind.to_be_bytes());
    // A longer one is refused with the headers.
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
