//! `overlay rendezvous serve` runs a rendezvous in the foreground until Ctrl-C. The one line on stdout is the URL for agents.
//! Everything else is the log, on stderr. The other verbs are the operator's.

mod agents;
mod backup;
mod release;
mod stats;
mod token;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_server::operator::client::Client;
use overlay_server::operator::protocol::{Ask, Told};
use overlay_server::{Access, CertificateFiles, Kind, Limits, Options, Relaying, ServeError, Setup, relay};
use serde::Serialize;

use crate::arguments::rendezvous::{Key, Network, Rendezvous, Serve};
use crate::background::path_from_root;
use crate::foreground;
use crate::output::Output;
use crate::session::Session;

/// Threads at most. The registry has one task, so more of them would only wait for it.
const MAX_THREADS: usize = 4;

/// The line with `--json`.
#[derive(Serialize)]
struct Ready<'a> {
    schema: &'static str,
    status: &'static str,
    pid: u32,
    network: &'a str,
    pool: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<ReadyRelay>,
}

/// The relay of a rendezvous.
#[derive(Serialize)]
struct ReadyRelay {
    key: String,
    /// Where it listens on UDP.
    address: SocketAddr,
}

pub(crate) fn run(session: &Session, verb: Rendezvous) -> Result<(), Failure> {
    match verb {
        Rendezvous::Serve(arguments) => serve(session, *arguments),
        Rendezvous::Key(arguments) => key(session, &arguments),
        Rendezvous::Token(verb) => token::run(session, verb),
        Rendezvous::Agents(verb) => agents::run(session, &verb),
        Rendezvous::Release(arguments) => release::run(session, arguments),
        Rendezvous::Stats(network) => stats::run(session, &network),
        Rendezvous::Backup(arguments) => backup::run(session, &arguments),
        Rendezvous::Restore(arguments) => backup::restore(session, &arguments),
    }
}

fn serve(session: &Session, arguments: Serve) -> Result<(), Failure> {
    let options = options(arguments, &session.state_dir)?;
    let threads = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    foreground::run(threads, async |end| {
        let ready = |setup: &Setup| say_ready(&session.output, setup);
        overlay_server::serve(options, ready, end).await.map_err(failure)
    })
}

fn options(arguments: Serve, state_dir: &Path) -> Result<Options, Failure> {
    let absolute = |path: PathBuf| path_from_root(&path);
    let files = |chain: Option<PathBuf>, key: Option<PathBuf>| match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some(CertificateFiles { chain: absolute(chain)?, key: absolute(key)? })),
        _ => Ok::<_, Failure>(None),
    };
    let certificate = files(arguments.cert, arguments.key)?;
    Ok(Options {
        network: arguments.network,
        listen: arguments.listen,
        state_dir: path_from_root(state_dir)?,
        pool: arguments.pool,
        is_closed: (arguments.closed || arguments.open).then_some(arguments.closed),
        url: arguments.url,
        network_file: arguments.network_file.map(absolute).transpose()?,
        metrics: arguments.metrics,
        certificate,
        store: arguments.store,
        access: Access {
            authorities: arguments.store_ca.map(absolute).transpose()?,
            certificate: files(arguments.store_cert, arguments.store_key)?,
            user: match (arguments.store_user, arguments.store_password_file) {
                (Some(user), Some(file)) => Some((user, absolute(file)?)),
                _ => None,
            },
        },
        limits: Limits { connections_per_address: arguments.connections_per_address.into(), ..Limits::default() },
        is_replacing: arguments.replace,
        relay: match arguments.no_relay {
            true => Relaying::Off,
            false => Relaying::On {
                listen: arguments.udp,
                limits: relay::Limits {
                    rate: arguments.relay_rate,
                    daily: arguments.relay_daily,
                    ..relay::Limits::default()
                },
            },
        },
    })
}

fn say_ready(output: &Output, setup: &Setup) {
    overlay_daemon::notify::ready(&setup.url.to_string());
    let ready = Ready {
        schema: "overlay.rendezvous.serve.v1",
        status: "ready",
        pid: std::process::id(),
        network: &setup.network.name,
        pool: format!("{}/{}", setup.network.pool.address(), setup.network.pool.prefix_len()),
        url: setup.url.to_string(),
        relay: setup.relay.map(|(key, address)| ReadyRelay { key: key.to_string(), address }),
    };
    output.offer(&ready, || ready.url.clone());
}

/// The answer of `overlay rendezvous key`.
#[derive(Serialize)]
struct Known<'a> {
    schema: &'static str,
    network: &'a str,
    key: String,
}

fn key(session: &Session, arguments: &Key) -> Result<(), Failure> {
    let state_dir = path_from_root(&session.state_dir)?;
    let key = overlay_server::network::rendezvous_key(&state_dir, &arguments.network).map_err(failure)?.to_string();
    let known = Known { schema: "overlay.rendezvous.key.v1", network: &arguments.network, key };
    session.output.result(&known, || known.key.clone());
    Ok(())
}

/// What an order has done.
#[derive(Serialize)]
struct Done<'a> {
    schema: &'static str,
    status: &'static str,
    /// What was ordered: `revoked`, `removed`, `banned`, `unbanned` or `released`.
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

/// Gives an order to a running rendezvous, and prints `done` with the key that it was about.
fn order(session: &Session, network: &Network, order: &Ask, done: &'static str) -> Result<(), Failure> {
    let key = match ask(session, network, order)? {
        Told::Done { key } => key,
        _ => return Err(strange_answer()),
    };
    let shown = Done { schema: "overlay.rendezvous.order.v1", status: "ok", done, key: key.as_deref() };
    session.output.result(&shown, || key.as_deref().map_or_else(|| done.to_owned(), |key| format!("{done} {key}")));
    Ok(())
}

fn ask(session: &Session, network: &Network, ask: &Ask) -> Result<Told, Failure> {
    client(session, network)?.ask(ask).map_err(failure)
}

fn client(session: &Session, network: &Network) -> Result<Client, Failure> {
    Ok(Client::new(&session.state_dir, &network_of(session, network)?))
}

/// The network that is meant: as named, or the only one whose rendezvous keeps its state here.
fn network_of(session: &Session, network: &Network) -> Result<String, Failure> {
    if let Some(name) = &network.network {
        return Ok(name.clone());
    }
    let folder = session.state_dir.join("rendezvous");
    let read = match std::fs::read_dir(&folder) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_rendezvous(&folder)),
        Err(error) => return Err(crate::file_failure("look into", &folder, &error)),
    };
    let mut names: Vec<_> = read.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    match names.as_slice() {
        [] => Err(no_rendezvous(&folder)),
        [only] => Ok(only.clone()),
        [first, ..] => Err(Failure::new(ExitKind::Usage, "there are several networks here")
            .with_cause(format!("they are `{}`", names.join("`, `")))
            .with_hint(format!("name the one you mean: --network {first}"))),
    }
}

fn no_rendezvous(folder: &Path) -> Failure {
    Failure::new(ExitKind::NoDaemon, "no rendezvous keeps its state here")
        .with_cause(format!("there is nothing in {}", folder.display()))
        .with_hint("start one: overlay rendezvous serve --network NAME --listen ADDR:PORT")
}

fn strange_answer() -> Failure {
    Failure::new(ExitKind::Other, "cannot understand the answer of the rendezvous")
        .with_hint("it may have a different version: restart it with this program")
}

pub(crate) fn failure(error: ServeError) -> Failure {
    let kind = match error.kind {
        Kind::Config => ExitKind::Config,
        Kind::Permission => ExitKind::Permission,
        Kind::Conflict => ExitKind::Conflict,
        Kind::NotFound => ExitKind::NotFound,
        Kind::NotRunning => ExitKind::NoDaemon,
        Kind::Other => ExitKind::Other,
    };
    Failure { code: kind, error: error.error, cause: error.cause, hint: error.hint, details: None }
}
