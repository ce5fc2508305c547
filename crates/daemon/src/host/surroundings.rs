//! What lies around the tunnel on this host, as far as the locks need to know: which interfaces lead to the host's own
//! containers, and which destinations its main table routes past the tunnel.
//!
//! **Own interfaces.** A virtual IP answers on our interface, on loopback, and for the host's own containers. The
//! kernel cannot say what a container is, so these rules decide. Each of them errs towards "foreign":
//!
//! * A bridge is own if all its ports are virtual ends that only this host can have created (veth, tap, dummy). A
//!   bridge with a network card, a VLAN, a bond or a VXLAN leads to other hosts. A port is judged by its bridge.
//! * A veth or tap without a bridge is own only with `forward = true`. Otherwise it may be this host's uplink, as on a
//!   host that is itself a container.
//! * An interface with a default route, a route to a gateway, or a route to a peer's endpoint is an uplink, and never
//!   own.
//!
//! **Direct destinations** are those that the policy rules leave to the main table: destinations for which it has a
//! more specific route than its default route, unless a longer prefix within that route belongs to a peer.
//!
//! The local network supplies routes, too: by DHCP (option 121), router advertisements and redirects. If
//! they opened the locks, a stranger in a cafe could lead everything past the tunnel with two routes of length 1. So a
//! learned route opens nothing, unless it is the on-link prefix of one of this host's addresses or lies within a route
//! that is direct anyway. A route that is nearly a default route opens nothing, whatever its origin: some DHCP clients
//! add what they learn as a person would. Destinations of such **refused routes** are led into the tunnel.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use overlay_os::netlink::{Address, Link, MAIN_TABLE, Route};

use super::footprint::is_ipv4;

/// The kinds of bridge ports that lead to containers and virtual machines of this host alone.
const VIRTUAL_PORTS: [&str; 3] = ["veth", "tun", "dummy"];
/// The origins of routes that others supply (`/etc/iproute2/rt_protos`): ICMP redirects, router advertisements, DHCP.
const LEARNED: [u8; 3] = [1, 9, 16];
/// The origin of routes that the kernel derived from an address, or for IPv6 from a router advertisement.
const KERNEL: u8 = 2;
/// The shortest direct prefixes. 10.0.0.0/8 is the largest private network. For IPv6, no operator has more than a /16.
const SHORTEST_DIRECT: (u8, u8) = (8, 16);
/// How many routes may lead refused destinations into the tunnel. The guard drops the rest.
const MAX_DETOURS: usize = 512;
/// The index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// What the guard knows about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The own interfaces, by index.
    pub(super) own: Vec<u32>,
    /// The names of the own interfaces.
    pub(super) names: Vec<String>,
    /// Disjoint ranges of direct destinations, as first and last address.
    pub(super) direct: Vec<(IpAddr, IpAddr)>,
    /// Routes that open nothing because others supply them, or because they are nearly default routes. Sorted.
    pub(super) refused: Vec<IpNet>,
    /// Disjoint prefixes of the destinations of refused routes.
    pub(super) detours: Vec<IpNet>,
}

/// The facts that decide whether an interface is an uplink or an own one.
pub(super) struct Question<'a> {
    /// The index of our interface.
    pub(super) ours: u32,
    /// Whether other hosts may send through this host.
    pub(super) forward: bool,
    /// Where peers are reached.
    pub(super) endpoints: &'a [IpAddr],
}

/// Whether any link could be an own interface. If not, there is no need to look at routes.
pub(super) fn has_candidates(links: &[Link], question: &Question<'_>) -> bool {
    links.iter().any(|link| is_candidate(link, links, question))
}

/// Returns index and name of each own interface.
pub(super) fn own_interfaces(links: &[Link], routes: &[Route], question: &Question<'_>) -> (Vec<u32>, Vec<String>) {
    let candidates = links.iter().filter(|link| is_candidate(link, links, question));
    candidates.filter(|link| !is_uplink(link, routes, question)).map(|link| (link.index, link.name.clone())).unzip()
}

fn is_candidate(link: &Link, links: &[Link], question: &Question<'_>) -> bool {
    if link.index == question.ours || link.controller.is_some() {
        return false;
    }
    match link.kind.as_deref() {
        Some("bridge") => links
            .iter()
            .filter(|port| port.controller == Some(link.index))
            .all(|port| port.kind.as_deref().is_some_and(|kind| VIRTUAL_PORTS.contains(&kind))),
        Some("veth" | "tun") => link.is_ethernet && question.forward,
        _ => false,
    }
}

fn is_uplink(link: &Link, routes: &[Route], question: &Question<'_>) -> bool {
    routes.iter().filter(|route| route.interface == Some(link.index)).any(|route| {
        let leads_on = route.destination.prefix_len() == 0 || route.gateway.is_some();
        leads_on || question.endpoints.iter().any(|endpoint| route.destination.contains(endpoint))
    })
}

/// Finds the direct destinations and the refused routes. `planned` are the prefixes of our own routes into the tunnel,
/// whether or not they are in place at the moment. `addresses` are those of this host.
pub(super) fn beside_the_tunnel(
    routes: &[Route],
    addresses: &[Address],
    ours: u32,
    planned: impl Iterator<Item = IpNet>,
) -> Surroundings {
    let main = || routes.iter().filter(|route| route.table == MAIN_TABLE);
    let leads_past = |route: &Route| route.interface.is_some_and(|index| index != ours && index != LOOPBACK);
    let is_specific = |route: &&Route| leads_past(route) && route.destination.prefix_len() > 0;
    let (accepted, others): (Vec<&Route>, Vec<&Route>) =
        main().filter(is_specific).partition(|route| is_accepted(route, addresses));
    let accepted: HashSet<IpNet> = accepted.iter().map(|route| route.destination.trunc()).collect();
    let is_direct_anyway =
        |net: &IpNet| std::iter::successors(Some(*net), IpNet::supernet).any(|net| accepted.contains(&net));
    let refused: HashSet<IpNet> =
        others.iter().map(|route| route.destination.trunc()).filter(|net| !is_direct_anyway(net)).collect();

    let mut prefixes: HashMap<IpNet, bool> = planned.map(|net| (net.trunc(), false)).collect();
    for route in main() {
        let net = route.destination.trunc();
        *prefixes.entry(net).or_default() |= leads_past(route) && !refused.contains(&net);
    }
    prefixes.retain(|net, _| net.prefix_len() > 0);
    let direct = |(first, last, is_v4): (u128, u128, bool)| {
        if is_v4 { (v4_of(first).into(), v4_of(last).into()) } else { (v6_of(first).into(), v6_of(last).into()) }
    };
    let mut detours = Vec::new();
    if !refused.is_empty() {
        for (first, last, is_v4) in ranges_of(prefixes.keys().map(|net| (*net, refused.contains(net)))) {
            match is_v4 {
                true => detours.extend(Ipv4Subnets::new(v4_of(first), v4_of(last), 0).map(IpNet::from)),
                false => detours.extend(Ipv6Subnets::new(v6_of(first), v6_of(last), 0).map(IpNet::from)),
            }
        }
        detours.truncate(MAX_DETOURS);
    }
    let mut refused: Vec<IpNet> = refused.into_iter().collect();
    refused.sort_unstable();
    Surroundings {
        direct: ranges_of(prefixes.into_iter()).map(direct).collect(),
        refused,
        detours,
        ..Surroundings::default()
    }
}

/// Whether a route of the main table may lead past the tunnel by itself.
fn is_accepted(route: &Route, addresses: &[Address]) -> bool {
    let net = &route.destination;
    let (v4, v6) = SHORTEST_DIRECT;
    if net.prefix_len() < if is_ipv4(net) { v4 } else { v6 } {
        return false;
    }
    let is_learned = LEARNED.contains(&route.protocol);
    // Router advertisements make the kernel add on-link prefixes. It adds host routes for addresses of point-to-point
    // links alone.
    let is_announced = route.protocol == KERNEL && !is_ipv4(net) && net.prefix_len() < net.max_prefix_len();
    let is_our_link = || {
        let has = |address: &Address| Some(address.index) == route.interface && net.contains(&address.ip);
        route.gateway.is_none() && addresses.iter().any(has)
    };
    !(is_learned || is_announced) || is_our_link()
}

/// Returns the addresses whose longest prefix is marked, as ranges with first address, last address and whether they
/// are IPv4.
fn ranges_of(prefixes: impl Iterator<Item = (IpNet, bool)>) -> impl Iterator<Item = (u128, u128, bool)> {
    let (v4, v6): (Vec<_>, Vec<_>) = prefixes.partition(|(net, _)| is_ipv4(net));
    let v4 = longest_first_wins(v4).into_iter().map(|(first, last)| (first, last, true));
    v4.chain(longest_first_wins(v6).into_iter().map(|(first, last)| (first, last, false)))
}

/// Returns the addresses whose longest prefix is marked, as disjoint ranges that do not touch. All prefixes are of one
/// family.
fn longest_first_wins(prefixes: Vec<(IpNet, bool)>) -> Vec<(u128, u128)> {
    let mut spans: Vec<_> =
        prefixes.iter().map(|(net, is_in)| (number(net.network()), number(net.broadcast()), *is_in)).collect();
    // A prefix comes before the prefixes inside it.
    spans.sort_unstable_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
    let mut ranges = Vec::new();
    // The prefixes that contain the current address, longest last.
    let mut open: Vec<(u128, bool)> = Vec::new();
    // The first undecided address, or `None` after the last address of the family.
    let mut next = Some(0);
    for (first, last, is_in) in spans {
        while let Some(&(end, was_in)) = open.last()
            && end < first
        {
            take(&mut ranges, &mut next, end, was_in);
            open.pop();
        }
        if let (Some(&(_, was_in)), Some(before)) = (open.last(), first.checked_sub(1)) {
            take(&mut ranges, &mut next, before, was_in);
        }
        next = next.map(|next| next.max(first));
        open.push((last, is_in));
    }
    while let Some((end, was_in)) = open.pop() {
        take(&mut ranges, &mut next, end, was_in);
    }
    ranges
}

/// Decides the addresses from `next` to `end`.
fn take(ranges: &mut Vec<(u128, u128)>, next: &mut Option<u128>, end: u128, is_in: bool) {
    let Some(first) = next.filter(|first| *first <= end) else { return };
    *next = end.checked_add(1);
    if !is_in {
        return;
    }
    match ranges.last_mut() {
        Some((_, last)) if last.checked_add(1) == Some(first) => *last = end,
        _ => ranges.push((first, end)),
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn v4_of(number: u128) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn v6_of(number: u128) -> Ipv6Addr {
    Ipv6Addr::from(number)
}

/// Returns the virtual IPs and the broadcast addresses of their prefixes. Linux treats a broadcast address as its own,
/// too, on whatever interface the packet arrives.
pub(super) fn guarded_addresses(addresses: &[IpNet]) -> Vec<IpAddr> {
    let broadcast = |net: &IpNet| match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast().into()),
        _ => None,
    };
    let all = addresses.iter().flat_map(|net| [Some(net.addr()), broadcast(net)]).flatten();
    let mut seen = HashSet::new();
    all.filter(|ip| seen.insert(*ip)).collect()
}

#[cfg(test)]
mod tests;
