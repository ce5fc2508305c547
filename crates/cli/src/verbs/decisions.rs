//! `overlay decisions`: the decisions about trust, and who made them.

use overlay_daemon::Failure;
use overlay_daemon::agent::decisions_log::Decision;
use overlay_daemon::agent::request;

use crate::arguments::agent::Decisions;
use crate::figures::until;
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Decisions) -> Result<(), Failure> {
    let client = session.client(arguments.on.interface.as_deref(), "overlay decisions -I")?;
    let asked = request::Decisions { peer: arguments.peer.clone(), last: Some(arguments.last) };
    let answer = session.block_on(client.decisions(&asked))?;
    session.output.result(&answer, || text(&answer.logged.decisions));
    let unwritten = answer.logged.unwritten;
    if unwritten > 0 {
        session.output.say(&format!("{unwritten} decisions since the daemon started are not in the log: see its log"));
    }
    Ok(())
}

/// The newest comes last, as in a log.
fn text(decisions: &[Decision]) -> String {
    if decisions.is_empty() {
        return "no decisions".to_owned();
    }
    let row = |decision: &Decision| {
        let until = match (&decision.allow, decision.expires) {
            (None, _) => "-".to_owned(),
            (Some(_), None) => "it is taken back".to_owned(),
            (Some(_), Some(at)) => until(at, decision.unix_ms / 1_000),
        };
        [
            inert::text(&decision.time),
            inert::text(&decision.by()),
            inert::text(&decision.decision),
            columns::agent(&decision.name, &decision.identity),
            columns::key(&decision.identity),
            decision.allow.as_deref().map_or_else(|| "-".to_owned(), columns::scopes),
            until,
        ]
    };
    let header = ["time", "by", "decision", "peer", "key", "may open here", "until"];
    columns::table(header, decisions.iter().rev().map(row))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn each_decision_is_a_line_and_the_newest_is_the_last() {
        let approved = Decision {
            time: "2026-11-28T12:00:00Z".to_owned(),
            unix_ms: 1_795_867_200_000,
            decision: "approved".to_owned(),
            uid: Some(0),
            rule: None,
            name: "bob".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            allow: Some(vec!["tcp/8000".to_owned()]),
            expires: Some(1_795_953_600),
        };
        let expired = Decision {
            time: "2026-11-29T12:00:00Z".to_owned(),
            decision: "expired".to_owned(),
            uid: None,
            rule: Some("expiry".to_owned()),
            allow: None,
            ..approved.clone()
        };
        let odd =
            Decision { name: "b\x1b[31mob\n".to_owned(), allow: Some(Vec::new()), expires: None, ..approved.clone() };
        let shown = text(&[odd, expired, approved]);
        assert_eq!(shown.lines().count(), 4);
        golden("overlay decisions", shown);
        assert_eq!(text(&[]), "no decisions");
    }
}
