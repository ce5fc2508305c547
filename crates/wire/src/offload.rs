//! Offloads at the TUN device: the virtio header, partial checksums, and super-packets cut into segments.
//!
//! Linux hands a TUN reader packets of up to 64 KiB with unfinished checksums. Ten bytes in front of each packet
//! (`struct virtio_net_hdr`) say what is left to do. We do that work here, once for each segment and in one pass over
//! the payload. So route, allowlist and session are looked up once for forty packets.
//!
//! The kernel is trusted not to be hostile, but not to be exact. Its `hdr_len` is a hint that may cover the whole first
//! segment, so header lengths are always taken from the headers themselves.
//!
//! Left out: segmentation of tunnels inside tunnels, which we never offer to the kernel.

mod join;
mod segment;

pub use join::{Join, Joins};
pub use segment::SuperPacket;

use crate::ip::Packet;
use crate::{Malformed, checksum};

/// Length of the virtio header that TUN uses, in bytes. It does not have the count of merged buffers.
pub const VIRTIO_HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A flag combined with the type: the TCP super-packet carries CWR.
const GSO_ECN: u8 = 0x80;

/// The work left to do for a packet, as `struct virtio_net_hdr` states it. In the encoded header, numbers are in the
/// machine's byte order, which is TUN's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VirtioHeader {
    /// The checksum at `checksum_start + checksum_offset` covers only the pseudo header so far.
    pub needs_checksum: bool,
    /// The author of this header has verified the checksum.
    pub data_valid: bool,
    /// Whether this is a super-packet, and for which protocol.
    pub segmentation: Segmentation,
    /// Whether the super-packet carries CWR, which belongs to its first segment only.
    pub ecn: bool,
    /// Length of the headers in front of the payload, in bytes. This is only a hint and never relied upon.
    pub header_len: u16,
    /// Payload bytes in each segment except the last.
    pub segment_size: u16,
    /// Where the bytes that the checksum covers begin, counted from the start of the packet.
    pub checksum_start: u16,
    /// Where the checksum field stands, in bytes from `checksum_start`.
    pub checksum_offset: u16,
}

/// How to cut a super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// Not at all: it is one plain packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv4 or IPv6: datagrams of equal size, except the last (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

impl VirtioHeader {
    /// The header of a plain packet whose checksum is finished.
    pub const NONE: Self = Self {
        needs_checksum: false,
        data_valid: false,
        segmentation: Segmentation::None,
        ecn: false,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header from the first [`VIRTIO_HEADER_LEN`] bytes. Flags that we do not use are ignored.
    ///
    /// # Errors
    /// Returns [`Malformed`] if there are fewer bytes, or if the segmentation type is one that we never offered.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.first_chunk::<VIRTIO_HEADER_LEN>().ok_or(Malformed)?;
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Ok(Self {
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            data_valid: bytes[0] & DATA_VALID != 0,
            segmentation: match bytes[1] & !GSO_ECN {
                GSO_NONE => Segmentation::None,
                GSO_TCPV4 => Segmentation::TcpV4,
                GSO_TCPV6 => Segmentation::TcpV6,
                GSO_UDP_L4 => Segmentation::Udp,
                _ => return Err(Malformed),
            },
            ecn: bytes[1] & GSO_ECN != 0,
            header_len: number(2),
            segment_size: number(4),
            checksum_start: number(6),
            checksum_offset: number(8),
        })
    }

    /// Encodes the header, to be written in front of the packet.
    #[inline]
    pub fn encode(&self) -> [u8; VIRTIO_HEADER_LEN] {
        let mut bytes = [0; VIRTIO_HEADER_LEN];
        if self.needs_checksum {
            bytes[0] |= NEEDS_CHECKSUM;
        }
        if self.data_valid {
            bytes[0] |= DATA_VALID;
        }
        bytes[1] = match self.segmentation {
            Segmentation::None => GSO_NONE,
            Segmentation::TcpV4 => GSO_TCPV4,
            Segmentation::TcpV6 => GSO_TCPV6,
            Segmentation::Udp => GSO_UDP_L4,
        };
        if self.ecn {
            bytes[1] |= GSO_ECN;
        }
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

/// Finishes the checksum of a plain packet in place, if its header says that it is unfinished.
///
/// # Errors
/// Returns [`Malformed`] if the checksum would lie outside the packet or inside its IP header, or if the packet is
/// incomplete. The bytes are then unchanged.
pub fn complete_checksum(header: &VirtioHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    if !header.needs_checksum {
        return Ok(());
    }
    let start = usize::from(header.checksum_start);
    // The packet has already been routed by its IP header, which must not change any more.
    if start < Packet::parse(packet)?.header_len() {
        return Err(Malformed);
    }
    let covered = packet.get_mut(start..).ok_or(Malformed)?;
    // The field already holds the sum of the pseudo header, so it is simply included in the sum.
    let finished = checksum::finish_nonzero(checksum::sum(covered));
    let field = usize::from(header.checksum_offset);
    covered.get_mut(field..field + 2).ok_or(Malformed)?.copy_from_slice(&finished.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
