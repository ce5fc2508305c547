//! `overlay key rotate`: a running agent replaces its tunnel key.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{RotateKey, Rotated};

use crate::arguments::agent::On;
use crate::figures::{now, until};
use crate::session::Session;
use crate::{columns, inert};

pub(super) fn run(session: &Session, compromised: bool, on: &On) -> Result<(), Failure> {
    let option = if compromised { " --compromised" } else { "" };
    let client = session.client(on.interface.as_deref(), &format!("sudo overlay key rotate{option} -I"))?;
    let answer = session.block_on(client.rotate_key(&RotateKey { compromised }))?;
    session.output.result(&answer, || text(&answer.rotated, now()));
    Ok(())
}

fn text(rotated: &Rotated, now: u64) -> String {
    let mut lines = vec![("new key", inert::text(&rotated.tunnel_key))];
    match &rotated.former_key {
        None => lines.push(("former key", "answered no more".to_owned())),
        Some(former) => {
            lines.push(("former key", inert::text(former)));
            lines.push(("answered", answered(rotated, now)));
        }
    }
    columns::labelled(&lines)
}

/// For how long the former key is answered.
pub(crate) fn answered(rotated: &Rotated, now: u64) -> String {
    let names = columns::texts(&rotated.waits_for);
    let names = match rotated.waits_for_count.saturating_sub(rotated.waits_for.len()) {
        0 => names,
        more => format!("{names} and {more} more"),
    };
    let at_most = rotated.until.map_or_else(String::new, |at| format!(", at most until {}", until(at, now)));
    format!("until the new key is used by {names}{at_most}")
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    fn rotated(waits_for: &[&str], count: usize) -> Rotated {
        Rotated {
            tunnel_key: "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=".to_owned(),
            former_key: Some("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned()),
            until: Some(1_795_824_000),
            waits_for_count: count,
            waits_for: waits_for.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn both_keys_are_shown_and_what_the_former_one_waits_for() {
        let now = 1_795_824_000 - 30 * 86_400;
        golden("peers", text(&rotated(&["bob", "carol"], 2), now));
        golden("many peers", text(&rotated(&["bob", "carol"], 40), now));
        let alone = Rotated { former_key: None, until: None, ..rotated(&[], 0) };
        golden("no overlap", text(&alone, now));
    }
}
