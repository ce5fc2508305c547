//! `overlay config`: a config to begin with, a check without effects, and the schema for editors.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use overlay_daemon::Failure;
use overlay_daemon::config::{self, ConfigError, Problem, Template};
use overlay_daemon::failure::{ExitKind, FailureBody};
use overlay_daemon::keys::{self, PrivateKey};
use serde::Serialize;
use zeroize::Zeroizing;

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
    private_key_file: &'a Path,
    public_key: &'a str,
}

pub(crate) fn run(session: &Session, verb: &Config) -> Result<ExitCode, Failure> {
    match verb {
        Config::Init { output: None } => session.output.data(&config::template(&Template::default())),
        Config::Init { output: Some(file) } => init(session, file)?,
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
        peers: config.peers.len(),
        warnings: config.warnings().iter().map(|warning| found(warning.problem())).collect(),
    };
    for warning in config.warnings() {
        session.output.say(&warning.render(session.output.color));
    }
    let peers = if checked.peers == 1 { "1 peer".to_owned() } else { format!("{} peers", checked.peers) };
    session
        .output
        .result(&checked, || format!("{} is valid: interface {}, {peers}", path.display(), checked.interface));
    Ok(ExitCode::SUCCESS)
}

/// With `--json` every problem is listed beside what any failure says.
fn refused(session: &Session, error: &ConfigError) -> Result<ExitCode, Failure> {
    let failure = Failure::from(error);
    if !session.output.json {
        let details = failure.details.as_ref().map(|_| error.render(session.output.color));
        return Err(Failure { details, ..failure });
    }
    let code = failure.code.exit_code();
    let problems = error.problems().iter().map(found).collect();
    session.output.json_line(&Refused { failure: failure.into(), problems });
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

/// A config that works as it is, and its key.
fn init(session: &Session, file: &Path) -> Result<(), Failure> {
    if file.exists() {
        return Err(file_failure("write", file, &std::io::ErrorKind::AlreadyExists.into()));
    }
    let key_file = file.with_extension("key");
    let public = existing_or_new_key(&key_file)?;
    let name = file.file_stem().and_then(|stem| stem.to_str()).filter(|name| is_interface_name(name));
    let template = Template {
        name: name.unwrap_or("overlay0").to_owned(),
        private_key_file: key_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        public_key: Some(public.clone()),
        ..Template::default()
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .and_then(|mut out| out.write_all(config::template(&template).as_bytes()))
        .map_err(|error| file_failure("write", file, &error))?;
    let made =
        Made { schema: "overlay.config-init.v1", config: file, private_key_file: &key_file, public_key: &public };
    session.output.result(&made, || public.clone());
    session.output.say(&format!(
        "wrote {} and {}; the line above is this host's public key\nhint: add your peers, then: sudo overlay up {}",
        file.display(),
        key_file.display(),
        file.display(),
    ));
    Ok(())
}

/// The public key of the private key in this file, which is made if it is missing.
fn existing_or_new_key(file: &Path) -> Result<String, Failure> {
    let key = if file.exists() {
        let text = std::fs::read_to_string(file).map_err(|error| file_failure("read", file, &error))?;
        let text = Zeroizing::new(text);
        PrivateKey::from_base64(text.trim()).map_err(|error| {
            Failure::new(ExitKind::Config, format!("the private key in `{}` {error}", file.display()))
                .with_hint("move it away, or name another config")
        })?
    } else {
        let key = PrivateKey::generate();
        keys::write_secret(file, &key.to_base64()).map_err(|error| file_failure("write", file, &error))?;
        key
    };
    Ok(keys::encode_public(&key.public()))
}

/// What the kernel and a file name both take.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::output::Output;

    fn session() -> Session {
        Session { runtime_dir: "/nonexistent".into(), verbose: 0, output: Output { json: true, color: false } }
    }

    #[test]
    fn a_config_to_begin_with_is_valid_has_its_own_key_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("lab.toml");
        init(&session(), &file).expect("a new config");
        let config = config::Config::load(&file).expect("a valid config");
        assert_eq!(config.interface.name, "lab");
        let key = folder.path().join("lab.key");
        let mode = std::fs::metadata(&key).expect("a key file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let failure = init(&session(), &file).expect_err("it is there already");
        assert_eq!(failure.code, ExitKind::Conflict);
        std::fs::remove_file(&file).expect("it is there");
        let before = std::fs::read(&key).expect("a key");
        init(&session(), &file).expect("a new config");
        assert_eq!(std::fs::read(&key).expect("a key"), before, "a key that exists is kept");
    }

    #[test]
    fn a_file_name_that_is_no_interface_name_is_replaced() {
        for (name, is_one) in
            [("lab", true), ("a-b_c0", true), ("", false), ("sixteen-letters0", false), ("a b", false)]
        {
            assert_eq!(is_interface_name(name), is_one, "{name:?}");
        }
    }
}
