//! Datagrams that control sends and gets through the node's own sockets: what it says to relays, and what they answer.
//!
//! Both queues are bounded and beside those of commands and events, so that a stranger who forges a relay's address fills
//! nothing that others need. A full queue drops the newest datagram, and a counter says so.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::{Foreign, Via};
use tokio::sync::mpsc;

use super::shell::{ShellStats, add};

/// How many datagrams may wait on the way to control.
const MAX_INCOMING: usize = 256;
/// How many datagrams may wait on the way to the sockets.
const MAX_OUTGOING: usize = 256;

/// A datagram that belongs to no peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it goes, or came from.
    pub remote: SocketAddr,
    /// Our end.
    pub via: Via,
    /// The payload.
    pub contents: Box<[u8]>,
}

/// The engine's end of the way to control.
pub(super) struct Incoming {
    sender: mpsc::Sender<Datagram>,
}

/// Creates the sender and the receiver of what relays send.
pub(super) fn incoming() -> (Incoming, mpsc::Receiver<Datagram>) {
    let (sender, receiver) = mpsc::channel(MAX_INCOMING);
    (Incoming { sender }, receiver)
}

impl Incoming {
    /// Queues a datagram. Returns false if there is no room for it.
    pub(super) fn push(&self, foreign: &Foreign<'_>) -> bool {
        let Foreign { source, via, contents } = *foreign;
        let room = self.sender.try_reserve();
        room.map(|room| room.send(Datagram { remote: source, via, contents: contents.into() })).is_ok()
    }
}

/// Control's end of the way to the sockets.
pub(super) struct Outgoing {
    sender: mpsc::Sender<Datagram>,
    stats: Arc<ShellStats>,
}

/// Creates the sender and the receiver of what control sends.
pub(super) fn outgoing(stats: Arc<ShellStats>) -> (Outgoing, mpsc::Receiver<Datagram>) {
    let (sender, receiver) = mpsc::channel(MAX_OUTGOING);
    (Outgoing { sender, stats }, receiver)
}

impl Outgoing {
    pub(super) fn push(&self, datagram: Datagram) {
        if self.sender.try_send(datagram).is_err() {
            add(&self.stats.control_datagrams_dropped, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u8) -> Datagram {
        Datagram { remote: ([192, 0, 2, 1], 7447).into(), via: Via::ANY, contents: [number].into() }
    }

    #[test]
    fn a_full_queue_drops_and_counts_the_newest() {
        let stats = Arc::<ShellStats>::default();
        let (outgoing, mut sockets) = outgoing(Arc::clone(&stats));
        let dropped = &stats.control_datagrams_dropped;
        let (incoming, mut control) = incoming();
        let foreign =
            |number: &[u8]| incoming.push(&Foreign { source: datagram(0).remote, via: Via::ANY, contents: number });
        for _ in 0..MAX_OUTGOING {
            outgoing.push(datagram(1));
        }
        assert_eq!(dropped.value(), 0);
        outgoing.push(datagram(2));
        assert_eq!(dropped.value(), 1);
        assert!((0..MAX_INCOMING).all(|_| foreign(&[1])));
        assert!(!foreign(&[2]));
        assert_eq!((sockets.try_recv(), control.try_recv()), (Ok(datagram(1)), Ok(datagram(1))));
        outgoing.push(datagram(3));
        assert!(foreign(&[3]));
        assert_eq!(dropped.value(), 1);
        assert_eq!(std::iter::from_fn(|| sockets.try_recv().ok()).last(), Some(datagram(3)));
        assert_eq!(std::iter::from_fn(|| control.try_recv().ok()).last(), Some(datagram(3)));
    }
}
