//! Leads the destinations of refused routes into the tunnel.
//!
//! The first policy rule of a default route sends everything to the main table for which that table has a more specific
//! route than its default. It cannot tell a refused route (see `surroundings`) from any other. So a table of its own,
//! which a rule before that one consults, has routes through our interface to the destinations of refused routes. They
//! vanish with the interface. The rule is added with the first refused route of a family, and stays until the default
//! route goes: a network that supplies and withdraws routes all the time changes no rules.

use ipnet::IpNet;
use overlay_os::netlink::{Netlink, NetlinkError, Route};

use super::Host;
use crate::failure::Failure;
use crate::host::footprint::{FIRST_MARKED_TABLE, Footprint, MarkedTable, is_ipv4};
use crate::host::surroundings::Surroundings;

/// The table for the destinations of refused routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detours {
    /// The table and mark of the default route that the detours belong to.
    marked: MarkedTable,
    /// The number of the table.
    pub(super) table: u32,
    /// Whether IPv4 needs the rule.
    pub(super) v4: bool,
    /// Whether IPv6 needs the rule.
    pub(super) v6: bool,
}

impl Host {
    /// Brings the table to what the surroundings require. Called before the rules are brought to it.
    pub(super) async fn converge_detours(
        &mut self,
        netlink: &Netlink,
        wanted: &Footprint,
        around: &Surroundings,
    ) -> Result<(), Failure> {
        self.facts.on_refused_routes(around.refused.iter().map(IpNet::to_string).collect());
        let has_way =
            |net: &&IpNet| wanted.marked.is_some_and(|marked| if is_ipv4(net) { marked.v4 } else { marked.v6 });
        let detours: Vec<IpNet> = around.detours.iter().filter(has_way).copied().collect();
        if detours.is_empty() && self.detours.is_none() {
            return Ok(());
        }
        let routes = netlink.routes().await.map_err(|error| self.failure("list routes", &error))?;
        let ours = self.index;
        let present = |table| routes.iter().filter(move |route| route.table == table && route.interface == Some(ours));
        if let Some(old) = self.detours
            && wanted.marked != Some(old.marked)
        {
            self.remove_detours(netlink, present(old.table)).await?;
            self.detours = None;
        }
        let Some(marked) = wanted.marked else { return Ok(()) };
        if detours.is_empty() && self.detours.is_none() {
            return Ok(());
        }
        let is_free = |table: &u32| *table != marked.table && !routes.iter().any(|route| route.table == *table);
        let fresh = || (FIRST_MARKED_TABLE..).find(is_free).unwrap_or(FIRST_MARKED_TABLE + 1);
        let mut now = self.detours.unwrap_or_else(|| Detours { marked, table: fresh(), v4: false, v6: false });
        let gone = present(now.table).filter(|route| !detours.contains(&route.destination));
        self.remove_detours(netlink, gone).await?;
        for net in detours {
            if is_ipv4(&net) {
                now.v4 = true
            } else {
                now.v6 = true
            }
            if present(now.table).any(|route| route.destination == net) {
                continue;
            }
            let mtu = wanted.route_mtu(&net, wanted.start);
            let route = Route { table: now.table, mtu, ..Route::to_interface(net, self.index) };
            match netlink.add_route(&route).await {
                Ok(()) | Err(NetlinkError::Exists) => {}
                Err(error) => return Err(self.failure(&format!("lead {net} into the tunnel"), &error)),
            }
        }
        self.detours = Some(now);
        Ok(())
    }

    async fn remove_detours(&self, netlink: &Netlink, gone: impl Iterator<Item = &Route>) -> Result<(), Failure> {
        for route in gone {
            match netlink.delete_route(route).await {
                Ok(()) | Err(NetlinkError::NotFound) => {}
                Err(error) => return Err(self.failure(&format!("remove the route to {}", route.destination), &error)),
            }
        }
        Ok(())
    }
}
