//! The families that an agent cannot have on this host, because its network's prefix is in use elsewhere or IPv6 is off.
//!
//! An agent does not choose its addresses. So one family that collides is left out, and the other one goes on.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_os::netlink::{MAIN_TABLE, Netlink};

use super::collisions::{loses_against_ours, name_of};
use super::netlink_failure;
use super::preflight::ipv6_usable;
use crate::config::Config;
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

/// A family that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The network's prefix in this family.
    pool: IpNet,
    /// What is in the way, and the fix.
    pub warning: StatusWarning,
}

/// Returns which of the pools cannot be used. `own` is the name and index of our interface, if it exists. `answers` are names
/// with the addresses that they resolve to.
///
/// # Errors
/// The kernel does not list its addresses or routes.
pub async fn left_out(
    netlink: &Netlink,
    pools: &[IpNet],
    own: Option<(&str, u32)>,
    answers: &[(String, IpAddr)],
) -> Result<Vec<LeftOut>, Failure> {
    let index = own.map(|(_, index)| index);
    let cannot = |what: &str| {
        let what = format!("cannot list the {what} of this host");
        move |error| netlink_failure(what, &error)
    };
    let links = netlink.links().await.map_err(cannot("interfaces"))?;
    let addresses = netlink.addresses().await.map_err(cannot("addresses"))?;
    let routes = netlink.routes().await.map_err(cannot("routes"))?;
    let mut found = Vec::new();
    for pool in pools {
        let (family, other) = if pool.addr().is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let goes_on = format!("this agent goes on without {family}");
        if pool.addr().is_ipv6() && !ipv6_usable(own.map_or("default", |(name, _)| name)) {
            let hint = "sudo sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0";
            let message = format!("this host has IPv6 switched off: {goes_on}");
            found.push(LeftOut { pool: *pool, warning: StatusWarning::new("ipv6_off", message, hint) });
            continue;
        }
        let taken = addresses.iter().find(|address| Some(address.index) != index && pool.contains(&address.ip));
        let taken = taken.map(|address| {
            let (ip, device) = (address.ip, name_of(&links, address.index));
            let fix = format!("sudo ip address delete {ip}/{} dev {device}", address.prefix);
            (format!("the address {ip} on `{device}`"), fix)
        });
        let routed = || {
            let route = routes.iter().find(|route| {
                let is_ours = index.is_some() && route.interface == index;
                let wins = route.destination.trunc() != pool.trunc() || !loses_against_ours(route);
                route.table == MAIN_TABLE && !is_ours && pool.contains(&route.destination) && wins
            })?;
            let (to, version) = (route.destination, if pool.addr().is_ipv4() { 4 } else { 6 });
            Some(match route.interface.map(|index| name_of(&links, index)) {
                Some(device) => (
                    format!("a route to {to} through `{device}`"),
                    format!("sudo ip -{version} route delete {to} dev {device}"),
                ),
                None => (format!("a route to {to} without a device"), format!("sudo ip -{version} route delete {to}")),
            })
        };
        let resolved = || {
            let (name, ip) = answers.iter().find(|(_, ip)| pool.contains(ip))?;
            let fix = "give the program on this host that answers with fake addresses a different range".to_owned();
            Some((format!("the address {ip} of `{name}`"), fix))
        };
        if let Some((what, fix)) = taken.or_else(routed).or_else(resolved) {
            let message = format!("{what} is inside {pool}, which the network uses: {goes_on}");
            let hint = format!("use the {other} addresses of the agents, or: {fix}");
            found.push(LeftOut { pool: *pool, warning: StatusWarning::new("family_left_out", message, hint) });
        }
    }
    Ok(found)
}

/// Removes what is inside the pools that are left out: our addresses there, and those of our peers.
pub fn leave_out(config: &mut Config, left_out: &[LeftOut]) {
    let stays = |net: &IpNet| !left_out.iter().any(|left| left.pool.contains(&net.addr()));
    config.interface.addresses.retain(stays);
    if !left_out.is_empty() {
        for peer in &mut config.peers {
            peer.allowed_ips.retain(stays);
        }
    }
}

/// Refuses to start an agent that could have neither family.
///
/// # Errors
/// [`ExitKind::Conflict`] if both are left out.
pub fn require_one_family(left_out: &[LeftOut]) -> Result<(), Failure> {
    let has = |is_v4: bool| left_out.iter().find(|left| left.pool.addr().is_ipv4() == is_v4);
    let (Some(v4), Some(v6)) = (has(true), has(false)) else { return Ok(()) };
    let failure = Failure::new(ExitKind::Conflict, "this agent can have neither IPv4 nor IPv6 on this host")
        .with_cause(format!("{}; {}", v4.warning.message, v6.warning.message));
    Err(match &v4.warning.hint {
        Some(hint) => failure.with_hint(hint.replace("use the IPv6 addresses of the agents, or: ", "")),
        None => failure,
    })
}
