//! The doctor: why an agent does not work, for the verb `overlay doctor`.
//!
//! `gather` collects facts: it asks a daemon that runs, reads config and state of one that does not, and tries the
//! rendezvous itself. It changes nothing on the host, and ends within [`PATIENCE`]. What follows from the facts is judged
//! apart, by one pure file for each concern:
//!
//! ```text
//! start       config, state folder, rights: does the daemon run, and what refuses its start
//! rendezvous  can it be reached, is it the pinned one, does it take this agent
//! clock       which clock is wrong, and by how much
//! addresses   which family is left out on this host
//! names       do the programs of this host find agents by name
//! trust       who has to do what for a tunnel, and who does not answer
//! ```
//!
//! A finding says what is wrong, why, and what to do. Each code is a row of [`Code`], from which the documentation is
//! made.

mod addresses;
mod clock;
mod commands;
mod finding;
mod gather;
mod names;
mod patience;
mod rendezvous;
mod report;
mod start;
mod stopped;
#[cfg(test)]
mod tests;
mod trust;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use self::finding::{Check, Code, Finding, Severity};
pub use self::gather::{Wanted, examine};
pub use self::report::{Checked, Outcome, Report};
use crate::failure::Failure;
use crate::warnings::StatusWarning;

/// How long everything may take.
pub const PATIENCE: Duration = Duration::from_secs(9);

/// Everything that was found out.
#[derive(Debug)]
struct Facts {
    start: start::Start,
    config: Option<PathBuf>,
    interface: Option<String>,
    /// The agent's name. `None` in static mode, or if it is not known.
    agent: Option<String>,
    /// The peer that a person asks about.
    peer: Option<String>,
    tried: Vec<rendezvous::Tried>,
    standing: Option<rendezvous::Daemon>,
    clocks: Option<clock::Clocks>,
    /// The file with the latest time that the agent has reached.
    mark: String,
    /// The warnings of a daemon, or those that a start would give.
    warnings: Vec<StatusWarning>,
    /// Why neither family can be had.
    no_family: Option<Failure>,
    /// The virtual IPs, as far as they are known.
    addresses: Option<Vec<IpNet>>,
    names: Option<names::Names>,
    peers: Option<trust::Peers>,
}

impl Facts {
    /// Judges all of it.
    fn judge(&self) -> Report {
        let mut findings = start::judge(&self.start);
        findings.extend(rendezvous::judge(&self.tried, self.standing.as_ref(), &self.start.commands));
        findings.extend(self.clocks.iter().flat_map(|clocks| clock::judge(clocks, &self.mark, &self.start.commands)));
        match &self.no_family {
            Some(failure) => findings.push(addresses::neither(failure)),
            None => findings.extend(addresses::judge(&self.warnings)),
        }
        findings.extend(names::judge(&self.warnings, self.names.as_ref()));
        findings.extend(self.peers.iter().flat_map(|peers| trust::judge(peers, self.peer.as_deref())));
        // Stable: within a check, the order is that of its file.
        findings.sort_by_key(|finding| (finding.severity, finding.check));
        let checks = Check::ALL.map(|check| {
            let said = self.said(check);
            let outcome = Outcome::of(check, &findings);
            let outcome = if said.is_none() && outcome == Outcome::Ok { Outcome::Skipped } else { outcome };
            Checked { check, outcome, said: said.unwrap_or_else(|| "not looked at".to_owned()) }
        });
        Report {
            schema: Report::SCHEMA.into(),
            healthy: findings.iter().all(|finding| finding.severity != Severity::Error),
            config: self.config.clone(),
            interface: self.interface.clone(),
            agent: self.agent.clone(),
            checks: checks.into(),
            findings,
        }
    }

    /// How a check stands, for people. `None`: it was not looked at.
    fn said(&self, check: Check) -> Option<String> {
        Some(match check {
            Check::Daemon => start::told(&self.start).to_owned(),
            Check::Permissions => match self.start.daemon {
                start::Daemon::Runs => "enough to ask the daemon".to_owned(),
                start::Daemon::Stopped(_) if self.start.is_root => "enough to start the daemon".to_owned(),
                start::Daemon::Stopped(_) | start::Daemon::Silent(_) | start::Daemon::Hidden(_) => return None,
            },
            Check::Rendezvous if self.tried.is_empty() => return None,
            Check::Rendezvous => self.tried.iter().map(rendezvous::told).collect::<Vec<_>>().join("; "),
            Check::Clock => clock::told(self.clocks.as_ref()?),
            Check::Addresses => {
                let addresses: Vec<_> = self.addresses.as_ref()?.iter().map(|net| net.addr().to_string()).collect();
                if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") }
            }
            Check::Names => names::told(self.names.as_ref()?),
            Check::Trust => trust::told(self.peers.as_ref()?),
        })
    }
}
