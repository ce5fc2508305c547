//! UDP sockets that carry trains.
//!
//! A train is a sequence of datagrams of one length in one buffer. The kernel cuts it when sending (UDP_SEGMENT) and
//! joins datagrams that belong together when receiving (UDP_GRO), so a whole train costs one system call. If the kernel
//! cannot do that, the same calls work datagram by datagram.
//!
//! The sockets behave like WireGuard's. They do not set "don't fragment" unless a train asks for it. Answers leave from
//! the address that the peer sent to (sticky source). The two ECN bits are read and written. Marks keep our own
//! datagrams out of our own tunnel. A [`Watch`] shows what the kernel dropped because it was not read in time.

mod batch;
mod narrow;
mod receive;
mod send;
mod source;
mod waiting;
mod watch;

pub use receive::{ReceiveBatch, Received};
pub use send::{SendError, Transmit};
pub use waiting::Waiting;
pub use watch::{Buffers, Watch};

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    /// IPv6, not including IPv4-mapped addresses.
    V6,
}

/// Options for creating a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// The local port. With 0 the kernel chooses one.
    pub port: u16,
    /// SO_MARK, for policy routing. Needs CAP_NET_ADMIN.
    pub fwmark: Option<u32>,
    /// Size of the receive buffer in bytes. With CAP_NET_ADMIN it may exceed `net.core.rmem_max`. If it is too small,
    /// overload causes loss. If it is too large, overload causes delay.
    pub receive_buffer: usize,
    /// Size of the send buffer in bytes. With CAP_NET_ADMIN it may exceed `net.core.wmem_max`.
    pub send_buffer: usize,
    /// Whether to try UDP_SEGMENT (Linux 4.18).
    pub segmentation: bool,
    /// Whether to try UDP_GRO (Linux 5.0).
    pub coalescing: bool,
}

/// The reason why a socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A different socket uses the port.
    #[error("the port is in use")]
    PortInUse,
    /// The port or the mark needs a privilege.
    #[error("not permitted")]
    Permission,
    /// The kernel was built or started without this address family.
    #[error("the address family is not available")]
    FamilyUnavailable,
    /// Any other error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a socket has learned about sending. The socket writes it, and others read it.
#[derive(Debug, Default)]
struct Sending {
    /// Whether UDP_SEGMENT works, as far as is known.
    segmentation: AtomicBool,
    /// The number of trains that were sent datagram by datagram because the path was too narrow for them.
    narrow_trains: AtomicU64,
}

/// A UDP socket on one address, or on all addresses of one family. It never blocks.
#[derive(Debug)]
pub struct UdpSocket {
    /// Ours alone, except for the moment in which a [`Watch`] looks at it.
    socket: Arc<OwnedFd>,
    family: Family,
    local_port: u16,
    /// The state that a [`Watch`] sees.
    sending: Arc<Sending>,
    narrow: NarrowWays,
    /// Whether the socket currently sets DF. Changed only when a train wants the other setting: see [`Transmit`].
    dont_fragment: Cell<bool>,
    /// Boxed, so that a socket stays small enough to be moved around.
    sources: Box<Sources>,
    /// SO_MARK. 0 means no mark.
    mark: AtomicU32,
    /// Whether UDP_GRO was switched on.
    coalescing: bool,
}

impl UdpSocket {
    /// Binds a socket to a port on every address of `family`.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(family: Family, options: &BindOptions) -> Result<Self, BindError> {
        let any = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::bind_at(any, options)
    }

    /// Binds a socket to a port on one address, or on every address of its family if it is unspecified.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind_at(address: IpAddr, options: &BindOptions) -> Result<Self, BindError> {
        let (family, domain) = match address {
            IpAddr::V4(_) => (Family::V4, AddressFamily::INET),
            IpAddr::V6(_) => (Family::V6, AddressFamily::INET6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(domain, SocketType::DGRAM, flags, None).map_err(|errno| classify(errno.into()))?;
        configure(&socket, family).map_err(classify)?;
        size_buffers(&socket, options);
        set_mark(socket.as_fd(), options.fwmark).map_err(classify)?;
        bind(&socket, &SocketAddr::new(address, options.port)).map_err(|errno| classify(errno.into()))?;

        let local = SocketAddr::try_from(getsockname(&socket).map_err(io::Error::from)?).map_err(io::Error::from)?;
        let segmentation = options.segmentation && option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        // If this fails, every datagram is received separately.
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

    /// The local port.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The address family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the kernel joins received datagrams into trains.
    pub fn coalesces(&self) -> bool {
        self.coalescing
    }

    /// Sets the mark of everything sent from now on. `None` removes the mark.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN.
    pub fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        let mark = mark.unwrap_or(0);
        set_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
        self.mark.store(mark, Relaxed);
        Ok(())
    }

    /// Sets whether datagrams sent from now on have DF. This costs a system call only when the setting changes.
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

/// Sets the options that all our sockets have.
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

/// With `dont_fragment`, DF is always set, and datagrams that exceed the device's MTU fail, whatever path MTU the
/// kernel has learned. Without it, DF is never set, and the kernel fragments if it knows of a narrower path.
fn discover_mtu(socket: &OwnedFd, family: Family, dont_fragment: bool) -> io::Result<()> {
    match (family, dont_fragment) {
        (Family::V4, false) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?,
        (Family::V4, true) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?,
        (Family::V6, false) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?,
        (Family::V6, true) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    Ok(())
}

/// Sets the buffer sizes: as requested with CAP_NET_ADMIN, else as large as the administrator allows. Smaller buffers
/// are not an error.
fn size_buffers(socket: &OwnedFd, options: &BindOptions) {
    let _ = set_socket_recv_buffer_size_force(socket, options.receive_buffer)
        .or_else(|_| set_socket_recv_buffer_size(socket, options.receive_buffer));
    let _ = set_socket_send_buffer_size_force(socket, options.send_buffer)
        .or_else(|_| set_socket_send_buffer_size(socket, options.send_buffer));
}

fn set_mark(socket: BorrowedFd<'_>, mark: Option<u32>) -> io::Result<()> {
    match mark {
        // A socket has no mark unless one is set. Setting it needs a privilege even if the mark is 0.
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
