//! UDP sockets that carry trains.
//!
//! A train is many datagrams of one length in one buffer: the kernel cuts it on the way out (UDP_SEGMENT) and joins what
//! belongs together on the way in (UDP_GRO), and the cost of a system call is paid once. Where the kernel cannot, the
//! same calls work datagram by datagram.
//!
//! The sockets behave as WireGuard's: they do not set "don't fragment" unless a train asks for it, answers leave from the
//! address that was asked (sticky source), the two ECN bits are read and written, and marks keep our own datagrams out of
//! our own tunnel. What the kernel drops because nobody read in time is seen through a [`Watch`].

mod batch;
mod narrow;
mod receive;
mod send;
mod source;
mod watch;

pub use receive::{ReceiveBatch, Received};
pub use send::{SendError, Transmit};
pub use watch::{Buffers, Watch};

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover, set_ipv6_v6only,
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use self::narrow::NarrowWays;
use self::source::Sources;
use crate::socket::{option, set_option};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and not IPv4 mapped into it.
    V6,
}

/// How a socket is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// The local port; 0 lets the kernel choose.
    pub port: u16,
    /// SO_MARK, for policy routing; needs CAP_NET_ADMIN.
    pub fwmark: Option<u32>,
    /// Bytes that the kernel keeps for us until they are read, past `net.core.rmem_max` with CAP_NET_ADMIN. Too few, and
    /// overload shows as loss; too many, and as delay.
    pub receive_buffer: usize,
    /// Bytes that the kernel keeps until they are sent, past `net.core.wmem_max` with CAP_NET_ADMIN.
    pub send_buffer: usize,
    /// Try UDP_SEGMENT (Linux 4.18).
    pub segmentation: bool,
    /// Try UDP_GRO (Linux 5.0).
    pub coalescing: bool,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error("the port is in use")]
    PortInUse,
    /// A port or a mark that needs a privilege.
    #[error("not permitted")]
    Permission,
    /// The kernel was built or started without this family.
    #[error("the address family is not available")]
    FamilyUnavailable,
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How a socket sends, as it has turned out. The socket writes it, others read it.
#[derive(Debug, Default)]
struct Sending {
    /// UDP_SEGMENT works as far as is known.
    segmentation: AtomicBool,
    /// Trains that went datagram by datagram because their way is too narrow for them.
    narrow_trains: AtomicU64,
}

/// A UDP socket on every address of one family. Never waits.
#[derive(Debug)]
pub struct UdpSocket {
    /// Ours alone but for the moment in which a [`Watch`] looks at it.
    socket: Arc<OwnedFd>,
    family: Family,
    local_port: u16,
    /// What a [`Watch`] sees of the way it sends.
    sending: Arc<Sending>,
    narrow: NarrowWays,
    /// What it sends now may not be fragmented. Changed only when a train wants the other: see [`Transmit`].
    dont_fragment: Cell<bool>,
    /// By itself, so that a socket stays small enough to be handed around.
    sources: Box<Sources>,
    /// SO_MARK.
    mark: AtomicU32,
    /// UDP_GRO was switched on.
    coalescing: bool,
}

impl UdpSocket {
    /// Binds a socket to a port on every address of `family`.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(family: Family, options: &BindOptions) -> Result<Self, BindError> {
        let (domain, any): (_, SocketAddr) = match family {
            Family::V4 => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, options.port).into()),
            Family::V6 => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, options.port).into()),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(domain, SocketType::DGRAM, flags, None).map_err(|errno| classify(errno.into()))?;
        configure(&socket, family).map_err(classify)?;
        size_buffers(&socket, options);
        set_mark(socket.as_fd(), options.fwmark).map_err(classify)?;
        bind(&socket, &any).map_err(|errno| classify(errno.into()))?;

        let local = SocketAddr::try_from(getsockname(&socket).map_err(io::Error::from)?).map_err(io::Error::from)?;
        let segmentation = options.segmentation && option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        // Without it every datagram comes by itself.
        let coalescing = options.coalescing && set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let sending = Arc::new(Sending { segmentation: AtomicBool::new(segmentation), ..Sending::default() });
        Ok(Self {
            socket: Arc::new(socket),
            family,
            local_port: local.port(),
            sending,
            narrow: NarrowWays::default(),
            dont_fragment: Cell::new(false),
            sources: Box::new(Sources::new(local.port())),
            mark: AtomicU32::new(options.fwmark.unwrap_or(0)),
            coalescing,
        })
    }

    /// The port it is bound to.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// Its address family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the kernel joins datagrams into trains on the way in.
    pub fn coalesces(&self) -> bool {
        self.coalescing
    }

    /// Marks what is sent from now on; `None` takes the mark away.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN.
    pub fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        let mark = mark.unwrap_or(0);
        set_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
        self.mark.store(mark, Relaxed);
        Ok(())
    }

    /// Whether what is sent from now on may be fragmented. A system call only where that changes.
    fn set_dont_fragment(&self, dont_fragment: bool) -> io::Result<()> {
        if self.dont_fragment.get() != dont_fragment {
            discover_mtu(&self.socket, self.family, dont_fragment)?;
            self.dont_fragment.set(dont_fragment);
        }
        Ok(())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What every socket of ours has.
fn configure(socket: &OwnedFd, family: Family) -> io::Result<()> {
    let fd = socket.as_fd();
    discover_mtu(socket, family, false)?;
    match family {
        Family::V4 => {
            set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        Family::V6 => {
            set_ipv6_v6only(socket, true)?;
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        }
    }
    Ok(())
}

/// Either never DF, and fragments where the kernel knows of a narrower path; or always DF, and an error for what the
/// device does not carry, whatever anybody has told the kernel of the path.
fn discover_mtu(socket: &OwnedFd, family: Family, dont_fragment: bool) -> io::Result<()> {
    match (family, dont_fragment) {
        (Family::V4, false) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?,
        (Family::V4, true) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?,
        (Family::V6, false) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?,
        (Family::V6, true) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    Ok(())
}

/// As large as asked for with CAP_NET_ADMIN, otherwise as large as the administrator allows. Small buffers are no error.
fn size_buffers(socket: &OwnedFd, options: &BindOptions) {
    let _ = set_socket_recv_buffer_size_force(socket, options.receive_buffer)
        .or_else(|_| set_socket_recv_buffer_size(socket, options.receive_buffer));
    let _ = set_socket_send_buffer_size_force(socket, options.send_buffer)
        .or_else(|_| set_socket_send_buffer_size(socket, options.send_buffer));
}

fn set_mark(socket: BorrowedFd<'_>, mark: Option<u32>) -> io::Result<()> {
    match mark {
        // A socket has no mark unless one is set, and setting even none needs a privilege.
        None => Ok(()),
        Some(mark) => set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark as i32),
    }
}

fn classify(error: io::Error) -> BindError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::PortInUse,
        Some(libc::EACCES | libc::EPERM) => BindError::Permission,
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => BindError::FamilyUnavailable,
        _ => BindError::Io(error),
    }
}

#[cfg(test)]
mod tests;
