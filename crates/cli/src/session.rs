//! The context of a verb: where to look for daemons, how to print, and a runtime for asking them.

use std::future::Future;
use std::path::{Path, PathBuf, absolute};

use overlay_daemon::Failure;
use overlay_daemon::client::Client;
use overlay_daemon::config::{self, Config};
use overlay_daemon::failure::ExitKind;

use crate::arguments::Global;
use crate::output::Output;

/// One run of the program.
pub(crate) struct Session {
    /// The folder in which daemons keep their sockets.
    pub(crate) runtime_dir: PathBuf,
    /// The folder in which agents keep their state.
    pub(crate) state_dir: PathBuf,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
    /// Prints the results.
    pub(crate) output: Output,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            runtime_dir: global.runtime_dir.clone(),
            state_dir: global.state_dir.clone(),
            verbose: global.verbose,
            output: Output::new(global.json),
        }
    }

    /// The daemon that an argument names: by interface, by config file, or without an argument the only one that runs.
    /// `command` is the command as typed, up to the place of the name.
    pub(crate) fn client(&self, argument: Option<&str>, command: &str) -> Result<Client, Failure> {
        let name = argument.map(|argument| self.interface_named(argument));
        Client::find(&self.runtime_dir, name.as_deref(), command)
    }

    /// The interface that an argument names. For a config file, that is the interface of the daemon that was started
    /// with it, even if the file has changed since. If there is no such daemon, it is the interface that the file
    /// names. If the file cannot be read, it is the file's own name.
    pub(crate) fn interface_named(&self, argument: &str) -> String {
        if !config::is_path(argument) {
            return argument.to_owned();
        }
        let path = Path::new(argument);
        self.started_with(path)
            .or_else(|| Config::load(path).ok().map(|config| config.interface.name))
            .or_else(|| config::interface_name_of(path))
            .unwrap_or_else(|| argument.to_owned())
    }

    /// The interface of the daemon that was started with this config file. Daemons that we may not ask are skipped.
    fn started_with(&self, config: &Path) -> Option<String> {
        let config = absolute(config).ok()?;
        let daemons = Client::all(&self.runtime_dir).ok()?;
        let found = daemons
            .into_iter()
            .find(|daemon| self.block_on(daemon.status()).is_ok_and(|status| status.interface.config == config));
        found.map(|daemon| daemon.name().to_owned())
    }

    /// Runs one asynchronous exchange to its end.
    pub(crate) fn block_on<T>(&self, talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::new(ExitKind::Other, "cannot start the runtime").with_cause(error))?;
        runtime.block_on(talk)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_config_stands_for_the_interface_in_it_and_one_that_is_gone_or_broken_for_its_own_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let session = Session {
            runtime_dir: folder.path().to_owned(),
            state_dir: folder.path().to_owned(),
            verbose: 0,
            output: Output { json: true, color: false },
        };
        let file = folder.path().join("lab.toml");
        let named = || session.interface_named(&file.display().to_string());
        assert_eq!(named(), "lab");
        fs::write(&file, "no toml at all [").expect("a file");
        assert_eq!(named(), "lab");

        let key = folder.path().join("own.key");
        fs::write(&key, "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=\n").expect("a file");
        let text = "[interface]\nname = \"other0\"\nprivate_key_file = \"own.key\"\naddresses = [\"10.77.0.1/24\"]\n";
        fs::write(&file, text).expect("a file");
        assert_eq!(named(), "other0");
        assert_eq!(session.interface_named("lab"), "lab", "a bare name is nobody's file");
    }
}
