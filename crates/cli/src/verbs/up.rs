//! `overlay up`: runs the daemon in the foreground, or with `-d` starts it in the background and returns when it is
//! ready.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use overlay_daemon::Failure;
use overlay_daemon::config::{self, CONFIG_FOLDER, Config};
use overlay_daemon::failure::ExitKind;
use overlay_daemon::host;
use overlay_daemon::up::{self, Options};

use crate::arguments::Up;
use crate::background::{self, Ready, await_ready, path_from_root};
use crate::file_failure;
use crate::output::Output;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Up) -> Result<(), Failure> {
    let path = config_path(arguments.config.as_deref(), "up")?;
    // This is checked first, because without the privilege the files may be unreadable or even invisible.
    if !matches!(path.try_exists(), Ok(false)) {
        let detach = if arguments.detach { "-d " } else { "" };
        host::require_net_admin(&format!("up {detach}{}", config::argument_for(&path)))?;
    }
    if arguments.detach {
        return run_detached(session, &path, arguments.adopt);
    }
    let ended = run_here(session, path, arguments.adopt);
    if arguments.detached_child
        && let Err(failure) = &ended
    {
        // The starting process sees a failure only while it waits for the interface, so later failures are logged.
        tracing::error!(hint = failure.hint, "{failure}");
    }
    ended
}

/// The config that an argument refers to. Without an argument, the only config there is. `verb` is for the hint.
pub(crate) fn config_path(argument: Option<&str>, verb: &str) -> Result<PathBuf, Failure> {
    let Some(argument) = argument else { return only_config(Path::new(CONFIG_FOLDER), verb) };
    let path = config::resolve_path(argument);
    // `up lab` in the folder of lab.toml is a mistake that deserves a better answer than "no such file".
    let beside = PathBuf::from(format!("{argument}.toml"));
    if matches!(path.try_exists(), Ok(false)) && !argument.contains('/') && beside.exists() {
        return Err(Failure::new(ExitKind::Config, format!("no config file `{}`", path.display()))
            .with_cause("a bare name stands for a file in /etc/overlay")
            .with_hint(format!("overlay {verb} {}", beside.display())));
    }
    Ok(path)
}

fn only_config(folder: &Path, verb: &str) -> Result<PathBuf, Failure> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(file_failure("look into", folder, &error));
        }
        entries => entries.into_iter().flatten().flatten(),
    };
    let mut configs: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    configs.sort_unstable();
    let names: Vec<String> =
        configs.iter().filter_map(|path| Some(format!("`{}`", path.file_stem()?.to_str()?))).collect();
    match configs.len() {
        1 => Ok(configs.remove(0)),
        0 => Err(Failure::new(ExitKind::Usage, "no config was given")
            .with_cause(format!("there is no config in {}", folder.display()))
            .with_hint(format!("overlay {verb} config.toml; overlay config init -o config.toml writes one"))),
        _ => Err(Failure::new(ExitKind::Usage, "no config was given")
            .with_cause(format!("there are several in {}: {}", folder.display(), names.join(", ")))
            .with_hint(format!("overlay {verb} {}", names[0].trim_matches('`')))),
    }
}

fn run_here(session: &Session, config: PathBuf, adopt: bool) -> Result<(), Failure> {
    let output = session.output;
    let ready: Box<dyn FnOnce() + Send> = Box::new(move || {
        if output.json {
            output.offer_json(&Ready::now());
        }
    });
    up::run(Options {
        config,
        runtime_dir: session.runtime_dir.clone(),
        state_dir: session.state_dir.clone(),
        adopt,
        ready: Some(ready),
    })
}

fn run_detached(session: &Session, config: &Path, adopt: bool) -> Result<(), Failure> {
    // Problems of the config are reported here, in colour, before a process is started for it.
    let loaded = Config::load(config).map_err(|error| in_color(&error, &session.output))?;
    for warning in loaded.warnings() {
        session.output.say(&warning.render(session.output.color));
    }
    let interface = loaded.interface.name;
    let runtime_dir = path_from_root(&session.runtime_dir)?;
    let (log, log_path) = host::open_log(&runtime_dir, &interface)?;
    let config = path_from_root(config)?;
    let mut verb: Vec<&OsStr> = vec!["up".as_ref(), "--detached-child".as_ref(), config.as_os_str()];
    if adopt {
        verb.push("--adopt".as_ref());
    }
    let child = background::spawn(session, &runtime_dir, &verb, log.into())?;
    let ready = await_ready(child, Some(&log_path))?;
    let ready = Ready { interface: Some(interface), log: Some(log_path.clone()), ..ready };
    session
        .output
        .result(&ready, || format!("{} is up, process {}", ready.interface.as_deref().unwrap_or_default(), ready.pid));
    session.output.say(&format!("its log is {}", log_path.display()));
    Ok(())
}

fn in_color(error: &config::ConfigError, output: &Output) -> Failure {
    let failure = Failure::from(error);
    let details = failure.details.as_ref().map(|_| error.render(output.color));
    Failure { details, ..failure }
}

#[cfg(test)]
mod tests;
