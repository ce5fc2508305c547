//! `overlay up`: from a config file to a running daemon, and back to the previous state of the system.
//!
//! Everything that can be refused is refused before the system is changed. From [`Journal::begin`] on, any failure is
//! followed by the same clean-up that follows a crash.

mod door;
mod follow;
mod footprint;
mod naming;
mod paths;
mod reload;
mod resolving;
mod running;
mod standing;
mod supervisor;
mod withdrawal;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_os::netlink::Netlink;
use tokio::net::UnixListener;

use self::door::Door;
use self::footprint::Footprint;
use self::paths::{Paths, literal_endpoints};
use self::resolving::Resolving;
use self::running::Running;
use self::standing::Standing;
use self::supervisor::{Inputs, Supervisor};
use crate::agent::Agent;
use crate::config::{self, Config, MtuRange, Table};
use crate::confine::{Needs, confine};
use crate::control::{self, Inbox, MAX_SETTINGS};
use crate::device::sockets::Outer;
use crate::device::table::{Date, InterfaceEntry};
use crate::device::{self, Device, Start, open_tun};
use crate::engine::{Former, Sockets, joins};
use crate::failure::{ExitKind, Failure};
use crate::host::{self, Host, Journal, LeftOut, Runtime};
use crate::names::{Keeper, Names};
use crate::resolve::Families;
use crate::serving::socket::cannot_listen;
use crate::view::View;
use crate::{api, uapi};

/// How long `up` waits for host names if a default route through the tunnel will also cover the route to the name servers.
const PATIENCE_BEFORE_DEFAULT_ROUTE: Duration = Duration::from_secs(5);

/// The arguments of `overlay up`.
pub struct Options {
    /// The path of the config file.
    pub config: PathBuf,
    /// The folder with the sockets, locks and journals of running daemons.
    pub runtime_dir: PathBuf,
    /// The folder with the state of agents.
    pub state_dir: PathBuf,
    /// Whether to take over the state of an agent from a different machine.
    pub adopt: bool,
    /// Called once when traffic can flow.
    pub ready: Option<Box<dyn FnOnce() + Send>>,
}

/// Runs the daemon in the foreground until SIGINT, SIGTERM or `overlay down`.
///
/// # Errors
/// Why it did not come up or had to end. The system is then in its previous state.
pub fn run(options: Options) -> Result<(), Failure> {
    let config = Config::load(&options.config)?;
    // Warnings that depend on the host are decided below by asking the host.
    for warning in config.warnings().iter().filter(|warning| !warning.is_up_to_the_host()) {
        tracing::warn!("{warning}");
    }
    host::require_net_admin(&format!("up {}", options.config.display()))?;
    if let Err(error) = overlay_os::privileges::harden() {
        tracing::warn!(%error, "core dumps of this process could not be switched off");
    }
    let mut agent = config.agent.as_ref().map(|agent| Agent::open(agent, &options.state_dir)).transpose()?;
    if let Some(agent) = &mut agent {
        agent.check_machine(options.adopt)?;
        agent.on_file_peers(&config.peers);
    }
    let control = control::runtime()?;
    let result = control.block_on(run_config(config, agent, options));
    // A lookup that hangs must not keep the process alive: getaddrinfo cannot be cancelled.
    control.shutdown_background();
    result
}

async fn run_config(file: Config, agent: Option<Agent>, options: Options) -> Result<(), Failure> {
    let (mut config, file) = match &agent {
        Some(agent) => (file.in_force(agent.part()), Some(file)),
        None => (file, None),
    };
    let runtime = Runtime::acquire_to_run(&options.runtime_dir, &config.interface.name)?;
    let mut cleaned = runtime.clean_leftovers_but_locks().await?;
    tell_cleaned(&cleaned);
    let netlink = Netlink::connect()
        .await
        .map_err(|error| Failure::new(ExitKind::Other, "cannot open a netlink socket").with_cause(error))?;
    let left_out = match &agent {
        Some(agent) => host::left_out(&netlink, &agent.pools(), None, agent.fake_answers()).await?,
        None => Vec::new(),
    };
    host::leave_out(&mut config, &left_out);
    // The locks of a killed daemon stay until every check that can refuse has passed.
    let checked = match host::require_one_family(&left_out) {
        Ok(()) => host::preflight(&netlink, &config).await,
        refused => refused,
    };
    let listening = match checked {
        Ok(()) => Listening::bind(&config, &runtime),
        Err(failure) => Err(failure),
    };
    let listening = listening.inspect_err(|_| tell_locks(&runtime))?;
    let mut unlocked = runtime.remove_locks(host::fails_closed(&config)).await?;
    unlocked.warnings.retain(|line| !cleaned.warnings.contains(line));
    tell_cleaned(&unlocked);
    cleaned.removed.extend(unlocked.removed);
    overlay_os::handed_over::keep_to_ourselves();
    let keeper = config.agent.as_ref().and_then(|_| Names::keeper(config.interface.dns));
    confine(&Needs {
        runtime: Some(runtime.directory()),
        state: agent.as_ref().map(Agent::folder),
        config: Some(&config),
        scheduling: config.tuning.scheduling,
        is_followed: false,
    });

    let (fails_closed, has_guard) = (host::fails_closed(&config), runtime.has_guard());
    let asks_for_names = has_guard && !host::takes_over_guard(&config);
    if asks_for_names && let Err(error) = overlay_os::nft::let_names_out(runtime.name(), true).await {
        tracing::debug!(%error, "the guard in place could not be opened for DNS queries");
    }
    // A daemon that ended in order leaves nothing but its file, so what it knew is in that file or is lost.
    let former = host::flows::take(&runtime.flows(), has_guard || !cleaned.removed.is_empty());
    let (is_first, legacy) = (former.is_first, former.legacy.clone());
    let started = start(Configs { file, config, left_out, keeper }, agent, &runtime, netlink, listening, former).await;
    // If it failed, no packet passed, so what was handed over still holds for the next attempt.
    if started.is_err()
        && let Err(error) = host::flows::put_back(&runtime.flows(), is_first, &legacy)
    {
        tracing::warn!(%error, "what the last daemon handed over is lost");
    }
    drop(legacy);
    let (result, stays_closed) = match started {
        Ok((supervisor, inputs)) => (supervisor.run(inputs, runtime.flows(), options.ready).await, fails_closed),
        Err(failure) => (Err(failure), has_guard),
    };
    let cleaned = match result.is_err() && stays_closed {
        true if runtime.has_guard() => runtime.clean_leftovers_but_guard().await,
        // The policy rules take the guard's place.
        true => return result,
        false => runtime.clean_leftovers().await,
    };
    if runtime.has_guard() && asks_for_names {
        // If the table was replaced meanwhile, the new one lets no DNS query out anyway.
        let _ = overlay_os::nft::let_names_out(runtime.name(), false).await;
    }
    if let Err(failure) = cleaned {
        tracing::error!(error = %failure, "not everything could be removed");
    }
    result
}

fn tell_cleaned(cleaned: &host::Cleaned) {
    for line in &cleaned.removed {
        tracing::info!("an earlier daemon left this behind, now removed: {line}");
    }
    for line in &cleaned.warnings {
        tracing::warn!("{line}");
    }
}

/// Warns that the locks of a killed daemon stay because this one was refused.
fn tell_locks(runtime: &Runtime) {
    if runtime.has_locks() {
        let name = runtime.name();
        tracing::warn!(
            "`{name}`: an earlier daemon was killed, and traffic that its default route covers does not leave this host until \
             `overlay up` succeeds or: sudo overlay down {name}"
        );
    }
}

/// The sockets that a second daemon might already hold. They are bound before the system is changed.
struct Listening {
    sockets: Sockets,
    api: UnixListener,
}

impl Listening {
    fn bind(config: &Config, runtime: &Runtime) -> Result<Self, Failure> {
        let sockets = device::sockets::bind(outer_of(config))?;
        let path = runtime.socket();
        let api = api::bind(&path).map_err(|error| cannot_listen(&path, error))?;
        Ok(Self { sockets, api })
    }
}

/// The config as the file has it, and with what agent mode adds.
struct Configs {
    file: Option<Config>,
    config: Config,
    left_out: Vec<LeftOut>,
    keeper: Option<Keeper>,
}

async fn start(
    Configs { file, config, left_out, keeper }: Configs,
    mut agent: Option<Agent>,
    runtime: &Runtime,
    netlink: Netlink,
    listening: Listening,
    former: Former,
) -> Result<(Supervisor, Inputs), Failure> {
    let name = &config.interface.name;
    let mut journal = Journal::begin(runtime)?;
    let uapi = match uapi::handed_over(name) {
        Some(listener) => Ok(listener),
        None => door::open(name, &mut journal).await,
    };

    let families = Families { v4: listening.sockets.v4.is_some(), v6: listening.sockets.v6.is_some() };
    let patience = if takes_default_route(&config) { PATIENCE_BEFORE_DEFAULT_ROUTE } else { Duration::ZERO };
    let names = device::named_endpoints(&config.peers);
    let (resolving, resolved) = Resolving::start(names, families, patience).await;

    let tun = open_tun(&config.interface.name, config.tuning.tun_offload)?;
    let endpoints: Vec<_> =
        literal_endpoints(&config).into_iter().chain(resolved.values().flatten().copied()).collect();
    let mtu = host::mtu_range(&netlink, &config, &endpoints).await;
    let footprint = Footprint::watch(&netlink);
    let host = Host::bring_up(&netlink, &mut journal, &tun, &config, mtu).await?;
    listening.sockets.set_fwmark(host.fwmark()).map_err(|error| {
        Failure::new(ExitKind::Other, "cannot mark outer datagrams for policy routing").with_cause(error)
    })?;

    let (device, reports) = Device::start(Start {
        node: config.to_node(mtu, joins(&tun), device::seed()?),
        former_keys: config.former_keys.clone(),
        interface: interface_entry(&config, &host, mtu),
        tun,
        tun_offload: config.tuning.tun_offload,
        outer: Outer { fwmark: host.fwmark(), ..outer_of(&config) },
        sockets: listening.sockets,
        peers: config.peers.iter().map(|peer| (peer.clone(), resolved.get(&peer.public_key).cloned())).collect(),
        scheduling: config.tuning.scheduling,
        former,
    })?;
    let view = View::of(&device);
    view.attach_host(host.facts());
    if let Some(agent) = &agent {
        view.attach_agent(agent.refusals(), agent.friend_counts(), agent.lan_counts());
    }
    let (setting, settings) = Inbox::new(MAX_SETTINGS);
    let mut door = Door::closed(setting);
    door.on_tried(uapi, &view);
    // Only now do the virtual IPs exist, on which metrics may listen.
    if let Some(address) = config.metrics {
        tokio::spawn(api::scrape::serve_when_possible(address, Arc::clone(&view)));
    }
    let requests = control::serve_api(listening.api, &view);
    // Peers change live, and there may be many.
    let mut started_with = config.clone();
    started_with.peers = Vec::new();
    let mut running =
        Running { started_with, config, file, left_out: Vec::new(), netlink, journal, host, device, view };
    running.leave_out(left_out);
    let (paths, standing) = (Paths::new(mtu), Standing::start());
    if let Some(agent) = &mut agent {
        follow::tell(agent, &running).await?;
    }
    let names = match &agent {
        Some(agent) => naming::start(agent, &mut running, keeper).await?,
        None => None,
    };
    let supervisor = Supervisor { running, paths, footprint, standing, resolving, door, agent, names };
    Ok((supervisor, Inputs { reports, requests, settings }))
}

/// Whether the routes of the config will also cover the route to the name servers.
fn takes_default_route(config: &Config) -> bool {
    let is_default = |peer: &config::Peer| peer.allowed_ips.iter().any(|prefix| prefix.prefix_len() == 0);
    config.interface.table == Table::Auto && config.peers.iter().any(is_default)
}

/// Returns how the config wants the outer sockets.
fn outer_of(config: &Config) -> Outer {
    let config::Interface { listen_port, fwmark, .. } = config.interface;
    Outer { port: listen_port, fwmark, udp_gso: config.tuning.udp_gso }
}

/// Returns our own side as the device's table first has it.
fn interface_entry(config: &Config, host: &Host, mtu: MtuRange) -> InterfaceEntry {
    InterfaceEntry {
        name: config.interface.name.clone(),
        index: host.index(),
        addresses: config.interface.addresses.clone(),
        mtu: mtu.start,
        max_mtu: host.footprint().mtu,
        config_file: config.path.clone(),
        forward: config.interface.forward,
        started: Date::now(),
        // The device fills these in.
        public_key: None,
        private_key: None,
        former_keys: Vec::new(),
        listen_port: 0,
        fwmark: None,
    }
}
