//! Congestion marks across the tunnel (RFC 6040, normal mode): the inner mark is copied to the outgoing datagram, and a
//! mark that a router set on the datagram is copied to the inner packet.
//!
//! The rest of the datagram's traffic class is not copied.
//!
//! `DEVIATION:` RFC 6040 section 4.2 drops an inner packet without ECN support when its outer header is marked, because
//! loss is the only signal its sender understands. We deliver it, as the kernel's WireGuard does: some networks write
//! arbitrary values into these bits.

use overlay_wire::checksum;

/// The ECN codepoints.
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
/// "Congestion experienced".
const CE: u8 = 0b11;

/// Combines the mark of the outer header into the inner packet, which must already have been parsed.
pub(crate) fn carry_in(outer: u8, packet: &mut [u8]) {
    let mark = match (of(packet), outer & CE) {
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return,
    };
    if packet[0] >> 4 == 4 {
        let old = u16::from_be_bytes([packet[0], packet[1]]);
        packet[1] = packet[1] & !CE | mark;
        let new = u16::from_be_bytes([packet[0], packet[1]]);
        let sum = u16::from_be_bytes([packet[10], packet[11]]);
        packet[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    } else {
        // The traffic class spans the first two bytes. ECN is bits 4 and 5 of the second byte.
        packet[1] = packet[1] & !(CE << 4) | mark << 4;
    }
}

/// Returns the mark of a packet that has already been parsed.
pub(crate) fn of(packet: &[u8]) -> u8 {
    match packet {
        [0x40..=0x4f, traffic_class, ..] => traffic_class & CE,
        [_, low_bits, ..] => low_bits >> 4 & CE,
        _ => NOT_ECT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071: the sum over a header with a correct checksum is all ones.
    fn is_right(header: &[u8]) -> bool {
        let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    /// Builds a header with this mark, in which the other bits of the traffic class are ones.
    fn v4(mark: u8) -> [u8; 20] {
        let mut packet = [0x45, 0xfc | mark, 0x00, 0x14, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = !(((sum & 0xffff) + (sum >> 16)) as u16);
        packet[10..12].copy_from_slice(&folded.to_be_bytes());
        packet
    }

    fn v6(mark: u8) -> [u8; 40] {
        let mut packet = [0; 40];
        (packet[0], packet[1]) = (0x6f, 0xcf | mark << 4);
        packet
    }

    /// Figure 4 of RFC 6040 except for the top right corner (see `DEVIATION`). Rows are inner marks and columns are
    /// outer marks, both in the order Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn marks_are_joined_as_the_table_of_rfc_6040_has_it() {
        const ORDER: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [[NOT_ECT; 4], [ECT_0, ECT_0, ECT_1, CE], [ECT_1, ECT_1, ECT_1, CE], [CE; 4]];
        for (inner, row) in ORDER.into_iter().zip(table) {
            for (outer, expected) in ORDER.into_iter().zip(row) {
                let (mut packet_v4, mut packet_v6) = (v4(inner), v6(inner));
                // The rest of the outer traffic class does not affect the inner packet.
                carry_in(0x88 | outer, &mut packet_v4);
                carry_in(0x88 | outer, &mut packet_v6);
                assert!(is_right(&packet_v4), "inner {inner:02b}, outer {outer:02b}");
                assert_eq!(
                    (packet_v4, packet_v6),
                    (v4(expected), v6(expected)),
                    "inner {inner:02b}, outer {outer:02b}"
                );
            }
        }
    }
}
