//! Congestion marks across the tunnel (RFC 6040): the inner mark goes out with the datagram, and a mark that a router
//! set on the datagram reaches the inner packet.

use overlay_wire::checksum;

/// ECN codepoint "congestion experienced".
const CE: u8 = 0b11;
/// ECN codepoint "not ECN-capable".
const NOT_ECT: u8 = 0b00;

/// Marks the inner packet when the outer one was marked and the inner one can carry it.
pub(crate) fn carry_in(outer: u8, packet: &mut [u8]) {
    if outer & CE != CE {
        return;
    }
    match packet[0] >> 4 {
        4 if packet[1] & CE != NOT_ECT && packet[1] & CE != CE => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= CE;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
        }
        // The traffic class lies across the first two bytes; ECN is bits 4 and 5 of the second.
        6 if (packet[1] >> 4) & CE != NOT_ECT => packet[1] |= CE << 4,
        _ => {}
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

    #[test]
    fn an_outer_mark_reaches_a_capable_ipv4_packet_and_its_checksum_stays_right() {
        let mut packet = [0x45, 0x02, 0x00, 0x14, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = !(((sum & 0xffff) + (sum >> 16)) as u16);
        packet[10..12].copy_from_slice(&folded.to_be_bytes());
        assert!(is_right(&packet));
        carry_in(0b11, &mut packet);
        assert_eq!(packet[1], 0x03);
        assert!(is_right(&packet));
    }

    #[test]
    fn a_packet_that_is_not_capable_is_left_alone() {
        let mut packet = [0x45, 0x00, 0, 20, 0, 1, 0, 0, 64, 17, 0x12, 0x34, 10, 0, 0, 1, 10, 0, 0, 2];
        let before = packet;
        carry_in(0b11, &mut packet);
        assert_eq!(packet, before);
    }

    #[test]
    fn an_outer_mark_reaches_a_capable_ipv6_packet() {
        let mut packet = [0; 40];
        packet[0] = 0x60;
        packet[1] = 0x10;
        carry_in(0b11, &mut packet);
        assert_eq!(packet[1], 0x30);
        packet[1] = 0x20;
        carry_in(0b10, &mut packet);
        assert_eq!(packet[1], 0x20, "the datagram was not marked");
    }
}
