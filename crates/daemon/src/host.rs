//! The footprint on this Linux host, and how it is removed again.
//!
//! Everything that a running daemon adds to the system is either tied to its TUN interface, which vanishes with the
//! process, or recorded in a [`Journal`] *before* it is added. However the process ends, the next `overlay up` or
//! `overlay down` therefore removes all of it and nothing else.
//!
//! In the order of a start:
//!
//! 1. [`require_net_admin`]: without this privilege no other check matters.
//! 2. [`Runtime::acquire_to_run`]: there is one daemon of a name. This claims its files in the runtime folder.
//! 3. [`Runtime::clean_leftovers_but_locks`] removes what an earlier daemon of this name left behind, but for what locks
//!    a default route in.
//! 4. [`preflight()`] refuses what would collide, while the system is still unchanged. Then
//!    [`Runtime::remove_locks`].
//! 5. [`Journal::begin`], the sockets, the TUN.
//! 6. [`mtu_range()`] and [`Host::bring_up`]: first the nft guard, then addresses, MTU, routes, rules.
//! 7. [`Host::apply`] on each reload, [`Host::set_path_mtu`] when a path's MTU becomes known, [`Host::look`] when
//!    [`HostWatch`] reports that another program may have removed something, [`Host::take_down`] at the end.
//!
//! [`Footprint::plan`], a pure function of the config, computes the wanted state. One procedure converges the system to
//! it, in a start, a reload and an undo alike.
//!
//! Left out: the host's DNS, and forwarding sysctls, which belong to the user.

mod collisions;
mod facts;
mod families;
pub mod flows;
mod footprint;
mod guard;
mod interface;
mod journal;
mod leftovers;
mod link_settings;
mod mtu;
#[cfg(test)]
pub(crate) mod own_namespace;
mod preflight;
mod runtime;
mod surroundings;
mod watch;
mod ways;

pub use facts::{GuardState, HostFacts, HostState, HostStatus, Part, PutBack};
pub use families::{LeftOut, leave_out, left_out, require_one_family};
pub use footprint::{Covered, Footprint, MarkedTable, PlannedRoute};
pub(crate) use guard::{fails_closed, takes_over_guard};
pub use interface::Host;
pub(crate) use interface::TUN_QUEUE_LEN;
pub use journal::Journal;
pub use leftovers::{Cleaned, clean_leftovers};
pub(crate) use link_settings::refuse_configuration;
pub use mtu::mtu_range;
pub use preflight::{preflight, require_net_admin, require_tun_device};
pub use runtime::{Runtime, home, open_log};
pub use watch::{HostWatch, Looked, Verdict};

use overlay_os::netlink::NetlinkError;

use crate::failure::{ExitKind, Failure};

/// Turns a failed netlink request into a message for the user. `what` is the step, such as "cannot add the route
/// 10.0.0.0/8".
fn netlink_failure(what: impl Into<String>, error: &NetlinkError) -> Failure {
    match error {
        NetlinkError::Permission => crate::permission::refused_by_kernel(Failure::new(ExitKind::Permission, what)),
        NetlinkError::Exists => Failure::new(ExitKind::Conflict, what).with_cause("it already exists"),
        other => Failure::new(ExitKind::Other, what).with_cause(other),
    }
}
