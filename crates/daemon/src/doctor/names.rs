//! Judges whether the programs of this host find agents by name.
//!
//! The daemon knows what it has told whom. Whether that arrives depends on the host's resolver, so this agent's own name is
//! looked up as a program does it.

use std::net::IpAddr;

use super::finding::{Code, Finding, Severity};
use crate::names::{AMBIGUOUS, HOSTS_WARNING, PORT, RESOLVED_WARNING, Shown};
use crate::warnings::StatusWarning;

/// What is known of names.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) shown: Shown,
    /// This agent's full name.
    pub(super) name: String,
    /// The addresses by which a program finds it, or why it finds none.
    pub(super) found: Result<Vec<IpAddr>, String>,
    /// Those that it has.
    pub(super) own: Vec<IpAddr>,
}

/// Whether a warning of the daemon is about names.
pub(super) fn is_about(warning: &StatusWarning) -> bool {
    code_of(warning).is_some()
}

/// How names stand, for people.
pub(super) fn told(names: &Names) -> String {
    format!("NAME.{}, by {}; agents: {}", names.shown.domain, names.shown.way, names.shown.agents)
}

/// Judges what the daemon warns about, and what a program finds.
pub(super) fn judge(warnings: &[StatusWarning], names: Option<&Names>) -> Vec<Finding> {
    let warned = warnings.iter().filter_map(|warning| Some(of(code_of(warning)?, warning)));
    let mut findings: Vec<_> = warned.collect();
    // What the daemon warns about explains why a program finds nothing.
    let explains = |finding: &Finding| finding.code != Code::NameAmbiguous;
    if let Some(names) = names.filter(|_| !findings.iter().any(explains)) {
        findings.extend(not_found(names));
    }
    findings
}

fn not_found(names: &Names) -> Option<Finding> {
    let cause = match &names.found {
        Ok(found) if found.iter().any(|address| names.own.contains(address)) => return None,
        Ok(found) if found.is_empty() => "the host's resolver has no address for it".to_owned(),
        Ok(found) => format!("the host's resolver says that it is {}", found[0]),
        Err(error) => format!("the host's resolver says: {error}"),
    };
    let fix = match names.shown.way.as_str() {
        "resolved" => {
            "sudo ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf, or add `resolve` to `hosts:` of /etc/nsswitch.conf"
        }
        _ => "grep overlay /etc/hosts; if our block is there, `hosts:` of /etc/nsswitch.conf lacks `files`",
    };
    let what = format!("programs of this host do not find this agent as {}", names.name);
    Some(Finding::new(Code::NamesNotFound, Severity::Warning, what, cause, fix))
}

fn code_of(warning: &StatusWarning) -> Option<Code> {
    match &*warning.kind {
        PORT => Some(Code::NamesPort),
        RESOLVED_WARNING => Some(Code::NamesNotTold),
        HOSTS_WARNING => Some(Code::NamesNotWritten),
        AMBIGUOUS => Some(Code::NameAmbiguous),
        _ => None,
    }
}

fn of(code: Code, warning: &StatusWarning) -> Finding {
    let cause = match code {
        Code::NamesPort => "a program that serves names on every address has the port, as dnsmasq and named do",
        Code::NamesNotTold => "the names of agents are answered, but systemd-resolved does not ask for them",
        Code::NamesNotWritten => "the names of agents are answered, but /etc/hosts does not have them",
        _ => "an agent chooses its own name, and two rendezvous may each give it to somebody",
    };
    let fix = warning.hint.clone().unwrap_or_else(|| "overlay status shows it".to_owned());
    Finding::new(code, Severity::Warning, warning.message.clone(), cause, fix)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const OWN: [u8; 4] = [10, 99, 0, 1];

    fn names(way: &str, found: Result<Vec<[u8; 4]>, &str>) -> Names {
        Names {
            shown: Shown {
                domain: "lab.overlay.internal".to_owned(),
                way: way.to_owned(),
                servers: vec![OWN.into()],
                agents: 2,
                ambiguous: Vec::new(),
                shadowed: Vec::new(),
                questions: BTreeMap::new(),
            },
            name: "alice.lab.overlay.internal".to_owned(),
            found: found.map(|found| found.into_iter().map(IpAddr::from).collect()).map_err(str::to_owned),
            own: vec![OWN.into()],
        }
    }

    fn told_of(warnings: &[StatusWarning], names: &Names) -> Vec<(Code, String)> {
        judge(warnings, Some(names)).into_iter().map(|finding| (finding.code, finding.cause)).collect()
    }

    #[test]
    fn a_program_that_does_not_find_us_says_why() {
        assert_eq!(told_of(&[], &names("hosts", Ok(vec![OWN]))), []);
        for (found, cause) in [
            (Ok(vec![]), "the host's resolver has no address for it"),
            (Ok(vec![[192, 0, 2, 7]]), "the host's resolver says that it is 192.0.2.7"),
            (Err("Name or service not known"), "the host's resolver says: Name or service not known"),
        ] {
            assert_eq!(told_of(&[], &names("resolved", found)), [(Code::NamesNotFound, cause.to_owned())]);
        }
    }

    #[test]
    fn what_the_daemon_warns_about_explains_it() {
        let nothing = names("resolved", Err("Name or service not known"));
        for (kind, code) in
            [(PORT, Code::NamesPort), (RESOLVED_WARNING, Code::NamesNotTold), (HOSTS_WARNING, Code::NamesNotWritten)]
        {
            let found = told_of(&[StatusWarning::new(kind, "it does not work", "do this")], &nothing);
            assert_eq!(found.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [code]);
        }
        let two = told_of(&[StatusWarning::new(AMBIGUOUS, "two are called `bob`", "choose")], &nothing);
        let codes: Vec<_> = two.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [Code::NameAmbiguous, Code::NamesNotFound], "that does not explain it");
    }
}
