//! Judges the addresses: families that are left out on this host, and what else the daemon warns about.

use super::finding::{Code, Finding, Severity};
use super::names;
use crate::agent::KEY_CLONE;
use crate::failure::Failure;
use crate::warnings::StatusWarning;

/// The warnings that other checks tell with more detail.
const TOLD_ELSEWHERE: [&str; 3] = [KEY_CLONE, "clock", "rendezvous"];

/// Judges the warnings of a daemon, or those that a start would give.
pub(super) fn judge(warnings: &[StatusWarning]) -> Vec<Finding> {
    let told = warnings.iter().filter(|warning| !TOLD_ELSEWHERE.contains(&&*warning.kind) && !names::is_about(warning));
    told.map(of).collect()
}

/// Why neither family can be had.
pub(super) fn neither(failure: &Failure) -> Finding {
    Finding::of(Code::NoFamily, Severity::Error, failure, "free one of both")
}

fn of(warning: &StatusWarning) -> Finding {
    let code = match &*warning.kind {
        "ipv6_off" => Code::Ipv6Off,
        "family_left_out" => Code::PoolTaken,
        _ => Code::DaemonWarning,
    };
    let cause = match code {
        Code::Ipv6Off => {
            "net.ipv6.conf.all.disable_ipv6 or net.ipv6.conf.default.disable_ipv6 is 1, as in many containers"
                .to_owned()
        }
        Code::PoolTaken => {
            "an agent does not choose its addresses, so a family whose prefix is in use here is left out".to_owned()
        }
        _ => format!("the daemon warns: {}", warning.kind),
    };
    let fix = warning.hint.clone().unwrap_or_else(|| "overlay status shows it".to_owned());
    Finding::new(code, Severity::Warning, warning.message.clone(), cause, fix)
}
