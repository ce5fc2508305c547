//! The sockets of a relay: one address, or all of them, which takes a socket for each family.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use overlay_os::udp::{BindError, BindOptions, Family, UdpSocket};

use crate::failure::{Kind, ServeError};

/// The size of the receive buffer in bytes: 20 ms at 1.6 Gb/s. The kernel may give less.
const RECEIVE_BUFFER: usize = 4 * 1_024 * 1_024;
/// The size of the send buffer in bytes. The kernel doubles it, and then has room for about three full trains: enough for
/// 10 Gb/s if a network card takes 0.1 ms to send. What is in it is in no queue of ours, so it decides over the delay of a
/// slow link, and who is dropped there.
const SEND_BUFFER: usize = 128 * 1_024;

/// Open sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) sockets: Vec<UdpSocket>,
    /// As asked for, with the port.
    pub(super) address: SocketAddr,
}

impl Sockets {
    /// Opens them. `[::]` means IPv4, too, as it does for TCP, if the host has it.
    pub(super) fn open(listen: SocketAddr) -> Result<Self, ServeError> {
        let first = bind(listen)?;
        let address = SocketAddr::new(listen.ip(), first.local_port());
        let mut sockets = vec![first];
        if listen.is_ipv6() && listen.ip().is_unspecified() {
            let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            match try_bind(all) {
                Ok(second) => sockets.push(second),
                Err(BindError::FamilyUnavailable) => {}
                Err(error) => return Err(cannot(all, &error)),
            }
        }
        Ok(Self { sockets, address })
    }
}

/// Whether datagrams to this address leave from this socket.
pub(super) fn is_of(socket: &UdpSocket, to: SocketAddr) -> bool {
    (socket.family() == Family::V4) == to.is_ipv4()
}

fn bind(listen: SocketAddr) -> Result<UdpSocket, ServeError> {
    try_bind(listen).map_err(|error| cannot(listen, &error))
}

fn try_bind(listen: SocketAddr) -> Result<UdpSocket, BindError> {
    let options = BindOptions {
        port: listen.port(),
        fwmark: None,
        receive_buffer: RECEIVE_BUFFER,
        send_buffer: SEND_BUFFER,
        segmentation: true,
        coalescing: true,
    };
    let ip: IpAddr = listen.ip();
    UdpSocket::bind_at(ip, &options)
}

fn cannot(listen: SocketAddr, error: &BindError) -> ServeError {
    let kind = match error {
        BindError::PortInUse => Kind::Conflict,
        BindError::Permission => Kind::Permission,
        BindError::FamilyUnavailable | BindError::Io(_) => Kind::Other,
    };
    ServeError::new(kind, format!("cannot relay on UDP {listen}")).with_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(listen: &str) -> Result<Sockets, ServeError> {
        Sockets::open(listen.parse().expect("an address"))
    }

    #[test]
    fn all_addresses_of_ipv6_are_those_of_ipv4_too() {
        let families = |sockets: &Sockets| sockets.sockets.iter().map(UdpSocket::family).collect::<Vec<_>>();
        let four = open("127.0.0.1:0").expect("a free port");
        assert_eq!(families(&four), [Family::V4]);
        let both = open("[::]:0").expect("a free port");
        assert_eq!(families(&both), [Family::V6, Family::V4]);
        assert!(both.sockets.iter().all(|socket| socket.local_port() == both.address.port()));
        let to = |text: &str| both.sockets.iter().position(|it| is_of(it, text.parse().expect("an address")));
        assert_eq!((to("[2001:db8::1]:7"), to("192.0.2.1:7")), (Some(0), Some(1)));
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = open("127.0.0.1:0").expect("a free port");
        let error = open(&first.address.to_string()).expect_err("it is taken");
        assert_eq!(error.kind, Kind::Conflict);
        assert_eq!(error.error, format!("cannot relay on UDP {}", first.address));
    }
}
