//! `overlay down`: makes a running daemon remove everything and exit, or cleans up after one that was killed.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use overlay_daemon::Failure;
use overlay_daemon::client::{self, Client};
use overlay_daemon::failure::ExitKind;
use overlay_daemon::host::{self, Cleaned};
use serde::Serialize;

use crate::arguments::Daemon;
use crate::session::Session;

/// How long a daemon may take to remove everything that it added.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often we check whether it is gone.
const LOOK: Duration = Duration::from_millis(20);

/// The result for a daemon that was asked to exit, with anything that a killed one had left. The schema is the
/// daemon's.
#[derive(Serialize)]
struct CleanedUp<'a> {
    schema: Cow<'static, str>,
    status: Cow<'static, str>,
    interfaces: &'a [String],
    removed: &'a [String],
    warnings: &'a [String],
}

pub(crate) fn run(session: &Session, arguments: &Daemon) -> Result<(), Failure> {
    match session.client(arguments.name.as_deref(), "sudo overlay down") {
        Ok(client) => stop(session, &client),
        Err(failure) if failure.code == ExitKind::NoDaemon => clean(session, arguments, failure),
        Err(failure) => Err(failure),
    }
}

fn stop(session: &Session, client: &Client) -> Result<(), Failure> {
    let down = session.block_on(async {
        let down = client.down().await?;
        wait_until_gone(client).await?;
        Ok(down)
    })?;
    session.output.result(&down, || format!("{} is down", down.interface));
    Ok(())
}

/// Waits until the daemon's socket is gone. A daemon removes its socket last.
async fn wait_until_gone(client: &Client) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while client.socket().exists() {
        if Instant::now() >= deadline {
            return Err(Failure::new(ExitKind::Timeout, format!("the daemon of `{}` did not stop", client.name()))
                .with_cause(format!("{} is still there", client.socket().display()))
                .with_hint(format!(
                    "its log says what it waits for; overlay down {} again after that",
                    client.name()
                )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// No daemon is running: cleans up after a killed daemon with this name, or with any name.
fn clean(session: &Session, arguments: &Daemon, no_daemon: Failure) -> Result<(), Failure> {
    let names = match &arguments.name {
        Some(argument) => vec![session.interface_named(argument)],
        None => client::leftovers(&session.runtime_dir)?,
    };
    let mut all = Cleaned::default();
    let mut interfaces = Vec::new();
    for name in names.iter().filter(|name| client::has_leftovers(&session.runtime_dir, name)) {
        let cleaned = session.block_on(host::clean_leftovers(&session.runtime_dir, name))?;
        interfaces.push(name.clone());
        all.removed.extend(cleaned.removed);
        all.warnings.extend(cleaned.warnings);
    }
    if interfaces.is_empty() {
        return Err(no_daemon);
    }
    let down = CleanedUp {
        schema: "overlay.down.v1".into(),
        status: "ok".into(),
        interfaces: &interfaces,
        removed: &all.removed,
        warnings: &all.warnings,
    };
    session.output.result(&down, || {
        let names = interfaces.join(", ");
        format!("no daemon was running; cleaned up after {names}: {}", removed(&all))
    });
    for warning in &all.warnings {
        session.output.say(&format!("warning: {warning}"));
    }
    Ok(())
}

fn removed(cleaned: &Cleaned) -> String {
    if cleaned.removed.is_empty() { "nothing to remove".to_owned() } else { cleaned.removed.join(", ") }
}
