//! Offloads at the TUN device: the virtio header, partial checksums, and super-packets cut into segments.
//!
//! Linux hands a TUN reader packets of up to 64 KiB with unfinished checksums, and says in ten bytes in front of each
//! what is left to do (`struct virtio_net_hdr`). Doing it here, once per segment and in one pass over the payload, is
//! what lets route, allowlist and session be asked once for forty packets.
//!
//! The kernel is trusted to mean well but not to be exact: its `hdr_len` is a hint that may cover the whole first
//! segment, so header lengths are always taken from the headers themselves.
//!
//! Left out: tunnels inside tunnels, whose segmentation types are never offered to the kernel.

mod join;
mod segment;

pub use join::{Join, Joins};
pub use segment::SuperPacket;

use crate::ip::Packet;
use crate::{Malformed, checksum};

/// Length of a virtio header in bytes, as TUN uses it: without the count of merged buffers.
pub const VIRTIO_HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A bit beside the type: the TCP super-packet carries CWR.
const GSO_ECN: u8 = 0x80;

/// What is left to do for a packet, as `struct virtio_net_hdr` says it. Numbers are in the machine's byte order on
/// the wire, which is what TUN uses unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VirtioHeader {
    /// The checksum at `checksum_start + checksum_offset` covers only the pseudo header so far.
    pub needs_checksum: bool,
    /// The checksum was verified by whoever wrote this header.
    pub data_valid: bool,
    /// Whether this is a super-packet, and of which protocol.
    pub segmentation: Segmentation,
    /// The super-packet carries CWR, which belongs to its first segment only.
    pub ecn: bool,
    /// Bytes of headers in front of the payload; a hint, never relied upon.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// Where the checksum begins to count, in bytes from the start of the packet.
    pub checksum_start: u16,
    /// Where the checksum stands, in bytes from `checksum_start`.
    pub checksum_offset: u16,
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// It is one plain packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either: datagrams of equal size but the last (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

impl VirtioHeader {
    /// A plain, finished packet.
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

    /// Reads the header from the first [`VIRTIO_HEADER_LEN`] bytes. Flags of no concern here are skipped.
    ///
    /// # Errors
    /// [`Malformed`] when there are fewer bytes, or the segmentation type is one that was never offered.
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

    /// The header's bytes, to be written in front of the packet.
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
/// [`Malformed`] when the checksum would stand outside the packet or in its IP header, or when there is no whole packet; what
/// is there is then untouched.
pub fn complete_checksum(header: &VirtioHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    if !header.needs_checksum {
        return Ok(());
    }
    let start = usize::from(header.checksum_start);
    // By what stands in the IP header the packet was routed already.
    if start < Packet::parse(packet)?.header_len() {
        return Err(Malformed);
    }
    let covered = packet.get_mut(start..).ok_or(Malformed)?;
    // The field holds the sum over the pseudo header, so counting it in with the rest is all there is to do.
    let finished = checksum::finish_nonzero(checksum::sum(covered));
    let field = usize::from(header.checksum_offset);
    covered.get_mut(field..field + 2).ok_or(Malformed)?.copy_from_slice(&finished.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
