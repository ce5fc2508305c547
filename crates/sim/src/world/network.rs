//! The way of a datagram through routers.
//!
//! It goes up, from the network of its sender through one router after the other, until it is in a network that has its
//! destination. There it crosses a link, and at its arrival it goes down through the routers of the other side. Each router
//! takes one from the TTL, and on the Internet so do the routers of [`Link::hops`](crate::Link::hops).

use std::net::{IpAddr, SocketAddr};

use super::World;
use super::routers::Router;
use crate::host::HostId;
use crate::link::Fate;
use crate::nat::Refusal;
use crate::place::{Party, Realm, RouterId, Socket};
use crate::record::Dropped;

/// A datagram on its way up.
pub(super) struct Parcel {
    pub(super) realm: Realm,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) ttl: u8,
}

/// What became of a datagram on its way up.
pub(super) enum Ascent {
    /// It crosses a link.
    Crosses {
        /// Whose link. Unknown where nobody has the address.
        to: Option<Party>,
        parcel: Parcel,
        /// Whether it passes the routers of the Internet.
        is_far: bool,
    },
    /// A router dropped it.
    Dropped,
}

/// A datagram that has left.
#[derive(Default)]
pub(super) struct Crossing {
    /// Whose link it crossed. Unknown if a router dropped it, or if nobody has the address.
    pub(super) to: Option<Party>,
    /// Its source on that link. `None` if a router dropped it.
    pub(super) outside: Option<SocketAddr>,
    pub(super) fate: Fate,
}

impl World {
    /// Takes a datagram up to the network of its destination.
    pub(super) fn ascend(&mut self, mut parcel: Parcel) -> Ascent {
        let mut is_turned = false;
        loop {
            let to = self.party_at(parcel.realm, parcel.destination);
            let router = self.router_for(parcel.realm, parcel.destination.ip());
            if to.is_some() || router.is_some() {
                let to = to.or_else(|| router.and_then(|router| self.party_behind(router, parcel.destination)));
                let is_far = parcel.realm == Realm::Internet && !is_turned;
                return Ascent::Crosses { to, parcel, is_far };
            }
            let Realm::Behind(id) = parcel.realm else { return Ascent::Crosses { to: None, parcel, is_far: true } };
            let (now, router) = (self.now, &mut self.routers[id.0]);
            let passed = match parcel.ttl {
                0 | 1 => {
                    router.nat.on_expiring(parcel.source, parcel.destination, now);
                    Err(Refusal::TtlExceeded)
                }
                _ => router.nat.outbound(parcel.source, parcel.destination, now, &mut self.rng),
            };
            match passed {
                Ok(source) => {
                    is_turned |= router.nat.answers_for(parcel.destination.ip());
                    parcel = Parcel { realm: router.parent, source, ttl: parcel.ttl - 1, ..parcel };
                }
                Err(refusal) => {
                    self.refuse(id, &parcel, refusal);
                    return Ascent::Dropped;
                }
            }
        }
    }

    /// Takes a train that has crossed its link down to the network of its receiver. `None` if a router dropped it.
    pub(super) fn descend(&mut self, mut parcel: Parcel) -> Option<Parcel> {
        while let Some(id) = self.router_for(parcel.realm, parcel.destination.ip()) {
            let (now, router) = (self.now, &mut self.routers[id.0]);
            let passed = router
                .nat
                .inbound(parcel.source, parcel.destination, now)
                .and_then(|inside| if parcel.ttl > 1 { Ok(inside) } else { Err(Refusal::TtlExceeded) });
            match passed {
                Ok(destination) => {
                    parcel = Parcel { realm: Realm::Behind(id), destination, ttl: parcel.ttl - 1, ..parcel };
                }
                Err(refusal) => {
                    self.refuse(id, &parcel, refusal);
                    return None;
                }
            }
        }
        Some(parcel)
    }

    /// Notes that a router drops a datagram.
    fn refuse(&mut self, router: RouterId, parcel: &Parcel, refusal: Refusal) {
        let Parcel { source, destination, .. } = *parcel;
        self.routers[router.0].nat.refuse(refusal);
        self.dropped.push(Dropped { at: self.now, router, source, destination, refusal });
    }

    /// The host or plain socket that has this address and port in a network.
    fn party_at(&self, realm: Realm, address: SocketAddr) -> Option<Party> {
        let socket = self.sockets.iter().position(|socket| socket.realm == realm && socket.address == address);
        let party = socket.map(|index| self.sockets[index].party(Socket(index)));
        self.owner(realm, address).map(Party::Host).or(party)
    }

    /// The router of a network that takes datagrams to this address.
    fn router_for(&self, realm: Realm, address: IpAddr) -> Option<RouterId> {
        let is_it = |router: &Router| router.parent == realm && router.nat.answers_for(address);
        self.routers.iter().position(is_it).map(RouterId)
    }

    /// Whose link leads to a router: the party that the address is mapped to, or else the first one behind it.
    fn party_behind(&self, router: RouterId, destination: SocketAddr) -> Option<Party> {
        let realm = Realm::Behind(router);
        let mapped = self.routers[router.0].nat.inside_of(destination).and_then(|inside| {
            let further = self.router_for(realm, inside.ip());
            self.party_at(realm, inside).or_else(|| further.and_then(|router| self.party_behind(router, inside)))
        });
        let hosts = self.hosts.iter().position(|host| host.realms.iter().any(|realm| self.is_inside(*realm, router)));
        let socket = self.sockets.iter().position(|socket| self.is_inside(socket.realm, router));
        let first = hosts.map(|host| Party::Host(HostId(host))).or(socket.map(|index| Party::Socket(Socket(index))));
        mapped.or(first)
    }

    /// Whether a network is behind this router, however far.
    fn is_inside(&self, realm: Realm, router: RouterId) -> bool {
        match realm {
            Realm::Internet => false,
            Realm::Behind(id) => id == router || self.is_inside(self.routers[id.0].parent, router),
        }
    }

    /// Sends a datagram on its way. Returns what became of it.
    pub(super) fn dispatch(
        &mut self,
        from: Party,
        parcel: Parcel,
        traffic_class: u8,
        dont_fragment: bool,
        bytes: &[u8],
    ) -> Crossing {
        let Ascent::Crosses { to, mut parcel, is_far } = self.ascend(parcel) else { return Crossing::default() };
        if is_far {
            let hops = to.map_or(self.default_link.hops, |to| self.line(from, to).link.hops);
            if parcel.ttl <= hops {
                return Crossing { to, outside: Some(parcel.source), fate: Fate::default() };
            }
            parcel.ttl -= hops;
        }
        let fate = match to {
            Some(to) => {
                let (now, is_ipv4, mut rng) = (self.now, parcel.destination.is_ipv4(), self.rng.clone());
                let fate = self.line(from, to).carry(bytes.len(), is_ipv4, dont_fragment, now, &mut rng);
                self.rng = rng;
                fate
            }
            None => Fate { arrivals: vec![self.now], flipped: None },
        };
        let source = parcel.source;
        let mut carried = bytes.to_vec();
        if let Some(bit) = fate.flipped {
            carried[bit / 8] ^= 1 << (bit % 8);
        }
        self.fly(&parcel, traffic_class, &carried, &fate.arrivals);
        Crossing { to, outside: Some(source), fate }
    }
}
