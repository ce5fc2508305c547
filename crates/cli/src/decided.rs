//! What became of a decision about a peer: the output of `handshake`, `approve`, `reject`, `untrust` and `trust`.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::Decided;
use overlay_daemon::api::agent::DecidedAnswer;
use overlay_daemon::failure::ExitKind;
use overlay_wire::signed::MAX_SCOPES;

use crate::arguments::agent::NONE;
use crate::figures::{now, until};
use crate::session::Session;
use crate::{columns, inert};

/// Prints what became of a decision.
pub(crate) fn show(session: &Session, answer: &DecidedAnswer) {
    session.output.result(answer, || text(&answer.decided, now()));
}

/// Says that a key came with a name, if `peer`, as the user typed it, does not say which key is meant.
pub(crate) fn warn_of_name(session: &Session, peer: &str, decided: &Decided) {
    if !names_key(peer, decided) {
        let name = columns::agent(&decided.name, &decided.identity);
        let prefix = columns::key(&decided.identity);
        session.output.say(&format!(
            "hint: {name} was found by name alone: compare the key with `overlay agents` there, or say {name}@{prefix}"
        ));
    }
}

/// Returns what the user grants: `None` if no `--allow` was given, an empty list for `--allow none`.
pub(crate) fn granted(allow: &[String]) -> Result<Option<Vec<String>>, Failure> {
    match allow {
        [] => Ok(None),
        [only] if only == NONE => Ok(Some(Vec::new())),
        scopes if scopes.iter().any(|scope| scope == NONE) => {
            Err(Failure::new(ExitKind::Usage, "`--allow none` cannot be combined with other scopes")
                .with_hint("leave one of them out"))
        }
        scopes => bounded("--allow", scopes).map(Some),
    }
}

/// Returns the scopes, if a request or a grant can hold as many.
pub(crate) fn bounded(option: &str, scopes: &[String]) -> Result<Vec<String>, Failure> {
    if scopes.len() <= MAX_SCOPES {
        return Ok(scopes.to_vec());
    }
    Err(Failure::new(ExitKind::Usage, format!("{} times `{option}` is too often", scopes.len()))
        .with_cause(format!("a request holds at most {MAX_SCOPES} scopes"))
        .with_hint("a range such as tcp/8000-8010 is one scope"))
}

/// Whether what the user typed contains a part of the key.
fn names_key(peer: &str, decided: &Decided) -> bool {
    peer.contains('@') || decided.identity.starts_with(peer)
}

fn text(decided: &Decided, now: u64) -> String {
    let name = columns::agent(&decided.name, &decided.identity);
    let mut lines =
        vec![("state", state(&decided.state, &name)), ("peer", name), ("key", inert::text(&decided.identity))];
    if decided.state != "untrusted" {
        lines.push(("may open", columns::scopes(&decided.allow)));
        lines.push(("until", decided.expires.map_or_else(|| "it is taken back".to_owned(), |at| until(at, now))));
    }
    columns::labelled(&lines)
}

/// The state, and what it means.
fn state(state: &str, name: &str) -> String {
    match state {
        "asked" => format!("asked: {name} has to approve"),
        "approved" => format!("approved: {name} has to agree too"),
        "changed" => format!("changed: this is what {name} may open from now on"),
        "trusted" => "trusted: both sides have agreed".to_owned(),
        "rejected" => format!("rejected: what {name} may open here is as before"),
        "granted" => format!("granted: {name} gets this when it asks"),
        "untrusted" => format!("untrusted: {name} has no tunnel to this host"),
        other => inert::text(other),
    }
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    const IDENTITY: &str = "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq";

    fn decided(state: &str) -> Decided {
        Decided {
            name: "bob".to_owned(),
            identity: IDENTITY.to_owned(),
            state: state.to_owned(),
            allow: vec!["icmp".to_owned(), "tcp/8000".to_owned()],
            expires: Some(1_795_824_000),
        }
    }

    #[test]
    fn each_state_says_what_it_means_and_the_whole_key_is_shown() {
        for state in ["asked", "approved", "changed", "trusted", "granted", "rejected", "untrusted"] {
            golden(state, text(&decided(state), 1_795_824_000 - 86_400));
        }
        let open_ended = Decided { name: String::new(), allow: Vec::new(), expires: None, ..decided("asked") };
        golden("nothing, without an end, without a name", text(&open_ended, 0));
        assert!(
            text(&decided("\x1b[31m"), 0).contains("\\u{1b}[31m"),
            "a state that this build does not know is inert"
        );
    }

    #[test]
    fn a_name_without_a_key_is_not_enough_to_know_the_peer() {
        for (peer, is_key) in
            [("bob", false), ("bob@vqkd3sdpxlgr7a2q", true), (&IDENTITY[..16], true), (IDENTITY, true)]
        {
            assert_eq!(names_key(peer, &decided("asked")), is_key, "{peer}");
        }
    }

    #[test]
    fn no_allow_is_the_default_and_none_is_nothing() {
        let list = |scopes: &[&str]| scopes.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>();
        assert_eq!(granted(&[]), Ok(None));
        assert_eq!(granted(&list(&["none"])), Ok(Some(Vec::new())));
        assert_eq!(granted(&list(&["icmp", "tcp/22"])), Ok(Some(list(&["icmp", "tcp/22"]))));
        assert_eq!(granted(&list(&["icmp", "none"])).expect_err("both").code, ExitKind::Usage);
        assert_eq!(granted(&vec!["icmp".to_owned(); MAX_SCOPES + 1]).expect_err("too many").code, ExitKind::Usage);
        assert!(granted(&vec!["icmp".to_owned(); MAX_SCOPES]).is_ok());
    }
}
