//! `mtu = "auto"`: what wg-quick would compute.
//!
//! wg-quick's `set_mtu_up`: for each endpoint the MTU of the route to it, else that of the route's device; the largest
//! of them; without any, that of the IPv4 default route or its device; else 1500. Minus 80, which is WireGuard's
//! overhead over IPv6. Two differences, both of need: our mark is given to the look-up, so that on a reload a default
//! route through ourselves is not taken for the way to the endpoint; and an interface with IPv6 addresses gets no less
//! than 1280.

use std::net::SocketAddr;

use ipnet::IpNet;
use overlay_os::netlink::{Link, MAIN_TABLE, Netlink, Route};

use super::footprint::{MINIMUM_INTERFACE_MTU, is_ipv4};
use crate::config::Config;

/// WireGuard over IPv6: 40 bytes IPv6, 8 UDP, 16 header, 16 tag.
const OVERHEAD: u32 = 80;
/// When nothing on this host says otherwise: Ethernet.
const ETHERNET: u32 = 1500;
/// The least a config may ask for: what every IPv4 host takes in (RFC 791).
const LEAST: u32 = 576;

/// The inner MTU for `mtu = "auto"`, 576..=65535; 1280 or more with an IPv6 address in the config. `endpoints` are
/// those that are known by now: a host name that was not resolved yet does not count. Never fails: what the kernel
/// does not answer is left out, as wg-quick does.
pub async fn auto_mtu(netlink: &Netlink, config: &Config, endpoints: &[SocketAddr]) -> u16 {
    auto_mtu_past(netlink, config, endpoints, config.interface.fwmark).await
}

/// [`auto_mtu`] with the mark that keeps outer datagrams out of our own default route.
pub(super) async fn auto_mtu_past(
    netlink: &Netlink,
    config: &Config,
    endpoints: &[SocketAddr],
    mark: Option<u32>,
) -> u16 {
    let links = netlink.links().await.unwrap_or_default();
    let mut outer = 0;
    for endpoint in endpoints {
        if let Ok(Some(route)) = netlink.route_to(endpoint.ip(), mark).await {
            let mtu = route.mtu.or_else(|| mtu_of(&links, route.interface));
            outer = outer.max(mtu.unwrap_or(0));
        }
    }
    if outer == 0 {
        outer = mtu_of_default_route(netlink, &links).await.unwrap_or(ETHERNET);
    }
    let has_ipv6 = config.interface.addresses.iter().any(|net| !is_ipv4(net));
    inner_mtu(outer, has_ipv6)
}

fn inner_mtu(outer: u32, has_ipv6: bool) -> u16 {
    let least = if has_ipv6 { MINIMUM_INTERFACE_MTU.into() } else { LEAST };
    let inner = outer.saturating_sub(OVERHEAD).clamp(least, u16::MAX.into());
    inner.try_into().expect("clamped to 16 bits")
}

async fn mtu_of_default_route(netlink: &Netlink, links: &[Link]) -> Option<u32> {
    let routes = netlink.routes().await.ok()?;
    let first = default_routes(&routes).min_by_key(|route| route.metric.unwrap_or(0))?;
    first.mtu.or_else(|| mtu_of(links, first.interface?))
}

/// The IPv4 default routes of the main table.
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
