//! ICMP echo, to find out whether a host answers and how fast.
//!
//! This uses the unprivileged kind of socket, for which the kernel keeps identifiers apart. If
//! `net.ipv4.ping_group_range` excludes the caller (as it excludes everyone in a new network namespace), it falls back
//! to a raw socket. The caller has the clock and measures round trips.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use overlay_wire::checksum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, ipproto, socket_with};

use crate::socket::{
    ControlBuffer, ControlMessage, RawAddress, bind_to_device, control_messages, receive, send, set_option,
};
use crate::{clock, random};

/// Type, code, checksum, identifier and sequence number (RFC 792, RFC 4443), in bytes.
const HEADER_LEN: usize = 8;

/// The longest IPv4 header that a raw socket puts in front of the message, options included, in bytes.
const IPV4_HEADER_MAX: usize = 60;

/// A socket that exchanges echo requests and replies with one host.
#[derive(Debug)]
pub struct Ping {
    socket: OwnedFd,
    is_ipv4: bool,
    /// The identifier that marks our replies, since a raw socket sees everyone's. For the unprivileged kind the kernel
    /// chooses it.
    identifier: u16,
    is_raw: bool,
}

/// An echo reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The sequence number of the request that this reply answers.
    pub sequence: u16,
    /// The remaining hops, if the kernel reported them.
    pub ttl: Option<u8>,
    /// Length of the payload in bytes.
    pub payload_len: usize,
}

impl Ping {
    /// Creates a socket for `destination`. If `device` is given, it uses only that interface.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW if the unprivileged kind is switched off. Also fails if the destination
    /// is unreachable or the device does not exist.
    pub fn connect(destination: IpAddr, device: Option<&str>) -> io::Result<Self> {
        let is_ipv4 = destination.is_ipv4();
        let (socket, is_raw) = open(is_ipv4)?;
        if let Some(device) = device {
            bind_to_device(socket.as_fd(), device)?;
        }
        let (level, option) = match is_ipv4 {
            true => (libc::IPPROTO_IP, libc::IP_RECVTTL),
            false => (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
        };
        set_option(socket.as_fd(), level, option, 1)?;
        connect(&socket, &SocketAddr::new(destination, 0))?;
        let identifier = if is_raw {
            let mut identifier = [0; 2];
            random::fill(&mut identifier)?;
            u16::from_be_bytes(identifier)
        } else {
            // The identifier that the kernel chose is reported as the local port.
            SocketAddr::try_from(getsockname(&socket)?)?.port()
        };
        Ok(Self { socket, is_ipv4, identifier, is_raw })
    }

    /// Sends an echo request.
    ///
    /// # Errors
    /// Fails if the destination cannot be reached, or if the payload does not fit in a packet.
    pub fn send(&self, sequence: u16, payload: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER_LEN + payload.len());
        message.extend([self.request_type(), 0, 0, 0]);
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(payload);
        if self.is_ipv4 {
            // For ICMPv6 the kernel computes the checksum, since only the kernel knows the source address that it
            // covers.
            let checksum = checksum::finish(checksum::sum(&message));
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        send(self.as_fd(), None, &message, &ControlBuffer::default())
    }

    /// Waits for at most `timeout` for a reply to a request of this socket. Returns `None` if none came.
    ///
    /// # Errors
    /// Fails if an ICMP error came back instead.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Reply>> {
        let deadline = clock::boottime() + timeout;
        let mut buffer = vec![0; IPV4_HEADER_MAX + usize::from(u16::MAX)];
        loop {
            let (mut source, mut control) = (RawAddress::default(), ControlBuffer::default());
            match receive(self.as_fd(), &mut buffer, &mut source, &mut control) {
                Ok(outcome) => {
                    if let Some((sequence, payload_len)) = self.decode(&buffer[..outcome.len]) {
                        let ttl = control_messages(&control).find_map(|message| match message {
                            ControlMessage::HopLimit(ttl) => Some(ttl),
                            _ => None,
                        });
                        return Ok(Some(Reply { sequence, ttl, payload_len }));
                    }
                    // A reply to a different program.
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_until(deadline)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
            if clock::boottime() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Whether something can be read before the deadline.
    fn wait_until(&self, deadline: Duration) -> io::Result<bool> {
        let left = deadline.saturating_sub(clock::boottime());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The sequence number and the length of the payload, if this is a reply to us.
    fn decode(&self, message: &[u8]) -> Option<(u16, usize)> {
        let message =
            if self.is_raw && self.is_ipv4 { message.get(usize::from(message.first()? & 0xf) * 4..)? } else { message };
        let header: &[u8; HEADER_LEN] = message.first_chunk()?;
        let [kind, code, _, _, id_high, id_low, sequence_high, sequence_low] = *header;
        let is_ours = u16::from_be_bytes([id_high, id_low]) == self.identifier;
        (kind == self.reply_type() && code == 0 && is_ours)
            .then(|| (u16::from_be_bytes([sequence_high, sequence_low]), message.len() - HEADER_LEN))
    }

    fn request_type(&self) -> u8 {
        if self.is_ipv4 { 8 } else { 128 }
    }

    fn reply_type(&self) -> u8 {
        if self.is_ipv4 { 0 } else { 129 }
    }
}

impl AsFd for Ping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Opens the socket. Also returns whether it is a raw one.
fn open(is_ipv4: bool) -> io::Result<(OwnedFd, bool)> {
    let (domain, protocol) = match is_ipv4 {
        true => (AddressFamily::INET, ipproto::ICMP),
        false => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match socket_with(domain, SocketType::DGRAM, flags, Some(protocol)) {
        Ok(socket) => Ok((socket, false)),
        Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => {
            Ok((socket_with(domain, SocketType::RAW, flags, Some(protocol))?, true))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
