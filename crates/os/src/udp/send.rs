//! Sending: one train, one system call, and what to do when the kernel refuses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use super::{Family, UdpSocket};
use crate::socket::{ControlBuffer, RawAddress, send, send_many};

/// The longest payload of one send over IPv4: 65,535 less the IP and UDP headers. IPv6 would take 20 bytes more.
const PAYLOAD_MAX: usize = 65_507;

/// A train to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// To where.
    pub destination: SocketAddr,
    /// From which of our addresses, by which interface; `None` leaves both to the routing table.
    pub source: Option<(IpAddr, u32)>,
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram in bytes but the last, which may be shorter; at least 1.
    pub segment_size: usize,
    /// The two ECN bits for the outer header.
    pub ecn: u8,
}

/// Why a train, or what was left of it, did not go out.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The kernel has no room. Datagrams are not worth waiting for: drop.
    #[error("the kernel has no room for more datagrams")]
    WouldBlock,
    /// A single datagram is longer than the path carries or UDP allows.
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
        if transmit.destination.is_ipv4() != (self.family == Family::V4) {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT).into());
        }
        let destination = RawAddress::new(transmit.destination);
        let segment_size = transmit.segment_size.max(1);
        let mut source = transmit.source.filter(|(ip, _)| ip.is_ipv4() == transmit.destination.is_ipv4());
        for train in transmit.contents.chunks(self.train_len(segment_size)) {
            let attempt = |source| self.send_train(&destination, train, segment_size, source, transmit);
            match attempt(source) {
                Err(error) if source.is_some() && is_stale_source(&error) => {
                    source = None;
                    attempt(None)?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// How many datagrams one system call carries: 1 without segmentation, 64 before Linux 6.9, 128 since.
    pub fn max_segments(&self) -> usize {
        static LIMIT: LazyLock<usize> = LazyLock::new(|| {
            let uname = rustix::system::uname();
            let release = uname.release().to_string_lossy();
            let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
            let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version >= (6, 9) { 128 } else { 64 }
        });
        if self.segmentation.load(Relaxed) { *LIMIT } else { 1 }
    }

    /// How many bytes of whole datagrams one attempt takes.
    fn train_len(&self, segment_size: usize) -> usize {
        let segments = (PAYLOAD_MAX / segment_size).clamp(1, self.max_segments().max(64));
        segments * segment_size
    }

    fn send_train(
        &self,
        destination: &RawAddress,
        train: &[u8],
        segment_size: usize,
        source: Option<(IpAddr, u32)>,
        transmit: &Transmit<'_>,
    ) -> io::Result<()> {
        let mut control = ControlBuffer::default();
        if let Some((ip, interface)) = source {
            control.push_source(ip, interface);
        }
        if transmit.ecn != 0 {
            control.push_traffic_class(self.family == Family::V4, transmit.ecn);
        }
        if train.len() <= segment_size {
            return send(self.as_fd(), Some(destination), train, &control);
        }
        if self.segmentation.load(Relaxed) {
            match self.send_segmented(destination, train, segment_size, &control) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => self.on_segmentation_broken(),
                // A segment does not fit the route's MTU, and the kernel cuts trains but does not fragment them. One by
                // one it does. This is no reason to give segmentation up: the next route may be wider.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE)) => {}
                result => return result,
            }
        }
        self.send_singly(destination, train, segment_size, &control)
    }

    fn send_segmented(
        &self,
        destination: &RawAddress,
        train: &[u8],
        segment_size: usize,
        control: &ControlBuffer,
    ) -> io::Result<()> {
        // A train of two datagrams or more is at most 65,507 bytes long, so that this always fits.
        let Ok(segment_size) = u16::try_from(segment_size) else {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        };
        let mut control = control.clone();
        control.push_segment_size(segment_size);
        send(self.as_fd(), Some(destination), train, &control)
    }

    /// One datagram after the other, as many as possible in one system call.
    fn send_singly(
        &self,
        destination: &RawAddress,
        train: &[u8],
        segment_size: usize,
        control: &ControlBuffer,
    ) -> io::Result<()> {
        let mut rest = train;
        while !rest.is_empty() {
            let sent = send_many(self.as_fd(), destination, rest.chunks(segment_size), control)?;
            rest = rest.get(sent * segment_size..).unwrap_or_default();
        }
        Ok(())
    }

    /// EIO: the device or a transformation on the way (IPsec) cannot finish the checksums of a train. Says so once.
    pub(super) fn on_segmentation_broken(&self) {
        if self.segmentation.swap(false, Relaxed) {
            tracing::warn!(port = self.local_port, "UDP segmentation does not work here; sending datagrams one by one");
        }
    }
}

/// What the kernel says when a source address or its interface is gone.
fn is_stale_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENODEV | libc::ENETDOWN
        )
    )
}
