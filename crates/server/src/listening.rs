//! Listening for TCP connections, and the address under which others find it.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use crate::failure::{Kind, ServeError};

/// How long to wait after accepting failed, which happens while file descriptors are exhausted.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);
/// How many connections wait for us in the kernel. While one process takes the place of a different one, nobody accepts.
const BACKLOG: u32 = 4_096;

/// Accepts a connection, which `poll` asks a listener for. Accepting fails while file descriptors are exhausted, so it is
/// retried.
pub(crate) async fn accept<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> T {
    loop {
        match poll_fn(&mut poll).await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Listens. Nobody is accepted yet.
pub(crate) fn bind(purpose: &str, address: SocketAddr) -> Result<std::net::TcpListener, ServeError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    });
    bound.map_err(|error| ServeError::of_listening(purpose, address, &error))
}

/// What accepts from a socket, which others may hold, too, and the socket's address with its port.
pub(crate) fn acceptor(socket: &std::net::TcpListener) -> Result<(TcpListener, SocketAddr), ServeError> {
    let opened = socket.try_clone().and_then(|socket| {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    opened.map_err(|error| ServeError::new(Kind::Other, "cannot accept connections").with_cause(error))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_a_pause() {
        let (began, failures) = (Instant::now(), Cell::new(3));
        let poll = |_: &mut Context<'_>| match failures.get() {
            0 => Poll::Ready(Ok("a connection")),
            left => {
                failures.set(left - 1);
                Poll::Ready(Err(io::Error::other("too many open files")))
            }
        };
        assert_eq!(accept(poll).await, "a connection");
        assert_eq!(began.elapsed(), 3 * ACCEPT_RETRY);
    }
}
