//! `overlay wg IFACE`, also called as `overlay-wg IFACE`: an interface for `wg` and `wg-quick`. It runs in the
//! background unless told otherwise.
//!
//! Arguments, environment and the lack of output are those of wireguard-go, so that it can replace wireguard-go.

use std::process::Stdio;

use overlay_daemon::Failure;
use overlay_daemon::host;
use overlay_daemon::wg::{self, Options};

use crate::arguments::Wg;
use crate::background::{self, Ready, await_ready, path_from_root};
use crate::logging;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Wg) -> Result<(), Failure> {
    let interface = &arguments.interface;
    wg::require_valid_name(interface)?;
    host::require_net_admin(&format!("wg {interface}"))?;
    if !arguments.foreground && !arguments.detached_child {
        return run_detached(session, interface);
    }
    let ended = run_here(session, interface);
    if arguments.detached_child
        && let Err(failure) = &ended
    {
        tracing::error!(hint = failure.hint, "{failure}");
    }
    ended
}

fn run_here(session: &Session, interface: &str) -> Result<(), Failure> {
    let output = session.output;
    let ready: Box<dyn FnOnce() + Send> = Box::new(move || {
        if output.json {
            output.offer_json(&Ready::now());
        }
    });
    let options = Options {
        interface: interface.to_owned(),
        runtime_dir: path_from_root(&session.runtime_dir)?,
        ready: Some(ready),
    };
    wg::run(options)
}

fn run_detached(session: &Session, interface: &str) -> Result<(), Failure> {
    let runtime_dir = path_from_root(&session.runtime_dir)?;
    // If the log cannot be written, the interface is created all the same.
    let (log, log_path) = match logging::wg_level() {
        Some(logging::SILENT) => (Stdio::null(), None),
        Some(_) => (Stdio::inherit(), None),
        None => match host::open_log(&runtime_dir, interface) {
            Ok((log, path)) => (log.into(), Some(path)),
            Err(_) => (Stdio::null(), None),
        },
    };
    let verb = ["wg", "--detached-child", "--", interface].map(AsRef::as_ref);
    let child = background::spawn(session, &runtime_dir, &verb, log)?;
    let ready = await_ready(child, log_path.as_deref())?;
    if session.output.json {
        session.output.json_line(&Ready { interface: Some(interface.to_owned()), log: log_path, ..ready });
    }
    Ok(())
}
