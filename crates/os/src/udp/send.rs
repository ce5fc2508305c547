//! Sending: the definition of a train, the meaning of the kernel's refusals, and the abilities of a socket.
//!
//! [`super::batch`] does the sending itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use super::UdpSocket;
use crate::clock::boottime;

/// A train to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The destination address.
    pub destination: SocketAddr,
    /// The local address to send from, and the index of the interface that the peer's datagram came in by. `None`
    /// leaves both to the routing table. The table also decides if it no longer routes from this IPv4 source by that
    /// interface.
    pub source: Option<(IpAddr, u32)>,
    /// Whether to leave through that interface even where a default route of `main` prefers a different one. Any other
    /// route is followed, so nothing goes around the tunnel of a VPN.
    pub is_pinned: bool,
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram except the last, in bytes. The last may be shorter. At least 1.
    pub segment_size: usize,
    /// The traffic class of the outer header. Its lower two bits are ECN.
    pub traffic_class: u8,
    /// How many hops the datagrams live (TTL, or hop limit), from 1. `None`: the socket's default.
    pub ttl: Option<u8>,
    /// Whether to forbid fragmentation of these datagrams, both on this host and, by DF in IPv4, on routers. A datagram
    /// that exceeds the device's MTU fails with [`SendError::MessageTooLong`] at once. The path MTU that the kernel has
    /// learned from ICMP is ignored: the caller searches for the path MTU itself and does not trust unauthenticated
    /// reports.
    ///
    /// This is a setting of the socket, so alternating between both kinds of trains costs a system call for each
    /// change.
    pub dont_fragment: bool,
    /// A value for the caller's own use. It is passed back with a failure.
    pub tag: u64,
}

impl<'a> Transmit<'a> {
    /// A train whose way is the kernel's choice. It may be fragmented.
    pub fn to(destination: SocketAddr, contents: &'a [u8], segment_size: usize) -> Self {
        Self {
            destination,
            source: None,
            is_pinned: false,
            contents,
            segment_size,
            traffic_class: 0,
            ttl: None,
            dont_fragment: false,
            tag: 0,
        }
    }
}

/// The reason why a train, or the rest of it, was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The kernel has no space. Drop the datagrams: they are not worth waiting for.
    #[error("the kernel has no room for more datagrams")]
    WouldBlock,
    /// A single datagram is longer than UDP allows, or exceeds the device's MTU and must not be fragmented. A shorter
    /// last datagram of the train may have gone out.
    #[error("a datagram is too long")]
    MessageTooLong,
    /// The destination cannot be reached now, or the host's own rules refuse it. This may be temporary.
    #[error("the destination cannot be reached: {0}")]
    Unreachable(io::Error),
    /// Any other error.
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
                // The interface is gone, a blackhole route, a prohibiting route, a local packet filter.
                | libc::ENODEV | libc::EINVAL | libc::EACCES | libc::EPERM
                // An address of the wrong family, or an ICMP error that came back.
                | libc::EAFNOSUPPORT | libc::ECONNREFUSED,
            ) => Self::Unreachable(error),
            _ => Self::Io(error),
        }
    }
}

impl UdpSocket {
    /// Sends a train, in as few system calls as the kernel allows. Never blocks. If a source address is no longer ours,
    /// it is dropped for this train and the routing table chooses.
    ///
    /// # Errors
    /// See [`SendError`]. Datagrams before the failed one may have gone out.
    pub fn send(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let mut result = Ok(());
        self.send_batch([*transmit], |_, error| result = Err(error));
        result
    }

    /// How many datagrams one message can carry: 1 without segmentation, 64 before Linux 6.9, 128 since.
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

    /// Handles EIO: the device or a transformation on the path (IPsec) cannot finish a train's checksums. Logs this
    /// once.
    pub(super) fn on_segmentation_broken(&self) {
        if self.sending.segmentation.swap(false, Relaxed) {
            tracing::warn!(port = self.local_port, "UDP segmentation does not work here; sending datagrams one by one");
        }
    }

    /// Records that a train did not fit its path and was sent datagram by datagram. Logs this once for all paths, since
    /// the remedy is the same.
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
