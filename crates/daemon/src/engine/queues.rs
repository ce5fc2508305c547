//! The queues that the kernel keeps for us: how large they are, how full, and what did not fit.
//!
//! Overload shows as a full queue, from which the kernel drops packets silently. The kernel counts them. It is asked only
//! for a status or a scrape, and the engine takes no part in it.

use std::sync::{PoisonError, RwLock};

use overlay_os::tun;
use overlay_os::udp::{Buffers, Watch};

use super::Sockets;

/// The queues of a running daemon.
#[derive(Debug)]
pub struct Queues {
    interface: String,
    watched: RwLock<Watched>,
}

/// The sockets in use, and the counts of earlier sockets.
#[derive(Debug, Default)]
struct Watched {
    sockets: Vec<Watch>,
    dropped_before: u64,
    narrow_trains_before: u64,
}

/// The figures of the kernel. A figure that it does not provide is not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    tun_dropped: Option<u64>,
    sockets: Option<Buffers>,
    narrow_trains: Option<u64>,
}

/// A figure that the kernel may not provide.
type Figure = overlay_core::Figure<QueueFigures, Option<u64>>;

impl Queues {
    /// Watches the queues of a TUN device and of sockets.
    pub fn of(interface: &str, sockets: &Sockets) -> Self {
        let queues = Self { interface: interface.to_owned(), watched: RwLock::default() };
        queues.follow(sockets);
        queues
    }

    /// Watches these sockets instead of the earlier ones, which must still be open. The counts go on from theirs.
    pub fn follow(&self, sockets: &Sockets) {
        let mut watched = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        let (buffers, narrow_trains) = (watched.buffers(), watched.narrow_trains());
        *watched = Watched {
            sockets: sockets.each().map(|socket| socket.watch()).collect(),
            dropped_before: buffers.map_or(watched.dropped_before, |buffers| buffers.dropped),
            narrow_trains_before: narrow_trains.unwrap_or(watched.narrow_trains_before),
        };
    }

    /// Reads the current figures of the kernel.
    pub fn read(&self) -> QueueFigures {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        QueueFigures {
            tun_dropped: tun::dropped_packets(&self.interface).ok().flatten(),
            sockets: watched.buffers(),
            narrow_trains: watched.narrow_trains(),
        }
    }

    /// Whether every socket still has its trains cut by the kernel.
    pub fn all_segment(&self) -> bool {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        watched.sockets.iter().all(Watch::segmentation)
    }
}

impl Watched {
    /// Returns the buffers of all sockets as one. `None` if no socket is open.
    fn buffers(&self) -> Option<Buffers> {
        let both = self.sockets.iter().filter_map(|socket| socket.buffers().ok()).reduce(together)?;
        Some(Buffers { dropped: self.dropped_before + both.dropped, ..both })
    }

    fn narrow_trains(&self) -> Option<u64> {
        let both = self.sockets.iter().map(Watch::narrow_trains).reduce(|a, b| a + b)?;
        Some(self.narrow_trains_before + both)
    }
}

impl QueueFigures {
    /// The counters of packets that did not fit.
    pub const COUNTERS: &'static [Figure] = &[
        Figure::new(
            "tun_queue_dropped",
            "Packets that the kernel dropped because our TUN queue was full: this host sends faster than we read.",
            |figures| figures.tun_dropped,
        ),
        Figure::new(
            "udp_receive_overflow",
            "Datagrams that the kernel dropped because our receive buffer was full: peers send faster than we read.",
            |figures| Some(figures.sockets?.dropped),
        ),
        Figure::new(
            "udp_narrow_trains",
            "Trains sent as single datagrams because the route to the peer is too narrow for them: lower `mtu`.",
            |figures| figures.narrow_trains,
        ),
    ];

    /// The sizes of the buffers, and how full they are.
    pub const SIZES: &'static [Figure] = &[
        Figure::new(
            "udp_receive_buffer_bytes",
            "Size of the receive buffer of each UDP socket, as the kernel counts it.",
            |figures| Some(figures.sockets?.receive_size.into()),
        ),
        Figure::new(
            "udp_receive_queued_bytes",
            "Bytes that are waiting in the receive buffers of the UDP sockets.",
            |figures| Some(figures.sockets?.receive_used.into()),
        ),
        Figure::new(
            "udp_send_buffer_bytes",
            "Size of the send buffer of each UDP socket, as the kernel counts it.",
            |figures| Some(figures.sockets?.send_size.into()),
        ),
        Figure::new(
            "udp_send_queued_bytes",
            "Bytes that are waiting in the send buffers of the UDP sockets.",
            |figures| Some(figures.sockets?.send_used.into()),
        ),
    ];

    /// Returns the figures of `list` that the kernel provides, by name.
    pub fn told(self, list: &'static [Figure]) -> impl Iterator<Item = (&'static str, u64)> {
        list.iter().filter_map(move |figure| Some((figure.name, figure.value(&self)?)))
    }
}

/// Combines the buffers of two sockets. The size is that of the smaller one, which overflows first.
fn together(a: Buffers, b: Buffers) -> Buffers {
    Buffers {
        receive_size: a.receive_size.min(b.receive_size),
        receive_used: a.receive_used.saturating_add(b.receive_used),
        send_size: a.send_size.min(b.send_size),
        send_used: a.send_used.saturating_add(b.send_used),
        dropped: a.dropped + b.dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_are_as_small_as_the_smaller_and_hold_and_lose_what_both_do() {
        let a = Buffers { receive_size: 10, receive_used: 1, send_size: 20, send_used: 2, dropped: 3 };
        let b = Buffers { receive_size: 30, receive_used: 4, send_size: 5, send_used: 6, dropped: 7 };
        let both = QueueFigures { tun_dropped: Some(9), sockets: Some(together(a, b)), narrow_trains: Some(1) };
        let told = |list| both.told(list).collect::<Vec<_>>();
        assert_eq!(
            told(QueueFigures::COUNTERS),
            [("tun_queue_dropped", 9), ("udp_receive_overflow", 10), ("udp_narrow_trains", 1)]
        );
        let sizes = [
            ("udp_receive_buffer_bytes", 10),
            ("udp_receive_queued_bytes", 5),
            ("udp_send_buffer_bytes", 5),
            ("udp_send_queued_bytes", 8),
        ];
        assert_eq!(told(QueueFigures::SIZES), sizes);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_listed() {
        let nothing = QueueFigures::default();
        let counts = [QueueFigures::COUNTERS, QueueFigures::SIZES].map(|list| nothing.told(list).count());
        assert_eq!(counts, [0, 0]);
    }
}
