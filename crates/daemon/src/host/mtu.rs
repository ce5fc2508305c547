//! `mtu = "auto"`: what wg-quick would compute, and how much more a path may turn out to carry.
//!
//! wg-quick's `set_mtu_up` takes, for each endpoint, the MTU of the route to it or else of the route's device, and uses
//! the largest. Without endpoints it takes the IPv4 default route or its device, or else 1500. It subtracts 80, which
//! is WireGuard's overhead over IPv6. We differ in two necessary ways. Our mark is part of the lookup, so that on a
//! reload a default route through ourselves is not taken for the route to the endpoint. And an interface with IPv6
//! addresses gets at least 1280.
//!
//! This is the start value of every path. The maximum is what exactly fits the same routes: over IPv4 the overhead is
//! 60 bytes. A path may be raised above the start value once probes have proven it.

use std::net::SocketAddr;

use ipnet::IpNet;
use overlay_os::netlink::{Link, MAIN_TABLE, Netlink, Route, RouteTo};

use super::footprint::{MINIMUM_INTERFACE_MTU, is_ipv4};
use crate::config::{Config, Mtu, MtuRange, Table};

/// WireGuard's overhead over IPv6 in bytes: 40 IPv6, 8 UDP, 16 header, 16 tag.
const OVERHEAD: u32 = 80;
/// WireGuard's overhead over IPv4 in bytes.
const OVERHEAD_IPV4: u32 = 60;
/// The outer MTU if nothing on this host says otherwise: Ethernet.
const ETHERNET: u32 = 1500;
/// The smallest MTU that a config may ask for: what every IPv4 host accepts (RFC 791).
const LEAST: u32 = 576;

/// Computes the inner MTUs of a config. `endpoints` are the known ones: a host name that is not yet resolved does not
/// count. Never fails: what the kernel does not answer is left out, as in wg-quick. `start` is at least 1280 if the
/// config has an IPv6 address. With `table = "off"` we have no routes that could limit packets to less than the
/// interface takes, so the maximum equals the start.
pub async fn mtu_range(netlink: &Netlink, config: &Config, endpoints: &[SocketAddr]) -> MtuRange {
    mtu_range_past(netlink, config, endpoints, config.interface.fwmark).await
}

/// Like [`mtu_range`], with the mark that keeps outer datagrams out of our own default route.
pub(super) async fn mtu_range_past(
    netlink: &Netlink,
    config: &Config,
    endpoints: &[SocketAddr],
    mark: Option<u32>,
) -> MtuRange {
    if let Mtu::Fixed(mtu) = config.interface.mtu {
        return MtuRange::fixed(mtu);
    }
    let links = netlink.links().await.unwrap_or_default();
    let mut routed = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        routed.extend(outer_mtu(netlink, &links, endpoint, mark).await.map(|mtu| (*endpoint, mtu)));
    }
    if routed.is_empty() {
        let outer = mtu_of_default_route(netlink, &links).await.unwrap_or(ETHERNET);
        routed.push((SocketAddr::from(([0, 0, 0, 0], 0)), outer));
    }
    range_of(&routed, config)
}

/// Widens `range` to what the routes to recently learned endpoints carry. The start value stays.
pub(super) async fn widened(
    netlink: &Netlink,
    range: MtuRange,
    endpoints: &[SocketAddr],
    mark: Option<u32>,
) -> MtuRange {
    // Fetches only the links of these routes: a peer that moves all the time must not make us list every link.
    let mut links: Vec<Link> = Vec::new();
    let mut range = range;
    for endpoint in endpoints {
        let Ok(Some(route)) = netlink.route_to(endpoint.ip(), mark).await else { continue };
        if links.iter().all(|link| link.index != route.interface) {
            links.extend(netlink.link_at(route.interface).await.unwrap_or_default());
        }
        // A peer elsewhere cannot have an address of ours, whatever source it claims: loopback does not lead to it.
        if links.iter().any(|link| link.index == route.interface && link.name == "lo") {
            continue;
        }
        if let Some(outer) = mtu_by(&links, &route) {
            range.max = range.max.max(carried(endpoint, outer));
        }
    }
    range
}

/// Computes the start from the largest outer MTU, and the maximum from the largest inner packet that any of them
/// carries.
fn range_of(routed: &[(SocketAddr, u32)], config: &Config) -> MtuRange {
    let has_ipv6 = config.interface.addresses.iter().any(|net| !is_ipv4(net));
    let outer = routed.iter().map(|(_, outer)| *outer).max().unwrap_or(ETHERNET);
    let start = inner_mtu(outer, has_ipv6);
    if config.interface.table == Table::Off {
        return MtuRange::fixed(start);
    }
    let most = routed.iter().map(|(endpoint, outer)| carried(endpoint, *outer)).max();
    MtuRange { start, max: most.unwrap_or(start).max(start) }
}

/// Returns the longest inner packet that fits into `outer` bytes on the way to this endpoint.
pub(super) fn carried(endpoint: &SocketAddr, outer: u32) -> u16 {
    at_most(outer.saturating_sub(if endpoint.is_ipv4() { OVERHEAD_IPV4 } else { OVERHEAD }))
}

fn inner_mtu(outer: u32, has_ipv6: bool) -> u16 {
    let least = if has_ipv6 { MINIMUM_INTERFACE_MTU.into() } else { LEAST };
    at_most(outer.saturating_sub(OVERHEAD).max(least))
}

fn at_most(mtu: u32) -> u16 {
    mtu.try_into().unwrap_or(u16::MAX)
}

async fn outer_mtu(netlink: &Netlink, links: &[Link], endpoint: &SocketAddr, mark: Option<u32>) -> Option<u32> {
    mtu_by(links, &netlink.route_to(endpoint.ip(), mark).await.ok()??)
}

fn mtu_by(links: &[Link], route: &RouteTo) -> Option<u32> {
    route.mtu.or_else(|| mtu_of(links, route.interface)).filter(|mtu| *mtu > 0)
}

async fn mtu_of_default_route(netlink: &Netlink, links: &[Link]) -> Option<u32> {
    let routes = netlink.routes().await.ok()?;
    let first = default_routes(&routes).min_by_key(|route| route.metric.unwrap_or(0))?;
    first.mtu.or_else(|| mtu_of(links, first.interface?))
}

/// Returns the IPv4 default routes of the main table.
pub(super) fn default_routes(routes: &[Route]) -> impl Iterator<Item = &Route> {
    let is_default = |net: &IpNet| is_ipv4(net) && net.prefix_len() == 0;
    routes.iter().filter(move |route| route.table == MAIN_TABLE && is_default(&route.destination))
}

fn mtu_of(links: &[Link], index: u32) -> Option<u32> {
    links.iter().find(|link| link.index == index).map(|link| link.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::own_namespace::{ip, run};

    #[test]
    fn a_peer_that_claims_an_address_of_ours_makes_no_room() {
        run(|| async {
            let netlink = Netlink::connect().await.expect("netlink");
            ip("link add near mtu 9000 type veth peer name far mtu 9000");
            for link in ["near", "far"] {
                ip(&format!("link set {link} up"));
            }
            ip("address add 192.0.2.1/24 dev near");
            let range = MtuRange { start: 1420, max: 1440 };
            for ours in ["127.0.0.1:1", "192.0.2.1:1", "[::1]:1"] {
                let ours = [ours.parse().expect("an endpoint")];
                assert_eq!(widened(&netlink, range, &ours, None).await, range, "{ours:?}");
            }
            let theirs = ["192.0.2.2:1".parse().expect("an endpoint")];
            assert_eq!(widened(&netlink, range, &theirs, None).await, MtuRange { start: 1420, max: 8940 });
        });
    }

    #[test]
    fn the_overhead_of_ipv6_is_taken_off_and_the_floor_holds() {
        let rows = [
            (1500, false, 1420),
            (1500, true, 1420),
            (9000, true, 8920),
            (1300, false, 1220),
            (1300, true, 1280),
            (600, false, 576),
            (40, false, 576),
            (65536, true, 65456),
            (u32::MAX, true, 65535),
        ];
        for (outer, has_ipv6, inner) in rows {
            assert_eq!(inner_mtu(outer, has_ipv6), inner, "{outer} {has_ipv6}");
        }
    }
}
