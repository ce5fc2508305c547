//! `overlay doctor`: why an agent does not work, and what to do about it.

use std::process::ExitCode;

use overlay_daemon::Failure;
use overlay_daemon::doctor::{self, Finding, Outcome, Report, Wanted};
use overlay_daemon::failure::ExitKind;

use crate::arguments::Doctor;
use crate::inert;
use crate::session::Session;
use crate::verbs::up;

pub(crate) fn run(session: &Session, arguments: &Doctor) -> Result<ExitCode, Failure> {
    let report = doctor::examine(&Wanted {
        argument: arguments.config.clone(),
        config: up::config_path(arguments.config.as_deref(), "doctor"),
        peer: arguments.peer.clone(),
        runtime_dir: session.runtime_dir.clone(),
        state_dir: session.state_dir.clone(),
    })?;
    session.output.result(&report, || text(&report));
    Ok(match report.healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(ExitKind::Degraded.exit_code()),
    })
}

fn text(report: &Report) -> String {
    let checks = report.checks.iter().map(|checked| {
        let mark = match checked.outcome {
            Outcome::Ok | Outcome::Skipped => "",
            Outcome::Warning => " (warning)",
            Outcome::Error => " (error)",
        };
        format!("{:<11} {}{mark}", checked.check.name(), inert::text(&checked.said))
    });
    let checks = checks.collect::<Vec<_>>().join("\n");
    let findings: Vec<_> = report.findings.iter().map(finding).collect();
    match findings.is_empty() {
        true => format!("{checks}\n\nnothing is wrong"),
        false => format!("{checks}\n\n{}", findings.join("\n\n")),
    }
}

fn finding(finding: &Finding) -> String {
    let [what, cause, fix] = [&finding.what, &finding.cause, &finding.fix].map(|line| inert::text(line));
    format!("{}: {what} [{}]\ncause: {cause}\nfix: {fix}", finding.severity.name(), finding.code.name())
}

#[cfg(test)]
mod tests {
    use overlay_daemon::doctor::{Check, Checked, Code, Severity};
    use overlay_golden::golden;

    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        let checked =
            |(check, outcome, said): (Check, Outcome, &str)| Checked { check, outcome, said: said.to_owned() };
        let checks = [
            (Check::Permissions, Outcome::Ok, "enough to ask the daemon"),
            (Check::Rendezvous, Outcome::Error, "no connection to https://192.0.2.9:7447"),
            (Check::Clock, Outcome::Skipped, "not looked at"),
            (Check::Trust, Outcome::Warning, "1 trusted, 1 others; 0 connected"),
        ];
        Report {
            schema: Report::SCHEMA.into(),
            healthy: findings.is_empty(),
            config: None,
            interface: None,
            agent: None,
            checks: checks.map(checked).into(),
            findings,
        }
    }

    #[test]
    fn the_checks_come_first_and_then_each_finding_with_its_fix() {
        let finding = |code: Code, severity, what: &str| Finding {
            code,
            check: code.check(),
            severity,
            what: what.to_owned(),
            cause: "Connection refused".to_owned(),
            fix: "do something".to_owned(),
            peer: None,
        };
        let findings = vec![
            finding(Code::RendezvousUnreachable, Severity::Error, "nobody answers at the rendezvous"),
            finding(Code::Asked, Severity::Warning, "b\x1b[31mob has not approved"),
        ];
        golden("something is wrong", text(&report(findings)));
        golden("nothing is wrong", text(&report(Vec::new())));
    }
}
