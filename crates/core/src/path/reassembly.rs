//! Packets that arrive in pieces, because the path carries less than IPv6 requires of every link.
//!
//! A peer cuts packets that are longer than its path carries, up to 1,280 bytes, into fragment frames and sends them
//! back to back. Memory is bounded: at most eight incomplete packets for each peer. A packet is given up after two
//! seconds, which is noticed when the next piece arrives. If pieces overlap or contradict each other about the packet,
//! the whole packet is refused.

use std::collections::VecDeque;
use std::time::Duration;

use overlay_wire::ip::IPV6_MINIMUM_MTU;

use crate::{DropReason, Instant};

/// The longest packet that is reassembled, in bytes: what every IPv6 link must carry.
const MAX_LEN: usize = IPV6_MINIMUM_MTU;
/// How many packets of one peer may be incomplete.
const MAX_PACKETS: usize = 8;
/// How many pieces a packet may have.
const MAX_PIECES: usize = 4;
/// How long to wait for the pieces of a packet.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Reassembly {
    /// Oldest first.
    packets: VecDeque<Partial>,
    /// The last packet that was completed.
    whole: Vec<u8>,
}

struct Partial {
    id: u32,
    since: Instant,
    /// The buffer, as long as the complete packet.
    bytes: Vec<u8>,
    /// The byte ranges that have arrived, as start and end.
    pieces: Vec<(usize, usize)>,
}

impl Reassembly {
    /// Takes a piece that belongs at `offset` of a packet of `total` bytes. Returns the packet if this piece completes
    /// it, and the number of packets that were given up incomplete.
    pub(crate) fn take(
        &mut self,
        id: u32,
        offset: usize,
        total: usize,
        piece: &[u8],
        now: Instant,
    ) -> (Result<Option<&[u8]>, DropReason>, u64) {
        let before = self.packets.len();
        self.packets.retain(|partial| now.since(partial.since) < PATIENCE);
        let mut lost = (before - self.packets.len()) as u64;
        if total > MAX_LEN || offset + piece.len() > total {
            return (Err(DropReason::FragmentFrame), lost);
        }
        let at = match self.packets.iter().position(|partial| partial.id == id) {
            Some(at) => at,
            None => {
                if self.packets.len() == MAX_PACKETS {
                    self.packets.pop_front();
                    lost += 1;
                }
                self.packets.push_back(Partial { id, since: now, bytes: vec![0; total], pieces: Vec::new() });
                self.packets.len() - 1
            }
        };
        let partial = &mut self.packets[at];
        if !partial.put(offset, total, piece) {
            self.packets.remove(at);
            return (Err(DropReason::FragmentFrame), lost);
        }
        if partial.is_whole()
            && let Some(whole) = self.packets.remove(at)
        {
            self.whole = whole.bytes;
            return (Ok(Some(&self.whole)), lost);
        }
        (Ok(None), lost)
    }
}

impl Partial {
    fn put(&mut self, offset: usize, total: usize, piece: &[u8]) -> bool {
        let end = offset + piece.len();
        let overlaps = self.pieces.iter().any(|(from, to)| offset < *to && *from < end);
        if total != self.bytes.len() || overlaps || self.pieces.len() == MAX_PIECES {
            return false;
        }
        self.bytes[offset..end].copy_from_slice(piece);
        self.pieces.push((offset, end));
        true
    }

    fn is_whole(&self) -> bool {
        // Pieces never overlap.
        self.pieces.iter().map(|(from, to)| to - from).sum::<usize>() == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_packet_is_there_when_its_last_piece_is_whatever_the_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut reassembly = Reassembly::default();
            let pieces = [(0, &b"over"[..]), (4, b"la"), (6, b"y")];
            for (n, piece) in order.into_iter().enumerate() {
                let (offset, bytes) = pieces[piece];
                let (taken, lost) = reassembly.take(7, offset, 7, bytes, at(0));
                assert_eq!((taken, lost), (Ok((n == 2).then_some(&b"overlay"[..])), 0), "{order:?} {n}");
            }
            assert!(reassembly.packets.is_empty());
        }
    }

    #[test]
    fn pieces_that_contradict_each_other_are_refused_with_their_packet() {
        let refused = (Err(DropReason::FragmentFrame), 0);
        for (offset, total, bytes) in [(3, 7, &b"rlay"[..]), (0, 7, b"o"), (4, 8, b"layx"), (5, 7, b"lay")] {
            let mut reassembly = Reassembly::default();
            assert_eq!(reassembly.take(7, 0, 7, b"over", at(0)), (Ok(None), 0));
            assert_eq!(reassembly.take(7, offset, total, bytes, at(0)), refused, "{offset} {total}");
        }
        assert_eq!(Reassembly::default().take(7, 0, MAX_LEN + 1, b"x", at(0)), refused);
        let mut reassembly = Reassembly::default();
        for n in 0..MAX_PIECES {
            assert_eq!(reassembly.take(7, n, MAX_LEN, b"x", at(0)), (Ok(None), 0));
        }
        assert_eq!(reassembly.take(7, MAX_PIECES, MAX_LEN, b"x", at(0)), refused, "crumbs");
    }

    #[test]
    fn what_lacks_pieces_is_given_up_after_two_seconds_or_for_newer_ones() {
        let mut reassembly = Reassembly::default();
        for id in 0..MAX_PACKETS as u32 + 1 {
            let lost = u64::from(id == MAX_PACKETS as u32);
            assert_eq!(reassembly.take(id, 0, 2, b"a", at(0)), (Ok(None), lost));
        }
        assert_eq!(reassembly.packets.len(), MAX_PACKETS);
        assert_eq!(reassembly.take(1, 1, 2, b"b", at(1_999)), (Ok(Some(&b"ab"[..])), 0));
        assert_eq!(reassembly.take(2, 1, 2, b"b", at(2_000)), (Ok(None), 7), "its other piece is forgotten");
    }
}
