//! Judges the clocks: this host's, the rendezvous', and the latest time that the agent has reached.
//!
//! Two clocks that differ do not say which one is wrong. What trusted peers have signed says it: no right clock is behind
//! that. Where it does not help, this host's is taken for the wrong one, because the rendezvous serves many agents.

use super::commands::Commands;
use super::finding::{Code, Finding, Severity};
use crate::dates::rfc3339;

/// From here on the other agents and the rendezvous refuse what is signed, in milliseconds.
pub(super) const REFUSED: u64 = 10 * 60 * 1_000;
/// Smaller differences are not told, in milliseconds.
const NEGLIGIBLE: u64 = 60 * 1_000;

/// What is known of the time. All times are milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    pub(super) ours: u64,
    /// How far the clock of each rendezvous is ahead of ours, in milliseconds.
    pub(super) ahead: Vec<(String, i64)>,
    /// The latest time that the agent has reached.
    pub(super) latest: Option<u64>,
    /// The newest time that a trusted peer has signed.
    pub(super) signed_by_peers: Option<u64>,
}

/// Judges them. `mark` is the file with the latest time.
pub(super) fn judge(clocks: &Clocks, mark: &str, daemon: &Commands) -> Vec<Finding> {
    let (agree, differ): (Vec<_>, Vec<_>) =
        clocks.ahead.iter().partition(|(_, ahead)| ahead.unsigned_abs() <= NEGLIGIBLE);
    if let ([], [nearest, ..]) = (&agree[..], &differ[..]) {
        let (_, ahead) = nearest;
        return vec![differs(clocks, *ahead)];
    }
    // Two clocks against one.
    let wrong = differ.iter().map(|(url, ahead)| {
        let evidence = "; that of a different rendezvous agrees with this host";
        Finding { severity: Severity::Warning, ..of_rendezvous(clocks, &format!(" {url}"), *ahead, evidence) }
    });
    wrong.chain(behind_the_mark(clocks, !agree.is_empty(), mark, daemon)).collect()
}

fn behind_the_mark(clocks: &Clocks, is_confirmed: bool, mark: &str, daemon: &Commands) -> Option<Finding> {
    let ours = clocks.ours;
    let behind = clocks.latest.map_or(0, |latest| latest.saturating_sub(ours));
    if behind <= REFUSED {
        return None;
    }
    let reached = rfc3339(ours.saturating_add(behind));
    let (what, cause) = match is_confirmed {
        true => (
            format!("this agent ends grants by a time that is {} ahead of the clock", span(behind)),
            format!("the clock of this host was wrong once: the agent has reached {reached}, which goes on counting"),
        ),
        false => (
            format!("the clock of this host is {} behind the latest time that this agent has reached", span(behind)),
            format!("the clock shows {}, and the agent has reached {reached}", rfc3339(ours)),
        ),
    };
    let again = daemon.restart_after(&format!("sudo rm {mark}"));
    let fix = format!("check the clock: date -u; if it is right: {again}");
    Some(Finding::new(Code::ClockMark, Severity::Warning, what, cause, fix))
}

/// No rendezvous agrees with this host.
fn differs(clocks: &Clocks, ahead: i64) -> Finding {
    let (ours, theirs) = (clocks.ours, clocks.ours.saturating_add_signed(ahead));
    let is_behind_peers =
        |time: u64| clocks.signed_by_peers.is_some_and(|signed| signed > time.saturating_add(REFUSED));
    if is_behind_peers(theirs) && !is_behind_peers(ours) {
        return of_rendezvous(clocks, "", ahead, "; trusted peers have signed later times than that");
    }
    let evidence =
        if is_behind_peers(ours) { "; trusted peers have signed later times than that of this host" } else { "" };
    let direction = if ahead > 0 { "behind" } else { "ahead of" };
    Finding::new(
        Code::Clock,
        severity(ahead),
        format!(
            "the clock of this host is wrong: it is {} {direction} that of the rendezvous",
            span(ahead.unsigned_abs())
        ),
        format!("{}{evidence}", both(clocks, ahead)),
        "set the clock: sudo timedatectl set-ntp true; if this clock is right after all, that of the rendezvous is wrong",
    )
}

fn of_rendezvous(clocks: &Clocks, which: &str, ahead: i64, evidence: &str) -> Finding {
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::new(
        Code::RendezvousClock,
        severity(ahead),
        format!(
            "the clock of the rendezvous{which} is wrong: it is {} {direction} that of this host",
            span(ahead.unsigned_abs())
        ),
        format!("{}{evidence}", both(clocks, ahead)),
        "tell the operator of the rendezvous to set its clock",
    )
}

fn severity(ahead: i64) -> Severity {
    if ahead.unsigned_abs() > REFUSED { Severity::Error } else { Severity::Warning }
}

fn both(clocks: &Clocks, ahead: i64) -> String {
    let theirs = clocks.ours.saturating_add_signed(ahead);
    format!("this host shows {}, and the rendezvous {}", rfc3339(clocks.ours), rfc3339(theirs))
}

/// How far the clock of the nearest rendezvous is from ours, for people.
pub(super) fn told(clocks: &Clocks) -> String {
    match clocks.ahead.iter().map(|(_, ahead)| *ahead).min_by_key(|ahead| ahead.unsigned_abs()) {
        None => "not compared: no rendezvous tells its time".to_owned(),
        Some(ahead) if ahead.unsigned_abs() < 1_000 => "agrees with that of the rendezvous".to_owned(),
        Some(ahead) => {
            let direction = if ahead > 0 { "behind" } else { "ahead of" };
            format!("{} {direction} that of the rendezvous", span(ahead.unsigned_abs()))
        }
    }
}

/// A length of time in its largest unit, and the next one below: `3 d 4 h`.
fn span(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = milliseconds / 1_000;
    let at = UNITS.iter().position(|(length, _)| seconds >= *length).unwrap_or(UNITS.len() - 1);
    let (length, unit) = UNITS[at];
    let rest = UNITS.get(at + 1).map(|(next, unit)| (seconds % length / next, unit)).filter(|(count, _)| *count > 0);
    match rest {
        Some((count, smaller)) => format!("{} {unit} {count} {smaller}", seconds / length),
        None => format!("{} {unit}", seconds / length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 86_400_000;
    const NOW: u64 = 20_700 * DAY as u64;

    fn codes(ahead: &[i64], latest: i64, signed: Option<i64>) -> Vec<(Code, Severity)> {
        let ahead = ahead.iter().map(|ahead| ("https://rv:7447".to_owned(), *ahead)).collect();
        let at = |ahead: i64| NOW.saturating_add_signed(ahead);
        let clocks = Clocks { ours: NOW, ahead, latest: Some(at(latest)), signed_by_peers: signed.map(at) };
        let daemon = Commands { name: "alice".to_owned(), is_service: false };
        let findings = judge(&clocks, "/var/lib/overlay/lab/time", &daemon);
        findings.iter().map(|finding| (finding.code, finding.severity)).collect()
    }

    #[test]
    fn which_clock_is_wrong_follows_from_the_others() {
        use Severity::{Error, Warning};
        assert_eq!(codes(&[MINUTE], 0, None), []);
        assert_eq!(codes(&[2 * MINUTE], 0, None), [(Code::Clock, Warning)]);
        assert_eq!(codes(&[10 * MINUTE + 1], 0, None), [(Code::Clock, Error)]);
        assert_eq!(codes(&[-DAY], 0, None), [(Code::Clock, Error)]);
        assert_eq!(codes(&[DAY], 0, Some(DAY)), [(Code::Clock, Error)]);
        assert_eq!(codes(&[-DAY], 0, Some(0)), [(Code::RendezvousClock, Error)]);
        assert_eq!(codes(&[-2 * DAY], 0, Some(3 * DAY)), [(Code::Clock, Error)], "both are behind the peers");
        assert_eq!(codes(&[0, DAY], 0, None), [(Code::RendezvousClock, Warning)], "two against one");
        assert_eq!(codes(&[DAY, DAY], 0, None), [(Code::Clock, Error)], "two against this host");
    }

    #[test]
    fn a_mark_ahead_of_the_clock_is_told_unless_the_clock_is_what_is_wrong() {
        assert_eq!(codes(&[0], 10 * MINUTE, None), []);
        assert_eq!(codes(&[0], 11 * MINUTE, None), [(Code::ClockMark, Severity::Warning)]);
        assert_eq!(codes(&[], 11 * MINUTE, None), [(Code::ClockMark, Severity::Warning)]);
        assert_eq!(codes(&[DAY], DAY, None), [(Code::Clock, Severity::Error)]);
    }

    #[test]
    fn spans_have_at_most_two_units() {
        const DAY: u64 = 86_400_000;
        for (milliseconds, text) in
            [(0, "0 s"), (61_000, "1 min 1 s"), (DAY, "1 d"), (400 * DAY + 3_600_000, "400 d 1 h")]
        {
            assert_eq!(span(milliseconds), text);
        }
    }
}
