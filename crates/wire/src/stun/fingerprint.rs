//! FINGERPRINT: a checksum that tells STUN from other datagrams on the same port (RFC 8489 section 14.7).

/// What the CRC is XORed with, `STUN`, so that it differs from one that an application adds.
const STUN: u32 = 0x5354_554e;

/// The CRC-32 of ITU V.42 for each value of a byte.
const TABLE: [u32; 256] = table();

/// The value of a FINGERPRINT that follows these bytes of a message. They include the header, whose length already counts the
/// FINGERPRINT.
pub(super) fn of(before: &[u8]) -> [u8; 4] {
    let crc = before.iter().fold(!0, |crc: u32, byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8);
    (!crc ^ STUN).to_be_bytes()
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ crc >> 1 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}
