//! What a fuzzer calls: for every parser that a stranger's bytes can reach, a function that takes any bytes at all and
//! panics when something is not as it must be.
//!
//! `fuzz/` wraps each of them for cargo-fuzz, and `tests/corpus.rs` replays the committed inputs, so that both run the same
//! code. Input is never refused: what is too short simply ends, so that a fuzzer learns something from every byte.
//!
//! The parsers are asked directly, and through a node with a session: by a stranger, who has no key and may have recorded
//! what was said; by a peer, who chooses every inner byte; and by the local kernel, which is no stranger but carries
//! packets of strangers where this host forwards.

mod bytes;
mod local;
mod node;
mod peer;
mod stranger;

pub use bytes::{control, ip_packet, join, segment, wireguard};
pub use local::node_tun;
pub use peer::node_peer;
pub use stranger::node_stranger;

/// A target: its name, which is that of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`, and itself.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("control", control),
    ("ip_packet", ip_packet),
    ("join", join),
    ("node_peer", node_peer),
    ("node_stranger", node_stranger),
    ("node_tun", node_tun),
    ("segment", segment),
    ("wireguard", wireguard),
];

/// Bytes that are taken from the front; zeros behind the end.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// So many bytes, or as many as there are.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length, and so many bytes.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.take(len)
    }

    /// A number of places, and what is changed there.
    pub(crate) fn edit(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.byte() % 8 {
            let (at, change) = (usize::from(self.byte()), self.byte());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= change;
            }
        }
    }
}
