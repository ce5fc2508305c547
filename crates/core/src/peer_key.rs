//! The key that identifies a peer, here and on the wire.

use std::fmt;

use overlay_wire::x25519;

/// A peer's X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// Whether the key is a point of small order, in any of its encodings. Every secret derived from such a key is zero
    /// and therefore known to everybody. X25519 ignores the topmost bit.
    pub fn is_low_order(&self) -> bool {
        x25519::is_low_order(&self.0)
    }
}

impl fmt::Debug for PeerKey {
    /// Writes the first four bytes in hexadecimal: enough to tell the peers of one node apart in a trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}..")
    }
}
