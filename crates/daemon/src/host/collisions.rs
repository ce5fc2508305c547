//! Addresses and routes of ours that other devices have too.
//!
//! A start refuses any collision. A reload refuses only those that it adds, and those already in place are warnings in
//! `status`. An address may exist twice where that is common practice: link-local addresses, addresses on `lo` or a
//! dummy device (router ids), and a /32 or /128 on several devices (unnumbered links). A route that loses to ours by
//! its metric does not collide, unless the kernel created it for an address: in that case the tunnel would cut off a
//! directly connected network.

use std::collections::HashMap;

use ipnet::IpNet;
use overlay_os::netlink::{Address, Link, MAIN_TABLE, Netlink, Route};

use super::footprint::Footprint;
use super::netlink_failure;
use crate::config::Config;
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

/// The metric that the kernel gives IPv6 routes without an explicit one.
const IPV6_METRIC: u32 = 1024;

/// An address or route of ours that another device has too.
pub(super) struct Collision {
    subject: Subject,
    /// The name of the other device, or `None` for a route without a device.
    device: Option<String>,
}

enum Subject {
    /// Our address, and that of the other device.
    Address(IpNet, Address),
    /// The connected prefix of one of our addresses.
    Connected(IpNet),
    Route(IpNet, u32),
}

/// What the kernel is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Only addresses and the networks that follow from them: a short list on every host.
    Addresses,
    /// All routes as well.
    Routes,
}

/// Returns everything that `wanted` has in common with devices other than `own`, our interface if it exists.
pub(super) async fn collisions(
    netlink: &Netlink,
    config: &Config,
    wanted: &Footprint,
    own: Option<u32>,
    depth: Depth,
) -> Result<Vec<Collision>, Failure> {
    let cannot = |what: &str| {
        let what = format!("cannot list the {what} of this host");
        move |error| netlink_failure(what, &error)
    };
    let links = netlink.links().await.map_err(cannot("interfaces"))?;
    let mut taken = netlink.addresses().await.map_err(cannot("addresses"))?;
    taken.retain(|other| Some(other.index) != own);

    let mut found = Vec::new();
    for ours in &wanted.addresses {
        let same = |other: &&Address| other.ip == ours.addr() && !may_be_twice(ours, other, &links);
        if let Some(other) = taken.iter().find(same) {
            found.push(Collision {
                subject: Subject::Address(*ours, *other),
                device: Some(name_of(&links, other.index)),
            });
        }
    }
    let connected = || wanted.connected().filter(|prefix| !is_on_every_link(prefix));
    if depth == Depth::Addresses {
        for prefix in connected() {
            let same = |other: &&Address| IpNet::new(other.ip, other.prefix).is_ok_and(|net| net.trunc() == prefix);
            if let Some(other) = taken.iter().find(same) {
                found.push(Collision {
                    subject: Subject::Connected(prefix),
                    device: Some(name_of(&links, other.index)),
                });
            }
        }
        return Ok(found);
    }

    let routes = netlink.routes().await.map_err(cannot("routes"))?;
    let others: HashMap<(IpNet, u32), &Route> = routes
        .iter()
        .filter(|route| (own.is_none() || route.interface != own) && !loses_against_ours(route))
        .map(|route| ((route.destination.trunc(), route.table), route))
        .collect();
    let device = |route: &Route| route.interface.map(|index| name_of(&links, index));
    for prefix in connected() {
        if let Some(route) = others.get(&(prefix, MAIN_TABLE)) {
            found.push(Collision { subject: Subject::Connected(prefix), device: device(route) });
        }
    }
    for ours in &wanted.routes {
        // If the config sets no mark, a table without routes is chosen.
        if config.interface.fwmark.is_none() && wanted.marked.is_some_and(|marked| marked.table == ours.table) {
            continue;
        }
        if let Some(route) = others.get(&(ours.destination, ours.table)) {
            found.push(Collision { subject: Subject::Route(ours.destination, ours.table), device: device(route) });
        }
    }
    Ok(found)
}

impl Collision {
    /// Whether the part that collides is already in place.
    pub(super) fn is_standing(&self, standing: &Footprint) -> bool {
        match &self.subject {
            Subject::Address(ours, _) => standing.addresses.contains(ours),
            Subject::Connected(prefix) => standing.connected().any(|net| net == *prefix),
            Subject::Route(destination, table) => {
                standing.routes.iter().any(|route| (route.destination, route.table) == (*destination, *table))
            }
        }
    }

    /// Returns the error for a start or reload that would collide.
    pub(super) fn refusal(&self, config: &Config) -> Failure {
        let file = config.path.display();
        match &self.subject {
            Subject::Address(ours, other) => {
                let device = self.device.as_deref().unwrap_or_default();
                Failure::new(ExitKind::Conflict, format!("address {} is already in use on `{device}`", ours.addr()))
                    .with_cause("a virtual IP answers on its own interface only")
                    .with_hint(format!(
                        "give this host a different address in {file}, or: sudo ip address delete {}/{} dev {device}",
                        other.ip, other.prefix
                    ))
            }
            Subject::Connected(prefix) => self
                .taken_route(*prefix, MAIN_TABLE)
                .with_hint(format!("choose addresses from a different prefix in {file}")),
            Subject::Route(destination, table) => self
                .taken_route(*destination, *table)
                .with_hint(format!("change `allowed_ips` in {file}, or set table = \"off\" there and route by hand")),
        }
    }

    /// Returns the warning for `status` while the collision lasts.
    pub(super) fn warning(&self) -> StatusWarning {
        let device = match &self.device {
            Some(device) => format!("on `{device}`"),
            None => "as a route that leads nowhere".to_owned(),
        };
        match &self.subject {
            Subject::Address(ours, other) => StatusWarning::new(
                "address_taken",
                format!("the address {} now also exists {device}, where it answers outside the tunnel", ours.addr()),
                format!(
                    "sudo ip address delete {}/{} dev {}, or give this host a different address",
                    other.ip,
                    other.prefix,
                    self.device.as_deref().unwrap_or_default()
                ),
            ),
            Subject::Connected(prefix) | Subject::Route(prefix, _) => StatusWarning::new(
                "prefix_taken",
                format!("{prefix} now also exists {device}: packets to it may not reach the tunnel"),
                "move one of the two networks to a different prefix",
            ),
        }
    }

    fn taken_route(&self, prefix: IpNet, table: u32) -> Failure {
        let device = match &self.device {
            Some(device) => format!("through `{device}`"),
            None => "without a device".to_owned(),
        };
        let table = if table == MAIN_TABLE { String::new() } else { format!(" in table {table}") };
        Failure::new(ExitKind::Conflict, format!("a route to {prefix} already exists{table}, {device}"))
            .with_cause("the config sends the same prefix through the tunnel")
    }
}

/// Whether two devices may have this address at once.
fn may_be_twice(ours: &IpNet, other: &Address, links: &[Link]) -> bool {
    let is_unnumbered = ours.prefix_len() == ours.max_prefix_len() && other.prefix == ours.max_prefix_len();
    let link = links.iter().find(|link| link.index == other.index);
    let is_router_id = link.is_some_and(|link| link.name == "lo" || link.kind.as_deref() == Some("dummy"));
    is_unnumbered || is_router_id || is_on_every_link(ours)
}

/// Whether the prefix is link-local. Link-local prefixes are connected on every link and do not collide.
fn is_on_every_link(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

pub(super) fn loses_against_ours(route: &Route) -> bool {
    let ours = if route.destination.addr().is_ipv4() { 0 } else { IPV6_METRIC };
    !route.is_connected() && route.metric.unwrap_or(ours) > ours
}

pub(super) fn name_of(links: &[Link], index: u32) -> String {
    links.iter().find(|link| link.index == index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        let (name, kind) = (name.to_owned(), kind.map(str::to_owned));
        Link { index, name, kind, mtu: 1500, tx_queue_len: 1000, up: true, controller: None, is_ethernet: true }
    }

    #[test]
    fn addresses_exist_twice_where_that_is_how_people_use_them() {
        let links = [link(1, "lo", None), link(2, "eth0", None), link(3, "rid", Some("dummy"))];
        let rows = [
            ("10.77.0.1/24", 2, 24, false),
            ("10.77.0.1/24", 2, 32, false),
            ("10.77.0.1/32", 2, 24, false),
            ("10.77.0.1/32", 2, 32, true),
            ("10.77.0.1/24", 1, 32, true),
            ("10.77.0.1/24", 3, 32, true),
            ("fe80::1/64", 2, 64, true),
            ("169.254.0.1/30", 2, 30, true),
            ("fd77::1/128", 2, 128, true),
        ];
        for (ours, index, prefix, expected) in rows {
            let ours: IpNet = ours.parse().expect("a prefix");
            let other = Address { index, ip: ours.addr(), prefix, is_preferred: true };
            assert_eq!(may_be_twice(&ours, &other, &links), expected, "{ours} on link {index} as /{prefix}");
        }
    }

    #[test]
    fn a_route_that_ours_beats_by_its_metric_is_no_collision_unless_it_is_connected() {
        let rows = [
            ("10.9.0.0/16", None, 4, false),
            ("10.9.0.0/16", Some(100), 4, true),
            ("10.9.0.0/16", Some(600), 2, false),
            ("fd09::/64", Some(1024), 4, false),
            ("fd09::/64", Some(2048), 4, true),
        ];
        for (destination, metric, protocol, expected) in rows {
            let route = Route::to_interface(destination.parse().expect("a prefix"), 2);
            assert_eq!(loses_against_ours(&Route { metric, protocol, ..route }), expected, "{destination} {metric:?}");
        }
    }

    #[test]
    fn link_local_prefixes_collide_with_nothing() {
        let rows = [("fe80::/64", true), ("169.254.0.0/16", true), ("fd77::/64", false), ("10.77.0.0/24", false)];
        for (prefix, expected) in rows {
            assert_eq!(is_on_every_link(&prefix.parse().expect("a prefix")), expected, "{prefix}");
        }
    }
}
