//! Judges the daemon: whether it runs, and what would refuse its start.

use super::commands::Commands;
use super::finding::{Code, Finding, Severity};
use crate::failure::{ExitKind, Failure};

/// What a user does who may not look.
const SUDO: &str = "run the same command with sudo";

/// What became of asking the daemon.
#[derive(Debug)]
pub(super) enum Daemon {
    Runs,
    Stopped(Failure),
    Silent(Failure),
    /// This user may not ask it.
    Hidden(Failure),
}

/// What was seen, and what a start would be refused for.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) daemon: Daemon,
    pub(super) commands: Commands,
    /// Whether root looks.
    pub(super) is_root: bool,
    pub(super) config: Option<Failure>,
    pub(super) state: Option<Failure>,
    pub(super) foreign: Option<Failure>,
    pub(super) net_admin: Option<Failure>,
    pub(super) tun: Option<Failure>,
    /// What is taken already: a name, a port, an address or a route.
    pub(super) taken: Option<Failure>,
}

impl Start {
    /// A daemon about whose start nothing is known.
    pub(super) fn of(daemon: Daemon, commands: Commands, is_root: bool) -> Self {
        Self {
            daemon,
            commands,
            is_root,
            config: None,
            state: None,
            foreign: None,
            net_admin: None,
            tun: None,
            taken: None,
        }
    }
}

/// Judges it. A daemon that does not run comes last: the other findings may say why.
pub(super) fn judge(start: &Start) -> Vec<Finding> {
    let name = &start.commands.name;
    let error = |code, failure: &Failure, fix: &str| Finding::of(code, Severity::Error, failure, fix);
    let mut findings = Vec::new();
    if let Some(failure) = &start.config {
        findings.push(match failure.code {
            ExitKind::Permission => error(Code::MayNotLook, failure, SUDO),
            _ => error(Code::Config, failure, &format!("overlay config check {name}")),
        });
    }
    if let Some(failure) = &start.state {
        let (code, fix) = match failure.code {
            ExitKind::Permission if !start.is_root => (Code::MayNotLook, SUDO),
            ExitKind::Permission => (Code::StatePermissions, "give the folder and its files to root alone"),
            ExitKind::NotFound => (Code::NoIdentity, "overlay init makes one"),
            _ => (Code::StateDamaged, "restore the folder from a backup"),
        };
        let finding = error(code, failure, fix);
        // What helps root does not help a different user.
        findings.push(if code == Code::MayNotLook { Finding { fix: fix.to_owned(), ..finding } } else { finding });
    }
    if let Some(failure) = &start.foreign {
        let fix = format!(
            "if the folder was moved here for good: sudo overlay up -d {name} --adopt; if it is a copy, remove it and its config, and \
             make a new agent: sudo overlay init"
        );
        findings.push(Finding { fix, ..error(Code::ForeignState, failure, "") });
    }
    let tun = start.tun.iter().map(|failure| (Code::NoTun, failure));
    let net_admin = start.net_admin.iter().map(|failure| (Code::NoNetAdmin, failure));
    let taken = start.taken.iter().map(|failure| (Code::CannotStart, failure));
    findings.extend(net_admin.chain(tun).chain(taken).map(|(code, failure)| error(code, failure, "see the cause")));
    let up = start.commands.start();
    findings.extend(match &start.daemon {
        Daemon::Runs => None,
        Daemon::Stopped(failure) => Some(Finding { fix: up, ..error(Code::NoDaemon, failure, "") }),
        Daemon::Silent(failure) => Some(error(
            Code::DaemonSilent,
            failure,
            &format!("look into its log; if it hangs, end its process and start it again: {up}"),
        )),
        Daemon::Hidden(failure) => Some(error(Code::MayNotLook, failure, SUDO)),
    });
    findings
}

/// How it is, for people.
pub(super) fn told(start: &Start) -> &'static str {
    match start.daemon {
        Daemon::Runs => "runs",
        Daemon::Stopped(_) => "does not run",
        Daemon::Silent(_) => "does not answer",
        Daemon::Hidden(_) => "may not be asked by this user",
    }
}
