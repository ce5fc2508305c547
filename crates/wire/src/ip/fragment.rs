//! Cutting an IPv4 packet into fragments, as a router does for a link with a smaller MTU (RFC 791 section 3.2).
//!
//! This is needed for packets without DF that are larger than the path's MTU. A packet that is already a fragment can
//! be cut again: its offsets continue from their old values, and its last piece keeps the packet's "more fragments"
//! flag.

use etherparse::Ipv4HeaderSlice;

use super::{IPV4_HEADER_LEN, Ip, Packet};
use crate::{Malformed, checksum};

/// The longest fragment made, in bytes. It is built on the stack. This is enough for any Ethernet. On a path that
/// carries more, a packet is cut into more fragments than necessary.
const MAX_FRAGMENT: usize = 9_216;

/// The longest header with options, in bytes.
const MAX_HEADER: usize = 60;

const MORE_FRAGMENTS: u16 = 1 << 13;
const MAX_PACKET: usize = 65_535;

/// Passes the fragments of `packet` to `each`, in order, none longer than `mtu` bytes. If the packet fits, it is passed
/// whole.
///
/// # Errors
/// Returns [`Malformed`] before any call of `each` if the packet is IPv6 or has DF set, if its options cannot be read,
/// if it is an impossible fragment (not the last, but with a length that is not a multiple of 8; or ending beyond
/// 65,535 bytes), or if `mtu` has no room for the header and 8 bytes.
pub fn fragment_v4(packet: &Packet<'_>, mtu: usize, each: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
    let Ip::V4(header) = packet.ip() else { return Err(Malformed) };
    if header.dont_fragment() {
        return Err(Malformed);
    }
    if packet.len() <= mtu {
        each(packet.bytes());
        return Ok(());
    }

    let payload = &packet.bytes()[header.slice().len()..];
    let start = usize::from(header.fragments_offset().value()) * 8;
    if header.more_fragments() && !payload.len().is_multiple_of(8) {
        return Err(Malformed);
    }
    if header.slice().len() + start + payload.len() > MAX_PACKET {
        return Err(Malformed);
    }

    // The first fragment carries every option. Later fragments carry only the options with the copy bit.
    let (later_header, later_header_len) = copied_header(&header)?;
    let mut fragment = [0u8; MAX_FRAGMENT];
    let room = mtu.min(MAX_FRAGMENT);
    let mut head = header.slice();
    if room < head.len() + 8 {
        return Err(Malformed);
    }
    let mut sent = 0;
    while sent < payload.len() {
        let rest = &payload[sent..];
        let fits = room - head.len();
        let is_last = rest.len() <= fits;
        let part = if is_last { rest } else { &rest[..fits & !7] };
        let more = !is_last || header.more_fragments();

        let len = head.len() + part.len();
        fragment[..head.len()].copy_from_slice(head);
        fragment[head.len()..len].copy_from_slice(part);
        finish_header(&mut fragment[..head.len()], len, start + sent, more);
        each(&fragment[..len]);

        sent += part.len();
        head = &later_header[..later_header_len];
    }
    Ok(())
}

/// The header of every fragment except the first: it has only the options with the copy bit, padded to a multiple of
/// four.
fn copied_header(header: &Ipv4HeaderSlice<'_>) -> Result<([u8; MAX_HEADER], usize), Malformed> {
    const COPY: u8 = 0x80;
    let mut copied = [0; MAX_HEADER];
    let mut len = IPV4_HEADER_LEN;
    copied[..len].copy_from_slice(&header.slice()[..len]);

    let mut options = header.options();
    while let Some(&kind) = options.first() {
        let option_len = match kind {
            0 => break,
            1 => 1,
            _ => match options.get(1) {
                Some(&option_len) if option_len >= 2 => usize::from(option_len),
                _ => return Err(Malformed),
            },
        };
        let option = options.get(..option_len).ok_or(Malformed)?;
        if kind & COPY != 0 {
            copied[len..len + option_len].copy_from_slice(option);
            len += option_len;
        }
        options = &options[option_len..];
    }
    // The remaining bytes are zero, which is the end-of-options option.
    len = len.next_multiple_of(4);
    copied[0] = 0x40 | (len / 4) as u8;
    Ok((copied, len))
}

/// Writes the fields that differ between fragments. `len` and `offset` are in bytes.
fn finish_header(header: &mut [u8], len: usize, offset: usize, more: bool) {
    let flags = if more { MORE_FRAGMENTS } else { 0 };
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[6..8].copy_from_slice(&(flags | (offset / 8) as u16).to_be_bytes());
    header[10..12].copy_from_slice(&[0, 0]);
    let checksum = checksum::finish(checksum::sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
