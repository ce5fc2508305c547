//! Refuses what would collide before anything is changed.
//!
//! Each check has its own message, which names what is in the way and says what to do about it. The kernel would refuse
//! most of this later, but would only say `File exists`. Ports that are in use are noticed when they are bound.

use std::path::Path;

use overlay_os::netlink::Netlink;

use super::collisions::{Depth, collisions};
use super::footprint::{FIRST_MARKED_TABLE, Footprint};
use super::netlink_failure;
use super::ways::require_ways;
use crate::config::{Config, MtuRange};
use crate::failure::{ExitKind, Failure};
use crate::permission::hint_to_get_net_admin;

/// The device that creates TUN interfaces.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Fails with [`ExitKind::Permission`] without CAP_NET_ADMIN. `command` is the arguments of `overlay`, such as `up
/// lab`.
pub fn require_net_admin(command: &str) -> Result<(), Failure> {
    if overlay_os::privileges::has_net_admin() {
        return Ok(());
    }
    Err(Failure::new(ExitKind::Permission, "creating a network interface needs root")
        .with_cause("this process lacks the capability CAP_NET_ADMIN")
        .with_hint(hint_to_get_net_admin(&format!("sudo overlay {command}"))))
}

/// Checks everything that can be known to fail while the system is still unchanged.
///
/// Errors: [`ExitKind::Permission`] without CAP_NET_ADMIN. [`ExitKind::Other`] without `/dev/net/tun`.
/// [`ExitKind::Conflict`] if the interface's name, an address or a route is taken. [`ExitKind::Config`] if the route to
/// an endpoint would lead into the tunnel.
pub async fn preflight(netlink: &Netlink, config: &Config) -> Result<(), Failure> {
    require_net_admin(&format!("up {}", config.path.display()))?;
    require_tun_device()?;
    require_free_name(netlink, config).await?;
    let wanted = Footprint::plan(config, MtuRange::fixed(u16::MAX), ipv6_usable("default"), FIRST_MARKED_TABLE);
    if let Some(collision) = collisions(netlink, config, &wanted, None, Depth::Routes).await?.first() {
        return Err(collision.refusal(config));
    }
    require_ways(netlink, config, &wanted).await
}

/// Fails with [`ExitKind::Other`] if this host cannot create TUN interfaces.
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

/// Refuses a name that is taken. An existing link is never adopted, not even a persistent TUN, which the kernel would
/// hand out silently.
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
                .with_cause(format!(
                    "it is {kind} that this daemon did not create, and overlay never takes over an interface"
                ))
                .with_hint(format!(
                    "sudo ip link delete {name}, or set a different `name` in {}",
                    config.path.display()
                )))
        }
    }
}

/// Whether the kernel has usable IPv6 on this interface. `default` stands for new interfaces. An interface whose MTU is
/// too small for IPv6 starts over like a new one.
pub(super) fn ipv6_usable(interface: &str) -> bool {
    let switched_off = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
    switched_off(interface).or_else(|_| switched_off("default")).is_ok_and(|value| value.trim() == "0")
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn a_missing_tun_device_is_told_with_its_reason() {
        let failure = require_device(Path::new("/nonexistent/net/tun")).expect_err("missing");
        assert_eq!(failure.code, ExitKind::Other);
        golden("no device", failure.lines());
    }
}
