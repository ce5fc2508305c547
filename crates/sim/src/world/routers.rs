//! The routers of a world, and who lives behind them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::World;
use crate::host::HostId;
use crate::nat::{Behaviour, Kind, Nat, Refusal, Translation};
use crate::place::{Realm, RouterId};

/// A router of a world.
pub(super) struct Router {
    pub(super) nat: Nat,
    pub(super) parent: Realm,
    pub(super) behaviour: Behaviour,
    /// How many hosts and sockets have an address of its inside network.
    inhabitants: u8,
}

impl World {
    /// Adds a router of this kind to the Internet. Where the kind has several routers, this is the innermost one.
    pub fn router(&mut self, kind: Kind) -> RouterId {
        self.routers_in(Realm::Internet, &kind.routers())
    }

    /// Adds a router of this kind behind a different one.
    pub fn router_behind(&mut self, outer: RouterId, kind: Kind) -> RouterId {
        self.routers_in(Realm::Behind(outer), &kind.routers())
    }

    /// Adds routers that behave like this, the innermost first, and returns the innermost.
    pub fn routers_in(&mut self, realm: Realm, chain: &[Behaviour]) -> RouterId {
        let mut parent = realm;
        for behaviour in chain.iter().rev() {
            let id = RouterId(self.routers.len());
            let external = self.outside_addresses(parent, behaviour);
            if let Realm::Behind(outer) = parent {
                external.iter().for_each(|address| self.routers[outer.0].nat.on_host(*address));
            }
            let nat = Nat::new(*behaviour, external);
            self.routers.push(Router { nat, parent, behaviour: *behaviour, inhabitants: 0 });
            parent = Realm::Behind(id);
        }
        let Realm::Behind(innermost) = parent else { panic!("a chain has a router") };
        innermost
    }

    /// Moves a host behind a router. Its address of the other family, if it has one, stays where it is. Datagrams in
    /// flight to its former address are lost. The router gives it a new address unless it translates nothing.
    pub fn settle(&mut self, host: HostId, router: RouterId, is_ipv6: bool) {
        let outer = self.hosts[host.0].outer.clone();
        let former = outer.iter().find(|address| address.is_ipv6() == is_ipv6).copied();
        let former = former.expect("the host has an address of that family");
        if let Realm::Behind(left) = self.hosts[host.0].realm(former) {
            self.routers[left.0].nat.on_departure(former.ip());
        }
        let address = match self.routers[router.0].behaviour.translation {
            Translation::Nothing => former.ip(),
            Translation::Address | Translation::AddressAndPort => self.inside_address(router, is_ipv6),
        };
        self.routers[router.0].nat.on_host(address);
        let settled = &mut self.hosts[host.0];
        settled.realms[usize::from(is_ipv6)] = Realm::Behind(router);
        settled.outer.iter_mut().filter(|address| address.is_ipv6() == is_ipv6).for_each(|it| it.set_ip(address));
        self.on_addresses(host);
    }

    /// Puts a host behind new routers of this kind, and returns the innermost. Only its address of the kind's family moves.
    pub fn put_behind(&mut self, host: HostId, kind: Kind) -> RouterId {
        let router = self.router(kind);
        self.settle(host, router, kind.is_ipv6());
        router
    }

    /// Moves a host back to the Internet, to these addresses.
    pub fn unsettle(&mut self, host: HostId, outer: &[&str]) {
        let former = std::mem::take(&mut self.hosts[host.0].outer);
        for address in former {
            if let Realm::Behind(left) = self.hosts[host.0].realm(address) {
                self.routers[left.0].nat.on_departure(address.ip());
            }
        }
        self.hosts[host.0].realms = [Realm::Internet; 2];
        self.roam(host, outer);
    }

    /// The outside addresses of a router on the Internet, or of the outermost one in front of it. Empty if nothing is
    /// translated there.
    pub fn public(&self, router: RouterId) -> &[IpAddr] {
        match self.routers[router.0].parent {
            Realm::Internet => self.routers[router.0].nat.external(),
            Realm::Behind(outer) => self.public(outer),
        }
    }

    /// A router and those in front of it lose all mappings, as after a restart.
    pub fn forget_mappings(&mut self, router: RouterId) {
        self.routers[router.0].nat.on_restart();
        if let Realm::Behind(outer) = self.routers[router.0].parent {
            self.forget_mappings(outer);
        }
    }

    /// A router gets these outside addresses and loses all mappings.
    pub fn renumber(&mut self, router: RouterId, external: &[&str]) {
        let external = external.iter().map(|address| address.parse().expect("an address")).collect();
        self.routers[router.0].nat.on_addresses(external);
    }

    /// What a router has dropped so far.
    pub fn refusals(&self, router: RouterId) -> &BTreeMap<Refusal, u64> {
        self.routers[router.0].nat.refusals()
    }

    /// The outside addresses of a new router.
    fn outside_addresses(&mut self, parent: Realm, behaviour: &Behaviour) -> Vec<IpAddr> {
        let count = if behaviour.translation == Translation::Nothing { 0 } else { behaviour.addresses };
        let mut new = || {
            self.external_addresses += 1;
            match parent {
                Realm::Internet => Ipv4Addr::new(198, 51, 100, self.external_addresses).into(),
                // RFC 6598: the network between a carrier's routers and its customers'.
                Realm::Behind(_) => Ipv4Addr::new(100, 64, 0, self.external_addresses).into(),
            }
        };
        (0..count).map(|_| new()).collect()
    }

    /// A new address in the network behind a router. All routers use the same network.
    pub(super) fn inside_address(&mut self, router: RouterId, is_ipv6: bool) -> IpAddr {
        let inhabitants = &mut self.routers[router.0].inhabitants;
        *inhabitants += 1;
        let number = *inhabitants + 1;
        match is_ipv6 {
            true => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number.into()).into(),
            false => Ipv4Addr::new(192, 168, 1, number).into(),
        }
    }
}
