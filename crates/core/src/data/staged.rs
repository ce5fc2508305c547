//! Packets that wait for a handshake, oldest first, like WireGuard's staged queue.
//!
//! A packet is kept as it came from TUN, and a super-packet is kept whole, so that MTU and nonces are decided when it
//! leaves.
//!
//! When there is no room, the party with the most staged packets loses one: the oldest packet in the largest flow of its
//! largest inner source. A flood therefore cannot evict the single packet that opens an unrelated connection.
//!
//! All peers together share a budget, because there may be many silent ones. A packet whose party has used up its part of
//! the budget is dropped, unless it is small and nothing else waits for this peer. So a flood at silent peers keeps nobody
//! from calling a different one.

use std::collections::VecDeque;

use overlay_wire::ip::{Header, Packet};
use overlay_wire::offload::VirtioHeader;

use crate::DropReason;
use crate::data::budget::{Budget, Charge};
use crate::data::shares::{self, Party};

/// How many packets are staged for one peer (the kernel's MAX_STAGED_PACKETS).
pub(crate) const MAX_STAGED_PACKETS: usize = 128;
/// How many bytes are staged for one peer: four of the largest super-packets.
pub(crate) const MAX_STAGED_BYTES: usize = 4 * 65_536;
/// How many bytes are staged for all peers together: what 256 peers may have at most. It fits a small machine, and live
/// peers answer within a round trip, so that few have to wait at once.
pub(crate) const STAGED_BUDGET: usize = 256 * MAX_STAGED_BYTES;
/// The longest packet that is staged for a peer in any case if nothing else waits for it, in bytes. It opens a connection.
const FIRST_PACKET: usize = 1_500;

#[derive(Default)]
pub(crate) struct Staged {
    packets: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    header: VirtioHeader,
    packet: Box<[u8]>,
    party: Party,
    /// The groups of its inner source and of its flow.
    source: u8,
    flow: u8,
    /// Its part of the budget. `None` for the first packet that is staged in any case.
    _charge: Option<Charge>,
}

/// Returns the groups of a packet's inner source and of its flow.
fn groups(packet: &Packet<'_>, secret: u64) -> (u8, u8) {
    let ports = match packet.upper().map(|upper| (upper.protocol, upper.header)) {
        Ok((
            protocol,
            Header::Tcp { source, destination, .. }
            | Header::Udp { source, destination }
            | Header::Ports { source, destination },
        )) => u64::from(source) << 24 | u64::from(destination) << 8 | u64::from(protocol),
        Ok((protocol, _)) => u64::from(protocol),
        Err(_) => 0,
    };
    let receiver = u64::from(shares::group_of(packet.destination(), secret));
    (shares::group_of(packet.source(), secret), shares::group(ports << 6 | receiver, secret))
}

impl Staged {
    /// Keeps a copy of the packet. Returns how many packets were dropped to make room, possibly including this one.
    /// `secret` tells senders and flows apart.
    ///
    /// # Errors
    /// Returns `StagedBudget` if the party has used up its part of the budget. Nothing is dropped then but this packet.
    pub(crate) fn push(
        &mut self,
        header: VirtioHeader,
        packet: &[u8],
        party: Party,
        secret: u64,
        budget: &Budget,
    ) -> Result<u64, DropReason> {
        let charge = budget.charge(party, packet.len() + size_of::<Waiting>());
        if charge.is_none() && (packet.len() > FIRST_PACKET || !self.is_empty()) {
            return Err(DropReason::StagedBudget);
        }
        let (source, flow) = Packet::parse(packet).map_or((0, 0), |packet| groups(&packet, secret));
        self.bytes += packet.len();
        self.packets.push_back(Waiting { header, packet: packet.into(), party, source, flow, _charge: charge });
        let mut dropped = 0;
        loop {
            let victim = if self.packets.len() > MAX_STAGED_PACKETS {
                self.victim(|_| 1)
            } else if self.bytes > MAX_STAGED_BYTES && self.packets.len() > 1 {
                self.victim(|waiting| waiting.packet.len())
            } else {
                return Ok(dropped);
            };
            let Some(victim) = victim.and_then(|at| self.packets.remove(at)) else { return Ok(dropped) };
            self.bytes -= victim.packet.len();
            dropped += 1;
        }
    }

    /// Returns the packet to drop: the oldest one in the largest flow of the largest source of the largest party.
    fn victim(&self, share: impl Fn(&Waiting) -> usize) -> Option<usize> {
        let mut sums = [0; Party::COUNT];
        self.packets.iter().for_each(|waiting| sums[waiting.party.index()] += share(waiting));
        let party = Party::heaviest(|party| sums[party.index()])?;
        let of_party = || self.packets.iter().filter(|waiting| waiting.party == party);
        let source = shares::heaviest(of_party().map(|waiting| (waiting.source, share(waiting))))?;
        let of_source = || of_party().filter(|waiting| waiting.source == source);
        let flow = shares::heaviest(of_source().map(|waiting| (waiting.flow, share(waiting))))?;
        let is_victim = |waiting: &Waiting| (waiting.party, waiting.source, waiting.flow) == (party, source, flow);
        self.packets.iter().position(is_victim)
    }

    pub(crate) fn pop(&mut self) -> Option<(VirtioHeader, Box<[u8]>)> {
        let Waiting { header, packet, .. } = self.packets.pop_front()?;
        self.bytes -= packet.len();
        if self.packets.is_empty() {
            // Ten thousand peers need no room for what they staged once.
            self.packets = VecDeque::new();
        }
        Some((header, packet))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Drops everything and returns the number of dropped packets.
    pub(crate) fn clear(&mut self) -> u64 {
        let dropped = self.packets.len() as u64;
        *self = Self::default();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerTag;

    impl Staged {
        /// Keeps a packet of ours, with a budget that is not used up.
        fn keep(&mut self, packet: &[u8]) -> u64 {
            self.keep_for(Party::OWN, packet)
        }

        fn keep_for(&mut self, party: Party, packet: &[u8]) -> u64 {
            self.push(VirtioHeader::NONE, packet, party, 7, &Budget::new(STAGED_BUDGET)).expect("room")
        }
    }

    #[test]
    fn the_oldest_packet_goes_when_129_wait() {
        let mut staged = Staged::default();
        for n in 0..MAX_STAGED_PACKETS as u8 {
            assert_eq!(staged.keep(&[n]), 0);
        }
        assert_eq!(staged.keep(&[200]), 1);
        assert_eq!(staged.pop().map(|(_, packet)| packet[0]), Some(1));
        assert_eq!(staged.clear(), MAX_STAGED_PACKETS as u64 - 1);
    }

    /// Builds a UDP packet of 28 bytes from 10.0.0.`host` and this port.
    fn packet(host: u8, port: u16) -> [u8; 28] {
        let mut packet = [0; 28];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 0, 0, host, 10, 0, 0, 200]);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet[24..26].copy_from_slice(&[0, 8]);
        packet
    }

    fn rest(mut staged: Staged) -> Vec<[u8; 28]> {
        std::iter::from_fn(|| staged.pop()).map(|(_, packet)| (&*packet).try_into().unwrap()).collect()
    }

    #[test]
    fn one_source_pushes_out_nothing_of_the_others() {
        let mut staged = Staged::default();
        staged.keep(&packet(1, 1));
        let dropped: u64 = (0..1_000).map(|port| staged.keep(&packet(2, port))).sum();
        assert_eq!(dropped, 1_001 - MAX_STAGED_PACKETS as u64);
        // A packet also gets in after a flood has filled the queue.
        staged.keep(&packet(3, 1));
        let rest = rest(staged);
        assert_eq!(rest.len(), MAX_STAGED_PACKETS);
        assert!(rest.contains(&packet(1, 1)) && rest.contains(&packet(3, 1)));
    }

    #[test]
    fn one_flow_pushes_out_nothing_of_the_others_of_its_source() {
        let mut staged = Staged::default();
        staged.keep(&packet(1, 1));
        (0..1_000).for_each(|_| _ = staged.keep(&packet(1, 7_000)));
        assert!(rest(staged).contains(&packet(1, 1)));
    }

    #[test]
    fn super_packets_are_bounded_by_their_bytes() {
        let mut staged = Staged::default();
        for _ in 0..4 {
            assert_eq!(staged.keep(&[0; 65_536]), 0);
        }
        assert_eq!(staged.keep(&[0; 65_536]), 1);
        assert_eq!(staged.keep(&[0; 20]), 1, "a small one makes room as well");
        assert_eq!(staged.clear(), 4);
        assert!(staged.is_empty());
    }

    #[test]
    fn many_sources_of_one_party_push_out_nothing_of_another_party() {
        let mut staged = Staged::default();
        (0..50).for_each(|port| _ = staged.keep(&packet(1, port)));
        let peer = Party::peer(PeerTag(3), 7);
        (2..=255).for_each(|host| (0..4).for_each(|port| _ = staged.keep_for(peer, &packet(host, port))));
        let rest = rest(staged);
        assert!((0..50).all(|port| rest.contains(&packet(1, port))));
        assert_eq!(rest.len(), MAX_STAGED_PACKETS);
    }

    #[test]
    fn all_peers_share_a_budget_and_each_takes_a_first_small_packet() {
        let budget = Budget::new(STAGED_BUDGET);
        let mut peers: Vec<_> = std::iter::repeat_with(Staged::default).take(400).collect();
        let push = |peer: &mut Staged, len: usize| peer.push(VirtioHeader::NONE, &vec![0; len], Party::OWN, 7, &budget);
        let kept = peers.iter_mut().flat_map(|peer| [push(peer, 65_000), push(peer, 65_000)]).flatten().count();
        assert!((STAGED_BUDGET / 5..STAGED_BUDGET / 3).contains(&(kept * 65_000)), "{kept}");
        let last = peers.last_mut().expect("a peer");
        assert_eq!(push(last, FIRST_PACKET + 1), Err(DropReason::StagedBudget));
        assert_eq!(push(last, FIRST_PACKET), Ok(0));
        assert_eq!(push(last, FIRST_PACKET), Err(DropReason::StagedBudget), "only the first");
        // The first packet is not charged. All others give back what they took.
        assert_eq!(budget.used(), kept * (65_000 + size_of::<Waiting>()));
        peers[0].pop();
        peers[1].clear();
        assert_eq!(budget.used(), (kept - 3) * (65_000 + size_of::<Waiting>()));
        peers.clear();
        assert_eq!(budget.used(), 0);
    }
}
