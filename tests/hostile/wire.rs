//! The attacker's end of the outer wire: a real UDP socket in the attacker's namespace.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overlay_os::udp::{BindOptions, Family, ReceiveBatch, Transmit, UdpSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, sendto};

pub(crate) use crate::lab::inside;
use crate::lab::{Host, SHORTLY};

/// A socket that talks to one victim.
pub(crate) struct Wire {
    socket: UdpSocket,
    victim: SocketAddr,
    batch: ReceiveBatch,
    received: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Opens a socket on a host. With port 0 the kernel chooses one.
    pub(crate) fn open(host: &Host, port: u16, victim: SocketAddr) -> Wire {
        let family = if victim.is_ipv4() { Family::V4 } else { Family::V6 };
        let options = BindOptions {
            port,
            fwmark: None,
            // Large enough for the answers to a flood.
            receive_buffer: 8 << 20,
            send_buffer: 1 << 20,
            segmentation: true,
            coalescing: false,
        };
        let socket = inside(host, || UdpSocket::bind(family, &options)).expect("a socket of our own");
        assert!(socket.max_segments() > 1, "this kernel cannot send trains");
        Wire { socket, victim, batch: ReceiveBatch::new(8), received: VecDeque::new() }
    }

    /// The local port.
    pub(crate) fn port(&self) -> u16 {
        self.socket.local_port()
    }

    /// Sends one datagram of any length, even 0.
    #[track_caller]
    pub(crate) fn send(&self, datagram: &[u8]) {
        let sent = sendto(&self.socket, datagram, SendFlags::empty(), &self.victim);
        assert_eq!(sent, Ok(datagram.len()), "a datagram of {} bytes", datagram.len());
    }

    /// Sends datagrams as one train in one system call. All have the same length, except that the last may be shorter.
    #[track_caller]
    pub(crate) fn send_train(&self, datagrams: &[Vec<u8>]) {
        let segment_size = datagrams[0].len();
        let (last, full) = datagrams.split_last().expect("a train has datagrams");
        assert!(full.iter().all(|one| one.len() == segment_size) && last.len() <= segment_size, "not a train");
        let contents = datagrams.concat();
        let transmit = Transmit::to(self.victim, &contents, segment_size);
        self.socket.send(&transmit).expect("a train that fits");
    }

    /// The next datagram that comes back.
    ///
    /// # Panics
    /// Panics if none comes.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        self.receive_within(SHORTLY).unwrap_or_else(|| panic!("no answer from {}", self.victim))
    }

    /// The next datagram, if it has already come.
    pub(crate) fn receive_now(&mut self) -> Option<Vec<u8>> {
        self.receive_within(Duration::ZERO)
    }

    /// The next datagram, if it comes within a second.
    pub(crate) fn receive_shortly(&mut self) -> Option<Vec<u8>> {
        self.receive_within(Duration::from_secs(1))
    }

    fn receive_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(datagram) = self.received.pop_front() {
                return Some(datagram);
            }
            self.socket.receive(&mut self.batch, usize::MAX).expect("our own socket");
            self.received.extend(self.batch.iter_mut().map(|one| one.contents.to_vec()));
            if !self.received.is_empty() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)).expect("our own socket");
        }
    }
}
