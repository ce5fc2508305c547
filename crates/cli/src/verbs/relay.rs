//! `overlay relay serve` relays in the foreground until Ctrl-C. The one line on stdout is the relay's address and key.
//! Everything else is the log, on stderr.

use std::net::SocketAddr;

use overlay_daemon::Failure;
use overlay_server::alone::{self, Options, Setup};
use overlay_server::relay::{Limits, Members};
use serde::Serialize;

use super::rendezvous::failure;
use crate::arguments::relay::{Relay, Serve};
use crate::background::path_from_root;
use crate::foreground;
use crate::output::Output;
use crate::session::Session;

/// One for the relay, and one for the metrics.
const THREADS: usize = 2;

/// The line with `--json`.
#[derive(Serialize)]
struct Ready<'a> {
    schema: &'static str,
    status: &'static str,
    pid: u32,
    network: &'a str,
    key: String,
    address: SocketAddr,
}

pub(crate) fn run(session: &Session, verb: Relay) -> Result<(), Failure> {
    match verb {
        Relay::Serve(arguments) => serve(session, arguments),
    }
}

fn serve(session: &Session, arguments: Serve) -> Result<(), Failure> {
    let network = arguments.network.clone();
    let options = Options {
        network: arguments.network,
        listen: arguments.listen,
        state_dir: path_from_root(&session.state_dir)?,
        members: if arguments.open { Members::Everybody } else { Members::VouchedBy(arguments.rendezvous) },
        limits: Limits { rate: arguments.rate, daily: arguments.daily, ..Limits::default() },
        metrics: arguments.metrics,
    };
    foreground::run(THREADS, async |end| {
        let ready = |setup: &Setup| say_ready(&session.output, &network, setup);
        alone::serve(options, ready, end).await.map_err(failure)
    })
}

fn say_ready(output: &Output, network: &str, setup: &Setup) {
    let ready = Ready {
        schema: "overlay.relay.serve.v1",
        status: "ready",
        pid: std::process::id(),
        network,
        key: setup.key.to_string(),
        address: setup.address,
    };
    output.offer(&ready, || format!("{}#{}", ready.address, ready.key));
}
