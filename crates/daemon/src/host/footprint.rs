//! What a config wants of the host, computed without asking it anything: addresses, routes, policy rules, MTU.
//!
//! It follows wg-quick, so that a config moved here routes as it did there: a prefix inside the connected prefix of one
//! of our addresses needs no route of its own; a /0 goes to a table of its own, which everything but our own marked
//! datagrams is sent to unless the main table knows something more specific than its default.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_os::netlink::MAIN_TABLE;

use crate::config::{Config, Table};

/// Where wg-quick begins to look for a free table for the default routes; also their mark.
pub(super) const FIRST_MARKED_TABLE: u32 = 51820;
/// The smallest MTU of a link that carries IPv6 (RFC 8200 section 5). Linux takes the IPv6 addresses away from an
/// interface below it, so ours never goes there; routes may.
pub(super) const MINIMUM_INTERFACE_MTU: u16 = 1280;

/// What a config wants of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Addresses of the interface with their connected prefixes.
    pub addresses: Vec<IpNet>,
    /// MTU of the interface, 1280 or more.
    pub mtu: u16,
    /// Routes through the interface, besides the connected ones.
    pub routes: Vec<PlannedRoute>,
    /// The table for default routes, where there are any.
    pub marked: Option<MarkedTable>,
}

/// A route through the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlannedRoute {
    /// The peer's prefix.
    pub destination: IpNet,
    /// The routing table.
    pub table: u32,
    /// MTU of the route where it is below that of the interface.
    pub mtu: Option<u32>,
}

/// Default routes as wg-quick makes them: in a table of their own, which our own outer datagrams avoid by their mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedTable {
    /// Number of the table.
    pub table: u32,
    /// The mark of the outer datagrams, not 0.
    pub mark: u32,
    /// Whether there is an IPv4 default route.
    pub v4: bool,
    /// Whether there is an IPv6 default route.
    pub v6: bool,
}

impl Footprint {
    /// What `config` wants with this inner MTU. Without `ipv6` everything of that family is left out. `free_table` is
    /// for default routes where the config names no mark.
    pub fn plan(config: &Config, mtu: u16, ipv6: bool, free_table: u32) -> Self {
        let usable = |net: &IpNet| ipv6 || is_ipv4(net);
        let addresses: Vec<IpNet> = config.interface.addresses.iter().copied().filter(usable).collect();
        let allowed: Vec<IpNet> =
            config.peers.iter().flat_map(|peer| &peer.allowed_ips).copied().filter(usable).collect();

        let marked = marked_table(config, &allowed, free_table);
        let mut routes: Vec<PlannedRoute> = allowed
            .into_iter()
            .filter_map(|destination| planned_route(config, destination, &addresses, mtu, marked.as_ref()))
            .collect();
        // Longest first, as wg-quick adds them: while they are being added, nothing leaves by the wrong peer.
        routes.sort_by_key(|route| (std::cmp::Reverse(route.destination.prefix_len()), route.destination));
        routes.dedup();
        Self { addresses, mtu: mtu.max(MINIMUM_INTERFACE_MTU), routes, marked }
    }

    /// Nothing at all: what stands before a start and after an end.
    pub fn none() -> Self {
        Self { addresses: Vec::new(), mtu: MINIMUM_INTERFACE_MTU, routes: Vec::new(), marked: None }
    }

    /// The virtual IPs, for the table that drops packets to them from elsewhere.
    pub fn virtual_ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }

    /// The prefixes of which the kernel makes connected routes in the main table.
    pub fn connected(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).map(IpNet::trunc)
    }
}

/// Only `table = "auto"` treats default routes in their own way; any other table is the user's to direct traffic to.
fn marked_table(config: &Config, allowed: &[IpNet], free_table: u32) -> Option<MarkedTable> {
    if config.interface.table != Table::Auto {
        return None;
    }
    let v4 = allowed.iter().any(|net| is_default(net) && is_ipv4(net));
    let v6 = allowed.iter().any(|net| is_default(net) && !is_ipv4(net));
    let number = config.interface.fwmark.unwrap_or(free_table);
    (v4 || v6).then_some(MarkedTable { table: number, mark: number, v4, v6 })
}

fn planned_route(
    config: &Config,
    destination: IpNet,
    addresses: &[IpNet],
    mtu: u16,
    marked: Option<&MarkedTable>,
) -> Option<PlannedRoute> {
    // IPv6 has no packets below 1280 to speak of; the node answers what does not fit.
    let small = (mtu < MINIMUM_INTERFACE_MTU && is_ipv4(&destination)).then_some(u32::from(mtu));
    let table = match config.interface.table {
        Table::Off => return None,
        Table::Number(number) => number,
        Table::Auto if is_default(&destination) => marked?.table,
        // A connected route carries no MTU of its own, so a small one needs routes beside it.
        Table::Auto if small.is_none() && addresses.iter().any(|net| net.contains(&destination)) => return None,
        Table::Auto => MAIN_TABLE,
    };
    Some(PlannedRoute { destination, table, mtu: small })
}

fn is_default(net: &IpNet) -> bool {
    net.prefix_len() == 0
}

pub(super) fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

#[cfg(test)]
pub(super) mod tests;
