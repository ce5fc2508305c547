//! The entry points for fuzzers: for every parser that a stranger's bytes can reach, a function that accepts any bytes
//! and panics if an invariant is broken.
//!
//! `fuzz/` wraps each of them for cargo-fuzz, and `tests/corpus.rs` replays the committed inputs, so both run the same
//! code. No input is rejected. Input that is too short simply ends, so that a fuzzer learns something from every byte.
//!
//! The parsers are called directly, and also through a node with a session, by three kinds of callers: a stranger, who
//! has no key but may have recorded earlier messages; a peer, who chooses every inner byte; and the local kernel, which
//! is trusted but carries packets of strangers if this host forwards.

mod bytes;
mod channel;
mod local;
mod node;
mod objects;
mod peer;
mod relay;
mod stranger;
mod stun;

pub use bytes::{control, ip_packet, join, segment, wireguard};
pub use channel::channel;
pub use local::node_tun;
pub use objects::objects;
pub use peer::node_peer;
pub use relay::relay;
pub use stranger::node_stranger;
pub use stun::stun;

/// A fuzz target: its name and its function. Its file in `fuzz/fuzz_targets` and its folder in `fuzz/corpus` have that
/// name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 12] = [
    ("channel", channel),
    ("control", control),
    ("ip_packet", ip_packet),
    ("join", join),
    ("node_peer", node_peer),
    ("node_stranger", node_stranger),
    ("node_tun", node_tun),
    ("objects", objects),
    ("relay", relay),
    ("segment", segment),
    ("stun", stun),
    ("wireguard", wireguard),
];

/// The fuzzer's input, which is consumed from the front. Beyond its end it yields zeros.
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

    /// Takes this many bytes, or as many as are left.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Takes a length, and then that many bytes.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.take(len)
    }

    /// Takes a number of positions, and changes the bytes there.
    pub(crate) fn edit(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.byte() % 8 {
            let (at, change) = (usize::from(self.byte()), self.byte());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= change;
            }
        }
    }
}
