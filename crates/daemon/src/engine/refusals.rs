//! Super-packets that the kernel refuses at TUN.
//!
//! Whether the kernel accepts them shows only when one is written. Some kernels refuse all of them (EINVAL), and some
//! refuse only a rare shape: Linux 6.6.44 refuses those whose last segment is short. A refused super-packet is cut
//! again and written segment by segment, so that nothing is lost. If that happens [`REFUSALS_IN_A_ROW`] times without a
//! super-packet of the same kind being accepted in between, this kernel accepts none of them, and the node stops
//! joining them until the daemon restarts. A single refusal says little, and permanently doing without costs half the
//! throughput. A kernel that accepts some is still better served with them.
//!
//! A packet whose segments are refused too is itself wrong, and says nothing about super-packets.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};

use overlay_core::Joins;
use overlay_os::tun::Tun;
use overlay_wire::offload::{Segmentation, SuperPacket, VirtioHeader};

use super::offload::Offload;
use super::shell::{ShellStats, add};

/// After this many refusals of one kind of super-packet without an accepted one, that kind is given up.
const REFUSALS_IN_A_ROW: u32 = 8;

/// What the kernel has refused so far, and which kinds are still joined.
pub(super) struct Refusals {
    joins: Cell<Joins>,
    /// Whether the node has yet to be told.
    is_news: Cell<bool>,
    tcp_in_a_row: Cell<u32>,
    udp_in_a_row: Cell<u32>,
    room: RefCell<Room>,
}

/// Buffers in which a refused super-packet is assembled and cut again. Empty until first needed.
#[derive(Default)]
struct Room {
    packet: Vec<u8>,
    segment: Vec<u8>,
}

impl Refusals {
    /// Creates the initial state, without any refusal.
    pub(super) fn none(joins: Joins) -> Self {
        Self {
            joins: Cell::new(joins),
            is_news: Cell::new(false),
            tcp_in_a_row: Cell::new(0),
            udp_in_a_row: Cell::new(0),
            room: RefCell::default(),
        }
    }

    /// Records that the kernel accepted a packet with this header.
    pub(super) fn on_taken(&self, header: &VirtioHeader) {
        if let Some(in_a_row) = self.in_a_row(header.segmentation) {
            in_a_row.set(0);
        }
    }

    /// Handles a packet that the kernel refused. Writes the segments of a super-packet one by one, and returns how many
    /// there were.
    ///
    /// # Errors
    /// If it is not a super-packet, or if a segment was refused too. The packet is lost.
    pub(super) fn on_refused<'a>(
        &self,
        tun: &Tun,
        header: &VirtioHeader,
        parts: impl Iterator<Item = &'a [u8]>,
        error: io::Error,
        stats: &ShellStats,
    ) -> io::Result<usize> {
        let is_refusal = error.kind() == io::ErrorKind::InvalidInput; // EINVAL
        let Some(in_a_row) = self.in_a_row(header.segmentation).filter(|_| is_refusal) else { return Err(error) };
        let segments = self.room.borrow_mut().write_singly(tun, header, parts)?;
        add(&stats.tun_super_packets_refused, 1);
        in_a_row.set(in_a_row.get().saturating_add(1));
        if in_a_row.get() == REFUSALS_IN_A_ROW {
            self.give_up(header.segmentation, stats);
        }
        Ok(segments)
    }

    /// Returns what the node should join from now on, if that has changed.
    pub(super) fn take_news(&self) -> Option<Joins> {
        self.is_news.take().then(|| self.joins.get())
    }

    fn give_up(&self, segmentation: Segmentation, stats: &ShellStats) {
        let joins = self.joins.get();
        let (offload, left, what) = match segmentation {
            Segmentation::Udp => (Offload::TunUdp, Joins { udp: false, ..joins }, "UDP"),
            _ => (Offload::TunTcp, Joins { tcp: false, ..joins }, "TCP"),
        };
        if left != joins {
            self.joins.set(left);
            self.is_news.set(true);
            stats.offloads.on_fallen_back(offload);
            tracing::warn!("the kernel refuses {what} super-packets at TUN: what arrives is written packet by packet");
        }
    }

    fn in_a_row(&self, segmentation: Segmentation) -> Option<&Cell<u32>> {
        match segmentation {
            Segmentation::None => None,
            Segmentation::TcpV4 | Segmentation::TcpV6 => Some(&self.tcp_in_a_row),
            Segmentation::Udp => Some(&self.udp_in_a_row),
        }
    }
}

impl Room {
    fn write_singly<'a>(
        &mut self,
        tun: &Tun,
        header: &VirtioHeader,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        self.packet.clear();
        parts.for_each(|part| self.packet.extend_from_slice(part));
        let joined = SuperPacket::parse(header, &self.packet).map_err(|_| io::ErrorKind::InvalidData)?;
        let plain = VirtioHeader::NONE.encode();
        for index in 0..joined.segments() {
            self.segment.resize(joined.segment_len(index), 0);
            let len = joined.write_segment(index, &mut self.segment);
            tun.write(&[IoSlice::new(&plain), IoSlice::new(&self.segment[..len])])?;
        }
        Ok(joined.segments())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use overlay_os::netlink::Netlink;
    use overlay_wire::offload::Join;

    use super::*;
    use crate::engine::OffloadState;
    use crate::host::own_namespace::run;

    const BOTH: Joins = Joins { tcp: true, udp: true };
    const DATAGRAMS: usize = 5;

    /// Creates a device at 10.9.0.1 that is up, and a socket on it.
    async fn world() -> (Tun, UdpSocket) {
        let netlink = Netlink::connect().await.expect("netlink");
        let tun = Tun::create("ovt0", true).expect("a TUN");
        netlink.add_address(tun.index(), [10, 9, 0, 1].into(), 24).await.expect("an address");
        netlink.set_up(tun.index()).await.expect("up");
        let socket = UdpSocket::bind("10.9.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        (tun, socket)
    }

    /// Builds a datagram from 10.9.0.2 with a checksum, which can be joined with others of its kind.
    fn datagram(port: u16, number: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 128, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1];
        let sum = overlay_wire::checksum::finish(overlay_wire::checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend([7, 208]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 108, 0xff, 0xff]);
        packet.extend([number; 100]);
        packet
    }

    /// Joins five datagrams. Returns the header and the pieces that go to TUN.
    fn joined(port: u16) -> (VirtioHeader, Vec<Vec<u8>>) {
        let mut pieces: Vec<_> = (0..DATAGRAMS).map(|number| datagram(port, number as u8)).collect();
        let (first, rest) = pieces.split_first_mut().expect("five");
        let mut join = Join::begin(first, BOTH).expect("a datagram with a checksum");
        for next in rest {
            let skip = join.append(first, next).expect("one of its kind");
            next.drain(..skip);
        }
        (join.finish(first), pieces)
    }

    /// Writes like the engine does. Returns true if the kernel accepted the whole packet.
    fn write(refusals: &Refusals, tun: &Tun, header: &VirtioHeader, pieces: &[Vec<u8>], stats: &ShellStats) -> bool {
        let head = header.encode();
        let parts: Vec<_> =
            std::iter::once(&head[..]).chain(pieces.iter().map(Vec::as_slice)).map(IoSlice::new).collect();
        match tun.write(&parts) {
            Ok(_) => {
                refusals.on_taken(header);
                true
            }
            Err(error) => {
                let segments = refusals.on_refused(tun, header, pieces.iter().map(Vec::as_slice), error, stats);
                assert_eq!(segments.expect("its segments are taken"), pieces.len());
                false
            }
        }
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 200];
        (0..DATAGRAMS).map(|_| socket.recv(&mut buffer).map(|len| buffer[len - 1]).expect("a datagram")).collect()
    }

    #[test]
    fn a_refused_super_packet_arrives_segment_by_segment_and_after_some_the_kind_is_given_up() {
        run(|| async {
            let (tun, socket) = world().await;
            let (stats, refusals) = (ShellStats::default(), Refusals::none(BOTH));
            for offload in [Offload::TunTcp, Offload::TunUdp] {
                stats.offloads.set(offload, OffloadState::On);
            }
            let (good, pieces) = joined(socket.local_addr().expect("bound").port());
            // A real kernel refuses this one: a datagram's checksum is never at that offset.
            let bad = VirtioHeader { checksum_offset: 2, ..good };

            for round in 1..REFUSALS_IN_A_ROW {
                if write(&refusals, &tun, &bad, &pieces, &stats) {
                    return eprintln!("skipped: this kernel does not look at where the checksum stands");
                }
                assert_eq!(received(&socket), [0, 1, 2, 3, 4], "round {round}");
                assert_eq!(refusals.take_news(), None);
            }
            // One is accepted, so the kernel does not refuse them all.
            assert!(write(&refusals, &tun, &good, &pieces, &stats), "USO needs Linux 6.2");
            assert_eq!(received(&socket), [0, 1, 2, 3, 4]);
            for _ in 0..REFUSALS_IN_A_ROW {
                assert_eq!(refusals.take_news(), None);
                assert!(!write(&refusals, &tun, &bad, &pieces, &stats));
                received(&socket);
            }
            assert_eq!(refusals.take_news(), Some(Joins { tcp: true, udp: false }));
            assert_eq!(refusals.take_news(), None, "it is told once");
            let states = [Offload::TunTcp, Offload::TunUdp].map(|offload| stats.offloads.state(offload));
            assert_eq!(states, [OffloadState::On, OffloadState::FallenBack]);
            assert_eq!(stats.tun_super_packets_refused.value(), u64::from(2 * REFUSALS_IN_A_ROW - 1));
        });
    }

    #[test]
    fn what_is_no_super_packet_or_met_another_error_is_lost_and_says_nothing_about_them() {
        run(|| async {
            let (tun, socket) = world().await;
            let (stats, refusals) = (ShellStats::default(), Refusals::none(BOTH));
            let (header, pieces) = joined(socket.local_addr().expect("bound").port());
            let errors = [
                (io::ErrorKind::InvalidInput, VirtioHeader::NONE),
                (io::ErrorKind::Other, header),
                (io::ErrorKind::InvalidInput, VirtioHeader { segment_size: 0, ..header }),
            ];
            for (kind, header) in errors.into_iter().cycle().take(3 * REFUSALS_IN_A_ROW as usize) {
                let parts = pieces.iter().map(Vec::as_slice);
                let result = refusals.on_refused(&tun, &header, parts, kind.into(), &stats);
                assert!(result.is_err(), "{kind}");
            }
            assert_eq!(refusals.take_news(), None);
        });
    }
}
