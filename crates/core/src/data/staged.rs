//! Packets that wait for a handshake, oldest first, as WireGuard's staged queue.
//!
//! A packet is kept as it came from TUN, a super-packet whole, so that MTU and nonces are decided when it leaves.

use std::collections::VecDeque;

use overlay_wire::offload::VirtioHeader;

/// Packets kept for one peer (the kernel's MAX_STAGED_PACKETS).
pub(crate) const MAX_STAGED_PACKETS: usize = 128;
/// Their bytes for one peer: four of the largest super-packets.
pub(crate) const MAX_STAGED_BYTES: usize = 4 * 65_536;

#[derive(Default)]
pub(crate) struct Staged {
    packets: VecDeque<(VirtioHeader, Box<[u8]>)>,
    bytes: usize,
}

impl Staged {
    /// Keeps a copy of the packet and answers how many older ones had to go for it.
    pub(crate) fn push(&mut self, header: VirtioHeader, packet: &[u8]) -> u64 {
        let mut dropped = 0;
        while self.packets.len() >= MAX_STAGED_PACKETS || self.bytes + packet.len() > MAX_STAGED_BYTES {
            let Some((_, oldest)) = self.packets.pop_front() else { break };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        self.bytes += packet.len();
        self.packets.push_back((header, packet.into()));
        dropped
    }

    pub(crate) fn pop(&mut self) -> Option<(VirtioHeader, Box<[u8]>)> {
        let (header, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some((header, packet))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Drops everything and answers how many packets that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let dropped = self.packets.len() as u64;
        *self = Self::default();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packet_goes_when_129_wait() {
        let mut staged = Staged::default();
        for n in 0..MAX_STAGED_PACKETS as u8 {
            assert_eq!(staged.push(VirtioHeader::NONE, &[n]), 0);
        }
        assert_eq!(staged.push(VirtioHeader::NONE, &[200]), 1);
        assert_eq!(staged.pop().map(|(_, packet)| packet[0]), Some(1));
        assert_eq!(staged.clear(), MAX_STAGED_PACKETS as u64 - 1);
    }

    #[test]
    fn super_packets_are_bounded_by_their_bytes() {
        let mut staged = Staged::default();
        for _ in 0..4 {
            assert_eq!(staged.push(VirtioHeader::NONE, &[0; 65_536]), 0);
        }
        assert_eq!(staged.push(VirtioHeader::NONE, &[0; 65_536]), 1);
        assert_eq!(staged.push(VirtioHeader::NONE, &[0; 20]), 1);
        assert_eq!(staged.clear(), 4);
        assert!(staged.is_empty());
    }
}
