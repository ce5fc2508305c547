//! `overlay config`: a first config, a check without side effects, and the schema for editors.

use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;
use overlay_daemon::Failure;
use overlay_daemon::config::{self, ConfigError, Problem, Template};
use overlay_daemon::failure::{ExitKind, FailureBody};
use overlay_daemon::files;
use overlay_daemon::keys::{self, PrivateKey};
use serde::Serialize;

use crate::arguments::Config;
use crate::file_failure;
use crate::session::Session;
use crate::verbs::up;

/// A [`Problem`] as JSON.
#[derive(Serialize)]
struct Found<'a> {
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    line: usize,
    column: usize,
}

#[derive(Serialize)]
struct Checked<'a> {
    schema: &'static str,
    status: &'static str,
    config: &'a Path,
    interface: &'a str,
    /// The agent's name in agent mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    peers: usize,
    warnings: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Refused<'a> {
    #[serde(flatten)]
    failure: FailureBody,
    problems: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Made<'a> {
    schema: &'static str,
    config: &'a Path,
    interface: &'a str,
    private_key_file: &'a Path,
    public_key: &'a str,
}

pub(crate) fn run(session: &Session, verb: &Config) -> Result<ExitCode, Failure> {
    match verb {
        Config::Init { output: None, addresses } => session.output.data(&config::template(&begun_with(addresses))),
        Config::Init { output: Some(file), addresses } => init(session, file, addresses)?,
        Config::Check { config } => return check(session, config.as_deref()),
        Config::Schema => session.output.data(&config::schema()),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(session: &Session, argument: Option<&str>) -> Result<ExitCode, Failure> {
    let path = up::config_path(argument, "config check")?;
    let config = match config::Config::load(&path) {
        Ok(config) => config,
        Err(error) => return refused(session, &error),
    };
    let checked = Checked {
        schema: "overlay.config-check.v1",
        status: "ok",
        config: &path,
        interface: &config.interface.name,
        agent: config.agent.as_ref().map(|agent| agent.name.as_str()),
        peers: config.peers.len(),
        warnings: config.warnings().iter().map(|warning| found(warning.problem())).collect(),
    };
    for warning in config.warnings() {
        session.output.say(&warning.render(session.output.color));
    }
    let agent = checked.agent.map(|name| format!("agent {name}, ")).unwrap_or_default();
    let peers = if checked.peers == 1 { "1 peer".to_owned() } else { format!("{} peers", checked.peers) };
    session
        .output
        .result(&checked, || format!("{} is valid: {agent}interface {}, {peers}", path.display(), checked.interface));
    Ok(ExitCode::SUCCESS)
}

/// Reports a config that has errors. With `--json` the problems are listed instead of drawn.
fn refused(session: &Session, error: &ConfigError) -> Result<ExitCode, Failure> {
    let failure = Failure::from(error);
    if !session.output.json {
        let details = failure.details.as_ref().map(|_| error.render(session.output.color));
        return Err(Failure { details, ..failure });
    }
    let code = failure.code.exit_code();
    let problems = error.problems().iter().map(found).collect();
    let failure = FailureBody { details: None, ..failure.into() };
    session.output.offer_json(&Refused { failure, problems });
    Ok(ExitCode::from(code))
}

fn found(problem: &Problem) -> Found<'_> {
    Found {
        kind: problem.kind,
        message: &problem.message,
        hint: problem.hint.as_deref(),
        line: problem.line,
        column: problem.column,
    }
}

/// The first config for a host with these virtual IPs.
fn begun_with(addresses: &[IpNet]) -> Template {
    let template = Template::default();
    if addresses.is_empty() { template } else { Template { addresses: addresses.to_vec(), ..template } }
}

/// Writes a config that works unchanged, and its key.
fn init(session: &Session, file: &Path, addresses: &[IpNet]) -> Result<(), Failure> {
    // A dangling link also occupies the name.
    if file.symlink_metadata().is_ok() {
        return Err(file_failure("write", file, &std::io::ErrorKind::AlreadyExists.into()));
    }
    let key_file = file.with_extension("key");
    let public = existing_or_new_key(&key_file)?;
    let template = Template {
        private_key_file: key_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        public_key: Some(public.clone()),
        ..begun_with(addresses)
    };
    let template = match config::interface_name_of(file) {
        Some(name) => Template { name, ..template },
        None => template,
    };
    files::write_new(file, &config::template(&template)).map_err(|error| file_failure("write", file, &error))?;
    let made = Made {
        schema: "overlay.config-init.v1",
        config: file,
        interface: &template.name,
        private_key_file: &key_file,
        public_key: &public,
    };
    session.output.result(&made, || public.clone());
    session.output.say(&next_steps(&made));
    Ok(())
}

fn next_steps(made: &Made<'_>) -> String {
    let Made { config, interface, private_key_file, .. } = made;
    let (config_file, key_file) = (config.display(), private_key_file.display());
    let mut text = format!("wrote {config_file} and {key_file}; the line above is this host's public key\n");
    if config::interface_name_of(config).is_none() {
        text += &format!("the interface is named {interface}, since the file's own name cannot be an interface's\n");
    }
    text + &format!("hint: add your peers, then: sudo overlay up {}", config::argument_for(config))
}

/// The public key of the private key in this file. The key is created if the file is missing.
fn existing_or_new_key(file: &Path) -> Result<String, Failure> {
    let key = if file.exists() {
        let text = files::read_key(file).map_err(|error| file_failure("read", file, &error))?;
        PrivateKey::from_base64(text.trim()).map_err(|error| {
            Failure::new(ExitKind::Config, format!("the private key in `{}` {error}", file.display()))
                .with_hint("move it away, or give the config a different name")
        })?
    } else {
        let key = PrivateKey::generate();
        files::write_secret(file, &key.to_base64()).map_err(|error| file_failure("write", file, &error))?;
        key
    };
    Ok(keys::encode_public(&key.public()))
}

#[cfg(test)]
mod tests;
