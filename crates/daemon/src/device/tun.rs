//! The TUN interface of a device.

use std::fs::OpenOptions;

use overlay_os::privileges::has_net_admin;
use overlay_os::tun::{Tun, TunError};

use crate::config::Switch;
use crate::failure::{ExitKind, Failure};
use crate::permission;

/// The device that creates TUN interfaces.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Creates the TUN interface `name`, down and without addresses. With [`Switch::Auto`] it may lack offloads.
///
/// # Errors
/// [`ExitKind::Conflict`] if the name is taken, [`ExitKind::Permission`] without the privilege.
pub fn open_tun(name: &str, offload: Switch) -> Result<Tun, Failure> {
    let created = match Tun::create(name, offload != Switch::Off) {
        Err(TunError::Io(error)) if offload == Switch::Auto => {
            tracing::warn!(%error, "this kernel has no offloads for TUN: packets pass one by one");
            Tun::create(name, false)
        }
        created => created,
    };
    created.map_err(|error| {
        let code = match error {
            TunError::Busy => ExitKind::Conflict,
            TunError::Permission => ExitKind::Permission,
            _ => ExitKind::Other,
        };
        let failure = Failure::new(code, format!("cannot create the interface `{name}`")).with_cause(&error);
        match error {
            TunError::Io(_) if offload == Switch::On => failure.with_hint(
                "set `tun_offload = \"auto\"` under [tuning] to run without offloads where the kernel has none",
            ),
            TunError::Busy => failure.with_hint(format!("ip link show {name} shows what it is")),
            TunError::Permission => match OpenOptions::new().read(true).write(true).open(TUN_DEVICE) {
                Err(_) if has_net_admin() => {
                    failure.with_cause(format!("{TUN_DEVICE} may not be opened by this process")).with_hint(format!(
                        "sudo chmod 666 {TUN_DEVICE}, as udev does; in a unit: DeviceAllow={TUN_DEVICE} rw"
                    ))
                }
                _ => permission::refused_by_kernel(failure),
            },
            _ => failure,
        }
    })
}
