//! Datagrams to a multicast group on one link, and from it.
//!
//! A socket for each family receives what is sent to the group on the links that have joined. One socket for each datagram sends:
//! the kernel takes the link of its source address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::net::sockopt::{set_ip_multicast_loop, set_ipv6_multicast_loop, set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Binds a socket to this port, on which several programs of the host may listen to groups. It does not block.
///
/// # Errors
/// A program uses the port alone, or the host does not have the family.
pub fn listen(is_ipv4: bool, port: u16) -> io::Result<UdpSocket> {
    let (family, any) = match is_ipv4 {
        true => (AddressFamily::INET, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        false => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if !is_ipv4 {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(any, port))?;
    Ok(socket.into())
}

/// Joins a group on the link with this address and index. A link that has joined already stays as it is.
///
/// # Errors
/// The link is gone, or has joined too many groups.
pub fn join(socket: &UdpSocket, group: IpAddr, link: (IpAddr, u32)) -> io::Result<()> {
    let joined = match (group, link.0) {
        (IpAddr::V4(group), IpAddr::V4(address)) => socket.join_multicast_v4(&group, &address),
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, link.1),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    match joined {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        joined => joined,
    }
}

/// Sends a datagram to a group on the link with this address and index. No router forwards it.
///
/// # Errors
/// The address is gone, or the link is down.
pub fn send(datagram: &[u8], group: SocketAddr, link: (IpAddr, u32)) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(link.0, 0))?;
    // The default of both families is one hop. What is sent comes back to other programs of this host, too.
    let to = match group {
        SocketAddr::V4(_) => {
            set_ip_multicast_loop(&socket, true)?;
            group
        }
        SocketAddr::V6(group) => {
            set_ipv6_multicast_loop(&socket, true)?;
            SocketAddrV6::new(*group.ip(), group.port(), 0, link.1).into()
        }
    };
    socket.send_to(datagram, to).map(|_| ())
}
