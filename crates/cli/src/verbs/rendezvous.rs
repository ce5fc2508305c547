//! `overlay rendezvous serve`: runs a rendezvous in the foreground until Ctrl-C.
//!
//! The one line on stdout is the URL for agents. Everything else is the log, on stderr.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_server::{CertificateFiles, Kind, Limits, Options, ServeError, Setup};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::rendezvous::{Rendezvous, Serve};
use crate::background::path_from_root;
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
}

pub(crate) fn run(session: &Session, verb: Rendezvous) -> Result<(), Failure> {
    let Rendezvous::Serve(arguments) = verb;
    let options = options(arguments, &session.state_dir)?;
    let cannot = |error| Failure::new(ExitKind::Other, "cannot start the runtime").with_cause(error);
    let threads = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(cannot)?;
    runtime.block_on(async {
        let caught = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
        };
        let (mut interrupt, mut terminate) = (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?);
        let end = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let ready = |setup: &Setup| say_ready(&session.output, setup);
        overlay_server::serve(options, ready, end).await.map_err(failure)
    })
}

fn options(arguments: Serve, state_dir: &Path) -> Result<Options, Failure> {
    let absolute = |path: PathBuf| path_from_root(&path);
    let certificate = match (arguments.cert, arguments.key) {
        (Some(chain), Some(key)) => Some(CertificateFiles { chain: absolute(chain)?, key: absolute(key)? }),
        _ => None,
    };
    Ok(Options {
        network: arguments.network,
        listen: arguments.listen,
        state_dir: path_from_root(state_dir)?,
        pool: arguments.pool,
        metrics: arguments.metrics,
        certificate,
        limits: Limits { connections_per_address: arguments.connections_per_address.into(), ..Limits::default() },
    })
}

fn say_ready(output: &Output, setup: &Setup) {
    let ready = Ready {
        schema: "overlay.rendezvous.serve.v1",
        status: "ready",
        pid: std::process::id(),
        network: &setup.network.name,
        pool: format!("{}/{}", setup.network.pool.address(), setup.network.pool.prefix_len()),
        url: setup.url.to_string(),
    };
    output.offer(&ready, || ready.url.clone());
}

fn failure(error: ServeError) -> Failure {
    let kind = match error.kind {
        Kind::Config => ExitKind::Config,
        Kind::Permission => ExitKind::Permission,
        Kind::Conflict => ExitKind::Conflict,
        Kind::Other => ExitKind::Other,
    };
    Failure { code: kind, error: error.error, cause: error.cause, hint: error.hint, details: None }
}
