//! Shared by the tests of this crate: packets written byte by byte, and a checksum computed the slow way.
//!
//! Checksums in the vectors were computed by an independent program, since a round trip through this crate proves
//! nothing.

use proptest::prelude::*;

/// UDP from 192.0.2.1:4660 to 198.51.100.2:53 with payload `abc`. DF is set, the identification is 1234.
pub(crate) const UDP_V4: &str = "4500001f 12344000 40113c63 c0000201 c6336402  12340035 000b3cd5 616263";

/// UDP from [2001:db8::1]:4660 to [2001:db8::2]:53 with payload `abc`.
pub(crate) const UDP_V6: &str = "60000000 000b1140 20010db8000000000000000000000001 20010db8000000000000000000000002
    12340035 000bcd97 616263";

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// RFC 1071 taken literally: one 16-bit word after another, folded immediately.
pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2 with this flags-and-offset field. Its header checksum stays zero.
pub(crate) fn v4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = bytes("4500 0000 abcd 0000 40 00 0000 0a000001 0a000002");
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    packet[9] = protocol;
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet from fd00::1 to fd00::2.
pub(crate) fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = bytes("60000000 0000 00 40 fd000000000000000000000000000001 fd000000000000000000000000000002");
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next_header;
    packet.extend_from_slice(payload);
    packet
}

/// Arbitrary bytes. Half of them have a version and a total length that make them an IP packet, so that the code behind
/// those checks is reached.
pub(crate) fn hostile_packet() -> impl Strategy<Value = Vec<u8>> {
    let interesting = prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 135, 253]);
    let chain = prop::collection::vec(prop_oneof![3 => interesting.clone(), 1 => any::<u8>()], 0..400);
    (prop_oneof![prop::collection::vec(any::<u8>(), 0..400), chain], any::<bool>(), any::<bool>(), interesting)
        .prop_map(|(mut packet, is_v6, is_fixed, protocol)| {
            if is_fixed && packet.len() >= 40 {
                let len = packet.len() as u16;
                if is_v6 {
                    packet[0] = 0x60;
                    packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                    packet[6] = protocol;
                } else {
                    packet[0] = 0x45 + packet[0] % 4;
                    packet[2..4].copy_from_slice(&len.to_be_bytes());
                    packet[9] = protocol;
                }
            }
            packet
        })
}
