//! `overlay explain`: which rule of which side decides whether something may be opened.

use std::process::ExitCode;

use overlay_daemon::Failure;
use overlay_daemon::agent::explain::{self, Explained, Side, Verdict};
use overlay_daemon::failure::ExitKind;

use crate::arguments::agent::Explain;
use crate::figures::{now, until};
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Explain) -> Result<ExitCode, Failure> {
    let Explain { from, to, what, on } = arguments;
    let client = session.client(on.interface.as_deref(), &format!("overlay explain {from} {to} {what} -I"))?;
    let asked = explain::Explain { from: from.clone(), to: to.clone(), what: what.clone() };
    let answer = session.block_on(client.explain(&asked))?;
    session.output.result(&answer, || text(&answer.explained, now()));
    if let Some(hint) = &answer.explained.hint {
        session.output.say(&format!("hint: {}", inert::text(hint)));
    }
    Ok(match answer.explained.verdict {
        Verdict::Allowed | Verdict::PeerDecides => ExitCode::SUCCESS,
        Verdict::Refused => ExitCode::from(ExitKind::Refused.exit_code()),
    })
}

fn text(explained: &Explained, now: u64) -> String {
    let verdict = match explained.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::PeerDecides => "the peer decides",
    };
    let side = match explained.side {
        Side::Here => "this side",
        Side::There => "the peer",
    };
    let mut lines = vec![
        ("verdict", verdict.to_owned()),
        ("decides", format!("{} ({side})", inert::text(&explained.decider))),
        ("why", inert::text(&explained.why)),
    ];
    if let Some(rule) = &explained.rule {
        lines.push(("rule", inert::text(rule)));
    }
    if let Some(allow) = &explained.allow {
        lines.push(("list", columns::scopes(allow)));
    }
    if let Some(since) = explained.since {
        lines.push(("since", until(since, now)));
    }
    if let Some(expires) = explained.expires {
        lines.push(("until", until(expires, now)));
    }
    if let Some(tunnel) = &explained.tunnel {
        lines.push(("tunnel", inert::text(tunnel)));
    }
    columns::labelled(&lines)
}

#[cfg(test)]
mod tests {
    use overlay_daemon::agent::explain::{Party, Reason};
    use overlay_golden::golden;

    use super::*;

    fn refused() -> Explained {
        Explained {
            from: Party { name: "alice".to_owned(), identity: None, is_self: true },
            to: Party { name: "bob".to_owned(), identity: None, is_self: false },
            what: "tcp/22".to_owned(),
            verdict: Verdict::Refused,
            side: Side::There,
            decider: "bob".to_owned(),
            reason: Reason::NotListed,
            why: "the grant of bob for alice does not list tcp/22: it lists icmp".to_owned(),
            rule: None,
            allow: Some(vec!["icmp".to_owned()]),
            since: Some(1_795_824_000),
            expires: None,
            hint: None,
            tunnel: Some("connected".to_owned()),
        }
    }

    #[test]
    fn the_verdict_comes_first_and_then_why() {
        golden("refused", text(&refused(), 1_795_824_060));
        let allowed = Explained {
            verdict: Verdict::Allowed,
            side: Side::Here,
            decider: "ali\x1b[31mce".to_owned(),
            reason: Reason::Listed,
            why: "the grant lists tcp/1-99".to_owned(),
            rule: Some("tcp/1-99".to_owned()),
            expires: Some(1_795_910_400),
            ..refused()
        };
        golden("allowed, by a name that is not one", text(&allowed, 1_795_824_060));
    }
}
