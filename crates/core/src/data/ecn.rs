//! Congestion marks across the tunnel (RFC 6040, normal mode): the inner mark goes out with the datagram, and a mark that
//! a router set on the datagram reaches the inner packet.
//!
//! All else of the datagram's traffic class stays outside.
//!
//! `DEVIATION:` a packet whose sender does not know congestion marks could be told by losing it, as RFC 6040 section 4.2
//! has it when the datagram around it was marked. It is delivered, as WireGuard in the kernel does: there are networks that
//! write into these bits whatever they like.

use overlay_wire::checksum;

/// ECN codepoints.
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
/// "Congestion experienced".
const CE: u8 = 0b11;

/// Carries the mark of the outer header into the inner packet, which was parsed before.
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
        // The traffic class lies across the first two bytes; ECN is bits 4 and 5 of the second.
        packet[1] = packet[1] & !(CE << 4) | mark << 4;
    }
}

/// The mark of a packet that was parsed before.
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

    /// RFC 1071: over a header whose checksum is right the sum is all ones.
    fn is_right(header: &[u8]) -> bool {
        let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    /// A header with this mark beside a traffic class of ones.
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

    /// Figure 4 of RFC 6040, but for its corner: the rows are inner marks, the columns outer ones; both in the order Not-ECT,
    /// ECT(0), ECT(1), CE.
    #[test]
    fn marks_are_joined_as_the_table_of_rfc_6040_has_it() {
        const ORDER: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [[NOT_ECT; 4], [ECT_0, ECT_0, ECT_1, CE], [ECT_1, ECT_1, ECT_1, CE], [CE; 4]];
        for (inner, row) in ORDER.into_iter().zip(table) {
            for (outer, expected) in ORDER.into_iter().zip(row) {
                let (mut packet_v4, mut packet_v6) = (v4(inner), v6(inner));
                // What else the outer traffic class says is no concern of the inner packet.
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
