//! A plain UDP socket on a host, which sends with any TTL.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt;

use super::{Host, inside};

/// The TTL of a datagram whose sender does not ask for less.
const TTL: u8 = 64;
/// Room for datagrams that wait for the test: a second at 100 Mb/s.
const RECEIVE_BUFFER: usize = 32 << 20;

/// A socket in a host's namespace.
#[derive(Debug)]
pub struct Plain {
    socket: UdpSocket,
}

/// A datagram that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its source, as the host sees it.
    pub source: SocketAddr,
    /// What it carries.
    pub contents: Vec<u8>,
}

impl Plain {
    /// Opens a socket on a host.
    #[track_caller]
    pub fn open(host: &Host, address: SocketAddr) -> Plain {
        let socket = inside(host, || UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|error| panic!("{address} on {}: {error}", host.name()));
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).expect("we are root");
        Plain { socket }
    }

    /// Its address and port, in the host's network.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Sends a datagram.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, contents: &[u8]) {
        self.send_with_ttl(to, contents, TTL);
    }

    /// Sends a datagram with this TTL.
    #[track_caller]
    pub fn send_with_ttl(&self, to: SocketAddr, contents: &[u8], ttl: u8) {
        let set = match to {
            SocketAddr::V4(_) => sockopt::set_ip_ttl(&self.socket, ttl.into()),
            SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&self.socket, Some(ttl)),
        };
        set.expect("a TTL");
        self.socket.send_to(contents, to).unwrap_or_else(|error| panic!("to {to}: {error}"));
    }

    /// Waits for the next datagram, for `limit` at most.
    #[track_caller]
    pub fn hear(&self, limit: Duration) -> Option<Heard> {
        let mut buffer = [0; 2_048];
        self.socket.set_read_timeout(Some(limit)).expect("it is not zero");
        match self.socket.recv_from(&mut buffer) {
            Ok((len, source)) => Some(Heard { source, contents: buffer[..len].to_vec() }),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{}: {error}", self.address()),
        }
    }
}
