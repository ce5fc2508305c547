//! The simulator as a ground for the observations of the behaviour table.

use std::net::{IpAddr, SocketAddr};

use overlay_sim::nat::{Ground, Kind, Place};
use overlay_sim::{Realm, RouterId, Socket, World, seconds};

/// A world with one NAT, two hosts behind it, and two on the other side.
pub(crate) struct Simulated {
    pub(crate) world: World,
    router: RouterId,
    sockets: [Socket; 5],
}

impl Simulated {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut world = World::new(7);
        let router = world.routers_in(Realm::Internet, &kind.routers());
        let inside = world.socket_behind(router, kind.is_ipv6());
        let neighbour = world.socket_behind(router, kind.is_ipv6());
        let hosts: [SocketAddr; 2] = match kind.is_ipv6() {
            true => ["[2001:db8:1::1]:7000", "[2001:db8:1::2]:7000"],
            false => ["203.0.113.1:7000", "203.0.113.2:7000"],
        }
        .map(|address| address.parse().expect("an address"));
        let [peer, stranger] = hosts.map(|address| world.socket_at(address));
        let second = world.socket_with(peer);
        Self { world, router, sockets: [inside, neighbour, peer, second, stranger] }
    }

    fn socket(&self, place: Place) -> Socket {
        self.sockets[place as usize]
    }
}

impl Ground for Simulated {
    fn renew(&mut self) {
        self.world.forget_mappings(self.router);
        self.sockets = self.sockets.map(|socket| self.world.socket_with(socket));
    }

    fn address(&self, place: Place) -> SocketAddr {
        self.world.address(self.socket(place))
    }

    fn outside(&self) -> IpAddr {
        // A router that translates nothing has no outside address.
        self.world.public(self.router).first().copied().unwrap_or_else(|| self.address(Place::Inside).ip())
    }

    fn send(&mut self, from: Place, to: SocketAddr, ttl: u8) {
        self.world.post_with_ttl(self.socket(from), to, b"hello", ttl);
    }

    fn hear(&mut self, at: Place) -> Option<SocketAddr> {
        self.world.run_for(seconds(1));
        self.world.take_letters(self.socket(at)).first().map(|letter| letter.source)
    }
}
