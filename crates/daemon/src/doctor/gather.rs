//! Gathers the facts: asks the daemon, reads config and state, and tries the rendezvous.
//!
//! The daemon is asked first, because it says which config it runs. Then everything else is done side by side. Each step has a
//! deadline of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use ipnet::IpNet;
use overlay_os::privileges::effective_uid;
use overlay_rendezvous::channel::Pinned;
use overlay_wire::signed::SecretKey;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::clock::Clocks;
use super::commands::{Commands, is_of_service};
use super::names::Names;
use super::patience::{CONNECTING, DAEMON, FIND, HOST, NAME, RENDEZVOUS, aside};
use super::rendezvous::{self, Answered, Tried, Trouble};
use super::start::{Daemon, Start};
use super::stopped;
use super::trust::Peers;
use super::{Facts, PATIENCE, Report};
use crate::agent::connection::{ConnectError, Target, connect_to, look_up};
use crate::agent::health::OnDisk;
use crate::agent::request::Health;
use crate::client::Client;
use crate::config::{self, Config, RendezvousUrl};
use crate::failure::{ExitKind, Failure};
use crate::view::Status;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the user typed: an interface or a config file. `None`: the only one that there is.
    pub argument: Option<String>,
    /// The config that the argument means, or why it is not known.
    pub config: Result<PathBuf, Failure>,
    /// The peer that the user asks about.
    pub peer: Option<String>,
    /// The folder of the daemons' sockets.
    pub runtime_dir: PathBuf,
    /// The folder with the state of agents.
    pub state_dir: PathBuf,
}

/// Looks at everything, and judges it. Changes nothing.
///
/// # Errors
/// It is not known which daemon or config is meant.
pub fn examine(wanted: &Wanted) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(ExitKind::Other, "cannot start the runtime").with_cause(error))?;
    let facts = runtime.block_on(gather(wanted));
    // getaddrinfo and a disk that hangs cannot be cancelled.
    runtime.shutdown_background();
    Ok(facts?.judge())
}

async fn gather(wanted: &Wanted) -> Result<Facts, Failure> {
    let deadline = Instant::now() + PATIENCE;
    // A rendezvous that is not given its time would be taken for a dead one.
    let has_time = || Instant::now() + RENDEZVOUS <= deadline;
    let (daemon, client, status) = ask_daemon(wanted).await?;
    let path = match (&status, &wanted.config) {
        (Some(status), _) => Some(status.interface.config.clone()),
        (None, Ok(path)) => Some(path.clone()),
        (None, Err(failure)) if client.is_none() => return Err(failure.clone()),
        (None, Err(_)) => None,
    };
    let config = match path.clone() {
        Some(path) => aside(HOST, move || Ok(Config::load(&path)?)).await.map(Some),
        None => Ok(None),
    };
    let name = path.as_deref().map(config::argument_for).or_else(|| client.as_ref().map(|it| it.name().to_owned()));
    let commands = Commands { name: name.unwrap_or_else(|| "NAME".to_owned()), is_service: false };
    let mut start = Start::of(daemon, commands, effective_uid() == 0);
    let config = match config {
        Ok(config) => config,
        Err(failure) => {
            // A daemon that runs goes on with what it has read, and this user may just not read the file.
            let is_hidden = failure.code == ExitKind::Permission && !matches!(start.daemon, Daemon::Stopped(_));
            start.config = (!is_hidden).then_some(failure);
            None
        }
    };
    if let Some((interface, agent)) = config.as_ref().and_then(|it| Some((&it.interface.name, it.agent.as_ref()?))) {
        start.commands.is_service = is_of_service(agent, &wanted.state_dir, interface);
    }
    let urls = config.as_ref().and_then(|config| Some(config.agent.as_ref()?.rendezvous.clone())).unwrap_or_default();
    let (health, mut tried, stopped) = tokio::join!(
        async {
            match (&client, &status) {
                (Some(client), Some(_)) => {
                    timeout_at(deadline, ask_agent(client)).await.unwrap_or_else(|_| Err(silent(client)))
                }
                _ => Ok(None),
            }
        },
        async {
            match has_time() {
                true => join_all(urls.into_iter().map(try_rendezvous)).await,
                false => Vec::new(),
            }
        },
        async {
            match start.daemon {
                Daemon::Stopped(_) => {
                    let look = stopped::look(config.as_ref(), &start.commands, &wanted.state_dir);
                    timeout_at(deadline, look).await.ok()
                }
                _ => None,
            }
        },
    );
    let health = health.unwrap_or_else(|failure| {
        start.daemon = Daemon::Silent(failure);
        None
    });
    let stopped = stopped.unwrap_or_default();
    // Those that the network lists, and all of them if this user may not read the config.
    let told = health.iter().flat_map(|health| &health.rendezvous).map(|rendezvous| &rendezvous.url);
    let listed = stopped.on_disk.iter().flat_map(|on_disk| &on_disk.rendezvous);
    let told = told.chain(listed).filter_map(|url| config::parse_rendezvous(url).ok());
    let more: Vec<_> = told.filter(|url| !tried.iter().any(|it| it.url == *url)).collect();
    if has_time() {
        tried.extend(join_all(more.into_iter().map(try_rendezvous)).await);
    }
    let mut facts = Facts {
        config: path,
        interface: config
            .as_ref()
            .map(|config| config.interface.name.clone())
            .or_else(|| client.map(|it| it.name().to_owned())),
        agent: config.as_ref().and_then(|config| Some(config.agent.as_ref()?.name.clone())),
        peer: wanted.peer.clone(),
        standing: health
            .as_ref()
            .map(|health| rendezvous::Daemon { rendezvous: health.rendezvous.clone(), name: health.name.clone() }),
        clocks: clocks(&tried, health.as_ref(), stopped.on_disk.as_ref()),
        mark: mark_of(config.as_ref(), &wanted.state_dir, start.commands.is_service),
        tried,
        warnings: status.as_ref().map_or(stopped.warnings, |status| status.warnings.clone()),
        no_family: stopped.no_family,
        addresses: match &status {
            Some(status) => Some(status.interface.addresses.clone()),
            None => stopped.addresses,
        },
        names: None,
        peers: None,
        start: Start {
            taken: stopped.taken,
            state: stopped.state,
            net_admin: stopped.net_admin,
            tun: stopped.tun,
            ..start
        },
    };
    if let Some(health) = &health {
        facts.agent = Some(health.name.clone());
    }
    facts.names = names(&facts, status.as_ref()).await;
    facts.start.foreign = stopped.on_disk.as_ref().and_then(|on_disk| on_disk.foreign.clone());
    facts.peers = peers(&facts, status.as_ref(), health, stopped.on_disk);
    Ok(facts)
}

/// Finds the daemon, and asks it for its status.
async fn ask_daemon(wanted: &Wanted) -> Result<(Daemon, Option<Client>, Option<Status>), Failure> {
    let (owned, patience) = (wanted.clone(), FIND);
    let client = match aside(patience, move || find(&owned)).await {
        Ok(client) => client,
        Err(failure) => {
            return match failure.code {
                ExitKind::NoDaemon => Ok((Daemon::Stopped(failure), None, None)),
                ExitKind::Permission => Ok((Daemon::Hidden(failure), None, None)),
                ExitKind::Timeout => Ok((Daemon::Silent(failure), None, None)),
                _ => Err(failure),
            };
        }
    };
    let asked = timeout(DAEMON, client.status()).await.unwrap_or_else(|_| Err(silent(&client)));
    let (daemon, status) = match asked {
        Ok(status) => (Daemon::Runs, Some(status)),
        Err(failure) => match failure.code {
            ExitKind::NoDaemon => (Daemon::Stopped(failure), None),
            ExitKind::Permission => (Daemon::Hidden(failure), None),
            _ => (Daemon::Silent(failure), None),
        },
    };
    Ok((daemon, Some(client), status))
}

/// The daemon that the argument means: an interface, or the one that the config names.
fn find(wanted: &Wanted) -> Result<Client, Failure> {
    let Some(argument) = wanted.argument.as_deref() else {
        return Client::find(&wanted.runtime_dir, None, "overlay doctor");
    };
    let by_name = (!config::is_path(argument)).then(|| Client::new(&wanted.runtime_dir, argument));
    if let Some(client) = by_name.filter(Client::is_alive) {
        return Ok(client);
    }
    let path = wanted.config.as_ref().ok();
    let loaded = path.and_then(|path| Config::load(path).ok()).map(|config| config.interface.name);
    let name = loaded.or_else(|| config::interface_name_of(path?)).unwrap_or_else(|| argument.to_owned());
    Client::find(&wanted.runtime_dir, Some(&name), "overlay doctor")
}

fn silent(client: &Client) -> Failure {
    Failure::new(ExitKind::Timeout, format!("the daemon of `{}` does not answer", client.name()))
        .with_cause(format!("no answer came within {} s", DAEMON.as_secs_f32()))
}

/// Asks the agent how it is, and again while it is about to connect. `None` in static mode, and of a daemon whose version
/// does not tell it.
async fn ask_agent(client: &Client) -> Result<Option<Health>, Failure> {
    let until = Instant::now() + CONNECTING;
    loop {
        let health = match timeout(DAEMON, client.health()).await {
            Ok(Ok(answer)) => answer.health,
            Ok(Err(failure)) if failure.code == ExitKind::Timeout => return Err(failure),
            Ok(Err(_)) => return Ok(None),
            Err(_) => return Err(silent(client)),
        };
        let is_settled = health.rendezvous.iter().all(|rendezvous| rendezvous.connection != "connecting");
        if is_settled || Instant::now() >= until {
            return Ok(Some(health));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connects as somebody whom the rendezvous does not know, and says nothing more: an agent's own connection stays.
async fn try_rendezvous(url: RendezvousUrl) -> Tried {
    let pinned = Pinned { host: url.host.clone(), port: url.port, rendezvous: url.rendezvous, network: url.network };
    Tried { outcome: attempt(pinned).await, url }
}

async fn attempt(pinned: Pinned) -> Result<Answered, Trouble> {
    let mut secret = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *secret)
        .map_err(|error| Trouble::Connect(ConnectError::Local(format!("the kernel gives no randomness: {error}"))))?;
    let addresses = look_up(&pinned, NAME).await.map_err(|error| match error {
        ConnectError::Unreachable(error) => Trouble::Name(error.to_string()),
        other => Trouble::Connect(other),
    })?;
    let target =
        Target { rendezvous: pinned, identity: Arc::new(SecretKey::from_bytes(&secret)), epoch: 0, ca_file: None };
    let began = Instant::now();
    let connection = connect_to(&target, &addresses, RENDEZVOUS - NAME).await.map_err(Trouble::Connect)?;
    let answered = Answered { took: began.elapsed(), ahead: ahead_of_us(connection.peer.issued) };
    connection.calls.close().await;
    Ok(answered)
}

fn clocks(tried: &[Tried], health: Option<&Health>, on_disk: Option<&OnDisk>) -> Option<Clocks> {
    let times = health.map(|health| health.time).or_else(|| on_disk.map(|on_disk| on_disk.time));
    let ahead: Vec<_> =
        tried.iter().filter_map(|tried| Some((tried.url.url.clone(), tried.outcome.as_ref().ok()?.ahead))).collect();
    if times.is_none() && ahead.is_empty() {
        return None;
    }
    Some(Clocks {
        ours: times.map_or_else(unix_now, |times| times.wall_ms),
        ahead,
        latest: times.map(|times| times.latest_ms),
        signed_by_peers: times.and_then(|times| times.signed_by_peers_ms),
    })
}

fn peers(facts: &Facts, status: Option<&Status>, health: Option<Health>, on_disk: Option<OnDisk>) -> Option<Peers> {
    let known = health.map(|health| health.peers).or_else(|| on_disk.map(|on_disk| on_disk.peers));
    if known.is_none() && status.is_none() {
        return None;
    }
    let peers = known.unwrap_or_default();
    let of_agent: BTreeSet<_> = peers.iter().filter_map(|peer| peer.tunnel_key.as_deref()).collect();
    let shown = || status.into_iter().flat_map(|status| &status.peers);
    let fixed = shown().filter(|peer| !of_agent.contains(&*peer.public_key));
    let fixed =
        fixed.map(|peer| (peer.name.clone().unwrap_or_else(|| peer.public_key.clone()), peer.public_key.clone()));
    Some(Peers {
        me: facts.agent.clone().unwrap_or_default(),
        fixed: fixed.collect(),
        tunnels: shown().map(|peer| (peer.public_key.clone(), peer.state)).collect(),
        peers,
    })
}

/// Looks up this agent's own name as a program does it.
async fn names(facts: &Facts, status: Option<&Status>) -> Option<Names> {
    let status = status?;
    let shown = status.names.clone()?;
    let name = format!("{}.{}", facts.agent.as_ref()?, shown.domain);
    let found = match timeout(NAME, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", NAME.as_secs())),
    };
    Some(Names { shown, name, found, own: status.interface.addresses.iter().map(IpNet::addr).collect() })
}

fn mark_of(config: Option<&Config>, state_dir: &Path, is_service: bool) -> String {
    let network = config.and_then(|config| config.agent.as_ref()?.network.clone());
    let state_dir = match config.filter(|_| is_service) {
        Some(config) => state_dir.join(&config.interface.name),
        None => state_dir.to_owned(),
    };
    state_dir.join(network.as_deref().unwrap_or("NETWORK")).join("time").display().to_string()
}

/// How far a time is ahead of ours, in milliseconds.
fn ahead_of_us(time: u64) -> i64 {
    let difference = i128::from(time) - i128::from(unix_now());
    difference.clamp(i64::MIN.into(), i64::MAX.into()).try_into().unwrap_or_default()
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
