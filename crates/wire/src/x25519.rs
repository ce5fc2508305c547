//! Points of Curve25519 that no honest key is: those that give a secret that everybody knows, and second encodings.

/// Whether a public key is a point of small order, in any of its encodings. Every secret derived from such a key is zero.
/// X25519 ignores the topmost bit. The multiplication itself would take half a second for ten thousand peers.
pub fn is_low_order(key: &[u8; 32]) -> bool {
    let mut point = *key;
    point[31] &= 0x7f;
    LOW_ORDER_POINTS.contains(&point)
}

/// Whether this is the only encoding of its point that counts: a number below 2^255 - 19, and a topmost bit of 0. Honest
/// keys are. Without this rule one key would have several names.
pub fn is_canonical(key: &[u8; 32]) -> bool {
    key[31] & 0x80 == 0 && is_reduced(key)
}

/// Whether a number without its topmost bit is below 2^255 - 19.
pub(crate) fn is_reduced(number: &[u8; 32]) -> bool {
    number[31] & 0x7f != 0x7f || number[1..31].iter().any(|byte| *byte != 0xff) || number[0] < 0xed
}

/// The points of order 1, 2, 4 and 8 of Curve25519 and its twist, and the values from 2^255 - 19 up that reduce to such points.
const LOW_ORDER_POINTS: [[u8; 32]; 7] = [
    ends([0, 0]),
    ends([1, 0]),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    ends([0xec, 0x7f]),
    ends([0xed, 0x7f]),
    ends([0xee, 0x7f]),
];

/// Builds a little-endian number from its first and last byte. The bytes between are 0xff, or 0 if the last byte is 0.
const fn ends([first, last]: [u8; 2]) -> [u8; 32] {
    let mut bytes = [if last == 0 { 0 } else { 0xff }; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}
#[cfg(test)]
mod tests {
    use x25519_dalek::{PublicKey, StaticSecret};

    use super::*;

    /// Checks the table against the multiplication itself: each point must give the all-zero secret, and a neighbour
    /// must not.
    #[test]
    fn low_order_points_are_those_that_give_an_all_zero_secret() {
        let any_key = StaticSecret::from([0x42; 32]);
        let is_zero = |point: [u8; 32]| !any_key.diffie_hellman(&PublicKey::from(point)).was_contributory();
        for point in LOW_ORDER_POINTS {
            for top_bit in [0, 0x80] {
                let mut point = point;
                point[31] |= top_bit;
                assert!(is_zero(point) && is_low_order(&point), "{point:02x?}");
                point[1] ^= 4;
                assert!(!is_zero(point) && !is_low_order(&point), "{point:02x?}");
            }
        }
        // Every value from 2^255 - 19 up. The first two are such points in a second encoding.
        for last in 0xed..=0xffu8 {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (last, 0x7f);
            assert_eq!(is_zero(point), is_low_order(&point), "{last:02x}");
        }
    }
}
