//! The program `overlay` as a library: its command line, one file for each verb, rendering and exit codes.
//!
//! A verb reads its arguments, asks the daemon's library, and passes the result to `output`. Data goes to stdout,
//! messages go to stderr. With `--json`, stdout carries JSON with a `schema` field and stderr only the log. Every error
//! becomes a `Failure`: three lines, or one JSON object, and an exit code.

// A program may read the clock and its environment. The purity lints are for `core`, `wire` and `sim`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod arguments;
mod background;
mod columns;
mod decided;
mod figures;
mod foreground;
mod inert;
mod logging;
mod output;
mod peers;
mod session;
mod table;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::permission;

use arguments::{Arguments, Verb};
use output::Output;
use session::Session;

pub use arguments::command;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = arguments::by_program_name(std::env::args_os().collect());
    match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => run(arguments),
        Err(error) => refuse(&error, &arguments),
    }
}

fn run(arguments: Arguments) -> ExitCode {
    let session = Session::new(&arguments.global);
    logging::start(&arguments.global, &arguments.verb);
    let success = |()| ExitCode::SUCCESS;
    let ended = match arguments.verb {
        Verb::Init(arguments) => verbs::init::run(&session, &arguments).map(success),
        Verb::Up(arguments) => verbs::up::run(&session, &arguments).map(success),
        Verb::Down(arguments) => verbs::down::run(&session, &arguments).map(success),
        Verb::Wg(arguments) => verbs::wg::run(&session, &arguments).map(success),
        Verb::Reload(arguments) => verbs::reload::run(&session, &arguments).map(success),
        Verb::Status(arguments) => verbs::status::run(&session, &arguments).map(success),
        Verb::Doctor(arguments) => verbs::doctor::run(&session, &arguments),
        Verb::Ping(arguments) => verbs::ping::run(&session, &arguments).map(success),
        Verb::Path(arguments) => verbs::path::run(&session, &arguments).map(success),
        Verb::Mtu(arguments) => verbs::mtu::run(&session, &arguments).map(success),
        Verb::Netcheck(arguments) => verbs::netcheck::run(&session, &arguments),
        Verb::Handshake(arguments) => verbs::handshake::run(&session, &arguments).map(success),
        Verb::Pending(arguments) => verbs::pending::run(&session, &arguments).map(success),
        Verb::Approve(arguments) => verbs::approve::run(&session, &arguments).map(success),
        Verb::Reject(arguments) => verbs::reject::run(&session, &arguments).map(success),
        Verb::Untrust(arguments) => verbs::untrust::run(&session, &arguments).map(success),
        Verb::Trust(arguments) => verbs::trust::run(&session, &arguments).map(success),
        Verb::Agents(arguments) => verbs::agents::run(&session, &arguments).map(success),
        Verb::Explain(arguments) => verbs::explain::run(&session, &arguments),
        Verb::Rules(arguments) => verbs::rules::run(&session, &arguments).map(success),
        Verb::Decisions(arguments) => verbs::decisions::run(&session, &arguments).map(success),
        Verb::Events(arguments) => verbs::events::run(&session, &arguments).map(success),
        Verb::Find(arguments) => verbs::find::run(&session, &arguments).map(success),
        Verb::Whois(arguments) => verbs::whois::run(&session, &arguments).map(success),
        Verb::Ip(arguments) => verbs::ip::run(&session, &arguments).map(success),
        Verb::Join(arguments) => verbs::join::run(&session, &arguments).map(success),
        Verb::Key(verb) => verbs::key::run(&session, &verb).map(success),
        Verb::Config(verb) => verbs::config::run(&session, &verb),
        Verb::Import(arguments) => verbs::import::run(&session, &arguments),
        Verb::Network(verb) => verbs::network::run(&session, &verb).map(success),
        Verb::Rendezvous(verb) => verbs::rendezvous::run(&session, verb).map(success),
        Verb::Relay(verb) => verbs::relay::run(&session, verb).map(success),
        Verb::Names(role) => verbs::names::run(&role).map(success),
        Verb::Completions(arguments) => verbs::completions::run(&session, &arguments).map(success),
        Verb::Man(arguments) => verbs::man::run(&session, &arguments).map(success),
        Verb::Version => verbs::version::run(&session).map(success),
    };
    ended.unwrap_or_else(|failure| fail(&session.output, failure))
}

/// Handles a command line that was not understood, or that only asks for help.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let output = Output::new(arguments.iter().any(|argument| argument == "--json"));
    fail(&output, arguments::failure(error, arguments))
}

fn fail(output: &Output, failure: Failure) -> ExitCode {
    let code = failure.code.exit_code();
    output.failure(failure);
    ExitCode::from(code)
}

/// The failure to read or write a file that the user named.
fn file_failure(what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => ExitKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ExitKind::Permission,
        std::io::ErrorKind::AlreadyExists => ExitKind::Conflict,
        _ => ExitKind::Other,
    };
    let failure = Failure::new(code, format!("cannot {what} `{}`", path.display()));
    match code {
        ExitKind::Permission => {
            let denied = permission::denied(path);
            failure.with_cause(denied.cause).with_hint(denied.hint)
        }
        ExitKind::Conflict => failure.with_cause("it already exists").with_hint("choose a different file"),
        ExitKind::NotFound => failure.with_cause("no such file or directory"),
        _ => failure.with_cause(error),
    }
}
