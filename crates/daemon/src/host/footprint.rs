//! What a config wants on the host, computed without asking the host: addresses, routes, policy rules, MTU.
//!
//! It follows wg-quick, so that a config moved here routes as before. A prefix inside the connected prefix of one of
//! our addresses needs no route of its own. A /0 goes to a separate table. All traffic except our own marked datagrams
//! uses that table, unless the main table has a more specific route than its default.
//!
//! The interface's MTU is the largest that any path may carry, and routes limit packets to less. The kernel is
//! therefore never in the way of a path that turns out to be wide, and a path about which nothing is known gets the
//! start value.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_os::netlink::MAIN_TABLE;

use crate::config::{Config, MtuRange, Table};

/// Where wg-quick starts looking for a free table for default routes. It is also their mark.
pub(super) const FIRST_MARKED_TABLE: u32 = 51820;
/// The smallest MTU of a link that carries IPv6 (RFC 8200 section 5). Linux removes the IPv6 addresses from an
/// interface with a smaller MTU, so ours is never smaller. Routes may be.
pub(super) const MINIMUM_INTERFACE_MTU: u16 = 1280;

/// What a config wants on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The addresses of the interface, with their connected prefixes.
    pub addresses: Vec<IpNet>,
    /// The MTU of the interface in bytes, at least 1280.
    pub mtu: u16,
    /// The MTU of routes while nothing is known about the path.
    pub start: u16,
    /// The routes through the interface, besides the connected ones. Longest prefix first, then by destination.
    pub routes: Vec<PlannedRoute>,
    /// The table for default routes, if there are any.
    pub marked: Option<MarkedTable>,
    /// The address families whose entire traffic belongs in the tunnel.
    pub covered: Covered,
    /// Whether we may add routes at all: false with `table = "off"`.
    pub is_routed: bool,
    /// Our addresses that another device has too, such as the host's router id. They answer on that device as well.
    pub shared: Vec<IpAddr>,
}

/// Where the route of a peer's prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is among [`Footprint::routes`], in this table.
    Planned(u32),
    /// It is the connected route itself.
    Connected,
    /// There is no route to exactly this prefix. An additional one belongs in this table, beside the covering route.
    Beside(u32),
}

/// A route through the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlannedRoute {
    /// The peer's prefix.
    pub destination: IpNet,
    /// The routing table.
    pub table: u32,
    /// The MTU of the route, if it is below that of the interface.
    pub mtu: Option<u32>,
}

/// Default routes as wg-quick creates them: in a separate table, which our own outer datagrams bypass by their mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedTable {
    /// The number of the table.
    pub table: u32,
    /// The mark of the outer datagrams, never 0.
    pub mark: u32,
    /// Whether there is an IPv4 default route.
    pub v4: bool,
    /// Whether there is an IPv6 default route.
    pub v6: bool,
}

/// The address families for which a default route sends everything into the tunnel. Unlike the routes, this does not
/// depend on whether the interface can carry the family: what cannot go into the tunnel must not go elsewhere either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Covered {
    /// Whether any family is covered.
    pub fn is_any(self) -> bool {
        self.v4 || self.v6
    }
}

impl Footprint {
    /// Computes what `config` wants with these inner MTUs. Without `ipv6`, everything of that family is left out.
    /// `free_table` is used for default routes if the config sets no mark.
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
                // The kernel already has a route there, which must be neither replaced nor removed later.
                Table::Number(MAIN_TABLE) | Table::Auto if plan.is_connected(&destination) => return None,
                Table::Number(number) => number,
                Table::Auto if is_default(&destination) => marked?.table,
                Table::Auto if plan.is_inside_connected(&destination) && !nested.contains(&destination) => return None,
                Table::Auto => MAIN_TABLE,
            };
            Some(PlannedRoute { destination, table, mtu: plan.route_mtu(&destination, mtu.start) })
        };
        let mut routes: Vec<PlannedRoute> = allowed.into_iter().filter_map(routed).collect();
        // Longest first, as in wg-quick: while routes are being added, no packet leaves through the wrong peer.
        routes.sort_by_key(order_of);
        routes.dedup();
        plan.routes = routes;
        plan
    }

    /// The empty footprint: before a start and after an end.
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

    /// Returns the MTU that a route must carry to limit packets to `mtu` bytes, or `None` if the interface already
    /// limits them. An IPv6 route never gets less than 1280, and the node answers what does not fit.
    pub(super) fn route_mtu(&self, destination: &IpNet, mtu: u16) -> Option<u32> {
        let least = if is_ipv4(destination) { 0 } else { MINIMUM_INTERFACE_MTU };
        Some(mtu.max(least)).filter(|mtu| *mtu < self.mtu).map(u32::from)
    }

    /// Returns the MTU that the connected route of this prefix carries while nothing is known about paths.
    pub(super) fn connected_mtu(&self, prefix: &IpNet) -> Option<u32> {
        self.route_mtu(prefix, self.start).filter(|_| self.is_routed)
    }

    /// Returns where the route of a peer's prefix is. The peer may have received the prefix after the plan was made.
    /// Returns `None` if no route of ours leads there: with `table = "off"`, or for a prefix that was set with `wg` and
    /// is routed by someone else.
    pub(super) fn place_of(&self, prefix: &IpNet) -> Option<Place> {
        if !self.is_routed {
            return None;
        }
        self.exact(prefix).or_else(|| match self.covering(prefix)?.1 {
            Place::Planned(table) | Place::Beside(table) => Some(Place::Beside(table)),
            Place::Connected => Some(Place::Beside(MAIN_TABLE)),
        })
    }

    /// Returns the most specific routed prefix that covers this one, and where its route is.
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

    /// Returns the addresses that only our interface has, with their prefixes. Packets to them that arrive elsewhere
    /// are dropped.
    pub(super) fn own_addresses(&self) -> Vec<IpNet> {
        self.addresses.iter().copied().filter(|net| !self.shared.contains(&net.addr())).collect()
    }

    /// Returns the prefixes for which the kernel creates connected routes in the main table.
    pub fn connected(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).map(IpNet::trunc)
    }
}

/// Returns the covered families. Only `table = "auto"` handles default routes specially. In any other table, directing
/// traffic to them is up to the user.
pub(super) fn covered(config: &Config) -> Covered {
    if config.interface.table != Table::Auto {
        return Covered::default();
    }
    let has_default = |of_family: fn(&IpNet) -> bool| {
        config.peers.iter().flat_map(|peer| &peer.allowed_ips).any(|net| is_default(net) && of_family(net))
    };
    Covered { v4: has_default(is_ipv4), v6: has_default(|net| !is_ipv4(net)) }
}

/// Returns the table and mark for default routes. If anything is covered there is a mark, even if this host has no
/// route to match.
fn marked_table(config: &Config, allowed: &[IpNet], covered: Covered, free_table: u32) -> Option<MarkedTable> {
    let v4 = covered.v4;
    let v6 = covered.v6 && allowed.iter().any(|net| is_default(net) && !is_ipv4(net));
    let number = config.interface.fwmark.unwrap_or(free_table);
    covered.is_any().then_some(MarkedTable { table: number, mark: number, v4, v6 })
}

/// Returns the peers' prefixes inside a connected one that also lie inside a larger peer prefix there. They get
/// separate routes, because the MTU found for the larger prefix must not apply to them.
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
