//! The plain UDP sockets of a world: programs that are not nodes. They send what a test says and keep what they receive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::network::Parcel;
use super::{MAX_TTL, World};
use crate::host::HostId;
use crate::nat::Translation;
use crate::place::{Letter, Party, Realm, RouterId, Socket};

/// The port of the first plain socket. Each further one has the next port.
const FIRST_PORT: u16 = 20_000;
/// How long [`World::reflexive`] waits for its datagram.
const REFLEXIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A plain socket of a world.
pub(super) struct PlainSocket {
    pub(super) realm: Realm,
    pub(super) address: SocketAddr,
    /// The host or relay that it is on, and whose links it uses.
    on: Option<Party>,
    letters: Vec<Letter>,
}

impl PlainSocket {
    /// Whose links it uses.
    pub(super) fn party(&self, own: Socket) -> Party {
        self.on.unwrap_or(Party::Socket(own))
    }
}

impl World {
    /// Adds a plain socket on the Internet at an address that belongs to nobody yet.
    pub fn socket_at(&mut self, address: SocketAddr) -> Socket {
        self.add_socket(Realm::Internet, address, None)
    }

    /// Adds a plain socket behind a router, on a machine of its own.
    pub fn socket_behind(&mut self, router: RouterId, is_ipv6: bool) -> Socket {
        let address = match self.routers[router.0].behaviour.translation {
            Translation::Nothing => {
                self.numbered += 1;
                let number = self.numbered;
                if is_ipv6 {
                    IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()))
                } else {
                    IpAddr::from(Ipv4Addr::new(192, 0, 2, number))
                }
            }
            Translation::Address | Translation::AddressAndPort => self.inside_address(router, is_ipv6),
        };
        self.routers[router.0].nat.on_host(address);
        self.socket_beside(Realm::Behind(router), address)
    }

    /// Adds a plain socket on the machine of a different one.
    pub fn socket_with(&mut self, socket: Socket) -> Socket {
        let PlainSocket { realm, address, .. } = self.sockets[socket.0];
        self.socket_beside(realm, address.ip())
    }

    /// Adds a plain socket on a host, beside its node.
    pub fn socket_on(&mut self, host: HostId, is_ipv6: bool) -> Socket {
        let beside = &self.hosts[host.0];
        let outer = beside.outer.iter().find(|address| address.is_ipv6() == is_ipv6);
        let address = outer.expect("the host has an address of that family").ip();
        let realm = beside.realms[usize::from(is_ipv6)];
        let socket = self.socket_beside(realm, address);
        self.sockets[socket.0].on = Some(host.into());
        socket
    }

    /// The address and port of a plain socket, in its own network.
    pub fn address(&self, socket: Socket) -> SocketAddr {
        self.sockets[socket.0].address
    }

    /// Sends a datagram from a plain socket.
    pub fn post(&mut self, socket: Socket, destination: SocketAddr, bytes: &[u8]) {
        self.post_with_ttl(socket, destination, bytes, MAX_TTL);
    }

    /// Sends a datagram with this TTL from a plain socket.
    pub fn post_with_ttl(&mut self, socket: Socket, destination: SocketAddr, bytes: &[u8], ttl: u8) {
        let PlainSocket { realm, address: source, .. } = self.sockets[socket.0];
        let party = self.sockets[socket.0].party(socket);
        let parcel = Parcel { realm, source, destination, ttl };
        self.dispatch(party, parcel, 0, false, bytes);
    }

    /// Sends a datagram from the outer socket of a host's node, and runs the world until it arrives at `server`. Returns
    /// the host's server-reflexive address. `None` if nothing arrives for a second.
    pub fn reflexive(&mut self, host: HostId, server: Socket) -> Option<SocketAddr> {
        let destination = self.address(server);
        let sender = &self.hosts[host.0];
        let source = *sender.outer.iter().find(|address| address.is_ipv4() == destination.is_ipv4())?;
        let parcel = Parcel { realm: sender.realm(source), source, destination, ttl: MAX_TTL };
        let before = self.sockets[server.0].letters.len();
        self.dispatch(host.into(), parcel, 0, false, b"?");
        self.run_until(REFLEXIVE_TIMEOUT, |world| world.sockets[server.0].letters.len() > before);
        self.sockets[server.0].letters.drain(before..).next().map(|letter| letter.source)
    }

    /// Takes what a plain socket has received, oldest first.
    pub fn take_letters(&mut self, socket: Socket) -> Vec<Letter> {
        std::mem::take(&mut self.sockets[socket.0].letters)
    }

    fn socket_beside(&mut self, realm: Realm, address: IpAddr) -> Socket {
        let number = u16::try_from(self.sockets.len()).expect("a world has few sockets");
        self.add_socket(realm, SocketAddr::new(address, FIRST_PORT + number), None)
    }

    pub(super) fn add_socket(&mut self, realm: Realm, address: SocketAddr, on: Option<Party>) -> Socket {
        self.sockets.push(PlainSocket { realm, address, on, letters: Vec::new() });
        Socket(self.sockets.len() - 1)
    }

    /// Gives a train to the plain socket that has its destination. False if nobody has it.
    pub(super) fn give_to_socket(&mut self, parcel: &Parcel, datagrams: &[Vec<u8>]) -> bool {
        let is_it = |socket: &&mut PlainSocket| socket.realm == parcel.realm && socket.address == parcel.destination;
        let Some(socket) = self.sockets.iter_mut().find(is_it) else { return false };
        let letter = |bytes: &Vec<u8>| Letter { source: parcel.source, bytes: bytes.clone() };
        socket.letters.extend(datagrams.iter().map(letter));
        true
    }
}
