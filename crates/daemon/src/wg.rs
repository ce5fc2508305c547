//! `overlay wg`: an interface as WireGuard's own tools expect it, in place of wireguard-go.
//!
//! It begins with a TUN interface that is down, has MTU 1420 and no key, peers, addresses or routes, and with the
//! socket that `wg` talks to. Other programs do everything else, usually wg-quick: `wg` configures the device, and `ip`
//! configures the interface. Nothing on the host is changed here, and only the socket file outlives a killed process.
//! Virtual IPs are unknown, so any inner source and destination is up to the peers' allowed IPs, as in WireGuard.
//!
//! The local API and the journal are optional: if their folder cannot be written, the interface works all the same.

mod follower;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::NodeConfig;
use overlay_os::netlink::{Netlink, NetlinkError};
use overlay_os::privileges;
use overlay_os::removal::NameWatch;
use overlay_os::schedule::Scheduling;
use overlay_os::tun::{LinkWatch, Tun};
use tokio::net::{UnixListener, UnixStream};

use self::follower::Follower;
use crate::config::Switch;
use crate::confine::{Needs, confine};
use crate::control::{self, Concerns, Inbox, MAX_SETTINGS, Signals, Watchdog};
use crate::device::sockets::Outer;
use crate::device::table::{Date, InterfaceEntry};
use crate::device::{self, Device, Start, open_tun};
use crate::engine::{Former, Sockets, joins};
use crate::failure::{ExitKind, Failure};
use crate::host::{self, Journal, Runtime, TUN_QUEUE_LEN};
use crate::serving::socket::cannot_listen;
use crate::serving::uapi_socket;
use crate::view::View;
use crate::{api, uapi};

/// The MTU of a new interface, as in wireguard-go: 1500 minus an IPv6 header, a UDP header and our own overhead.
const DEFAULT_MTU: u16 = 1420;
/// How long to wait for the socket of an earlier process of the same name. A process whose interface was just deleted
/// takes a moment to end.
const SOCKET_PATIENCE: Duration = Duration::from_secs(1);
/// The time between two checks of the socket.
const SOCKET_RETRY: Duration = Duration::from_millis(10);
/// How often the lock is requested if there is no interface of this name. Each attempt waits as long as
/// [`Runtime::acquire`] does, a second in all.
const LOCK_ATTEMPTS: usize = 4;

/// The arguments of `overlay wg`.
pub struct Options {
    /// The name of the interface to create.
    pub interface: String,
    /// The folder with the sockets and locks of running daemons.
    pub runtime_dir: PathBuf,
    /// Called once when interface and socket exist.
    pub ready: Option<Box<dyn FnOnce() + Send>>,
}

/// Refuses names that no interface can have. A valid name is safe as part of a file name.
///
/// # Errors
/// [`ExitKind::Usage`] if the name is not valid.
pub fn require_valid_name(interface: &str) -> Result<(), Failure> {
    if overlay_os::interface::is_valid_name(interface) {
        return Ok(());
    }
    Err(Failure::new(ExitKind::Usage, format!("`{interface}` cannot be the name of an interface"))
        .with_cause("a name has 1 to 15 bytes, without blanks, `/`, `:` and `%`")
        .with_hint("overlay wg wg0"))
}

/// Creates the interface and serves it in the foreground. It ends when the interface is deleted, the socket is removed,
/// or on SIGINT, SIGTERM or `overlay down`.
///
/// # Errors
/// Why the interface could not be created or had to end. Nothing is left behind.
pub fn run(options: Options) -> Result<(), Failure> {
    require_valid_name(&options.interface)?;
    host::require_net_admin(&format!("wg {}", options.interface))?;
    if let Err(error) = privileges::harden() {
        tracing::warn!(%error, "core dumps of this process could not be switched off");
    }
    control::runtime()?.block_on(run_interface(options))
}

async fn run_interface(options: Options) -> Result<(), Failure> {
    let name = &options.interface;
    // Signals are caught before anything exists that they could leave behind.
    let signals = Signals::catch()?;
    let netlink = Netlink::connect()
        .await
        .map_err(|error| Failure::new(ExitKind::Other, "cannot open a netlink socket").with_cause(error))?;
    // If the kernel does not answer, there is no reason to wait.
    let is_there = async || netlink.link(name).await.map_or(true, |link| link.is_some());
    // Dropped last: a process that waits for the name may then have it.
    let runtime = match acquire(&options.runtime_dir, name, is_there).await {
        Ok(runtime) => Some(runtime),
        Err(failure) if failure.code == ExitKind::Conflict => {
            return Err(failure.with_hint(format!("sudo overlay down {name} first")));
        }
        Err(failure) => {
            tracing::warn!("`overlay status {name}` will not work: {failure}");
            None
        }
    };
    host::require_tun_device()?;
    require_free_socket(name).await?;
    let journalled = match &runtime {
        Some(runtime) => journal(runtime, name)
            .await
            .map_err(|failure| {
                tracing::warn!("if this process is killed, the socket of {name} will stay behind: {failure}")
            })
            .ok(),
        None => None,
    };
    confine(&Needs {
        state: None,
        runtime: runtime.as_ref().map(Runtime::directory),
        config: None,
        scheduling: Scheduling::Default,
        is_followed: true,
    });
    let ended = match start(name, netlink, runtime.as_ref(), signals).await {
        Ok((follower, concerns)) => follower.run(concerns, options.ready).await,
        Err(failure) => Err(failure),
    };
    if let (Some(runtime), Some(())) = (&runtime, journalled)
        && let Err(failure) = runtime.clean_leftovers().await
    {
        tracing::error!(error = %failure, "not everything could be removed");
    }
    ended
}

/// Claims the name. If the name is held but has no interface, the holder is ending, as after `wg-quick down`, and is
/// waited for a little longer. If the interface exists, the claim fails at once.
async fn acquire(directory: &Path, name: &str, mut is_there: impl AsyncFnMut() -> bool) -> Result<Runtime, Failure> {
    let mut attempts = 1;
    loop {
        match Runtime::acquire_to_run(directory, name) {
            Err(failure) if failure.code == ExitKind::Conflict => {
                if attempts == LOCK_ATTEMPTS || is_there().await {
                    return Err(failure);
                }
                attempts += 1;
            }
            acquired => return acquired,
        }
    }
}

/// Removes what an earlier process of this name left, and records what this one would leave if it were killed.
async fn journal(runtime: &Runtime, name: &str) -> Result<(), Failure> {
    let cleaned = runtime.clean_leftovers().await?;
    for line in &cleaned.removed {
        tracing::info!("an earlier process left this behind, now removed: {line}");
    }
    for line in &cleaned.warnings {
        tracing::warn!("{line}");
    }
    Journal::begin(runtime)?.record_socket(&uapi_socket(name))
}

/// Waits until the socket is free. The folder is shared by the whole host, including other namespaces and other
/// WireGuard implementations.
async fn require_free_socket(name: &str) -> Result<(), Failure> {
    let path = uapi_socket(name);
    let mut waited = Duration::ZERO;
    while UnixStream::connect(&path).await.is_ok() {
        if waited >= SOCKET_PATIENCE {
            return Err(Failure::new(ExitKind::Conflict, format!("{} belongs to another process", path.display()))
                .with_cause(format!(
                    "an interface `{name}` is already served, perhaps in a different network namespace"
                ))
                .with_hint("choose a different name; wg show interfaces lists those that are taken"));
        }
        tokio::time::sleep(SOCKET_RETRY).await;
        waited += SOCKET_RETRY;
    }
    Ok(())
}

async fn start(
    name: &str,
    netlink: Netlink,
    runtime: Option<&Runtime>,
    signals: Signals,
) -> Result<(Follower, Concerns), Failure> {
    let tun = open_tun(name, Switch::Auto)?;
    let link = watch_link(&tun, &netlink)?;
    prepare(&tun, &netlink).await?;
    let index = tun.index();
    let (device, reports) = Device::start(Start {
        node: NodeConfig {
            private_key: None,
            addresses: Vec::new(),
            forward: true,
            mtu: DEFAULT_MTU,
            max_mtu: DEFAULT_MTU,
            joins: joins(&tun),
            seed: device::seed()?,
            wall_anchor: None,
        },
        former_keys: Vec::new(),
        interface: interface_entry(name, index),
        tun,
        tun_offload: Switch::Auto,
        outer: Outer { port: 0, fwmark: None, udp_gso: Switch::Auto },
        sockets: Sockets::default(),
        peers: Vec::new(),
        scheduling: Scheduling::Default,
        former: Former::default(),
    })?;
    let (uapi, socket) = listen(name)?;
    let view = View::of(&device);
    let (setting, settings) = Inbox::new(MAX_SETTINGS);
    tokio::spawn(uapi::serve(uapi, Arc::clone(&view), setting));
    let requests = runtime.and_then(|runtime| match api::bind(&runtime.socket()) {
        Ok(listener) => Some(control::serve_api(listener, &view)),
        Err(error) => {
            tracing::warn!("`overlay status {name}` will not work: {}", cannot_listen(&runtime.socket(), error));
            None
        }
    });
    let requests = requests.unwrap_or_else(Inbox::closed);
    let concerns = Concerns { signals, reports, requests, settings, watchdog: Watchdog::start() };
    Ok((Follower::new(name, DEFAULT_MTU, link, socket, device), concerns))
}

fn watch_link(tun: &Tun, netlink: &Netlink) -> Result<LinkWatch, Failure> {
    let watch = LinkWatch::new(tun, netlink.clone()).map_err(|error| {
        let failure = Failure::new(ExitKind::Other, format!("cannot watch the interface `{}`", tun.name()));
        match error.kind() {
            io::ErrorKind::Unsupported => failure.with_cause("this needs Linux 5.2 or newer"),
            _ => failure.with_cause(error),
        }
    })?;
    if !watch.hears_everywhere() {
        tracing::info!(
            "without CAP_NET_BROADCAST, up, down and MTU of `{}` go unnoticed once it is in a different network namespace",
            tun.name()
        );
    }
    Ok(watch)
}

/// Makes the TUN look like a new WireGuard interface.
async fn prepare(tun: &Tun, netlink: &Netlink) -> Result<(), Failure> {
    match netlink.set_mtu(tun.index(), DEFAULT_MTU.into()).await {
        // Already deleted, which will be noticed soon.
        Ok(()) | Err(NetlinkError::NotFound) => {}
        Err(error) => {
            return Err(
                Failure::new(ExitKind::Other, format!("cannot set the MTU of `{}`", tun.name())).with_cause(error)
            );
        }
    }
    if let Err(error) = netlink.set_tx_queue_len(tun.index(), TUN_QUEUE_LEN).await {
        tracing::warn!(%error, "the queue of `{}` keeps the kernel's length", tun.name());
    }
    if let Err(error) = netlink.set_addr_gen_mode_none(tun.index()).await {
        // There is no IPv6 here, so there is no link-local address to prevent.
        tracing::debug!(%error, "addr_gen_mode could not be set");
    }
    host::refuse_configuration(tun.name());
    Ok(())
}

/// Binds the socket for `wg` and watches its name.
fn listen(name: &str) -> Result<(UnixListener, NameWatch), Failure> {
    let path = uapi_socket(name);
    let listener = uapi::bind(name).map_err(|error| cannot_listen(&path, error))?;
    let watch = NameWatch::of_own(&path).map_err(|error| {
        let _ = std::fs::remove_file(&path);
        Failure::new(ExitKind::Other, format!("cannot watch {}", path.display())).with_cause(error)
    })?;
    Ok((listener, watch))
}

fn interface_entry(name: &str, index: u32) -> InterfaceEntry {
    InterfaceEntry {
        name: name.to_owned(),
        index,
        public_key: None,
        private_key: None,
        former_keys: Vec::new(),
        addresses: Vec::new(),
        mtu: DEFAULT_MTU,
        max_mtu: DEFAULT_MTU,
        listen_port: 0,
        fwmark: None,
        // The interface is configured through this socket.
        config_file: uapi_socket(name),
        forward: true,
        started: Date::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_lead_elsewhere_or_that_the_kernel_refuses_is_a_usage_error() {
        for name in ["", "../etc/x", "a b", "sixteen_bytes_xx", "wg%d", ".."] {
            let failure = require_valid_name(name).expect_err(name);
            assert_eq!(failure.code, ExitKind::Usage);
        }
        assert_eq!(require_valid_name("wg0"), Ok(()));
    }

    #[tokio::test]
    async fn a_name_is_waited_for_while_its_interface_is_gone_and_refused_at_once_while_it_is_there() {
        let directory = tempfile::tempdir().expect("a folder");
        let first = Runtime::acquire(directory.path(), "wg0").expect("free");
        let mut looks = 0;
        let refused = acquire(directory.path(), "wg0", async || {
            looks += 1;
            true
        });
        assert_eq!(refused.await.expect_err("it lives").code, ExitKind::Conflict);
        assert_eq!(looks, 1, "one look is enough");

        let refused = acquire(directory.path(), "wg0", async || {
            looks += 1;
            false
        });
        assert_eq!(refused.await.expect_err("it does not end").code, ExitKind::Conflict);
        assert_eq!(looks, LOCK_ATTEMPTS, "not for ever");

        // The holder ends during the wait, later than the patience of a single attempt.
        let mut first = Some(first);
        let taken = acquire(directory.path(), "wg0", async || {
            first = None;
            false
        });
        assert_eq!(taken.await.expect("free").name(), "wg0");
    }
}
