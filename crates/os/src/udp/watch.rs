//! Control's view of a socket that the engine owns: the size of its buffers, how much waits in them, how much was
//! dropped because they were full, and whether segmentation still works. All of it is read from the kernel on demand.
//! The engine does not count anything for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::{Sending, UdpSocket};
use crate::socket::memory_of;

/// Looks at a socket that the engine owns. It does not keep the socket open: the port is free as soon as the owner is
/// gone.
#[derive(Debug)]
pub struct Watch {
    socket: Weak<OwnedFd>,
    sending: Arc<Sending>,
    /// The number of dropped datagrams as last seen.
    dropped: AtomicU64,
}

/// The buffers of a socket. Sizes are the kernel's own figures, as in `ss -m`. They include its bookkeeping, so they
/// are twice as large as requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Size of the receive buffer in bytes.
    pub receive_size: u32,
    /// Bytes waiting to be received.
    pub receive_used: u32,
    /// Size of the send buffer in bytes.
    pub send_size: u32,
    /// Bytes waiting to be sent.
    pub send_used: u32,
    /// How often the kernel dropped because the receive buffer was full. A train that was already joined counts once.
    pub dropped: u64,
}

impl UdpSocket {
    /// Creates a view of this socket for another thread.
    pub fn watch(&self) -> Watch {
        let socket = Arc::downgrade(&self.socket);
        Watch { socket, sending: Arc::clone(&self.sending), dropped: AtomicU64::new(0) }
    }
}

impl Watch {
    /// The current state of the buffers.
    ///
    /// # Errors
    /// `NotConnected` if the socket is closed. Also fails if the kernel cannot report it (before Linux 4.12).
    pub fn buffers(&self) -> io::Result<Buffers> {
        let socket = self.socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let memory = memory_of(socket.as_fd())?;
        let of = |index: i32| memory[index as usize];
        Ok(Buffers {
            receive_size: of(libc::SK_MEMINFO_RCVBUF),
            receive_used: of(libc::SK_MEMINFO_RMEM_ALLOC),
            send_size: of(libc::SK_MEMINFO_SNDBUF),
            send_used: of(libc::SK_MEMINFO_WMEM_ALLOC),
            dropped: self.on_dropped(of(libc::SK_MEMINFO_DROPS)),
        })
    }

    /// Whether the kernel segments trains, as far as is known: it can, it was requested, and it has not failed.
    pub fn segmentation(&self) -> bool {
        self.sending.segmentation.load(Relaxed)
    }

    /// The number of trains that were sent datagram by datagram because the path to their peer is too narrow for them.
    pub fn narrow_trains(&self) -> u64 {
        self.sending.narrow_trains.load(Relaxed)
    }

    /// Extends the kernel's counter, which has 32 bits and wraps, to 64 bits.
    fn on_dropped(&self, total: u32) -> u64 {
        let next = |known: u64| {
            let new = total.wrapping_sub(known as u32);
            // A step of more than half the range is a step back: of two concurrent readers, one may overtake the other.
            known + u64::from(if new < u32::MAX / 2 { new } else { 0 })
        };
        let known = self.dropped.fetch_update(Relaxed, Relaxed, |known| Some(next(known)));
        known.map_or(0, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{drop_capabilities, isolated};
    use crate::udp::tests::{options, pair, receive_all, train};
    use crate::udp::{BindOptions, Family};

    #[test]
    fn buffers_are_as_large_as_asked_for_with_the_privilege() {
        if !crate::privileges::has_net_admin() {
            return eprintln!("skipped: forcing buffers past the limit needs CAP_NET_ADMIN");
        }
        // Larger than the usual default limits.
        let large = BindOptions { receive_buffer: 9 << 20, send_buffer: 5 << 20, ..options() };
        let socket = UdpSocket::bind(Family::V4, &large).unwrap();
        let buffers = socket.watch().buffers().unwrap();
        assert_eq!((buffers.receive_size, buffers.send_size), (18 << 20, 10 << 20));
        assert_eq!((buffers.receive_used, buffers.dropped), (0, 0));
    }

    #[test]
    fn without_the_privilege_the_administrators_limit_is_told() {
        isolated(|| {
            let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse::<u32>().unwrap();
            drop_capabilities();
            let large = BindOptions { receive_buffer: 1 << 29, ..options() };
            let socket = UdpSocket::bind(Family::V4, &large).unwrap();
            let buffers = socket.watch().buffers().unwrap();
            assert_eq!(buffers.receive_size, 2 * limit);
        });
    }

    #[test]
    fn what_waits_is_told_and_what_did_not_fit_is_counted() {
        let small = BindOptions { receive_buffer: 8_192, coalescing: false, ..options() };
        let (a, b, to_b) = pair(Family::V4, &options(), &small);
        let watch = b.watch();
        for _ in 0..100 {
            a.send(&train(to_b, &[0; 1000], 1000)).unwrap();
        }
        let full = watch.buffers().unwrap();
        assert!(full.receive_used > 8_192, "{full:?}");
        let (shapes, _) = receive_all(&b, usize::MAX);
        assert!(!shapes.is_empty() && shapes.len() < 100);
        let empty = watch.buffers().unwrap();
        assert_eq!((empty.receive_used, empty.dropped), (0, 100 - shapes.len() as u64));
    }

    #[test]
    fn a_watch_keeps_no_port() {
        let socket = UdpSocket::bind(Family::V4, &options()).unwrap();
        let (port, watch) = (socket.local_port(), socket.watch());
        drop(socket);
        assert_eq!(watch.buffers().unwrap_err().kind(), io::ErrorKind::NotConnected);
        UdpSocket::bind(Family::V4, &BindOptions { port, ..options() }).expect("the port is free");
    }

    #[test]
    fn the_counter_continues_past_32_bits() {
        let watch = UdpSocket::bind(Family::V4, &options()).unwrap().watch();
        for (told, total) in [
            (0, 0),
            (0x7fff_0000, 0x7fff_0000),
            (0xfffe_0000, 0xfffe_0000),
            (5, 0x1_0000_0005),
            (3, 0x1_0000_0005), // an older reading, overtaken
            (6, 0x1_0000_0006),
        ] {
            assert_eq!(watch.on_dropped(told), total, "told {told:#x}");
        }
    }

    #[test]
    fn it_sees_when_segmentation_breaks() {
        let socket = UdpSocket::bind(Family::V6, &options()).unwrap();
        let watch = socket.watch();
        assert!(watch.segmentation());
        socket.on_segmentation_broken();
        assert!(!watch.segmentation());
        let without = UdpSocket::bind(Family::V6, &BindOptions { segmentation: false, ..options() }).unwrap();
        assert!(!without.watch().segmentation());
    }
}
