//! The first bytes of the last large packet of several flows.
//!
//! When a path turns out to carry less than before, the packets on their way are lost, and no router reports it. We
//! tell the senders at once with an ICMP error that quotes the last packet they sent. Linux checks the TCP sequence
//! number in the quote, and that of the last packet is always still unacknowledged. Otherwise the flow would stall
//! until its next retransmission.

use overlay_wire::ip::{Packet, least_mtu};

/// How many flows are remembered. Flows that hash to the same place share it, and the later one wins.
const FLOWS: usize = 8;
/// Enough for IPv6 with extension headers and the start of TCP.
const QUOTE_LEN: usize = 128;

pub(crate) struct Recent {
    quotes: [Quote; FLOWS],
}

#[derive(Clone, Copy)]
struct Quote {
    bytes: [u8; QUOTE_LEN],
    /// The number of bytes in use, or 0 if the place is free. `packet_len` is the length of the longest packet that was
    /// sent for it.
    len: u8,
    packet_len: u16,
}

impl Default for Recent {
    fn default() -> Self {
        Self { quotes: [Quote { bytes: [0; QUOTE_LEN], len: 0, packet_len: 0 }; FLOWS] }
    }
}

impl Recent {
    /// Records a parsed packet that is sent, either as one packet of `packet_len` bytes or in segments of that length.
    pub(crate) fn keep(&mut self, packet: &[u8], packet_len: usize) {
        let len = packet.len().min(QUOTE_LEN);
        let quote = &mut self.quotes[place(packet)];
        quote.bytes[..len].copy_from_slice(&packet[..len]);
        quote.len = len as u8;
        quote.packet_len = u16::try_from(packet_len).unwrap_or(u16::MAX);
    }

    /// Returns and forgets the packets that are longer than a path of `mtu` bytes carries, each with the MTU to report
    /// to its sender.
    pub(crate) fn take_longer_than(&mut self, mtu: usize) -> impl Iterator<Item = (Packet<'_>, usize)> {
        self.quotes.iter_mut().filter_map(move |quote| {
            let told = least_mtu(&quote.bytes[..quote.len.into()], mtu);
            if usize::from(quote.packet_len) <= told {
                return None;
            }
            let len = std::mem::take(&mut quote.len);
            Some((Packet::parse_start(&quote.bytes[..len.into()]).ok()?, told))
        })
    }
}

/// Hashes addresses and ports, which are in the first 44 bytes of every packet without extension headers.
fn place(packet: &[u8]) -> usize {
    let ends = if packet[0] >> 4 == 4 { packet.get(12..24) } else { packet.get(8..44) };
    let sum =
        ends.unwrap_or_default().iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    sum as usize % FLOWS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a packet from port `port`, with `mark` in its identification.
    fn packet(port: u8, mark: u8) -> [u8; 60] {
        let mut packet = [0; 60];
        packet[..12].copy_from_slice(&[0x45, 0, 5, 160, 0, mark, 0x40, 0, 64, 6, 0, 0]);
        packet[12..24].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 80]);
        packet
    }

    #[test]
    fn the_last_packet_of_a_flow_is_kept_until_it_was_asked_for() {
        let mut recent = Recent::default();
        for (port, mark, len) in [(1, 1, 1_440), (2, 2, 1_300), (1, 3, 1_440)] {
            recent.keep(&packet(port, mark), len);
        }
        let marks = |recent: &mut Recent, mtu| -> Vec<u8> {
            recent.take_longer_than(mtu).map(|(packet, _)| packet.bytes()[5]).collect()
        };
        assert_eq!(marks(&mut recent, 1_300), [3]);
        assert_eq!(marks(&mut recent, 1_200), [2]);
        assert_eq!(marks(&mut recent, 1_200), []);
    }
}
