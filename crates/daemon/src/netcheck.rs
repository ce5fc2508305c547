//! Asks STUN servers over real sockets what UDP is like here: `overlay_rendezvous::netcheck` with four sockets and a clock.
//!
//! The sockets are new ones, so the result is about this host and its NAT, and not about the mapping that a running daemon
//! has. Like every program, they follow the host's routes: where a tunnel carries the whole Internet, the result is about
//! the tunnel's far end.
//!
//! Names are resolved with getaddrinfo, all at once. The first address of each family is asked.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use overlay_rendezvous::netcheck::{
    Dropped, FamilyReport, Filtering, MAX_SERVERS, Mapping, Outcome, Report, Socket, Standing,
};
use overlay_rendezvous::netcheck::{Netcheck, Transmit};

/// How long names may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer datagrams are cut, and not read as STUN.
const BUFFER_LEN: usize = 2_048;

/// A server to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// A server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The server.
    pub server: Server,
    /// At most one address of each family.
    pub addresses: Vec<SocketAddr>,
    /// Why it has none.
    pub error: Option<String>,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What was found.
    pub report: Report,
    /// The servers, in the order in which they were given.
    pub servers: Vec<Asked>,
    /// What was dropped.
    pub dropped: Dropped,
}

/// Asks these servers. It takes up to twelve seconds, and up to five more for names.
///
/// # Errors
/// The system gives no random numbers, or a socket fails in a way that is not a network's.
pub async fn run(servers: &[Server]) -> io::Result<Checked> {
    let servers = resolved(servers).await;
    let addresses: Vec<_> = servers.iter().flat_map(|asked| asked.addresses.iter().copied()).collect();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let (sockets, began) = (Sockets::bind().await, Instant::now());
    let mut check = Netcheck::new(&addresses, seed, Duration::ZERO);
    let mut buffers = [[0; BUFFER_LEN]; 4];
    loop {
        while let Some(transmit) = check.poll_transmit(began.elapsed()) {
            if sockets.send(&transmit).await.is_err() {
                check.on_unreachable(transmit.socket, transmit.to);
            }
        }
        let Some(deadline) = check.poll_timeout() else { break };
        tokio::select! {
            (socket, from, datagram) = sockets.receive(&mut buffers) => {
                check.handle_datagram(socket, from, datagram, began.elapsed());
            }
            () = tokio::time::sleep_until(began + deadline) => check.handle_timeout(began.elapsed()),
        }
    }
    Ok(Checked { report: check.report(), servers, dropped: check.dropped() })
}

async fn resolved(servers: &[Server]) -> Vec<Asked> {
    let mut lookups = JoinSet::new();
    for (at, server) in servers.iter().take(MAX_SERVERS).cloned().enumerate() {
        lookups.spawn(async move {
            let lookup = tokio::time::timeout(PATIENCE, lookup_host((server.host.as_str(), server.port))).await;
            let found = lookup.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let found = found.map(Iterator::collect::<Vec<_>>);
            (at, asked(server, found))
        });
    }
    let mut servers: Vec<_> = lookups.join_all().await;
    servers.sort_by_key(|(at, _)| *at);
    servers.into_iter().map(|(_, asked)| asked).collect()
}

fn asked(server: Server, found: io::Result<Vec<SocketAddr>>) -> Asked {
    match found {
        Ok(found) => {
            let first = |is_v4: bool| found.iter().copied().find(|address| address.is_ipv4() == is_v4);
            let addresses: Vec<_> = [first(true), first(false)].into_iter().flatten().collect();
            let error = addresses.is_empty().then(|| "it has no address".to_owned());
            Asked { server, addresses, error }
        }
        Err(error) => Asked { server, addresses: Vec::new(), error: Some(error.to_string()) },
    }
}

/// Two sockets of each family that this host has.
struct Sockets {
    v4: [Option<UdpSocket>; 2],
    v6: [Option<UdpSocket>; 2],
}

impl Sockets {
    async fn bind() -> Self {
        let v4 = || async { UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok() };
        let v6 = || async { UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok() };
        Self { v4: [v4().await, v4().await], v6: [v6().await, v6().await] }
    }

    async fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let family = if transmit.to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = family[transmit.socket as usize].as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(&transmit.contents, transmit.to).await?;
        Ok(())
    }

    /// The next datagram, and the socket that it came to.
    async fn receive<'a>(&self, buffers: &'a mut [[u8; BUFFER_LEN]; 4]) -> (Socket, SocketAddr, &'a [u8]) {
        let [one, two, three, four] = buffers;
        tokio::select! {
            (from, datagram) = next(self.v4[0].as_ref(), one) => (Socket::Mapping, from, datagram),
            (from, datagram) = next(self.v4[1].as_ref(), two) => (Socket::Filtering, from, datagram),
            (from, datagram) = next(self.v6[0].as_ref(), three) => (Socket::Mapping, from, datagram),
            (from, datagram) = next(self.v6[1].as_ref(), four) => (Socket::Filtering, from, datagram),
        }
    }
}

/// The next datagram of this socket. An error is one that an earlier datagram has met, and says nothing about the next.
async fn next<'a>(socket: Option<&UdpSocket>, buffer: &'a mut [u8; BUFFER_LEN]) -> (SocketAddr, &'a [u8]) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        if let Ok((len, from)) = socket.recv_from(buffer).await {
            return (from, &buffer[..len]);
        }
    }
}
