//! MTU, addresses and routes: the kernel is asked what is there, and what differs from the wanted state is changed.
//!
//! If the wanted state is what is already in place, any difference was made by another program. It is restored and
//! recorded. A route of another program in place of ours is left alone.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use overlay_os::netlink::{Address, MAIN_TABLE, Netlink, NetlinkError, Route};

use super::{Footprint, Host, PlannedRoute};
use crate::failure::Failure;
use crate::host::facts::Part;
use crate::host::footprint::MINIMUM_INTERFACE_MTU;

/// What to do about a failure. If nothing is to change, a part that cannot be restored must not keep the other parts
/// from being restored: the first failure is reported at the end. Otherwise the first failure is the end.
struct FirstFailure {
    goes_on: bool,
    failure: Option<Failure>,
}

impl FirstFailure {
    fn new(goes_on: bool) -> Self {
        Self { goes_on, failure: None }
    }

    fn on(&mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        match done {
            Err(failure) if self.goes_on => {
                self.failure.get_or_insert(failure);
                Ok(())
            }
            done => done,
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl Host {
    /// Brings MTU, addresses and routes to the wanted state. `is_look` says that the wanted state is what is already in
    /// place.
    pub(super) async fn converge_places(
        &mut self,
        netlink: &Netlink,
        wanted: &Footprint,
        is_look: bool,
    ) -> Result<(), Failure> {
        let mut first = FirstFailure::new(is_look);
        first.on(self.remove_routes(netlink, wanted).await)?;
        first.on(self.converge_link(netlink, wanted, is_look).await)?;
        first.on(self.add_routes(netlink, wanted, is_look).await)?;
        first.into_result()
    }

    async fn remove_routes(&self, netlink: &Netlink, wanted: &Footprint) -> Result<(), Failure> {
        let (planned, beside) = self.routes_with(wanted);
        let keep: HashSet<(IpNet, u32)> =
            planned.into_iter().chain(beside).map(|route| (route.destination, route.table)).collect();
        let is_gone = |route: &PlannedRoute| !keep.contains(&(route.destination, route.table));
        let (planned, beside) = self.routes_with(&self.standing);
        let failure =
            |gone: PlannedRoute, error| self.failure(&format!("remove the route to {}", gone.destination), &error);
        for gone in planned.into_iter().filter(is_gone) {
            match netlink.delete_route(&self.route(&gone)).await {
                Ok(()) | Err(NetlinkError::NotFound) => {}
                Err(error) => return Err(failure(gone, error)),
            }
        }
        for gone in beside.into_iter().filter(is_gone) {
            self.give_up(netlink, &gone).await.map_err(|error| failure(gone, error))?;
        }
        Ok(())
    }

    /// Sets the MTU before the addresses, because below 1280 bytes the kernel accepts no IPv6 address.
    async fn converge_link(&mut self, netlink: &Netlink, wanted: &Footprint, is_look: bool) -> Result<(), Failure> {
        let links = netlink.links().await.map_err(|error| self.failure("list interfaces", &error))?;
        let link = links.iter().find(|link| link.index == self.index);
        let link = link.ok_or_else(|| self.failure("find the interface", &NetlinkError::NotFound))?;
        let mut is_up = link.up;
        let mut first = FirstFailure::new(is_look);
        if link.mtu != u32::from(wanted.mtu) {
            let had_no_ipv6 = self.has_ipv6() && link.mtu < MINIMUM_INTERFACE_MTU.into();
            // IPv6 starts over, and would give a link that is up an address of its own and announce it.
            if had_no_ipv6 && is_up && netlink.set_down(self.index).await.is_ok() {
                is_up = false;
            }
            match netlink.set_mtu(self.index, wanted.mtu.into()).await {
                Ok(()) => self.note(Part::Mtu, is_look),
                Err(error) => first.on(Err(self.failure(&format!("set the MTU to {}", wanted.mtu), &error)))?,
            }
            if had_no_ipv6 {
                self.prevent_link_local(netlink).await;
            }
        }
        first.on(self.converge_addresses(netlink, wanted, is_look).await)?;
        if !is_up {
            netlink.set_up(self.index).await.map_err(|error| self.failure("bring the interface up", &error))?;
        }
        if !link.up {
            self.note(Part::Link, is_look);
        }
        first.into_result()
    }

    /// Adds new addresses first, so that connections from a removed one have somewhere to go. Adds them again after the
    /// removal, because a primary address takes its secondaries along.
    async fn converge_addresses(
        &mut self,
        netlink: &Netlink,
        wanted: &Footprint,
        is_look: bool,
    ) -> Result<(), Failure> {
        self.add_addresses(netlink, wanted, is_look).await?;
        let gone: Vec<_> =
            self.standing.addresses.iter().filter(|net| !wanted.addresses.contains(net)).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        for net in gone {
            match netlink.delete_address(self.index, net.addr(), net.prefix_len()).await {
                // IPv6 that was switched off has taken its addresses along.
                Ok(()) | Err(NetlinkError::NotFound | NetlinkError::Unsupported) => {}
                Err(error) => return Err(self.failure(&format!("remove the address {net}"), &error)),
            }
        }
        self.add_addresses(netlink, wanted, is_look).await
    }

    async fn add_addresses(&mut self, netlink: &Netlink, wanted: &Footprint, is_look: bool) -> Result<(), Failure> {
        let mut first = FirstFailure::new(is_look);
        let present = netlink.addresses().await.map_err(|error| self.failure("list addresses", &error))?;
        for net in &wanted.addresses {
            let ours = |there: &Address| {
                there.index == self.index && there.ip == net.addr() && there.prefix == net.prefix_len()
            };
            if present.iter().any(ours) {
                continue;
            }
            match netlink.add_address(self.index, net.addr(), net.prefix_len()).await {
                Ok(()) => self.note(Part::Address, is_look),
                // A reload goes on without it: a right that the config takes away must not depend on it. The next look
                // tries again, and reports it.
                Err(NetlinkError::Unsupported) if !is_look && self.is_up => {
                    tracing::warn!("`{}` cannot have the address {net}: IPv6 is switched off", self.interface);
                }
                Err(error) => first.on(Err(self.failure(&format!("add the address {net}"), &error)))?,
            }
        }
        first.into_result()
    }

    async fn add_routes(&mut self, netlink: &Netlink, wanted: &Footprint, is_look: bool) -> Result<(), Failure> {
        let (planned, beside) = self.routes_with(wanted);
        let routes = netlink.routes().await.map_err(|error| self.failure("list routes", &error))?;
        let ours = || routes.iter().filter(|route| route.interface == Some(self.index));
        let present: HashMap<(IpNet, u32), &Route> =
            ours().map(|route| ((route.destination.trunc(), route.table), route)).collect();

        let mut first = FirstFailure::new(is_look);
        let mut replaced = Vec::new();
        first.on(self.add_planned(netlink, &planned, &present, is_look, &mut replaced).await)?;
        match self.converge_connected(netlink, wanted, &routes, is_look, &mut replaced).await {
            Ok(connected) => self.connected = connected,
            Err(failure) => first.on(Err(failure))?,
        }
        self.replaced = replaced;

        for route in &beside {
            let added = match present.get(&(route.destination, route.table)) {
                Some(there) if there.mtu == route.mtu => continue,
                Some(_) => self.renew(netlink, route).await,
                None => netlink.add_route(&self.route(route)).await,
            };
            match added {
                Ok(()) => self.note(Part::Route, is_look),
                Err(error) => {
                    self.on_refused(route.destination, &error);
                    self.forget_path(&route.destination);
                }
            }
        }
        first.into_result()
    }

    /// Adds or changes the planned routes. Adds to `replaced` those that another program has replaced with its own.
    async fn add_planned(
        &mut self,
        netlink: &Netlink,
        planned: &[PlannedRoute],
        present: &HashMap<(IpNet, u32), &Route>,
        is_look: bool,
        replaced: &mut Vec<IpNet>,
    ) -> Result<(), Failure> {
        let mut first = FirstFailure::new(is_look);
        for route in planned {
            let set = self.route(route);
            let added = match present.get(&(route.destination, route.table)) {
                Some(there) if there.mtu == route.mtu => continue,
                Some(there) if is_look && there.protocol != set.protocol => Err(NetlinkError::Exists),
                Some(_) => netlink.replace_route(&set).await,
                None => netlink.add_route(&set).await,
            };
            match added {
                Ok(()) => self.note(Part::Route, is_look),
                Err(NetlinkError::Exists) if is_look => replaced.push(route.destination),
                Err(error) => {
                    first.on(Err(self.failure(&format!("add the route to {}", route.destination), &error)))?;
                }
            }
        }
        first.into_result()
    }

    /// Sets the MTU of connected routes. The kernel creates one for the prefix of each address, but only once: a
    /// deleted one is ours to add again. Returns the connected routes that are in place.
    async fn converge_connected(
        &mut self,
        netlink: &Netlink,
        wanted: &Footprint,
        routes: &[Route],
        is_look: bool,
        replaced: &mut Vec<IpNet>,
    ) -> Result<Vec<Route>, Failure> {
        let prefixes: HashSet<IpNet> = wanted.connected().collect();
        let mut standing = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            let mtu = self.connected_mtu(wanted, &prefix);
            let in_place = |route: &&Route| route.destination == prefix && route.table == MAIN_TABLE;
            let ours = |route: &&Route| route.interface == Some(self.index) && route.is_connected();
            let there = routes.iter().filter(in_place).find(ours);
            let known = self.connected.iter().find(|route| route.destination == prefix);
            let Some(route) = there.or(known).map(|route| Route { mtu, ..route.clone() }) else { continue };
            let done = match there {
                Some(there) if there.mtu == mtu => Ok(()),
                Some(_) => netlink.replace_route(&route).await,
                None if routes.iter().any(|route| in_place(&route)) => Err(NetlinkError::Exists),
                None => netlink.add_route(&route).await,
            };
            match done {
                Ok(()) if there.is_some_and(|there| there.mtu == mtu) => {}
                // The kernel creates it without an MTU when an address was restored, which has already been recorded.
                Ok(()) if there.is_some_and(|there| there.mtu.is_none()) => {}
                Ok(()) => self.note(Part::Route, is_look),
                Err(NetlinkError::Exists) if is_look => replaced.push(prefix),
                Err(error) => {
                    let step = format!("set the MTU of the route to {prefix}");
                    return Err(self.failure(&step, &error));
                }
            }
            standing.push(route);
        }
        Ok(standing)
    }

    /// Records that something was missing or different and has been restored.
    fn note(&mut self, part: Part, is_look: bool) {
        if is_look {
            self.put_back.note(part);
        }
    }
}
