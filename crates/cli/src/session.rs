//! What a verb is given: where daemons are looked for, how to print, and a runtime to ask them on.

use std::future::Future;
use std::path::PathBuf;

use overlay_daemon::Failure;
use overlay_daemon::client::Client;
use overlay_daemon::config::{self, Config};
use overlay_daemon::failure::ExitKind;

use crate::arguments::Global;
use crate::output::Output;

/// One run of the program.
pub(crate) struct Session {
    /// Where daemons keep their sockets.
    pub(crate) runtime_dir: PathBuf,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
    /// Where results go.
    pub(crate) output: Output,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Self {
        Self { runtime_dir: global.runtime_dir.clone(), verbose: global.verbose, output: Output::new(global.json) }
    }

    /// The daemon that an argument names: by interface, by config file, or the only one that runs.
    pub(crate) fn client(&self, argument: Option<&str>) -> Result<Client, Failure> {
        let name = argument.map(interface_named).transpose()?;
        Client::find(&self.runtime_dir, name.as_deref())
    }

    /// Runs one asynchronous conversation to its end.
    pub(crate) fn block_on<T>(&self, talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::new(ExitKind::Other, "cannot start the runtime").with_cause(error))?;
        runtime.block_on(talk)
    }
}

/// The interface an argument names: a config file stands for the interface in it.
pub(crate) fn interface_named(argument: &str) -> Result<String, Failure> {
    if !argument.contains('/') && !argument.ends_with(".toml") {
        return Ok(argument.to_owned());
    }
    Ok(Config::load(&config::resolve_path(argument))?.interface.name)
}
