//! Sending: what a train is, what the kernel's refusals mean, and what a socket says of its own abilities.
//!
//! How trains go out is in [`super::batch`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use super::UdpSocket;
use crate::clock::boottime;

/// A train to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// To where.
    pub destination: SocketAddr,
    /// From which of our addresses, and by which interface its question came; `None` leaves both to the routing table, which
    /// decides too where an IPv4 source and its route have parted.
    pub source: Option<(IpAddr, u32)>,
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram in bytes but the last, which may be shorter; at least 1.
    pub segment_size: usize,
    /// The traffic class of the outer header, whose lower two bits are ECN.
    pub traffic_class: u8,
    /// Nobody may fragment these datagrams: neither this host nor, by DF over IPv4, any router. What does not fit the device
    /// is [`SendError::MessageTooLong`] at once. A path MTU that the kernel has learned from ICMP is ignored: who sends so
    /// searches by himself, and believes no stranger.
    ///
    /// It is a setting of the socket: trains of both kinds in turn cost a system call for each change.
    pub dont_fragment: bool,
    /// The caller's own: whoever is told of a failure is told this.
    pub tag: u64,
}

/// Why a train, or what was left of it, did not go out.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The kernel has no room. Datagrams are not worth waiting for: drop.
    #[error("the kernel has no room for more datagrams")]
    WouldBlock,
    /// A single datagram is longer than UDP allows, or than the device carries where it may not be fragmented. A shorter
    /// last one of its train may have gone out.
    #[error("a datagram is too long")]
    MessageTooLong,
    /// There is no way to that destination now, or the host's own rules refuse it. It may come back.
    #[error("the destination cannot be reached: {0}")]
    Unreachable(io::Error),
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::WouldBlock,
            Some(libc::EMSGSIZE) => Self::MessageTooLong,
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EADDRNOTAVAIL
                // The interface went away; a blackhole route; a prohibiting route; a local packet filter.
                | libc::ENODEV | libc::EINVAL | libc::EACCES | libc::EPERM
                // The other family's address, or an ICMP error that came back.
                | libc::EAFNOSUPPORT | libc::ECONNREFUSED,
            ) => Self::Unreachable(error),
            _ => Self::Io(error),
        }
    }
}

impl UdpSocket {
    /// Sends a train, in as few system calls as the kernel allows. Never waits. A source address that is no longer ours
    /// is forgotten for this train and the routing table chooses.
    ///
    /// # Errors
    /// See [`SendError`]. Datagrams before the one that failed may have gone out.
    pub fn send(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let mut result = Ok(());
        self.send_batch([*transmit], |_, error| result = Err(error));
        result
    }

    /// How many datagrams one message carries: 1 without segmentation, 64 before Linux 6.9, 128 since.
    pub fn max_segments(&self) -> usize {
        static LIMIT: LazyLock<usize> = LazyLock::new(|| {
            let uname = rustix::system::uname();
            let release = uname.release().to_string_lossy();
            let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
            let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version >= (6, 9) { 128 } else { 64 }
        });
        if self.sending.segmentation.load(Relaxed) { *LIMIT } else { 1 }
    }

    /// EIO: the device or a transformation on the way (IPsec) cannot finish the checksums of a train. Says so once.
    pub(super) fn on_segmentation_broken(&self) {
        if self.sending.segmentation.swap(false, Relaxed) {
            tracing::warn!(port = self.local_port, "UDP segmentation does not work here; sending datagrams one by one");
        }
    }

    /// A train did not fit its way, and went out datagram by datagram. Says so once for all ways: what to do about it is
    /// the same.
    pub(super) fn on_narrow_way(&self, to: IpAddr, segment_size: usize) {
        self.narrow.on_too_long(to, segment_size, boottime());
        if self.sending.narrow_trains.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(
                port = self.local_port,
                "the way to a peer is too narrow for datagrams of {segment_size} bytes: they go one by one, in fragments; \
                 a smaller `mtu` under [interface] avoids both"
            );
        }
    }
}
