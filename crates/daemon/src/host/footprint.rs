//! What a config wants of the host, computed without asking it anything: addresses, routes, policy rules, MTU.
//!
//! It follows wg-quick, so that a config moved here routes as it did there: a prefix inside the connected prefix of one
//! of our addresses needs no route of its own; a /0 goes to a table of its own, which everything but our own marked
//! datagrams is sent to unless the main table knows something more specific than its default.
//!
//! The interface takes the longest packets that any path may carry; routes hold packets to less. So the kernel never
//! stands in the way of a path that was found to be wide, and one of which nothing is known gets the start value.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_os::netlink::MAIN_TABLE;

use crate::config::{Config, MtuRange, Table};

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
    /// What routes hold packets to where nothing is known of the path.
    pub start: u16,
    /// Routes through the interface, besides the connected ones. Longest first, then by destination.
    pub routes: Vec<PlannedRoute>,
    /// The table for default routes, where there are any.
    pub marked: Option<MarkedTable>,
    /// The families whose whole traffic belongs into the tunnel.
    pub covered: Covered,
    /// Whether routes are ours to make at all: not with `table = "off"`.
    pub is_routed: bool,
    /// Addresses of ours that another device has too, such as the host's router id: they answer there as well.
    pub shared: Vec<IpAddr>,
}

/// Where the route of a peer's prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is among [`Footprint::routes`], in this table.
    Planned(u32),
    /// It is the connected route itself.
    Connected,
    /// It has none, and one of its own belongs into this table, beside the one that covers it.
    Beside(u32),
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

/// The families of which a default route leads everything into the tunnel. Unlike the routes, that does not depend on whether
/// the tunnel's own interface can carry the family: what cannot go into the tunnel does not go elsewhere either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Covered {
    /// Whether either is.
    pub fn is_any(self) -> bool {
        self.v4 || self.v6
    }
}

impl Footprint {
    /// What `config` wants with these inner MTUs. Without `ipv6` everything of that family is left out. `free_table` is
    /// for default routes where the config names no mark.
    pub fn plan(config: &Config, mtu: MtuRange, ipv6: bool, free_table: u32) -> Self {
        let usable = |net: &IpNet| ipv6 || is_ipv4(net);
        let addresses: Vec<IpNet> = config.interface.addresses.iter().copied().filter(usable).collect();
        let allowed: Vec<IpNet> =
            config.peers.iter().flat_map(|peer| &peer.allowed_ips).copied().filter(usable).collect();

        let covered = covered(config);
        let marked = marked_table(config, &allowed, covered, free_table);
        let nested = nested(&allowed, &addresses);
        let mut plan = Self {
            addresses,
            mtu: mtu.max.max(MINIMUM_INTERFACE_MTU),
            start: mtu.start,
            routes: Vec::new(),
            marked,
            covered,
            is_routed: config.interface.table != Table::Off,
            shared: Vec::new(),
        };
        let routed = |destination: IpNet| {
            let table = match config.interface.table {
                Table::Off => return None,
                // The kernel has a route there already, which is not to be replaced nor taken away some day.
                Table::Number(MAIN_TABLE) | Table::Auto if plan.is_connected(&destination) => return None,
                Table::Number(number) => number,
                Table::Auto if is_default(&destination) => marked?.table,
                Table::Auto if plan.is_inside_connected(&destination) && !nested.contains(&destination) => return None,
                Table::Auto => MAIN_TABLE,
            };
            Some(PlannedRoute { destination, table, mtu: plan.route_mtu(&destination, mtu.start) })
        };
        let mut routes: Vec<PlannedRoute> = allowed.into_iter().filter_map(routed).collect();
        // Longest first, as wg-quick adds them: while they are being added, nothing leaves by the wrong peer.
        routes.sort_by_key(order_of);
        routes.dedup();
        plan.routes = routes;
        plan
    }

    /// Nothing at all: what stands before a start and after an end.
    pub fn none() -> Self {
        Self {
            addresses: Vec::new(),
            mtu: MINIMUM_INTERFACE_MTU,
            start: MINIMUM_INTERFACE_MTU,
            routes: Vec::new(),
            marked: None,
            covered: Covered::default(),
            is_routed: false,
            shared: Vec::new(),
        }
    }

    /// What a route is to say so that packets by it are `mtu` bytes at most. `None`: nothing, as the interface takes no
    /// more. IPv6 has no packets below 1280 to speak of; the node answers what does not fit.
    pub(super) fn route_mtu(&self, destination: &IpNet, mtu: u16) -> Option<u32> {
        let least = if is_ipv4(destination) { 0 } else { MINIMUM_INTERFACE_MTU };
        Some(mtu.max(least)).filter(|mtu| *mtu < self.mtu).map(u32::from)
    }

    /// What the connected route of this prefix is to say while nothing is known of paths.
    pub(super) fn connected_mtu(&self, prefix: &IpNet) -> Option<u32> {
        self.route_mtu(prefix, self.start).filter(|_| self.is_routed)
    }

    /// Where the route of a peer's prefix is, which may have been given to it after the plan was made. `None` where
    /// nothing of ours leads there: with `table = "off"`, or for a prefix that `wg` has set and somebody else routes.
    pub(super) fn place_of(&self, prefix: &IpNet) -> Option<Place> {
        if !self.is_routed {
            return None;
        }
        self.exact(prefix).or_else(|| match self.covering(prefix)?.1 {
            Place::Planned(table) | Place::Beside(table) => Some(Place::Beside(table)),
            Place::Connected => Some(Place::Beside(MAIN_TABLE)),
        })
    }

    /// The most specific prefix that covers this one and has a route, and where that is.
    pub(super) fn covering(&self, prefix: &IpNet) -> Option<(IpNet, Place)> {
        let shorter = std::iter::successors(prefix.supernet(), IpNet::supernet);
        shorter.filter_map(|net| Some((net, self.exact(&net)?))).next()
    }

    fn exact(&self, prefix: &IpNet) -> Option<Place> {
        let planned = self.planned(prefix).map(|route| Place::Planned(route.table));
        planned.or_else(|| self.is_connected(prefix).then_some(Place::Connected))
    }

    fn planned(&self, destination: &IpNet) -> Option<&PlannedRoute> {
        let wanted = (std::cmp::Reverse(destination.prefix_len()), *destination);
        self.routes.binary_search_by_key(&wanted, order_of).ok().and_then(|index| self.routes.get(index))
    }

    fn is_connected(&self, prefix: &IpNet) -> bool {
        self.connected().any(|net| net == *prefix)
    }

    fn is_inside_connected(&self, prefix: &IpNet) -> bool {
        self.addresses.iter().any(|net| net.contains(prefix))
    }

    /// The addresses that are on our interface alone, with their prefixes: what comes for them from elsewhere is dropped.
    pub(super) fn own_addresses(&self) -> Vec<IpNet> {
        self.addresses.iter().copied().filter(|net| !self.shared.contains(&net.addr())).collect()
    }

    /// The prefixes of which the kernel makes connected routes in the main table.
    pub fn connected(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).map(IpNet::trunc)
    }
}

/// Only `table = "auto"` treats default routes in their own way; any other table is the user's to direct traffic to.
pub(super) fn covered(config: &Config) -> Covered {
    if config.interface.table != Table::Auto {
        return Covered::default();
    }
    let has_default = |of_family: fn(&IpNet) -> bool| {
        config.peers.iter().flat_map(|peer| &peer.allowed_ips).any(|net| is_default(net) && of_family(net))
    };
    Covered { v4: has_default(is_ipv4), v6: has_default(|net| !is_ipv4(net)) }
}

/// Where anything is covered there is a mark, also where this host has no route to go with it.
fn marked_table(config: &Config, allowed: &[IpNet], covered: Covered, free_table: u32) -> Option<MarkedTable> {
    let v4 = covered.v4;
    let v6 = covered.v6 && allowed.iter().any(|net| is_default(net) && !is_ipv4(net));
    let number = config.interface.fwmark.unwrap_or(free_table);
    covered.is_any().then_some(MarkedTable { table: number, mark: number, v4, v6 })
}

/// Prefixes inside a connected one that lie in a larger prefix of a peer's there. They get routes of their own: what is
/// found of the larger one's path must not hold for them.
fn nested(allowed: &[IpNet], addresses: &[IpNet]) -> HashSet<IpNet> {
    let mut inside: Vec<IpNet> =
        allowed.iter().filter(|prefix| addresses.iter().any(|net| net.contains(*prefix))).copied().collect();
    inside.sort_unstable();
    let mut outermost: Option<IpNet> = None;
    let mut nested = HashSet::new();
    for prefix in inside {
        match outermost {
            Some(outer) if outer.contains(&prefix) && outer != prefix => _ = nested.insert(prefix),
            _ => outermost = Some(prefix),
        }
    }
    nested
}

fn order_of(route: &PlannedRoute) -> (std::cmp::Reverse<u8>, IpNet) {
    (std::cmp::Reverse(route.destination.prefix_len()), route.destination)
}

fn is_default(net: &IpNet) -> bool {
    net.prefix_len() == 0
}

pub(super) fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

#[cfg(test)]
pub(super) mod tests;
