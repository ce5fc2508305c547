//! Packets that wait for a handshake, oldest first, like WireGuard's staged queue.
//!
//! A packet is kept as it came from TUN, and a super-packet is kept whole, so that MTU and nonces are decided when it
//! leaves.
//!
//! When there is no room, the inner source with the most staged packets loses the oldest packet of its largest flow. A
//! flood therefore cannot evict the single packet that opens an unrelated connection.

use std::collections::VecDeque;

use overlay_wire::ip::{Header, Packet};
use overlay_wire::offload::VirtioHeader;

use crate::data::shares;

/// How many packets are staged for one peer (the kernel's MAX_STAGED_PACKETS).
pub(crate) const MAX_STAGED_PACKETS: usize = 128;
/// How many bytes are staged for one peer: four of the largest super-packets.
pub(crate) const MAX_STAGED_BYTES: usize = 4 * 65_536;

#[derive(Default)]
pub(crate) struct Staged {
    packets: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    header: VirtioHeader,
    packet: Box<[u8]>,
    /// The groups of its inner source and of its flow.
    source: u8,
    flow: u8,
}

impl Waiting {
    fn new(header: VirtioHeader, bytes: &[u8]) -> Self {
        let (source, flow) = Packet::parse(bytes).map_or((0, 0), |packet| groups(&packet));
        Self { header, packet: bytes.into(), source, flow }
    }
}

fn groups(packet: &Packet<'_>) -> (u8, u8) {
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
    (shares::group_of(packet.source()), shares::group(ports << 6 | u64::from(shares::group_of(packet.destination()))))
}

impl Staged {
    /// Keeps a copy of the packet. Returns how many packets were dropped to make room, possibly including this one.
    pub(crate) fn push(&mut self, header: VirtioHeader, packet: &[u8]) -> u64 {
        self.bytes += packet.len();
        self.packets.push_back(Waiting::new(header, packet));
        let mut dropped = 0;
        loop {
            let victim = if self.packets.len() > MAX_STAGED_PACKETS {
                self.victim(|_| 1)
            } else if self.bytes > MAX_STAGED_BYTES && self.packets.len() > 1 {
                self.victim(|waiting| waiting.packet.len())
            } else {
                return dropped;
            };
            let Some(victim) = victim.and_then(|at| self.packets.remove(at)) else { return dropped };
            self.bytes -= victim.packet.len();
            dropped += 1;
        }
    }

    /// Returns the packet to drop: the oldest one in the largest flow of the largest source.
    fn victim(&self, share: impl Fn(&Waiting) -> usize) -> Option<usize> {
        let source = shares::heaviest(self.packets.iter().map(|waiting| (waiting.source, share(waiting))))?;
        let of_source = || self.packets.iter().filter(|waiting| waiting.source == source);
        let flow = shares::heaviest(of_source().map(|waiting| (waiting.flow, share(waiting))))?;
        self.packets.iter().position(|waiting| (waiting.source, waiting.flow) == (source, flow))
    }

    pub(crate) fn pop(&mut self) -> Option<(VirtioHeader, Box<[u8]>)> {
        let Waiting { header, packet, .. } = self.packets.pop_front()?;
        self.bytes -= packet.len();
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
        staged.push(VirtioHeader::NONE, &packet(1, 1));
        let dropped: u64 = (0..1_000).map(|port| staged.push(VirtioHeader::NONE, &packet(2, port))).sum();
        assert_eq!(dropped, 1_001 - MAX_STAGED_PACKETS as u64);
        // A packet also gets in after a flood has filled the queue.
        staged.push(VirtioHeader::NONE, &packet(3, 1));
        let rest = rest(staged);
        assert_eq!(rest.len(), MAX_STAGED_PACKETS);
        assert!(rest.contains(&packet(1, 1)) && rest.contains(&packet(3, 1)));
    }

    #[test]
    fn one_flow_pushes_out_nothing_of_the_others_of_its_source() {
        let mut staged = Staged::default();
        staged.push(VirtioHeader::NONE, &packet(1, 1));
        (0..1_000).for_each(|_| _ = staged.push(VirtioHeader::NONE, &packet(1, 7_000)));
        assert!(rest(staged).contains(&packet(1, 1)));
    }

    #[test]
    fn super_packets_are_bounded_by_their_bytes() {
        let mut staged = Staged::default();
        for _ in 0..4 {
            assert_eq!(staged.push(VirtioHeader::NONE, &[0; 65_536]), 0);
        }
        assert_eq!(staged.push(VirtioHeader::NONE, &[0; 65_536]), 1);
        assert_eq!(staged.push(VirtioHeader::NONE, &[0; 20]), 1, "a small one makes room as well");
        assert_eq!(staged.clear(), 4);
        assert!(staged.is_empty());
    }
}
