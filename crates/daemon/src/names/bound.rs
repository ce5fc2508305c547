//! The sockets on port 53 of our virtual IPs. The daemon opens them, since only it has the right to; the process that answers
//! gets copies.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// The port of the DNS.
const PORT: u16 = 53;

/// The sockets that are open, and why others are not.
#[derive(Debug, Default)]
pub(super) struct Bound {
    open: BTreeMap<IpAddr, (UdpSocket, TcpListener)>,
    failed: BTreeMap<IpAddr, io::Error>,
}

impl Bound {
    /// Opens sockets on these addresses and closes those of others. Returns the addresses that are new.
    pub(super) fn follow(&mut self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        self.open.retain(|address, _| addresses.contains(address));
        self.failed.clear();
        let mut new = Vec::new();
        for address in addresses {
            if self.open.contains_key(address) {
                continue;
            }
            match open(*address) {
                Ok(sockets) => {
                    self.open.insert(*address, sockets);
                    new.push(*address);
                }
                Err(error) => {
                    self.failed.insert(*address, error);
                }
            }
        }
        new
    }

    /// The addresses that are served.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.open.keys().copied()
    }

    /// The addresses that cannot be served, each with the reason.
    pub(super) fn failed(&self) -> impl Iterator<Item = (&IpAddr, &io::Error)> {
        self.failed.iter()
    }

    /// Copies of the sockets of an address: UDP, then TCP.
    pub(super) fn copies(&self, address: IpAddr) -> io::Result<Option<[OwnedFd; 2]>> {
        let Some((udp, tcp)) = self.open.get(&address) else { return Ok(None) };
        Ok(Some([udp.try_clone()?.into(), tcp.try_clone()?.into()]))
    }
}

fn open(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let address = SocketAddr::new(address, PORT);
    Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
}
