//! What a daemon gives up once its start-up is complete.
//!
//! It drops the capabilities and groups that it no longer needs, the system calls that it never makes, and the right to
//! write files other than its own. Under the systemd unit it never had most of these. A feature that the kernel lacks
//! is a warning, not a failure.
//!
//! Outside the unit the user stays root, because `reload` reads root's files again. Reading is therefore not
//! restricted: a config may name a key in a new place at any time.

use std::path::Path;

use overlay_os::confine::{refuse_system_calls, write_only_below};
use overlay_os::privileges::{self, Capability, effective_uid};
use overlay_os::process::group_id;
use overlay_os::schedule::Scheduling;

use crate::config::Config;
use crate::serving::UAPI_FOLDER;
use crate::serving::access::GROUP;

/// Where a daemon writes beside its runtime folder: its device, and the settings of its interface.
const PLACES: [&str; 4] = [UAPI_FOLDER, "/dev/net/tun", "/dev/null", "/proc/sys/net"];

/// What the daemon still needs.
pub(crate) struct Needs<'a> {
    /// The folder of lock, journal and socket, if there is one.
    pub(crate) runtime: Option<&'a Path>,
    /// The folder of the agent's state, if there is an agent.
    pub(crate) state: Option<&'a Path>,
    /// The config that a reload reads again, with the files it names.
    pub(crate) config: Option<&'a Config>,
    /// How the engine thread will be scheduled.
    pub(crate) scheduling: Scheduling,
    /// Whether the interface is followed into other network namespaces.
    pub(crate) is_followed: bool,
}

/// Gives up everything else for good. Must be called before there is a second thread, because threads inherit it.
pub(crate) fn confine(needs: &Needs<'_>) {
    let mut keep = vec![Capability::NetAdmin, Capability::NetBindService];
    if needs.scheduling != Scheduling::Default {
        keep.push(Capability::SysNice);
    }
    if needs.is_followed {
        keep.push(Capability::NetBroadcast);
    }
    if needs.config.is_some_and(is_readable_by_privilege_only) {
        tracing::info!("the config uses files of other users: the right to read all files is kept for `reload`");
        keep.push(Capability::DacReadSearch);
    }
    // Membership lets root give a socket to the group that may read the API.
    let groups: Vec<u32> = if effective_uid() == 0 { group_id(GROUP).into_iter().collect() } else { Vec::new() };
    if let Err(error) = privileges::keep_only(&keep, &groups) {
        tracing::warn!(%error, "capabilities that are not needed could not be given up");
    }
    // Created now, because a place that does not exist cannot be permitted.
    if effective_uid() == 0 {
        let _ = std::fs::create_dir_all(UAPI_FOLDER);
    }
    if let Err(error) = write_only_below(needs.runtime.into_iter().chain(needs.state).chain(PLACES.map(Path::new))) {
        tracing::debug!(%error, "this kernel does not restrict where files are written");
    }
    if let Err(error) = refuse_system_calls() {
        tracing::debug!(%error, "this kernel does not restrict system calls");
    }
}

/// Whether the config, or a file it names, is readable only because root can read everything.
fn is_readable_by_privilege_only(config: &Config) -> bool {
    privileges::without_override(|| !config.files().all(|file| privileges::may_read(&file))).unwrap_or(false)
}
