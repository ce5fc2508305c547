//! Whether the route to a peer's endpoint leads into the tunnel. The tunnel's own packets would then loop forever.
//!
//! The kernel is asked, because prefixes alone do not tell: a connected network or a host route that is more specific
//! than ours keeps the endpoint outside. A user who sets a mark, a table or table = "off" is responsible for routing
//! and is not refused. Mistakes then show up in `status`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_os::netlink::{MAIN_TABLE, Netlink, RouteTo};

use super::footprint::Footprint;
use crate::config::{Config, Endpoint};
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

/// Fails with [`ExitKind::Config`] if a route of `wanted` would be the most specific one to an endpoint that the config
/// gives as an address. Called before anything is in place.
pub(super) async fn require_ways(netlink: &Netlink, config: &Config, wanted: &Footprint) -> Result<(), Failure> {
    if config.interface.fwmark.is_some() {
        return Ok(());
    }
    for peer in &config.peers {
        let Some(Endpoint::Address(endpoint)) = peer.endpoint else { continue };
        let ip = endpoint.ip();
        let Some(ours) = most_specific(wanted, ip).filter(|_| !is_scoped(&endpoint)) else { continue };
        // If the kernel gives no answer, nothing is refused. `status` reports a loop afterwards.
        let Ok(now) = netlink.matching_route(ip).await else { continue };
        if let Some((prefix, way)) = &now
            && (way.table != MAIN_TABLE || prefix.prefix_len() > ours.prefix_len())
        {
            continue;
        }
        let file = config.path.display();
        let keep_out = match now {
            Some((_, way)) => format!("sudo {}", host_route(netlink, ip, &way).await),
            None => "set table = \"off\" in [interface] and route by hand".to_owned(),
        };
        return Err(Failure::new(
            ExitKind::Config,
            format!("the route to the endpoint {ip} of peer `{}` would lead into the tunnel", peer.label()),
        )
        .with_cause(format!("this host has no route to it that is more specific than the tunnel's route to {ours}"))
        .with_hint(format!("{keep_out}; or take {ip} out of the prefixes in {file}")));
    }
    Ok(())
}

/// Returns the command that adds a route which keeps `ip` where it is now.
async fn host_route(netlink: &Netlink, ip: IpAddr, way: &RouteTo) -> String {
    let links = netlink.links().await.unwrap_or_default();
    let device = links.iter().find(|link| link.index == way.interface).map(|link| format!(" dev {}", link.name));
    let via = way.gateway.map(|gateway| format!(" via {gateway}"));
    format!("ip route add {}{}{}", IpNet::from(ip), via.unwrap_or_default(), device.unwrap_or_default())
}

/// Returns a warning if packets to this endpoint with this mark are really routed into the tunnel `own`.
pub(super) async fn loop_of(
    netlink: &Netlink,
    standing: &Footprint,
    own: u32,
    fwmark: Option<u32>,
    endpoint: SocketAddr,
    peer: &str,
) -> Option<StatusWarning> {
    let ip = endpoint.ip();
    let is_covered = standing.covering(&IpNet::from(ip)).is_some() || most_specific(standing, ip).is_some();
    if !is_covered || is_scoped(&endpoint) {
        return None;
    }
    let way = netlink.route_to(ip, fwmark).await.ok()??;
    (way.interface == own).then(|| {
        StatusWarning::new(
            "endpoint_in_tunnel",
            format!("the route to the endpoint {ip} of peer `{peer}` leads into the tunnel: packets to it are dropped"),
            format!(
                "give this host a route to {} outside of the tunnel, or take {ip} out of `allowed_ips`",
                IpNet::from(ip)
            ),
        )
    })
}

/// Returns the most specific prefix containing `ip` that the main table routes into the tunnel.
fn most_specific(footprint: &Footprint, ip: IpAddr) -> Option<IpNet> {
    if !footprint.is_routed {
        return footprint.connected().filter(|net| net.contains(&ip)).max_by_key(IpNet::prefix_len);
    }
    let routes = footprint.routes.iter().filter(|route| route.table == MAIN_TABLE).map(|route| route.destination);
    routes.chain(footprint.connected()).filter(|net| net.contains(&ip)).max_by_key(IpNet::prefix_len)
}

/// Whether the endpoint is link-local. It then names its link, and the kernel consults no table.
fn is_scoped(endpoint: &SocketAddr) -> bool {
    matches!(endpoint, SocketAddr::V6(v6) if v6.scope_id() != 0)
}
