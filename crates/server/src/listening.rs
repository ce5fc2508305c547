//! Listening for TCP connections, and the address under which others find it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::failure::ServeError;

/// How long to wait after accepting failed, which happens while file descriptors are exhausted.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// Accepts a connection. Accepting fails while file descriptors are exhausted, so it is retried.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Listens, and returns also the address with its port.
pub(crate) async fn listen(purpose: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |error| ServeError::of_listening(purpose, address, &error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// The address that agents are told. If we listen on all addresses, it is the one that packets to the Internet leave from.
pub(crate) fn shown_address(listen: IpAddr) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // Connecting a UDP socket sends nothing. The destinations are those of documentation (RFC 5737, RFC 3849).
    let source = |own: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = || source(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = || source(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    match listen {
        IpAddr::V4(_) => v4().unwrap_or(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => v4().or_else(v6).unwrap_or(Ipv6Addr::LOCALHOST.into()),
    }
}
