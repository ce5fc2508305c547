//! What would collide is refused before anything is touched.
//!
//! Each check has the one message that tells the user what stands in the way, by name, and what to do about it. That the
//! kernel would refuse most of it later is no substitute: it says `File exists`. Ports are found in use when they are
//! bound, and a route that swallows its own endpoint is found by the config's own checks.

use std::collections::HashMap;
use std::path::Path;

use ipnet::IpNet;
use overlay_os::netlink::{Link, MAIN_TABLE, Netlink, Route};

use super::footprint::{FIRST_MARKED_TABLE, Footprint};
use super::netlink_failure;
use crate::config::{Config, MtuRange};
use crate::failure::{ExitKind, Failure};
use crate::permission::hint_to_get_net_admin;

/// Where Linux hands out TUN interfaces.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Refuses with [`ExitKind::Permission`] without CAP_NET_ADMIN. `command` is what `overlay` was given: `up lab`.
pub fn require_net_admin(command: &str) -> Result<(), Failure> {
    if overlay_os::privileges::has_net_admin() {
        return Ok(());
    }
    Err(Failure::new(ExitKind::Permission, "creating a network interface needs root")
        .with_cause("this process lacks the capability CAP_NET_ADMIN")
        .with_hint(hint_to_get_net_admin(&format!("sudo overlay {command}"))))
}

/// Everything that can be known to fail while the system is still unchanged.
///
/// Errors: [`ExitKind::Permission`] without CAP_NET_ADMIN; [`ExitKind::Other`] without `/dev/net/tun`;
/// [`ExitKind::Conflict`] where the interface's name, an address or a route is taken.
pub async fn preflight(netlink: &Netlink, config: &Config) -> Result<(), Failure> {
    require_net_admin(&format!("up {}", config.path.display()))?;
    require_tun_device()?;
    require_free_name(netlink, config).await?;
    let wanted = Footprint::plan(config, MtuRange::fixed(u16::MAX), ipv6_usable("default"), FIRST_MARKED_TABLE);
    require_no_collision(netlink, config, &wanted, None).await
}

/// Refuses with [`ExitKind::Other`] where this host hands out no TUN interfaces.
pub fn require_tun_device() -> Result<(), Failure> {
    require_device(Path::new(TUN_DEVICE))
}

fn require_device(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    Err(Failure::new(ExitKind::Other, format!("{} is missing", path.display()))
        .with_cause("the kernel module `tun` is not loaded, or this container was not given the device")
        .with_hint("sudo modprobe tun; in a container: docker run --cap-add NET_ADMIN --device /dev/net/tun ..."))
}

/// A link of our name is never adopted, not even a persistent TUN, which the kernel would hand out without a word.
async fn require_free_name(netlink: &Netlink, config: &Config) -> Result<(), Failure> {
    let name = &config.interface.name;
    let link = netlink.link(name).await.map_err(|error| netlink_failure("cannot list the interfaces", &error))?;
    match link {
        None => Ok(()),
        Some(link) => {
            let kind = match link.kind.as_deref() {
                Some(kind) => format!("a `{kind}` device"),
                None => "a hardware or loopback device".to_owned(),
            };
            Err(Failure::new(ExitKind::Conflict, format!("interface `{name}` already exists"))
                .with_cause(format!("it is {kind} that this daemon did not make, and none is ever taken over"))
                .with_hint(format!("sudo ip link delete {name}, or set another `name` in {}", config.path.display())))
        }
    }
}

/// Neither an address nor a route of ours may be on another device. `own` is our interface, when it exists.
pub(super) async fn require_no_collision(
    netlink: &Netlink,
    config: &Config,
    wanted: &Footprint,
    own: Option<u32>,
) -> Result<(), Failure> {
    let cannot = |what: &str| {
        let what = format!("cannot list the {what} of this host");
        move |error| netlink_failure(what, &error)
    };
    let links = netlink.links().await.map_err(cannot("interfaces"))?;
    let file = config.path.display();

    let taken = netlink.addresses().await.map_err(cannot("addresses"))?;
    for ours in &wanted.addresses {
        if let Some(other) = taken.iter().find(|other| other.ip == ours.addr() && Some(other.index) != own) {
            let device = name_of(&links, other.index);
            return Err(Failure::new(
                ExitKind::Conflict,
                format!("address {} is already in use on `{device}`", ours.addr()),
            )
            .with_cause("a virtual IP answers on its own interface only")
            .with_hint(format!(
                "give this host another address in {file}, or: sudo ip address delete {}/{} dev {device}",
                other.ip, other.prefix
            )));
        }
    }

    let routes = netlink.routes().await.map_err(cannot("routes"))?;
    let others: HashMap<(IpNet, u32), &Route> = routes
        .iter()
        .filter(|route| own.is_none() || route.interface != own)
        .map(|route| ((route.destination.trunc(), route.table), route))
        .collect();
    for prefix in wanted.connected().filter(|prefix| !is_on_every_link(prefix)) {
        if let Some(route) = others.get(&(prefix, MAIN_TABLE)) {
            return Err(taken_route(prefix, MAIN_TABLE, route, &links)
                .with_hint(format!("choose addresses from another prefix in {file}")));
        }
    }
    for ours in &wanted.routes {
        // Where the config names no mark, a table without routes is chosen.
        if config.interface.fwmark.is_none() && wanted.marked.is_some_and(|marked| marked.table == ours.table) {
            continue;
        }
        if let Some(route) = others.get(&(ours.destination, ours.table)) {
            return Err(taken_route(ours.destination, ours.table, route, &links)
                .with_hint(format!("change `allowed_ips` in {file}, or set table = \"off\" there and route by hand")));
        }
    }
    Ok(())
}

/// Whether the kernel has usable IPv6 on this interface, or for new ones by the name `default`.
pub(super) fn ipv6_usable(interface: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))
        .is_ok_and(|value| value.trim() == "0")
}

/// Link-local prefixes are connected everywhere, and that is no collision.
fn is_on_every_link(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

fn taken_route(prefix: IpNet, table: u32, route: &Route, links: &[Link]) -> Failure {
    let device = match route.interface {
        Some(index) => format!("through `{}`", name_of(links, index)),
        None => "without a device".to_owned(),
    };
    let table = if table == MAIN_TABLE { String::new() } else { format!(" in table {table}") };
    Failure::new(ExitKind::Conflict, format!("a route to {prefix} already exists{table}, {device}"))
        .with_cause("the config sends the same prefix through the tunnel")
}

fn name_of(links: &[Link], index: u32) -> String {
    links.iter().find(|link| link.index == index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tun_device_is_told_with_its_reason() {
        let failure = require_device(Path::new("/nonexistent/net/tun")).expect_err("missing");
        assert_eq!(failure.code, ExitKind::Other);
        assert_eq!(failure.error, "/nonexistent/net/tun is missing");
    }

    #[test]
    fn link_local_prefixes_collide_with_nothing() {
        let rows = [("fe80::/64", true), ("169.254.0.0/16", true), ("fd77::/64", false), ("10.77.0.0/24", false)];
        for (prefix, expected) in rows {
            assert_eq!(is_on_every_link(&prefix.parse().expect("a prefix")), expected, "{prefix}");
        }
    }
}
